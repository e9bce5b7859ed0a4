"""A run folder as polars frames, straight from its JSONL files.

The last record of a unit counts: an `error` that was asked again stands before its better end.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import polars as pl

from refusalkit.errors import RecordError, RunFolderError
from refusalkit.records import SCHEMA
from refusalkit.store import Run, is_whole, read_records
from refusalkit.types import Label, Outcome, Unscored
from refusalkit.untrusted import printable

_USAGE = pl.Struct(
    {
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "reasoning_tokens": pl.Int64,
        "cache_read_tokens": pl.Int64,
        "cache_write_tokens": pl.Int64,
    }
)
_COMPLETION: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "schema": pl.Int64,
    "unit": pl.String,
    "prompt_id": pl.String,
    "category": pl.String,
    "trial": pl.Int64,
    "outcome": pl.String,
    "text": pl.String,
    "text_chars": pl.Int64,
    "reasoning_chars": pl.Int64,
    "usage": _USAGE,
    "cost_usd": pl.Float64,
    "latency_s": pl.Float64,
    "filter_category": pl.String,
    "error": pl.String,
}
_VERDICT: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "schema": pl.Int64,
    "unit": pl.String,
    "judge": pl.String,
    "label": pl.String,
    "unscored": pl.String,
    "source": pl.String,
    "reason": pl.String,
    "word": pl.String,
    "rests_on": pl.String,
    "cut_chars": pl.Int64,
    "answered_by": pl.String,
    "usage": _USAGE,
    "cost_usd": pl.Float64,
}


def completions(run: Run) -> pl.DataFrame:
    """The last completion of each unit, in order of unit.

    Columns: unit, prompt_id, category, trial, outcome, has_text, text_chars, reasoning_chars,
    cost_usd, latency_s, filter_category, error.
    """
    columns = [name for name in _COMPLETION if name not in ("schema", "usage")]
    frame = _read(run.completions, _COMPLETION, columns)
    return (
        frame.with_columns(has_text=pl.col("text").is_not_null())
        .drop("text")
        .unique("unit", keep="last", maintain_order=True)
        .sort("unit")
    )


def texts(run: Run, units: Collection[str]) -> dict[str, str]:
    """The texts of some units' answers by unit; units whose text is not on disk are left out."""
    if not units:
        return {}
    frame = _read(run.completions, _COMPLETION, ["unit", "text"])
    kept = frame.unique("unit", keep="last", maintain_order=True).filter(
        pl.col("unit").is_in(list(units)) & pl.col("text").is_not_null()
    )
    return dict(kept.iter_rows())


def verdicts(run: Run, judge: str) -> pl.DataFrame:
    """The last verdict of each unit by one judge, in order of unit.

    Columns: unit, label, unscored, source, reason, word, rests_on, cut_chars, answered_by,
    judge_cost_usd. Records from before a column was there have null.
    """
    columns = [name for name in _VERDICT if name not in ("schema", "usage")]
    return (
        _read(run.verdicts, _VERDICT, columns)
        .filter(pl.col("judge") == judge)
        .drop("judge")
        .rename({"cost_usd": "judge_cost_usd"})
        .unique("unit", keep="last", maintain_order=True)
        .sort("unit")
    )


def responses(run: Run, judge: str | None = None) -> pl.DataFrame:
    """One row for each unit that came back, with its verdict, in order of category, prompt, trial.

    Columns: those of `completions` and `verdicts`, hard_line, twin, framing and frame_of. `twin` is
    null but for the answers to contrast prompts, which are nobody's hard line; `framing` and
    `frame_of` are null but for those to framed prompts, which no score counts. `label` is null
    exactly where `unscored` says why: a unit whose verdict is still owed says ``owed``, one that
    ended in an error says ``error``. Units of the plan that never came back have no row; the
    manifest counts them. Raises `RunFolderError` if `judge` never judged the run, `RecordError` at
    a broken line.
    """
    manifest = run.manifest
    name = manifest.judge_id(judge)
    failed = pl.col("outcome") == Outcome.ERROR.value
    joined = completions(run).join(verdicts(run, name), on="unit", how="left")
    pairs = {
        "prompt_id": list(manifest.prompt_set.twins),
        "twin": manifest.prompt_set.twins.values(),
    }
    twins = pl.DataFrame(pairs, schema={"prompt_id": pl.String, "twin": pl.String})
    framed = manifest.prompt_set.framed
    framings = pl.DataFrame(
        {
            "prompt_id": list(framed),
            "framing": [entry.framing for entry in framed.values()],
            "frame_of": [entry.frame_of for entry in framed.values()],
        },
        schema=dict.fromkeys(("prompt_id", "framing", "frame_of"), pl.String),
    )
    joined = joined.join(twins, on="prompt_id", how="left")
    joined = joined.join(framings, on="prompt_id", how="left")
    # An error is an attempt that was lost: what a verdict says of it ends with the next attempt.
    reason = pl.col("unscored").fill_null(Unscored.ERROR.value)
    unjudged = pl.col("label").is_null() & (reason == Unscored.ERROR.value)
    return (
        joined.with_columns(
            # A verdict that stands beside an error belongs to an attempt that was lost.
            label=pl.when(failed).then(None).otherwise(pl.col("label")),
            unscored=pl.when(failed)
            .then(pl.lit(Unscored.ERROR.value))
            .when(unjudged)
            .then(pl.lit(Unscored.OWED.value))
            .otherwise(pl.col("unscored")),
            hard_line=pl.col("category").is_in(sorted(manifest.hard_lines))
            & pl.col("twin").is_null(),
        )
        .sort("category", "prompt_id", "trial")
        .select("unit", "prompt_id", "category", "hard_line", "trial", pl.all().exclude(_LEADING))
    )


def votes(run: Run, members: Sequence[str]) -> pl.DataFrame:
    """The last verdict of each unit by each of several judges, in order of unit and judge.

    Columns: unit, judge, label, unscored, source, cost_usd, stands. A verdict that does not stand
    is one of a request that failed.
    """
    stands = pl.col("label").is_not_null() | (pl.col("unscored") != Unscored.JUDGE_ERROR.value)
    columns = ["unit", "judge", "label", "unscored", "source", "cost_usd"]
    return (
        _read(run.verdicts, _VERDICT, columns)
        .filter(pl.col("judge").is_in(list(members)))
        .unique(["unit", "judge"], keep="last", maintain_order=True)
        .with_columns(stands=stands)
        .sort("unit", "judge")
    )


def spent_usd(
    run: Run, judges: Collection[str] | None = None, *, completions: bool = True
) -> float | None:
    """What the requests of a run cost, repeated ones included, in USD; None: a price is unknown.

    `judges` counts the verdicts of these only; without `completions` only verdicts are counted.
    """
    asked = _read(run.completions, _COMPLETION, ["outcome", "cost_usd"])
    judged = _read(run.verdicts, _VERDICT, ["judge", "unscored", "source", "cost_usd"])
    if judges is not None:
        judged = judged.filter(pl.col("judge").is_in(list(judges)))
    if not completions:
        asked = asked.clear()
    # A request that failed has no price, and a verdict that needed no judge costs nothing.
    priced = asked.filter(
        ~(pl.col("outcome").is_in([Outcome.ERROR.value, Outcome.BLOCKED.value]))
        | pl.col("cost_usd").is_not_null()
    )["cost_usd"]
    unasked = [Unscored.JUDGE_ERROR.value, Unscored.JUDGE_BLOCKED.value]
    failed = pl.col("unscored").is_in(unasked).fill_null(value=False) & pl.col("cost_usd").is_null()
    paid = judged.filter((pl.col("source") == "judge") & ~failed)["cost_usd"]
    canaries = _spent_on_canaries(run, judges)
    if priced.null_count() or paid.null_count() or canaries is None:
        return None
    return float(priced.sum() or 0) + float(paid.sum() or 0) + canaries


def _spent_on_canaries(run: Run, judges: Collection[str] | None) -> float | None:
    if not run.canaries.exists():
        return 0.0
    total = 0.0
    for place, record in read_records(run.canaries):
        if judges is not None and record.get("judge") not in judges:
            continue
        cost = record.get("cost_usd")
        if cost is None:
            if record.get("unscored") in (Unscored.JUDGE_ERROR, Unscored.JUDGE_BLOCKED):
                continue
            return None
        if not isinstance(cost, int | float):
            raise RecordError(f"{place}: cost_usd cannot be {printable(cost, 60)}")
        total += cost
    return total


def output_tokens(run: Run, judge: str | None = None) -> list[int]:
    """Output tokens, reasoning included, of each answer of a run, or of each verdict of a judge.

    Requests of which the provider did not say are left out.
    """
    path, schema = (run.completions, _COMPLETION) if judge is None else (run.verdicts, _VERDICT)
    columns = ["usage"] if judge is None else ["usage", "judge"]
    frame = _read(path, schema, columns)
    if judge is not None:
        frame = frame.filter(pl.col("judge") == judge)
    tokens = frame["usage"].struct.field("output_tokens").drop_nulls()
    return [int(count) for count in tokens]


def tokens(run: Run) -> dict[str, dict[str, int]]:
    """Tokens of all requests of a run, repeated ones included, of its ``model`` and its ``judge``.

    Each has the fields of `Usage` (0 where nobody said) and n_said, the number of records that said
    any.
    """
    usage = pl.col("usage")
    found = {}
    for part, path in (("model", run.completions), ("judge", run.verdicts)):
        schema = {name: _COMPLETION[name] for name in ("schema", "unit", "usage")}
        frame = _read(path, schema, ["usage"]).filter(usage.is_not_null()).unnest("usage")
        said = pl.any_horizontal(pl.all().is_not_null())
        found[part] = {
            **{name: int(frame[name].sum() or 0) for name in frame.columns},
            "n_said": int(frame.select(said.sum()).item()),
        }
    return found


def kept_texts(run: Run) -> pl.DataFrame:
    """The final text of each unit's last completion that may be shown: columns unit, text.

    Answers in hard-line categories are never among them, kept on disk or not.
    """
    hard_lines = sorted(run.manifest.hard_lines)
    return (
        _read(run.completions, _COMPLETION, ["unit", "category", "text"])
        .unique("unit", keep="last", maintain_order=True)
        .filter(~pl.col("category").is_in(hard_lines) & pl.col("text").is_not_null())
        .select("unit", "text")
    )


_LEADING = ("unit", "prompt_id", "category", "hard_line", "trial")
_REQUIRED = frozenset({"unit", "prompt_id", "category", "trial", "outcome", "judge"})
_WORDS: Mapping[str, list[str]] = {
    "outcome": [outcome.value for outcome in Outcome],
    "label": [label.value for label in Label],
    "unscored": [why.value for why in Unscored],
}
_PYTHON: Mapping[str, type | tuple[type, ...]] = {
    "Int64": int,
    "Float64": (int, float),
    "String": str,
}


def _read(
    path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]], columns: list[str]
) -> pl.DataFrame:
    try:
        # Opened here: polars takes a path for a pattern, and `run[1]` would read another run.
        with _whole_lines(path) as source:
            frame = pl.scan_ndjson(source, schema=dict(schema)).select("schema", *columns).collect()
    except OSError as error:
        where = printable(path)
        raise RunFolderError(f"{where} cannot be read: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        _blame(path, schema)
        raise RecordError(
            f"{path.name} has a record of another shape: {printable(error)}"
        ) from error
    if not _is_sound(frame):
        _blame(path, schema)
    return frame.select(columns)


def _is_sound(frame: pl.DataFrame) -> bool:
    for column in frame:
        if column.name in _REQUIRED and column.null_count():
            return False
        words = _WORDS.get(column.name)
        if words is not None and not column.drop_nulls().is_in(words).all():
            return False
    return bool(frame["schema"].eq_missing(SCHEMA).all())


def _blame(path: Path, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> None:
    """Raise at the first broken record; polars does not say which line, our own reader does."""
    for place, record in read_records(path):
        for name, kind in schema.items():
            value = record.get(name)
            if value is None:
                wrong = name in _REQUIRED
            elif name in _WORDS:
                wrong = value not in _WORDS[name]
            else:
                wrong = not isinstance(value, _PYTHON.get(str(kind), dict))
            if wrong:
                what = "is missing" if value is None else f"cannot be {printable(value, 60)}"
                raise RecordError(f"{place}: {name} {what}")


def _whole_lines(path: Path) -> io.BufferedReader | io.BytesIO:
    """The file, or what of it is whole if its last line was torn and it may not be mended here."""
    file = path.open("rb")
    size = file.seek(0, io.SEEK_END)
    if size:
        file.seek(-1, io.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            with file:
                data = file.read()
            end = data.rfind(b"\n") + 1
            # Killed between a record and its newline: the record counts.
            return io.BytesIO(data + b"\n" if is_whole(data[end:]) else data[:end])
    file.seek(0)
    return file
