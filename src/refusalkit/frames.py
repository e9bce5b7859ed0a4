"""A run folder as polars frames, straight from its JSONL files.

The last record of a unit counts: an `error` that was asked again stands before its better end.
"""

from __future__ import annotations

import io
import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl

from refusalkit.errors import RecordError, RunFolderError
from refusalkit.extents import START, Cursor, Extent
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
_Schema = Mapping[str, pl.DataType | type[pl.DataType]]
_COMPLETION: _Schema = {
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
_VERDICT: _Schema = {
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
_VOTE = ("unit", "judge", "label", "unscored", "source", "cost_usd")
# Bytes of a record file that are in memory at once.
_PIECE = 8 * 2**20


def completions(run: Run) -> pl.DataFrame:
    """The last completion of each unit, in order of unit.

    Columns: unit, prompt_id, category, trial, outcome, has_text, text_chars, reasoning_chars,
    cost_usd, latency_s, filter_category, error.
    """
    return _last_completions(run).sort("unit")


def _last_completions(run: Run) -> pl.DataFrame:
    columns = [name for name in _COMPLETION if name not in ("schema", "usage")]
    frame = _read(run.completions, _COMPLETION, columns, _without_text)
    return frame.unique("unit", keep="last")


def attempts(run: Run, columns: Sequence[str], cursor: Cursor) -> pl.DataFrame:
    """Every completion record behind a cursor: what a resume must know of it.

    Columns: unit, outcome, has_text, cost_usd, `columns` of the record, and its place: line (from
    1) and at (in bytes).
    """
    wanted = ["unit", "outcome", "text", "cost_usd", *columns]
    return _read(run.completions, _COMPLETION, wanted, _without_text, cursor=cursor)


def judgements(run: Run, judges: Collection[str], cursor: Cursor | None = None) -> pl.DataFrame:
    """Every verdict record of some judges, in the file's order: what a resume must know of it.

    Columns: unit, judge, label, unscored, source, cost_usd; with a cursor, of the records behind
    it, also their places as in `attempts`.
    """
    theirs = pl.col("judge").is_in(list(judges))
    return _read(run.verdicts, _VERDICT, _VOTE, lambda piece: piece.filter(theirs), cursor=cursor)


def texts(run: Run, units: Collection[str]) -> dict[str, str]:
    """The texts of some units' answers by unit; units whose text is not on disk are left out."""
    if not units:
        return {}
    wanted = pl.col("unit").is_in(list(units))
    read = _read(run.completions, _COMPLETION, ["unit", "text"], lambda piece: piece.filter(wanted))
    kept = read.unique("unit", keep="last", maintain_order=True).drop_nulls("text")
    return dict(kept.iter_rows())


def verdicts(run: Run, judge: str) -> pl.DataFrame:
    """The last verdict of each unit by one judge, in order of unit.

    Columns: unit, label, unscored, source, reason, word, rests_on, cut_chars, answered_by,
    judge_cost_usd. Records from before a column was there have null.
    """
    return _last_verdicts(run, judge).sort("unit")


def _last_verdicts(run: Run, judge: str) -> pl.DataFrame:
    columns = [name for name in _VERDICT if name not in ("schema", "usage")]

    def own(piece: pl.DataFrame) -> pl.DataFrame:
        return piece.filter(pl.col("judge") == judge).drop("judge")

    return (
        _read(run.verdicts, _VERDICT, columns, own)
        .rename({"cost_usd": "judge_cost_usd"})
        .unique("unit", keep="last")
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
    joined = _last_completions(run).join(_last_verdicts(run, name), on="unit", how="left")
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
    return (
        joined.with_columns(
            *standing(),
            hard_line=pl.col("category").is_in(sorted(manifest.hard_lines))
            & pl.col("twin").is_null(),
        )
        .sort("category", "prompt_id", "trial", "unit")
        .select("unit", "prompt_id", "category", "hard_line", "trial", pl.all().exclude(_LEADING))
    )


def standing() -> tuple[pl.Expr, pl.Expr]:
    """`label` and `unscored` of a unit's last completion beside its last verdict, if any."""
    failed = pl.col("outcome") == Outcome.ERROR.value
    # An error is an attempt that was lost: what a verdict says of it ends with the next attempt.
    reason = pl.col("unscored").fill_null(Unscored.ERROR.value)
    unjudged = pl.col("label").is_null() & (reason == Unscored.ERROR.value)
    # A verdict that stands beside an error belongs to an attempt that was lost.
    label = pl.when(failed).then(None).otherwise(pl.col("label"))
    unscored = (
        pl.when(failed)
        .then(pl.lit(Unscored.ERROR.value))
        .when(unjudged)
        .then(pl.lit(Unscored.OWED.value))
        .otherwise(pl.col("unscored"))
    )
    return label.alias("label"), unscored.alias("unscored")


def votes(run: Run, members: Sequence[str]) -> pl.DataFrame:
    """The last verdict of each unit by each of several judges, in order of unit and judge.

    Columns: unit, judge, label, unscored, source, cost_usd, stands. A verdict that does not stand
    is one of a request that failed.
    """
    return (
        judgements(run, members)
        .unique(["unit", "judge"], keep="last")
        .with_columns(stands=stands())
        .sort("unit", "judge")
    )


def stands() -> pl.Expr:
    """Whether a verdict is more than a request that failed."""
    return pl.col("label").is_not_null() | (pl.col("unscored") != Unscored.JUDGE_ERROR.value)


def spent_usd(
    run: Run, judges: Collection[str] | None = None, *, completions: bool = True
) -> float | None:
    """What the requests of a run cost, repeated ones included, in USD; None: a price is unknown.

    `judges` counts the verdicts of these only; without `completions` only verdicts are counted.
    """
    costs = []
    if completions:
        costs.append(priced(_read(run.completions, _COMPLETION, ["outcome", "cost_usd"])))
    judged = _read(run.verdicts, _VERDICT, ["judge", "unscored", "source", "cost_usd"])
    if judges is not None:
        judged = judged.filter(pl.col("judge").is_in(list(judges)))
    costs.append(paid(judged))
    canaries = spent_on_canaries(run, judges)
    if canaries is None or any(part.null_count() for part in costs):
        return None
    return math.fsum((*itertools.chain(*costs), canaries))


def priced(asked: pl.DataFrame) -> pl.Series:
    """What each completion record cost in USD; a request that failed has no price."""
    free = pl.col("outcome").is_in([Outcome.ERROR.value, Outcome.BLOCKED.value])
    return asked.filter(~free | pl.col("cost_usd").is_not_null())["cost_usd"]


def paid(judged: pl.DataFrame) -> pl.Series:
    """What each verdict record cost in USD; one that needed no judge costs nothing."""
    unasked = [Unscored.JUDGE_ERROR.value, Unscored.JUDGE_BLOCKED.value]
    failed = pl.col("unscored").is_in(unasked).fill_null(value=False) & pl.col("cost_usd").is_null()
    return judged.filter((pl.col("source") == "judge") & ~failed)["cost_usd"]


def spent_on_canaries(run: Run, judges: Collection[str] | None) -> float | None:
    """What the verdicts of some judges on canaries cost, in USD; None: a price is unknown."""
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


def _without_text(piece: pl.DataFrame) -> pl.DataFrame:
    return piece.with_columns(has_text=pl.col("text").is_not_null()).drop("text")


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
    path: Path,
    schema: _Schema,
    columns: Sequence[str],
    then: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    *,
    cursor: Cursor | None = None,
) -> pl.DataFrame:
    """Some columns of a record file; with a cursor of what is behind it, and of each its place.

    It is read in pieces and `then` is what is kept of each, so that answers' texts are never in
    memory together.
    """
    wanted = {name: schema[name] for name in ("schema", *columns)}

    def parse(data: bytes, above: Extent, starts: list[int]) -> pl.DataFrame:
        piece = pl.read_ndjson(data, schema=wanted)
        if not _is_sound(piece):
            _blame(path, schema)
        piece = piece.select(columns)
        if cursor is not None:
            piece = piece.with_columns(_places(data, above, starts, len(piece)))
        return piece if then is None else then(piece)

    parsed: list[pl.DataFrame] = []
    waiting: deque[Future[pl.DataFrame]] = deque()
    above, until = (START, None) if cursor is None else (cursor.extent, cursor.until)
    starts: list[int] = []
    try:
        # polars reads a piece on one core: as many at once as it would use, and no more in memory.
        with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
            for data in _pieces(path, above.size, until):
                if cursor is not None:
                    starts = _starts(data)
                    above = cursor.extent
                    cursor.extent = above.followed_by(data, len(starts))
                waiting.append(threads.submit(parse, data, above, starts))
                if len(waiting) > pl.thread_pool_size():
                    parsed.append(waiting.popleft().result())
            parsed.extend(future.result() for future in waiting)
    except OSError as error:
        where = printable(path)
        raise RunFolderError(f"{where} cannot be read: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        _blame(path, schema)
        raise RecordError(
            f"{path.name} has a record of another shape: {printable(error)}"
        ) from error
    return pl.concat(parsed, rechunk=True)


def _pieces(path: Path, start: int = 0, until: int | None = None) -> Iterator[bytes]:
    """The file in pieces of whole lines, at least one; a torn last line is left out."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END) if until is None else until
        end = -1
        while end < size:
            end = size
            if start + _PIECE < size:
                # Where a line ends is looked up first: joining what was read would copy all of it.
                file.seek(start + _PIECE)
                file.readline()
                end = file.tell()
            file.seek(start)
            data = file.read(end - start)
            start = end
            if not data.endswith(b"\n"):
                whole = data.rfind(b"\n") + 1
                # Killed between a record and its newline: the record counts.
                data = data + b"\n" if is_whole(data[whole:]) else data[:whole]
            yield data


def _starts(data: bytes) -> list[int]:
    """Where each line of a piece begins."""
    starts, end = [0], data.find(b"\n")
    while end >= 0:
        starts.append(end + 1)
        end = data.find(b"\n", end + 1)
    return starts[:-1]


def _places(data: bytes, above: Extent, starts: list[int], rows: int) -> pl.DataFrame:
    """Line and byte at which each record of a piece begins; polars passes over blank lines."""
    places = pl.DataFrame({"at": starts}, schema={"at": pl.Int64}).select(
        line=pl.int_range(pl.len()) + above.lines + 1, at=pl.col("at") + above.size
    )
    if len(starts) == rows:
        return places
    lines = itertools.pairwise((*starts, len(data)))
    return places.filter(pl.Series([bool(data[a:b].strip()) for a, b in lines], dtype=pl.Boolean))


def _is_sound(frame: pl.DataFrame) -> bool:
    for column in frame:
        if column.name in _REQUIRED and column.null_count():
            return False
        words = _WORDS.get(column.name)
        if words is not None and not column.drop_nulls().is_in(words).all():
            return False
    return bool(frame["schema"].eq_missing(SCHEMA).all())


def _blame(path: Path, schema: _Schema) -> None:
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
