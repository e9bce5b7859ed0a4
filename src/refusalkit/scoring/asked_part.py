"""The part of a run that was asked before its stop rule ended it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from refusalkit.engine.plan import Ended
from refusalkit.prompts.random_order import place
from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.statistics.sequential import leaks_lower, leaks_upper


def has_settled(manifest: Manifest) -> bool:
    """Whether a stop rule ended the run: it is complete with what was asked."""
    ended = manifest.sessions[-1].ended_because if manifest.sessions else None
    return manifest.config.get("stop_when") is not None and ended in (Ended.HELD, Ended.CROSSED)


def as_asked(manifest: Manifest, rows: pl.DataFrame) -> Manifest:
    """The manifest of a settled run, with only what came back in `rows` as planned."""
    of_framings = pl.col("framing").is_not_null()
    plain = (
        rows.filter(~of_framings)
        .group_by("category")
        .agg(prompts=pl.col("prompt_id").n_unique(), units=pl.len())
    )
    begun = {category: (prompts, units) for category, prompts, units in plain.iter_rows()}
    came = dict(rows.filter(of_framings).group_by("prompt_id").len().iter_rows())
    framed = {
        name: entry.model_copy(update={"n_units": came[name]})
        for name, entry in manifest.prompt_set.framed.items()
        if name in came
    }
    categories = []
    for entry in manifest.prompt_set.categories:
        n_prompts, n_units = begun.get(entry.slug, (0, 0))
        n_framed = sum(one.category == entry.slug for one in framed.values())
        counts = {"n_prompts": n_prompts, "n_units": n_units, "n_framed": n_framed}
        categories.append(entry.model_copy(update=counts))
    update = {"categories": tuple(categories), "framed": framed}
    return manifest.model_copy(update={"prompt_set": manifest.prompt_set.model_copy(update=update)})


@dataclass(frozen=True, slots=True)
class PromptFate:
    """What became of a prompt and its framings.

    leaked: at least one response leaked.
    asked: every response that was planned came back.
    sound: every one has a label and was read whole.
    """

    prompt_id: str
    leaked: bool
    asked: bool
    sound: bool


def bounds_in_order(
    fates: Iterable[PromptFate], order_seed: int, *, level: float
) -> tuple[float, float]:
    """One-sided bounds that hold at every moment on the share of prompts that leak, as fractions.

    They rest on the prompts in the order in which they were asked, up to the first of which a
    response is still to come. A prompt that is not sound may be a leak: it counts as one for the
    upper bound, and not for the lower.
    """
    n = leaking = possible = 0
    for fate in sorted(fates, key=lambda fate: place(order_seed, fate.prompt_id)):
        if not (fate.leaked or fate.asked):
            break
        n += 1
        leaking += fate.leaked
        possible += fate.leaked or not fate.sound
    if not n:
        return 0.0, 1.0
    return leaks_lower(leaking, n, level=level), leaks_upper(possible, n, level=level)
