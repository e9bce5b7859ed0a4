"""How the members of a council agree with one another."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from refusalkit.runs.frames import RunRecords
from refusalkit.scoring.agreement.judge_pairs import JudgePair, judge_agreements
from refusalkit.types import Label, Unscored


@dataclass(frozen=True)
class CouncilVotes:
    """The votes of a run's council.

    `labelled` counts the answers that each member labelled, by its id. `n_answers` counts those
    that at least two labelled, `n_unanimous` those of them on which all that labelled it agree.
    `pairs` compares the members pairwise. `n_owed` counts units whose decision waits for a vote
    that failed. Units whose outcome alone decided are in none of these.
    """

    rule: str
    members: tuple[str, ...]
    labelled: dict[str, int]
    n_answers: int
    n_unanimous: int
    n_owed: int
    pairs: tuple[JudgePair, ...]

    @property
    def unanimous_percent(self) -> float | None:
        """Share of the answers on which all members agreed; None where there are none."""
        return 100 * self.n_unanimous / self.n_answers if self.n_answers else None


def council_votes(records: RunRecords, judge: str) -> CouncilVotes:
    """The votes behind the verdicts of `judge`, a council."""
    entry = records.run.manifest.judges[judge]
    votes = records.votes(entry.members)
    failed = votes.filter(~pl.col("stands")).select("unit").unique()
    undecided = records.responses(judge).filter(pl.col("unscored") == Unscored.MISSING_VOTE.value)
    cast = votes.filter((pl.col("source") == "judge") & pl.col("label").is_not_null())
    each = cast.group_by("unit").agg(pl.len(), different=pl.col("label").n_unique())
    shared = each.filter(pl.col("len") > 1)
    said: dict[str, dict[str, Label]] = {member: {} for member in entry.members}
    for unit, member, label in cast.select("unit", "judge", "label").iter_rows():
        said[member][unit] = Label(label)
    found = judge_agreements(said)
    return CouncilVotes(
        rule=str(entry.rule),
        members=entry.members,
        labelled=found.labelled,
        n_answers=len(shared),
        n_unanimous=len(shared.filter(pl.col("different") == 1)),
        n_owed=len(undecided.join(failed, on="unit", how="semi")),
        pairs=found.pairs,
    )
