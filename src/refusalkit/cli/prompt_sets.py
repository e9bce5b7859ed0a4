"""The `prompts` commands."""

from __future__ import annotations

import click

from refusalkit.cli.exit_codes import OK, USAGE
from refusalkit.cli.options import ConfiguredCommand, arg, config_options, json_option, opt
from refusalkit.cli.showing import print_rows
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable


@click.group(epilog="Example: refusalkit prompts show starter")
def prompts() -> None:
    """List, show, validate and convert prompt sets."""


@prompts.command("list", epilog="Example: refusalkit prompts list")
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def prompts_list(as_json: bool) -> None:
    """The prompt sets that come with refusalkit."""
    from refusalkit.prompts.load import load_prompts, shipped_sets

    sets = [load_prompts(name) for name in shipped_sets()]
    heads = ("set", "version", "prompts", "categories", "hard lines", "licence")
    rows = [
        (s.name, s.version, len(s), len(s.categories), len(s.hard_lines), s.licence) for s in sets
    ]
    print_rows(heads, rows, as_json)


@prompts.command("show", cls=ConfiguredCommand, epilog="Example: refusalkit prompts show starter")
@arg("source", metavar="SET")
@opt("--hard-line", multiple=True, metavar="CATEGORY", help="Count this category as a hard line.")
@config_options(only=["inversion", "lang"])
@opt("--framings", is_flag=True, help="Include its hard-line requests in each framing.")
@opt("--show-text", is_flag=True, help="Print the prompts themselves too.")
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def prompts_show(
    source: str,
    hard_line: tuple[str, ...],
    inversion: str | None,
    lang: str | None,
    framings: bool,
    show_text: bool,
    as_json: bool,
) -> None:
    """Show what SET contains, by category, danger, tag and length."""
    from refusalkit.prompts.framings import with_framings
    from refusalkit.prompts.load import load_prompts
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    loaded = load_prompts(source, hard_lines=hard_line, inversion=inversion, lang=lang)
    loaded = with_framings(loaded) if framings else loaded
    if as_json:
        click.echo(data.to_json(data.prompts_data(loaded, texts=show_text)))
    else:
        show(terminal.prompts_view(loaded, texts=show_text))


@prompts.command("validate", epilog="Example: refusalkit prompts validate my-set/")
@arg("sources", metavar="SET...", nargs=-1, required=True)
@opt("--strict", is_flag=True, help="Exit 2 on warnings too.")
@json_option()
def prompts_validate(sources: tuple[str, ...], strict: bool, as_json: bool) -> int:
    """Check each SET and list every mistake with file, line and field.

    Near-duplicates are looked for in all sets together, except between a prompt and its own twin.
    What may be intended is a warning on stdout.
    """
    from refusalkit.errors import PromptSetError
    from refusalkit.prompts.checks import check_sets
    from refusalkit.prompts.load import load_prompts
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    code, loaded, unread = OK, [], {}
    for source in sources:
        try:
            loaded.append(load_prompts(source))
        except PromptSetError as error:
            click.echo(f"refusalkit: {error}", err=True)
            code, unread[source] = USAGE, error
    found = check_sets(loaded)
    for checked in found:
        if not as_json:
            show(terminal.checked_view(checked))
        try:
            checked.raise_if_wrong()
        except PromptSetError as error:
            click.echo(f"refusalkit: {error}", err=True)
            code = USAGE
        if strict and checked.warnings:
            code = USAGE
    if as_json:
        click.echo(data.to_json(data.validation_data(found, unread)))
    return code


@prompts.command(
    "convert",
    cls=ConfiguredCommand,
    epilog="Example: refusalkit prompts convert questions.csv my-set/",
)
@arg("source", metavar="SOURCE")
@arg("folder", metavar="DIR")
@opt("--name", metavar="NAME", help="The new set's name.  [default: the source's]")
@opt("--licence", metavar="TEXT", help="Its licence.  [default: the source's]")
@opt(
    "--hard-line",
    multiple=True,
    metavar="CATEGORY",
    help="Mark this category as a hard line (repeatable).",
)
@config_options(only=["inversion", "lang"])
@opt(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="What a table calls prompt, category, id, danger, ... (repeatable).",
)
@json_option("Print what was written as JSON.")
def prompts_convert(
    source: str,
    folder: str,
    name: str | None,
    licence: str | None,
    hard_line: tuple[str, ...],
    inversion: str | None,
    lang: str | None,
    columns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write SOURCE, a public set or a table (.csv, .tsv, .xlsx, ...), as the set folder DIR."""
    from pathlib import Path

    from refusalkit.prompts.convert import write_folder
    from refusalkit.prompts.load import load_prompts

    pairs = dict(column.partition("=")[::2] for column in columns)
    if not all(pairs) or not all(pairs.values()):
        raise UsageError("--column takes OURS=THEIRS, such as prompt=Question")
    loaded = load_prompts(
        source, hard_lines=hard_line, inversion=inversion, lang=lang, columns=pairs
    )
    made = write_folder(loaded, Path(folder), name=name, licence=licence)
    if as_json:
        from refusalkit.reporting import data

        click.echo(data.to_json({"path": folder, **data.prompts_data(made, texts=False)}))
        return
    text = f"{folder}: {made.name}, {len(made)} prompts in {len(made.categories)} categories"
    click.echo(printable(text, 400))
