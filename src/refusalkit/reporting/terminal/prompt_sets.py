"""Prompt sets on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.summary import Summary, summarise
from refusalkit.reporting.terminal.table_layout import build_table, counts
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # a score must not import the checks of sets
    from refusalkit.prompts.checks import Checked


MAX_CATEGORIES = 500
"""Categories that a table shows; a sentence says how many more there are."""


def prompts_view(prompts: PromptSet, *, texts: bool = False) -> RenderableType:
    """A set's counts by category, danger, tag and length; texts only if asked for."""
    summary = summarise(prompts)
    hard = sum(summary.categories[slug].n_prompts for slug in prompts.hard_lines)
    parts: list[RenderableType] = [
        Text(
            f"{printable(prompts.name)} {printable(prompts.version)}: {len(prompts)} prompts in "
            f"{len(prompts.categories)} categories, {hard} of them in "
            f"{len(prompts.hard_lines)} hard lines"
        ),
        Text(f"Licence {printable(prompts.licence) or 'not stated'}; {prompts.digest}"),
    ]
    if summary.n_contrast:
        parts.insert(1, Text(f"{summary.n_contrast} of them are contrast prompts, safe twins"))
    if summary.n_framed:
        parts.insert(1, Text(f"{summary.n_framed} of them are hard-line requests in a framing"))
    table = build_table("category", "prompts", "danger 1", "2", "3", "")
    for category in prompts.categories[:MAX_CATEGORIES]:
        count = summary.categories[category.slug]
        table.add_row(
            Text(printable(category.slug, 36)),
            str(count.n_prompts + count.n_contrast + count.n_framed),
            *(str(count.danger[level]) for level in (1, 2, 3)),
            "hard line" if category.hard_line else "",
        )
    parts.append(table)
    if (more := len(prompts.categories) - MAX_CATEGORIES) > 0:
        parts.append(Text(f"... and {more:,} more categories (--json has all)"))
    parts.extend(Text(line) for line in summary_lines(summary))
    if texts:
        for prompt in prompts.prompts:
            said = " | ".join(f"{turn.role}: {turn.content}" for turn in prompt.messages)
            shown = printable(said or prompt.text, 500)
            parts.append(Text(f"{printable(prompt.id)}: {shown}"))
    return Group(*parts)


_MAX_VALUES = 12


def summary_lines(summary: Summary) -> list[str]:
    """Danger, tags, languages and lengths of a set, one line each."""
    danger = [f"{level} ({count})" for level, count in sorted(summary.danger.items())]
    lines = [f"danger: {', '.join(danger) or 'none given'}"]
    for prefix, values in summary.tags.items():
        shown = dict(values.most_common(_MAX_VALUES))
        more = len(values) - len(shown)
        rest = f", and {more} more" if more else ""
        lines.append(printable(f"{prefix or 'other tags'}: {counts(shown)}{rest}", 400))
    lines.append(printable(f"language: {counts(dict(summary.languages.most_common()))}", 400))
    if words := summary.words:
        lines.append(
            f"words: {words['shortest']} to {words['longest']}, median {words['median']}; one in "
            f"ten up to {words['10 %']}, nine in ten up to {words['90 %']}"
        )
    return lines


def checked_view(checked: Checked) -> RenderableType:
    """The counts and warnings of a validation."""
    prompts, summary = checked.prompts, checked.summary
    found = f"{len(checked.mistakes)} mistakes" if checked.mistakes else "no mistakes"
    head = f"{prompts.name} {prompts.version}: {len(prompts)} prompts, {found}"
    counts = [count.n_prompts + count.n_contrast for count in summary.categories.values()]
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    noun = "prompt" if max(counts) == 1 else "prompts"
    lines = [f"categories: {len(counts)}, with {each} {noun} each", *summary_lines(summary)]
    lines.append(checked.duplicates)
    lines += [f"warning: {warning}" for warning in checked.shown_warnings]
    below = (Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines)
    return Group(Text(printable(head)), *below)
