"""What a run on disk has settled and what it still owes.

A million units are read in columns. What is held afterwards is a few bits for each settled unit,
and the ids of those that owe something. A checkpoint has the same, so that only what was written
behind it need be read.
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

# A checkpoint is made whenever so many records have come since the last one.
EVERY = 50_000


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that one request of each kind has cost, in USD; None where none has a price."""

    completion: float | None = None
    verdict: float | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run folder holds, seen as one judge's work.

    `settled` units have a completion and a verdict that count. `to_judge` units have an answer on
    disk and owe the verdict (of a council: its own or a member's). `withheld` units owe one too,
    but their text was not kept: nothing is left to judge, so the model is asked again. `answers`
    says where the completion of each of these is, `verdict_places` where the verdicts of the judge
    and its members on them are. `orphans` names by unit those whose verdict is there while the
    answer that they read is not: a loss of power may leave one of two files shorter. `checkpoint`
    is what was found, to be gone on from; the last `n_unsaved` of
    its records are not in the one on disk.
    """

    settled: Settled
    to_judge: frozenset[str]
    withheld: frozenset[str]
    answers: Mapping[str, Place]
    verdict_places: tuple[Place, ...]
    orphans: Mapping[str, tuple[str, ...]]
    refusals: int
    unscored: int
    cost_usd: float | None
    dearest: Dearest
    checkpoint: Checkpoint
    n_unsaved: int = 0


@dataclass(frozen=True, slots=True)
class _Judging:
    """Whose work is looked at: all of a manifest that this hangs on.

    `members` are a council's; where it leaves the `hard_lines` to another judge, `twins` of theirs
    are its own. `is_own`: the judge is the run's own.
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
        """All whose verdicts are looked at."""
        return (self.judge, *self.members)

    @property
    def basis(self) -> str:
        """What a checkpoint must have been made from: all of this, by this release."""
        release = importlib.metadata.version("refusalkit")
        text = json.dumps([release, *astuple(self)])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_state(run: Run, judge: str | None = None, *, kept: Checkpoint | None = None) -> RunState:
    """What is settled and what is owed of one judge, the run's own if none is named.

    The cost is that of the judge's verdicts and, of the run's own, of all completions. The run must
    be held for writing: its tails are whole. For the run's own judge a checkpoint is gone on from
    (`kept`, where it was loaded beforehand), and made anew where much was read behind it.
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
    """Keeps the checkpoint of a run near to what is written, beside the work of a session."""

    def __init__(self, run: Run, writer: RecordWriter, state: RunState) -> None:
        self._run, self._writer, self._found = run, writer, state.checkpoint
        self._judging = _Judging.of(run.manifest, None)
        self._next = writer.n_records + EVERY - state.n_unsaved
        self._moving: asyncio.Task[None] | None = None

    def maybe_save(self) -> None:
        """Look whether it is far behind; if so, it is moved, in a thread."""
        if self._writer.n_records >= self._next and (self._moving is None or self._moving.done()):
            self._next = self._writer.n_records + EVERY
            self._moving = asyncio.create_task(asyncio.to_thread(self._move, self._writer.ends))

    def _move(self, ends: tuple[int, int]) -> None:
        # Whatever is the matter with it, the work goes on without.
        with contextlib.suppress(Exception):
            self._found = _read_on(self._run, self._judging, self._found, ends)
            save_checkpoint(self._run, self._found)

    async def close(self) -> None:
        """Wait until it lies still."""
        if self._moving is not None:
            await self._moving


def _read_on(
    run: Run,
    judging: _Judging,
    before: Checkpoint,
    ends: tuple[int | None, int | None] = (None, None),
) -> Checkpoint:
    """What the records come to up to `ends`, given what they came to `before`."""
    # Only a run with a past needs polars before its first request can go out.
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
            # What each record of a settled unit came to is known from the files alone.
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
        # A vote that came to nothing is cast again, though the others decided without it.
        owes = owes | (theirs & ((kept & incomplete) | may_settle))
    return rows.with_columns(owes=owes)


def _of_judges(judged: pl.DataFrame, judging: _Judging) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The last verdict of the judge on each unit, and those of its members together."""
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
    """The most that the completions and verdicts of some units cost."""
    most = (
        asked["cost_usd"].max(),
        own["verdict_usd"].max(),
        votes["votes_usd"].max(),
    )
    return Highest(*(float(cost) if isinstance(cost, int | float) else None for cost in most))


def _state(run: Run, judging: _Judging, found: Checkpoint, n_unsaved: int) -> RunState:
    """What was found, in the words of a session's work."""
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
        # A council's own verdict costs nothing: those of its members do, together.
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
    """By unit, the judges whose last verdict is on an answer that is not there."""
    import polars as pl

    gone = pl.col("unscored").eq_missing(pl.lit(Unscored.ERROR.value))
    found: dict[str, tuple[str, ...]] = {}
    for unit, judge in (
        judged.filter(~gone).join(asked, "unit", "anti").select("unit", "judge").iter_rows()
    ):
        found[unit] = (*found.get(unit, ()), judge)
    return found
