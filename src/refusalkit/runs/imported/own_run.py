"""The answers of a refusalkit run, to be judged again, and its judges' labels for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refusalkit.errors import RecordError
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.imported.answers import (
    RecordedAnswers,
    answers_digest,
)
from refusalkit.runs.record_json import check_fields
from refusalkit.runs.records import read_records
from refusalkit.types import JUDGEABLE, Judgement, Label, Outcome, Prompt, unit_id
from refusalkit.untrusted import printable

_OUTCOMES = frozenset(Outcome)
_FIELDS = {"unit": str, "prompt_id": str, "trial": int, "outcome": str}


def answers_of_run(run: Run, prompts: PromptSet) -> RecordedAnswers:
    """The answers of `run` whose text was kept; `prompts` are the run's prompts.

    `left_out` counts the others: ``withheld`` texts, and outcomes that leave nothing to judge.
    Raises `RecordError` if no text was kept, or a record lacks a field.
    """
    last: dict[str, Mapping[str, Any]] = {}
    for place, record in read_records(run.completions):
        check_fields(record, _FIELDS, place)
        if record["outcome"] not in _OUTCOMES:
            raise RecordError(f"{place}: outcome cannot be {printable(record['outcome'], 60)}")
        if record["unit"] != unit_id(record["prompt_id"], record["trial"]):
            raise RecordError(f"{place}: unit is not that of its prompt_id and trial")
        last[record["unit"]] = record
    by_id = {prompt.id: prompt for prompt in prompts.prompts}
    units: list[tuple[Prompt, int]] = []
    responses: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    # Hard-line units that cannot be judged any more, which an audit must not count as held.
    open_lines = _planned_hard_lines(run)
    for unit, record in last.items():
        prompt, text, trial = by_id.get(record["prompt_id"]), record.get("text"), record["trial"]
        settled = record["outcome"] == Outcome.BLOCKED and not record.get("text_chars")
        settled |= record["outcome"] in JUDGEABLE and isinstance(text, str)
        if settled and prompt is not None and prompt.twin is None and prompt.category in open_lines:
            open_lines[prompt.category] -= 1
        if record["outcome"] not in JUDGEABLE:
            left_out[record["outcome"]] += 1
        elif not isinstance(text, str):
            left_out["withheld"] += 1
        elif prompt is None:
            left_out["of no prompt"] += 1
        else:
            units.append((prompt, trial))
            responses[unit] = text
    if not units:
        left = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items())) or "none"
        raise RecordError(
            f"{printable(run.path)} kept no answer that can be judged again ({left}): run it with "
            "--keep-hard-line-text to keep the text of hard lines"
        )
    asked = {prompt.id for prompt, _ in units}
    filled = {prompt.category for prompt, _ in units}
    graded = replace(
        prompts,
        categories=tuple(c for c in prompts.categories if c.slug in filled),
        prompts=tuple(prompt for prompt in prompts.prompts if prompt.id in asked),
        source=str(run.path.resolve()),
        selection={
            **prompts.selection,
            "answers": answers_digest(responses),
            **({"open_hard_lines": dict(+open_lines)} if +open_lines else {}),
        },
    )
    judgements = {
        judge: {unit: Judgement(label) for unit, label in said.items() if unit in responses}
        for judge, said in labels_by_judge(run).items()
    }
    return RecordedAnswers(graded, tuple(units), responses, {}, judgements, left_out=dict(left_out))


def _planned_hard_lines(run: Run) -> Counter[str]:
    """Planned units of each hard line, including framed ones; empty for recorded answers."""
    planned: Counter[str] = Counter()
    if run.manifest.kind == "run":
        entries = run.manifest.prompt_set.categories
        planned.update({entry.slug: entry.n_units for entry in entries if entry.hard_line})
        for framed in run.manifest.prompt_set.framed.values():
            if framed.category in planned:
                planned[framed.category] += framed.n_units
    return planned


def labels_by_judge(run: Run) -> dict[str, dict[str, Label]]:
    """The labels of each judge of a run, by judge and unit. The last verdict counts.

    Units that a provider's filter blocked are left out: no judge read them.
    """
    said: dict[str, dict[str, Label]] = {}
    for place, record in read_records(run.verdicts):
        judge, unit = record.get("judge"), record.get("unit")
        if not isinstance(judge, str) or not isinstance(unit, str):
            raise RecordError(f"{place}: judge or unit is missing")
        of_judge = said.setdefault(judge, {})
        of_judge.pop(unit, None)
        if record.get("source") == "judge" and record.get("label") is not None:
            try:
                of_judge[unit] = Label(record["label"])
            except ValueError as error:
                what = f"label cannot be {printable(record['label'], 60)}"
                raise RecordError(f"{place}: {what}") from error
    return said
