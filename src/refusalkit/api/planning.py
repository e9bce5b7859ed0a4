"""Plan how large a run must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, check_options
from refusalkit.api.results import audit, score
from refusalkit.config.run_config import RunOptions
from refusalkit.errors import UsageError
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.scoring.planning import Plan, PlannedRun


def plan(
    model: str | None = None,
    prompts: str | Path | PromptSet | None = None,
    *,
    width: float | None = None,
    difference: float | None = None,
    leaks: int = 0,
    rate: float | None = None,
    within: float | None = None,
    between: float = 0.5,
    power: float = 80.0,
    sensitivity: float = 90.0,
    specificity: float = 90.0,
    run: RunLike | None = None,
    judge: str | None = None,
    **options: Unpack[RunOptions],
) -> Plan:
    """How many prompts, trials and labels a claim needs, with requests and cost; see `Plan`.

    Without a goal it plans for three: an interval 10 points wide, a difference of 10 points, and
    several usual bounds on leaks. Nothing is sent, and no key is needed.

    Args:
        model: an id such as ``openai/gpt-6-luna``: rows then say what they cost.
        prompts: with `model`, prompts to take the length of requests from; default as `benchmark`.
        width: of the interval of a rate, in points.
        difference: between two runs over the same prompts that is to be found, in points.
        leaks: with a bound, plan for as many leaking prompts too.
        rate: the expected rate, in percent; default: the run's, or 50, where intervals are widest.
        within: correlation of the answers to one prompt, 0 to 1; default: the run's, or 0.6.
        between: correlation of the two models' rates by prompt, 0 to 1.
        power: the probability, in percent, of finding the difference.
        sensitivity: of the judge, in percent, for the number of labels.
        specificity: of the judge, in percent, for the number of labels.
        run: a run from which to take `rate` and `within`; a row for a bound then says how many
            prompts it lacks.
        judge: the id of one of the run's judges.
        **options: `bound`, in percent, on the share of hard-line prompts that leak; `trials`, how
            often each prompt is asked (default: rows for several numbers, and 5 or the run's for a
            bound); with `model` also what `estimate` takes.

    Raises:
        UsageError: a figure is out of range, or no number of prompts can reach it.

    Examples:
        >>> import refusalkit as rk
        >>> rk.plan(bound=5).rows[0].n_prompts
        59
    """
    from refusalkit.scoring import planning

    check_options(plan, options, RunOptions)
    given: dict[str, Any] = dict(options)
    bound, trials = given.pop("bound", None), given.pop("trials", None)
    if model is None and (given or prompts is not None):
        name = next(iter(given), "prompts")
        raise UsageError(f"{name} is for the cost of a model: name one")
    if trials is not None and trials < 1:
        raise UsageError(f"{trials} trials: it must be 1 or more")
    scored = None if run is None else score(run, judge=judge)
    notes = []
    if scored is not None:
        if rate is None and scored.willingness.value is not None:
            rate = min(99.0, max(1.0, scored.willingness.value))
        if within is None:
            within = planning.correlation_within(scored)
            if within is None:
                notes.append("the run says nothing about the correlation within prompts: 0.6 taken")
    expected = planning.Expected(
        rate=0.5 if rate is None else rate / 100,
        within=0.6 if within is None else within,
        between=between,
        power=power / 100,
        sensitivity=sensitivity / 100,
        specificity=specificity / 100,
    )
    every = (width, difference, bound) == (None, None, None)
    several = planning.TRIALS if trials is None else (trials,)
    width = 10.0 if every else width
    difference = 10.0 if every else difference
    rows: list[PlannedRun] = []
    if width is not None:
        rows += planning.plan_width(width, expected, several)
    if difference is not None:
        rows += planning.plan_difference(difference, expected, several)
    if every or bound is not None:
        bounds = planning.BOUNDS_PERCENT if bound is None else (bound,)
        hard = scored is not None and bool(scored.manifest.hard_lines)
        audited = audit(run, judge=judge) if run is not None and hard else None
        asked = trials or (5 if scored is None else scored.trials)
        rows += planning.plan_bound(bounds, leaks, asked, audited)
    if width is not None or difference is not None:
        notes.append(planning.more_trials_help(expected.within))
    if model is not None:
        rows, without = _priced(rows, model, prompts, given)
        notes += without
    return planning.Plan(
        rows=tuple(rows),
        labels=() if width is None else planning.plan_labels(width, expected),
        rate=100 * expected.rate,
        within=expected.within,
        between=expected.between,
        power=100 * expected.power,
        sensitivity=100 * expected.sensitivity,
        specificity=100 * expected.specificity,
        measured_on=None if scored is None else scored.run,
        model=model,
        notes=tuple(notes),
    )


def _priced(
    rows: list[PlannedRun],
    model: str,
    prompts: str | Path | PromptSet | None,
    options: dict[str, Any],
) -> tuple[list[PlannedRun], list[str]]:
    """The rows with their cost, that of an answer and its verdict in `estimate`, or why without."""
    from refusalkit.api.estimates import estimate

    found = estimate(model, prompts, **{"canaries": 0, **options, "trials": 1})
    if found.cost_usd is None:
        names = " and ".join(share.name for share in found.shares if share.cost_usd is None)
        return rows, [f"the price of {printable(names)} is unknown, so is what a row costs"]
    each = found.cost_usd.times(1 / found.n_prompts)
    return [replace(row, cost_usd=each.times(row.n_requests)) for row in rows], []
