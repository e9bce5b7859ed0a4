"""Calibrations of a judge and corrected figures on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from refusalkit.reporting.terminal.table_layout import build_table, counts
from refusalkit.types import Estimate, Label
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # listing prompt sets must not import polars or the statistics
    from refusalkit.scoring.judge_quality.calibration import Calibrated
    from refusalkit.scoring.judge_quality.correction import Correction


def calibrated_view(found: Calibrated) -> RenderableType:
    """Accuracy, sensitivity, specificity, agreement and confusion matrix, overall and by part."""
    calibration = found.calibration
    prompts = sum(pattern.times for pattern in calibration.prompts)
    scored = f", {calibration.n_scored} of them scored," if calibration.unscored else ""
    parts: list[RenderableType] = [
        Text(
            f"{printable(calibration.judge.id)} on {calibration.n_labelled} labelled answers"
            f"{scored} to {prompts} prompts"
        )
    ]
    parts += [Text(printable(notice, 1000)) for notice in found.notices]
    if calibration.unscored:
        parts.append(Text(f"Unscored, and in no figure below: {counts(calibration.unscored)}"))
    table = build_table("people say", "answers", "sensitivity", "95 %", "specificity", "95 %")
    for rates in (found.rates, found.leak_rates):
        table.add_row(
            rates.question,
            str(rates.n_positive),
            *_estimate(rates.sensitivity),
            *_estimate(rates.specificity),
        )
    parts.append(table)
    one = found.agreement
    parts.append(
        Text(
            f"{one.split.capitalize()} or not: accuracy {_cell(one.accuracy)}, precision "
            f"{_cell(one.precision)}, recall {_cell(one.recall)}, kappa {_cell(one.kappa)}"
        )
    )
    alpha = f"Krippendorff's alpha, four labels, nominal: {_cell(found.alpha)}"
    if found.people_alpha is not None:
        alpha += f" (people among themselves {_cell(found.people_alpha)})"
    parts.append(Text(alpha))
    matrix = build_table("people / judge", *(label.value for label in Label))
    for truth in Label:
        row = calibration.cells.get(truth, {})
        matrix.add_row(truth.value, *(str(row.get(said, 0)) for said in Label))
    parts.append(matrix)
    last = None
    rows = build_table("", "answers", "sens.", "spec.", "accuracy", "kappa")
    for item in found.breakdown:
        if sum(other.by == item.by for other in found.breakdown) < 2:
            continue
        if item.by != last:
            rows.add_section()
            rows.add_row(Text(f"by {item.by}"))
            last = item.by
        rows.add_row(
            Text(f"  {printable(item.value, 40)}"),
            str(item.n_labelled),
            _percent(item.rates.sensitivity),
            _percent(item.rates.specificity),
            _cell(item.agreement.accuracy),
            _cell(item.agreement.kappa),
        )
    if last is not None:
        parts.append(rows)
        parts.append(Text("Sensitivity and specificity in percent; a dash: nothing to count."))
    return Group(*parts)


def _estimate(estimate: Estimate) -> tuple[str, str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-", "-"
    return f"{estimate.value:.1f}", f"{estimate.low:.1f} to {estimate.high:.1f}"


def _percent(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.1f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def correction_view(correction: Correction) -> RenderableType:
    """Each figure as judged and corrected, or why it is not corrected."""
    if correction.refused:
        return Text(f"Not corrected: {correction.refused}.")
    table = build_table("", "as judged", "corrected", "95 % interval", "")
    why: list[str] = []
    for figure in correction.figures:
        if figure.uncorrected.value is None:
            continue
        value, interval = "-", "-"
        if figure.corrected is not None:
            value, interval = _estimate(figure.corrected)
        elif figure.why_not is not None:
            why.append(f"The {figure.name} is not corrected: {figure.why_not}.")
        mark = "clipped" if figure.clipped else ""
        table.add_row(figure.name, f"{figure.uncorrected.value:.1f}", value, interval, mark)
    parts: list[RenderableType] = [
        Text(f"Corrected for judge error by {printable(correction.by, 200)}, in percent:"),
        table,
        *map(Text, why),
    ]
    if any(figure.clipped for figure in correction.figures):
        parts.append(
            Text(
                "Clipped: a corrected share fell outside 0 to 100 %, so the calibration may not "
                "describe this judge on these answers."
            )
        )
    parts.extend(Text(f"Note: {printable(note, 400)}.") for note in correction.notes)
    return Group(*parts)
