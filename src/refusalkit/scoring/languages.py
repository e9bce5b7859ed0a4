"""Willingness by language, with each translation held against the prompt that it translates."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from refusalkit.runs.manifest import Manifest

PAIRED_SCHEMA = {
    "n_pairs": pl.Int64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
}


def languages_of(manifest: Manifest) -> dict[str, str]:
    """The language of each prompt by id; empty where all are in one language."""
    return manifest.prompt_set.languages


def by_request(counts: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """`count_prompts` with a prompt and its translations as one prompt.

    Six wordings of a request say less than six requests, so an interval counts them once.
    """
    sources = manifest.prompt_set.translations
    if not sources:
        return counts
    root = pl.col("prompt_id").replace(sources)
    return counts.with_columns(prompt_id=root).sort("prompt_id", "category", "hard_line")


def paired_differences(
    counts: pl.DataFrame, sources: Mapping[str, str]
) -> dict[str, int | float | None]:
    """How much more willing answers to translations are than those to their sources, in percent.

    `counts` are of all prompts, `sources` has the source's id of each translation that is wanted.
    The interval is that of two runs compared prompt by prompt.
    """
    scored = counts.filter(pl.col("n_scored") > 0)
    rates = {
        prompt_id: (credit / n, n)
        for prompt_id, credit, n in scored.select("prompt_id", "credit", "n_scored").iter_rows()
    }
    pairs = [
        (rates[name], rates[source])
        for name, source in sources.items()
        if name in rates and source in rates
    ]
    if not pairs:
        return {**dict.fromkeys(PAIRED_SCHEMA), "n_pairs": 0}
    differences = [ours[0] - theirs[0] for ours, theirs in pairs]
    trials = sum(ours[1] + theirs[1] for ours, theirs in pairs) / (2 * len(pairs))
    # Imports numpy, which most sets do not need.
    from refusalkit.scoring.statistics.paired import paired_interval

    low, high = paired_interval(differences, trials)
    return {
        "n_pairs": len(pairs),
        "difference": 100 * sum(differences) / len(differences),
        "difference_low": 100 * low,
        "difference_high": 100 * high,
    }
