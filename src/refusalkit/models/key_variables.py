"""Which environment variables hold a provider's own key (key_variables.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources


def provider_variables(model_id: str) -> tuple[str, ...]:
    """The variables that hold the key of a model's own provider; empty where none is known."""
    return _known().get(model_id.partition("/")[0], ())


def is_provider_variable(name: str) -> bool:
    """Whether a variable holds the key of some provider of models."""
    return any(name in names for names in _known().values())


@cache
def _known() -> Mapping[str, tuple[str, ...]]:
    text = (resources.files("refusalkit.models") / "key_variables.toml").read_text("utf-8")
    return {provider: tuple(names) for provider, names in tomllib.loads(text).items()}
