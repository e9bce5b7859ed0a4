"""Suggests the provider that was meant by an unknown provider's name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from refusalkit.models.prices import listed_provider
from refusalkit.untrusted import printable

OWN = ("anthropic", "demo", "hosted_vllm", "openai")
"""Providers that need no litellm."""

_MAX_OFFERED = 2


def meant(model_id: str, known: Iterable[str]) -> str | None:
    """``did you mean ...?`` for a model id with an unknown provider; None where nothing is near.

    `known` are the providers that exist.
    """
    provider, slash, name = model_id.partition("/")
    if not slash:
        listed = listed_provider(model_id)
        return _question([f"{listed}/{model_id}"]) if listed in OWN else None
    folded = provider.casefold()
    all_known = sorted({*OWN, *known})
    near = [one for one in _other_names().get(folded, ()) if one in all_known]
    near += difflib.get_close_matches(folded, all_known, _MAX_OFFERED, cutoff=0.75)
    offered = list(dict.fromkeys(near))[:_MAX_OFFERED]
    return _question([f"{one}/{name}" for one in offered]) if offered else None


def _question(ids: Iterable[str]) -> str:
    return f"did you mean {' or '.join(printable(one, 120) for one in ids)}?"


@cache
def _other_names() -> Mapping[str, list[str]]:
    text = (resources.files("refusalkit.models") / "provider_names.toml").read_text("utf-8")
    return tomllib.loads(text)
