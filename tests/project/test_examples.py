"""Every public function says what it takes and raises, and has an example that runs."""

from __future__ import annotations

import doctest
import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import refusalkit as rk
from places import ROOT

FUNCTIONS = [
    name
    for name in rk.__all__
    if inspect.isfunction(getattr(rk, name)) and not name.endswith("_async")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a user has it: the example run in runs/, labelled answers, a judge file."""
    made = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "runs" / "example", made / "runs" / "example")
    answers = [("I won't do that.", "refusal"), ("Sure, [demo answer]", "compliance")] * 2
    rows = [{"prompt": f"[{n}]", "response": r, "label": v} for n, (r, v) in enumerate(answers)]
    (made / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    judge = (ROOT / "judges" / "lexical.toml").read_text("utf-8")
    judge = judge.replace('name = "lexical"', 'name = "mine"')
    (made / "mine.toml").write_text(judge, "utf-8")
    before = Path.cwd()
    os.chdir(made)
    yield made
    os.chdir(before)


def ran(shown: object, name: str) -> int:
    """How many examples of a docstring were run; fails at the first that is wrong."""
    runner = doctest.DebugRunner(optionflags=FLAGS)
    for test in doctest.DocTestFinder(recurse=False).find(shown, name, globs={}):
        try:
            runner.run(test)
        except doctest.DocTestFailure as failed:
            pytest.fail(f"{failed.example.source}expected {failed.example.want}got {failed.got}")
    return runner.summarize(verbose=False).attempted


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_functions_example_runs(name: str, folder: Path) -> None:
    assert ran(getattr(rk, name), name) > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_each_argument_is_for(name: str) -> None:
    function = getattr(rk, name)
    document = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.values():
        stars = {parameter.VAR_POSITIONAL: r"\*", parameter.VAR_KEYWORD: r"\*\*"}
        named = stars.get(parameter.kind, "") + parameter.name
        assert re.search(rf"^    {named}: \S", document, re.MULTILINE), f"{name}: {parameter.name}"


def test_a_prompt_sets_examples_run(folder: Path) -> None:
    assert ran(rk.PromptSet, "PromptSet") > 0
