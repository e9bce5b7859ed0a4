"""How far willingness could lie from what was scored, given what is unscored."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.languages import by_request
from refusalkit.scoring.statistics.intervals import PromptRate
from refusalkit.scoring.statistics.partly_unscored import partly_unscored


@dataclass(frozen=True)
class Bounds:
    """Willingness if every unscored response had gone one way, or the other; in percent.

    lowest, highest: with no credit, and with full credit, for every unscored response: the figure
        of this run certainly lies between them.
    low, high: the interval for willingness that covers both these bounds and chance.
    """

    lowest: float
    highest: float
    low: float
    high: float


def bounds_of(manifest: Manifest, counts: pl.DataFrame) -> Bounds:
    """The bounds of willingness; `counts` are those of `rates.count_prompts`.

    A prompt that was not asked yet is unscored throughout.
    """
    lowest: list[PromptRate] = []
    highest: list[PromptRate] = []
    # Recorded answers need not have every trial of every prompt.
    planned = manifest.trials if manifest.kind == "run" else 1
    n_planned = pl.max_horizontal("n_units", pl.lit(planned, dtype=pl.Int64))
    asked = by_request(counts.with_columns(n_units=n_planned), manifest)
    prompts = asked.group_by("prompt_id").agg(
        pl.col("category", "hard_line").first(), pl.col("credit", "n_scored", "n_units").sum()
    )
    columns = ["hard_line", "category", "credit", "n_scored", "n_units"]
    alike = prompts.group_by(columns).agg(times=pl.len()).sort(columns)
    for hard_line, category, credit, scored, n, times in alike.iter_rows():
        prompt = PromptRate(credit / n, n, category, hard_line, 1.0, times)
        lowest.append(prompt)
        highest.append(prompt._replace(mean=(credit + n - scored) / n))
    seen = dict(counts.group_by("category").len().iter_rows())
    missing = 0
    for entry in manifest.prompt_set.categories:
        if (unseen := entry.n_prompts - seen.get(entry.slug, 0)) > 0:
            missing += unseen
            prompt = PromptRate(0.0, planned, entry.slug, entry.hard_line, 1.0, unseen)
            lowest.append(prompt)
            highest.append(prompt._replace(mean=1.0))
    if not lowest:
        return Bounds(0.0, 100.0, 0.0, 100.0)
    n = sum(rate.times for rate in lowest)
    ends = [sum(rate.mean * rate.times for rate in way) / n for way in (lowest, highest)]
    low, high = partly_unscored(lowest, highest)
    more = _unplaced(manifest, counts, missing) / 2 / n
    return Bounds(
        # Rounded as figures are, which lie between them.
        lowest=100 * max(0.0, round(ends[0] - more, 12)),
        highest=100 * min(1.0, round(ends[1] + more, 12)),
        low=100 * max(0.0, low - more),
        high=100 * min(1.0, high + more),
    )


def _unplaced(manifest: Manifest, counts: pl.DataFrame, unseen: int) -> int:
    """Recorded answers that never came back and may belong to prompts that were seen.

    Which prompts these are is not known. One more answer moves a prompt's mean by half at most.
    """
    if manifest.kind == "run":
        return 0
    planned = sum(entry.n_units for entry in manifest.prompt_set.categories)
    return max(0, planned - int(counts["n_units"].sum()) - unseen)
