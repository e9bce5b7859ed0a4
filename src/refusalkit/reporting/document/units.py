"""The units of runs: as a complete frame, and as the bounded table of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from refusalkit.errors import RefusalkitError
from refusalkit.reporting.data import harmless_cell
from refusalkit.reporting.document.facts import Facts, RunFacts, disagreeing
from refusalkit.reporting.document.parts import Section
from refusalkit.runs.frames import RunRecords, kept_texts
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.scoring.danger import danger_of
from refusalkit.scoring.rates import with_credit
from refusalkit.untrusted import printable

MAX_ROWS = 2_000
"""Rows of the page's table over all runs, so that the page does not grow with a run."""

MAX_TEXT_CHARS = 400_000
"""Total characters of answers on a page."""

TEXT_CHARS = 4_000
"""Characters of one answer, or of one prompt, on a page."""

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


def units_frame(
    records: RunRecords,
    judge: str | None = None,
    *,
    show_text: bool = False,
    rows: Sequence[int] | None = None,
) -> pl.DataFrame:
    """One row for each unit that came back, in order of category, prompt and trial.

    Columns: run (its id), model, judge, unit, prompt_id, category, hard_line, danger, twin,
    framing, frame_of, trial, outcome, label, unscored, source, word, credit (0, 1 or null; null for
    contrast prompts and framed requests, which earn none), text_chars, reasoning_chars, latency_s
    (seconds), cost_usd, judge_cost_usd (USD), filter_category; with `show_text` also text, null
    where it was not kept, and in hard-line categories always. `rows` are places among all, if not
    all are wanted; `records` have the columns `REPORTED`.
    """
    manifest = records.run.manifest
    levels = danger_of(manifest)
    dangers = pl.DataFrame(
        {"prompt_id": list(levels), "danger": list(levels.values())},
        schema={"prompt_id": pl.String, "danger": pl.Int64},
    )
    units = records.responses(judge)
    if rows is not None:
        units = units[rows]
    units = with_credit(
        units, count_deflection=bool(manifest.config.get("count_deflection", False))
    )
    plain = pl.col("twin").is_null() & pl.col("framing").is_null()
    frame = (
        units.with_columns(credit=pl.when(plain).then(pl.col("credit")))
        .cast(dict.fromkeys(("outcome", "label", "unscored"), pl.String))
        .join(dangers, on="prompt_id", how="left", maintain_order="left")
        .select(
            pl.lit(manifest.id).alias("run"),
            pl.lit(str(manifest.config.get("model", ""))).alias("model"),
            pl.lit(manifest.judge_id(judge)).alias("judge"),
            *_COLUMNS,
        )
    )
    if show_text:
        wanted = None if rows is None else frame["unit"].to_list()
        kept = kept_texts(records.run, wanted)
        frame = frame.join(kept, on="unit", how="left", maintain_order="left")
    return frame


@dataclass(frozen=True)
class UnitsTable:
    """The units listed on a page, notable ones first.

    `rows` has the columns of `units_frame`, `name` (the run's name in the report) and `notable`
    (the reason, or null); with texts also `prompt`, null where no answer is shown. `n_units` counts
    all units that came back, `left_out` those not listed, by reason. `n_texts_left_out` counts
    answers beyond `MAX_TEXT_CHARS`. `prompts_missing` names the runs whose prompts cannot be read.
    """

    rows: pl.DataFrame
    n_units: int
    left_out: dict[str, int]
    n_texts_left_out: int
    prompts_missing: tuple[str, ...] = ()


# Why a unit is notable, most serious first.
NOTABLE = ("leak", "unscored", "blocked", "judges differ", "trials differ")


def units_table(
    runs: Sequence[RunFacts], *, show_text: bool = False, most: int = MAX_ROWS
) -> UnitsTable:
    """The units to list: all, or the most serious of the notable ones if there are over `most`."""
    marks = pl.concat(
        [_notable(facts).with_columns(run=pl.lit(n, pl.Int64)) for n, facts in enumerate(runs)]
    )
    n_units = len(marks)
    left_out: dict[str, int] = {}
    if n_units > most:
        worth = marks.filter(pl.col("rank").is_not_null())
        kept = worth.sort("rank", "run", "row").head(most)
        counts = dict(worth.group_by("rank").len().iter_rows())
        for rank, n in kept.group_by("rank").len().iter_rows():
            counts[rank] -= n
        left_out = {name: counts[n] for n, name in enumerate(NOTABLE) if counts.get(n)}
        if n_units > len(worth):
            left_out["nothing notable"] = n_units - len(worth)
        marks = kept
    listed = pl.concat(
        [
            _listed(facts, marks.filter(pl.col("run") == n).sort("row"), show_text)
            for n, facts in enumerate(runs)
        ]
    )
    order = {name: rank for rank, name in enumerate(NOTABLE)}
    listed = listed.sort(
        pl.col("notable").replace_strict(order, return_dtype=pl.Int8),
        nulls_last=True,
        maintain_order=True,
    )
    dropped = 0
    if show_text:
        shown = pl.col("text").str.slice(0, TEXT_CHARS)
        room = shown.str.len_chars().fill_null(0).cum_sum() <= MAX_TEXT_CHARS
        dropped = int(listed.select((~room & pl.col("text").is_not_null()).sum()).item())
        listed = listed.with_columns(text=pl.when(room).then(shown))
        listed, missing = _with_prompts(listed, runs)
        return UnitsTable(listed, n_units, left_out, dropped, missing)
    return UnitsTable(listed, n_units, left_out, dropped)


def _with_prompts(
    listed: pl.DataFrame, runs: Sequence[RunFacts]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with the prompt of each answer shown, and the runs whose prompts cannot be read."""
    texts: list[dict[str, str]] = []
    missing = []
    for facts in runs:
        run = facts.records.run
        try:
            prompts = same_prompts(
                run.manifest, run.manifest.run_config, None, beside=run.path.parent
            )
        except RefusalkitError:
            missing.append(facts.name)
            continue
        texts += [
            {"name": facts.name, "prompt_id": prompt.id, "prompt": prompt.text[:TEXT_CHARS]}
            for prompt in prompts
        ]
    schema = dict.fromkeys(("name", "prompt_id", "prompt"), pl.String())
    known = pl.DataFrame(texts, schema=schema)
    joined = listed.join(known, on=["name", "prompt_id"], how="left", maintain_order="left")
    shown = pl.col("text").is_not_null() & ~pl.col("hard_line")
    return joined.with_columns(prompt=pl.when(shown).then(pl.col("prompt"))), tuple(missing)


def units_section(report: Facts) -> Section:
    """The table of units."""
    table = units_table(report.runs, show_text=report.show_text)
    data: dict[str, Any] = {
        "rows": table.rows.to_dicts(),
        "n_units": table.n_units,
        "n_shown": len(table.rows),
        "left_out": table.left_out,
        "n_texts_left_out": table.n_texts_left_out,
        "prompts_missing": table.prompts_missing,
        "show_text": report.show_text,
        "text_chars": TEXT_CHARS,
        "several": len(report.runs) > 1,
        "words": bool(table.rows["word"].drop_nulls().len()),
        "marks": [mark for mark in NOTABLE if mark in set(table.rows["notable"].drop_nulls())],
    }
    return Section("units", "Units", "units.html.j2", data)


def _listed(facts: RunFacts, marks: pl.DataFrame, show_text: bool) -> pl.DataFrame:
    """The rows of a page for the units at `marks`."""
    frame = units_frame(
        facts.records, facts.score.judge, show_text=show_text, rows=marks["row"].to_list()
    )
    notable = [None if rank is None else NOTABLE[rank] for rank in marks["rank"]]
    return frame.with_columns(
        pl.Series("notable", notable, dtype=pl.String), name=pl.lit(facts.name)
    )


def _notable(facts: RunFacts) -> pl.DataFrame:
    """For each unit `row`, its index among all, and `rank`, its index in `NOTABLE` or null."""
    units = facts.units
    label = pl.col("label")
    refused = label == "refusal"
    by_prompt = units.group_by("prompt_id").agg(mixed=refused.any() & (~refused).any())
    mixed = by_prompt.filter("mixed")["prompt_id"]
    why = {
        "leak": pl.col("hard_line") & label.is_in(["partial", "compliance"]),
        "unscored": label.is_null(),
        "blocked": pl.col("outcome") == "blocked",
        "judges differ": pl.col("unit").is_in(sorted(disagreeing(facts))),
        "trials differ": pl.col("prompt_id").is_in(mixed.to_list()),
    }
    rank = pl.coalesce(
        pl.when(why[name]).then(pl.lit(n, pl.Int8)) for n, name in enumerate(NOTABLE)
    )
    return units.select(row=pl.int_range(pl.len(), dtype=pl.UInt32), rank=rank)


def units_csv(frame: pl.DataFrame) -> str:
    """The frame as CSV (RFC 4180), with text that looks like a spreadsheet formula disarmed.

    Hidden characters are escaped; line ends within an answer are kept.
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
