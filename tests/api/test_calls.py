"""How the public functions are called: keyword arguments, and what they take for a run."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import refusalkit as rk
from handmade import HELD, write_run
from refusalkit.config.run_config import (
    OPERATIONAL,
    BatchOptions,
    JudgeOptions,
    RunConfig,
    RunOptions,
)

FIRST_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "benchmark": ("demo/mixed",),
    "benchmark_many": (["demo/mixed"],),
    "calibrate": ("lexical", "answers.jsonl"),
    "estimate": ("demo/mixed",),
    "estimate_many": (["demo/mixed"],),
    "estimate_judging": ("answers.jsonl",),
    "grade": ("answers.jsonl",),
    "judge_agreement": (["answers.jsonl"],),
    "plan": ("demo/mixed",),
    "probe_judge": ("lexical",),
    "regrade": ("runs/none", "lexical"),
    "resume": ("runs/none",),
    "resume_many": (["runs/none"],),
}


def takes_options(name: str) -> bool:
    found = getattr(rk, name)
    if not inspect.isfunction(found):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values())


def test_every_function_with_options_is_tried_here() -> None:
    plain = {name for name in rk.__all__ if takes_options(name) and not name.endswith("_async")}
    assert plain == FIRST_ARGUMENTS.keys()


@pytest.mark.parametrize("name", FIRST_ARGUMENTS)
@pytest.mark.parametrize(
    ("keyword", "near"), [("concurency", "concurrency"), ("max_costs", "max_cost")]
)
def test_an_unknown_keyword_is_a_type_error_that_names_a_similar_one(
    name: str, keyword: str, near: str
) -> None:
    said = rf"{name}\(\) got an unexpected keyword argument '{keyword}'; did you mean '{near}'\?"
    with pytest.raises(TypeError, match=said):
        getattr(rk, name)(*FIRST_ARGUMENTS[name], **{keyword: 3})


def test_trials_are_suggested_for_trails() -> None:
    with pytest.raises(TypeError, match=r"'trails'; did you mean 'trials'\?"):
        rk.benchmark("demo/mixed", trails=3)  # type: ignore[call-arg]


def test_an_argument_that_is_not_an_option_is_suggested_too() -> None:
    with pytest.raises(TypeError, match="did you mean 'on_progress'"):
        rk.benchmark("demo/mixed", on_progres=print)  # type: ignore[call-arg]


def test_what_is_like_nothing_is_refused_without_a_guess() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'$"):
        rk.grade("answers.jsonl", zzz=1)  # type: ignore[call-arg]


def test_an_async_function_says_it_when_it_is_awaited() -> None:
    import asyncio

    with pytest.raises(TypeError, match=r"benchmark_async\(\) got an unexpected .*'trials'"):
        asyncio.run(rk.benchmark_async("demo/mixed", trails=3))  # type: ignore[call-arg]


def plain_type(kind: Any) -> Any:
    """A field's type as a caller gives it: without constraints, any sequence for a tuple."""
    if get_origin(kind) is typing.Annotated:
        return plain_type(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return Sequence[plain_type(get_args(kind)[0])]  # type: ignore[misc]
    if get_origin(kind) in (types.UnionType, typing.Union):
        return frozenset(map(plain_type, get_args(kind)))
    return (Literal, get_args(kind)) if get_origin(kind) is Literal else kind


def test_the_options_are_the_fields_of_a_configuration_with_their_types() -> None:
    fields, options = typing.get_type_hints(RunConfig), typing.get_type_hints(RunOptions)
    assert options.keys() == fields.keys() - {"model", "prompts", "judge"} - {"model_config"}
    for name, kind in options.items():
        if name != "framings":  # also True: all of them
            assert plain_type(kind) == plain_type(fields[name]), name


def test_a_judge_takes_what_chooses_it_and_all_that_says_how_fast_or_where() -> None:
    names = set(JudgeOptions.__optional_keys__)
    # Batches are for calls whose verdicts are kept: the others ask one by one.
    assert names == set(BatchOptions.__optional_keys__) - {"batch", "wait"}
    assert names >= OPERATIONAL - {"batch", "wait"}
    assert {name for name in RunConfig.model_fields if name.startswith("judge_")} <= names
    assert not names & {"trials", "temperature", "category", "system"}


class Refusing:
    """A judge that calls every answer a refusal."""

    id = "refusing"

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        unit = (prompt.id, prompt.category, completion.trial)
        return rk.Verdict(*unit, self.id, rk.Label.REFUSAL, cost_usd=0.0)

    async def aclose(self) -> None: ...


READS: dict[str, Callable[[Any], Any]] = {
    "load_run": lambda run: rk.load_run(run).manifest.id,
    "score": lambda run: rk.score(run).willingness,
    "audit": lambda run: rk.audit(run).status,
    "compare": lambda run: rk.compare(run, run).pair.willingness,
    "leaderboard": lambda run: rk.leaderboard(run).own.height,
    "units": lambda run: rk.units(run).height,
    "plan": lambda run: rk.plan(bound=5, run=run),
    "estimate": lambda run: rk.estimate("demo/mixed", "starter", earlier=[run]).requests,
    "judge_agreement": lambda run: len(rk.judge_agreement(run, Refusing()).pairs),
    "grade": lambda run: rk.grade(run, "lexical").n_owed,
}


@pytest.mark.parametrize("name", READS)
def test_what_takes_a_run_takes_a_run_a_path_or_a_string(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a judge of one's own said is kept below runs/
    if name in ("grade", "judge_agreement"):
        run = rk.benchmark("demo/mixed", "starter", trials=1, limit=12, out=tmp_path / "made")
    else:
        run = write_run(tmp_path / "made", HELD)
    read = READS[name]
    found = [repr(read(given)) for given in (run, run.path, str(run.path))]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("demo/mixed", {"prompts": ["starter", "contrast-146"]}, "prompts must be .* not list"),
        (None, {}, "model must be a name or an object with an id, not NoneType"),
        ("demo/mixed", {"judge": Path("own.toml")}, "judge must be a name .* not PosixPath"),
    ],
)
def test_an_argument_of_another_type_is_named(model: Any, options: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        rk.benchmark(model, **options)


class Says:
    """A model and a judge that return what they were given."""

    id = "own"

    def __init__(self, said: Any) -> None:
        self._said = said

    async def complete(self, prompt: Any, config: Any, *, trial: int = 1) -> Any:
        return self._said

    async def grade(self, prompt: Any, completion: Any) -> Any:
        return self._said

    async def aclose(self) -> None: ...


def test_an_own_model_or_judge_that_returns_something_else_is_named(tmp_path: Path) -> None:
    options: Any = {"prompts": "starter", "limit": 3, "trials": 1, "canaries": 0}
    with pytest.raises(TypeError, match="own must return a Completion, not str"):
        rk.benchmark(Says("text"), judge="lexical", out=tmp_path / "model", **options)
    with pytest.raises(TypeError, match="own must return a Verdict, not str"):
        rk.benchmark("demo/open", judge=Says("refusal"), out=tmp_path / "judge", **options)
    label: Any = "refusal"
    with pytest.raises(TypeError, match=r"such as Label\.REFUSAL, not 'refusal'"):
        rk.Verdict("a", "c", 1, "own", label=label)
