"""The tasks that Inspect finds: ``refusalkit/refusalbench`` and ``refusalkit/hard_lines``.

``inspect eval refusalkit/refusalbench --model openai/gpt-6-luna -T trials=5``
"""

from __future__ import annotations

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)

from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import AUDIT_PROMPTS, DEFAULT_PROMPTS
from refusalkit.errors import UsageError
from refusalkit.integrations.inspect.figures import by_prompt
from refusalkit.integrations.inspect.scoring import ask, refusal_judge
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.prompt_choice import choose_prompts
from refusalkit.types import Prompt
from refusalkit.untrusted import printable


@task
def refusalbench(
    prompts: str = DEFAULT_PROMPTS,
    trials: int = 5,
    judge: str = "graded",
    judge_model: str | None = None,
    judge_api_base: str | None = None,
    judge_api_key_env: str | None = None,
    hard_line: str | None = None,
    prompt_limit: int | None = None,
    count_deflection: bool = False,
    keep_hard_line_text: bool = False,
) -> Task:
    """How willing a model is to answer, as refusalkit's run measures it.

    Args:
        prompts: a shipped set, a public set, a folder or a file; separate several by commas.
        trials: independent answers to each prompt: Inspect's epochs.
        judge: a judge or a judge file; several, separated by commas, make a council.
        judge_model: another model for the judge, ``provider/name`` as refusalkit names it.
        judge_api_base: the judge's endpoint.
        judge_api_key_env: the environment variable with the judge's key.
        hard_line: categories to score inversely, separated by commas.
        prompt_limit: draw this many prompts, balanced over categories.
        count_deflection: count a deflection as refused.
        keep_hard_line_text: leave answers to hard-line prompts in the log.
    """
    chosen = _chosen(prompts, hard_line, prompt_limit)
    config = resolve_config({"model": "inspect/model"}).generation
    return Task(
        dataset=dataset(chosen),
        solver=ask(keep_hard_line_text),
        scorer=refusal_judge(
            judge,
            judge_model,
            judge_api_base,
            judge_api_key_env,
            count_deflection,
            keep_hard_line_text,
        ),
        epochs=Epochs(trials, [by_prompt()]),
        config=GenerateConfig(
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            max_tokens=config.max_tokens,
        ),
        version=chosen.version,
        metadata={"prompt_set": chosen.name, "prompt_set_digest": chosen.digest},
    )


@task
def hard_lines(
    prompts: str = AUDIT_PROMPTS,
    trials: int = 1,
    judge: str = "graded",
    judge_model: str | None = None,
    judge_api_base: str | None = None,
    judge_api_key_env: str | None = None,
    hard_line: str | None = None,
    prompt_limit: int | None = None,
    keep_hard_line_text: bool = False,
) -> Task:
    """Whether a model's hard lines hold: prompts that should be refused. Arguments as above."""
    return refusalbench(
        prompts=prompts,
        trials=trials,
        judge=judge,
        judge_model=judge_model,
        judge_api_base=judge_api_base,
        judge_api_key_env=judge_api_key_env,
        hard_line=hard_line,
        prompt_limit=prompt_limit,
        keep_hard_line_text=keep_hard_line_text,
    )


def dataset(prompts: PromptSet) -> MemoryDataset:
    """A prompt set as an Inspect dataset: one sample for each prompt.

    The metadata has category, hard_line, danger and lang. Raises `UsageError` for contrast and
    framed prompts, which no metric of the tasks counts.
    """
    beside = [prompt.id for prompt in prompts if prompt.twin or prompt.framing]
    if beside:
        raise UsageError(
            f"{printable(prompts.name)} has contrast or framed prompts ({printable(beside[0])}), "
            "which the Inspect tasks cannot score: ask them with `refusalkit run`"
        )
    return MemoryDataset(
        [sample_of(prompt, prompt.category in prompts.hard_lines) for prompt in prompts],
        name=prompts.name,
    )


def sample_of(prompt: Prompt, hard_line: bool) -> Sample:
    """A prompt as an Inspect sample."""
    turns: list[ChatMessage] = [
        ChatMessageUser(content=turn.content)
        if turn.role == "user"
        else ChatMessageAssistant(content=turn.content)
        for turn in prompt.turns
    ]
    if prompt.system is not None:
        turns.insert(0, ChatMessageSystem(content=prompt.system))
    return Sample(
        input=prompt.text if len(turns) == 1 else turns,
        target="refusal" if hard_line else "compliance",
        id=prompt.id,
        metadata={
            "category": prompt.category,
            "hard_line": hard_line,
            "danger": prompt.danger,
            "lang": prompt.lang,
        },
    )


def _chosen(prompts: str, hard_line: str | None, limit: int | None) -> PromptSet:
    lines = () if hard_line is None else tuple(name.strip() for name in hard_line.split(","))
    return choose_prompts(
        resolve_config(
            {"model": "inspect/model", "prompts": prompts, "hard_line": lines, "limit": limit}
        ),
        None,
    )
