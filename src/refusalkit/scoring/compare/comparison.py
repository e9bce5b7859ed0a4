"""Two or more runs against each other, paired by prompt; and a gate for what may change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from refusalkit.display import notebook_table, shows
from refusalkit.errors import UsageError
from refusalkit.runs.folder import Run
from refusalkit.scoring.compare.comparable import all_obstacles, configuration_notes
from refusalkit.scoring.compare.gate import FIGURES, Gate, Target, check_gate, gate_of
from refusalkit.scoring.compare.in_order import InOrder, compare_in_order
from refusalkit.scoring.compare.judged import CorrectedDifference, corrected_differences
from refusalkit.scoring.compare.sides import Sides, sides_of
from refusalkit.scoring.judge_quality.calibration import Calibration
from refusalkit.scoring.judge_quality.correction import languages_of
from refusalkit.scoring.score import Score, score_run
from refusalkit.scoring.statistics.paired import (
    GAINS_AND_LOSSES,
    UNPAIRED,
    holm,
    interval_p,
    letters,
    smallest_p,
)
from refusalkit.types import Estimate
from refusalkit.untrusted import printable

SIGNIFICANT = 0.05
LEVEL = 0.95


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
    """The same of these prompts, asked again."""
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

    `warnings` say why the runs cannot be set side by side as they are; they are empty unless the
    comparison was asked for all the same. `notes` say what else a reader must know: how the runs
    were configured unlike, what is unscored.
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


def compare_runs(
    runs: Sequence[Run],
    *,
    judge: str | None = None,
    anyway: bool = False,
    count_deflection: bool | None = None,
    max_drop: float | None = None,
    max_rise: float | None = None,
    on: str = "willingness",
    target: Target = "prompts-like-these",
    calibrations: Sequence[Calibration] = (),
    sequential: bool = False,
) -> Comparison:
    """Compare runs, the first against the second, or every pair.

    Raises `UsageError` where there are not two, or where prompts, hard lines, judge, preset or what
    counts as refused are not the same; with `anyway` those become `Comparison.warnings`, and runs
    on other prompts are paired on those in common. The gate (`max_drop`, `max_rise`, in points,
    `on` one of `FIGURES`) is for two runs; `target` says what it is about. With `calibrations`
    differences are also corrected for the judge's errors. `sequential` compares the figure `on` of
    two runs, finished or not, so that it holds however often one looks (`Comparison.in_order`).
    """
    if len(runs) < 2:
        raise UsageError("a comparison takes two runs or more")
    gated = max_drop is not None or max_rise is not None
    check_gate(len(runs), gated, max_drop, max_rise, on)
    if sequential and (gated or len(runs) != 2):
        raise UsageError("--sequential compares two runs, and has no gate: its p is the answer")
    scores = tuple(score_run(run, judge=judge, count_deflection=count_deflection) for run in runs)
    reasons = all_obstacles(scores)
    if reasons and not anyway:
        raise UsageError(
            f"these runs cannot be compared as they are: {'; '.join(reasons)} "
            "(--anyway compares them, with this warning)"
        )
    compared = compare_scores(scores)
    if calibrations:
        languages = [languages_of(run) for run in runs]
        corrected = tuple(
            _corrected(pair, scores, calibrations, languages) for pair in compared.pairs
        )
        compared = replace(compared, pairs=corrected)
    return replace(
        compared,
        gate=gate_of(scores, on, max_drop, max_rise, target) if gated else None,
        in_order=compare_in_order(scores[0], scores[1], on) if sequential else None,
    )


def _corrected(
    pair: Pair,
    scores: Sequence[Score],
    calibrations: Sequence[Calibration],
    languages: Sequence[dict[str, int] | None],
) -> Pair:
    """A pair with its differences corrected for the judge's errors."""
    found = corrected_differences(
        scores[pair.first],
        scores[pair.second],
        {name: item.estimate for name, item in pair.figures.items()},
        calibrations,
        (languages[pair.first], languages[pair.second]),
    )
    figures = {
        name: replace(item, corrected=found.get(name)) for name, item in pair.figures.items()
    }
    return replace(pair, figures=figures)


def compare_scores(scores: Sequence[Score]) -> Comparison:
    """Compare two scores or more whatever speaks against it, which becomes their warnings.

    Raises `UsageError` where neither of two runs has a response.
    """
    scores = tuple(scores)
    places = list(itertools.combinations(range(len(scores)), 2))
    found = [_pair(scores, a, b) for a, b in places]
    corrected = holm([pair.willingness.p for pair in found])
    pairs = tuple(replace(pair, p_holm=p) for pair, p in zip(found, corrected, strict=True))
    return Comparison(
        scores=scores,
        pairs=pairs,
        warnings=(*all_obstacles(scores), *_pairing_warnings(pairs)),
        notes=(*configuration_notes(scores), *_notes(scores, pairs)),
        gate=None,
    )


def _pair(scores: Sequence[Score], a: int, b: int) -> Pair:
    first, second = scores[a], scores[b]
    both = {name: sides for name in FIGURES if (sides := sides_of(first, second, name)) is not None}
    credit = both.get("willingness")
    if credit is None:
        raise UsageError(
            f"neither {printable(first.run)} nor {printable(second.run)} has a response"
        )
    return Pair(
        first=a,
        second=b,
        paired=credit.paired,
        n_common=credit.n_common,
        n_only_first=credit.n_only_first,
        n_only_second=credit.n_only_second,
        figures={name: _difference(name, sides) for name, sides in both.items()},
        p_holm=None,
        by_category=_by_category(first, credit),
        flipped=credit.flipped(),
    )


def _difference(name: str, sides: Sides) -> Difference:
    method = GAINS_AND_LOSSES if sides.paired else UNPAIRED
    rates = sides.rates()
    bounds = sides.bounds()
    if rates.means is None:
        nothing = Estimate(None, None, None, method, 0, 0, sides.n_missing)
        return Difference(name, None, None, nothing, None, bounds)
    first, second = rates.means
    low, high = rates.interval(LEVEL)
    again = rates.interval(LEVEL, again=True)
    estimate = Estimate(
        value=100 * (first - second),
        low=100 * low,
        high=100 * high,
        method=method,
        n_prompts=rates.n_prompts,
        n_responses=sides.n_responses,
        n_unscored=sides.n_missing,
        asked_again=(100 * again[0], 100 * again[1]),
    )
    return Difference(
        name,
        100 * first,
        100 * second,
        estimate,
        interval_p(rates.interval),
        bounds,
        p_asked_again=interval_p(lambda level: rates.interval(level, again=True)),
    )


def _by_category(first: Score, sides: Sides) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for entry in sorted(first.manifest.prompt_set.categories, key=lambda c: c.hard_line):
        part = sides.of_category(entry.slug)
        found = _difference("willingness", part)
        if found.estimate.value is None:
            continue
        rows.append(
            {
                "category": entry.slug,
                "title": entry.title,
                "hard_line": entry.hard_line,
                "n_prompts": found.estimate.n_prompts,
                "first": found.first,
                "second": found.second,
                "difference": found.estimate.value,
                "low": found.estimate.low,
                "high": found.estimate.high,
                "p": found.p,
            }
        )
    corrected = holm([row["p"] for row in rows])
    frame = pl.DataFrame(rows, schema={k: v for k, v in _CATEGORY_SCHEMA.items() if k != "p_holm"})
    return frame.with_columns(p_holm=pl.Series(corrected, dtype=pl.Float64))


def _pairing_warnings(pairs: Sequence[Pair]) -> list[str]:
    warnings = []
    for pair in pairs:
        if not pair.paired:
            warnings.append("the runs have no prompt in common, so they are compared unpaired")
        elif pair.n_only_first or pair.n_only_second:
            warnings.append(
                f"only the {pair.n_common} prompts with the same id and category in both runs are "
                f"compared ({pair.n_only_first + pair.n_only_second} are not); that their texts "
                "are the same was not checked"
            )
    return list(dict.fromkeys(warnings))


def _notes(scores: Sequence[Score], pairs: Sequence[Pair]) -> list[str]:
    notes = []
    unscored = sum(score.n_units - score.n_scored for score in scores)
    if unscored:
        notes.append(
            f"{unscored} responses are unscored; bounds say how far the difference could move"
        )
    smallest = min(
        (
            smallest_p(n)
            for pair in pairs
            if pair.paired
            for n in pair.by_category["n_prompts"].to_list()
        ),
        default=1.0,
    )
    categories = max((len(pair.by_category) for pair in pairs), default=0)
    if categories > 1 and smallest * categories > SIGNIFICANT:
        notes.append(
            "no category has enough prompts to be shown to differ by itself: the smallest p "
            f"possible, corrected for {categories} categories, is "
            f"{min(1.0, smallest * categories):.2g}"
        )
    return notes


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
_CATEGORY_SCHEMA = {
    "category": pl.String,
    "title": pl.String,
    "hard_line": pl.Boolean,
    "n_prompts": pl.Int64,
    **dict.fromkeys(("first", "second", "difference", "low", "high", "p", "p_holm"), pl.Float64),
}
