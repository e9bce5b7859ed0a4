"""Budgets in USD: what runs have cost, and whether one more unit fits.

The cost of an answer is unknown until it arrives. Before that there is only an upper bound, from
the price and the limit on tokens. So a unit may start while others are in flight only if all of
them at their upper bounds stay within the budget. With nothing in flight it may start if the budget
has room for a unit as expensive as the most expensive so far. There are never more units in flight
than have ended, so real costs are seen before many units are paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from refusalkit.errors import ConfigurationError
from refusalkit.runs.state import Dearest


class Budget:
    """An upper bound in USD on the cost of one run, or of several together."""

    def __init__(self, max_cost: float) -> None:
        self._max_cost = max_cost
        self._runs: list[RunBudget] = []

    @property
    def runs(self) -> Sequence[RunBudget]:
        """The runs it bounds."""
        return self._runs

    def join(self, run: RunBudget) -> None:
        """Add a run. What it spends still counts after it has ended."""
        self._runs.append(run)

    def has_room(self, run: RunBudget, *, completes: bool) -> bool:
        """Whether one more unit of `run` fits."""
        spent = sum(one.spent_usd or 0.0 for one in self._runs)
        if not any(one.is_at_work for one in self._runs):
            return spent + run.dearest_usd(completes=completes) < self._max_cost
        most = sum(one.most_in_flight_usd for one in self._runs)
        return spent + most + run.most_usd(completes=completes) < self._max_cost


class RunBudget:
    """What one run has spent and has in flight, within any number of budgets.

    `spent_usd` is None where a price is unknown. `ceiling_usd` is the upper bound of one
    completion's cost; where it is None the most expensive completion so far is taken.
    """

    def __init__(self, *budgets: Budget, ceiling_usd: float | None = None) -> None:
        self.spent_usd: float | None = 0.0
        self._budgets = budgets
        self._ceiling_usd = ceiling_usd
        self._dearest = Dearest()
        self._in_flight = 0
        self._completing = 0
        self._ended = 0
        self._change: asyncio.Event | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether a unit is in flight."""
        return self._in_flight > 0

    def may_find_room(self, *, completes: bool) -> bool:
        """Whether units in flight may turn out cheaper than their upper bound and so make room.

        They may belong to this run, or to other runs that share an exhausted budget. A run that
        has reached its own budget does not wait for other runs.
        """
        short = [one for one in self._budgets if not one.has_room(self, completes=completes)]
        return self.is_at_work or all(any(run.is_at_work for run in one.runs) for one in short)

    def go_on(self, spent_usd: float | None, dearest: Dearest, n_units: int) -> None:
        """Continue from earlier sessions, which settled `n_units`."""
        self.spent_usd, self._dearest, self._ended = spent_usd, dearest, n_units
        for budget in self._budgets:
            budget.join(self)

    def begin(self, *, completes: bool) -> bool:
        """Start a unit if there is room; with `completes` it calls the model and then the judge.

        Raises `ConfigurationError` if there is a budget and a price is unknown.
        """
        if not self._has_room(completes=completes):
            return False
        self._in_flight += 1
        self._completing += completes
        return True

    def completed(self) -> None:
        """A unit's completion has arrived or failed."""
        self._completing -= 1
        self._tell()

    def end(self) -> None:
        """A unit has ended."""
        self._in_flight -= 1
        self._ended += 1
        self._tell()

    def wake(self) -> None:
        """Wake whatever waits for room."""
        if self._change is not None:
            self._change.set()
            self._change = None

    async def changed(self) -> None:
        """Wait until there may be more room, or `wake` is called."""
        if self._change is None:
            self._change = asyncio.Event()
        await self._change.wait()

    def add(self, cost: float | None) -> None:
        """Add a cost in USD; None: unknown."""
        known = cost is not None and self.spent_usd is not None
        self.spent_usd = (self.spent_usd or 0.0) + (cost or 0.0) if known else None

    def saw_completion(self, cost: float | None) -> None:
        """Track the highest cost of a completion."""
        dearest = max(self._dearest.completion or 0.0, cost or 0.0)
        if dearest != self._dearest.completion:
            self._dearest = replace(self._dearest, completion=dearest)

    def saw_verdict(self, cost: float | None) -> None:
        """Track the highest cost of a verdict."""
        dearest = max(self._dearest.verdict or 0.0, cost or 0.0)
        if dearest != self._dearest.verdict:
            self._dearest = replace(self._dearest, verdict=dearest)

    def dearest_usd(self, *, completes: bool) -> float:
        """The cost of a unit as expensive as the most expensive so far."""
        completion = (self._dearest.completion or 0.0) if completes else 0.0
        return completion + (self._dearest.verdict or 0.0)

    def most_usd(self, *, completes: bool) -> float:
        """Upper bound on the cost of one unit."""
        return (self._most_completion if completes else 0.0) + (self._dearest.verdict or 0.0)

    @property
    def most_in_flight_usd(self) -> float:
        """Upper bound on the in-flight cost."""
        verdicts = self._in_flight * (self._dearest.verdict or 0.0)
        return self._completing * self._most_completion + verdicts

    @property
    def _most_completion(self) -> float:
        return max(self._ceiling_usd or 0.0, self._dearest.completion or 0.0)

    def _has_room(self, *, completes: bool) -> bool:
        if not self._budgets:
            return True
        if self.spent_usd is None:
            raise ConfigurationError(
                "the run's cost is unknown, so max_cost cannot hold: a completion or a verdict has "
                "no cost_usd; set it (0.0 if it is free)"
            )
        if self._in_flight >= max(1, self._ended):
            return False
        return all(budget.has_room(self, completes=completes) for budget in self._budgets)

    def _tell(self) -> None:
        self.wake()
        for budget in self._budgets:
            for run in budget.runs:
                run.wake()
