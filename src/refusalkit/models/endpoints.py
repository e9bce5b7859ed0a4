"""Where a model is asked: at its provider, or at an endpoint of one's own."""

from __future__ import annotations

import os

from refusalkit.models.prices import Price, price_of

OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""The base URLs of the providers that have a back end of their own here."""

# The environment variables that name another base, the first that is set; litellm knows more.
_VARIABLES = {"openai": ("OPENAI_BASE_URL",), "anthropic": ("ANTHROPIC_BASE_URL",)}
_LITELLM_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
}


def own_base(model_id: str, api_base: str | None, via: str | None = None) -> str | None:
    """The base URL of the endpoint of one's own that a model is asked at; None: its provider's.

    It is `api_base`, or else what the environment says for a model of OpenAI or Anthropic.
    """
    provider = model_id.partition("/")[0]
    variables = (_LITELLM_VARIABLES if via == "litellm" else _VARIABLES).get(provider, ())
    named = (api_base or "", *(os.environ.get(name, "") for name in variables))
    base = next((text.strip() for text in named if text.strip()), None)
    official = OFFICIAL.get(provider)
    return None if base is None or base.rstrip("/") == official else base


def price_at(model_id: str, api_base: str | None, via: str | None = None) -> Price | None:
    """The list price of a model where it is asked; None where it is unknown.

    An endpoint of one's own does not charge its namesake's price.
    """
    return None if own_base(model_id, api_base, via) else price_of(model_id)
