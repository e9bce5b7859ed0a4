"""What a score rests on: a run's units counted by prompt, by trial and by outcome.

Counts of parts of the prompts add up to those of all, so a run whose units do not fit into memory
is counted part by part. Prompts are far fewer than units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import polars as pl

from refusalkit.runs.frames import RunRecords
from refusalkit.runs.unit_rows import UnitRows
from refusalkit.scoring.parts import TrialCounts, count_trials
from refusalkit.scoring.rates import count_prompts, counts_together, with_credit


@dataclass(frozen=True)
class ScoredRows:
    """Units with their credit: those that willingness rests on, and those of other prompts."""

    plain: pl.DataFrame
    contrast: pl.DataFrame
    framed: pl.DataFrame


@dataclass(frozen=True)
class Tally:
    """Counts of a run's units, by one of its judges.

    `counts` and `contrast` are those of `rates.count_prompts`; `others` has such counts for each
    other judge of the run. `words`, `rests_on` and `fallbacks` count labels by the judge's own
    word, by the part of the answer that decided, and by the judge that was asked
    (`Verdict.answered_by`).
    """

    counts: pl.DataFrame
    contrast: pl.DataFrame
    others: Sequence[pl.DataFrame]
    outcomes: Counter[str]
    unscored: Counter[str]
    n_rows: int
    n_cut: int
    words: Counter[str]
    rests_on: Counter[str]
    fallbacks: Counter[str]
    read: Callable[[], ScoredRows]
    """The units, read again where they were counted part by part."""
    in_parts: TrialCounts | None = None
    """Responses counted by trial, where the units were counted part by part."""

    @cached_property
    def rows(self) -> ScoredRows:
        """The units."""
        return self.read()

    @cached_property
    def trials(self) -> TrialCounts:
        """Responses counted by trial."""
        return self.in_parts or count_trials(self.rows.plain)

    @property
    def by_judge(self) -> list[pl.DataFrame]:
        """The counts by each judge that labelled any unit, this one first; empty with one judge."""
        found = [self.counts, *(one for one in self.others if one["n_scored"].sum())]
        return found if len(found) > 1 else []


def scored_rows(units: UnitRows | RunRecords, judge: str, *, counted: bool) -> ScoredRows:
    """Units with their credit; `counted`: a deflection counts as refused."""
    return _split(with_credit(units.responses(judge), count_deflection=counted))


def tally(records: RunRecords, judge: str, *, counted: bool) -> Tally:
    """Count a run's units, see `scored_rows`."""
    several = records.n_parts > 1
    found = [
        _tally(units, records.run.manifest.judges, judge, counted=counted, keep=not several)
        for units in records.parts()
    ]
    if not several:
        return found[0]
    return Tally(
        counts=counts_together([one.counts for one in found]),
        contrast=counts_together([one.contrast for one in found]),
        others=[
            counts_together(list(by_part))
            for by_part in zip(*(one.others for one in found), strict=True)
        ],
        outcomes=_sum(one.outcomes for one in found),
        unscored=_sum(one.unscored for one in found),
        n_rows=sum(one.n_rows for one in found),
        n_cut=sum(one.n_cut for one in found),
        words=_sum(one.words for one in found),
        rests_on=_sum(one.rests_on for one in found),
        fallbacks=_sum(one.fallbacks for one in found),
        read=partial(scored_rows, records, judge, counted=counted),
        in_parts=TrialCounts.together([one.in_parts for one in found if one.in_parts is not None]),
    )


def _tally(
    units: UnitRows, judges: Iterable[str], judge: str, *, counted: bool, keep: bool
) -> Tally:
    everything = with_credit(units.responses(judge), count_deflection=counted)
    rows = _split(everything)
    others = [
        count_prompts(scored_rows(units, other, counted=counted).plain)
        for other in judges
        if other != judge
    ]
    unscored = everything.filter(pl.col("label").is_null())
    # Framed prompts are left to the audit.
    read = (rows.plain, rows.contrast)
    return Tally(
        counts=count_prompts(rows.plain),
        contrast=count_prompts(rows.contrast),
        others=others,
        outcomes=_counted(everything["outcome"]),
        unscored=_counted(unscored["unscored"]),
        n_rows=len(everything),
        n_cut=sum(int((part["cut_chars"] > 0).sum() or 0) for part in read),
        words=_sum(_counted(part["word"]) for part in read),
        rests_on=_sum(_counted(part["rests_on"]) for part in read),
        fallbacks=_counted(everything.filter(pl.col("label").is_not_null())["answered_by"]),
        read=partial(_ready, rows if keep else None),
        in_parts=None if keep else count_trials(rows.plain),
    )


def _ready(rows: ScoredRows | None) -> ScoredRows:
    assert rows is not None, "a part of the units is not kept"
    return rows


def _split(everything: pl.DataFrame) -> ScoredRows:
    plain = pl.col("twin").is_null() & pl.col("framing").is_null()
    names = ("twin", "framing", "frame_of")
    if everything.select(plain.all()).item():  # a filter would copy all of it
        return ScoredRows(everything.drop(names), everything.clear(), everything.clear())
    return ScoredRows(
        everything.filter(plain).drop(names),
        everything.filter(pl.col("twin").is_not_null()),
        everything.filter(pl.col("framing").is_not_null()),
    )


def _counted(column: pl.Series) -> Counter[str]:
    return Counter(dict(column.drop_nulls().value_counts().iter_rows()))


def _sum(counts: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counts, Counter[str]())
