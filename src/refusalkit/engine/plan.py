"""A run's plan, its progress, and why a session ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import Literal, NamedTuple, Protocol

from refusalkit.display import shows
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.random_order import in_random_order
from refusalkit.types import Prompt, Verdict


class Ended(StrEnum):
    """Why a session of work ended."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    MAX_COST = "max_cost"
    HELD = "held"
    CROSSED = "crossed"
    BATCHES = "batches"


@shows("planned", "completions", "verdicts", "unscored", "cost_usd", "eta_s")
class Progress(NamedTuple):
    """A run's progress."""

    planned: int
    """Units of the run."""
    completions: int = 0
    """Units with a completion."""
    verdicts: int = 0
    """Units with a verdict."""
    refusals: int = 0
    """Verdicts that are refusals."""
    unscored: int = 0
    """Verdicts without a label."""
    cost_usd: float | None = 0.0
    """USD spent so far; None: a price is unknown."""
    found: int = 0
    """Verdicts that were on disk before this session."""
    elapsed_s: float = 0.0
    """Seconds since this session began."""

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left, at this session's pace; None before its first verdict."""
        fresh = self.verdicts - self.found
        if fresh <= 0:
            return None
        return self.elapsed_s / fresh * max(0, self.planned - self.verdicts)


OnProgress = Callable[[Progress], None]

JudgeLater = Literal["none", "kept", "all"]
"""Which answers a session leaves for a batch to judge: none, those kept on disk, or all."""


Plan = Callable[[], Iterable[tuple[int, Sequence[Prompt]]]]
"""All units of a run in order: pairs of a trial and its prompts."""


def plan_trials(prompts: PromptSet, trials: int) -> Plan:
    """One trial after another, so that an interrupted run has as many whole trials as possible."""
    return lambda: ((trial, prompts.prompts) for trial in range(1, trials + 1))


def plan_prompts(prompts: PromptSet, trials: int, seed: int) -> Plan:
    """All trials of one prompt before the next, the prompts in a random order fixed by `seed`.

    A prompt's framings go with it. So the units finished at any moment are a random sample of the
    set, and all but the last prompts are complete.
    """
    ordered = list(itertools.chain.from_iterable(in_random_order(prompts, seed)))
    return lambda: ((trial, (prompt,)) for prompt in ordered for trial in range(1, trials + 1))


class StopRule(Protocol):
    """Decides, verdict by verdict, whether a run can stop because its question is answered."""

    def saw(self, verdict: Verdict) -> None:
        """Take note of the verdict on one unit."""

    @property
    def met(self) -> Ended | None:
        """Why the run may stop; None: not yet."""


def plan_units(units: Iterable[tuple[Prompt, int]]) -> Plan:
    """Recorded units, in their order."""
    ordered = [
        (trial, [prompt for prompt, _ in same])
        for trial, same in itertools.groupby(units, key=itemgetter(1))
    ]
    return lambda: ordered
