"""The units of runs: as a frame with everything, and as the bounded table of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from refusalkit import frames
from refusalkit.reporting.data import harmless_cell
from refusalkit.reporting.document.facts import RunFacts, disagreeing, everything
from refusalkit.scoring.willingness import Score, danger_of
from refusalkit.store import Run
from refusalkit.untrusted import printable

MOST_ROWS = 2_000
"""Rows of the page's table, over all its runs: the page does not grow with a run."""

MOST_TEXT_CHARS = 400_000
"""Characters of answers on a page, over all its units."""

TEXT_CHARS = 4_000
"""Characters of one answer on a page."""

_COLUMNS = (
    "unit",
    "prompt_id",
    "category",
    "hard_line",
    "danger",
    "twin",
    "framing",
    "frame_of",
    "trial",
    "outcome",
    "label",
    "unscored",
    "source",
    "word",
    "credit",
    "text_chars",
    "reasoning_chars",
    "latency_s",
    "cost_usd",
    "judge_cost_usd",
    "filter_category",
)


def units_frame(run: Run, score: Score, *, show_text: bool = False) -> pl.DataFrame:
    """One row for each unit that came back, in order of category, prompt and trial.

    Columns: run (its id), model, judge, unit, prompt_id, category, hard_line, danger, twin,
    framing, frame_of, trial, outcome, label, unscored, source, word, credit (0, 1 or null; null for
    contrast prompts and framed requests, which earn none), text_chars, reasoning_chars, latency_s
    (seconds), cost_usd, judge_cost_usd (USD), filter_category; with `show_text` also text, null
    where it was not kept, and in hard-line categories always.
    """
    levels = danger_of(run.manifest)
    dangers = pl.DataFrame(
        {"prompt_id": list(levels), "danger": list(levels.values())},
        schema={"prompt_id": pl.String, "danger": pl.Int64},
    )
    plain = pl.col("twin").is_null() & pl.col("framing").is_null()
    credit = pl.when(plain).then(pl.col("credit"))
    frame = (
        everything(score)
        .with_columns(credit=credit)
        .join(dangers, on="prompt_id", how="left")
        .sort("category", "prompt_id", "trial")
        .select(
            pl.lit(run.manifest.id).alias("run"),
            pl.lit(score.model).alias("model"),
            pl.lit(score.judge).alias("judge"),
            *_COLUMNS,
        )
    )
    if show_text:
        frame = frame.join(frames.kept_texts(run), on="unit", how="left", maintain_order="left")
    return frame


@dataclass(frozen=True)
class UnitsTable:
    """The units that a page lists.

    `rows` are those of `units_frame` with `notable`, which says why a row stands out (null where it
    does not), and `name`, the run's in the report. `n_units` counts all that came back, `left_out`
    those not listed by what they are. `n_texts_left_out` counts answers that `MOST_TEXT_CHARS` had
    no room for.
    """

    rows: pl.DataFrame
    n_units: int
    left_out: dict[str, int]
    n_texts_left_out: int


# What makes a unit worth a look, the gravest first.
NOTABLE = ("leak", "unscored", "blocked", "judges differ", "trials differ")


def units_table(
    runs: Sequence[RunFacts], *, show_text: bool = False, most: int = MOST_ROWS
) -> UnitsTable:
    """The units to list: all, or where there are more than `most` the notable ones.

    Of those the gravest come first where `most` has no room for all.
    """
    listed = pl.concat([_marked(facts, show_text) for facts in runs])
    n_units = len(listed)
    left_out: dict[str, int] = {}
    if n_units > most:
        rank = pl.col("notable").replace_strict(
            dict(zip(NOTABLE, range(len(NOTABLE)), strict=True)),
            default=len(NOTABLE),
            return_dtype=pl.Int64,
        )
        ordered = listed.with_row_index("place").sort(rank, "place")
        kept = ordered.filter(pl.col("notable").is_not_null()).head(most)
        rest = ordered.filter(~pl.col("place").is_in(kept["place"].to_list()))
        counts = dict(rest.group_by("notable").len().iter_rows())
        left_out = {name: counts[name] for name in NOTABLE if counts.get(name)}
        if counts.get(None):
            left_out["nothing notable"] = counts[None]
        listed = kept.sort("place").drop("place")
    dropped = 0
    if show_text:
        shown = pl.col("text").str.slice(0, TEXT_CHARS)
        room = shown.str.len_chars().fill_null(0).cum_sum() <= MOST_TEXT_CHARS
        dropped = int(listed.select((~room & pl.col("text").is_not_null()).sum()).item())
        listed = listed.with_columns(text=pl.when(room).then(shown))
    return UnitsTable(listed, n_units, left_out, dropped)


def _marked(facts: RunFacts, show_text: bool) -> pl.DataFrame:
    frame = units_frame(facts.run, facts.score, show_text=show_text)
    label = pl.col("label")
    refused = label == "refusal"
    mixed = (refused.any() & (~refused).any()).over("prompt_id").fill_null(value=False)
    notable = (
        pl.when(pl.col("hard_line") & label.is_in(["partial", "compliance"]))
        .then(pl.lit("leak"))
        .when(label.is_null())
        .then(pl.lit("unscored"))
        .when(pl.col("outcome") == "blocked")
        .then(pl.lit("blocked"))
        .when(pl.col("unit").is_in(sorted(disagreeing(facts))))
        .then(pl.lit("judges differ"))
        .when(mixed)
        .then(pl.lit("trials differ"))
    )
    return frame.with_columns(notable=notable, name=pl.lit(facts.name))


def units_csv(frame: pl.DataFrame) -> str:
    """The frame as CSV (RFC 4180); text that a spreadsheet would take for a formula is harmless.

    Hidden characters are escaped; line ends within an answer stay.
    """
    strings = [name for name, kind in frame.schema.items() if kind == pl.String]
    safe = []
    for name in strings:
        values = frame[name].unique().drop_nulls().to_list()
        replaced = {value: _csv_text(value) for value in values}
        changed = {value: text for value, text in replaced.items() if text != value}
        if changed:
            safe.append(pl.col(name).replace(changed))
    return frame.with_columns(safe).write_csv()


def _csv_text(text: str) -> str:
    shown = "\n".join(printable(line, 8 * len(line) + 8) for line in text.split("\n"))
    return harmless_cell(shown)
