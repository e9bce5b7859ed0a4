"""Merges the options that were given into a `RunConfig`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from refusalkit.config.layers import Layer
from refusalkit.config.placement import PLACEMENT_NAMES
from refusalkit.config.presets import preset_options
from refusalkit.config.run_config import OPTION_NAMES, RunConfig
from refusalkit.errors import ConfigurationChanged, ConfigurationError
from refusalkit.untrusted import printable

VARIABLES = "REFUSALKIT_"
"""The prefix of environment variables that hold an option, such as REFUSALKIT_JUDGE_MODEL."""


def resolve_config(
    options: Mapping[str, Any] | Layer,
    *,
    base: RunConfig | None = None,
) -> RunConfig:
    """Merge options over a preset over the defaults.

    `options` holds only what was given. With `base` (the configuration of a run being resumed) its
    values take the place of preset and defaults. Placement options in a `Layer` are ignored. Raises
    `ConfigurationError`, which names the field and where it was given.
    """
    given = options.without(*PLACEMENT_NAMES) if isinstance(options, Layer) else Layer(options)
    if base is not None:
        merged = {**base.model_dump(mode="python"), **given.values}
    else:
        merged = {**preset_options(given.values), **given.values}
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = printable(first["msg"].removeprefix("Value error, "))
        if first["type"] == "extra_forbidden":
            what = "is not a known field"
        field, *inside = map(str, first["loc"]) if first["loc"] else ("",)
        place = given.where.get(field)
        if place is None:
            place, inside = "the configuration", [field, *inside]
        elif not place.startswith(("-", VARIABLES)):
            # A file's line names the option.
            inside = [OPTION_NAMES[field].removeprefix("--"), *inside]
        name = printable(".".join(filter(None, inside)))
        raise ConfigurationError(": ".join(filter(None, (place, name, what)))) from error


def check_option(name: str, value: Any) -> Any:
    """The value of one option, checked and converted. Raises `ConfigurationError`, naming it."""
    return getattr(resolve_config({"model": "demo/open", name: value}), name)


def check_unchanged(started: RunConfig, now: RunConfig) -> None:
    """Raise `ConfigurationChanged`, naming the first field that differs in what is measured."""
    before, after = started.measured, now.measured
    for name in before | after:
        was, is_now = before.get(name), after.get(name)
        if is_now != was:
            regrade = ", or judge its answers again with `refusalkit regrade`"
            raise ConfigurationChanged(
                f"{name} is {_in_words(is_now)}, but the run was started with {_in_words(was)}: "
                f"start a new run to change it{regrade if name.startswith('judge') else ''}"
            )


def _in_words(value: Any) -> str:
    return "its default" if value is None else printable(json.dumps(value), 80)
