"""The command in a report reproduces the run."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from refusalkit.cli import cli
from refusalkit.cli.given import given as parse
from refusalkit.config.layers import Layer
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import OPERATIONAL, RunConfig
from refusalkit.reporting.document.facts import gather
from refusalkit.reporting.document.reproduce import reproduction
from refusalkit.runs.manifest import Manifest


def manifest_of(config: RunConfig, source: str | None = "starter") -> Manifest:
    return Manifest.model_validate(
        {
            "schema_version": 1,
            "kind": "run",
            "id": "made",
            "refusalkit": "0",
            "python": "3",
            "packages": {},
            "config": config.model_dump(mode="json"),
            "config_digest": config.digest,
            "prompt_set": {
                "name": "starter",
                "version": "1",
                "digest": "sha256:0",
                "licence": "",
                "source": source,
                "selection": {},
                "n_prompts": 0,
                "categories": [],
            },
            "trials": config.trials,
            "n_units": 0,
            "judge": "j",
            "judges": {"j": {"name": "j", "source": "graded", "kind": "llm"}},
            "hard_line_text": "withheld",
        }
    )


def parsed(words: list[str]) -> RunConfig:
    """The configuration that the command line parses from the words."""
    command = cli.commands[words[1]]
    with command.make_context("run", words[2:]) as context:
        (model,) = context.params["models"]
        return resolve_config(Layer({"model": model}).under(parse(context.params).all))


@pytest.mark.parametrize(
    "options",
    [
        {
            "limit": 6,
            "seed": -3,
            "system": 'It\'s\na $HOME "test"; --judge x',
            "extra_body": {"note": "it's \u00fc"},
            "danger": [1, 3],
            "count_deflection": True,
        },
        {"framings": True, "category": ["weapons"], "hard_line": ["weapons"]},
        {"framings": True, "preset": "modern", "judge": "lexical", "keep_hard_line_text": True},
    ],
    ids=["sampling", "framings", "preset"],
)
def test_the_printed_command_reproduces_the_run(
    options: dict[str, Any], tmp_path: Path, call: Call
) -> None:
    first = rk.benchmark("demo/mixed", "starter", out=tmp_path / "first", trials=1, **options)
    again = gather([first]).runs[0].reproduction
    words = shlex.split(again.command)
    assert words[0] == "refusalkit"
    # The version over several lines is the same command.
    shell = ["sh", "-c", f"set -- {again.command_lines}; printf '%s\\0' \"$@\""]
    read = subprocess.run(shell, capture_output=True, check=True, encoding="utf-8").stdout
    assert "\\\n" in again.command_lines
    assert read.split("\0")[:-1] == words
    assert call(*words[1:], "--out", "again").status == 0
    second = rk.load_run(tmp_path / "again").manifest
    assert second.config_digest == first.manifest.config_digest
    assert second.prompt_set.digest == first.manifest.prompt_set.digest
    assert second.n_units == first.manifest.n_units


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
CONFIGS = st.fixed_dictionaries(
    {"model": st.sampled_from(["demo/mixed", "openai/gpt-6-luna"])},
    optional={
        "preset": st.sampled_from(["paper", "modern", "atropos"]),
        "prompts": TEXT | st.just("refusalbench@main"),
        "inversion": st.sampled_from(["paper", "atropos", "none"]),
        "framings": st.booleans(),
        "hard_line": st.lists(TEXT, max_size=2),
        "category": st.lists(TEXT, max_size=2),
        "danger": st.lists(st.integers(1, 3), max_size=2),
        "limit": st.integers(1, 99),
        "limit_seed": st.integers(-5, 5),
        "trials": st.integers(1, 9),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.001, 1),
        "seed": st.integers(-9, 9),
        "system": TEXT,
        "reasoning": st.sampled_from(["off", "on", "auto"]),
        "extra_body": st.dictionaries(st.sampled_from("abc"), TEXT | st.integers(), max_size=2),
        "via": st.just("litellm"),
        "api_base": st.just("http://localhost:8000/v1"),
        "judge": st.sampled_from(["graded", "refusalbench", "lexical", "./my judge.toml"]),
        "judge_model": TEXT,
        "count_deflection": st.booleans(),
        "keep_hard_line_text": st.booleans(),
        "concurrency": st.integers(1, 9),
    },
)


@settings(max_examples=20)
@given(CONFIGS)
def test_any_configuration_survives_its_command(given_: dict[str, Any]) -> None:
    config = resolve_config(given_)
    found = reproduction(manifest_of(config))
    assert found.obstacles == ()
    again = parsed(shlex.split(found.command))
    assert again.digest == config.digest
    assert again.api_base == config.api_base


def test_every_measured_field_has_an_option() -> None:
    options = {param.name for param in cli.commands["run"].params} | {"model"}
    assert set(RunConfig.model_fields) - OPERATIONAL <= options


def test_obstacles_are_named() -> None:
    config = RunConfig(model="openai/gpt-6-luna", temperature=None, framings=("fiction", "class"))
    found = reproduction(manifest_of(config, source=None))
    assert found.command == ""
    assert found.obstacles == (
        "the prompts were built in Python",
        "only some framings were asked: fiction, class",
        "temperature was set to none from Python",
    )
