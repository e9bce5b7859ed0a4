"""Where a model is asked, at its provider or at an endpoint of one's own, and the pace there."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from urllib.parse import urlsplit

from refusalkit.errors import ConfigurationError
from refusalkit.models.pacing import Pacer
from refusalkit.models.prices import Price, price_of
from refusalkit.models.request_form import RequestForm

OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""The base URLs of the providers that have a back end of their own here."""

# Environment variables that name another base URL; the first that is set counts. litellm has more.
_VARIABLES = {"openai": ("OPENAI_BASE_URL",), "anthropic": ("ANTHROPIC_BASE_URL",)}
_LITELLM_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
}


def own_base(model_id: str, api_base: str | None, via: str | None = None) -> str | None:
    """The base URL of the endpoint of one's own that a model is asked at; None: its provider's.

    It is `api_base`, else the environment's base URL for a model of OpenAI or Anthropic.
    """
    variable = base_variable(model_id, via)
    base = (api_base or "").strip() or (os.environ[variable].strip() if variable else "")
    official = OFFICIAL.get(model_id.partition("/")[0])
    return None if not base or base.rstrip("/") == official else base


def base_variable(model_id: str, via: str | None = None) -> str | None:
    """The environment variable that names a model's base URL, where one is set."""
    variables = _LITELLM_VARIABLES if via == "litellm" else _VARIABLES
    names = variables.get(model_id.partition("/")[0], ())
    return next((name for name in names if os.environ.get(name, "").strip()), None)


def is_loopback(base: str) -> bool:
    """Whether a URL leads to this machine: no proxy is used for it."""
    return urlsplit(base).hostname in ("localhost", "127.0.0.1", "::1")


def price_at(model_id: str, api_base: str | None, via: str | None = None) -> Price | None:
    """The list price of a model where it is asked; None where it is unknown.

    An endpoint of one's own does not charge its namesake's price.
    """
    return None if own_base(model_id, api_base, via) else price_of(model_id)


class Pacers:
    """The pacer of each endpoint, for runs side by side: runs at one endpoint share its pace."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, tuple[Pacer, Mapping[str, float | None]]] = {}
        self._forms: dict[Hashable, RequestForm] = {}

    def share(self, endpoint: Hashable, pacer: Pacer, limits: Mapping[str, float | None]) -> Pacer:
        """The endpoint's pacer, `pacer` if it is the first. `limits` are its options, by name.

        Raises `ConfigurationError` where they differ from the first one's, which would not keep
        them.
        """
        shared, first = self._shared.setdefault(endpoint, (pacer, limits))
        for name, limit in limits.items():
            if limit != first[name]:
                raise ConfigurationError(
                    f"{name} is {_said(limit)} here and {_said(first[name])} in a table before, "
                    "and both ask one endpoint, which has one pace: give both the same"
                )
        return shared

    def share_form(self, endpoint: Hashable, form: RequestForm) -> RequestForm:
        """What is known of the form that an endpoint takes; `form` if it is the first."""
        return self._forms.setdefault(endpoint, form)


def _said(limit: float | None) -> str:
    return "not set" if limit is None else f"{limit:g}"
