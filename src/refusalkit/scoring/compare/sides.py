"""What two runs scored, prompt by prompt: the two sides of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from refusalkit.scoring.score import Score
from refusalkit.scoring.statistics.paired import paired_interval, unpaired_interval


@dataclass(frozen=True)
class Worst:
    """Both sides with every unscored response counted one way. Rates are fractions."""

    first: list[float]
    second: list[float]
    trials: float
    paired: bool

    @property
    def change(self) -> float:
        """The first side's mean less the second's."""
        if not self.first or not self.second:
            return 0.0
        return sum(self.first) / len(self.first) - sum(self.second) / len(self.second)

    def interval(self, level: float) -> tuple[float, float]:
        """The interval of the change."""
        if self.paired:
            apart = [a - b for a, b in zip(self.first, self.second, strict=True)]
            return paired_interval(apart, self.trials, level=level)
        return unpaired_interval(self.first, self.second, self.trials, level=level)


@dataclass(frozen=True)
class Sides:
    """One figure of two runs by prompt.

    `prompts` has a row for each prompt that is compared, of either run: prompt_id, category,
    hard_line, sum_first, n_first, planned_first and the same of the second; counts are 0 where a
    run has none of it. `unseen` counts planned prompts of both runs that neither ever answered,
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
        """The same, of one category; prompts that neither run answered are not among them."""
        return replace(
            self, prompts=self.prompts.filter(pl.col("category") == slug), unseen=0, unseen_units=0
        )

    def rates(self) -> tuple[list[float], list[float]]:
        """Each side's rates by prompt; if paired, of the prompts that both scored, in one order."""
        rows = self.prompts
        if self.paired:
            rows = rows.filter((pl.col("n_first") > 0) & (pl.col("n_second") > 0))
        return _rates(rows, "first"), _rates(rows, "second")

    @property
    def trials(self) -> float:
        """Scored responses to a prompt on a side, on average."""
        counts = [n for side in ("first", "second") for n in self.prompts[f"n_{side}"] if n]
        return max(1.0, sum(counts) / len(counts)) if counts else 1.0

    @property
    def n_responses(self) -> int:
        """Scored responses on both sides."""
        return int(self.prompts["n_first"].sum()) + int(self.prompts["n_second"].sum())

    @property
    def n_missing(self) -> int:
        """Planned responses without a label on both sides."""
        planned = sum(int(self.prompts[f"planned_{side}"].sum()) for side in ("first", "second"))
        return planned + self.unseen_units - self.n_responses

    def worst(self, way: int) -> Worst:
        """With what is unscored counted down in the first run and up in the second, or reversed.

        `way` is -1 for the lowest difference, 1 for the highest.
        """
        up_first = 1 if way > 0 else 0
        first = _filled(self.prompts, "first", up_first)
        second = _filled(self.prompts, "second", 1 - up_first)
        first += [float(up_first)] * self.unseen
        second += [float(1 - up_first)] * self.unseen
        return Worst(first, second, self.trials, self.paired)

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
        # What one run was never answered was asked all the same.
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
    column = _COLUMN[figure]
    rows = score.contrast if figure == "over_refusal" else score.responses
    if figure in ("answer_rate", "hold_rate"):
        rows = rows.filter(pl.col("hard_line") == (figure == "hold_rate"))
    planned = pl.len() if score.manifest.kind == "grade" else pl.lit(score.trials)
    return rows.group_by("prompt_id", "category", "hard_line").agg(
        sum=pl.col(column).sum(),
        n=pl.col(column).count().cast(pl.Int64),
        planned=planned.cast(pl.Int64),
    )


def _trials(score: Score) -> int:
    return score.trials if score.manifest.kind == "run" else 1


def _n_planned(score: Score, figure: str) -> int:
    categories = score.manifest.prompt_set.categories
    if figure == "over_refusal":
        return sum(category.n_contrast for category in categories)
    wanted = {"answer_rate": (False,), "hold_rate": (True,)}.get(figure, (False, True))
    return sum(c.n_prompts for c in categories if c.hard_line in wanted)


def _rates(rows: pl.DataFrame, side: str) -> list[float]:
    scored = rows.filter(pl.col(f"n_{side}") > 0)
    return (scored[f"sum_{side}"] / scored[f"n_{side}"]).to_list()


def _filled(rows: pl.DataFrame, side: str, way: int) -> list[float]:
    planned, n = pl.col(f"planned_{side}"), pl.col(f"n_{side}")
    asked = pl.max_horizontal(planned, n)
    filled = (pl.col(f"sum_{side}") + way * (asked - n)) / asked
    return rows.filter(asked > 0).select(filled.alias("rate"))["rate"].to_list()
