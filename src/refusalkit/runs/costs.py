"""What a run cost by its records, repeated requests included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable

import polars as pl

from refusalkit.errors import RecordError
from refusalkit.runs.folder import Run
from refusalkit.runs.pressure import spent_on_pressure
from refusalkit.runs.records import read_records
from refusalkit.types import Outcome, Unscored
from refusalkit.untrusted import printable


def spent_on(
    asked: pl.DataFrame | None, judged: pl.DataFrame, run: Run, judges: Collection[str] | None
) -> float | None:
    """Cost in USD of records, and of the run's canaries and turns after refusals.

    `asked` has the columns of `frames.attempts`, `judged` those of `frames.judgements`. `judges`
    limits whose verdicts on canaries and turns count; by default all do. None: a price is unknown.
    """
    costs = [paid(judged)] if asked is None else [priced(asked), paid(judged)]
    if any(part.null_count() for part in costs):
        return None
    return _with_the_rest(itertools.chain(*costs), run, judges)


class Bill:
    """Adds up the cost of records as they are read; the sum is exact in any order."""

    def __init__(self) -> None:
        self._answers: list[float | None] = []
        self._verdicts: dict[str | None, list[float | None]] = {}

    def add_answers(self, piece: pl.DataFrame) -> None:
        """Count a piece of a run's completions: outcome, cost_usd."""
        self._answers += _addends(priced(piece))

    def add_verdicts(self, piece: pl.DataFrame) -> None:
        """Count a piece of its verdicts: judge (null: not one of the run), source, unscored,
        cost_usd.
        """
        for (judge,), part in piece.partition_by("judge", as_dict=True).items():
            self._verdicts.setdefault(judge, []).extend(_addends(paid(part)))

    def spent_usd(self, run: Run, judges: Collection[str] | None) -> float | None:
        """Total cost in USD; with `judges`, of the answers and only these judges' verdicts."""
        wanted = self._verdicts.keys() if judges is None else self._verdicts.keys() & set(judges)
        costs = [*self._answers, *(cost for judge in wanted for cost in self._verdicts[judge])]
        known = [cost for cost in costs if cost is not None]
        return _with_the_rest(known, run, judges) if len(known) == len(costs) else None


def _addends(costs: pl.Series) -> list[float | None]:
    """The exact sum of some costs as few addends; [None]: one of them is unknown."""
    if costs.null_count():
        return [None]
    found = exact_sum(costs.to_list())
    # If a cost is infinite there is no exact sum; the addends then stay as they are.
    return costs.to_list() if found is None else list(found)


def _with_the_rest(
    costs: Iterable[float], run: Run, judges: Collection[str] | None
) -> float | None:
    """The costs plus those of canaries and of turns after refusals; None: a price is unknown."""
    canaries = spent_on_canaries(run, judges)
    pressed = spent_on_pressure(run, judges)
    if canaries is None or pressed is None:
        return None
    return math.fsum((*costs, canaries, pressed))


def priced(asked: pl.DataFrame) -> pl.Series:
    """Cost of each completion record in USD, leaving out failed requests without a price."""
    free = pl.col("outcome").is_in([Outcome.ERROR.value, Outcome.BLOCKED.value])
    return asked.filter(~free | pl.col("cost_usd").is_not_null())["cost_usd"]


def paid(judged: pl.DataFrame) -> pl.Series:
    """Cost of each verdict record in USD, leaving out those that needed no judge or failed."""
    unasked = [Unscored.JUDGE_ERROR.value, Unscored.JUDGE_BLOCKED.value]
    failed = pl.col("unscored").is_in(unasked).fill_null(value=False) & pl.col("cost_usd").is_null()
    return judged.filter((pl.col("source") == "judge") & ~failed)["cost_usd"]


def spent_on_canaries(run: Run, judges: Collection[str] | None) -> float | None:
    """Cost in USD of these judges' verdicts on canaries; None: a price is unknown."""
    if not run.canaries.exists():
        return 0.0
    total = 0.0
    for place, record in read_records(run.canaries):
        if judges is not None and record.get("judge") not in judges:
            continue
        cost = record.get("cost_usd")
        if cost is None:
            if record.get("unscored") in (Unscored.JUDGE_ERROR, Unscored.JUDGE_BLOCKED):
                continue
            return None
        if not isinstance(cost, int | float):
            raise RecordError(f"{place}: cost_usd cannot be {printable(cost, 60)}")
        total += cost
    return total


def exact_sum(costs: Iterable[float]) -> tuple[float, ...] | None:
    """Addends, largest first, of the exact sum of the costs; None if that is not finite.

    They do not depend on the order or the portions in which costs are added.
    """
    left, addends = list(costs), []
    try:
        while addend := math.fsum(left):
            if math.isnan(addend):
                return None
            addends.append(addend)
            left.append(-addend)
    except (OverflowError, ValueError):  # infinite
        return None
    return tuple(addends)
