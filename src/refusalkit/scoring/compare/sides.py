"""What two runs scored, prompt by prompt: the two sides of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum

import polars as pl

from refusalkit.errors import UsageError
from refusalkit.scoring.score import Score
from refusalkit.scoring.statistics.asked_again import asked_again
from refusalkit.scoring.statistics.intervals import PromptRate
from refusalkit.scoring.statistics.paired import (
    PromptPair,
    again_interval,
    paired_interval,
    unpaired_interval,
)
from refusalkit.scoring.statistics.proportions import difference

# The numbers of a manifest may be a stranger's: each takes a place in memory.
_MAX_UNSEEN = 2_000_000


@dataclass(frozen=True)
class Rates:
    """The rates of both runs, prompt by prompt, as fractions.

    pairs: the prompts of both runs, where they are paired.
    first, second: each run's prompts, where they are not.
    """

    pairs: tuple[PromptPair, ...] = ()
    first: tuple[PromptRate, ...] = ()
    second: tuple[PromptRate, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether the two runs have prompts in common."""
        return bool(self.pairs)

    @property
    def n_prompts(self) -> int:
        """Prompts that the comparison rests on; of both runs together where they are unpaired."""
        return len(self.pairs) or len(self.first) + len(self.second)

    @property
    def means(self) -> tuple[float, float] | None:
        """Each run's mean over prompts; None where one has no prompt."""
        if self.pairs:
            n = len(self.pairs)
            return fsum(p.first for p in self.pairs) / n, fsum(p.second for p in self.pairs) / n
        if not (self.first and self.second):
            return None
        first, second = (
            fsum(p.mean for p in rates) / len(rates) for rates in (self.first, self.second)
        )
        return first, second

    def interval(self, level: float, *, again: bool = False) -> tuple[float, float]:
        """The interval of the change, for prompts like these or for these prompts, asked again."""
        if self.pairs:
            return (again_interval if again else paired_interval)(self.pairs, level=level)
        if again:
            first, second = (asked_again(r, level=level) for r in (self.first, self.second))
            return difference(first, second)[1:]
        return unpaired_interval(self.first, self.second, level=level)


@dataclass(frozen=True)
class Sides:
    """One figure of two runs by prompt.

    `prompts` has a row for each prompt that is compared, of either run: prompt_id, category,
    hard_line, sum_first, n_first, planned_first and the same for the second; counts are 0 where a
    run has no response. `unseen` counts planned prompts of both runs that neither ever answered,
    `unseen_units` their responses.
    """

    prompts: pl.DataFrame
    paired: bool
    unseen: int
    unseen_units: int
    n_common: int
    n_only_first: int
    n_only_second: int

    def of_category(self, slug: str) -> Sides:
        """The same for one category, without prompts that neither run answered."""
        return replace(
            self, prompts=self.prompts.filter(pl.col("category") == slug), unseen=0, unseen_units=0
        )

    def rates(self) -> Rates:
        """The rates of the prompts that both runs scored, if paired; else of each run's own."""
        if not self.paired:
            return Rates(first=_rates(self.prompts, "first"), second=_rates(self.prompts, "second"))
        scored = self.prompts.filter((pl.col("n_first") > 0) & (pl.col("n_second") > 0))
        return Rates(pairs=_pairs(scored))

    @property
    def n_responses(self) -> int:
        """Scored responses on both sides."""
        return int(self.prompts["n_first"].sum()) + int(self.prompts["n_second"].sum())

    @property
    def n_missing(self) -> int:
        """Planned responses without a label on both sides."""
        planned = sum(int(self.prompts[f"planned_{side}"].sum()) for side in ("first", "second"))
        return planned + self.unseen_units - self.n_responses

    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest difference that what is unscored allows, in points."""
        low, high = (100 * self._difference(way) for way in (-1, 1))
        return low, high

    def _difference(self, way: int) -> float:
        """The difference of the means of `worst`, whose unseen prompts are not counted out."""
        rates = self._worst_seen(way)
        first, second = rates.means or (0.0, 0.0)
        seen = len(rates.pairs)
        if not self.unseen:
            return first - second
        return ((first - second) * seen + way * self.unseen) / (seen + self.unseen)

    def worst(self, way: int) -> Rates:
        """The rates with what is unscored counted down in the first run and up in the second.

        For `way` 1 it is the reverse.

        `way` is -1 for the lowest difference, 1 for the highest. Raises `UsageError` where more
        prompts were planned than any run has.
        """
        if self.unseen > _MAX_UNSEEN:
            raise UsageError(
                f"{self.unseen:,} prompts were planned that neither run has an answer to, which is "
                f"more than can be counted either way ({_MAX_UNSEEN:,}): finish the runs first"
            )
        rates = self._worst_seen(way)
        if not self.unseen:
            return rates
        up_first = 1.0 if way > 0 else 0.0
        never = PromptPair(up_first, 1 - up_first, stratum="", side=None)
        return Rates(pairs=rates.pairs + (never,) * self.unseen)

    def _worst_seen(self, way: int) -> Rates:
        """`worst` over the prompts that either run answered."""
        up_first = 1 if way > 0 else 0
        rows = _filled(_filled(self.prompts, "first", up_first), "second", 1 - up_first)
        if not self.paired:
            return Rates(first=_rates(rows, "first"), second=_rates(rows, "second"))
        return Rates(pairs=_pairs(rows))

    def flipped(self) -> pl.DataFrame:
        """Prompts that lie on one side of 50 % in one run and on the other in the other."""
        rate_first = pl.col("sum_first") / pl.col("n_first")
        rate_second = pl.col("sum_second") / pl.col("n_second")
        found = self.prompts.filter((pl.col("n_first") > 0) & (pl.col("n_second") > 0))
        return (
            found.with_columns(first=100 * rate_first, second=100 * rate_second)
            .filter((pl.col("first") - 50) * (pl.col("second") - 50) < 0)
            .with_columns(apart=(pl.col("first") - pl.col("second")).abs())
            .sort(["apart", "prompt_id"], descending=[True, False])
            .select("prompt_id", "category", "hard_line", "first", "second", "n_first", "n_second")
        )


_COLUMN = {
    "willingness": "credit",
    "answer_rate": "answered",
    "hold_rate": "held",
    "refusal_rate": "refused",
    "over_refusal": "refused",
}


def sides_of(first: Score, second: Score, figure: str) -> Sides | None:
    """Two runs' responses that a figure rests on, by prompt; None where neither has any of them."""
    ours, theirs = _by_prompt(first, figure), _by_prompt(second, figure)
    if not len(ours) and not len(theirs):
        return None
    same_set = first.manifest.prompt_set.digest == second.manifest.prompt_set.digest
    keys = ["prompt_id", "category", "hard_line"]
    if len({first.manifest.hard_lines, second.manifest.hard_lines}) > 1:
        keys = ["prompt_id", "category"]
        theirs = theirs.drop("hard_line")
    joined = ours.join(theirs, on=keys, how="full", coalesce=True, suffix="_second")
    renamed = {name: f"{name}_first" for name in ("sum", "n", "planned")}
    joined = joined.rename(renamed).with_columns(pl.col("hard_line").fill_null(value=False))
    there_first = pl.col("planned_first").is_not_null()
    there_second = pl.col("planned_second").is_not_null()
    common = joined.filter(there_first & there_second)
    only_first = len(joined.filter(there_first & ~there_second))
    only_second = len(joined.filter(~there_first & there_second))
    paired = same_set or bool(len(common))
    if same_set:
        # Prompts without an answer in one run were nevertheless planned there.
        rows = joined.with_columns(
            pl.col("planned_first").fill_null(_trials(first)),
            pl.col("planned_second").fill_null(_trials(second)),
        )
        unseen = max(0, _n_planned(first, figure) - len(joined))
        only_first = only_second = 0
    else:
        rows, unseen = (common if paired else joined), 0
    counts = [f"{name}_{side}" for name in ("sum", "n", "planned") for side in ("first", "second")]
    return Sides(
        prompts=rows.with_columns(pl.col(counts).fill_null(0)).sort("prompt_id"),
        paired=paired,
        unseen=unseen,
        unseen_units=unseen * (_trials(first) + _trials(second)),
        n_common=len(rows) if same_set else len(common),
        n_only_first=only_first,
        n_only_second=only_second,
    )


def _by_prompt(score: Score, figure: str) -> pl.DataFrame:
    counts = score.contrast_counts if figure == "over_refusal" else score.counts
    if figure in ("answer_rate", "hold_rate"):
        counts = counts.filter(pl.col("hard_line") == (figure == "hold_rate"))
    planned = "n_units" if score.manifest.kind == "grade" else pl.lit(score.trials, pl.Int64)
    return counts.select(
        "prompt_id",
        "category",
        "hard_line",
        sum=_COLUMN[figure],
        n="n_scored",
        planned=planned,
    )


def _trials(score: Score) -> int:
    return score.trials if score.manifest.kind == "run" else 1


def _n_planned(score: Score, figure: str) -> int:
    categories = score.manifest.prompt_set.categories
    if figure == "over_refusal":
        return sum(category.n_contrast for category in categories)
    wanted = {"answer_rate": (False,), "hold_rate": (True,)}.get(figure, (False, True))
    return sum(c.n_prompts for c in categories if c.hard_line in wanted)


_PLACE = ("category", "hard_line")


def _pairs(rows: pl.DataFrame) -> tuple[PromptPair, ...]:
    """The pairs of prompts that both runs have responses to."""
    rows = rows.filter((pl.col("n_first") > 0) & (pl.col("n_second") > 0))
    each = rows.select(
        pl.col("sum_first") / pl.col("n_first"),
        pl.col("sum_second") / pl.col("n_second"),
        "n_first",
        "n_second",
        *_PLACE,
    )
    return tuple(PromptPair(*row) for row in each.iter_rows())


def _rates(rows: pl.DataFrame, side: str) -> tuple[PromptRate, ...]:
    scored = rows.filter(pl.col(f"n_{side}") > 0)
    each = scored.select(pl.col(f"sum_{side}") / pl.col(f"n_{side}"), f"n_{side}", *_PLACE)
    return tuple(PromptRate(*row) for row in each.iter_rows())


def _filled(rows: pl.DataFrame, side: str, way: int) -> pl.DataFrame:
    """A side with what is unscored counted one way."""
    asked = pl.max_horizontal(f"planned_{side}", f"n_{side}")
    counted = pl.col(f"sum_{side}") + way * (asked - pl.col(f"n_{side}"))
    return rows.with_columns(counted.alias(f"sum_{side}"), asked.alias(f"n_{side}"))
