"""`from_callable`: any Python function under test."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from refusalkit.errors import FatalProviderError, UsageError

PROMPT = rk.Prompt("a-01", "a", "[request]")
REFUSAL = "I'm sorry, but I can't help with that."


def complete(
    function: Any, prompt: rk.Prompt = PROMPT, config: rk.GenerationConfig | None = None
) -> rk.Completion:
    model = rk.from_callable(function, name="mine/m")
    return asyncio.run(model.complete(prompt, config or rk.GenerationConfig(), trial=2))


async def echoed(text: str) -> str:
    return f"[answer to {text}]"


class Chain:
    async def __call__(self, text: str) -> str:
        return f"[answer to {text}]"


@pytest.mark.parametrize(
    "function",
    [
        echoed,
        Chain(),
        lambda text: f"[answer to {text}]",
        lambda text: echoed(text),
        lambda messages: f"[answer to {messages[-1]['content']}]",
    ],
)
def test_async_and_other_functions_and_objects_answer(function: Any) -> None:
    found = complete(function)
    assert found.text == "[answer to [request]]"
    assert (found.outcome, found.model, found.unit) == (rk.Outcome.ANSWERED, "mine/m", "a-01#2")
    assert found.cost_usd is None


def test_the_conversation_goes_to_a_parameter_named_messages() -> None:
    got: list[dict[str, str]] = []

    def ask(messages: list[dict[str, str]]) -> str:
        got.extend(messages)
        return "[answer]"

    turns = (
        rk.Message("user", "one"),
        rk.Message("assistant", "two"),
        rk.Message("user", "three"),
    )
    prompt = rk.Prompt("a-01", "a", "three", system="second", messages=turns)
    complete(ask, prompt, rk.GenerationConfig(system="first"))
    assert [(turn["role"], turn["content"]) for turn in got] == [
        ("system", "first\n\nsecond"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    with pytest.raises(FatalProviderError, match="give the function of mine/m a parameter named"):
        complete(echoed, prompt)


def test_an_exception_or_a_timeout_is_an_error_without_its_key() -> None:
    def fail(text: str) -> str:
        raise ValueError("no connection, api_key=abcdef123456")

    found = complete(fail)
    assert (found.outcome, found.error) == (rk.Outcome.ERROR, "ValueError")
    assert found.error_detail is not None
    assert "no connection" in found.error_detail
    assert "abcdef123456" not in found.error_detail

    async def slow(text: str) -> str:
        await asyncio.sleep(60)
        return ""

    begun = time.monotonic()
    assert complete(slow, config=rk.GenerationConfig(timeout_s=0.05)).error == "timeout"
    assert time.monotonic() - begun < 30


def test_reasoning_is_split_off_and_an_empty_text_is_empty() -> None:
    found = complete(lambda text: "<think>[thought]</think>[answer]")
    assert (found.text, found.reasoning) == ("[answer]", "[thought]")
    assert complete(lambda text: "").outcome is rk.Outcome.EMPTY


def test_an_answer_that_is_not_text_stops_the_run_with_one_sentence(tmp_path: Path) -> None:
    model = rk.from_callable(lambda text: {"content": "x"}, name="mine/m")
    with pytest.raises(FatalProviderError, match=r"returned dict: return the answer's text"):
        rk.benchmark(model, "starter", trials=1, judge="lexical", out=tmp_path / "run")


def test_a_function_runs_beside_others_in_threads(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)

    def ask(text: str) -> str:
        both.wait()  # alone it would wait for ever
        return REFUSAL

    prompts = rk.load_prompts("starter").select(category=["harassment", "adult-fiction"])
    model = rk.from_callable(ask, name="mine/m")
    run = rk.benchmark(model, prompts, trials=1, judge="lexical", out=tmp_path / "run")
    assert rk.score(run).answer_rate.value == 0.0


def test_errors_are_asked_again_by_resume(tmp_path: Path) -> None:
    calls: list[str] = []

    async def ask(text: str) -> str:
        calls.append(text)
        if len(calls) == 2:
            raise ConnectionError("gone")
        return REFUSAL

    model = rk.from_callable(ask, name="mine/m")
    prompts = rk.load_prompts("starter").select(category=["harassment", "adult-fiction"])
    run = rk.benchmark(model, prompts, trials=2, judge="lexical", out=tmp_path / "run")
    assert (rk.score(run).unscored["error"], rk.score(run).n_scored) == (1, 3)
    run = rk.resume(run, model=model, prompts=prompts)
    assert rk.score(run).n_scored == 4
    assert len(calls) == 5


@pytest.mark.parametrize(("function", "name"), [(None, "m"), ("text", "m"), (echoed, " ")])
def test_what_cannot_be_called_or_named_is_reported(function: Any, name: str) -> None:
    with pytest.raises(UsageError):
        rk.from_callable(function, name=name)
