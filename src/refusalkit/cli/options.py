"""The options that commands share, and how they become a configuration.

An option that is a field of `RunConfig` is written there, with its type, default and help.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from pydantic.fields import FieldInfo

    from refusalkit.config.run_config import Cli, Group

_F = TypeVar("_F", bound=Callable[..., Any])
# They change nothing where no model is asked, so commands that only judge do not show them.
_MODELS_OWN = ("api_base", "api_key_env", "rpm", "tpm")


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
        """The path of the run; if there is none, the command itself reports that."""
        from refusalkit.runs.naming import find_run

        return find_run(str(value))


RUN = RunName()


class Opt(click.Option):
    """An option with the heading below which a long help page lists it."""

    def __init__(self, *args: Any, section: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its completions in a shell."""
        from refusalkit.cli.completing import complete_option

        found = complete_option(self, ctx, incomplete)
        return super().shell_complete(ctx, incomplete) if found is None else found


class Arg(click.Argument):
    """An argument with completion in a shell."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its completions in a shell."""
        from refusalkit.cli.completing import complete_argument

        found = complete_argument(self, ctx, incomplete)
        return super().shell_complete(ctx, incomplete) if found is None else found


opt = functools.partial(click.option, cls=Opt)
arg = functools.partial(click.argument, cls=Arg)


def config_options(
    *groups: Group,
    only: Sequence[str] = (),
    hidden: Collection[str] = (),
    file: bool = False,
    defaults: bool = True,
) -> Callable[[_F], _F]:
    """The options of fields of `RunConfig` and `Placement`: whole groups, and `only` single ones.

    Those of `hidden` are accepted but not in the help. With `file`, the options about configuration
    files are added; without `defaults`, the help does not show defaults. The command must be a
    `ConfiguredCommand`, which makes the options when they are first used, so that other commands
    need not import `RunConfig`.
    """

    def make() -> Iterator[click.Option]:
        from refusalkit.config.placement import PLACES, Placement
        from refusalkit.config.run_config import RunConfig

        fields = {**RunConfig.model_fields, **Placement.model_fields}
        for name, place in PLACES.items():
            if place.group in groups or name in only:
                option = _option(name, place, fields[name], shows_default=defaults)
                option.hidden = name in hidden
                yield option
        if file:
            yield from _file_options()

    def add(function: _F) -> _F:
        declared = function.__dict__.setdefault("__click_params__", [])
        declared.append(_Later(make))
        return function

    return add


def _file_options() -> Iterator[click.Option]:
    from refusalkit.config.run_config import CONFIGURATION

    yield Opt(
        ["--config", "config_file"],
        metavar="FILE",
        envvar="REFUSALKIT_CONFIG",
        section=CONFIGURATION,
        help="TOML file with any of these options.  [default: refusalkit.toml here, where there "
        "is one]",
    )
    yield Opt(
        ["--no-config"],
        is_flag=True,
        section=CONFIGURATION,
        help="Read no refusalkit.toml, neither here nor in your configuration folder.",
    )
    yield Opt(
        ["--env-file"],
        metavar="FILE",
        envvar="REFUSALKIT_ENV_FILE",
        section=CONFIGURATION,
        help="Take keys, and nothing else, from a .env file.",
    )


def _with_bare_values(params: Sequence[click.Parameter], args: Sequence[str]) -> Iterator[str]:
    """The arguments, with the default value added to options that were given without one.

    click would take the next argument as the value, whatever it is.
    """
    bare = {
        name: param
        for param in params
        if isinstance(param, click.Option)
        and not param.is_flag
        and isinstance(param.flag_value, str)
        and isinstance(param.type, click.Choice)
        for name in param.opts
    }
    for number, word in enumerate(args):
        following = args[number + 1] if number + 1 < len(args) else None
        option = bare.get(word)
        if option is not None and following not in option.type.choices:  # type: ignore[attr-defined]
            yield f"{word}={option.flag_value}"
        else:
            yield word


class _Later(Opt):
    """Stands for options that are made when they are needed."""

    def __init__(self, make: Callable[[], Iterator[click.Option]]) -> None:
        super().__init__(["--from-config"], hidden=True)
        self.make = make


class ConfiguredCommand(click.Command):
    """A command with options from `RunConfig`; see `config_options`."""

    _given: list[click.Parameter]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; an option whose value may be omitted accepts only its own values."""
        return super().parse_args(ctx, list(_with_bare_values(self.params, args)))

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

    def add_options(self, options: Sequence[click.Option]) -> None:
        """Add options, without making those of fields."""
        self._given = [*self._given, *options]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options below their headings."""
        for heading, options in sections_of(self, ctx):
            with formatter.section(heading):
                formatter.write_dl([record for _, record in options])


Record = tuple[click.Option, tuple[str, str]]


def sections_of(command: click.Command, ctx: click.Context) -> list[tuple[str, list[Record]]]:
    """The options of a command as its help page lists them: headings, options and their help.

    If there are no groups, the heading is ``Options``.
    """
    from refusalkit.config.run_config import CONFIGURATION, OUTPUT, SECTIONS

    found: dict[str, list[Record]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None or not isinstance(param, click.Option):
            continue
        heading = param.section if isinstance(param, Opt) else CONFIGURATION
        found.setdefault(heading or OUTPUT, []).append((param, record))
    if len(found.keys() - {OUTPUT, CONFIGURATION}) == 0:
        return [("Options", [each for options in found.values() for each in options])]
    return [(heading, found[heading]) for heading in SECTIONS if heading in found]


def _option(name: str, place: Cli, field: FieldInfo, *, shows_default: bool) -> click.Option:
    """The command line's option for a field. Its value is None or () if it is not given."""
    kind, several = _type_of(field)
    default = place.default
    said = isinstance(field.default, int | float | str) and not isinstance(field.default, bool)
    if default is None and said:
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    is_flag = place.flag or kind is bool
    without_value: dict[str, Any] = (
        {} if place.bare is None else {"is_flag": False, "flag_value": place.bare}
    )
    option = place.name or f"--{name.replace('_', '-')}"
    # What a file or the environment switches on can be switched off again.
    off = f"/--no-{option[2:]}" if is_flag and not option.startswith("--no-") else ""
    return _ConfigOption(
        [option + off, name],
        type=None if is_flag else kind,
        **(without_value or {"is_flag": is_flag}),
        multiple=several and not is_flag,
        default=None,
        metavar=place.metavar,
        envvar=variable_of(option),
        section=place.section,
        help="" if default is None or not shows_default else f"[default: {default}]",
    )


def variable_of(option: str) -> str:
    """The environment variable of an option: ``REFUSALKIT_JUDGE_MODEL``."""
    return f"REFUSALKIT_{option.removeprefix('--').replace('-', '_').upper()}"


class _ConfigOption(Opt):
    """An option whose help is its field's docstring, read when the help is shown."""

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

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """The value in the option's environment variable; lists are split at commas or spaces."""
        text = self.resolve_envvar_value(ctx)
        if text is None or ctx.resilient_parsing:  # a shell that completes
            return None
        value = [part for part in re.split(r"[,\s]+", text) if part] if self.multiple else text
        try:
            return self.type_cast_value(ctx, value)
        except click.BadParameter as error:
            raise click.UsageError(f"{self.envvar}: {error.message}", ctx) from error


def _type_of(field: FieldInfo) -> tuple[Any, bool]:
    """The type that click converts to, and whether the option is repeatable.

    Ranges are checked by `RunConfig`, except those of single items.
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
    section="Configuration",
    help="Follow what the folder says about hosts and providers' keys, whoever wrote it.",
)
max_unscored_option = opt(
    "--max-unscored",
    type=Number(0, 100),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    envvar="REFUSALKIT_MAX_UNSCORED",
    help="Exit 1 if more units than this have no label.",
)


def format_options(*forms: str, said: str | None = None) -> Callable[[_F], _F]:
    """The options --format (``table`` and these; argument `form`) and --json (`as_json`)."""

    def add(function: _F) -> _F:
        function = opt("--json", "as_json", is_flag=True, help="The same as --format json.")(
            function
        )
        return opt(
            "--format",
            "form",
            type=click.Choice(["table", *forms]),
            default="table",
            show_default=True,
            help=said,
        )(function)

    return add


def json_option(said: str = "Print as JSON.") -> Callable[[_F], _F]:
    """The option --json (argument `as_json`)."""
    return opt("--json", "as_json", is_flag=True, help=said)


def run_options(function: _F) -> _F:
    """The options of `run`, which `estimate` and `config` take too."""
    for add in reversed(
        (
            config_options("measured", "judge", "operational", "batch", "placement", file=True),
            max_unscored_option,
            opt(
                "--plan",
                metavar="FILE",
                section="Configuration",
                help="TOML file with a [[model]] table for each of several models.",
            ),
            opt("--out", metavar="DIR", help="The run's folder.  [default: runs/<time>-<model>]"),
            opt("--report", metavar="FILE", help="Write a report, as `report -o FILE`."),
        )
    ):
        function = add(function)
    return function


def judging_options(function: _F) -> _F:
    """The options of commands that only judge: `grade`, `regrade`."""
    return config_options("judge", "operational", "batch", hidden=_MODELS_OWN, file=True)(function)


def one_judge_options(*fields: str) -> Callable[[_F], _F]:
    """The options of commands about one judge: these `fields`, and those on pace and endpoint."""
    return config_options("operational", only=fields, hidden=_MODELS_OWN, file=True)
