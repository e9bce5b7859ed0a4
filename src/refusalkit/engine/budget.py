"""What runs cost so far, and whether there is room for one unit more. In USD.

Nobody knows beforehand what an answer costs, only what it can cost at the most, where a price and a
bound on tokens are known. So a unit may begin beside others only where all of them at their most
stay within the bound; alone it may begin where one as dear as the dearest so far does. And there
are never more at work than have ended: what units cost shows before many of them are paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from refusalkit.errors import ConfigurationError
from refusalkit.runs.state import Dearest


class Budget:
    """What one run may cost, or several together."""

    def __init__(self, max_cost: float) -> None:
        self._max_cost = max_cost
        self._runs: list[RunBudget] = []

    @property
    def runs(self) -> Sequence[RunBudget]:
        """Those that it bounds."""
        return self._runs

    def join(self, run: RunBudget) -> None:
        """Count a run in, for good: what it spent stays spent."""
        self._runs.append(run)

    def has_room(self, run: RunBudget, *, completes: bool) -> bool:
        """Whether one unit more of `run` stays within it."""
        spent = sum(one.spent_usd or 0.0 for one in self._runs)
        if not any(one.is_at_work for one in self._runs):
            return spent + run.dearest_usd(completes=completes) < self._max_cost
        most = sum(one.most_in_flight_usd for one in self._runs)
        return spent + most + run.most_usd(completes=completes) < self._max_cost


class RunBudget:
    """What one run has spent, and what is in flight: bounded by budgets, or not.

    `spent_usd` None: a price is unknown. `ceiling_usd` is the most that a completion can cost; None
    where that is not known, the dearest so far then stands for it.
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
        """Whether what is in flight, here or in runs of the budgets that are short, may make some.

        A run that has come to its own bound does not wait for the others.
        """
        short = [one for one in self._budgets if not one.has_room(self, completes=completes)]
        return self.is_at_work or all(any(run.is_at_work for run in one.runs) for one in short)

    def go_on(self, spent_usd: float | None, dearest: Dearest, n_units: int) -> None:
        """Begin where the sessions before this one ended, which settled `n_units`."""
        self.spent_usd, self._dearest, self._ended = spent_usd, dearest, n_units
        for budget in self._budgets:
            budget.join(self)

    def begin(self, *, completes: bool) -> bool:
        """Take up a unit if there is room; with `completes` it asks the model before the judge.

        Raises `ConfigurationError` where there is a bound and a price is unknown.
        """
        if not self._has_room(completes=completes):
            return False
        self._in_flight += 1
        self._completing += completes
        return True

    def completed(self) -> None:
        """A unit's completion is there, whatever came of it."""
        self._completing -= 1
        self._tell()

    def end(self) -> None:
        """A unit is no longer at work."""
        self._in_flight -= 1
        self._ended += 1
        self._tell()

    def wake(self) -> None:
        """Let those look again who wait for room."""
        if self._change is not None:
            self._change.set()
            self._change = None

    async def changed(self) -> None:
        """Wait until there may be more room than there was, or `wake` is called."""
        if self._change is None:
            self._change = asyncio.Event()
        await self._change.wait()

    def add(self, cost: float | None) -> None:
        """Count what was spent."""
        known = cost is not None and self.spent_usd is not None
        self.spent_usd = (self.spent_usd or 0.0) + (cost or 0.0) if known else None

    def saw_completion(self, cost: float | None) -> None:
        """What a completion cost may be the most so far."""
        dearest = max(self._dearest.completion or 0.0, cost or 0.0)
        if dearest != self._dearest.completion:
            self._dearest = replace(self._dearest, completion=dearest)

    def saw_verdict(self, cost: float | None) -> None:
        """What a verdict cost may be the most so far."""
        dearest = max(self._dearest.verdict or 0.0, cost or 0.0)
        if dearest != self._dearest.verdict:
            self._dearest = replace(self._dearest, verdict=dearest)

    def dearest_usd(self, *, completes: bool) -> float:
        """What one unit costs that is as dear as the dearest so far."""
        completion = (self._dearest.completion or 0.0) if completes else 0.0
        return completion + (self._dearest.verdict or 0.0)

    def most_usd(self, *, completes: bool) -> float:
        """The most that one unit may be expected to cost."""
        return (self._most_completion if completes else 0.0) + (self._dearest.verdict or 0.0)

    @property
    def most_in_flight_usd(self) -> float:
        """The most that what is in flight may be expected to cost yet."""
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
                "what the run costs is not known, so max_cost cannot hold: a completion or a "
                "verdict came without its cost_usd (0.0 where it is free)"
            )
        if self._in_flight >= max(1, self._ended):
            return False
        return all(budget.has_room(self, completes=completes) for budget in self._budgets)

    def _tell(self) -> None:
        self.wake()
        for budget in self._budgets:
            for run in budget.runs:
                run.wake()
