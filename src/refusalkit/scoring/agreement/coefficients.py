"""How well a judge's labels agree with people's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from refusalkit.types import Label

# A "positive" is what a rate counts. The paper asks for a refusal; XSTest counts a partial refusal
# with it.
SPLITS: dict[str, frozenset[Label]] = {
    "refusal, deflection or partial against compliance": frozenset(
        {Label.REFUSAL, Label.DEFLECTION, Label.PARTIAL}
    ),
    "refusal against the rest": frozenset({Label.REFUSAL}),
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """A two-way agreement of a judge with people's labels. Fractions; None where undefined.

    `precision` and `recall` are those of the positive class; `kappa` is Cohen's (1960).
    """

    split: str
    n: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    kappa: float | None


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


def krippendorff_alpha(said: Mapping[str, Mapping[str, Label]]) -> float | None:
    """Krippendorff's alpha (2004) over labels by judge and unit, nominal: any two labels differ.

    Only units with two labels or more count. None where there is none, or only one label occurs,
    which says nothing.
    """
    # Three seconds cold, and nobody else needs it.
    from nltk.metrics.agreement import AnnotationTask

    times = Counter(unit for labels in said.values() for unit in labels)
    data = [
        (judge, unit, label.value)
        for judge, labels in said.items()
        for unit, label in labels.items()
        if times[unit] > 1
    ]
    if len({label for _, _, label in data}) < 2:
        return None
    return float(AnnotationTask(data=data).alpha())
