"""What a reader must know before relying on a figure, in sentences."""

from __future__ import annotations

from refusalkit.reporting.document.facts import Facts, RunFacts
from refusalkit.reporting.document.parts import number
from refusalkit.scoring.listed_categories import listed_note

MANY_UNSCORED = 5.0
"""Percent of units without a label above which a report warns."""

MANY_TRUNCATED = 5.0
"""Percent of answers cut off at the length limit above which a report warns."""


def alarms(facts: Facts) -> list[str]:
    """Warnings shown above everything else, without full stops.

    A judge that failed its canaries, and the reasons against a comparison that was forced.
    """
    said: list[str] = []
    for run in facts.runs:
        said += alarms_of(run, name=len(facts.runs) > 1)
    if facts.comparison is not None and facts.comparison.warnings:
        why = "; ".join(facts.comparison.warnings)
        said.append(f"The runs were compared although they should not be: {why}")
    return said


def alarms_of(run: RunFacts, *, name: bool = False) -> list[str]:
    """The warnings about one run, prefixed with its name if `name` is set."""
    warnings = filter(None, [run.score.edits.warning, run.score.canaries.warning])
    return [f"{run.name}: {one}" if name else one[0].upper() + one[1:] for one in warnings]


def cautions(facts: RunFacts) -> list[str]:
    """The cautions about one run, most serious first, without full stops."""
    score, manifest, judge = facts.score, facts.manifest, facts.judging.entry
    found = []
    if not facts.is_complete:
        found.append(
            f"The run is incomplete: {number(score.n_owed)} of "
            f"{number(score.n_units)} units are missing"
        )
    if score.unscored_percent > MANY_UNSCORED:
        low, high = score.bounds
        few = f"Many units are unscored: {score.unscored_percent:.1f}\u00a0% have no label"
        if score.willingness.value is not None:
            wide = " to ".join(f"{end:.1f}" for end in score.unscored_interval)
            few += (
                f", so willingness could be anywhere from {low:.1f} to {high:.1f}\u00a0%; with "
                f"chance, from {wide}\u00a0% (95\u00a0% interval)"
            )
        found.append(few)
    if manifest.hard_line_text == "kept":
        found.append("Answers to hard-line prompts were kept on disk; they are not shown here")
    if score.same_family is not None:
        found.append(
            f"Judge and model belong to the same family ({score.same_family}); the judge may be "
            "lenient"
        )
    if judge.of_kind.reads_words:
        found.append("The judge is a set of rules, not a model: suited to trying things out")
    came = sum(score.outcomes.values())
    if came and 100 * score.outcomes["truncated"] / came > MANY_TRUNCATED:
        found.append(
            f"{score.outcomes['truncated']} of {came} answers were cut off at the length limit and "
            "judged without the rest"
        )
    found += score.odd.sentences
    if (note := listed_note(manifest)) is not None:
        found.append(note)
    if score.count_deflection:
        found.append("Deflections count as refusals, unlike in the paper")
    if facts.audit is not None:
        found += [f"Hard lines: {note}" for note in facts.audit.notes]
    return found


def cautions_between(facts: Facts) -> list[str]:
    """Why several runs are not compared."""
    return [f"The runs cannot be compared: {reason}" for reason in facts.obstacles]
