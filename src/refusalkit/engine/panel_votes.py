"""The votes of a panel, a judge that asks others: reads earlier votes, records new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from refusalkit.judges.council import Panel, total_cost
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import verdict_from_record
from refusalkit.runs.records import RecordWriter, read_records
from refusalkit.runs.state import RunState
from refusalkit.types import Completion, Prompt, Unscored, Verdict

EarlierVotes = Mapping[str, Mapping[str, Verdict]]
"""The last verdict of each judge, by unit and judge id."""


def read_earlier_votes(
    run: Run, judge: str, units: frozenset[str], state: RunState
) -> EarlierVotes:
    """Earlier votes of a panel's members on these units."""
    entry = run.manifest.judges[judge].hard_line_judge
    # The manifest does not name the members of a hard-line council built in Python.
    unnamed = entry is not None and entry.of_kind.is_object
    found: dict[str, dict[str, Verdict]] = {}
    for place, record in read_records(run.verdicts, None if unnamed else state.verdict_places):
        if record.get("unit") in units:
            verdict = verdict_from_record(record, place)
            found.setdefault(verdict.unit, {})[verdict.judge] = verdict
    return found


@dataclass(slots=True)
class PanelVotes:
    """Has a panel judge one answer, and records each member's verdict as it arrives.

    `on_vote` is called with each new verdict; `cast` collects them.
    """

    panel: Panel
    writer: RecordWriter
    on_vote: Callable[[Verdict], None]
    cast: list[Verdict] = field(default_factory=list)

    async def verdict(
        self,
        prompt: Prompt,
        completion: Completion,
        earlier: Mapping[str, Verdict],
        settled: Verdict | None,
    ) -> Verdict:
        """The panel's verdict. `settled`: every member's verdict, if none has to be asked."""
        known = dict(earlier)
        voters = self.panel.voters(prompt)
        if settled is not None:
            for voter in voters:
                before = known.get(voter)
                if before is None or before.unscored is Unscored.JUDGE_ERROR:
                    known[voter] = replace(settled, judge=voter)
                    self.writer.verdict(known[voter])
            if settled.source == "provider" or not voters:
                return settled
        return await self.panel.deliberate(prompt, completion, known, self._keep)

    def cost_usd(self, verdict: Verdict) -> float | None:
        """Cost in USD of the verdict and of the votes cast for it; None if unknown."""
        return total_cost([verdict, *self.cast])

    @property
    def last_error(self) -> str | None:
        """The error of the last member that failed; None if none failed."""
        errors = [vote.reason for vote in self.cast if vote.unscored is Unscored.JUDGE_ERROR]
        return (errors[-1] or "error") if errors else None

    def _keep(self, vote: Verdict) -> None:
        self.writer.verdict(vote)
        self.cast.append(vote)
        self.on_vote(vote)
