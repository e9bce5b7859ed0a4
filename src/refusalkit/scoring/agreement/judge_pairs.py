"""How judges agree with one another: pairwise, over the answers that both labelled."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.runs.imported.answers import MAX_LABELLERS
from refusalkit.scoring.agreement.coefficients import (
    SPLITS,
    Agreement,
    agreement,
    krippendorff_alpha,
)
from refusalkit.types import Label

Said = Mapping[str, Mapping[str, Label]]
"""Labels by judge (or annotator) and unit."""


@shows("first", "second", "n", differ=lambda pair: len(pair.differ))
@dataclass(frozen=True)
class JudgePair:
    """Two judges over the answers that both labelled.

    `agreements` has one entry for each way of splitting the labels in two; precision and recall
    take `first` for the truth. `differ` holds the units on which they differ in the first split.
    """

    first: str
    """The first judge's id."""
    second: str
    """The second judge's id."""
    n: int
    """Answers that both labelled."""
    agreements: tuple[Agreement, ...]
    """One for each way of splitting the labels in two."""
    differ: tuple[str, ...]
    """Units on which they differ in the first split."""


@shows(
    judges=lambda found: ", ".join(found.labelled),
    pairs=lambda found: len(found.pairs),
    alpha=lambda found: found.alpha,
)
@dataclass(frozen=True)
class JudgeAgreements:
    """How several judges of one run agree."""

    labelled: dict[str, int]
    """Answers that each judge labelled, by its id."""
    pairs: tuple[JudgePair, ...]
    """Every pair of judges."""
    alpha: float | None = None
    """Krippendorff's alpha (2011) of all judges over the four labels, at most 1; None where
    undefined. Nominal: the labels are kinds of answer, not a scale."""
    alpha_first_split: float | None = None
    """The same over the two sides of the first split."""
    by_category: tuple[CategoryAgreement, ...] = field(default=())
    """The same by category, over answers that two judges or more labelled."""


@dataclass(frozen=True)
class CategoryAgreement:
    """How all judges agree within one category."""

    category: str
    """Slug of the category."""
    n: int
    """Answers that two judges or more labelled."""
    n_same: int
    """Those of `n` to which all gave the same of the four labels."""
    alpha: float | None
    """As in `JudgeAgreements`; None where undefined."""


def judge_agreements(said: Said, categories: Mapping[str, str] | None = None) -> JudgeAgreements:
    """Compare each judge with each other one; `categories` names the category of each unit.

    Raises `UsageError` where there are more of them than a run may have.
    """
    if len(said) > MAX_LABELLERS:
        raise UsageError(
            f"there are labels of {len(said):,} judges and people, and each is compared with each "
            f"other one: {MAX_LABELLERS} at most can be"
        )
    pairs = []
    for first, second in itertools.combinations(said, 2):
        ours, theirs = said[first], said[second]
        units = [unit for unit in ours if unit in theirs]
        positive = next(iter(SPLITS.values()))
        pairs.append(
            JudgePair(
                first,
                second,
                len(units),
                tuple(agreement(((ours[u], theirs[u]) for u in units), name) for name in SPLITS),
                tuple(u for u in units if (ours[u] in positive) != (theirs[u] in positive)),
            )
        )
    positive = next(iter(SPLITS.values()))
    sides = {True: Label.REFUSAL, False: Label.COMPLIANCE}
    halved = {
        name: {unit: sides[label in positive] for unit, label in labels.items()}
        for name, labels in said.items()
    }
    return JudgeAgreements(
        {name: len(labels) for name, labels in said.items()},
        tuple(pairs),
        alpha=krippendorff_alpha(said),
        alpha_first_split=krippendorff_alpha(halved),
        by_category=_by_category(said, categories or {}),
    )


def _by_category(said: Said, categories: Mapping[str, str]) -> tuple[CategoryAgreement, ...]:
    units: dict[str, dict[str, list[Label]]] = {}
    inside_of: dict[str, dict[str, dict[str, Label]]] = {}
    for name, labels in said.items():
        for unit, label in labels.items():
            if (category := categories.get(unit)) is not None:
                units.setdefault(category, {}).setdefault(unit, []).append(label)
                inside_of.setdefault(category, {}).setdefault(name, {})[unit] = label
    rows = []
    for category, by_unit in sorted(units.items()):
        several = [labels for labels in by_unit.values() if len(labels) > 1]
        if several:
            inside = inside_of[category]
            same = sum(len(set(labels)) == 1 for labels in several)
            rows.append(CategoryAgreement(category, len(several), same, krippendorff_alpha(inside)))
    return tuple(rows)
