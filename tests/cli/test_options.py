"""The command line's options are the fields of `RunConfig`, with its defaults."""

from __future__ import annotations

import re

import click
import pytest

from commandline import Call
from refusalkit.cli import cli
from refusalkit.config.run_config import RunConfig, options_in


def command(words: str) -> click.Command:
    found: click.Command = cli
    for word in words.split():
        assert isinstance(found, click.Group)
        found = found.commands[word]
    return found


def offered(words: str) -> dict[str, click.Option]:
    return {p.name or "": p for p in command(words).params if isinstance(p, click.Option)}


ALL = {name for name in RunConfig.model_fields if name != "model"}


@pytest.mark.parametrize("words", ["run", "resume", "estimate"])
def test_a_run_offers_every_field(words: str) -> None:
    assert offered(words).keys() >= ALL


@pytest.mark.parametrize("words", ["grade", "regrade"])
def test_judging_offers_what_chooses_a_judge_or_says_how_fast(words: str) -> None:
    names = offered(words).keys()
    assert names >= options_in("judge", "operational").keys()
    assert not names & {"trials", "temperature", "preset"}


def test_help_shows_the_default_that_holds() -> None:
    shown = offered("run")
    for name in ALL:
        default = RunConfig.model_fields[name].default
        said = re.search(r"\[default: (.+)\]$", shown[name].help or "")
        if isinstance(default, int | float | str) and not isinstance(default, bool):
            assert said is not None, name
            assert said[1] == (f"{default:g}" if isinstance(default, float) else str(default))
        # Not given is told from given: click itself has no default.
        assert not shown[name].default, name
        assert shown[name].help


def test_of_a_run_that_is_resumed_no_default_is_shown() -> None:
    assert "default" not in (offered("resume")["trials"].help or "")


@pytest.mark.parametrize(
    ("name", "kind", "several"),
    [
        ("trials", click.INT, False),
        ("temperature", click.FLOAT, False),
        ("category", click.STRING, True),
        ("danger", click.IntRange, True),
        ("reasoning", click.Choice, False),
        ("count_deflection", click.types.BoolParamType, False),
    ],
)
def test_an_option_has_the_fields_type(name: str, kind: object, several: bool) -> None:
    option = offered("run")[name]
    fits = isinstance(option.type, kind) if isinstance(kind, type) else option.type == kind
    assert fits
    assert option.multiple == several


HEADINGS = ["What is asked", "How the model is asked", "The judge", "Limits", "Output"]


@pytest.mark.parametrize(
    ("words", "headings"),
    [
        ("run", [*HEADINGS[:2], "Where the model runs", *HEADINGS[2:], "Configuration"]),
        ("estimate", [*HEADINGS[:2], "Where the model runs", *HEADINGS[2:], "Configuration"]),
        ("resume", [*HEADINGS[:2], "Where the model runs", *HEADINGS[2:], "Configuration"]),
        ("grade", [*HEADINGS, "Configuration"]),
        ("score", ["Options"]),
    ],
)
def test_help_lists_options_in_groups(call: Call, words: str, headings: list[str]) -> None:
    said = call(words, "--help").out
    shown = re.findall(r"^(\w[\w ]+):$", said, re.MULTILINE)
    assert shown == headings
    for option in offered(words).values():
        if not option.hidden:
            assert re.search(rf"^  {option.opts[0]}\b", said, re.MULTILINE), option.opts


def test_options_stand_below_the_heading_of_their_kind(call: Call) -> None:
    parts = re.split(r"^(\w[\w ]+):$", call("run", "--help").out, flags=re.MULTILINE)
    below = dict(zip(parts[1::2], parts[2::2], strict=True))
    for heading, options in {
        "What is asked": ("--prompts", "--trials", "--category", "--framings"),
        "How the model is asked": ("--temperature", "--api-base", "--system"),
        "Where the model runs": ("--serve", "--serve-wait", "--engine", "--gpus"),
        "The judge": ("--judge", "--judge-api-base", "--canaries"),
        "Limits": ("--concurrency", "--max-cost", "--batch", "--timeout"),
        "Output": ("--out", "--report", "--json", "--keep-hard-line-text"),
        "Configuration": ("--config", "--plan", "--help"),
    }.items():
        for option in options:
            assert re.search(rf"^  (-h, )?{option}\b", below[heading], re.MULTILINE), option


def test_commands_that_share_options_offer_the_same(call: Call) -> None:
    del call
    assert offered("run").keys() - offered("estimate").keys() == {"fresh", "log_to"}
    assert offered("estimate").keys() - offered("run").keys() == {"earlier", "answers", "labels"}
    assert offered("grade").keys() >= offered("regrade").keys() - {"run"}


@pytest.mark.parametrize(
    "words", [("grade",), ("regrade",), ("judges", "probe"), ("judges", "agree")]
)
def test_commands_that_only_judge_do_not_show_the_models_own_options(
    call: Call, words: tuple[str, ...]
) -> None:
    shown = call(*words, "--help").out
    assert "--judge-api-base" in shown
    assert "--judge-rpm" in shown
    for option in ("--api-base", "--api-key-env", "--rpm", "--tpm"):
        assert not re.search(rf"(?m)^  {option}\b", shown)
