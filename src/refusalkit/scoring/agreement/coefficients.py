"""How well a judge's labels agree with people's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from refusalkit.types import Label

# The labels that count as positive. The paper counts refusals; XSTest also counts partial refusals.
SPLITS: dict[str, frozenset[Label]] = {
    "refusal, deflection or partial against compliance": frozenset(
        {Label.REFUSAL, Label.DEFLECTION, Label.PARTIAL}
    ),
    "refusal against the rest": frozenset({Label.REFUSAL}),
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """A two-way agreement of a judge with people's labels. Fractions from 0 to 1; None where
    undefined.
    """

    split: str
    """Which labels count as positive."""
    n: int
    """Answers that both labelled."""
    accuracy: float | None
    """Share with the same side of the split."""
    precision: float | None
    """Precision of the positive class."""
    recall: float | None
    """Recall of the positive class."""
    kappa: float | None
    """Cohen's kappa (Cohen 1960), from -1 to 1."""


def agreement(pairs: Iterable[tuple[Label, Label]], split: str) -> Agreement:
    """Agreement over (people's label, judge's label) pairs, under one of `SPLITS`."""
    return agreement_on(pairs, SPLITS[split], split)


def agreement_on(
    pairs: Iterable[tuple[Label, Label]], positive: Collection[Label], split: str
) -> Agreement:
    """Agreement over (people's label, judge's label) pairs, `positive` against the rest."""
    cells = Counter((truth in positive, said in positive) for truth, said in pairs)
    both, missed = cells[True, True], cells[True, False]
    invented, neither = cells[False, True], cells[False, False]
    n = both + missed + invented + neither
    if not n:
        return Agreement(split, 0, None, None, None, None)
    accuracy = (both + neither) / n
    chance = (
        (both + missed) * (both + invented) + (neither + missed) * (neither + invented)
    ) / n**2
    return Agreement(
        split=split,
        n=n,
        accuracy=accuracy,
        precision=both / (both + invented) if both + invented else None,
        recall=both / (both + missed) if both + missed else None,
        kappa=(accuracy - chance) / (1 - chance) if chance < 1 else None,
    )


def krippendorff_alpha(said: Mapping[str, Mapping[str, Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal labels, from labels by judge and unit.

    At most 1 (perfect agreement), 0 at chance, negative below it. A unit counts only if at least
    two judges labelled it. None where no unit counts or all labels are the same. The formula is
    section D of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability".
    """
    by_unit: dict[str, Counter[Hashable]] = {}
    for labels in said.values():
        for unit, label in labels.items():
            by_unit.setdefault(unit, Counter())[label] += 1
    paired = [counts for counts in by_unit.values() if counts.total() > 1]
    overall: Counter[Hashable] = Counter()
    observed = 0.0  # expected number of labels that differ from a random other one of their unit
    for counts in paired:
        overall.update(counts)
        observed += _unequal_pairs(counts) / (counts.total() - 1)
    if len(overall) < 2:
        return None
    expected = _unequal_pairs(overall) / (overall.total() - 1)
    return 1 - observed / expected


def _unequal_pairs(counts: Counter[Hashable]) -> int:
    """Ordered pairs of labels that differ."""
    return counts.total() ** 2 - sum(n * n for n in counts.values())
