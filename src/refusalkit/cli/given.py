"""Collects a command's options from the command line, the environment and files.

The order is defaults < preset < files < environment < command line. Of the files,
`refusalkit.toml` in the current folder, or the file of --config, overrides the one in the user's
configuration folder.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.layers import Layer
    from refusalkit.config.run_config import RunConfig

_LOG = logging.getLogger("refusalkit")
# Our environment variables that are not options.
_OTHER_VARIABLES = ("CACHE", "STATE", "CONFIG", "ENV_FILE", "GITHUB_ENDPOINT", "MAX_UNSCORED")


class Given(NamedTuple):
    """What files say, and what the environment and the command line say over it."""

    in_files: Layer
    said: Layer

    @property
    def all(self) -> Layer:
        """Both."""
        return self.in_files.under(self.said)


def given(options: Mapping[str, Any], *, base: RunConfig | None = None) -> Given:
    """The current command's options, checked.

    `options` are those that click parsed. With `base`, the configuration of a run to be continued,
    the only other sources are --config and, for pace and endpoint, the environment: all other
    options are the run's own. Keys in an --env-file are put into the environment.

    Raises `UsageError` or `ConfigurationError`, which name the place.
    """
    from refusalkit.config.layers import Layer
    from refusalkit.config.placement import EVERY_OPTION, PLACEMENT_NAMES, split_placement
    from refusalkit.config.resolve import resolve_config
    from refusalkit.config.run_config import OPERATIONAL

    context = click.get_current_context()
    _warn_of_unknown_variables()
    by_variable, on_line = _parsed(context, options)
    if base is not None:
        by_variable = by_variable.only(OPERATIONAL | PLACEMENT_NAMES)
    in_files = Layer()
    if "config_file" in options:
        offered = [name for name in EVERY_OPTION if name in options]
        found = base is None and not options.get("no_config")
        in_files = _files(options["config_file"], found=found).only(offered)
    made = Given(in_files, by_variable.under(on_line))
    asked = made.all if base is not None else Layer({"model": "demo/open"}).under(made.all)
    resolve_config(asked, base=base)
    split_placement(asked.values, asked.where)
    for name, value in made.all.values.items():
        shown = f"{len(str(value))} characters" if name in ("system", "extra_body") else value
        place = made.all.where.get(name, "")
        _LOG.debug(f"{EVERY_OPTION[name].removeprefix('--')} = {printable(shown)} ({place})")
    if options.get("env_file") is not None:
        _take_keys(options["env_file"], made.all)
    return made


def _parsed(context: click.Context, options: Mapping[str, Any]) -> tuple[Layer, Layer]:
    """The options in environment variables, and those on the command line."""
    from refusalkit.cli.options import variable_of
    from refusalkit.config.layers import Layer
    from refusalkit.config.placement import EVERY_OPTION

    layers: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    places: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for name, option in EVERY_OPTION.items():
        value = options.get(name)
        if value is None or value == ():
            continue
        number = int(context.get_parameter_source(name) != ParameterSource.ENVIRONMENT)
        place = option if number else variable_of(option)
        layers[number][name] = _json_object(place, value) if name == "extra_body" else value
        places[number][name] = place
    (by_variable, on_line), (named, typed) = layers, places
    return Layer(by_variable, named), Layer(on_line, typed)


def _files(file: str | None, *, found: bool) -> Layer:
    """The options of --config, and with `found` those of the files that are read unasked.

    Raises `ConfigurationError`, also where a file that was found says what it may not.
    """
    from refusalkit.config.layers import Layer
    from refusalkit.config.option_files import CONFIG_FILE, read_config
    from refusalkit.config.placement import EVERY_OPTION

    layer = Layer()
    if found:
        own = Path(click.get_app_dir("refusalkit")) / CONFIG_FILE
        if own.is_file():
            layer = layer.under(read_config(own))
        here = Path(CONFIG_FILE)
        if file is None and here.exists():
            there = read_config(here, found=True)
            names = ", ".join(EVERY_OPTION[name].removeprefix("--") for name in there.values)
            if names:
                _LOG.info(f"options from {CONFIG_FILE} here: {names}")
            layer = layer.under(there)
    return layer if file is None else layer.under(read_config(file))


def _json_object(place: str, text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON: {printable(error)}") from error
    if not isinstance(body, dict):
        raise UsageError(f"{place} must be a JSON object")
    return body


def _take_keys(file: str, options: Layer) -> None:
    from refusalkit.config.env_file import take_keys

    named = {options.values.get(name) for name in ("api_key_env", "judge_api_key_env")}
    left = take_keys(file, [name for name in named if isinstance(name, str)])
    if left:
        names = ", ".join(printable(name, 60) for name in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        _LOG.warning(f"{printable(file)} is read for keys only: {names}{more} left alone")


def _warn_of_unknown_variables() -> None:
    """Warn about a variable that looks like a misspelling of one of ours."""
    from refusalkit.cli.options import variable_of
    from refusalkit.config.placement import EVERY_OPTION
    from refusalkit.config.resolve import VARIABLES

    known = {*map(variable_of, EVERY_OPTION.values()), *(VARIABLES + n for n in _OTHER_VARIABLES)}
    for name in sorted(os.environ):
        if not name.startswith(VARIABLES) or name in known:
            continue
        endings = [each.removeprefix(VARIABLES) for each in known]
        near = difflib.get_close_matches(name.removeprefix(VARIABLES), endings, n=1, cutoff=0.75)
        if near:
            meant = VARIABLES + near[0]
            _LOG.warning(f"{printable(name, 80)} is not an option: did you mean {meant}?")
