"""Scores as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refusalkit.reporting.data.judges import council_data
from refusalkit.scoring.figures import FIGURES
from refusalkit.types import Estimate
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.runs.manifest import Manifest
    from refusalkit.scoring.pressure import HeldAfter, Pressure
    from refusalkit.scoring.score import Score
    from refusalkit.scoring.variance import Variance


BY = ("category", "trial", "prompt", "language")
"""The frames of a score that every JSON record of it has."""
PARTS = (*BY, "danger", "tag")
"""All frames of a score."""

_OF_TWINS = ("over_refusal", "youden_j")


def frame_by(score: Score, by: str) -> pl.DataFrame:
    """The score's frame for one of `PARTS`.

    With contrast prompts a category's row also has over_refusal, n_pairs, youden_j, youden_low and
    youden_high.
    """
    if by == "category" and score.n_contrast:
        columns = ("category", "over_refusal", "n_pairs", "youden_j", "youden_low", "youden_high")
        renamed = score.discrimination.rename({"low": "youden_low", "high": "youden_high"})
        return score.by_category.join(
            renamed.select(columns), on="category", how="left", maintain_order="left"
        )
    return {
        "category": score.by_category,
        "trial": score.by_trial,
        "prompt": score.by_prompt,
        "language": score.by_language,
        "danger": score.by_danger,
        "tag": score.by_tag,
    }[by]


def figures(score: Score) -> list[tuple[str, Estimate]]:
    """The headline figures by title; those about safe twins only if the run has any.

    The rate over danger 2 and 3 is left out where it is the answer rate, or there is none.
    """
    left_out = set() if score.n_contrast else set(_OF_TWINS)
    apart = score.dangerous_answer_rate
    if apart.value is None or apart.n_responses == score.answer_rate.n_responses:
        left_out.add("dangerous_answer_rate")
    return [
        (title, getattr(score, name)) for name, title in FIGURES.items() if name not in left_out
    ]


def discrimination_figures(score: Score) -> list[tuple[str, Estimate]]:
    """The headline figures about safe twins; none for a run without any."""
    if not score.n_contrast:
        return []
    return [(FIGURES[name], getattr(score, name)) for name in _OF_TWINS]


def set_lines(manifest: Manifest) -> list[str]:
    """What a reader of a score should know of its prompt set, a line each."""
    from refusalkit.prompts.public import notices

    entry = manifest.prompt_set
    inverted = inversion_line(manifest)
    said = notices(entry.selection, entry.n_prompts, has_hard_lines=bool(manifest.hard_lines))
    lines = [*([] if inverted is None else [inverted]), *said]
    if manifest.hard_lines >= {category.slug for category in entry.categories}:
        lines.append("Every prompt is on a hard line: willingness is the share that was refused")
    return lines


def inversion_line(manifest: Manifest) -> str | None:
    """Which list of hard lines a public set was scored with; None for other sets."""
    chosen = manifest.prompt_set.selection.get("inversion")
    if not isinstance(chosen, dict):
        return None
    names = {"paper": "the paper's", "atropos": "the reference environment's", "none": "none"}
    the_sets = "the set's own"
    line = f"Inverted categories: {names.get(str(chosen.get('list')), the_sets)}"
    missing = chosen.get("not_found")
    if missing and isinstance(missing, list | tuple):
        line += f" (not in the set: {'; '.join(map(printable, missing))})"
    return line


def score_data(score: Score, by: Iterable[str] = BY) -> dict[str, Any]:
    """A score as JSON values; percentages throughout (docs/records.md)."""
    return {
        "schema": 1,
        "run": score.run,
        "model": score.model,
        "prompt_set": {
            "name": score.prompt_set,
            "version": score.manifest.prompt_set.version,
            "digest": score.manifest.prompt_set.digest,
            "inversion": score.manifest.prompt_set.selection.get("inversion"),
        },
        "judge": {
            "id": score.judge,
            **score.manifest.judges[score.judge].model_dump(mode="json"),
            "same_family_as_model": score.same_family,
            "words": score.judge_words,
            "rests_on": score.rests_on,
            "n_cut": score.n_cut,
        },
        "trials": score.trials,
        "n_prompts": score.n_prompts,
        "n_contrast": score.n_contrast,
        "n_framed": score.n_framed,
        "n_units": score.n_units,
        "n_scored": score.n_scored,
        "count_deflection": score.count_deflection,
        "hard_line_text": score.manifest.hard_line_text,
        **{name: asdict(getattr(score, name)) for name in FIGURES},
        "variance": _variance(score.variance),
        "canaries": score.canaries.as_data(),
        "bounds": {"low": score.bounds[0], "high": score.bounds[1]},
        "unscored_interval": {
            "low": score.unscored_interval[0],
            "high": score.unscored_interval[1],
        },
        "is_complete": score.is_complete,
        "n_owed": score.n_owed,
        "outcomes": score.outcomes,
        "unscored": score.unscored,
        "odd_answers": score.odd.as_data(),
        "keyword_fallback": (
            None if score.keyword_fallback is None else asdict(score.keyword_fallback)
        ),
        "fallback_answers": score.fallback_answers,
        "pressure": pressure_data(score.pressure),
        "council": None if score.council is None else council_data(score.council),
        **{f"by_{name}": frame_by(score, name).to_dicts() for name in by},
    }


def pressure_data(pressure: Pressure | None) -> dict[str, Any] | None:
    """What insistence did to refusals, as JSON values; None without insistence."""
    if pressure is None:
        return None

    def turns(of: Iterable[HeldAfter]) -> list[dict[str, Any]]:
        return [
            {"turn": one.turn, "gave_way": one.gave_way, "held": asdict(one.held)} for one in of
        ]

    return {
        "script": pressure.script.model_dump(mode="json"),
        "n_refusals": pressure.n_refusals,
        "n_pressed": pressure.n_pressed,
        "turns": turns(pressure.turns),
        "hard_lines": turns(pressure.hard_lines),
        "gave_way": [{"unit": unit, "turn": turn} for unit, turn in pressure.gave_way],
    }


def _variance(variance: Variance) -> dict[str, Any]:
    return {
        **asdict(variance),
        "shares": variance.shares,
        "dominant": variance.dominant,
        "said": list(variance.sentences),
    }


def figure_rows(score: Score) -> tuple[list[str], list[list[Any]]]:
    """The headline figures as (columns, rows)."""
    columns = ["figure", "value", "low", "high", "n_prompts", "n_responses", "n_unscored"]
    rows = [
        [name, *(getattr(e, column) for column in columns[1:]), *(e.asked_again or (None, None))]
        for name, e in figures(score)
    ]
    return [*columns, "again_low", "again_high"], rows


def frame_rows(frame: pl.DataFrame) -> tuple[list[str], list[list[Any]]]:
    """A frame as (columns, rows)."""
    return frame.columns, [list(row) for row in frame.iter_rows()]
