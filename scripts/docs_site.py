"""A hook of mkdocs: READMEs that lie outside docs/ are pages too, and so are the help pages.

In the repository the links of a README are those that a reader of the repository needs; on the site
they are turned to where the pages lie there. The help of each command stands on the page of the
command line, in the groups that `--help` shows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from refusalkit.cli import cli
from refusalkit.cli.options import sections_of

ROOT = Path(__file__).resolve().parents[1]
# In the repository -> on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "prompts/README.md": "prompts/README.md",
    "prompts/refusalkit-166/README.md": "prompts/refusalkit-166/README.md",
    "prompts/contrast-146/README.md": "prompts/contrast-146/README.md",
    "prompts/hard-lines-180/README.md": "prompts/hard-lines-180/README.md",
    "prompts/languages-300/README.md": "prompts/languages-300/README.md",
    "prompts/starter/README.md": "prompts/starter/README.md",
}
# Files that are not pages: named, not linked.
NOT_PAGES = ("CITATION.cff", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn the repository's links into the site's; add the help pages."""
    place = page.file.src_uri
    if place == "reference-cli.md":
        return "\n".join((markdown, *_help_pages(cli, "refusalkit", None, 2)))
    source = next((s for s, p in PAGES.items() if p == place), f"docs/{place}")
    up = "../" * place.count("/")
    here = Path(source).parent
    lines = []
    for line in markdown.splitlines():
        for other, there in PAGES.items():
            line = line.replace(f"]({_relative(here, other)}", f"]({up}{there}")
        line = (
            line.replace(f"]({_relative(here, 'docs/')}", f"]({up}")
            if here != Path("docs")
            else line
        )
        for name in NOT_PAGES:
            line = line.replace(f"[{name}]({_relative(here, name)})", f"`{name}`")
        lines.append(line)
    return "\n".join(lines)


_CONSOLE = re.compile(
    r'<div class="language-console highlight">(.*?)</code></pre></div>', re.DOTALL
)


def on_page_content(html_: str, **_: Any) -> str:
    """Say of each console example what its copy button copies: the commands alone."""
    return _CONSOLE.sub(_with_commands, html_)


def _with_commands(block: re.Match[str]) -> str:
    lines = html.unescape(re.sub(r"<[^>]*>", "", block[1])).splitlines()
    commands, goes_on = [], False
    for line in lines:
        if line.startswith("$ ") or (goes_on and line.startswith("> ")):
            commands.append(line[2:])
            goes_on = line.endswith("\\")
        elif goes_on:
            commands.append(line)
            goes_on = line.endswith("\\")
    if not commands:
        return block[0]
    copied = html.escape("\n".join(commands), quote=True)
    return block[0].replace("<div ", f'<div data-copy="{copied}" ', 1)


def _relative(here: Path, path: str) -> str:
    """`path` as a link from a file in the folder `here`."""
    text = "../" * len(here.parts) + path
    inside = f"{here.as_posix()}/"
    return path.removeprefix(inside) if path.startswith(inside) else text


def _help_pages(
    command: click.Command, name: str, above: click.Context | None, level: int
) -> Iterator[str]:
    """The help of a command and of those below it."""
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=above)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n{'#' * level} {name}\n\n```text\n{name} {usage}\n```\n"
    yield f"{command.help or ''}\n"
    if command.epilog:
        yield f"Example: `{command.epilog.removeprefix('Example: ')}`\n"
    for heading, records in sections_of(command, context):
        yield f"\n| {heading} | |\n| --- | --- |"
        for _, (spelled, said) in records:
            default = re.search(r"\s*\[(default: .+)\]$", said)
            text = _cell(said[: default.start()] if default else said)
            if default:
                text += f" *{_cell(default[1])}*"
            yield f"| <code>{_cell(spelled)}</code> | {text} |"
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            found = command.commands[inner]
            yield from _help_pages(found, f"{name} {inner}", context, level + (above is None))


def _cell(text: str) -> str:
    """Text as a cell of a table; what stands in backquotes stays code."""
    parts = " ".join(text.split()).split("`")
    shown = [html.escape(part).replace("|", "&#124;").replace("*", "&#42;") for part in parts]
    return "`".join(shown)
