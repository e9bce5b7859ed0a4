"""What a reader must know before believing a figure, in sentences."""

from __future__ import annotations

from refusalkit.reporting.document.facts import Facts, RunFacts

MANY_UNSCORED = 5.0
"""Percent of the units without a label from which a report warns."""

MANY_TRUNCATED = 5.0
"""Percent of the answers cut off by the length limit from which a report warns."""


def alarms(facts: Facts) -> list[str]:
    """What stands above everything else, each without a full stop.

    A judge that failed its canaries, and why runs that were compared all the same should not be.
    """
    said: list[str] = []
    for run in facts.runs:
        said += alarms_of(run, name=len(facts.runs) > 1)
    if facts.comparison is not None and facts.comparison.warnings:
        why = "; ".join(facts.comparison.warnings)
        said.append(f"The runs are unlike and were compared all the same: {why}")
    return said


def alarms_of(run: RunFacts, *, name: bool = False) -> list[str]:
    """The alarms of one run, with `name` told apart from other runs'."""
    warning = run.score.canaries.warning
    if warning is None:
        return []
    return [f"{run.name}: {warning}" if name else warning[0].upper() + warning[1:]]


def cautions(facts: RunFacts) -> list[str]:
    """The warnings of one run, the gravest first, each without a full stop."""
    score, manifest, judge = facts.score, facts.manifest, facts.judging.entry
    found = []
    if not facts.is_complete:
        owed = sum(score.unscored.get(why, 0) for why in ("owed", "error", "judge_error"))
        found.append(f"The run is not complete: {owed} of {score.n_units} units are owed")
    if score.unscored_percent > MANY_UNSCORED:
        low, high = score.bounds
        few = f"Few responses are scored: {score.unscored_percent:.1f} % of the units have no label"
        if score.willingness.value is not None:
            few += (
                f", and willingness lies between {low:.1f} and {high:.1f} % whichever way they go"
            )
        found.append(few)
    if manifest.hard_line_text == "kept":
        found.append("Answers to hard-line prompts were kept on disk; they are not shown here")
    if score.same_family is not None:
        found.append(
            f"Judge and model are of one family ({score.same_family}); a judge may be lenient with "
            "its kin"
        )
    if judge.kind == "lexical":
        found.append("The judge is a list of rules and no model: good for trying things out")
    came = sum(score.outcomes.values())
    if came and 100 * score.outcomes["truncated"] / came > MANY_TRUNCATED:
        found.append(
            f"{score.outcomes['truncated']} of {came} answers were cut off by the length limit; "
            "what was cut off is not judged"
        )
    if score.count_deflection:
        found.append("Deflections are counted as refusals, unlike in the paper")
    if facts.audit is not None:
        found += [f"Hard lines: {note}" for note in facts.audit.notes]
    return found


def cautions_between(facts: Facts) -> list[str]:
    """Why the figures of several runs are not set against one another."""
    return [f"The runs cannot be compared as they are: {reason}" for reason in facts.obstacles]
