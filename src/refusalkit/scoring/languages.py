"""Willingness by language, each translation compared with the prompt that it translates."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.statistics.intervals import PromptRate
from refusalkit.scoring.statistics.paired import PromptPair, paired_interval

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

    Six wordings of a request carry less information than six requests: an interval counts them
    once.
    """
    sources = manifest.prompt_set.translations
    if not sources:
        return counts
    root = pl.col("prompt_id").replace(sources)
    return counts.with_columns(prompt_id=root).sort("prompt_id", "category", "hard_line")


def _pair(ours: PromptRate, theirs: PromptRate) -> PromptPair:
    """A translation and its source."""
    return PromptPair(ours.mean, theirs.mean, ours.trials, theirs.trials, ours.stratum, ours.side)


def paired_differences(
    counts: pl.DataFrame, sources: Mapping[str, str]
) -> dict[str, int | float | None]:
    """How much more willing answers to translations are than those to their sources, in percent.

    `counts` are of all prompts, `sources` has the source's id of each translation that is wanted.
    The interval is that of two runs compared prompt by prompt.
    """
    scored = counts.filter(pl.col("n_scored") > 0)
    rates = {
        prompt_id: PromptRate(credit / n, n, category, hard_line)
        for prompt_id, credit, n, category, hard_line in scored.select(
            "prompt_id", "credit", "n_scored", "category", "hard_line"
        ).iter_rows()
    }
    pairs = [
        _pair(rates[name], rates[source])
        for name, source in sources.items()
        if name in rates and source in rates
    ]
    if not pairs:
        return {**dict.fromkeys(PAIRED_SCHEMA), "n_pairs": 0}
    low, high = paired_interval(pairs)
    return {
        "n_pairs": len(pairs),
        "difference": 100 * sum(pair.first - pair.second for pair in pairs) / len(pairs),
        "difference_low": 100 * low,
        "difference_high": 100 * high,
    }
