"""Comparing runs, paired by prompt: the differences, their intervals, and warnings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from refusalkit.errors import UsageError
from refusalkit.runs.folder import Run
from refusalkit.scoring.compare.comparable import all_obstacles, configuration_notes
from refusalkit.scoring.compare.gate import FIGURES, Target, check_gate, gate_of
from refusalkit.scoring.compare.in_order import compare_in_order
from refusalkit.scoring.compare.judged import corrected_differences
from refusalkit.scoring.compare.result import SIGNIFICANT, Comparison, Difference, Pair
from refusalkit.scoring.compare.sides import Sides, sides_of
from refusalkit.scoring.judge_quality.calibration import Calibration
from refusalkit.scoring.judge_quality.correction import languages_of
from refusalkit.scoring.listed_categories import listed, listed_note
from refusalkit.scoring.score import Score, score_run
from refusalkit.scoring.statistics.paired import (
    GAINS_AND_LOSSES,
    UNPAIRED,
    holm,
    interval_p,
    smallest_p,
)
from refusalkit.types import Estimate
from refusalkit.untrusted import printable

LEVEL = 0.95


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
    """Compare two scores or more. What speaks against comparing them becomes a warning.

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
    for entry in listed(first.manifest.prompt_set.categories):
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
    notes = [note] if (note := listed_note(scores[0].manifest)) is not None else []
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


_CATEGORY_SCHEMA = {
    "category": pl.String,
    "title": pl.String,
    "hard_line": pl.Boolean,
    "n_prompts": pl.Int64,
    **dict.fromkeys(("first", "second", "difference", "low", "high", "p", "p_holm"), pl.Float64),
}
