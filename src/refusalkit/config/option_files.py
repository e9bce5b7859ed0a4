"""TOML files of options: `refusalkit.toml`, --config and --plan.

Keys are the options of the command line without the leading dashes. A file that is merely found in
a folder may be a stranger's, so it may not say where requests go or which variable holds a key, and
may not name a file outside its folder.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from refusalkit.config.layers import Layer
from refusalkit.config.placement import EVERY_OPTION, PLACES
from refusalkit.errors import ConfigurationError
from refusalkit.files import read_file
from refusalkit.untrusted import printable

CONFIG_FILE = "refusalkit.toml"
"""Read in the current folder, and in the user's own configuration folder."""

# Bytes of the largest configuration file.
_MAX_TOML = 2**20
_FIELDS = {option.removeprefix("--"): field for field, option in EVERY_OPTION.items()}
_STEERS = frozenset(name for name, place in PLACES.items() if place.steers)
# Options whose value may be the path of a file.
_PATHS = ("prompts", "judge", "judge_fallback", "hard_line_judge")
# Options whose value names a model: litellm takes the address of some from their name.
_MODELS = ("judge_model",)


class Planned(NamedTuple):
    """One ``[[model]]`` table of a plan.

    The model's id, the name of its run's folder (unchecked; None if not given), its own options,
    and where the table stands, for messages.
    """

    id: str
    folder: Any
    options: Layer
    place: str


def read_config(file: str | Path, *, found: bool = False) -> Layer:
    """The options that a TOML file holds, their values unchecked.

    `found`: the file was found in a folder, not named by the user, so it may be a stranger's.
    Raises `ConfigurationError`, which names the file and, where it can be told, the line.
    """
    text, data = _read(Path(file))
    name = printable(file)
    if "model" in data:
        place = _place(name, text, "model")
        raise ConfigurationError(
            f"{place}: the model is named on the command line, several with --plan"
        )
    layer = _layer(data, text, name)
    if found:
        _refuse_steering(layer)
    return layer


def read_plan(file: str | Path) -> tuple[Layer, list[Planned]]:
    """Read a plan of several runs: the options that all share, and its ``[[model]]`` tables.

    A table holds ``id``, the model, may hold ``folder``, the name of its run's folder, and any
    option. Raises `ConfigurationError`, which names the file and the line or the table.
    """
    text, data = _read(Path(file))
    name = printable(file)
    tables = data.pop("model", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigurationError(f"{name}: names no model: write a [[model]] table for each")
    # parts[0] holds the options that all share, parts[n] those of table n.
    parts = re.split(r"(?m)^[ \t]*\[\[[ \t]*model[ \t]*\]\]", text)
    common = _layer(data, parts[0], name)
    planned = []
    for number, table in enumerate(tables, 1):
        place = f"{name}: [[model]] {number}"
        identity, folder = table.pop("id", None), table.pop("folder", None)
        if not isinstance(identity, str):
            raise ConfigurationError(f'{place}: id is missing: "provider/name"')
        if "model" in table:
            raise ConfigurationError(f"{place}: give the model as id, not as model")
        place = f"{place} ({printable(identity)})"
        if len(parts) == len(tables) + 1:
            above = "".join(parts[:number])
            own = _layer(table, parts[number], name, after=above.count("\n"))
        else:  # such as model = [{id = ...}]: no line can be told
            own = _layer(table, "", place)
        planned.append(Planned(identity, folder, own, place))
    return common, planned


def _layer(data: Mapping[str, Any], text: str, name: str, after: int = 0) -> Layer:
    values, where = {}, {}
    for key, value in data.items():
        place = _place(name, text, key, after)
        field = _FIELDS.get(key)
        if field is None:
            near = difflib.get_close_matches(key.replace("_", "-"), _FIELDS, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"{place}: {printable(key, 80)} is not an option{hint}")
        values[field], where[field] = value, place
    return Layer(values, where)


def _place(name: str, text: str, key: str, after: int = 0) -> str:
    """The file, with the line that sets a top-level key where it can be found."""
    quoted = re.escape(key)
    given = rf"""(?m)^[ \t]*\[{{0,2}}[ \t]*["']?{quoted}["']?[ \t]*[].=]"""
    if (found := re.search(given, text)) is None:
        return name
    line = text.count("\n", 0, found.start()) + 1 + after
    return f"{name}:{line}"


def _refuse_steering(layer: Layer) -> None:
    """Refuse options that only the person who runs the command may give."""
    for name, value in layer.values.items():
        place, option = layer.where[name], EVERY_OPTION[name].removeprefix("--")
        if name in _STEERS:
            raise ConfigurationError(
                f"{place}: {option} is not taken from a file that was found in the folder, which "
                "may be a stranger's: give it on the command line, in your own configuration or "
                "with --config"
            )
        if name in _PATHS and any(_leaves(part) for part in str(value).split(",")):
            raise ConfigurationError(
                f"{place}: {option} names a place outside the folder, which a file that was found "
                "there may not: give it on the command line or with --config"
            )
        if name in _MODELS and "://" in str(value):
            raise ConfigurationError(
                f"{place}: {option} holds an address, which a file that was found in the folder "
                "may not: give it on the command line or with --config"
            )


def _leaves(source: str) -> bool:
    """Whether a path, or the path after a public set's name, may lead out of the folder."""
    for part in (source.strip(), source.partition(":")[2].strip()):
        for path in (PurePosixPath(part), PureWindowsPath(part)):
            if path.is_absolute() or path.drive or ".." in path.parts or part.startswith("~"):
                return True
        try:
            if not Path(part).resolve().is_relative_to(Path.cwd()):  # by a link
                return True
        except (OSError, ValueError, RuntimeError):  # a name that no file system takes, a loop
            return True
    return "://" in source


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = read_file(path, limit=_MAX_TOML).decode("utf-8-sig")
        return text, tomllib.loads(text)
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
