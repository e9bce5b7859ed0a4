"""A run folder as polars frames, straight from its JSONL files.

The last record of a unit counts: an `error` that was asked again comes before the later result.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import polars as pl

from refusalkit.runs.checkpoint import MAX_CHECKED, checkpoint_fits
from refusalkit.runs.columns import COMPLETION, VERDICT, WORDS, read_columns, read_pieces
from refusalkit.runs.costs import Bill
from refusalkit.runs.edits import Edits, wrong_digests
from refusalkit.runs.extents import Cursor
from refusalkit.runs.folder import Run
from refusalkit.runs.odd_answers import ODD, OddAnswers, is_from_endpoint
from refusalkit.runs.set_aside import SetAside
from refusalkit.runs.unit_rows import UnitRows
from refusalkit.types import Label, Unscored
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")

SCORED = frozenset(
    {"text_chars", "error", "source", "word", "rests_on", "cut_chars", "answered_by"}
)
"""Columns that a score and an audit need, in addition to those that every reader needs."""

REPORTED = SCORED | {"reasoning_chars", "cost_usd", "latency_s", "filter_category", "usage"}
"""Columns that a report needs."""

_NO_ROW = frozenset({"schema", "usage", "text_sha256", "finish_reason", "unknown_mark"})
EVERYTHING = frozenset({*COMPLETION, *VERDICT}) - _NO_ROW
"""All columns that a row can have."""

_ANSWERED = frozenset({"unit", "prompt_id", "category", "trial", "outcome"})
_JUDGED = frozenset({"unit", "judge", "label", "unscored"})
_VOTE = ("unit", "judge", "label", "unscored", "source", "cost_usd")
# Up to so many bytes of records all units are in memory; beyond that, parts of about _PART bytes.
_MAX_WHOLE = 1_500_000_000
_PART = 500_000_000
_ENUMS = {name: pl.Enum(words) for name, words in WORDS.items()}


def completions(run: Run) -> pl.DataFrame:
    """The last completion of each unit, in order of unit.

    Columns: unit, prompt_id, category, trial, outcome, has_text, text_chars, reasoning_chars,
    cost_usd, latency_s, filter_category, error.
    """
    return _last_completions(run).sort("unit")


def _last_completions(run: Run) -> pl.DataFrame:
    columns = [name for name in COMPLETION if name not in ("schema", "usage", "text_sha256")]
    frame = read_columns(run.completions, COMPLETION, columns, _without_text)
    return frame.unique("unit", keep="last")


def attempts(run: Run, columns: Sequence[str], cursor: Cursor) -> pl.DataFrame:
    """Every completion record after a cursor, with the columns that a resume needs.

    Columns: unit, outcome, has_text, cost_usd, `columns` of the record, and its place: line (from
    1) and at (in bytes).
    """
    wanted = ["unit", "outcome", "text", "cost_usd", *columns]
    return read_columns(run.completions, COMPLETION, wanted, _without_text, cursor=cursor)


def judgements(run: Run, judges: Collection[str], cursor: Cursor | None = None) -> pl.DataFrame:
    """Every verdict record of these judges, in the file's order, with what a resume needs.

    Columns: unit, judge, label, unscored, source, cost_usd. With a cursor: only the records after
    it, and their places as in `attempts`.
    """
    theirs = pl.col("judge").is_in(list(judges))
    return read_columns(
        run.verdicts, VERDICT, _VOTE, lambda piece: piece.filter(theirs), cursor=cursor
    )


def texts(run: Run, units: Collection[str]) -> dict[str, str]:
    """The texts of these units' answers, by unit; units without a text on disk are left out."""
    if not units:
        return {}
    wanted = pl.col("unit").is_in(list(units))
    read = read_columns(
        run.completions, COMPLETION, ["unit", "text"], lambda piece: piece.filter(wanted)
    )
    kept = read.unique("unit", keep="last", maintain_order=True).drop_nulls("text")
    return dict(kept.iter_rows())


def verdicts(run: Run, judge: str) -> pl.DataFrame:
    """The last verdict of each unit by one judge, in order of unit.

    Columns: unit, label, unscored, source, reason, word, rests_on, cut_chars, answered_by,
    judge_cost_usd. Columns that older records lack are null.
    """
    return _last_verdicts(run, judge).sort("unit")


def _last_verdicts(run: Run, judge: str) -> pl.DataFrame:
    columns = [name for name in VERDICT if name not in ("schema", "usage")]

    def own(piece: pl.DataFrame) -> pl.DataFrame:
        return piece.filter(pl.col("judge") == judge).drop("judge")

    return (
        read_columns(run.verdicts, VERDICT, columns, own)
        .rename({"cost_usd": "judge_cost_usd"})
        .unique("unit", keep="last")
    )


def responses(run: Run, judge: str | None = None) -> pl.DataFrame:
    """All columns of each unit; see `UnitRows.responses`."""
    name = run.manifest.judge_id(judge)
    return RunRecords(run, EVERYTHING, judges=[name]).responses(name)


class RunRecords:
    """The records of a run; both files are read once, for all methods.

    `columns` are those needed in addition to a unit's name and state. `spent_usd` needs
    ``cost_usd`` and `tokens` needs ``usage``. `judges` are the ids of the judges whose verdicts are
    needed, by default all of the run's.

    With `verify`, `edits` says whether the records contradict each other. With `count_odd`, `odd`
    counts the answers that a reader should know about.

    For a very large run the rows are put on disk, and `parts` loads those of some prompts at a
    time; the other methods about single units load all of them.

    Raises `RecordError` at a broken line, `RunFolderError` if a file cannot be read.
    """

    def __init__(
        self,
        run: Run,
        columns: Collection[str] = SCORED,
        *,
        judges: Collection[str] | None = None,
        verify: bool = True,
        count_odd: bool = False,
    ) -> None:
        self.run = run
        self._verify = verify
        self._columns = frozenset(columns)
        self._n_wrong_texts: list[int] = []
        self._judges = list(run.manifest.judges if judges is None else judges)
        self._tokens: dict[str, list[dict[str, int]]] = {"model": [], "judge": []}
        self._bill = Bill()
        self._orphans: dict[int, int] = {}
        self.odd = OddAnswers(from_endpoint=is_from_endpoint(run.manifest))
        # The run may be at work. A verdict is written after its answer, so the answers to all
        # verdicts up to these sizes will be among those read.
        self._n_bytes = [_size_of(path) for path in (run.completions, run.verdicts)]
        answers = self._read_answers(ODD if count_odd else frozenset())
        verdicts = self._read_verdicts()
        self.n_parts = _parts_of(sum(self._n_bytes))
        """In how many parts it is read; 1 if all its units are in memory."""
        if self.n_parts == 1:
            self._whole = UnitRows(run.manifest, answers, verdicts)
        else:
            self._set_aside = SetAside(self.n_parts), SetAside(self.n_parts)
            for aside, pieces in zip(self._set_aside, (answers, verdicts), strict=True):
                for piece in pieces:
                    aside.add(piece)

    def parts(self) -> Iterator[UnitRows]:
        """The rows in parts, one after another; each prompt is in exactly one of them."""
        if self.n_parts == 1:
            yield self._whole
            return
        answers, verdicts = self._set_aside
        for number in range(self.n_parts):
            rows = UnitRows(self.run.manifest, answers.part(number), verdicts.part(number))
            self._orphans[number] = rows.n_orphans
            yield rows

    def responses(self, judge: str | None = None) -> pl.DataFrame:
        """`UnitRows.responses` of all units."""
        return self._whole.responses(judge)

    def labels(self, judge: str) -> dict[str, Label]:
        """A judge's labels, by unit; units that a provider's filter blocked are left out."""
        said = pl.col("label").is_not_null() & (pl.col("source") == "judge")
        rows = self._whole.verdicts(judge).filter(said).select("unit", "label").iter_rows()
        return {unit: Label(label) for unit, label in rows}

    def votes(self, members: Sequence[str]) -> pl.DataFrame:
        """The last verdict of each unit by each of several judges, in order of unit and judge.

        Columns: unit, judge, label, unscored, source, stands. `stands` is false if the request to
        the judge failed.
        """
        columns = ("unit", "judge", "label", "unscored", "source")
        cast = [
            self._whole.verdicts(member).with_columns(judge=pl.lit(member)).select(columns)
            for member in members
        ]
        return last_votes(pl.concat(cast))

    def spent_usd(self, judges: Collection[str] | None = None) -> float | None:
        """Cost of all requests in USD, repeated ones included; None: a price is unknown.

        With `judges` only the answers and these judges' verdicts are counted.
        """
        return self._bill.spent_usd(self.run, judges)

    def tokens(self) -> dict[str, dict[str, int]]:
        """Tokens of all requests, repeated ones included: of the ``model``, and of the ``judge``.

        Each has the fields of `Usage` (0 if none was reported) and n_said, the number of records
        that report any.
        """
        return {
            part: {name: sum(count[name] for count in counts) for name in counts[0]}
            for part, counts in self._tokens.items()
        }

    @cached_property
    def edits(self) -> Edits:
        """Contradictions within the records; they are logged once."""
        if len(self._orphans) < self.n_parts:
            self._orphans = {n: rows.n_orphans for n, rows in enumerate(self.parts())}
        found = Edits(
            texts=sum(self._n_wrong_texts),
            verdicts=sum(self._orphans.values()),
            checkpoint=self._verify and not self._fits_checkpoint(),
        )
        if found:
            _LOG.info("%s: %s", printable(self.run.path), found.warning)
        return found

    def _fits_checkpoint(self) -> bool:
        return checkpoint_fits(self.run, self._first_units, self._n_bytes[0])

    def _first_units(self) -> pl.Series:
        """The units of the first completions, as many as are compared with a checkpoint."""
        if self.n_parts == 1:
            return self._whole.units
        first = Cursor(until=MAX_CHECKED)
        return read_columns(self.run.completions, COMPLETION, ["unit"], cursor=first)["unit"]

    @cached_property
    def _whole(self) -> UnitRows:
        """The rows of all units."""
        every = [
            itertools.chain.from_iterable(map(aside.part, range(self.n_parts)))
            for aside in self._set_aside
        ]
        return UnitRows(self.run.manifest, *every)

    def _read_answers(self, odd: frozenset[str]) -> Iterator[pl.DataFrame]:
        """The needed columns of the completions, in pieces."""
        columns = self._columns

        def kept(piece: pl.DataFrame) -> pl.DataFrame:
            if odd:
                self.odd.count(piece)
                piece = piece.drop(list(odd - columns - _ANSWERED))
            piece = self._without_usage(piece, "model").cast({"outcome": _ENUMS["outcome"]})
            if "cost_usd" in columns:
                self._bill.add_answers(piece)
            if "text_sha256" in piece.columns:
                texts = piece.select("text", "text_sha256").drop_nulls("text")
                self._n_wrong_texts.append(wrong_digests(texts.iter_rows()))
                piece = piece.drop("text_sha256")
            if "text" not in piece.columns:
                return piece
            return _without_text(piece) if "text" in columns else piece.drop("text")

        checked = {"text", "text_sha256"} if self._verify else set()
        wanted = [name for name in COMPLETION if name in _ANSWERED | columns | checked | odd]
        return read_pieces(self.run.completions, COMPLETION, wanted, kept)

    def _read_verdicts(self) -> Iterator[pl.DataFrame]:
        """The needed columns of the verdicts, in pieces."""
        known = {**_ENUMS, "judge": pl.Enum(self._judges)}
        wanted = [name for name in VERDICT if name in _JUDGED | self._columns]
        narrow = [pl.col(name).cast(known[name], strict=False) for name in _JUDGED & known.keys()]

        def kept(piece: pl.DataFrame) -> pl.DataFrame:
            piece = self._without_usage(piece, "judge").with_columns(narrow)
            if "cost_usd" in piece.columns:
                # Before the filter below, because the cost of all judges counts.
                self._bill.add_verdicts(piece)
                piece = piece.rename({"cost_usd": "judge_cost_usd"})
            return piece.filter(pl.col("judge").is_not_null())

        return read_pieces(self.run.verdicts, VERDICT, wanted, kept, until=self._n_bytes[1])

    def _without_usage(self, piece: pl.DataFrame, part: str) -> pl.DataFrame:
        if "usage" not in piece.columns:
            return piece
        self._tokens[part].append(_count_tokens(piece))
        return piece.drop("usage")


def _size_of(path: Path) -> int:
    with contextlib.suppress(OSError):  # reading it raises the error
        return path.stat().st_size
    return 0


def _parts_of(n_bytes: int) -> int:
    """In how many parts a run is read: one, unless its files are very large."""
    return 1 if n_bytes <= _MAX_WHOLE else -(-n_bytes // _PART)


def last_votes(judged: pl.DataFrame) -> pl.DataFrame:
    """The last verdict of each unit by each judge, in order of both, and whether it `stands`."""
    return (
        judged.unique(["unit", "judge"], keep="last")
        .with_columns(stands=stands())
        .sort("unit", "judge")
    )


def stands() -> pl.Expr:
    """Whether a verdict counts: the request to the judge did not fail."""
    return pl.col("label").is_not_null() | (pl.col("unscored") != Unscored.JUDGE_ERROR.value)


def output_tokens(run: Run, judge: str | None = None) -> list[int]:
    """Output tokens, reasoning included, of each answer of a run, or of each verdict of a judge.

    Requests for which the provider reported none are left out.
    """
    path, schema = (run.completions, COMPLETION) if judge is None else (run.verdicts, VERDICT)
    columns = ["usage"] if judge is None else ["usage", "judge"]
    frame = read_columns(path, schema, columns)
    if judge is not None:
        frame = frame.filter(pl.col("judge") == judge)
    tokens = frame["usage"].struct.field("output_tokens").drop_nulls()
    return [int(count) for count in tokens]


def answer_lengths(run: Run, units: Collection[str]) -> list[tuple[int, int]]:
    """Output tokens of these units' answers, with and without reasoning.

    Answers without a reported count are left out; unreported reasoning tokens count as 0.
    """
    wanted = pl.col("unit").is_in(list(units))
    read = read_columns(
        run.completions, COMPLETION, ["unit", "usage"], lambda piece: piece.filter(wanted)
    )
    usage = read.unique("unit", keep="last", maintain_order=True)["usage"].struct
    written = usage.field("output_tokens")
    shown = written - usage.field("reasoning_tokens").fill_null(0)
    return [(w, max(s, 0)) for w, s in zip(written, shown, strict=True) if w is not None]


def _count_tokens(records: pl.DataFrame) -> dict[str, int]:
    usage = pl.col("usage")
    frame = records.select(usage).filter(usage.is_not_null()).unnest("usage")
    said = pl.any_horizontal(pl.all().is_not_null())
    counts = frame.select(pl.all().sum(), n_said=said.sum()).row(0, named=True)
    return {name: int(count or 0) for name, count in counts.items()}


def kept_texts(run: Run, units: Collection[str] | None = None) -> pl.DataFrame:
    """The final texts that may be shown, of all units or of those given: columns unit, text.

    A unit's last completion counts. Answers in hard-line categories are always left out, even if
    the run kept them.
    """
    hard_lines = sorted(run.manifest.hard_lines)
    wanted = pl.lit(value=True) if units is None else pl.col("unit").is_in(list(units))
    columns = ["unit", "category", "text"]
    return (
        read_columns(run.completions, COMPLETION, columns, lambda piece: piece.filter(wanted))
        .unique("unit", keep="last", maintain_order=True)
        .filter(~pl.col("category").is_in(hard_lines) & pl.col("text").is_not_null())
        .select("unit", "text")
    )


def _without_text(piece: pl.DataFrame) -> pl.DataFrame:
    return piece.with_columns(has_text=pl.col("text").is_not_null()).drop("text")
