"""A run folder as polars frames, straight from its JSONL files.

The last record of a unit counts: an `error` that was asked again comes before the later result.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Collection, Sequence
from functools import cached_property

import polars as pl

from refusalkit.errors import RecordError
from refusalkit.runs.checkpoint import checkpoint_fits
from refusalkit.runs.columns import COMPLETION, VERDICT, WORDS, read_columns
from refusalkit.runs.edits import Edits, wrong_digests
from refusalkit.runs.extents import Cursor
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.odd_answers import ODD, OddAnswers, is_from_endpoint
from refusalkit.runs.pressure import spent_on_pressure
from refusalkit.runs.records import read_records
from refusalkit.types import Label, Outcome, Unscored
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")

SCORED = frozenset(
    {"text_chars", "error", "source", "word", "rests_on", "cut_chars", "answered_by"}
)
"""Columns of records that a score and an audit rest on, beside those that every reader needs."""

REPORTED = SCORED | {"reasoning_chars", "cost_usd", "latency_s", "filter_category", "usage"}
"""What a report tells of."""

_NO_ROW = frozenset({"schema", "usage", "text_sha256", "finish_reason", "unknown_mark"})
EVERYTHING = frozenset({*COMPLETION, *VERDICT}) - _NO_ROW
"""All that a row can say of a unit."""

_ANSWERED = frozenset({"unit", "prompt_id", "category", "trial", "outcome"})
_JUDGED = frozenset({"unit", "judge", "label", "unscored"})
_VOTE = ("unit", "judge", "label", "unscored", "source", "cost_usd")
_LEADING = ("unit", "prompt_id", "category", "hard_line", "trial")
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
    """Every completion record behind a cursor: what a resume must know of it.

    Columns: unit, outcome, has_text, cost_usd, `columns` of the record, and its place: line (from
    1) and at (in bytes).
    """
    wanted = ["unit", "outcome", "text", "cost_usd", *columns]
    return read_columns(run.completions, COMPLETION, wanted, _without_text, cursor=cursor)


def judgements(run: Run, judges: Collection[str], cursor: Cursor | None = None) -> pl.DataFrame:
    """Every verdict record of some judges, in the file's order: what a resume must know of it.

    Columns: unit, judge, label, unscored, source, cost_usd; with a cursor, of the records behind
    it, also their places as in `attempts`.
    """
    theirs = pl.col("judge").is_in(list(judges))
    return read_columns(
        run.verdicts, VERDICT, _VOTE, lambda piece: piece.filter(theirs), cursor=cursor
    )


def texts(run: Run, units: Collection[str]) -> dict[str, str]:
    """The texts of some units' answers by unit; units whose text is not on disk are left out."""
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
    judge_cost_usd. Records from before a column was there have null.
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
    """All that the records say of each unit; see `RunRecords.responses`."""
    name = run.manifest.judge_id(judge)
    return RunRecords(run, EVERYTHING, judges=[name]).responses(name)


class RunRecords:
    """The records of a run, both files read once for all that is asked of them.

    `columns` are those wanted beside the ones that say which unit it is and its state.
    `spent_usd` needs ``cost_usd`` and `tokens` needs ``usage``. `judges` are the ids of those whose
    verdicts are wanted, by default all of the run's.

    With `verify`, `edits` says whether the records fit together. With `count_odd`, `odd` counts the
    answers that a reader should know of.

    Raises `RecordError` at a broken line, `RunFolderError` where a file cannot be read.
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
        self._n_wrong_texts: list[int] = []
        self._judges = list(run.manifest.judges if judges is None else judges)
        self._tokens: dict[str, list[dict[str, int]]] = {"model": [], "judge": []}
        self._bills: dict[str, pl.DataFrame] = {}
        self.odd = OddAnswers(from_endpoint=is_from_endpoint(run.manifest))
        self._answers = self._read_answers(frozenset(columns), ODD if count_odd else frozenset())
        self._verdicts = self._read_verdicts(frozenset(columns))
        self._responses: dict[str, pl.DataFrame] = {}

    def responses(self, judge: str | None = None) -> pl.DataFrame:
        """One row for each unit that came back, with its verdict, by category, prompt and trial.

        Columns: unit, prompt_id, category, hard_line, trial, outcome, label, unscored, twin,
        framing, frame_of, and those that were asked for; a verdict's cost_usd is judge_cost_usd,
        and text comes as has_text. `twin` is null but for the answers to contrast prompts, which
        belong to no hard line; `framing` and `frame_of` are null but for those to framed prompts,
        which no score counts. `label` is null exactly where `unscored` says why: a unit whose
        verdict is still owed says ``owed``, one that ended in an error says ``error``. outcome,
        label and unscored are enums. Units of the plan that never came back have no row; the
        manifest counts them. Raises `RunFolderError` if `judge` never judged the run.
        """
        name = self.run.manifest.judge_id(judge)
        if name not in self._responses:
            verdicts = self._verdicts[name]
            joined = self._answers.join(verdicts, on="unit", how="left", maintain_order="left")
            self._responses[name] = joined.with_columns(*standing())
        return self._responses[name]

    def labels(self, judge: str) -> dict[str, Label]:
        """What a judge said, by unit; what a provider's filter settled is left out."""
        said = pl.col("label").is_not_null() & (pl.col("source") == "judge")
        rows = self._verdicts[judge].filter(said).select("unit", "label").iter_rows()
        return {unit: Label(label) for unit, label in rows}

    def votes(self, members: Sequence[str]) -> pl.DataFrame:
        """The last verdict of each unit by each of several judges, in order of unit and judge.

        Columns: unit, judge, label, unscored, source, stands. A verdict that does not count is one
        of a request that failed.
        """
        columns = ("unit", "judge", "label", "unscored", "source")
        cast = [
            self._verdicts[member].with_columns(judge=pl.lit(member)).select(columns)
            for member in members
        ]
        return last_votes(pl.concat(cast))

    def spent_usd(self, judges: Collection[str] | None = None) -> float | None:
        """What all requests cost, repeated ones included, in USD; None: a price is unknown.

        With `judges` only their verdicts are counted, beside the answers.
        """
        judged = self._bills["judge"]
        if judges is not None:
            judged = judged.filter(pl.col("judge").is_in(list(judges)))
        return spent_on(self._bills["model"], judged, self.run, judges)

    def tokens(self) -> dict[str, dict[str, int]]:
        """Tokens of all requests, repeated ones included, of the ``model`` and of its ``judge``.

        Each has the fields of `Usage` (0 where none was reported) and n_said, the number of records
        that reported any.
        """
        return {
            part: {name: sum(count[name] for count in counts) for name in counts[0]}
            for part, counts in self._tokens.items()
        }

    @cached_property
    def edits(self) -> Edits:
        """What in the records contradicts something else in them; it is logged once."""
        units = self._answers["unit"]
        said = [self._verdicts[judge]["unit"] for judge in self._judges]
        lost = pl.concat([pl.Series("unit", [], pl.String), *said]).unique()
        found = Edits(
            texts=sum(self._n_wrong_texts),
            verdicts=len(lost.to_frame().join(units.to_frame(), on="unit", how="anti")),
            checkpoint=self._verify and not checkpoint_fits(self.run, units),
        )
        if found:
            _LOG.info("%s: %s", printable(self.run.path), found.warning)
        return found

    def _read_answers(self, columns: frozenset[str], odd: frozenset[str]) -> pl.DataFrame:
        """The last completion of each unit, in order, with what the manifest says of its prompt."""

        def kept(piece: pl.DataFrame) -> pl.DataFrame:
            if odd:
                self.odd.count(piece)
                piece = piece.drop(list(odd - columns - _ANSWERED))
            piece = self._without_usage(piece, "model").cast({"outcome": _ENUMS["outcome"]})
            if "text_sha256" in piece.columns:
                texts = piece.select("text", "text_sha256").drop_nulls("text")
                self._n_wrong_texts.append(wrong_digests(texts.iter_rows()))
                piece = piece.drop("text_sha256")
            if "text" not in piece.columns:
                return piece
            return _without_text(piece) if "text" in columns else piece.drop("text")

        checked = {"text", "text_sha256"} if self._verify else set()
        wanted = [name for name in COMPLETION if name in _ANSWERED | columns | checked | odd]
        rows = read_columns(self.run.completions, COMPLETION, wanted, kept)
        if "cost_usd" in columns:
            self._bills["model"] = rows.select("outcome", "cost_usd").rechunk()
        rows = _last_of_unit(rows)
        # Strings are sorted once a prompt, not once a unit.
        prompts = _prompts_of(rows, self.run.manifest).with_row_index("place")
        rows = rows.join(prompts, on=["category", "prompt_id"], how="left")
        rows = rows.sort("place", "trial", "unit")
        return rows.select(*_LEADING, pl.all().exclude(*_LEADING, "place"))

    def _read_verdicts(self, columns: frozenset[str]) -> dict[str, pl.DataFrame]:
        """The last verdict of each unit, by judge."""
        known = {**_ENUMS, "judge": pl.Enum(self._judges)}
        wanted = [name for name in VERDICT if name in _JUDGED | columns]
        narrow = [pl.col(name).cast(known[name], strict=False) for name in _JUDGED & known.keys()]

        def kept(piece: pl.DataFrame) -> pl.DataFrame:
            piece = self._without_usage(piece, "judge").with_columns(narrow)
            # What the others cost counts all the same.
            return piece if "cost_usd" in columns else piece.filter(pl.col("judge").is_not_null())

        rows = read_columns(self.run.verdicts, VERDICT, wanted, kept)
        if "cost_usd" in columns:
            bills = rows.select("judge", "source", "unscored", "cost_usd")
            self._bills["judge"] = bills.rechunk()
            rows = rows.rename({"cost_usd": "judge_cost_usd"})
        found = {}
        for judge in self._judges:
            theirs = rows["judge"].eq_missing(judge)
            found[judge] = _last_of_unit(rows if theirs.all() else rows.filter(theirs)).drop(
                "judge"
            )
        return found

    def _without_usage(self, piece: pl.DataFrame, part: str) -> pl.DataFrame:
        if "usage" not in piece.columns:
            return piece
        self._tokens[part].append(_count_tokens(piece))
        return piece.drop("usage")


def _last_of_unit(rows: pl.DataFrame) -> pl.DataFrame:
    """The last record of each unit, in the file's order."""
    if rows["unit"].n_unique() == len(rows):  # counting is cheap, finding them is not
        return rows
    return rows.filter(rows["unit"].is_last_distinct())


def _prompts_of(answers: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    """The prompts that were answered, in order, and what the manifest says of them.

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
    # An error is an attempt that was lost: what a verdict says of it ends with the next attempt.
    reason = pl.col("unscored").fill_null(Unscored.ERROR.value)
    unjudged = pl.col("label").is_null() & (reason == Unscored.ERROR.value)
    # A verdict beside an error belongs to an attempt that was lost.
    label = pl.when(failed).then(None).otherwise(pl.col("label"))
    unscored = (
        pl.when(failed)
        .then(pl.lit(Unscored.ERROR.value))
        .when(unjudged)
        .then(pl.lit(Unscored.OWED.value))
        .otherwise(pl.col("unscored"))
    )
    return label.alias("label"), unscored.alias("unscored")


def last_votes(judged: pl.DataFrame) -> pl.DataFrame:
    """The last verdict of each unit by each judge, in order of both, and whether it `stands`."""
    return (
        judged.unique(["unit", "judge"], keep="last")
        .with_columns(stands=stands())
        .sort("unit", "judge")
    )


def stands() -> pl.Expr:
    """Whether a verdict is more than a request that failed."""
    return pl.col("label").is_not_null() | (pl.col("unscored") != Unscored.JUDGE_ERROR.value)


def spent_on(
    asked: pl.DataFrame | None, judged: pl.DataFrame, run: Run, judges: Collection[str] | None
) -> float | None:
    """What records that were read cost in USD: `asked` as `attempts`, `judged` as `judgements`.

    None: a price is unknown. `judges` are those whose canaries count too, by default all.
    """
    costs = [paid(judged)] if asked is None else [priced(asked), paid(judged)]
    canaries = spent_on_canaries(run, judges)
    pressed = spent_on_pressure(run, judges)
    if canaries is None or pressed is None or any(part.null_count() for part in costs):
        return None
    return math.fsum((*itertools.chain(*costs), canaries, pressed))


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
    path, schema = (run.completions, COMPLETION) if judge is None else (run.verdicts, VERDICT)
    columns = ["usage"] if judge is None else ["usage", "judge"]
    frame = read_columns(path, schema, columns)
    if judge is not None:
        frame = frame.filter(pl.col("judge") == judge)
    tokens = frame["usage"].struct.field("output_tokens").drop_nulls()
    return [int(count) for count in tokens]


def answer_lengths(run: Run, units: Collection[str]) -> list[tuple[int, int]]:
    """Output tokens of some units' answers, with and without reasoning, where both are known.

    Reasoning of which the provider did not say counts as none.
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
    """The final text of units' last completions that may be shown: columns unit, text.

    Of all units, or of those given. Answers in hard-line categories are never among them, kept on
    disk or not.
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
