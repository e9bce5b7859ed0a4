"""Units with their last completion and each judge's last verdict, joined from records."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import polars as pl

from refusalkit.runs.manifest import Manifest
from refusalkit.types import Outcome, Unscored

_LEADING = ("unit", "prompt_id", "category", "hard_line", "trial")


class UnitRows:
    """Rows of some or all units of a run: their last completions, and each judge's last verdicts.

    `answers` and `verdicts` are the records in the files' order, in pieces.
    """

    def __init__(
        self,
        manifest: Manifest,
        answers: Iterable[pl.DataFrame],
        verdicts: Iterable[pl.DataFrame],
    ) -> None:
        self._manifest = manifest
        self._answers = _in_order(pl.concat(answers, rechunk=True), manifest)
        self._verdicts = _by_judge(pl.concat(verdicts, rechunk=True))
        self._responses: dict[str, pl.DataFrame] = {}

    def responses(self, judge: str | None = None) -> pl.DataFrame:
        """One row for each unit with a completion, with its verdict, by category, prompt and trial.

        Columns: unit, prompt_id, category, hard_line, trial, outcome, label, unscored, twin,
        framing, frame_of, and the requested ones; a verdict's cost_usd is named judge_cost_usd, and
        text becomes has_text. `twin` is set only for contrast prompts, which belong to no hard
        line; `framing` and `frame_of` only for framed prompts, which no score counts. Exactly the
        rows without a `label` have `unscored`, the reason: ``owed`` if the verdict is still
        missing, ``error`` if the unit ended in an error. outcome, label and unscored are enums.
        Planned units without a completion have no row; the manifest counts them. Raises
        `RunFolderError` if `judge` never judged the run.
        """
        name = self._manifest.judge_id(judge)
        if name not in self._responses:
            verdicts = self.verdicts(name)
            joined = self._answers.join(verdicts, on="unit", how="left", maintain_order="left")
            self._responses[name] = joined.with_columns(*standing())
        return self._responses[name]

    def verdicts(self, judge: str) -> pl.DataFrame:
        """The last verdict of each unit by a judge, in the file's order."""
        return self._verdicts[judge]

    @property
    def units(self) -> pl.Series:
        """The units with a completion."""
        return self._answers["unit"]

    @cached_property
    def n_orphans(self) -> int:
        """How many units have a verdict and no completion."""
        said = [rows["unit"] for rows in self._verdicts.values()]
        judged = pl.concat([pl.Series("unit", [], pl.String), *said]).unique()
        return len(judged.to_frame().join(self.units.to_frame(), on="unit", how="anti"))


def _in_order(rows: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """The last completion of each unit, in order, with its prompt's facts from the manifest."""
    rows = _last_of_unit(rows)
    # Prompts are sorted first, because sorting the strings of all units would be slow.
    prompts = _prompts_of(rows, manifest).with_row_index("place")
    rows = rows.join(prompts, on=["category", "prompt_id"], how="left")
    rows = rows.sort("place", "trial", "unit")
    return rows.select(*_LEADING, pl.all().exclude(*_LEADING, "place"))


def _by_judge(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The last verdict of each unit, by judge."""
    found = {}
    judges = rows.schema["judge"]
    assert isinstance(judges, pl.Enum), "each of them has a frame, empty or not"
    for judge in judges.categories:
        theirs = rows["judge"] == judge
        found[judge] = _last_of_unit(rows if theirs.all() else rows.filter(theirs)).drop("judge")
    return found


def _last_of_unit(rows: pl.DataFrame) -> pl.DataFrame:
    """The last record of each unit, in the file's order."""
    if rows["unit"].n_unique() == len(rows):  # much cheaper than the filter below
        return rows
    return rows.filter(rows["unit"].is_last_distinct())


def _prompts_of(answers: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """The answered prompts, in order, with their facts from the manifest.

    Columns: category, prompt_id, hard_line, twin, framing, frame_of.
    """
    twins = manifest.prompt_set.twins
    framed = manifest.prompt_set.framed
    contrast = pl.DataFrame(
        {"prompt_id": list(twins), "twin": list(twins.values())},
        schema=dict.fromkeys(("prompt_id", "twin"), pl.String),
    )
    framings = pl.DataFrame(
        {
            "prompt_id": list(framed),
            "framing": [entry.framing for entry in framed.values()],
            "frame_of": [entry.frame_of for entry in framed.values()],
        },
        schema=dict.fromkeys(("prompt_id", "framing", "frame_of"), pl.String),
    )
    hard_line = pl.col("category").is_in(sorted(manifest.hard_lines)) & pl.col("twin").is_null()
    return (
        answers.select("category", "prompt_id")
        .unique()
        .join(contrast, on="prompt_id", how="left")
        .join(framings, on="prompt_id", how="left")
        .with_columns(hard_line=hard_line)
        .sort("category", "prompt_id")
    )


def standing() -> tuple[pl.Expr, pl.Expr]:
    """`label` and `unscored` of a unit's last completion beside its last verdict, if any."""
    failed = pl.col("outcome") == Outcome.ERROR.value
    # A verdict of `error` is about a failed attempt and does not count for the next one.
    reason = pl.col("unscored").fill_null(Unscored.ERROR.value)
    unjudged = pl.col("label").is_null() & (reason == Unscored.ERROR.value)
    # A label beside an error belongs to an earlier completion that was lost.
    label = pl.when(failed).then(None).otherwise(pl.col("label"))
    unscored = (
        pl.when(failed)
        .then(pl.lit(Unscored.ERROR.value))
        .when(unjudged)
        .then(pl.lit(Unscored.OWED.value))
        .otherwise(pl.col("unscored"))
    )
    return label.alias("label"), unscored.alias("unscored")
