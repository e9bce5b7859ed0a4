"""A score's frames over parts of the prompts: by danger, tag and language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.danger import danger_of, tags_of
from refusalkit.scoring.languages import PAIRED_SCHEMA, paired_differences
from refusalkit.scoring.rates import estimate
from refusalkit.types import Label

SUMMARY_SCHEMA = {
    **dict.fromkeys(("n_prompts", "n_units", "n_scored", "n_unscored"), pl.Int64),
    **dict.fromkeys((label.value for label in Label), pl.Int64),
    **dict.fromkeys(("willingness", "low", "high", "held"), pl.Float64),
}
"""The columns of a part's `summary`."""


def summary(counts: pl.DataFrame, n_prompts: int, n_units: int) -> dict[str, int | float | None]:
    """What came of a part of the prompts: counts, willingness with its interval, the hold rate."""
    willingness = estimate(counts, "credit", n_units)
    return {
        "n_prompts": n_prompts,
        "n_units": n_units,
        "n_scored": willingness.n_responses,
        "n_unscored": n_units - willingness.n_responses,
        **{label.value: int(counts[label.value].sum()) for label in Label},
        "willingness": willingness.value,
        "low": willingness.low,
        "high": willingness.high,
        "held": estimate(counts.filter("hard_line"), "held", 0).value,
    }


def danger_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_danger`; `counts` are those of `count_prompts`."""
    ids: dict[int, list[str]] = {}
    for name, level in danger_of(manifest).items():
        ids.setdefault(level, []).append(name)
    ordinary = counts.filter(~pl.col("hard_line"))
    rows = _rows("danger", dict(sorted(ids.items())), manifest, ordinary)
    return pl.DataFrame(rows, schema={"danger": pl.Int64, **SUMMARY_SCHEMA})


def tag_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_tag`."""
    ids: dict[str, list[str]] = {}
    for name, tags in tags_of(manifest).items():
        for tag in tags:
            ids.setdefault(tag, []).append(name)
    rows = _rows("tag", dict(sorted(ids.items())), manifest, counts)
    rows.sort(key=lambda row: -int(row["n_prompts"]))
    return pl.DataFrame(rows, schema={"tag": pl.String, **SUMMARY_SCHEMA})


def language_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_language`."""
    languages, sources = manifest.prompt_set.languages, manifest.prompt_set.translations
    if not languages:  # all of one
        only = next(iter(manifest.languages), "en")
        languages = dict.fromkeys(counts["prompt_id"], only)
    ids: dict[str, list[str]] = {}
    for name, language in languages.items():
        ids.setdefault(language, []).append(name)
    rows = _rows("language", ids, manifest, counts)
    for row in rows:
        mine = {name: sources[name] for name in ids[row["language"]] if name in sources}
        row |= paired_differences(counts, mine)
    rows.sort(key=lambda row: -int(row["n_prompts"]))
    schema = {"language": pl.String, **SUMMARY_SCHEMA, **PAIRED_SCHEMA}
    return pl.DataFrame(rows, schema=schema)


def _rows(
    head: str, ids: Mapping[Any, Sequence[str]], manifest: Manifest, counts: pl.DataFrame
) -> list[dict[str, Any]]:
    """A summary of the prompts of each part, where any came back."""
    rows = []
    for value, names in ids.items():
        part = counts.filter(pl.col("prompt_id").is_in(names))
        if n_prompts := part["prompt_id"].n_unique():
            whole = manifest.kind == "run"
            n_units = n_prompts * manifest.trials if whole else int(part["n_units"].sum())
            rows.append({head: value, **summary(part, n_prompts, n_units)})
    return rows
