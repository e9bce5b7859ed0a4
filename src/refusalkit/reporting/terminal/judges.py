"""Judges and what they said, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.untrusted import printable

if TYPE_CHECKING:  # a list of prompt sets needs no frames and no statistics
    from refusalkit.rubrics import Rubric
    from refusalkit.scoring import Agreement, Grades, JudgeAgreements


from refusalkit.reporting.terminal.tables import build_table, counts


def grades_view(grades: Grades) -> RenderableType:
    """What a judge said of recorded answers, and how it agrees with people's labels."""
    unscored = sum(grades.unscored.values())
    parts: list[RenderableType] = [
        Text(f"{grades.n_records} answers judged by {printable(grades.judge)}"),
        Text(f"Labels: {counts(grades.labels)}"),
    ]
    if unscored:
        parts.append(Text(f"Unscored: {counts(grades.unscored)}"))
    if grades.agreements:
        n = grades.agreements[0].n
        parts.append(
            Text(f"Against people's labels ({n} of {grades.n_labelled} labelled answers scored):")
        )
        parts.append(_agreement_table(grades.agreements))
    for name, agreements in grades.against.items():
        parts.append(Text(f"Against {printable(name)} ({agreements[0].n} answers):"))
        parts.append(_agreement_table(agreements))
    if grades.flags:
        words = {"fallback": "keywords stood in for the judge", "error": "the judge failed"}
        flags = ", ".join(f"{words.get(n, n)}: {count}" for n, count in grades.flags.items())
        parts.append(Text(f"In the judgement that came with the answers: {flags}."))
    if grades.left_out:
        parts.append(Text(f"Not gradable: {counts(grades.left_out)}"))
    if grades.recorded_rates:
        table = build_table("refusal rate, percent", *grades.recorded_rates)
        for name, rates in (("the log's own", grades.recorded_rates), ("here", grades.rates)):
            values = (rates.get(column) for column in grades.recorded_rates)
            table.add_row(name, *("-" if v is None else f"{100 * v:.2f}" for v in values))
        parts.append(table)
    return Group(*parts)


def _agreement_table(agreements: Iterable[Agreement]) -> Table:
    table = build_table("positive class", "accuracy", "precision", "recall", "kappa")
    for item in agreements:
        values = (item.accuracy, item.precision, item.recall, item.kappa)
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(item.split, *cells)
    return table


def judge_pairs_view(found: JudgeAgreements) -> RenderableType:
    """Judges compared pairwise; the answers on which they differ by id, never by text."""
    labelled = ", ".join(f"{printable(n, 60)} {count}" for n, count in found.labelled.items())
    table = build_table("judges", "both", "accuracy", "kappa", "kappa (refusal)", "differ")
    parts: list[RenderableType] = [Text(f"Labelled: {labelled}"), table]
    for pair in found.pairs:
        usual, refusal = pair.agreements
        values = (usual.accuracy, usual.kappa, refusal.kappa)
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        names = f"{printable(pair.first, 60)} / {printable(pair.second, 60)}"
        table.add_row(Text(names), str(pair.n), *cells, str(len(pair.differ)))
        if pair.differ:
            parts.append(Text(f"{names} differ on: {_some(pair.differ, 20)}"))
    parts.append(
        Text("Split: refusal, deflection or partial against compliance; (refusal): the rest.")
    )
    return Group(*parts)


def _some(ids: Sequence[str], most: int) -> str:
    shown = ", ".join(printable(unit, 80) for unit in ids[:most])
    return shown if len(ids) <= most else f"{shown}, ... and {len(ids) - most} more (--json)"


def rubric_view(rubric: Rubric) -> RenderableType:
    """What a judge asks, and of which model."""
    lines = [
        printable(f"{rubric.name} version {rubric.version} ({rubric.kind})"),
        printable(rubric.description, 400),
        rubric.digest,
    ]
    if rubric.kind == "lexical":
        lines.append(f"Rules: {', '.join(map(printable, rubric.rules))}")
    elif rubric.kind == "classifier":
        lines.append(printable(f"Model: {rubric.model}"))
        lines += [printable(f"{name}: {value!r}") for name, value in rubric.rules.items()]
    else:
        lines.append(printable(f"Model: {rubric.model}, at most {rubric.max_tokens} tokens"))
        for title, text in (("System", rubric.system), ("Template", rubric.template)):
            lines += ["", f"{title}:", ""]
            lines += [printable(line, 2000) for line in text.strip().splitlines()]
    return Group(*map(Text, lines))
