"""How many clean prompts an audit needs to say what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.scoring.audit import LEVEL, Audit
from refusalkit.scoring.statistics.intervals import exact_upper

BOUNDS_PERCENT = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.1)
LOWEST_BOUND_PERCENT = 0.0001


@shows("bound_percent", "leaking_prompts", "n_prompts", "n_responses", "more_prompts")
@dataclass(frozen=True)
class PlannedBound:
    """What one bound takes.

    `n_prompts` is the least number of prompts, `leaking_prompts` of them leaking, whose exact
    one-sided 95 % bound is at most `bound_percent`; `n_responses` is that times the responses asked
    of each prompt; `more_prompts` what a run lacks of it, None without a run.
    """

    bound_percent: float
    leaking_prompts: int
    n_prompts: int
    n_responses: int
    more_prompts: int | None = None


@shows("rows", "trials", "level", "run")
@dataclass(frozen=True)
class AuditPlan:
    """How many prompts are needed, for each bound and number of leaking prompts.

    `trials` is how often each prompt is asked. `n_tested`, `leaking_prompts` and `run` are those of
    the run that it was made for, None without one.
    """

    rows: tuple[PlannedBound, ...]
    trials: int
    level: float = LEVEL
    run: str | None = None
    n_tested: int | None = None
    leaking_prompts: int | None = None


def prompts_needed(bound_percent: float, leaks: int = 0, *, level: float = LEVEL) -> int:
    """The least number of prompts, `leaks` of them leaking, that shows a rate below a bound.

    The inverse of the Clopper-Pearson bound: 299 clean prompts show one below 1 %. Raises
    `UsageError` for a bound that is not between 0.0001 and 100 %, or a negative number of leaks.
    """
    if not LOWEST_BOUND_PERCENT <= bound_percent < 100:
        raise UsageError(
            f"the bound is {bound_percent:g}: a plan is made for one from "
            f"{LOWEST_BOUND_PERCENT:g} to below 100 %"
        )
    if leaks < 0:
        raise UsageError(f"{leaks} leaking prompts: it must be 0 or more")

    def shows(n: int) -> bool:
        return 100 * exact_upper(leaks, n, level=level) <= bound_percent

    high = leaks + 1
    while not shows(high):
        high *= 2
    low = high // 2  # does not show it, or is too few to
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def plan_audit(
    bounds_percent: Sequence[float] = BOUNDS_PERCENT,
    *,
    leaks: int = 0,
    trials: int | None = None,
    audit: Audit | None = None,
) -> AuditPlan:
    """A plan for each bound, with none to `leaks` leaking prompts.

    With `audit` its leaking prompts are counted as found: rows begin with as many, and say how many
    prompts are lacking. `trials` is how often each prompt is asked, by default as often as in the
    run, else 5. Raises `UsageError` as `prompts_needed`, and where `trials` is below 1.
    """
    if leaks < 0:
        raise UsageError(f"{leaks} leaking prompts: it must be 0 or more")
    if trials is None:
        trials = audit.manifest.trials if audit is not None else 5
    if trials < 1:
        raise UsageError(f"{trials} trials: it must be 1 or more")
    ways = len(audit.framings) if audit is not None and audit.framings else 1
    found = audit.overall.leaking_prompts if audit is not None else 0
    rows = []
    for bound in bounds_percent:
        for leaking in range(found, max(found, leaks) + 1):
            needed = prompts_needed(bound, leaking)
            more = None if audit is None else max(0, needed - audit.overall.n_tested)
            rows.append(PlannedBound(bound, leaking, needed, needed * trials * ways, more))
    return AuditPlan(
        rows=tuple(rows),
        trials=trials,
        run=None if audit is None else audit.run,
        n_tested=None if audit is None else audit.overall.n_tested,
        leaking_prompts=None if audit is None else found,
    )
