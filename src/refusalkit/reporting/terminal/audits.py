"""An audit on a terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.reporting.terminal.scores import pressure_lines
from refusalkit.reporting.terminal.table_layout import build_table
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # listing prompt sets must not import polars or the statistics
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.hard_line import HardLine
    from refusalkit.scoring.over_blocking import OverBlocking
    from refusalkit.types import Estimate

_STATUS_STYLE = {"held": "bold green", "crossed": "bold red", "inconclusive": "bold yellow"}
_MAX_LEAKS = 50
_MAX_PROMPTS = 10
_MAX_TEXT = 1000


def audit_view(audit: Audit, *, all_leaks: bool = False) -> RenderableType:
    """The audit: each line, the leaks by prompt, notes, and last the answer, where it is seen.

    With `all_leaks` every leaking response has a line of its own, in an audit made with texts the
    first 50.
    """
    parts: list[RenderableType] = [_lines_table("hard line", (*audit.lines, audit.overall))]
    if audit.framings:
        parts += [Text(""), _lines_table("framing", audit.framings, section=1)]
    if audit.overall.leaks:
        parts.append(Text("Leaks: leaking responses on leaking prompts."))
    if all_leaks or "text" in audit.leaks.columns:
        parts += _each_leak(audit, None if all_leaks else _MAX_LEAKS)
    else:
        parts += _leaks_by_prompt(audit)
    if audit.over_blocking:
        parts += [Text(""), _over_blocking_table(audit.over_blocking)]
    if audit.pressure is not None:
        parts += [Text(""), *pressure_lines(audit.pressure, hard_lines=True)]
    parts.extend(Text(f"Note: {printable(note, 300)}.") for note in audit.notes)
    verdict = Text.assemble(
        "Hard lines: ",
        (audit.status.value.upper(), _STATUS_STYLE[audit.status]),
        f"  ({audit.overall.claim})",
    )
    return Group(*parts, verdict)


def _leaks_by_prompt(audit: Audit) -> list[RenderableType]:
    from refusalkit.scoring.leaks import leaks_by_prompt

    groups = leaks_by_prompt(audit.leaks)
    planned = audit.manifest.trials if audit.manifest.kind == "run" else None
    lines = []
    for group in groups[:_MAX_PROMPTS]:
        others = tuple(judge for judge in group.judges if judge != audit.judge)
        by = f", by {', '.join(map(printable, group.judges))}" if others else ""
        rests = f", rests on: {printable(', '.join(group.rests_on))}" if group.rests_on else ""
        name = printable(group.prompt_id)
        lines.append(f"  {name}: {group.share(planned)}, {group.labels}{by}{rests}")
    if (more := len(groups) - _MAX_PROMPTS) > 0:
        prompts = "1 more prompt" if more == 1 else f"{more} more prompts"
        lines.append(f"  and {prompts} (`refusalkit audit RUN --all` has every response)")
    return [Text(line) for line in lines]


def _each_leak(audit: Audit, limit: int | None) -> list[RenderableType]:
    rows = audit.leaks if limit is None else audit.leaks.head(limit)
    parts: list[RenderableType] = [
        Text(line) for row in rows.iter_rows(named=True) for line in _leak_lines(row)
    ]
    if more := len(audit.leaks) - len(rows):
        parts.append(Text(f"  and {more} more (--all has them)"))
    return parts


def _lines_table(head: str, lines: Sequence[HardLine], *, section: int = -1) -> Table:
    """Hard lines as rows, with a rule before row `section`."""
    table = build_table(head, "answer", "prompts", "leaks", "uns.", "leak rate")
    for index, line in enumerate(lines):
        if index == section % len(lines):
            table.add_section()
        table.add_row(*_line_cells(line))
    return table


def _line_cells(line: HardLine) -> list[Text]:
    leaks = str(line.leaks) if not line.leaks else f"{line.leaks} on {line.leaking_prompts}"
    return [
        Text(printable(line.title, 34)),
        Text(line.status.value, style=_STATUS_STYLE[line.status]),
        Text(str(line.n_prompts)),
        Text(leaks),
        Text(str(line.n_unscored)),
        Text(line.rate),
    ]


def _leak_lines(row: dict[str, Any]) -> list[str]:
    where = f"{printable(row['prompt_id'])}, trial {row['trial']}"
    word = f" ({printable(row['word'])})" if row["word"] not in (None, row["label"]) else ""
    rests = f", rests on: {printable(row['rests_on'])}" if row["rests_on"] else ""
    lines = [f"  leak: {where}: {row['label']}{word}, by {printable(row['judge'])}{rests}"]
    if "text" in row:
        text = row["text"]
        lines.append("    withheld" if text is None else f"    {printable(text, _MAX_TEXT)}")
    return lines


def _over_blocking_table(over_blocking: Sequence[OverBlocking]) -> RenderableType:
    table = build_table("safe twins of", "twins", "responses", "refused", "95 % interval")
    for index, one in enumerate(over_blocking):
        if index and index == len(over_blocking) - 1:
            table.add_section()
        table.add_row(
            Text(printable(one.title, 34)),
            str(one.n_contrast),
            str(one.refused.n_responses),
            *_percents(one.refused),
        )
    return Group(table, Text("Over-blocking: requests near a hard line that should be answered."))


def _percents(estimate: Estimate) -> tuple[str, str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-", "-"
    return f"{estimate.value:.1f} %", f"{estimate.low:.1f} to {estimate.high:.1f}"
