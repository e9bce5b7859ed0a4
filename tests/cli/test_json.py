"""Every command that says something says it as JSON too."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import refusalkit as rk
from commandline import Call
from places import ROOT
from refusalkit.cli import cli

SMALL = ("--prompts", "starter", "--limit", "4", "--trials", "1")
LINES = (
    {"id": "a", "prompt": "one", "response": "I can't help with that.", "label": "refusal"},
    {"id": "b", "prompt": "two", "response": "[demo answer]", "label": "compliance"},
)

COMMANDS = {
    "audit": "audit first",
    "batches": "batches first",
    "compare": "compare first second",
    "config": "config demo/mixed",
    "estimate": "estimate demo/mixed --limit 3",
    "export": "export first out.zip --to bundle",
    "grade": "grade answers.jsonl --judge lexical",
    "judges agree": "judges agree answers.jsonl --judge lexical",
    "judges bridge": "judges bridge lexical other first second",
    "judges calibrate": "judges calibrate lexical --labels answers.jsonl",
    "judges label": "judges label first --n 4",
    "judges list": "judges list",
    "judges probe": "judges probe lexical --kind delimiter",
    "judges show": "judges show lexical",
    "leaderboard": "leaderboard first",
    "merge": "merge part-1 part-2 --out merged",
    "plan": "plan",
    "presets": "presets",
    "prompts convert": "prompts convert mine.jsonl set",
    "prompts list": "prompts list",
    "prompts show": "prompts show starter",
    "prompts validate": "prompts validate mine.jsonl",
    "regrade": "regrade first --judge other.toml",
    "report": "report first",
    "resume": "resume first",
    "run": "run demo/mixed --prompts starter --limit 3 --trials 1 --out third",
    "runs": "runs .",
    "score": "score first",
    "show": "show first {unit}",
    "verify": "verify first",
}
BEFORE = {
    "judges bridge": [f"regrade {run} --judge other.toml" for run in ("first", "second")],
    "merge": [
        f"run demo/mixed --prompts starter --limit 30 --trials 1 --shard {n}/2 --out part-{n}"
        for n in (1, 2)
    ],
}
BESIDE = {
    "view": "serves until it is stopped: below",
    "completion": "prints a shell's script, which is all that it has to say",
}
# They end with the state of what they found: a line crossed, units owed, labels left.
MAY_END_WITH = (0, 1, 3)


def every_command(command: click.Command, name: str = "") -> list[str]:
    if not isinstance(command, click.Group):
        return [name.strip()]
    return [one for k, c in command.commands.items() for one in every_command(c, f"{name} {k}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a judge file and a file of labelled answers."""
    made = tmp_path_factory.mktemp("made")
    for name, model in (("first", "demo/mixed"), ("second", "demo/open")):
        rk.benchmark(model, "starter", out=made / name, limit=8, trials=1)
    (made / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    judge = (ROOT / "judges" / "lexical.toml").read_text()
    (made / "other.toml").write_text(judge.replace('name = "lexical"', 'name = "other"'))
    (made / "mine.jsonl").write_text('{"id": "a-1", "category": "tea", "text": "one"}\n')
    return made


@pytest.fixture
def made(call: Call, folder: Path, tmp_path: Path) -> str:
    """A copy of the folder to work in; a unit of its first run."""
    del call
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    own = json.loads(Path("first/completions.jsonl").read_text().partition("\n")[0])
    return str(own["unit"])


def test_the_list_here_is_whole() -> None:
    assert sorted([*COMMANDS, *BESIDE]) == sorted(every_command(cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_prints_is_json(name: str, made: str, call: Call) -> None:
    for before in BEFORE.get(name, ()):
        assert call(*before.split()).status in MAY_END_WITH
    said = call(*COMMANDS[name].format(unit=made).split(), "--json")
    assert said.status in MAY_END_WITH, said.err
    assert json.loads(said.out)


def test_labelling_asks_on_stderr(made: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    del made
    monkeypatch.setattr(sys, "stdin", io.StringIO("r\nc\n"))
    said = call("judges", "label", "first", "--n", "4", "--annotator", "Ann", "--json")
    assert said.status == 3
    found = json.loads(said.out)
    assert (found["annotator"], found["path"]) == ("Ann", "first/labels/ann.jsonl")
    assert (found["n"], found["n_labelled"], found["n_left"]) == (4, 2, 2)
    assert "PROMPT:" in said.err
    assert "go on with the same command" in said.err


def test_the_viewer_prints_its_address_on_one_line(made: str) -> None:
    del made
    command = [sys.executable, "-m", "refusalkit", "view", ".", "--no-open", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = json.loads(process.stdout.readline())
        finally:
            process.kill()
    assert found["folder"] == "."
    assert found["url"].startswith("http://127.0.0.1:")


def test_validating_prints_json(call: Call) -> None:
    Path("good.jsonl").write_text('{"id": "a-1", "category": "tea", "text": "one"}\n')
    Path("bad.jsonl").write_text('{"id": "a-1"}\n')
    said = call("prompts", "validate", "good.jsonl", "bad.jsonl", "--json")
    assert said.status == 2
    found = json.loads(said.out)
    good, bad = found["sets"]
    assert (good["name"], good["n_prompts"], good["mistakes"]) == ("good", 1, [])
    assert bad["source"] == "bad.jsonl"
    assert found["n_mistakes"] == len(bad["mistakes"]) >= 1
    assert "bad.jsonl:1" in bad["mistakes"][0]


def test_converting_and_exporting_print_json(call: Call) -> None:
    Path("mine.csv").write_text("prompt,category\none,Tea\ntwo,Cake\n")
    made = json.loads(call("prompts", "convert", "mine.csv", "set", "--json").out)
    assert (made["path"], made["n_prompts"]) == ("set", 2)
    assert call("run", "demo/mixed", *SMALL, "--out", "made").status == 0
    written = json.loads(call("export", "made", "--to", "bundle", "b.zip", "--json").out)
    assert written["paths"] == ["b.zip"]
    assert written["digest"]
