"""Merges what was given into a `RunConfig`, and reads the TOML files that hold it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from refusalkit.config.presets import preset_options
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import ConfigurationChanged, ConfigurationError
from refusalkit.files import read_file
from refusalkit.untrusted import printable

# Bytes of the largest configuration file.
_MAX_TOML = 2**20


def resolve_config(
    options: Mapping[str, Any], *, file: str | Path | None = None, base: RunConfig | None = None
) -> RunConfig:
    """Merge options over a TOML file over a preset over the defaults.

    `options` holds only what was given. With `base` (a run being resumed) its values take the place
    of the defaults. Raises `ConfigurationError`, which names the field.
    """
    from_file = _read_file(Path(file)) if file is not None else {}
    given = {**from_file, **options}
    where = f"{printable(file)} or the command line" if file is not None else "the configuration"
    if base is not None:
        merged = {**base.model_dump(mode="python"), **given}
    else:
        merged = {**preset_options(given), **given}
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            what = "is not a known field"
        field = f"{printable(name)}: " if name else ""
        raise ConfigurationError(f"{where}: {field}{printable(what)}") from error


def check_option(name: str, value: Any) -> Any:
    """One option as a configuration has it. Raises `ConfigurationError`, which names it."""
    return getattr(resolve_config({"model": "demo/open", name: value}), name)


def read_config(file: str | Path) -> dict[str, Any]:
    """The options that a TOML file holds, unchecked. Raises `ConfigurationError`."""
    return _read_file(Path(file))


def read_plan(file: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A plan of several runs: the options of all, and those of each ``[[model]]`` table over them.

    A table holds ``id``, the model, may hold ``folder``, the name of its run's folder, and any
    option. Raises `ConfigurationError`, which names the file and the table.
    """
    common = _read_file(Path(file))
    tables = common.pop("model", None)
    name = printable(file)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigurationError(f"{name}: names no model: write a [[model]] table for each")
    for number, table in enumerate(tables, 1):
        if not isinstance(table.get("id"), str):
            raise ConfigurationError(f'{name}: [[model]] {number}: id is missing: "provider/name"')
        if "model" in table:
            raise ConfigurationError(f"{name}: [[model]] {number}: the model's name is its id")
    return common, tables


def check_unchanged(started: RunConfig, now: RunConfig) -> None:
    """Raise `ConfigurationChanged`, naming the first field, if `now` measures something else."""
    before, after = started.measured, now.measured
    for name in before | after:
        value = before.get(name)
        if after.get(name) != value:
            is_now = printable(json.dumps(after.get(name)), 80)
            raise ConfigurationChanged(
                f"{name} is {is_now}, but the run was started with "
                f"{printable(json.dumps(value), 80)}: start a new run to change it"
            )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, limit=_MAX_TOML).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(
            f"the configuration file {printable(path)} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the configuration file {printable(path)} is not UTF-8 (byte {error.start})"
        ) from error
    except RecursionError as error:
        raise ConfigurationError(
            f"the configuration file {printable(path)} is nested too deeply"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"the configuration file {printable(path)} is not TOML: {printable(error)}"
        ) from error
