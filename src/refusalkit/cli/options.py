"""The options that commands share, and how what was given becomes a configuration.

An option that is a field of `RunConfig` is written there, with its type, default and help.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from refusalkit.config.run_config import Cli, Group

_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number within a range; NaN is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{printable(value)} is not a number.", param, ctx)
        return found


class RunName(click.ParamType[str]):
    """A run: its folder, `@last`, or the beginning of its folder's name or id in runs/."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path of the run; what names none is left to the command, which says so."""
        from refusalkit.runs.naming import find_run

        return find_run(str(value))


RUN = RunName()
opt = click.option


def config_options(
    *groups: Group, only: Sequence[str] = (), file: bool = False, defaults: bool = True
) -> Callable[[_F], _F]:
    """The options of fields of `RunConfig`: those of whole groups, and `only` single ones.

    With `file` also --config; without `defaults` their help leaves the defaults out. The command
    must be a `ConfiguredCommand`, which makes the options when they are first used, so that other
    commands do not wait for `RunConfig` to be imported.
    """

    def make() -> Iterator[click.Option]:
        from refusalkit.config.run_config import RunConfig, options_in

        places = options_in("measured", "judge", "operational", "batch")
        for name, place in places.items():
            if place.group in groups or name in only:
                yield _option(name, place, RunConfig.model_fields[name], shows_default=defaults)
        if file:
            yield click.Option(
                ["--config", "config_file"],
                metavar="FILE",
                help="TOML file with any of these options.",
            )

    def add(function: _F) -> _F:
        declared = function.__dict__.setdefault("__click_params__", [])
        declared.append(_Later(make))
        return function

    return add


class _Later(click.Option):
    """Stands for options that are made when they are needed."""

    def __init__(self, make: Callable[[], Iterator[click.Option]]) -> None:
        super().__init__(["--from-config"], hidden=True)
        self.make = make


class ConfiguredCommand(click.Command):
    """A command with options from `RunConfig`; see `config_options`."""

    _given: list[click.Parameter]

    @property
    def params(self) -> list[click.Parameter]:
        """The command's parameters."""
        if any(isinstance(param, _Later) for param in self._given):
            made: list[click.Parameter] = []
            for param in self._given:
                made += param.make() if isinstance(param, _Later) else [param]
            self._given = made
        return self._given

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._given = params


def _option(name: str, place: Cli, field: FieldInfo, *, shows_default: bool) -> click.Option:
    """The command line's option for a field. Its value is None or () where it is not given."""
    kind, several = _type_of(field)
    default = place.default
    said = isinstance(field.default, int | float | str) and not isinstance(field.default, bool)
    if default is None and said:
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    is_flag = place.flag or kind is bool
    without_value: dict[str, Any] = (
        {} if place.bare is None else {"is_flag": False, "flag_value": place.bare}
    )
    return _ConfigOption(
        [place.name or f"--{name.replace('_', '-')}", name],
        type=None if is_flag else kind,
        **(without_value or {"is_flag": is_flag}),
        multiple=several and not is_flag,
        default=None,
        metavar=place.metavar,
        help="" if default is None or not shows_default else f"[default: {default}]",
    )


class _ConfigOption(click.Option):
    """An option whose help is its field's docstring, read when it is shown."""

    _ending: str

    @property
    def help(self) -> str:
        """The help text."""
        from refusalkit.config.descriptions import field_descriptions

        said = (field_descriptions().get(str(self.name), ""), self._ending)
        return "  ".join(part for part in said if part)

    @help.setter
    def help(self, ending: str) -> None:
        self._ending = ending


def _type_of(field: FieldInfo) -> tuple[Any, bool]:
    """The type that click converts to, and whether the option is repeatable.

    Ranges are left to `RunConfig`, but for those of single items.
    """
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        return _item_type(get_args(kind)[0]), True
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind)), False
    return (str if get_origin(kind) is dict else kind), False


def _item_type(kind: Any) -> Any:
    if get_origin(kind) is not Annotated:
        return kind
    kind, field = get_args(kind)
    bounds = {
        name: getattr(m, name) for m in field.metadata for name in ("ge", "le") if hasattr(m, name)
    }
    return click.IntRange(bounds["ge"], bounds["le"])


trust_folder_option = opt(
    "--trust-folder",
    is_flag=True,
    help="Follow what the folder says about hosts and providers' keys, whoever wrote it.",
)
max_unscored_option = opt(
    "--max-unscored",
    type=Number(0, 100),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="Exit 1 if more units than this have no label.",
)


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as configuration values."""
    given = {
        name: value
        for name, value in options.items()
        if name != "config_file" and value is not None and value != ()
    }
    if "extra_body" in given:
        try:
            body = json.loads(given["extra_body"])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--extra-body is not JSON: {printable(error)}") from error
        if not isinstance(body, dict):
            raise UsageError("--extra-body must be a JSON object")
        given["extra_body"] = body
    return given
