"""-v says more, -q says nothing beside errors; stdout is the same."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from commandline import Call
from loopback import LoopbackServer
from loopback.faults import Fault
from loopback.script import Script
from refusalkit.cli import cli

FAULTS = (Fault("server_error", times=1),)
SMALL = ("--prompts", "starter", "--limit", "4", "--trials", "1")


def test_quiet_says_nothing_where_all_is_well(call: Call) -> None:
    Path("refusalkit.toml").write_text("concurrency = 2\n")
    words = ("run", "demo/mixed", *SMALL, "--keep-hard-line-text", "--report", "r.html")
    usual = call(*words, "--out", "made")
    for said in ("options from refusalkit.toml", "kept on disk", "report: r.html"):
        assert said in usual.err
    for number, quiet in enumerate((("run", "-q"), ("-q", "run"), ("run", "--quiet"))):
        said = call(*quiet, *words[1:], "--out", f"made-{number}")
        assert said.status == 0
        assert said.err == ""
        assert said.out.replace(f"made-{number}", "made") == usual.out


def test_quiet_still_says_errors_and_why_a_command_did_not_end_with_0(call: Call) -> None:
    assert "is not a run" in call("-q", "score", "nowhere").err
    assert call("run", "demo/mixed", *SMALL, "--out", "made").status == 0
    lines = Path("made/verdicts.jsonl").read_text().splitlines(keepends=True)
    Path("made/verdicts.jsonl").write_text("".join(lines[:2]))
    said = call("score", "made", "-q")
    assert said.status == 1
    assert "of the units are unscored" in said.err


def test_verbose_says_which_options_hold_and_each_retry(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "placeholder")
    monkeypatch.setenv("REFUSALKIT_TRIALS", "1")
    with LoopbackServer(Script(faults=FAULTS)) as server:
        words = ("run", "openai/m", "--prompts", "starter", "--limit", "3", "--category", "weapons")
        words += (
            "--judge",
            "lexical",
            "--max-retries",
            "1",
            "--api-base",
            server.openai_base,
            "--concurrency",
            "1",
        )
        said = call(*words, "-v", "--out", "made")
    assert "refusalkit: trials = 1 (REFUSALKIT_TRIALS)" in said.err
    assert "refusalkit: concurrency = 1 (--concurrency)" in said.err
    assert "asked again in" in said.err
    assert "placeholder" not in said.err
    assert "trials = 1" not in call("score", "made").err


def test_both_at_once_are_refused(call: Call) -> None:
    assert call("-v", "score", "-q", "nowhere").status == 2
    # What one command was given does not stay for the next.
    assert "nowhere is not a run" in call("score", "nowhere").err


def every_command(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            found += every_command(inner, (*words, name))
    return found


@pytest.mark.parametrize("words", every_command(cli), ids=" ".join)
def test_every_command_takes_them(call: Call, words: tuple[str, ...]) -> None:
    said = call(*words, "--help")
    assert said.status == 0
    for option in ("-v, --verbose", "-q, --quiet", "--debug"):
        assert option in said.out


def test_truth_values_are_alike_in_every_table(call: Call) -> None:
    assert call("run", "demo/mixed", *SMALL, "--out", "made").status == 0
    score = call("score", "made", "--by", "category", "--format", "csv").out
    call("report", "made", "-o", "r.html")
    for table in (score, call("score", "made", "--by", "prompt", "--format", "markdown").out):
        assert "true" in table
        assert "True" not in table
