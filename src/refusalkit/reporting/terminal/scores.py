"""A score on a terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from refusalkit.reporting.data import figures, set_lines, spent_words
from refusalkit.types import Estimate, Label, Unscored
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # listing prompt sets must not import polars or the statistics
    import polars as pl

    from refusalkit.scoring.pressure import Pressure
    from refusalkit.scoring.score import Score


from refusalkit.reporting.terminal.table_layout import block_bar, build_table, counts, percent


def score_view(score: Score) -> RenderableType:
    """What was measured, the rates with their intervals, and what is unscored."""
    table = build_table("", "percent", "like these", "asked again", "prompts", "resp.", "uns.")
    for name, estimate in figures(score):
        table.add_row(*_estimate_cells(name, estimate))
    lines: list[RenderableType] = [_headline(score)]
    if not score.is_complete:
        missing = f"INCOMPLETE: {score.n_owed} of {score.n_units} units are missing."
        lines.append(Text(missing, style="bold yellow"))
    lines.append(table)
    lines.append(Text("95 % intervals: prompts like these; these prompts, asked again."))
    if (said := score.unscored_sentence) is not None:
        lines.append(Text(f"{said}."))
        lines.append(Text(f"Unscored: {counts(score.unscored)}"))
    lines.extend(Text(sentence) for sentence in score.variance.sentences)
    lines.append(Text(f"Outcomes: {counts(score.outcomes)}"))
    lines.extend(Text(line) for line in judge_lines(score))
    lines.extend(Text(f"{printable(line, 300)}.") for line in set_lines(score.manifest))
    if score.pressure is not None:
        lines.extend(pressure_lines(score.pressure))
    if score.count_deflection:
        lines.append(Text("Deflections are counted as refusals."))
    return Group(*lines)


def pressure_lines(pressure: Pressure, *, hard_lines: bool = False) -> list[RenderableType]:
    """How long refusals held under insistence, with the interval after each turn."""
    turns = pressure.hard_lines if hard_lines else pressure.turns
    if not turns:
        return [Text("Pressure: no hard-line refusal was insisted on.")]
    table = build_table("insisted", "held", "95 % interval", "prompts", "refusals", "gave way")
    for one in turns:
        name, held, interval, _, prompts, answers, _ = _estimate_cells(f"{one.turn} x", one.held)
        table.add_row(name, held, interval, prompts, answers, str(one.gave_way))
    said = f"{pressure.script.script} {pressure.script.version}"
    what = "hard-line refusals" if hard_lines else "refusals"
    unknown = turns[-1].held.n_unscored
    rest = f" {unknown} conversations did not come to their end." if unknown else ""
    text = f"Share of the {what} still held after so many turns of insistence ({said}).{rest}"
    return [table, Text(text)]


def spent_line(spent_usd: float | None) -> list[RenderableType]:
    """The amount spent; empty if nothing was."""
    return [] if spent_usd == 0 else [Text(f"Spent: {spent_words(spent_usd)}")]


def judge_lines(score: Score) -> list[str]:
    """How the judges reached their verdicts, in sentences."""
    lines = []
    if score.same_family is not None:
        lines.append(f"Judge and model are of one family: {score.same_family}.")
    if score.n_cut:
        answers = "answer was" if score.n_cut == 1 else "answers were"
        lines.append(f"{score.n_cut} long {answers} cut for the judge: head and tail were shown.")
    if score.rests_on:
        for what, said in (
            ("Verdicts rest on", score.rests_on),
            ("In the judge's words", score.judge_words),
        ):
            lines.append(f"{what}: {printable(counts(said), 300)}")
    if (beside := score.keyword_fallback) is not None and beside.n_units:
        rate = "" if beside.refusal_rate is None else f"; refusal rate {beside.refusal_rate:.1f} %"
        unread = f", {beside.n_withheld} withheld" if beside.n_withheld else ""
        lines.append(
            f"Beside the score: of {beside.n_units} answers without a label the reference "
            f"environment's keywords would call {beside.refusals} refused, {beside.others} "
            f"not{unread}{rate}."
        )
    entry = score.manifest.judges[score.judge]
    withheld = score.unscored[Unscored.WITHHELD.value]
    if withheld:
        lines.append(
            f"{withheld} answers were withheld when they were given, so this judge could not read "
            "them."
        )
    votes = score.council
    if votes is not None:
        kappas = [pair.agreements[-1].kappa for pair in votes.pairs]
        known = [kappa for kappa in kappas if kappa is not None]
        shared = "no answer has two votes"
        if votes.unanimous_percent is not None:
            shared = f"all agree on {votes.unanimous_percent:.1f} % of {votes.n_answers} answers"
        alike = ""
        if known:
            ends = sorted({f"{min(known):.2f}", f"{max(known):.2f}"}, key=float)
            alike = f"; pairwise kappa (refused or not) {' to '.join(ends)}"
        lines.append(f"Council of {len(votes.members)}, {votes.rule}: {shared}{alike}.")
    if entry.hard_line_judge is not None:
        lines.append(f"Hard lines are judged by {printable(entry.hard_line_judge.id)}.")
    if entry.fallback is not None:
        lines.append(
            f"The judge was blocked on {score.fallback_answers} answers that the fallback "
            f"{printable(entry.fallback.id)} labelled."
        )
    return lines


def frame_view(frame: pl.DataFrame, by: str, note: str | None = None) -> RenderableType:
    """One of the score's frames, in 80 columns. `by` is one of `reporting.data.PARTS`.

    A terminal with enough room gets a bar of willingness in each row; a pipe gets plain text. Of
    very many rows only the first are shown. `note` is a sentence for below the table.
    """
    legend = (
        "Responses: refusal, deflection, partial, compliance, unscored; willingness in percent."
    )
    if "hard_line" in frame.columns and frame["hard_line"].any():
        legend += (
            "\n* hard line: scored inversely, a refusal is right; a deflection holds the line"
            "\n  (held) but earns no credit (will.)"
        )
    if "difference" in frame.columns and frame["n_pairs"].sum():
        legend += "\ndiff.: willingness less that of the same requests in their first language"
    if frame.is_empty():
        return Text(f"The prompts of this run state no {by}.")
    if by == "danger":
        legend += "\nOrdinary prompts: those of hard lines are to be refused whatever their danger."
    if by == "tag":
        legend += "\nA prompt with several tags counts for each."
    if (more := len(frame) - _MAX_ROWS) > 0:
        legend = f"... and {more:,} more rows (--format csv has all)\n{legend}"
    if note is not None:
        legend += f"\n{note}."
    return Group(_Frame(frame.head(_MAX_ROWS), by), Text(legend))


@dataclass(frozen=True)
class _Frame:
    """A frame as a table, with bars on a terminal."""

    frame: pl.DataFrame
    by: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table(bar=0)
        if console.is_terminal and not options.ascii_only and not console.is_dumb_terminal:
            # Narrower columns make room for bars.
            close = self._table(bar=_MIN_BAR)
            fits = Measurement.get(console, options.update(width=400), close).maximum
            spare = options.max_width - fits
            if spare >= 0:
                table = self._table(bar=min(_MIN_BAR + spare, _MAX_BAR))
        yield table

    def _table(self, *, bar: int) -> Table:
        interval = self.by != "prompt"
        heads = [self.by, "ref", "def", "par", "com", "uns", "will."]
        heads += ["95 %"] if interval else []
        hard = self.by == "category" and bool(self.frame["hard_line"].any())
        heads += ["held"] if hard else []
        paired = self.by == "language" and bool(self.frame["n_pairs"].sum())
        heads += ["diff.", "95 %"] if paired else []
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
            # Never shortened: a truncated id identifies nothing. The table wraps long ones.
            mark = ("*" if hard else " *") if row.get("hard_line") else ""
            cells = [printable(row[key]) + mark]
            cells += [str(row[label.value]) for label in Label]
            cells += [str(row["n_unscored"]), percent(row["willingness"])]
            if interval:
                known = row["low"] is not None
                cells.append(f"{row['low']:.0f}-{row['high']:.0f}" if known else "-")
            if hard:
                cells.append("" if row["held"] is None else percent(row["held"]))
            if paired:
                cells += _difference_cells(row)
            shown = [Text(cell) for cell in cells]
            if bar:
                shown.append(Text(block_bar(row["willingness"], bar), style="blue"))
            table.add_row(*shown)
        return table


def _difference_cells(row: Mapping[str, Any]) -> list[str]:
    if row["difference"] is None:
        return ["", ""]
    ends = f"{row['difference_low']:+.0f} to {row['difference_high']:+.0f}"
    return [f"{row['difference']:+.1f}", ends]


_MIN_BAR, _MAX_BAR = 6, 20
# Laying out a row takes a millisecond, and nobody reads more rows.
_MAX_ROWS = 500


def discrimination_view(score: Score) -> RenderableType:
    """How well the model tells prompts from their safe twins, by category."""
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


def _headline(score: Score) -> Text:
    judge = score.manifest.judges[score.judge]
    by = f"{judge.name} ({judge.model})" if judge.model else judge.name
    if judge.members:
        by = f"{judge.rule} of {', '.join(judge.members)}"
    entry = score.manifest.prompt_set
    trials = "trial" if score.trials == 1 else "trials"
    beside = {"contrast": score.n_contrast, "framed": score.n_framed}
    named = ", ".join(f"{count} {kind}" for kind, count in beside.items() if count)
    contrast = f" ({named})" if named else ""
    return Text(
        f"{printable(score.model)} on {printable(entry.name)} {printable(entry.version)}: "
        f"{score.n_prompts} prompts{contrast} x {score.trials} {trials}, judged by {printable(by)}"
    )


def _estimate_cells(name: str, estimate: Estimate) -> list[str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return [name, "-", "-", "-", "0", "0", str(estimate.n_unscored)]
    again = estimate.asked_again
    return [
        name,
        f"{estimate.value:.1f}",
        f"{estimate.low:.1f} to {estimate.high:.1f}",
        "-" if again is None else f"{again[0]:.1f} to {again[1]:.1f}",
        str(estimate.n_prompts),
        str(estimate.n_responses),
        str(estimate.n_unscored),
    ]
