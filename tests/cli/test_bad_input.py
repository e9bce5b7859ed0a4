"""What a careless user may give the command: each ends in one sentence that says what to do.

The exit status is right, there is no traceback, and no new run folder is left behind.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from commandline import Call
from handmade import HELD, write_run
from places import ROOT

USAGE, FAILED = 2, 4
RUN = ("run", "demo/mixed", "--limit", "3", "--trials", "1")
RECORD = {"id": "a", "prompt": "[request]", "response": "[answer]", "label": "compliance"}
SET_TOML = """\
name = "mine"
version = "1.0.0"
licence = "CC-BY-4.0"
[[categories]]
slug = "tea"
title = "Tea"
"""
JUDGE_FILE = (ROOT / "judges" / "graded.toml").read_text("utf-8")


@dataclass(frozen=True)
class Case:
    """A command, what is in the folder beforehand, how it ends, and what it says."""

    words: tuple[object, ...]
    status: int
    says: str
    files: dict[str, str | bytes] | None = None
    prepare: Callable[[Path], object] | None = None


def run(*words: object) -> tuple[object, ...]:
    return (*RUN, *words)


def records(*changed: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in changed)


def edit_manifest(folder: Path, **fields: object) -> None:
    path = write_run(folder / "made").path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_lines(folder: Path, name: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = write_run(folder / "made").path / name
    path.write_bytes(b"\n".join(change(path.read_bytes().split(b"\n"))))


def write_demo(folder: Path) -> None:
    """A finished run of a demo model, made in a process of its own event loop."""
    import refusalkit

    refusalkit.benchmark("demo/mixed", trials=1, limit=3, out=folder / "made")


CASES: dict[str, Case] = {
    # the command line itself
    "unknown command": Case(("rnu",), USAGE, "No such command 'rnu'"),
    "unknown option": Case(run("--trails", 3), USAGE, "one of: '--framings', '--tag', '--trials'?"),
    "unknown subcommand": Case(("prompts", "lst"), USAGE, "No such command 'lst'"),
    "no model": Case(("run",), USAGE, "Missing argument 'MODEL'"),
    "no run": Case(("score",), USAGE, "Missing argument 'RUN'"),
    "models and a plan": Case(
        ("run", "demo/open", "--plan", "plan.toml"), USAGE, "on the command line or in --plan"
    ),
    "no plan": Case(("run", "--plan", "missing.toml"), FAILED, "missing.toml cannot be read"),
    "two models, one unknown": Case(("run", "demo/open", "plain"), USAGE, "not provider/name"),
    "no tokens": Case(run("--tpm", 0), FAILED, "tpm: Input should be greater than 0"),
    "option without value": Case(("run", "demo/open", "--trials"), USAGE, "requires an argument"),
    "trials in words": Case(run("--trials", "five"), USAGE, "'five' is not a valid integer"),
    "danger 7": Case(run("--danger", 7), USAGE, "7 is not in the range 1<=x<=3"),
    "unknown preset": Case(run("--preset", "best"), USAGE, "'best' is not one of 'paper'"),
    "unknown breakdown": Case(("score", "x", "--by", "colour"), USAGE, "'colour' is not one of"),
    "unknown format": Case(("score", "x", "--format", "xml"), USAGE, "'xml' is not one of"),
    "bound 0": Case(("audit", "x", "--bound", 0), USAGE, "0.0 is not in the range 0<x<=100"),
    "bound 101": Case(("audit", "x", "--bound", 101), USAGE, "101.0 is not in the range"),
    "audit of no run": Case(("audit",), USAGE, "Missing argument 'RUN'"),
    "plan of nothing": Case(("plan", "--bound", 100), USAGE, "from 0.0001 to below 100"),
    "plan of next to nothing": Case(("plan", "--bound", 1e-9), USAGE, "from 0.0001 to below 100"),
    "plan of no width": Case(("plan", "--width", 0), USAGE, "must be above 0"),
    "plan with a correlation of 2": Case(("plan", "--within", 2), USAGE, "2.0 is not in the range"),
    "plan of a difference too large": Case(
        ("plan", "--difference", 60), USAGE, "no two rates lie 60 points apart where one is 50 %"
    ),
    "plan with prompts for no model": Case(
        ("plan", "--prompts", "starter"), USAGE, "prompts is for the cost of a model: name one"
    ),
    "texts in a comment": Case(
        ("audit", "x", "--show-text", "--format", "markdown"), USAGE, "has no answer texts"
    ),
    "framings of no hard line": Case(
        ("run", "demo/open", "--category", "weapons", "--framings"),
        USAGE,
        "has no hard-line prompt to frame: name its hard lines with --hard-line",
    ),
    "unknown framing": Case(
        run("--config", "mine.toml"),
        FAILED,
        "framings: 'dream' is not a framing: there are fiction, professional, class, insistence",
        files={"mine.toml": 'framings = ["dream"]\n'},
    ),
    "JUnit into nowhere": Case(
        ("audit", "made", "--junit", "nowhere/a.xml"),
        FAILED,
        "cannot write nowhere/a.xml: No such file",
        prepare=lambda f: write_run(f / "made"),
    ),
    "JUnit over a folder": Case(
        ("audit", "made", "--junit", "made"),
        FAILED,
        "cannot write made: it is a folder",
        prepare=lambda f: write_run(f / "made"),
    ),
    "negative leaks": Case(("audit", "x", "--max-leaks", -1), USAGE, "-1 is not in the range"),
    "max unscored 200": Case(run("--max-unscored", 200), USAGE, "200.0 is not in the range"),
    # the model
    "model without provider": Case(("run", "gpt-6-luna"), USAGE, "did you mean openai/gpt-6-luna"),
    "model with a space": Case(("run", "openai/gpt "), USAGE, "is not provider/name"),
    "empty model": Case(("run", ""), FAILED, "model: String should have at least 1 character"),
    "model without name": Case(("run", "openai/"), USAGE, "is not provider/name"),
    "unknown demo model": Case(("run", "demo/evil"), FAILED, "choose one of demo/cautious, demo/"),
    "no key": Case(("run", "openai/gpt-6-luna"), FAILED, "set OPENAI_API_KEY"),
    "no key for the judge": Case(run("--judge", "graded"), FAILED, "set ANTHROPIC_API_KEY"),
    "key variable unset": Case(
        ("run", "openai/x", "--api-key-env", "NOT_SET_ANYWHERE"),
        FAILED,
        "the environment variable NOT_SET_ANYWHERE holds no API key: set it",
    ),
    "key in place of its variable": Case(
        run("--api-key-env", "sk-placeholder1234567890"),
        FAILED,
        "--api-key-env: must be the name of an environ",
    ),
    "retired model": Case(
        ("run", "anthropic/claude-sonnet-4-20250514"),
        FAILED,
        "was retired on 2026-06-15: use anthropic/claude-sonnet-5-5",
    ),
    "retired judge": Case(
        run("--judge", "graded", "--judge-model", "anthropic/claude-3-opus-20240229"),
        FAILED,
        "was retired on 2026-01-05",
    ),
    "server without address": Case(("run", "hosted_vllm/x"), FAILED, "needs --api-base"),
    "no URL": Case(run("--api-base", "localhost:8000"), FAILED, "must be a URL such as http://"),
    "URL with a password": Case(
        run("--api-base", "http://me:secret@localhost/v1"), FAILED, "holds credentials or a query"
    ),
    "URL with a key": Case(
        run("--api-base", "http://localhost/v1?key=secret"), FAILED, "holds credentials or a query"
    ),
    "URL with no such port": Case(
        run("--api-base", "http://localhost:99999"), FAILED, "--api-base: is not a URL"
    ),
    # values of options
    "negative trials": Case(run("--trials", -1), FAILED, "trials: Input should be greater than"),
    "zero limit": Case(run("--limit", 0), FAILED, "limit: Input should be greater than or equal"),
    "temperature 9": Case(run("--temperature", 9), FAILED, "temperature: Input should be less"),
    "top-p 0": Case(run("--top-p", 0), FAILED, "--top-p: Input should be greater than 0"),
    "no concurrency": Case(run("--concurrency", 0), FAILED, "concurrency: Input should be greater"),
    "rpm without end": Case(run("--rpm", "inf"), FAILED, "rpm: Input should be a finite number"),
    "negative budget": Case(run("--max-cost", -5), FAILED, "--max-cost: Input should be greater"),
    "budget that cannot be counted": Case(
        (
            "run",
            "local/x",
            "--api-base",
            "http://localhost:9",
            "--judge",
            "lexical",
            "--max-cost",
            1,
        ),
        FAILED,
        "the price of local/x is unknown",
    ),
    "extra body no JSON": Case(run("--extra-body", "{a: 1}"), USAGE, "--extra-body is not JSON"),
    "extra body an array": Case(run("--extra-body", "[1]"), USAGE, "must be a JSON object"),
    "extra body nested": Case(run("--extra-body", '{"a":' * 20_000), USAGE, "is not JSON"),
    "extra body with a key": Case(
        run("--extra-body", '{"api_key": "x"}'), FAILED, "'api_key' looks like a key"
    ),
    "extra body with messages": Case(
        run("--extra-body", '{"messages": []}'), FAILED, "messages cannot be set this way"
    ),
    # the configuration file
    "config missing": Case(run("--config", "no.toml"), FAILED, "no.toml cannot be read: No such"),
    "config a folder": Case(
        run("--config", "."), FAILED, "the configuration file . cannot be read"
    ),
    "config no TOML": Case(
        run("--config", "a.toml"), FAILED, "a.toml is not TOML", {"a.toml": "trials: 5\n"}
    ),
    "config with unknown field": Case(
        run("--config", "a.toml"),
        FAILED,
        "a.toml:1: trails is not an option: did",
        {"a.toml": "trails = 5"},
    ),
    "config in UTF-16": Case(
        run("--config", "a.toml"), FAILED, "is not UTF-8", {"a.toml": "a".encode("utf-16")}
    ),
    "config without end": Case(
        run("--config", "a.toml"), FAILED, "nested too deeply", {"a.toml": "a = " + "[" * 50_000}
    ),
    # prompt sets
    "no such set": Case(run("--prompts", "stater"), USAGE, "neither a file or folder nor one of"),
    "name too long": Case(run("--prompts", "x" * 300), USAGE, "cannot be read: File name too long"),
    "unknown category": Case(
        run("--category", "cooking"), USAGE, "refusalkit-166 has no category cooking; it has: "
    ),
    "misspelt category": Case(run("--category", "wepons"), USAGE, "did you mean weapons?"),
    "misspelt hard line": Case(run("--hard-line", "wepons"), USAGE, "did you mean weapons?"),
    "unknown tag": Case(
        run("--tag", "form:haiku"), USAGE, "no prompt of refusalkit-166 passes the filt"
    ),
    "a folder that is not a set": Case(run("--prompts", "."), USAGE, "it has no set.toml"),
    "set.toml broken": Case(
        ("prompts", "validate", "."), USAGE, "set.toml: file: is not TOML", {"set.toml": "name ="}
    ),
    "set.toml with mistakes": Case(
        ("prompts", "show", "."),
        USAGE,
        "  set.toml:2: version: string should match pattern",
        {"set.toml": SET_TOML.replace("1.0.0", "one")},
    ),
    "many mistakes": Case(
        ("prompts", "validate", "."),
        USAGE,
        "  tea.jsonl:2: line: is not JSON",
        {"set.toml": SET_TOML, "tea.jsonl": '{"id": "a", "text": ""}\nnonsense\n'},
    ),
    "empty CSV": Case(run("--prompts", "a.csv"), USAGE, "cannot be read as CSV", {"a.csv": ""}),
    "CSV without prompts": Case(
        run("--prompts", "a.csv"), USAGE, "a table needs a `prompt`", {"a.csv": "a,b\n1,2\n"}
    ),
    "HTML in place of CSV": Case(
        run("--prompts", "a.csv"), USAGE, "is a web page", {"a.csv": "<html>\n<body>\n</html>"}
    ),
    "spreadsheet": Case(run("--prompts", "a.xlsx"), USAGE, "a.xlsx: file: ", {"a.xlsx": b"PK"}),
    "picture as JSONL": Case(
        run("--prompts", "a.jsonl"), USAGE, "is not UTF-8", {"a.jsonl": b"\x89PNG\r\n\xff\x00"}
    ),
    "text as Parquet": Case(
        run("--prompts", "a.parquet"), USAGE, "as PARQUET", {"a.parquet": "prompt,category"}
    ),
    "CSV in Latin-1": Case(
        run("--prompts", "a.csv"),
        USAGE,
        "cannot be read as CSV",
        {"a.csv": "prompt,category\n[\xfcber],Tea\n".encode("latin-1")},
    ),
    # judges
    "no such judge": Case(run("--judge", "grated"), USAGE, "did you mean graded?"),
    "judge file broken": Case(
        run("--judge", "./a.toml"), USAGE, "is not TOML", {"a.toml": JUDGE_FILE[:-20]}
    ),
    "judge file without labels": Case(
        run("--judge", "./a.toml"),
        USAGE,
        "[labels] must name each value of `verdict`",
        {"a.toml": JUDGE_FILE.replace('partial = "partial"\n', "")},
    ),
    "judge file without answer": Case(
        ("judges", "show", "./a.toml"),
        USAGE,
        "the template must hold {{answer}} exactly once",
        {"a.toml": JUDGE_FILE.replace("{{answer}}", "")},
    ),
    "lexical rules broken": Case(
        run("--judge", "./a.toml"),
        USAGE,
        "a.toml: rules.",
        {"a.toml": 'name="a"\nversion=1\nkind="lexical"\ndescription="x"\n[rules]\nx = 1\n'},
    ),
    "judge model for lexical": Case(
        run("--judge", "lexical", "--judge-model", "openai/x"),
        USAGE,
        "asks no model: leave out --judge-model",
    ),
    "judge to show missing": Case(("judges", "show", "grated"), USAGE, "no judge grated"),
    # where to write
    "out not empty": Case(
        run("--out", "full"), USAGE, "exists and is not empty", prepare=lambda f: make(f / "full")
    ),
    "out a file": Case(run("--out", "a"), USAGE, "a is a file: choose another", {"a": ""}),
    "out below a file": Case(run("--out", "a/b"), FAILED, "cannot write a/b: Not a", {"a": ""}),
    "out a run": Case(
        run("--out", "made"),
        FAILED,
        "made holds another run: model is",
        prepare=lambda f: write_run(f / "made"),
    ),
    "out a run, and fresh": Case(
        run("--out", "made", "--fresh"),
        USAGE,
        "resume made`",
        prepare=lambda f: write_run(f / "made"),
    ),
    "out too long": Case(run("--out", "x" * 300), FAILED, "File name too long"),
    # runs to read
    "no such run": Case(("score", "nowhere"), USAGE, "nowhere is not a run: there is no such"),
    "a folder that is not a run": Case(
        ("audit", "."), USAGE, ". is not a run: it has no manifest.js"
    ),
    "a file in place of a run": Case(("score", "a"), USAGE, "a cannot be read: Not a", {"a": ""}),
    "manifest broken": Case(
        ("score", "made"), USAGE, "manifest.json is not JSON", {"made/manifest.json": '{"schema'}
    ),
    "manifest an array": Case(
        ("score", "made"), USAGE, "has schema version None", {"made/manifest.json": "[1, 2]"}
    ),
    "manifest of a newer schema": Case(
        ("score", "made"),
        USAGE,
        "has schema version 99, this refusalkit reads 1: use the version that wrote it",
        prepare=lambda f: edit_manifest(f, schema_version=99),
    ),
    "manifest without trials": Case(
        ("score", "made"),
        USAGE,
        "manifest.json: trials: ",
        prepare=lambda f: edit_manifest(f, trials="some"),
    ),
    "manifest with an unknown judge": Case(
        ("resume", "made"),
        USAGE,
        "manifest.json: record: `judge` is not one of `judges`",
        prepare=lambda f: edit_manifest(f, judge="somebody"),
    ),
    "manifest with an edited configuration": Case(
        ("resume", "made"),
        FAILED,
        "is not the one the run was started with (config_digest): undo the edit",
        prepare=lambda f: edit_manifest(f, config={"model": "demo/open"}),
    ),
    "manifest with a broken configuration": Case(
        ("resume", "made"),
        USAGE,
        "manifest.json: config.trials: ",
        prepare=lambda f: edit_manifest(f, config={"model": "demo/open", "trials": 0}),
    ),
    "completions broken in the middle": Case(
        ("score", "made"),
        USAGE,
        "completions.jsonl:3: is not JSON",
        prepare=lambda f: edit_lines(f, "completions.jsonl", lambda x: [*x[:2], b"{", *x[2:]]),
    ),
    "verdicts of another schema": Case(
        ("audit", "made"),
        USAGE,
        "verdicts.jsonl:1: has schema 7, this refusalkit reads 1",
        prepare=lambda f: edit_lines(f, "verdicts.jsonl", lambda x: [b'{"schema": 7}', *x]),
    ),
    "completions of another shape": Case(
        ("score", "made"),
        USAGE,
        "completions.jsonl",
        prepare=lambda f: edit_lines(
            f, "completions.jsonl", lambda x: [x[0].replace(b'"trial":1', b'"trial":"1"'), *x[1:]]
        ),
    ),
    "completions gone": Case(
        ("score", "made"),
        USAGE,
        "completions.jsonl cannot be read",
        prepare=lambda f: (write_run(f / "made").completions).unlink(),
    ),
    "unknown judge": Case(
        ("score", "made", "--judge", "lexical"),
        USAGE,
        "the judge lexical is not of this run; it has: graded:anthropic/claude-sonnet-5-5",
        prepare=lambda f: write_run(f / "made"),
    ),
    "audit of nothing": Case(
        ("audit", "made"),
        USAGE,
        "has no hard-line category, so there is nothing to audit",
        prepare=lambda f: write_run(f / "made", HELD, hard_lines=()),
    ),
    "bound not a number": Case(
        ("audit", "made", "--bound", "nan"),
        USAGE,
        "it must be above 0 and at most 100 %",
        prepare=lambda f: write_run(f / "made"),
    ),
    # resume
    "nothing to resume": Case(("resume", "nowhere"), USAGE, "nowhere is not a run"),
    "resume with other trials": Case(
        ("resume", "made", "--trials", 9),
        FAILED,
        "trials is 9, but the run was started with 1: start a new run to change it",
        prepare=write_demo,
    ),
    "resume with another model": Case(
        ("resume", "made", "--model", "demo/open"),
        FAILED,
        'model is "demo/open", but the run was started with "demo/mixed"',
        prepare=write_demo,
    ),
    "resume with another judge": Case(
        ("resume", "made", "--judge", "graded"),
        FAILED,
        'judge is "graded", but the run was started with its default: start a new run to change '
        "it, or judge its answers again with `refusalkit regrade`",
        prepare=write_demo,
    ),
    "resume of prompts made in Python": Case(
        ("resume", "made"), FAILED, "were built in Python", prepare=lambda f: write_run(f / "made")
    ),
    # recorded answers
    "answers missing": Case(("grade", "a.jsonl"), USAGE, "a.jsonl is not a file: give a .jsonl"),
    "answers a folder": Case(("grade", "."), USAGE, ". is not a file: give a .jsonl file"),
    "answers empty": Case(("grade", "a"), USAGE, "a holds no answers", {"a": "\n"}),
    "answers no JSON": Case(("grade", "a"), USAGE, "a:1: is not JSON", {"a": "prompt,response\n"}),
    "answers in UTF-16": Case(
        ("grade", "a"), USAGE, "a:1: is not UTF-8", {"a": records(RECORD).encode("utf-16")}
    ),
    "answer missing": Case(
        ("grade", "a"), USAGE, "a:2: response: is missing", {"a": records(RECORD, {"prompt": "x"})}
    ),
    "answer not text": Case(
        ("grade", "a"), USAGE, "a:1: response: ", {"a": records({**RECORD, "response": ["x"]})}
    ),
    "unknown label": Case(
        ("grade", "a"), USAGE, "a:1: label: ", {"a": records({**RECORD, "label": "refused"})}
    ),
    "trial 0": Case(("grade", "a"), USAGE, "a:1: trial: ", {"a": records({**RECORD, "trial": 0})}),
    "answer twice": Case(
        ("grade", "a"),
        USAGE,
        "a:2: id: 'a' with trial 1 appears twice",
        {"a": records({**RECORD, "trial": 1}, {**RECORD, "trial": 1})},
    ),
    "id with another prompt": Case(
        ("grade", "a"),
        USAGE,
        "a:2: id: 'a' is already used with another prompt or category",
        {"a": records(RECORD, {**RECORD, "prompt": "[other]"})},
    ),
    "answers nested": Case(("grade", "a"), USAGE, "a:1: is nested too", {"a": "[" * 100_000}),
    "answers with too long a name": Case(
        ("grade", "x" * 300, "--judge", "lexical"), USAGE, "cannot be read: File name too long"
    ),
    "answers that are not there": Case(
        ("grade", "nowhere.json", "--judge", "lexical"), USAGE, "nowhere.json is not a file"
    ),
    "no key to grade": Case(
        ("grade", "a"), FAILED, "set ANTHROPIC_API_KEY", {"a": records(RECORD)}
    ),
    "grade into a run": Case(
        ("grade", "a", "--judge", "lexical", "--out", "made"),
        USAGE,
        "made holds a run: choose another --out",
        {"a": records(RECORD)},
        lambda f: write_run(f / "made"),
    ),
}


def make(folder: Path) -> None:
    folder.mkdir()
    (folder / "something").touch()


def arrange(case: Case, folder: Path) -> None:
    if case.prepare is not None:
        case.prepare(folder)
    for name, content in (case.files or {}).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def runs_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("manifest.json"))


def is_one_sentence(text: str) -> bool:
    """One line of ours; a prompt set's mistakes may follow it, indented."""
    first, *rest = text.splitlines()
    return first.startswith("refusalkit: ") and all(line.startswith("  ") for line in rest)


def test_there_are_more_than_50_kinds() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_in_one_sentence(name: str, call: Call, tmp_path: Path) -> None:
    case = CASES[name]
    arrange(case, tmp_path)
    before = runs_in(tmp_path)
    said = call(*case.words)
    assert case.says in said.err
    assert said.status == case.status
    assert said.out == ""
    assert is_one_sentence(said.err)
    assert re.search("Traceback|a defect of refusalkit", said.err) is None
    assert runs_in(tmp_path) == before, "no new run is left behind"
    assert "secret" not in said.err


@pytest.mark.parametrize(
    "name", ["unknown option", "no key", "set.toml broken", "completions broken in the middle"]
)
def test_the_program_says_the_same(name: str, call: Call, tmp_path: Path) -> None:
    case = CASES[name]
    arrange(case, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "refusalkit", *map(str, case.words)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    said = call(*case.words)
    assert done.returncode == case.status
    assert done.stdout == ""
    assert done.stderr.replace("python -m refusalkit", "refusalkit") == said.err


def test_one_bad_set_does_not_hide_the_next(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    said = call("prompts", "validate", "a.csv", "starter", "nowhere")
    assert said.status == USAGE
    assert said.out.startswith("starter 2.0.0: 35 prompts, no mistakes\n")
    assert said.err.count("refusalkit: ") == 2


def test_where_nothing_listens_the_run_can_be_resumed(call: Call, tmp_path: Path) -> None:
    words = ("--api-base", "http://127.0.0.1:9/v1", "--judge", "lexical", "--max-retries", 0)
    said = call("run", "local/x", *words, "--limit", 6, "--out", "made")
    assert said.status == FAILED
    destination, failure = said.err.splitlines()
    assert destination.startswith("refusalkit: prompts go to http://127.0.0.1:9 ")
    assert is_one_sentence(failure)
    assert "requests in a row failed" in said.err
    assert said.err.endswith("go on with: refusalkit resume made\n")
    assert call("resume", "made").status == FAILED
