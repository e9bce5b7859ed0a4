"""The result of comparing two or more runs, paired by prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from refusalkit.display import notebook_table, shows
from refusalkit.scoring.compare.gate import Gate
from refusalkit.scoring.compare.in_order import InOrder
from refusalkit.scoring.compare.judged import CorrectedDifference
from refusalkit.scoring.score import Score
from refusalkit.scoring.statistics.paired import letters
from refusalkit.types import Estimate

SIGNIFICANT = 0.05


@shows("figure", "first", "second", "p", difference=lambda found: str(found.estimate))
@dataclass(frozen=True)
class Difference:
    """One figure of two runs, in percent, and the difference, first less second, in points.

    `first` and `second` are means over prompts, each prompt weighing the same: of the prompts that
    both runs have a scored response to, where the runs are paired (*prompts in common*). So they
    may differ a little from each run's own score where responses are unscored.

    `estimate` holds the difference and its interval; its `n_unscored` counts the responses missing
    on both sides. `p` is two-sided, of the interval's own test: at most 0.05 exactly where the 95 %
    interval leaves out 0; None where there is nothing to compare. `estimate.asked_again` and
    `p_asked_again` are of these prompts, asked again. `corrected` is the difference without the
    judge's errors, where a calibration was given. `bounds` is the difference, in points, had every
    unscored response of the first run gone down and of the second up, and the reverse.
    """

    figure: str
    """Its name: willingness, answer_rate, hold_rate, refusal_rate or over_refusal."""
    first: float | None
    """The first run's figure, in percent."""
    second: float | None
    """The second run's figure, in percent."""
    estimate: Estimate
    """First less second, in points, with its interval."""
    p: float | None
    """Two-sided, 0 to 1; None where there is nothing to compare."""
    bounds: tuple[float, float]
    """The difference in points for the best and the worst case of what is unscored."""
    p_asked_again: float | None = None
    """The p for these prompts, asked again."""
    corrected: CorrectedDifference | None = None
    """The difference without the judge's errors, or None."""


@shows(
    "paired",
    "n_common",
    "n_only_first",
    "n_only_second",
    "p_holm",
    willingness=lambda pair: str(pair.willingness.estimate),
)
@dataclass(frozen=True)
class Pair:
    """Two of the runs, by their place in `Comparison.scores`.

    `figures` has a `Difference` for each of willingness, answer_rate, hold_rate, refusal_rate and,
    where both runs have contrast prompts, over_refusal. `p_holm` is willingness's p, corrected for
    the number of pairs. `paired`: whether prompts could be matched; if not, the runs are compared
    as two samples of prompts.

    `by_category` has columns category, title, hard_line, n_prompts, first, second, difference, low,
    high (percent and points), p, p_holm (corrected for the number of categories).
    `flipped` has a row for each prompt on one side of 50 % in one run and on the other in the
    other, the largest difference first: prompt_id, category, hard_line, first, second (mean credit,
    percent), n_first, n_second (scored responses).
    """

    first: int
    """The place of the first run in `Comparison.scores`."""
    second: int
    """The place of the second run."""
    paired: bool
    """Whether prompts could be matched."""
    n_common: int
    """Prompts that both runs have a scored response to."""
    n_only_first: int
    """Prompts that only the first run has."""
    n_only_second: int
    """Prompts that only the second run has."""
    figures: dict[str, Difference]
    """A `Difference` by name."""
    p_holm: float | None
    """Willingness's p, corrected for the number of pairs."""
    by_category: pl.DataFrame
    """A row for each category."""
    flipped: pl.DataFrame
    """A row for each prompt that changed sides."""

    @property
    def willingness(self) -> Difference:
        """The headline's difference."""
        return self.figures["willingness"]


@shows(
    runs=lambda found: ", ".join(found.names),
    pairs=lambda found: len(found.pairs),
    warnings=lambda found: len(found.warnings),
    gate=lambda found: None if found.gate is None else found.gate.status,
)
@dataclass(frozen=True)
class Comparison:
    """Runs compared, each with its `Score`, and every pair of them.

    `warnings` say why the runs are not comparable as they are; without ``anyway`` such runs are not
    compared. `notes` say what else a reader must know: how the runs' settings differ, what is
    unscored.
    """

    scores: tuple[Score, ...]
    """The score of each run."""
    pairs: tuple[Pair, ...]
    """Every pair of runs that was compared."""
    warnings: tuple[str, ...]
    """Why the runs are not comparable as they are; empty where they are."""
    notes: tuple[str, ...]
    """What else a reader must know, in sentences."""
    gate: Gate | None
    """The gate of a comparison of two, or None."""
    in_order: InOrder | None = None
    """The difference in the order in which prompts were asked, at every moment, or None."""

    @property
    def pair(self) -> Pair:
        """The first run against the second."""
        return self.pairs[0]

    @property
    def willingness(self) -> Difference:
        """The first run's willingness less the second's."""
        return self.pair.willingness

    @property
    def names(self) -> tuple[str, ...]:
        """A letter for each run: A, B, C ..."""
        return tuple(
            chr(ord("A") + n) if len(self.scores) <= 26 else str(n + 1)
            for n in range(len(self.scores))
        )

    @cached_property
    def runs(self) -> pl.DataFrame:
        """One row for each run, in the order given.

        Columns: name, run, model, judge, trials, n_prompts, n_units, n_unscored, willingness, low,
        high (percent), bound_low, bound_high (over what is unscored), group. Runs that share a
        letter in `group` were not shown to differ (Holm over all pairs, 5 %).
        """
        differ = [
            (pair.first, pair.second)
            for pair in self.pairs
            if pair.p_holm is not None and pair.p_holm <= SIGNIFICANT
        ]
        values = [score.willingness.value or 0.0 for score in self.scores]
        rows = [
            {
                "name": name,
                "run": score.run,
                "model": score.model,
                "judge": score.judge,
                "trials": score.trials,
                "n_prompts": score.n_prompts,
                "n_units": score.n_units,
                "n_unscored": score.n_units - score.n_scored,
                "willingness": score.willingness.value,
                "low": score.willingness.low,
                "high": score.willingness.high,
                "bound_low": score.bounds[0],
                "bound_high": score.bounds[1],
                "group": group,
            }
            for name, score, group in zip(
                self.names, self.scores, letters(values, differ), strict=True
            )
        ]
        return pl.DataFrame(rows, schema=_RUNS_SCHEMA)

    @cached_property
    def differences(self) -> pl.DataFrame:
        """One row for each pair and figure.

        Columns: first, second (names), figure, n_prompts, first_value, second_value (percent),
        difference, low, high (points), p, again_low, again_high, p_again (of these prompts, asked
        again), corrected, corrected_low, corrected_high (null without a calibration), p_holm
        (willingness only, over pairs), bound_low, bound_high, paired.
        """
        rows = [
            {
                "first": self.names[pair.first],
                "second": self.names[pair.second],
                "figure": name,
                "n_prompts": found.estimate.n_prompts,
                "first_value": found.first,
                "second_value": found.second,
                "difference": found.estimate.value,
                "low": found.estimate.low,
                "high": found.estimate.high,
                "p": found.p,
                "again_low": _end(found.estimate, 0),
                "again_high": _end(found.estimate, 1),
                "p_again": found.p_asked_again,
                "corrected": _corrected_end(found, "value"),
                "corrected_low": _corrected_end(found, "low"),
                "corrected_high": _corrected_end(found, "high"),
                "p_holm": pair.p_holm if name == "willingness" else None,
                "bound_low": found.bounds[0],
                "bound_high": found.bounds[1],
                "paired": pair.paired,
            }
            for pair in self.pairs
            for name, found in pair.figures.items()
        ]
        return pl.DataFrame(rows, schema=_DIFFERENCES_SCHEMA)

    def _repr_html_(self) -> str:
        """The comparison as a notebook shows it: the first run against each other."""
        shown = self.pairs if len(self.scores) < 3 else [p for p in self.pairs if p.first == 0]
        rows = [
            (
                f"{name.replace('_', ' ')}, {self.names[pair.first]} - {self.names[pair.second]}",
                *(_percent(value) for value in (item.first, item.second)),
                *_change(item.estimate),
                "-" if item.p is None else f"{item.p:.3f}",
                str(item.estimate.n_prompts),
            )
            for pair in shown
            for name, item in pair.figures.items()
        ]
        heads = ("", "first", "second", "difference", "95 % interval", "p", "prompts")
        notes = [f"warning: {warning}" for warning in self.warnings]
        notes += [
            f"{name}: {score.model}, {score.run}"
            for name, score in zip(self.names, self.scores, strict=True)
        ]
        if self.gate is not None:
            notes.append(f"gate {self.gate.status.value}: {self.gate.claim}")
        title = f"{len(self.scores)} runs compared: percent, and points between them"
        return notebook_table(title, heads, rows, [*notes, *self.notes])


def _end(estimate: Estimate, which: int) -> float | None:
    return None if estimate.asked_again is None else estimate.asked_again[which]


def _corrected_end(found: Difference, name: str) -> float | None:
    corrected = None if found.corrected is None else found.corrected.estimate
    return None if corrected is None else getattr(corrected, name)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _change(estimate: Estimate) -> tuple[str, str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-", "-"
    return f"{estimate.value:+.1f}", f"{estimate.low:+.1f} to {estimate.high:+.1f}"


_RUNS_SCHEMA = {
    **dict.fromkeys(("name", "run", "model", "judge"), pl.String),
    **dict.fromkeys(("trials", "n_prompts", "n_units", "n_unscored"), pl.Int64),
    **dict.fromkeys(("willingness", "low", "high", "bound_low", "bound_high"), pl.Float64),
    "group": pl.String,
}
_DIFFERENCES_SCHEMA = {
    **dict.fromkeys(("first", "second", "figure"), pl.String),
    "n_prompts": pl.Int64,
    **dict.fromkeys(
        (
            "first_value",
            "second_value",
            "difference",
            "low",
            "high",
            "p",
            "again_low",
            "again_high",
            "p_again",
            "corrected",
            "corrected_low",
            "corrected_high",
            "p_holm",
            "bound_low",
            "bound_high",
        ),
        pl.Float64,
    ),
    "paired": pl.Boolean,
}
