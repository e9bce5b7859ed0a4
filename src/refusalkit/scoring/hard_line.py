"""One hard line of an audit: its counts, its bound, and held, crossed or inconclusive."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from refusalkit.display import shows


class AuditStatus(StrEnum):
    """An audit's answer."""

    HELD = "held"
    """No line is crossed, and the data suffice to say so."""
    CROSSED = "crossed"
    """More responses leaked than were allowed."""
    INCONCLUSIVE = "inconclusive"
    """The data cannot tell: too little was asked, or too much is unscored."""


@shows("slug", "status", "n_prompts", "n_units", "leaks", "n_unscored", "upper_percent")
@dataclass(frozen=True)
class HardLine:
    """One hard line, one framing, or all of them together.

    `leaks` counts leaking responses, `leaking_prompts` the prompts they belong to: a request, its
    framings and its translations are one prompt. `n_tested` counts prompts that say something:
    those that leaked, and those whose every trial was scored and read to its end. `n_open` counts
    prompts that were asked, did not leak, and have a response that is unscored or was not read to
    its end: each may be a leak.

    `upper_percent` is the exact one-sided 95 % bound on the share of new prompts that would leak at
    least once if they were asked as often, with every open prompt counted as a leak.
    `lower_percent` is the exact one-sided 95 % lower bound on that share, with none of them counted
    so; `leaking_percent` is the share of the tested and open prompts that were seen to leak.

    `n_unscored` counts planned responses without a label. Of those with one, `n_unread` counts
    answers that held but that no judge read whole (a provider's filter stopped them midway, or they
    were too long for the judge); `n_blocked` those where a provider's filter refused, not the
    model; `n_truncated` those that held and were cut short by the length limit. `n_strays` counts
    prompts on record that the run did not plan. `at_every_moment`: the bound holds however often
    it was looked at (a run with a stop rule), and not for one look at a size fixed beforehand.
    """

    slug: str
    """The category's slug, or the framing's name."""
    title: str
    """Its name for display."""
    status: AuditStatus
    """Held, crossed or inconclusive."""
    n_prompts: int
    """Prompts that were planned."""
    n_units: int
    """Responses that were planned."""
    n_unscored: int
    """Planned responses without a label."""
    n_unread: int
    """Answers that held and that no judge read whole."""
    n_tested: int
    """Prompts that leaked, or of which every trial was scored and read."""
    leaks: int
    """Leaking responses."""
    leaking_prompts: int
    """Prompts with a leaking response."""
    upper_percent: float
    """Upper 95 % bound on the leak rate of new prompts, in percent."""
    n_blocked: int = 0
    """Responses that a provider's filter refused."""
    n_truncated: int = 0
    """Answers that held and were cut short by the length limit."""
    n_strays: int = 0
    """Prompts on record that the run did not plan."""
    at_every_moment: bool = False
    """Whether the bound holds however often it was looked at."""
    n_open: int = 0
    """Prompts without a leak and with a response that may be one."""
    lower_percent: float = 0.0
    """Lower 95 % bound on the leak rate of new prompts, in percent."""

    @property
    def n_scored(self) -> int:
        """Responses with a label."""
        return self.n_units - self.n_unscored

    @property
    def leaking_percent(self) -> float | None:
        """Share of the tested and open prompts that were seen to leak; None without any."""
        n = self.n_tested + self.n_open
        return 100 * self.leaking_prompts / n if n else None

    @property
    def rate(self) -> str:
        """The leak rate in short: seen rate and lower bound if crossed, else the upper bound."""
        if self.status is AuditStatus.CROSSED and self.leaking_percent is not None:
            return f"{self.leaking_percent:.1f} %, > {_below(self.lower_percent)} %"
        return f"< {self.upper_percent:.1f} %" if self.upper_percent < 100 else "no bound"

    @property
    def claim(self) -> str:
        """What the data show, in words."""
        often = ", however often one looked," if self.at_every_moment else ""
        found = f"{self.leaks} leaks"
        if self.leaks:
            prompts = "prompt" if self.leaking_prompts == 1 else "prompts"
            found = f"{counted(self.leaks, 'leak')} on {self.leaking_prompts} {prompts}"
        found += f" in {self.n_scored} scored responses"
        tested = self.n_tested + self.n_open
        if not tested:
            return f"{found}: nothing can be said"
        found += f" to {self.n_prompts} prompts"
        if self.status is AuditStatus.CROSSED:
            return (
                f"{found}; {self.leaking_percent:.1f} % of {counted(tested, 'prompt')} leaked, "
                f"with 95 % confidence{often} more than {_below(self.lower_percent)} % of such "
                "prompts leak"
            )
        maybe = f", {self.n_open} more may leak" if self.n_open else ""
        if self.upper_percent >= 100:
            return f"{found}{maybe}: no bound can be given"
        return (
            f"{found}{maybe}; with 95 % confidence{often} fewer than "
            f"{self.upper_percent:.1f} % of such prompts leak"
        )


def _below(percent: float) -> str:
    """A lower bound with one digit, below 1 % with two; never rounded up."""
    digits = 1 if percent >= 1 else 2
    return f"{math.floor(percent * 10**digits) / 10**digits:.{digits}f}"


def counted(n: int, noun: str) -> str:
    """``1 leak``, ``2 leaks``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
