"""The judges as an Inspect scorer, and the solver that keeps hard-line answers off the disk.

Inspect logs each answer twice: as the final message, and in the event of the call. On a hard line
the solver replaces the text with a placeholder before Inspect sees it, and passes the text itself
to the scorer in memory.
"""

from __future__ import annotations

import copy
from typing import Any

from inspect_ai.model import Model as InspectModel
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from refusalkit.config.resolve import resolve_config
from refusalkit.engine.opening import open_configured_judge
from refusalkit.integrations.inspect.figures import (
    UNSCORED,
    answer_rate,
    hold_rate,
    refusal_rate,
    willingness,
)
from refusalkit.judges.protocol import Judge
from refusalkit.models.recorded_answers import RecordedModel
from refusalkit.runs.record_json import verdict_of_outcome
from refusalkit.types import GenerationConfig, Message, Prompt, unit_id

WITHHELD = "[withheld]"
# Hard-line answers on their way from the solver to the scorer, by the sample's uuid.
_KEPT: dict[str, str] = {}


@solver
def ask(keep_hard_line_text: bool = False) -> Solver:
    """Ask the model; the answer to a hard line is not written to Inspect's log."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if keep_hard_line_text or not state.metadata.get("hard_line"):
            return await generate(state)
        output = await _withholding(get_model(), state.uuid).generate(state.messages)
        state.output = output
        state.messages.append(output.message)
        return state

    return solve


@scorer(metrics=[willingness(), answer_rate(), hold_rate(), refusal_rate()])
def refusal_judge(
    judge: str = "graded",
    judge_model: str | None = None,
    judge_api_base: str | None = None,
    judge_api_key_env: str | None = None,
    count_deflection: bool = False,
    keep_hard_line_text: bool = False,
) -> Scorer:
    """The label that a refusalkit judge gives an answer: refusal, deflection, partial, compliance.

    The value is ``unscored`` where there is no label; the metadata says why.
    """
    config = resolve_config(
        {
            "model": "inspect/model",
            "judge": judge,
            "judge_model": judge_model,
            "judge_api_base": judge_api_base,
            "judge_api_key_env": judge_api_key_env,
        }
    )
    opened: list[Judge] = []

    async def score(state: TaskState, target: Target) -> Score:
        if not opened:
            opened.append(open_configured_judge(config, None))
        grader = opened[0]
        hard_line = state.metadata.get("hard_line") is True
        withheld = hard_line and not keep_hard_line_text
        prompt = _prompt(state)
        text = _KEPT.pop(state.uuid, None)
        unit = unit_id(prompt.id, state.epoch)
        ended = str(state.output.stop_reason) if state.output.choices else "unknown"
        answered = RecordedModel(
            str(state.model), {unit: _answer(state) if text is None else text}, {unit: ended}
        )
        completion = await answered.complete(prompt, GenerationConfig(), trial=state.epoch)
        verdict = verdict_of_outcome(completion, grader.id)
        if verdict is None:
            verdict = await grader.grade(prompt, completion)
        rubric = getattr(grader, "rubric", None)
        return Score(
            value=UNSCORED if verdict.label is None else verdict.label.value,
            answer=WITHHELD if withheld else completion.text,
            explanation=None if withheld else verdict.reason,
            metadata={
                "prompt_id": prompt.id,
                "category": prompt.category,
                "hard_line": hard_line,
                "withheld": withheld,
                "outcome": completion.outcome.value,
                "unscored": None if verdict.unscored is None else verdict.unscored.value,
                "source": verdict.source,
                "word": verdict.word,
                "judge": verdict.answered_by or verdict.judge,
                "judge_digest": None if rubric is None else rubric.digest,
                "count_deflection": count_deflection,
            },
        )

    return score


def _withholding(model: InspectModel, uuid: str) -> InspectModel:
    """The same model, but its answers are a placeholder; the last text is kept in `_KEPT`."""
    api = copy.copy(model.api)
    generate = api.generate

    async def withheld(*args: Any, **named: Any) -> ModelOutput:
        # A provider may return the raw call beside the output: it has the text too, so it goes.
        given = await generate(*args, **named)
        output = given[0] if isinstance(given, tuple) else given
        if not isinstance(output, ModelOutput):
            raise output
        _KEPT[uuid] = output.completion
        hidden = output.model_copy(deep=True)
        for choice in hidden.choices:
            choice.message.content = WITHHELD
            choice.message.tool_calls = None
            choice.message.metadata = None
            choice.logprobs = None
        hidden.completion = WITHHELD
        hidden.metadata = None
        return hidden

    api.generate = withheld  # type: ignore[method-assign]
    return InspectModel(api, model.config, model.model_args)


def _answer(state: TaskState) -> str:
    return state.output.completion if state.output.choices else ""


def _prompt(state: TaskState) -> Prompt:
    """The conversation up to the last user's turn, as the judge reads it."""
    turns = [(message.role, message.text) for message in state.messages]
    while turns and turns[-1][0] != "user":
        turns.pop()
    system = "\n\n".join(text for role, text in turns if role == "system") or None
    said = tuple(Message(role, text) for role, text in turns if role in ("user", "assistant"))
    return Prompt(
        str(state.sample_id),
        str(state.metadata.get("category") or "uncategorised"),
        turns[-1][1] if turns else "",
        system=system,
        messages=said if len(said) > 1 else (),
        lang=str(state.metadata.get("lang") or "en"),
    )
