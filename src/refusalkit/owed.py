"""What a run on disk has settled and what it still owes.

A million units are read in columns. What is held afterwards is a few bits for each settled unit,
and the ids of those that owe something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refusalkit.store import Run
from refusalkit.types import JUDGEABLE, Label, Outcome, Prompt, Unscored, unit_id

if TYPE_CHECKING:
    import polars as pl

# Trials whose bits share one whole number of 64 bits.
_TRIALS = 63


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that one request of each kind has cost, in USD; None where none has a price."""

    completion: float | None = None
    verdict: float | None = None

    @property
    def unit(self) -> float | None:
        """The most that a unit may be expected to cost; None before both kinds are known."""
        if self.completion is None or self.verdict is None:
            return None
        return self.completion + self.verdict


class Settled(Set[str]):
    """The ids of settled units, held as a bit for each trial of a prompt.

    A set of a million ids as text takes 100 MB and as long to make as the files take to read.
    """

    def __init__(self, units: pl.Series | None = None) -> None:
        self._bits: dict[int, dict[str, int]] = {}
        self._n = 0
        if units is None:
            return
        import polars as pl

        self._n = len(units)
        trial = pl.col("trial").cast(pl.Int64)
        parts = (
            # The trial stands behind the last `#`; an id of recorded answers may hold others.
            units.str.extract_groups(r"(?s)^(?<prompt>.*)#(?<trial>\d+)$")
            .struct.unnest()
            .with_columns(block=trial // _TRIALS, bit=pl.lit(2, pl.UInt64).pow(trial % _TRIALS))
            .group_by("block", "prompt")
            .agg(pl.col("bit").bitwise_or())
        )
        for (block,), part in parts.partition_by("block", as_dict=True).items():
            self._bits[int(block)] = dict(zip(part["prompt"], part["bit"], strict=True))

    def leave(self, plan: Iterable[tuple[Prompt, int]]) -> Iterator[tuple[Prompt, int]]:
        """What of a plan is not settled, in its order."""
        current, mask, bits = -1, 0, self._bits.get(0, {})
        for prompt, trial in plan:
            if trial != current:
                current, mask = trial, 1 << trial % _TRIALS
                bits = self._bits.get(trial // _TRIALS, {})
            if not bits.get(prompt.id, 0) & mask:
                yield prompt, trial

    def __contains__(self, unit: object) -> bool:
        prompt_id, _, trial = str(unit).rpartition("#")
        bits = self._bits.get(int(trial) // _TRIALS, {}) if trial.isdecimal() else {}
        return bool(bits) and bits.get(prompt_id, 0) >> int(trial) % _TRIALS & 1 == 1

    def __iter__(self) -> Iterator[str]:
        for block, prompts in self._bits.items():
            for prompt_id, bits in prompts.items():
                for place in range(bits.bit_length()):
                    if bits >> place & 1:
                        yield unit_id(prompt_id, block * _TRIALS + place)

    def __len__(self) -> int:
        return self._n


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run folder holds, seen as one judge's work.

    `settled` units have a completion and a verdict that stand. `to_judge` units have an answer on
    disk and owe the verdict (of a council: its own or a member's). `withheld` units owe one too,
    but their text was not kept: nothing is left to judge, so the model is asked again.
    `answer_lines` are the lines of the completions of these two.
    """

    settled: Settled
    to_judge: frozenset[str]
    withheld: frozenset[str]
    answer_lines: frozenset[int]
    refusals: int
    unscored: int
    cost_usd: float | None
    dearest: Dearest


def read_state(run: Run, judge: str | None = None) -> RunState:
    """What is settled and what is owed of one judge, the run's own if none is named.

    The cost is that of the judge's verdicts and, of the run's own, of all completions. The run must
    be held for writing: its tails are whole.
    """
    files = (run.completions, run.verdicts, run.canaries)
    if not any(path.exists() and path.stat().st_size for path in files):
        none: frozenset[str] = frozenset()
        return RunState(Settled(), none, none, frozenset(), 0, 0, 0.0, Dearest())
    # Only a run with a past needs polars before its first request can go out.
    import polars as pl

    from refusalkit import frames

    name = judge or run.manifest.judge
    entry = run.manifest.judges[name]
    members = entry.members
    apart = bool(members) and entry.hard_line_judge is not None
    asked = frames.attempts(run, ["category", "prompt_id"] if apart else [])
    judged = frames.judgements(run, {name, *members})
    own = judged.filter(pl.col("judge") == name).drop("judge")
    rows = (
        asked.unique("unit", keep="last")
        .join(
            own.rename({"cost_usd": "judge_cost_usd"}).unique("unit", keep="last"),
            on="unit",
            how="left",
        )
        .with_columns(*frames.standing())
    )
    needs_judge = pl.col("outcome").is_in([str(outcome) for outcome in JUDGEABLE])
    owes_verdict = pl.col("unscored").is_in([Unscored.OWED.value, Unscored.JUDGE_ERROR.value])
    owes_verdict = owes_verdict.fill_null(value=False)
    dearest_verdict = _highest(rows.filter(pl.col("source") == "judge")["judge_cost_usd"].max())
    if members:
        votes = frames.last_votes(judged.filter(pl.col("judge").is_in(list(members))))
        each = votes.group_by("unit").agg(
            pl.col("stands").sum(),
            failed_votes=(~pl.col("stands")).sum(),
            votes_usd=pl.sum("cost_usd"),
        )
        rows = rows.join(each, on="unit", how="left")
        together = _highest(each["votes_usd"].max())
        dearest_verdict = max(filter(None, (dearest_verdict, together)), default=together)
        theirs = pl.lit(value=True)
        if apart:
            twins = list(run.manifest.prompt_set.twins)
            hard_line = pl.col("category").is_in(sorted(run.manifest.hard_lines))
            theirs = ~hard_line | pl.col("prompt_id").is_in(twins)
        kept = ~needs_judge | pl.col("has_text")
        incomplete = pl.col("stands").fill_null(0) < len(members)
        undecided = pl.col("unscored").eq_missing(pl.lit(Unscored.MISSING_VOTE.value))
        may_settle = undecided & (pl.col("failed_votes").fill_null(0) > 0)
        # A vote that came to nothing is cast again, though the others decided without it.
        owes_verdict = owes_verdict | (theirs & ((kept & incomplete) | may_settle))
    failed = pl.col("outcome") == Outcome.ERROR.value
    settled = rows.filter(~failed & ~owes_verdict)
    owing = rows.filter(~failed & owes_verdict)
    return RunState(
        settled=Settled(settled["unit"]),
        to_judge=frozenset(owing.filter(~needs_judge | pl.col("has_text"))["unit"]),
        withheld=frozenset(owing.filter(needs_judge & ~pl.col("has_text"))["unit"]),
        answer_lines=frozenset(owing["line"]),
        refusals=len(settled.filter(pl.col("label") == Label.REFUSAL.value)),
        unscored=len(settled.filter(pl.col("label").is_null())),
        cost_usd=frames.spent_on(None if judge else asked, judged, run, {name, *members}),
        dearest=Dearest(
            0.0 if judge else _highest(rows.filter(needs_judge)["cost_usd"].max()),
            dearest_verdict,
        ),
    )


def _highest(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
