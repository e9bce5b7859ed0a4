"""The units of a run as columns in memory, for filters and lists. Texts stay on disk."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from refusalkit.runs.columns import COMPLETION, VERDICT, WORDS, read_columns
from refusalkit.runs.extents import START, Cursor
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.records import Place
from refusalkit.runs.unit_rows import standing
from refusalkit.scoring.danger import danger_of
from refusalkit.types import Label
from refusalkit.viewer.tally import size_of

LEAKED = (Label.PARTIAL.value, Label.COMPLIANCE.value)
SHOWS: Mapping[str, pl.Expr] = {
    "leaks": pl.col("leak"),
    "differ": pl.col("differ"),
    "hard": pl.col("hard_line"),
    "ordinary": ~pl.col("hard_line") & pl.col("twin").is_null(),
    "twins": pl.col("twin").is_not_null(),
    "framed": pl.col("framing").is_not_null(),
}
"""Kinds of units that the list can be narrowed to."""
_ENUMS = {name: pl.Enum(words) for name, words in WORDS.items()}


@dataclass(frozen=True)
class UnitIndex:
    """The units with a response, in order of category, prompt and trial.

    `units` has a row for each: unit, prompt_id, category, hard_line, trial, outcome, label,
    unscored, text_chars, has_text, danger, twin, framing, line and at (where the completion is),
    leak, differ (two judges labelled it differently); and for each of `judges` its label_N, own_N
    (the judge itself gave the label, not a filter), line_N and at_N. `is_whole`: all records are in
    it, not only the first ones. `facets` counts the units by the values of each filter. `turns`
    says where the turns after a refusal are, by unit, in order.
    """

    units: pl.DataFrame
    judges: tuple[str, ...]
    is_whole: bool
    facets: Mapping[str, Mapping[str, int]]
    turns: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    serial: int = field(default_factory=itertools.count().__next__, compare=False)
    """A number that no other `UnitIndex` of this process has."""

    def row_of(self, unit: str) -> int | None:
        """The row number of a unit, None if it is not in the index."""
        found = self.units["unit"].eq(unit).arg_true()
        return int(found[0]) if len(found) else None


def build_index(run: Run, *, until: int | None = None) -> UnitIndex:
    """Read the columns of a run; with `until` only that many bytes of each file, unsorted.

    Raises `RunFolderError`, `RecordError`.
    """
    manifest = run.manifest
    units = _read_units(run, until)
    judges = tuple(manifest.judges)
    for n, verdicts in enumerate(_read_verdicts(run, judges, until)):
        units = units.join(verdicts, on="unit", how="left", maintain_order="left")
        if judges[n] == manifest.judge:
            own = units.select("outcome", label=f"label_{n}", unscored=f"unscored_{n}")
            units = units.with_columns(own.select(*standing()))
        units = units.drop(f"unscored_{n}")
    is_part = until is not None and _size(run) > until
    units = units.join(_prompts_of(units, manifest), on=["prompt_id", "category"], how="left")
    if not is_part:
        units = units.sort("place", "trial")
    labels = [pl.col(f"label_{n}") for n in range(len(judges))]
    units = units.drop("place").with_columns(
        leak=pl.col("hard_line") & pl.col("label").is_in(LEAKED),
        differ=pl.concat_list(labels).list.drop_nulls().list.n_unique() > 1
        if len(labels) > 1
        else pl.lit(value=False),
    )
    units = units.with_columns(pl.col("leak", "differ").fill_null(value=False)).rechunk()
    turns = {} if until is not None else _read_turns(run)
    return UnitIndex(units, judges, not is_part, _facets(units), turns)


def _size(run: Run) -> int:
    return max(size_of(run.completions), size_of(run.verdicts))


def _read_units(run: Run, until: int | None) -> pl.DataFrame:
    """The last completion of each unit, in the file's order."""
    columns = ["unit", "prompt_id", "category", "trial", "outcome", "text", "text_chars"]

    def kept(piece: pl.DataFrame) -> pl.DataFrame:
        has_text = pl.col("text").is_not_null()
        return piece.with_columns(has_text=has_text).drop("text").cast({"outcome": OUTCOME})

    cursor = Cursor(START, until)
    return _last(read_columns(run.completions, COMPLETION, columns, kept, cursor=cursor))


OUTCOME = _ENUMS["outcome"]


def _read_verdicts(run: Run, judges: tuple[str, ...], until: int | None) -> list[pl.DataFrame]:
    """The last verdict of each unit, a frame for each judge."""
    known = {"judge": pl.Enum(judges), "label": _ENUMS["label"], "unscored": _ENUMS["unscored"]}
    narrow = [pl.col(name).cast(kind, strict=False) for name, kind in known.items()]
    cursor = Cursor(START, until)
    rows = read_columns(
        run.verdicts,
        VERDICT,
        ["unit", "judge", "label", "unscored", "source"],
        lambda piece: (
            piece.with_columns(narrow, own=pl.col("source") == "judge")
            .drop("source")
            .filter(pl.col("judge").is_not_null())
        ),
        cursor=cursor,
    )
    found = []
    for n, judge in enumerate(judges):
        own = rows if len(judges) == 1 else rows.filter(pl.col("judge") == judge)
        named = {name: f"{name}_{n}" for name in ("label", "unscored", "own", "line", "at")}
        found.append(_last(own).drop("judge").rename(named))
    return found


def _last(rows: pl.DataFrame) -> pl.DataFrame:
    if rows["unit"].n_unique() == len(rows):
        return rows
    return rows.filter(rows["unit"].is_last_distinct())


def _prompts_of(units: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """What the manifest says about the prompts: one row each; `place` is their order."""
    entry = manifest.prompt_set
    hard_lines = sorted(manifest.hard_lines)
    known: list[tuple[str, Mapping[str, str] | Mapping[str, int], type[pl.DataType]]] = [
        ("twin", entry.twins, pl.String),
        ("framing", {name: one.framing for name, one in entry.framed.items()}, pl.String),
        ("danger", danger_of(manifest), pl.Int64),
    ]
    prompts = units.select("category", "prompt_id").unique().sort("category", "prompt_id")
    for name, said, kind in known:
        schema: dict[str, type[pl.DataType]] = {"prompt_id": pl.String, name: kind}
        column = pl.DataFrame({"prompt_id": list(said), name: list(said.values())}, schema=schema)
        prompts = prompts.join(column, on="prompt_id", how="left", maintain_order="left")
    return prompts.with_row_index("place").with_columns(
        hard_line=pl.col("category").is_in(hard_lines) & pl.col("twin").is_null()
    )


def _read_turns(run: Run) -> dict[str, tuple[Place, ...]]:
    """Where the turns of each conversation are; of several attempts the last."""
    if not run.pressure.exists():
        return {}
    cursor = Cursor()
    schema = {"schema": pl.Int64, "unit": pl.String, "attempt": pl.Int64, "turn": pl.Int64}
    rows = read_columns(run.pressure, schema, ["unit", "attempt", "turn"], cursor=cursor)
    last = pl.col("attempt") == pl.col("attempt").max().over("unit")
    found: dict[str, list[Place]] = {}
    for unit, line, at in rows.filter(last).select("unit", "line", "at").iter_rows():
        found.setdefault(unit, []).append((line, at))
    return {unit: tuple(places) for unit, places in found.items()}


def _facets(units: pl.DataFrame) -> dict[str, dict[str, int]]:
    """The number of units by category, label, outcome and danger, and for each of `SHOWS`.

    Categories come in order of their names, the rest in the order of their enumeration.
    """
    found: dict[str, dict[str, int]] = {}
    for name in ("category", "label", "outcome", "danger"):
        counts = units[name].value_counts().drop_nulls().sort(name)
        found[name] = {str(key): int(count) for key, count in counts.iter_rows()}
    if missing := units["label"].null_count():
        found["label"]["unscored"] = missing
    counted = units.select(**{name: each.sum() for name, each in SHOWS.items()})
    found["show"] = {name: int(n) for name, n in counted.row(0, named=True).items() if n}
    return found
