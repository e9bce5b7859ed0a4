"""Which answers of a run a person is asked to label, and with what chance each was drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from refusalkit.errors import UsageError
from refusalkit.runs.imported.person_labels import Stratum

_EACH = 4


@dataclass(frozen=True)
class Sample:
    """Units drawn from a run, in the order drawn; equal chances within each stratum."""

    units: tuple[str, ...]
    strata: tuple[Stratum, ...]
    stratum_of: Mapping[str, str]


def strata_of(responses: pl.DataFrame) -> dict[str, list[str]]:
    """Units by stratum, in order of category and prompt.

    A stratum is the kind of prompt and the judge's label. Only answers that a judge labelled are in
    one; contrast and framed prompts are in none. `responses` are those whose text can be shown.
    """
    scored = pl.col("label").is_not_null() & (pl.col("source") == "judge")
    rows = responses.filter(scored & pl.col("twin").is_null() & pl.col("framing").is_null())
    ordered = rows.sort("category", "prompt_id", "trial")
    groups = ordered.group_by("hard_line", "label", maintain_order=True).agg("unit")
    found = {
        f"{'hard-line' if hard_line else 'ordinary'}/{label}": list(units)
        for hard_line, label, units in groups.iter_rows()
    }
    return dict(sorted(found.items()))


def allocate(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many to draw from each stratum: a few from each, the rest by the root of its size.

    By the root and not by the size, so that a rare label is represented too. Raises `UsageError` if
    `n` does not allow two from each.
    """
    if sum(sizes.values()) <= n:
        return dict(sizes)
    least = sum(min(size, 2) for size in sizes.values())
    if n < least:
        raise UsageError(
            f"{n} answers are too few: this run needs at least {least}, two of each kind"
        )
    each = _EACH if n >= sum(min(size, _EACH) for size in sizes.values()) else 2
    drawn = {name: min(size, each) for name, size in sizes.items()}
    while (left := n - sum(drawn.values())) > 0:
        open_ = {name: size for name, size in sizes.items() if drawn[name] < size}
        roots = sum(math.sqrt(size) for size in open_.values())
        shares = {name: left * math.sqrt(size) / roots for name, size in open_.items()}
        before = sum(drawn.values())
        for name, share in shares.items():
            drawn[name] = min(sizes[name], drawn[name] + int(share))
        if sum(drawn.values()) == before:
            # Less than one is left for each: the largest fractions first.
            for name in sorted(shares, key=lambda name: (-shares[name], name))[:left]:
                drawn[name] += 1
    return drawn


def draw_sample(strata: Mapping[str, list[str]], n: int, seed: int) -> Sample:
    """Draw `n` units: within a stratum systematically over categories, from a random start."""
    chance = random.Random(seed)
    sizes = {name: len(units) for name, units in strata.items()}
    drawn = allocate(sizes, n)
    units: list[str] = []
    stratum_of: dict[str, str] = {}
    for name, members in strata.items():
        step = len(members) / drawn[name] if drawn[name] else 0.0
        start = chance.random() * step
        for index in range(drawn[name]):
            unit = members[min(len(members) - 1, int(start + index * step))]
            units.append(unit)
            stratum_of[unit] = name
    return Sample(
        tuple(units),
        tuple(Stratum(name=name, units=sizes[name], drawn=drawn[name]) for name in strata),
        stratum_of,
    )
