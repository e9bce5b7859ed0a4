"""Judges and their labels on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.untrusted import printable

if TYPE_CHECKING:  # listing prompt sets must not import polars or the statistics
    from refusalkit.judges.rubrics import Rubric
    from refusalkit.runs.canaries import CanaryCheck
    from refusalkit.scoring.agreement.coefficients import Agreement
    from refusalkit.scoring.agreement.judge_pairs import JudgeAgreements
    from refusalkit.scoring.judge_quality.bridge import Bridge
    from refusalkit.scoring.judge_quality.grades import Grades
    from refusalkit.scoring.judge_quality.probe_results import AttackLine, JudgeProbe


from refusalkit.reporting.terminal.table_layout import build_table, counts
from refusalkit.types import Label


def grades_view(grades: Grades) -> RenderableType:
    """A judge's labels for recorded answers, and their agreement with people's labels."""
    unscored = sum(grades.unscored.values())
    judged = "" if grades.n_judged == grades.n_records else f"{grades.n_judged} of "
    parts: list[RenderableType] = [
        Text(f"{judged}{grades.n_records} answers judged by {printable(grades.judge)}"),
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
    if grades.lacks is not None:
        parts.append(Text(f"From {printable(grades.lacks, 400)}."))
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
    """Judges compared in pairs, with the ids of answers on which they differ."""
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
    if len(found.by_category) > 1:
        by_category = build_table("category", "both", "same label", "alpha")
        for row in found.by_category:
            shown = "-" if row.alpha is None else f"{row.alpha:.3f}"
            name = Text(printable(row.category, 40))
            by_category.add_row(name, str(row.n), str(row.n_same), shown)
        parts.append(by_category)
    alphas = (found.alpha, found.alpha_first_split)
    four, two = ("-" if value is None else f"{value:.3f}" for value in alphas)
    parts.append(
        Text(f"Krippendorff's alpha, nominal, all judges: {four} over four labels, {two} split.")
    )
    parts.append(
        Text("Split: refusal, deflection or partial against compliance; (refusal): the rest.")
    )
    return Group(*parts)


_VERDICT_STYLE = {
    "comparable": "bold green",
    "comparable after correction": "bold yellow",
    "not comparable": "bold red",
    "inconclusive": "bold yellow",
}


def bridge_view(found: Bridge) -> RenderableType:
    """The succession report: verdict and reasons, who scored what, agreement, shifts."""
    answer = found.verdict.value
    parts: list[RenderableType] = [
        Text(f"{printable(found.old)} -> {printable(found.new)}, {len(found.runs)} run(s)"),
        Text.assemble("Scores by the two judges: ", (answer.upper(), _VERDICT_STYLE[answer])),
    ]
    parts += [Text(f"  {reason}.") for reason in found.reasons]
    parts += [Text(f"Note: {note}.") for note in found.notes]
    by = {
        "both": found.n_both,
        "only the old": found.n_only_old,
        "only the new": found.n_only_new,
        "neither": found.n_neither,
        "withheld": found.n_withheld,
    }
    parts.append(Text(f"{found.n_units} answers, scored by: {counts(by)}"))
    if found.n_read:
        parts += [Text(""), _confusion_table(found)]
        parts.append(
            Text(
                f"Answers that both read: {found.n_read}; the same label on "
                f"{100 * (found.accuracy or 0):.1f} %. Rows: the old judge's label."
            )
        )
    shifts = build_table("figure", "old", "new", "shift", "95 % interval", "responses")
    for item in found.shifts:
        shifts.add_row(*_shift_cells(item.figure, asdict(item)))
    parts += [Text(""), shifts]
    table = build_table("category", "old", "new", "shift", "95 % interval", "responses")
    for row in found.by_category.iter_rows(named=True):
        hard = " *" if row["hard_line"] else ""
        held = row["figure"] == "hold rate"
        if row["figure"] == "willingness" or held:
            name = f"  {row['figure']}" if held else printable(row["category"]) + hard
            table.add_row(*_shift_cells(name, row))
    parts += [Text(""), table]
    if len(found.runs) > 1:
        runs = build_table("run", "old", "new", "shift", "95 % interval", "responses")
        for row in found.by_run.iter_rows(named=True):
            if row["figure"] == "willingness":
                runs.add_row(*_shift_cells(printable(row["run"]), row))
        parts += [Text(""), runs]
    parts.append(
        Text(
            "Willingness in percent, shifts in points; means over prompts, of the responses that "
            "both scored. * hard line"
        )
    )
    return Group(*parts)


def _confusion_table(found: Bridge) -> Table:
    table = build_table("old \\ new", *(label.value for label in Label))
    for label in Label:
        row = found.confusion[label.value]
        table.add_row(label.value, *(str(row[other.value]) for other in Label))
    return table


def _shift_cells(name: str, shift: Mapping[str, Any]) -> list[Text]:
    responses = str(shift["n_responses"])
    if shift["shift"] is None:
        return [Text(cell) for cell in (name, "-", "-", "-", "-", responses)]
    old, new, by, low, high = (shift[key] for key in ("old", "new", "shift", "low", "high"))
    interval = f"{low:+.1f} to {high:+.1f}"
    cells = (name, f"{old:.1f}", f"{new:.1f}", f"{by:+.1f}", interval, responses)
    return [Text(cell) for cell in cells]


def texts_view(texts: Mapping[str, tuple[str, str]], units: Sequence[str]) -> RenderableType:
    """Prompts and answers, shortened and safe to print; units without a text are counted."""
    parts: list[RenderableType] = []
    for unit in units:
        if unit in texts:
            prompt, answer = texts[unit]
            parts += [Text(printable(unit, 200)), Text(f"  prompt: {printable(prompt, 500)}")]
            parts.append(Text(f"  answer: {printable(answer, 1000)}"))
    if missing := len(units) - len(texts):
        parts.append(Text(f"{missing} more are hard lines or were not kept, and are not shown."))
    return Group(*parts)


def _some(ids: Sequence[str], most: int) -> str:
    shown = ", ".join(printable(unit, 80) for unit in ids[:most])
    return shown if len(ids) <= most else f"{shown}, ... and {len(ids) - most} more (--json)"


def canary_warning(check: CanaryCheck) -> tuple[RenderableType, ...]:
    """The warning above everything else if a run's canaries failed; nothing if they did not.

    It ends with an empty line.
    """
    if check.warning is None:
        return ()
    text = check.warning
    return (Text(f"WARNING: {text}.", style="bold red"), "")


def odd_view(lines: Sequence[str]) -> tuple[RenderableType, ...]:
    """What a reader must know of a run's answers before its figures; ends with an empty line."""
    if not lines:
        return ()
    return (*(Text(f"NOTE: {line}.", style="bold yellow") for line in lines), "")


_ANSWERS = {
    "resists": ("RESISTS", "bold green", "no verdict flipped"),
    "fooled": ("FOOLED", "bold red", "verdicts flipped"),
    "unclear": ("UNCLEAR", "bold yellow", "nothing can be said"),
}


def probe_view(found: JudgeProbe) -> RenderableType:
    """The self-test of a judge: result, flips by kind of attack, ids."""
    word, style, meaning = _ANSWERS[found.status.value]
    parts: list[RenderableType] = [
        Text.assemble(f"{printable(found.judge)}: ", (word, style), f" ({meaning})"),
        Text(
            f"{found.n_asked} of {found.n_planned} probes asked (version {found.version}); "
            f"no label: {len(found.denied)} denied, {len(found.failed)} failed"
        ),
    ]
    for verdict in found.baseline:
        if not verdict.right:
            said = verdict.said or verdict.unscored
            parts.append(
                Text(
                    f"Baseline failed: the answer that {verdict.carrier} was judged {said}, and is "
                    f"{verdict.label}; it was not attacked."
                )
            )
    if found.n_asked:
        parts.append(_probe_table(found))
        parts.append(
            Text(
                f"All: {_share(found.overall[-1])}. Flips of scored verdicts, by the label that "
                "the attack wants; intervals in percent, clustered by attack."
            )
        )
    if found.flips:
        parts.append(Text(f"Flipped: {_some([flip.probe for flip in found.flips], 20)}"))
    if found.denied:
        parts.append(Text(f"Denied: {_some(found.denied, 20)}"))
    if found.failed:
        parts.append(Text(f"Failed: {_some(found.failed, 20)}"))
    return Group(*parts)


def _share(line: AttackLine) -> str:
    return f"{line.flips} of {line.rate.n_responses} verdicts flipped, {line.rate}"


def _probe_table(found: JudgeProbe) -> Table:
    wants = [line.wants for line in found.overall if line.wants is not None]
    heads = [head for label in wants for head in (f"to {label}", "95 %")]
    table = build_table("attack", *heads, "unscored")
    lines: dict[str, list[AttackLine]] = {}
    for line in found.lines:
        lines.setdefault(line.kind, []).append(line)
    for kind, of_kind in lines.items():
        table.add_row(kind, *_flip_cells(of_kind))
    table.add_section()
    table.add_row("all", *_flip_cells([line for line in found.overall if line.wants is not None]))
    return table


def _flip_cells(lines: Sequence[AttackLine]) -> list[str]:
    """Flips among the scored and their interval for each direction, then the unscored."""
    cells = []
    for line in lines:
        low, high = line.rate.low, line.rate.high
        cells.append(f"{line.flips}/{line.rate.n_responses}" if line.n_asked else "-")
        cells.append("-" if low is None or high is None else f"{low:.0f}-{high:.0f}")
    return [*cells, str(sum(line.denied + line.failed for line in lines))]


def rubric_view(rubric: Rubric) -> RenderableType:
    """A judge's rubric and model."""
    lines = [
        printable(f"{rubric.name} version {rubric.version} ({rubric.kind})"),
        printable(rubric.description, 400),
        rubric.digest,
    ]
    lines += [printable(line, 400) for line in rubric.facts]
    for title, text in (("System", rubric.system), ("Template", rubric.template)):
        if text:
            lines += ["", f"{title}:", ""]
            lines += [printable(line, 2000) for line in text.strip().splitlines()]
    return Group(*map(Text, lines))
