"""What runs cost so far, and whether one unit more could pass what they may cost. In USD."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from refusalkit.errors import ConfigurationError
from refusalkit.owed import Dearest


class Budget:
    """What several runs may cost together.

    Of each it counts what was spent and, for what is in flight, the dearest so far. A model that
    has answered nothing yet is taken to cost what the dearest of the others does.
    """

    def __init__(self, max_cost: float) -> None:
        self._max_cost = max_cost
        self._runs: list[Spending] = []
        self.first = asyncio.Lock()  # one unit of unknown cost at a time

    def join(self, run: Spending) -> None:
        """Count a run in, for good: what it spent stays spent."""
        self._runs.append(run)

    def would_pass(self, run: Spending) -> bool:
        """Whether one more unit of `run` could pass the budget."""
        dearest = max((other.unit_usd or 0.0 for other in self._runs), default=0.0)
        together = sum(other.committed_usd(dearest) for other in self._runs)
        return together + (dearest if run.unit_usd is None else run.unit_usd) >= self._max_cost


class Spending:
    """What one run has spent, and what is in flight: bounded by itself, by a `budget`, or not.

    A unit in flight is taken to cost what the dearest so far did. `spent_usd` None: a price is
    unknown.
    """

    def __init__(self, max_cost: float | None = None, budget: Budget | None = None) -> None:
        self.spent_usd: float | None = 0.0
        self._max_cost = max_cost
        self._budget = budget
        self._dearest = Dearest()
        self._in_flight = 0
        self._completing = 0

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything that one unit more could pass."""
        return self._max_cost is not None or self._budget is not None

    @property
    def first(self) -> AbstractAsyncContextManager[None]:
        """Held while a unit of unknown cost is at work, so that it is the only one."""
        return nullcontext() if self._budget is None else self._budget.first

    @property
    def unit_usd(self) -> float | None:
        """The most that a unit may be expected to cost, None before one came back."""
        return self._dearest.unit

    def go_on(self, spent_usd: float | None, dearest: Dearest) -> None:
        """Begin where the sessions before this one ended."""
        self.spent_usd, self._dearest = spent_usd, dearest
        if self._budget is not None:
            self._budget.join(self)

    def begin(self, *, completes: bool) -> None:
        """A unit is at work; with `completes` it asks the model before the judge."""
        self._in_flight += 1
        self._completing += completes

    def completed(self) -> None:
        """A unit's completion is there, whatever came of it."""
        self._completing -= 1

    def end(self) -> None:
        """A unit is no longer at work."""
        self._in_flight -= 1

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

    def committed_usd(self, unknown: float = 0.0) -> float:
        """What was spent, and what is in flight may yet cost; `unknown`: a unit without a price."""
        if self._dearest.unit is None:
            return (self.spent_usd or 0.0) + self._in_flight * unknown
        return (self.spent_usd or 0.0) + self._expected(self._completing, self._in_flight)

    def would_pass(self) -> bool:
        """Whether one more unit, as dear as the dearest so far, could pass a bound.

        Raises `ConfigurationError` where there is one and a price is unknown.
        """
        if not self.is_bounded:
            return False
        if self.spent_usd is None:
            raise ConfigurationError(
                "what the run costs is not known, so max_cost cannot hold: a completion or a "
                "verdict came without its cost_usd (0.0 where it is free)"
            )
        with_one_more = self._expected(self._completing + 1, self._in_flight + 1)
        if self._max_cost is not None and self.spent_usd + with_one_more >= self._max_cost:
            return True
        return self._budget is not None and self._budget.would_pass(self)

    def _expected(self, completions: int, verdicts: int) -> float:
        asked = completions * (self._dearest.completion or 0.0)
        return asked + verdicts * (self._dearest.verdict or 0.0)
