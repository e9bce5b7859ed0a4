"""What the records of a run cost, repeated requests included."""

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
    """What records that were read cost in USD: `asked` as `attempts`, `judged` as `judgements`.

    None: a price is unknown. `judges` are those whose canaries count too, by default all.
    """
    costs = [paid(judged)] if asked is None else [priced(asked), paid(judged)]
    if any(part.null_count() for part in costs):
        return None
    return _with_the_rest(itertools.chain(*costs), run, judges)


class Bill:
    """What records cost, added up as they are read in whatever order; the sum is exact."""

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
        """`spent_on` what was counted; with `judges` only their verdicts beside the answers."""
        wanted = self._verdicts.keys() if judges is None else self._verdicts.keys() & set(judges)
        costs = [*self._answers, *(cost for judge in wanted for cost in self._verdicts[judge])]
        known = [cost for cost in costs if cost is not None]
        return _with_the_rest(known, run, judges) if len(known) == len(costs) else None


def _addends(costs: pl.Series) -> list[float | None]:
    """The exact sum of some costs as few addends; [None]: one of them is unknown."""
    if costs.null_count():
        return [None]
    found = exact_sum(costs.to_list())
    # What is infinite has no exact sum, and stays infinite.
    return costs.to_list() if found is None else list(found)


def _with_the_rest(
    costs: Iterable[float], run: Run, judges: Collection[str] | None
) -> float | None:
    """The sum of costs and of what canaries and insistence cost; None: a price is unknown."""
    canaries = spent_on_canaries(run, judges)
    pressed = spent_on_pressure(run, judges)
    if canaries is None or pressed is None:
        return None
    return math.fsum((*costs, canaries, pressed))


def priced(asked: pl.DataFrame) -> pl.Series:
    """What each completion record cost in USD; a request that failed has no price."""
    free = pl.col("outcome").is_in([Outcome.ERROR.value, Outcome.BLOCKED.value])
    return asked.filter(~free | pl.col("cost_usd").is_not_null())["cost_usd"]


def paid(judged: pl.DataFrame) -> pl.Series:
    """What each verdict record cost in USD; one that needed no judge costs nothing."""
    unasked = [Unscored.JUDGE_ERROR.value, Unscored.JUDGE_BLOCKED.value]
    failed = pl.col("unscored").is_in(unasked).fill_null(value=False) & pl.col("cost_usd").is_null()
    return judged.filter((pl.col("source") == "judge") & ~failed)["cost_usd"]


def spent_on_canaries(run: Run, judges: Collection[str] | None) -> float | None:
    """What the verdicts of some judges on canaries cost, in USD; None: a price is unknown."""
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
    """Addends, the largest first, of the exact sum of costs; None where they have none.

    They are the same in whatever order and portions the costs are added.
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
