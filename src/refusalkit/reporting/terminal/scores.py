"""A score and an audit on a terminal, in 80 columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from refusalkit.reporting.data import figures, inversion_line
from refusalkit.types import Estimate, Label
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # a list of prompt sets needs no frames and no statistics
    import polars as pl

    from refusalkit.scoring import Audit, HardLine, Score


from refusalkit.reporting.terminal.tables import block_bar, build_table, counts, percent

_STATUS_STYLE = {"held": "bold green", "crossed": "bold red", "inconclusive": "bold yellow"}


def score_view(score: Score) -> RenderableType:
    """The headline: what was measured, the rates with their intervals, what is unscored."""
    table = build_table("", "percent", "95 % interval", "prompts", "responses", "unscored")
    for name, estimate in figures(score):
        table.add_row(*_estimate_cells(name, estimate))
    low, high = score.bounds
    lines: list[RenderableType] = [_headline(score), table]
    if score.n_scored < score.n_units:
        unscored = score.n_units - score.n_scored
        lines.append(
            Text(
                f"{unscored} of {score.n_units} units unscored ({counts(score.unscored)}): "
                f"willingness lies between {low:.1f} and {high:.1f} whichever way they go."
            )
        )
    lines.append(Text(f"Outcomes: {counts(score.outcomes)}"))
    if (inverted := inversion_line(score.manifest)) is not None:
        lines.append(Text(f"{printable(inverted, 300)}."))
    if score.count_deflection:
        lines.append(Text("Deflections are counted as refusals."))
    return Group(*lines)


def frame_view(frame: pl.DataFrame, by: str) -> RenderableType:
    """One of the score's frames, in 80 columns. `by` is ``category``, ``trial`` or ``prompt``.

    On a terminal with room for it each row has a bar for its willingness; a pipe gets plain text.
    """
    legend = (
        "Responses: refusal, deflection, partial, compliance, unscored; willingness in percent."
    )
    if "hard_line" in frame.columns and frame["hard_line"].any():
        legend += "\n* hard line: scored inversely, a refusal is right"
    return Group(_Frame(frame, by), Text(legend))


@dataclass(frozen=True)
class _Frame:
    """A frame as a table, with bars where there is a terminal to show them."""

    frame: pl.DataFrame
    by: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table(bar=0)
        if console.is_terminal and not options.ascii_only and not console.is_dumb_terminal:
            # Columns stand closer where there are bars, which need the room.
            close = self._table(bar=_LEAST_BAR)
            fits = Measurement.get(console, options.update(width=400), close).maximum
            spare = options.max_width - fits
            if spare >= 0:
                table = self._table(bar=min(_LEAST_BAR + spare, _MOST_BAR))
        yield table

    def _table(self, *, bar: int) -> Table:
        interval = self.by != "prompt"
        heads = [self.by, "ref.", "defl", "part", "comp", "uns.", "will."]
        heads += ["95 %"] if interval else []
        table = build_table(*heads, *([""] if bar else []))
        if bar:
            table.padding = (0, 0, 0, 0)
            table.columns[-1].justify = "left"
            table.columns[-1].min_width = bar
        key = "prompt_id" if self.by == "prompt" else self.by
        hard_lines = False
        for row in self.frame.iter_rows(named=True):
            if row.get("hard_line") and not hard_lines:
                hard_lines = True
                table.add_section()
            # Whole, for an id that is cut short names nothing; it is folded where it is too long.
            cells = [printable(row[key]) + (" *" if row.get("hard_line") else "")]
            cells += [str(row[label.value]) for label in Label]
            cells += [str(row["n_unscored"]), percent(row["willingness"])]
            if interval:
                known = row["low"] is not None
                cells.append(f"{row['low']:.0f}-{row['high']:.0f}" if known else "-")
            shown = [Text(cell) for cell in cells]
            if bar:
                shown.append(Text(block_bar(row["willingness"], bar), style="blue"))
            table.add_row(*shown)
        return table


_LEAST_BAR, _MOST_BAR = 6, 20


def discrimination_view(score: Score) -> RenderableType:
    """How far the model tells prompts from their safe twins, by category."""
    table = build_table("category", "pairs", "prompts", "twins", "J", "95 %")
    hard_lines = False
    for row in score.discrimination.iter_rows(named=True):
        if row["hard_line"] and not hard_lines:
            hard_lines = True
            table.add_section()
        known = row["low"] is not None
        cells = [
            printable(row["category"]) + (" *" if row["hard_line"] else ""),
            str(row["n_pairs"]),
            *(percent(row[name]) for name in ("prompts_refused", "twins_refused", "youden_j")),
            f"{row['low']:.0f} to {row['high']:.0f}" if known else "-",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    legend = (
        "Prompts that have a safe twin: share of the prompts refused, of the twins refused, and "
        "the difference, Youden's J; in percent."
    )
    return Group(table, Text(legend))


def audit_view(audit: Audit) -> RenderableType:
    """The audit: its answer in words, each line, each leak by id."""
    table = build_table("hard line", "answer", "prompts", "leaks", "uns.", "leak rate")
    for line in audit.lines:
        table.add_row(*_line_cells(line))
    table.add_section()
    table.add_row(*_line_cells(audit.overall))
    parts: list[RenderableType] = [
        Text.assemble(
            "Hard lines: ",
            (audit.status.value.upper(), _STATUS_STYLE[audit.status]),
            f"  ({audit.overall.claim})",
        ),
        table,
    ]
    for row in audit.leaks.head(50).iter_rows(named=True):
        where = f"{printable(row['prompt_id'])}, trial {row['trial']}"
        parts.append(Text(f"  leak: {where}: {row['label']}"))
    if len(audit.leaks) > 50:
        parts.append(Text(f"  ... and {len(audit.leaks) - 50} more"))
    parts.extend(Text(f"Note: {printable(note, 300)}.") for note in audit.notes)
    return Group(*parts)


def _headline(score: Score) -> Text:
    judge = score.manifest.judges[score.judge]
    by = f"{judge.name} ({judge.model})" if judge.model else judge.name
    entry = score.manifest.prompt_set
    trials = "trial" if score.trials == 1 else "trials"
    contrast = f" ({score.n_contrast} contrast)" if score.n_contrast else ""
    return Text(
        f"{printable(score.model)} on {printable(entry.name)} {printable(entry.version)}: "
        f"{score.n_prompts} prompts{contrast} x {score.trials} {trials}, judged by {printable(by)}"
    )


def _estimate_cells(name: str, estimate: Estimate) -> list[str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return [name, "-", "-", "0", "0", str(estimate.n_unscored)]
    return [
        name,
        f"{estimate.value:.1f}",
        f"{estimate.low:.1f} to {estimate.high:.1f}",
        str(estimate.n_prompts),
        str(estimate.n_responses),
        str(estimate.n_unscored),
    ]


def _line_cells(line: HardLine) -> list[Text]:
    leaks = str(line.leaks) if not line.leaks else f"{line.leaks} on {line.leaking_prompts}"
    return [
        Text(printable(line.title, 34)),
        Text(line.status.value, style=_STATUS_STYLE[line.status]),
        Text(str(line.n_prompts)),
        Text(leaks),
        Text(str(line.n_unscored)),
        Text(f"< {line.upper_percent:.1f} %"),
    ]
