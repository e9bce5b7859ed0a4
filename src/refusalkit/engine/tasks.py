"""A run's open work, as one task for each unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from refusalkit.engine.panel_votes import EarlierVotes, read_earlier_votes
from refusalkit.engine.plan import Plan
from refusalkit.judges.council import Panel
from refusalkit.judges.protocol import Judge
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import completion_from_record
from refusalkit.runs.records import read_records
from refusalkit.runs.state import RunState
from refusalkit.types import Completion, Prompt, Verdict, unit_id, unit_parts


@dataclass(slots=True)
class Task:
    """One unit of work; if there is a `completion`, only the verdict is missing.

    `earlier_verdicts` has each judge's last verdict on this answer, by judge id. `withheld`: the
    answer's text was not kept.
    """

    prompt: Prompt
    trial: int
    completion: Completion | None = None
    earlier_verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    withheld: bool = False


def owed_tasks(
    run: Run,
    plan: Plan,
    state: RunState,
    judge: Judge,
    *,
    asks: bool,
    judges: bool,
    texts: Mapping[str, str],
) -> Iterator[Task]:
    """Answers without a verdict first, then one whole trial after another.

    Args:
        run: the run to work on.
        plan: its prompts by trial.
        state: what is on disk.
        judge: the judge that gives the verdicts.
        asks: whether missing answers are requested; if not, withheld ones get a verdict as well.
        judges: whether answers on disk are judged.
        texts: answers, by unit, that the run withheld and the caller knows from elsewhere.
    """
    again = state.to_judge if asks else state.to_judge | state.withheld
    if again and judges:
        yield from _to_judge(run, plan, state, judge, again, texts)
    if not asks:
        return
    for prompt, trial in state.settled.leave(plan()):
        if unit_id(prompt.id, trial) not in state.to_judge:
            yield Task(prompt, trial)


def _to_judge(
    run: Run,
    plan: Plan,
    state: RunState,
    judge: Judge,
    units: frozenset[str],
    texts: Mapping[str, str],
) -> Iterator[Task]:
    earlier: EarlierVotes = {}
    if isinstance(judge, Panel):
        earlier = read_earlier_votes(run, judge.id, units, state)
    trials = {unit_parts(unit)[1] for unit in units}
    left = len(units)
    for trial, prompts in plan():
        if not left:
            return
        for prompt in prompts if trial in trials else ():
            unit = unit_id(prompt.id, trial)
            if unit in units:
                left -= 1
                gone = unit in state.withheld and unit not in texts
                answer = _answer(run, unit, state, texts)
                yield Task(prompt, trial, answer, earlier.get(unit, {}), gone)


def _answer(run: Run, unit: str, state: RunState, texts: Mapping[str, str]) -> Completion:
    """An answer on disk, read when it is needed, as all of them may not fit in memory."""
    ((place, record),) = read_records(run.completions, [state.answers[unit]])
    text = texts[unit] if unit in texts else record["text"]
    return completion_from_record({**record, "text": "" if text is None else text}, place)
