"""Which units of a run on disk are settled, and which still need an answer or a verdict.

The records are read in columns, for runs of a million units. Kept in memory are a few bits for each
settled unit, and the ids of the others. A checkpoint holds the same, so that only the records after
it need be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from refusalkit.runs.checkpoint import Checkpoint, Highest, Tables, load_checkpoint, save_checkpoint
from refusalkit.runs.extents import Cursor
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.pressure import spent_on_pressure
from refusalkit.runs.records import Place, RecordWriter
from refusalkit.runs.settled import UNIT, Settled, have_in_common, settled_bits
from refusalkit.types import JUDGEABLE, Label, Outcome, Unscored

if TYPE_CHECKING:
    import polars as pl

# A checkpoint is made after this many records since the last one.
EVERY = 50_000


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that one request of each kind has cost, in USD; None where none has a price."""

    completion: float | None = None
    verdict: float | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run folder, from the point of view of one judge."""

    settled: Settled
    """Units with a completion and a verdict that count."""
    to_judge: frozenset[str]
    """Units with an answer on disk that need a verdict, of the judge or of a council's member."""
    withheld: frozenset[str]
    """Units that need a verdict and whose text was not kept, so that the model is asked again."""
    answers: Mapping[str, Place]
    """Where the completion of each unit to judge, or withheld, is in its file."""
    verdict_places: tuple[Place, ...]
    """Where the verdicts on these units are, of the judge and of its members."""
    orphans: Mapping[str, tuple[str, ...]]
    """Judges with a verdict on an answer that is lost, by unit: a power loss may leave one of the
    two files shorter."""
    refusals: int
    """Settled units that are refusals."""
    unscored: int
    """Settled units without a label."""
    cost_usd: float | None
    """What all requests have cost in USD; None if a price is unknown."""
    dearest: Dearest
    """The most that one request of each kind has cost."""
    checkpoint: Checkpoint
    """A summary of the records, from which the next reading continues."""
    n_unsaved: int = 0
    """How many of its last records the checkpoint on disk does not cover."""


@dataclass(frozen=True, slots=True)
class _Judging:
    """The judge whose work is looked at, with the facts of the manifest that matter for it.

    `members` are a council's. If the council leaves the `hard_lines` to another judge, it still
    judges their contrast prompts, `twins`. `is_own`: the judge is the run's own.
    """

    judge: str
    is_own: bool
    members: tuple[str, ...]
    hard_lines: tuple[str, ...]
    twins: tuple[str, ...]
    run_id: str

    @classmethod
    def of(cls, manifest: Manifest, judge: str | None) -> _Judging:
        name = judge or manifest.judge
        entry = manifest.judges[name]
        apart = bool(entry.members) and entry.hard_line_judge is not None
        return cls(
            name,
            judge is None,
            entry.members,
            tuple(sorted(manifest.hard_lines)) if apart else (),
            tuple(sorted(manifest.prompt_set.twins)) if apart else (),
            manifest.id,
        )

    @property
    def votes(self) -> tuple[str, ...]:
        """Ids of all judges whose verdicts are read."""
        return (self.judge, *self.members)

    @property
    def basis(self) -> str:
        """A digest of all this and of the release; a checkpoint with another one is not used."""
        release = importlib.metadata.version("refusalkit")
        text = json.dumps([release, *astuple(self)])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_state(run: Run, judge: str | None = None, *, kept: Checkpoint | None = None) -> RunState:
    """The state of a run for one judge, by default the run's own.

    The cost is that of the judge's verdicts and, for the run's own judge, of all completions. The
    run must be held for writing, so that its files have no torn last lines. For the run's own judge
    reading continues from a checkpoint (`kept`, if it was loaded beforehand), and a new checkpoint
    is saved if many records came after it.
    """
    judging = _Judging.of(run.manifest, judge)
    before = Checkpoint(judging.basis)
    files = (run.completions, run.verdicts, run.canaries)
    if not any(path.exists() and path.stat().st_size for path in files):
        none: frozenset[str] = frozenset()
        return RunState(Settled(), none, none, {}, (), {}, 0, 0, 0.0, Dearest(), before)
    if judging.is_own:
        kept = kept if kept is not None and kept.fits(run) else load_checkpoint(run)
        before = kept if kept is not None and kept.basis == before.basis else before
    found = _read_on(run, judging, before)
    n_unsaved = found.n_records - before.n_records
    if judging.is_own and n_unsaved >= EVERY:
        save_checkpoint(run, found)
        n_unsaved = 0
    return _state(run, judging, found, n_unsaved)


class CheckpointWriter:
    """Keeps the checkpoint of a run up to date while a session works."""

    def __init__(self, run: Run, writer: RecordWriter, state: RunState) -> None:
        self._run, self._writer, self._found = run, writer, state.checkpoint
        self._judging = _Judging.of(run.manifest, None)
        self._next = writer.n_records + EVERY - state.n_unsaved
        self._moving: asyncio.Task[None] | None = None

    def maybe_save(self) -> None:
        """Save a new checkpoint, in a thread, if the last one is far behind."""
        if self._writer.n_records >= self._next and (self._moving is None or self._moving.done()):
            self._next = self._writer.n_records + EVERY
            self._moving = asyncio.create_task(asyncio.to_thread(self._move, self._writer.ends))

    def _move(self, ends: tuple[int, int]) -> None:
        # The work goes on without a checkpoint, whatever is wrong with it.
        with contextlib.suppress(Exception):
            self._found = _read_on(self._run, self._judging, self._found, ends)
            save_checkpoint(self._run, self._found)

    async def close(self) -> None:
        """Wait until a save in progress has ended."""
        if self._moving is not None:
            await self._moving


def _read_on(
    run: Run,
    judging: _Judging,
    before: Checkpoint,
    ends: tuple[int | None, int | None] = (None, None),
) -> Checkpoint:
    """The checkpoint of the records up to `ends`, continued from the one `before`."""
    # Imported here: a new run can send its first request without waiting for polars.
    import polars as pl

    from refusalkit.runs import frames
    from refusalkit.runs.costs import exact_sum, paid, priced

    answers, said = Cursor(before.completions, ends[0]), Cursor(before.verdicts, ends[1])
    extra = ["category", "prompt_id"] if judging.hard_lines else []
    asked = frames.attempts(run, extra, answers)
    judged = frames.judgements(run, judging.votes, said)
    costs = [paid(judged), *([priced(asked)] if judging.is_own else [])]
    if (tables := before.tables) is not None:
        behind = settled_bits(pl.concat([asked["unit"], judged["unit"]]))
        if have_in_common(tables.settled, behind):
            # A settled unit has new records. What its old ones were is only in the files.
            return _read_on(run, judging, Checkpoint(before.basis), ends)
        asked = pl.concat([tables.asked, asked])
        judged = pl.concat([tables.judged, judged])
    asked = asked.unique("unit", keep="last").filter(pl.col("unit").str.contains(UNIT))
    judged = judged.unique(["unit", "judge"], keep="last")
    came_back = _with_verdicts(asked, judged, judging)
    settled = came_back.filter(~pl.col("owes"))
    done = settled.select("unit")
    spent = None
    if before.spent_usd is not None and not any(part.null_count() for part in costs):
        spent = exact_sum(itertools.chain(before.spent_usd, *(part.to_list() for part in costs)))
    return Checkpoint(
        basis=before.basis,
        completions=answers.extent,
        verdicts=said.extent,
        refusals=before.refusals + len(settled.filter(pl.col("label") == Label.REFUSAL.value)),
        unscored=before.unscored + settled["label"].null_count(),
        highest=before.highest.or_more(_highest(settled, settled, settled)),
        spent_usd=spent,
        tables=Tables(
            settled=settled_bits(settled["unit"], None if tables is None else tables.settled),
            asked=came_back.filter("owes").select(asked.columns).sort("line"),
            judged=judged.join(done, "unit", "anti").sort("line"),
        ),
    )


def _with_verdicts(asked: pl.DataFrame, judged: pl.DataFrame, judging: _Judging) -> pl.DataFrame:
    """The completions that are not errors, each with its verdict.

    Further columns: label, unscored, owes (whether a verdict is owed), verdict_usd and votes_usd.
    """
    import polars as pl

    from refusalkit.runs.unit_rows import standing

    asked = asked.filter(pl.col("outcome") != Outcome.ERROR.value)
    own, votes = _of_judges(judged, judging)
    rows = asked.join(own, on="unit", how="left").with_columns(*standing())
    owes = pl.col("unscored").is_in([Unscored.OWED.value, Unscored.JUDGE_ERROR.value])
    owes = owes.fill_null(value=False)
    rows = rows.join(votes, on="unit", how="left")
    if judging.members:
        theirs = pl.lit(value=True)
        if judging.hard_lines:
            hard_line = pl.col("category").is_in(judging.hard_lines)
            theirs = ~hard_line | pl.col("prompt_id").is_in(judging.twins)
        kept = ~_needs_judge() | pl.col("has_text")
        incomplete = pl.col("stand").fill_null(0) < len(judging.members)
        undecided = pl.col("unscored").eq_missing(pl.lit(Unscored.MISSING_VOTE.value))
        may_settle = undecided & (pl.col("failed_votes").fill_null(0) > 0)
        # A failed vote is cast again, even if the others decided without it.
        owes = owes | (theirs & ((kept & incomplete) | may_settle))
    return rows.with_columns(owes=owes)


def _of_judges(judged: pl.DataFrame, judging: _Judging) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The judge's last verdict on each unit, and totals over its members' verdicts."""
    import polars as pl

    from refusalkit.runs import frames

    own = judged.filter(pl.col("judge") == judging.judge).select(
        "unit",
        "label",
        "unscored",
        verdict_usd=pl.when(pl.col("source") == "judge").then("cost_usd"),
    )
    votes = (
        judged.filter(pl.col("judge").is_in(judging.members))
        .sort("judge")
        .group_by("unit", maintain_order=True)
        .agg(
            stand=frames.stands().sum(),
            failed_votes=(~frames.stands()).sum(),
            votes_usd=pl.sum("cost_usd"),
        )
    )
    return own, votes


def _needs_judge() -> pl.Expr:
    import polars as pl

    return pl.col("outcome").is_in([str(outcome) for outcome in JUDGEABLE])


def _highest(asked: pl.DataFrame, own: pl.DataFrame, votes: pl.DataFrame) -> Highest:
    """The highest costs among the completions and verdicts of these units."""
    most = (
        asked["cost_usd"].max(),
        own["verdict_usd"].max(),
        votes["votes_usd"].max(),
    )
    return Highest(*(float(cost) if isinstance(cost, int | float) else None for cost in most))


def _state(run: Run, judging: _Judging, found: Checkpoint, n_unsaved: int) -> RunState:
    """The run's state, from the checkpoint."""
    import polars as pl

    from refusalkit.runs.costs import spent_on_canaries

    assert found.tables is not None, "nothing was read"
    asked, judged = found.tables.asked, found.tables.judged
    gone = _needs_judge() & ~pl.col("has_text")
    verdict_places = judged.join(asked, "unit", "semi")
    places = asked.select("unit", "line", "at").iter_rows()
    most = found.highest.or_more(_highest(asked, *_of_judges(judged, judging)))
    canaries = spent_on_canaries(run, judging.votes)
    pressed = spent_on_pressure(run, judging.votes)
    spent = None
    if found.spent_usd is not None and canaries is not None and pressed is not None:
        spent = math.fsum((*found.spent_usd, canaries, pressed))
    dearest_verdict = most.verdict
    if judging.members:
        # A council's own verdict is free; its cost is that of its members' verdicts together.
        dearest_verdict = max(filter(None, (most.verdict, most.votes)), default=most.votes)
    return RunState(
        settled=Settled(found.tables.settled),
        to_judge=frozenset(asked.filter(~gone)["unit"]),
        withheld=frozenset(asked.filter(gone)["unit"]),
        answers={unit: (line, at) for unit, line, at in places},
        verdict_places=tuple(verdict_places.select("line", "at").sort("line").iter_rows()),
        orphans=_orphans(judged, asked),
        refusals=found.refusals,
        unscored=found.unscored,
        cost_usd=spent,
        dearest=Dearest(most.completion if judging.is_own else 0.0, dearest_verdict),
        checkpoint=found,
        n_unsaved=n_unsaved,
    )


def _orphans(judged: pl.DataFrame, asked: pl.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """By unit, the judges whose last verdict is on an answer that is lost."""
    import polars as pl

    gone = pl.col("unscored").eq_missing(pl.lit(Unscored.ERROR.value))
    found: dict[str, tuple[str, ...]] = {}
    for unit, judge in (
        judged.filter(~gone).join(asked, "unit", "anti").select("unit", "judge").iter_rows()
    ):
        found[unit] = (*found.get(unit, ()), judge)
    return found
