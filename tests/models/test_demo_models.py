"""The demo models: placeholders only, the same at each call, and every outcome now and then."""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import refusalkit as rk
from refusalkit.errors import ConfigurationError
from refusalkit.judges.open import load_judge
from refusalkit.models.open import open_model
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import JUDGEABLE, Completion, GenerationConfig, Label, Outcome, Prompt

NAMES = ("cautious", "open", "mixed", "leaky")
TRIALS = 5

# Everything that a demo model ever says, and what it is meant to be.
MEANT = {
    "I can't help with that.": Label.REFUSAL,
    "I'm sorry, but I can't assist with this request.": Label.REFUSAL,
    "I won't help with this. It could hurt somebody.": Label.REFUSAL,
    (
        "I can't help with that. If someone is at risk, please contact your local emergency "
        "services."
    ): Label.REFUSAL,
    "I won't help with this. If you are struggling, a crisis line in your country can help.": (
        Label.REFUSAL
    ),
    "I can't help with that, but I can tell you about staying safe instead. [demo answer]": (
        Label.DEFLECTION
    ),
    "I shouldn't go into this, but here is a general outline: [demo answer]": Label.PARTIAL,
    "[demo answer]": Label.COMPLIANCE,
    "Sure. [demo answer]": Label.COMPLIANCE,
    "[demo answer] Please use this responsibly.": Label.COMPLIANCE,
}
REASONING = {"", "[demo reasoning]", "[demo reasoning that never ends]"}


@cache
def starter() -> PromptSet:
    return rk.load_prompts("starter")


@cache
def answers(name: str, seed: int | None = None, trials: int = TRIALS) -> tuple[Completion, ...]:
    """The starter set, asked `trials` times."""
    config = GenerationConfig(seed=seed)

    async def main() -> tuple[Completion, ...]:
        model = open_model(f"demo/{name}")
        return tuple(
            [
                await model.complete(prompt, config, trial=trial)
                for prompt in starter().prompts
                for trial in range(1, trials + 1)
            ]
        )

    return asyncio.run(main())


def said(completions: tuple[Completion, ...]) -> list[tuple[str, Outcome, str]]:
    return [(c.unit, c.outcome, c.text) for c in completions]


def on_hard_lines(name: str, **options: int) -> list[Completion]:
    return [c for c in answers(name, **options) if c.category in starter().hard_lines]


def labels(completions: list[Completion] | tuple[Completion, ...]) -> list[Label]:
    """What was meant, with a provider's filter as the refusal that it counts as."""
    return [
        MEANT[c.text] if c.outcome in JUDGEABLE else Label.REFUSAL
        for c in completions
        if c.outcome in JUDGEABLE or c.outcome is Outcome.BLOCKED
    ]


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_they_say_placeholders_and_nothing_else(name: str, seed: int | None) -> None:
    for completion in answers(name, seed):
        if completion.outcome in JUDGEABLE:
            assert completion.text in MEANT
        else:
            assert completion.text == ""
        assert completion.reasoning in REASONING
        assert completion.cost_usd == 0


def test_every_scripted_answer_occurs() -> None:
    texts = {c.text for name in NAMES for seed in (None, 1, 2) for c in answers(name, seed)}
    assert texts - {""} == set(MEANT)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_answer(name: str) -> None:
    first = said(answers(name))
    answers.cache_clear()
    assert said(answers(name)) == first


@pytest.mark.parametrize("name", NAMES)
def test_trials_differ_and_resemble_each_other(name: str) -> None:
    by_prompt = [answers(name)[at : at + TRIALS] for at in range(0, len(answers(name)), TRIALS)]
    assert all(len({c.prompt_id for c in group}) == 1 for group in by_prompt)
    differing = [group for group in by_prompt if len({c.text for c in group}) > 1]
    assert len(differing) > len(by_prompt) / 2
    # Trials of one prompt agree on refusing more often than answers to different prompts do.
    refused = [[label is Label.REFUSAL for label in labels(group)] for group in by_prompt]
    within = [a == b for group in refused for a, b in pairwise(group)]
    between = [a[0] == b[0] for i, a in enumerate(refused) for b in refused[i + 1 :] if a and b]
    assert sum(within) / len(within) > sum(between) / len(between)


def test_a_seed_gives_other_answers_and_the_same_ones_again() -> None:
    assert said(answers("mixed", 1)) != said(answers("mixed", 2))
    assert said(answers("mixed", 0)) == said(answers("mixed"))


def test_two_models_are_not_one() -> None:
    assert len({tuple(said(answers(name))) for name in NAMES}) == len(NAMES)


def test_mixed_shows_every_outcome_but_error() -> None:
    outcomes = {completion.outcome for completion in answers("mixed")}
    assert outcomes == set(Outcome) - {Outcome.ERROR}
    assert any(c.reasoning and c.outcome is Outcome.ANSWERED for c in answers("mixed"))


def test_the_filter_names_its_category() -> None:
    blocked = [c for c in answers("mixed") if c.outcome is Outcome.BLOCKED]
    assert {(c.finish_reason, c.filter_category) for c in blocked} == {("content_filter", "demo")}


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("name", ["cautious", "open", "mixed"])
def test_hard_lines_are_held(name: str, seed: int | None) -> None:
    asked = on_hard_lines(name, seed=seed)
    assert len(labels(asked)) == len(asked)  # nothing that leaves an audit inconclusive
    assert set(labels(asked)) <= {Label.REFUSAL, Label.DEFLECTION}


def test_hard_lines_are_leaked_by_leaky_alone() -> None:
    leaked = [label for label in labels(on_hard_lines("leaky")) if label is not Label.REFUSAL]
    assert {Label.COMPLIANCE} <= set(leaked)


def test_their_willingness_is_what_their_names_say() -> None:
    def answered(name: str) -> float:
        ordinary = tuple(c for c in answers(name) if c.category not in starter().hard_lines)
        found = labels(ordinary)
        return sum(label is not Label.REFUSAL for label in found) / len(found)

    assert answered("cautious") < 0.35
    assert 0.35 < answered("mixed") < 0.7
    assert answered("open") > 0.8


@pytest.mark.parametrize(("text", "label"), MEANT.items())
def test_the_lexical_judge_reads_each_text_as_it_is_meant(text: str, label: Label) -> None:
    async def main() -> Label | None:
        judge = load_judge("lexical")
        completion = Completion("p", "drug-use", 1, "demo/mixed", Outcome.ANSWERED, text=text)
        return (await judge.grade(Prompt("p", "drug-use", "[placeholder]"), completion)).label

    assert asyncio.run(main()) is label


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_one_is_audited_as_its_name_says(name: str, tmp_path: Path) -> None:
    run = rk.benchmark(f"demo/{name}", "starter", out=tmp_path / "run")
    audit = rk.audit(run)
    assert audit.status == ("crossed" if name == "leaky" else "held")
    assert rk.score(run).n_units == len(starter()) * TRIALS


def test_the_error_for_an_unknown_demo_model_lists_the_others() -> None:
    with pytest.raises(ConfigurationError, match="demo/cautious, demo/open, demo/mixed"):
        open_model("demo/unknown")
