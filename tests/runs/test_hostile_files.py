"""Links, pipes, devices in a run folder: nothing outside is written, nothing is waited for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, Called
from refusalkit import files
from refusalkit.runs.manifest import Manifest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")

OUTSIDE = b"alias ls='ls --color'\n"
RECORDS = ("completions.jsonl", "verdicts.jsonl", "canaries.jsonl")
ALL = ("manifest.json", *RECORDS, "checkpoint.jsonl", ".lock", "report.html", "labels")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    wanted = ("assault", "suicide-and-self-harm")
    rk.benchmark("demo/mixed", out=out, category=wanted, limit=4, trials=2, concurrency=1)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run that owes its last unit."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for name in ("completions.jsonl", "verdicts.jsonl"):
        lines = (copy / name).read_bytes().splitlines(keepends=True)
        (copy / name).write_bytes(b"".join(lines[:-1]))
    return copy


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the user's that a stranger's link points at."""
    path = tmp_path / "home" / ".bashrc"
    path.parent.mkdir()
    path.write_bytes(OUTSIDE)
    return path


def commands(run: Path) -> list[tuple[Any, ...]]:
    """Every command that takes a run."""
    return [
        ("score", run),
        ("audit", run),
        ("report", run),
        ("report", run, "-o", run.parent / "out.html", "--show-text"),
        ("compare", run, run),
        ("leaderboard", run),
        ("resume", run),
        ("regrade", run, "--judge", "lexical"),
        ("grade", run, "--judge", "lexical"),
        ("judges", "agree", run, "--judge", "lexical"),
        ("judges", "bridge", "lexical", "lexical", run),
        ("estimate", "demo/mixed", "--limit", 3),
    ]


def ended_in_good_order(done: Called) -> None:
    assert "defect" not in done.err, done.err
    assert "Traceback" not in done.err
    assert done.status in range(5)


def tree(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    return {
        str(path): (path.read_bytes() if path.is_file() else None, path.lstat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["symbolic", "dangling", "hard", "folder"])
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_written_through_a_link(
    call: Call, run: Path, outside: Path, name: str, kind: str
) -> None:
    link = run / name
    if link.is_dir():
        shutil.rmtree(link)
    content = link.read_bytes() if link.is_file() else OUTSIDE
    link.unlink(missing_ok=True)
    if kind == "hard":
        # What is appended would be valid records: the file outside is one's own run's.
        outside.write_bytes(content)
        link.hardlink_to(outside)
    elif kind == "folder":
        link.mkdir()
    elif kind == "symbolic":
        outside.write_bytes(content)
        link.symlink_to(outside)
    else:
        link.symlink_to(outside.parent / "not-there")
    before = tree(outside.parent)
    for command in commands(run):
        ended_in_good_order(call(*command))
        assert tree(outside.parent) == before, command


@pytest.mark.parametrize("name", [".manifest.json.new", ".checkpoint.jsonl.new", ".completions"])
def test_a_link_where_a_file_is_made_beside_its_place_does_no_harm(
    call: Call, run: Path, outside: Path, name: str
) -> None:
    (run / name).symlink_to(outside)
    done = call("resume", run)
    assert done.status in (0, 1, 3), done.err
    assert outside.read_bytes() == OUTSIDE
    assert len((run / "completions.jsonl").read_bytes().splitlines()) == 8


def test_the_records_of_a_copy_that_shares_its_files_grow_alone(
    call: Call, run: Path, tmp_path: Path
) -> None:
    """`cp -al` makes a backup whose files are the run's own."""
    backup = tmp_path / "backup"
    shutil.copytree(run, backup, copy_function=os.link)
    before = tree(backup)
    assert call("resume", run).status in (0, 1, 3)
    assert len((run / "completions.jsonl").read_bytes().splitlines()) == 8
    assert {name: data for name, (data, _) in tree(backup).items()} == {
        name: data for name, (data, _) in before.items()
    }


@pytest.mark.parametrize("name", ["labels", "labels/me.jsonl"])
def test_labels_are_not_written_through_a_link(
    call: Call, run: Path, outside: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "/" in name:
        (run / "labels").mkdir()
        (run / name).symlink_to(outside)
    else:
        (run / name).symlink_to(outside.parent)
    before = tree(outside.parent)
    with pytest.raises(rk.RefusalkitError), rk.open_labelling(run) as _:
        pass
    assert tree(outside.parent) == before


@pytest.mark.parametrize("command", ["run", "grade"])
def test_an_output_folder_that_is_a_link_is_refused(
    call: Call, outside: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "out").symlink_to(outside.parent)
    (tmp_path / "answers.jsonl").write_text('{"prompt": "p", "response": "[demo answer]"}\n')
    words = {
        "run": ("run", "demo/open", "--limit", 3, "--trials", 1),
        "grade": ("grade", "answers.jsonl", "--judge", "lexical"),
    }[command]
    outside.unlink()
    refused = call(*words, "--out", "out")
    assert refused.status == 2
    assert "is a link to" in refused.err
    assert list(outside.parent.iterdir()) == []


@pytest.mark.parametrize("how", ["junit", "report", "calibration"])
def test_an_output_file_that_is_a_link_is_refused(
    call: Call, run: Path, outside: Path, tmp_path: Path, how: str
) -> None:
    link = tmp_path / {"junit": "audit.xml", "report": "r.html", "calibration": "c.json"}[how]
    link.symlink_to(outside)
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"prompt": "p", "response": "[demo answer]", "label": "compliance"}\n')
    words: dict[str, tuple[Any, ...]] = {
        "junit": ("audit", run, "--junit", link),
        "report": ("report", run, "-o", link, "--force"),
        "calibration": ("judges", "calibrate", "lexical", "--labels", labels, "--out", link),
    }
    refused = call(*words[how])
    assert refused.status == 4, refused.err
    assert "it is a link to" in refused.err
    assert outside.read_bytes() == OUTSIDE


@pytest.mark.parametrize("suffix", ["html", "md", "json", "csv", "parquet"])
def test_a_report_replaces_only_a_report(
    call: Call, run: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(OUTSIDE)
    refused = call("report", run, "-o", path)
    assert refused.status == 2
    assert "--force" in refused.err
    assert path.read_bytes() == OUTSIDE
    assert call("report", run, "-o", path, "--force").status == 0
    assert call("report", run, "-o", path).status == 0  # one of ours by now


def test_what_is_written_is_private_whatever_the_umask(
    call: Call, run: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"prompt": "p", "response": "[demo answer]", "label": "compliance"}\n')
    calibrate = ("judges", "calibrate", "lexical", "--labels", labels)
    before = os.umask(0)
    try:
        call("audit", run, "--junit", "audit.xml")
        call(*calibrate, "--out", "c.json", "--verdicts", tmp_path / "new" / "verdicts")
        call("prompts", "convert", "starter", "made/set")
        call("run", "demo/open", "--limit", 3, "--trials", 1, "--out", "below/a/run")
        call("report", run, "-o", "page.html")
    finally:
        os.umask(before)
    made = ["audit.xml", "c.json", "new", "made", "below"]
    paths = [tmp_path / name for name in made]
    paths += [path for name in made for path in (tmp_path / name).rglob("*")]
    assert len(paths) > 40
    for path in paths:
        assert path.stat().st_mode & 0o077 == 0, path
    # A page is made to be shown, and yet only its owner may change it.
    assert (tmp_path / "page.html").stat().st_mode & 0o022 == 0


# Pipes, devices, endless files


def refusalkit(*words: object, cwd: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """The command in a process of its own, which a test can wait for with a bound."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "refusalkit", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize("name", ["manifest.json", *RECORDS, "checkpoint.jsonl", ".lock"])
def test_a_pipe_in_a_run_folder_is_waited_for_by_no_command(
    call: Call, run: Path, name: str
) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    try:
        for command in commands(run):
            signal.alarm(30)
            ended_in_good_order(call(*command))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "demo/open", "--prompts", "FILE.jsonl"),
        ("run", "demo/open", "--prompts", "FILE.csv"),
        ("run", "demo/open", "--prompts", "xstest:FILE.csv"),
        ("run", "demo/open", "--config", "FILE.toml"),
        ("run", "--plan", "FILE.toml"),
        ("run", "demo/open", "--judge", "FILE.toml", "--limit", "3"),
        ("prompts", "validate", "FILE.jsonl"),
        ("prompts", "validate", "SET"),
        ("prompts", "show", "FILE.parquet"),
        ("prompts", "convert", "FILE.xlsx", "--out", "made"),
        ("grade", "FILE.jsonl", "--judge", "lexical"),
        ("grade", "LOG", "--judge", "lexical"),
        ("judges", "show", "FILE.toml"),
        ("judges", "calibrate", "lexical", "--labels", "FILE.jsonl"),
        ("judges", "agree", "FILE.jsonl"),
        ("score", "RUN", "--calibration", "FILE.json"),
        ("score", "RUN", "--labels", "FILE.jsonl"),
        ("report", "RUN", "--calibration", "FILE.json"),
    ],
    ids=lambda words: " ".join(words[:2] + words[-1:]),
)
def test_a_pipe_or_a_device_for_a_file_is_reported_at_once(
    call: Call, run: Path, tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    def place(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero")

    named = []
    for word in words:
        if word == "RUN":
            word = str(run)
        elif word in ("SET", "LOG"):
            place(tmp_path / word / {"SET": "set.toml", "LOG": "samples.jsonl"}[word])
        elif "FILE" in word:
            place(tmp_path / word.rpartition(":")[2])
        named.append(word)

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        done = call(*named)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert done.status in (2, 4), done.err
    ended_in_good_order(done)
    assert len(done.err.splitlines()) <= 2, done.err


# Numbers


def test_every_number_of_a_manifest_has_a_bound() -> None:
    def unbounded(schema: Any, way: str) -> Iterator[str]:
        if isinstance(schema, list):
            for inner in schema:
                yield from unbounded(inner, way)
        elif isinstance(schema, dict):
            bounded = "const" in schema or {"minimum", "maximum"} <= schema.keys()
            if schema.get("type") in ("integer", "number") and not bounded:
                yield way
            for name, inner in schema.items():
                yield from unbounded(inner, f"{way}.{name}")

    assert list(unbounded(Manifest.model_json_schema(), "")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"trials": 10**30},
        {"trials": 10**9},
        {"n_units": 10**30},
        {"n_units": -5},
        {"trials": 1e308},
        {"n_units": float("nan")},
        {"prompt_set.n_prompts": 10**30},
        {"prompt_set.n_prompts": -1},
        {"category.n_units": 10**30},
        {"category.n_prompts": 10**30},
        {"category.n_units": -(10**30)},
        {"shard": {"number": 1, "of": 10**30, "n_units": 8}},
        {"pressure": {"script": "x", "version": "1", "digest": "x", "turns": 10**30}},
        {"prompt_set.selection": {"hard_lines": {"assault": 10**30}}},
        {"prompt_set.selection": {"open_hard_lines": ["assault"]}},
        {"prompt_set.selection": {"categories": 5}},
    ],
    ids=str,
)
def test_a_number_that_no_run_can_have_is_reported(
    call: Call, run: Path, change: dict[str, Any]
) -> None:
    data = json.loads((run / "manifest.json").read_bytes())
    for name, value in change.items():
        where, _, field = name.rpartition(".")
        entry = {
            "": data,
            "prompt_set": data["prompt_set"],
            "category": data["prompt_set"]["categories"][0],
        }[where]
        entry[field] = value
    if "shard" in change:
        data["shard"]["prompt_set"] = data["prompt_set"]
    (run / "manifest.json").write_text(json.dumps(data))
    for command in commands(run):
        began = time.monotonic()
        done = call(*command)
        ended_in_good_order(done)
        assert time.monotonic() - began < 20
    told = call("score", run)
    assert told.status == 2
    assert "manifest.json" in told.err


def test_a_calibration_of_more_prompts_than_anybody_labels_is_reported(
    call: Call, run: Path, tmp_path: Path
) -> None:
    """Its counts add up: a prompt without answers may stand there any number of times."""
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"prompt": "p", "response": "[demo answer]", "label": "compliance"}\n')
    calibration = tmp_path / "c.json"
    call("judges", "calibrate", "lexical", "--labels", labels, "--out", calibration)
    data = json.loads(calibration.read_text())
    for times in ([10**30], [10**6] * 2):
        empty = [{"times": n, "cells": {}} for n in times]
        calibration.write_text(json.dumps({**data, "prompts": [*data["prompts"], *empty]}))
        for words in (("score", run), ("report", run), ("compare", run, run)):
            ended = call(*words, "--calibration", calibration)
            assert ended.status == 2, words
            assert "prompts" in ended.err


def test_a_file_that_is_many_times_as_large_in_memory_is_refused(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """250 MB of empty lists take 6 GB: what they stand in is told, and nothing else read."""
    monkeypatch.setattr(files, "_MAX_CONTAINERS", 1000)
    many: dict[str, Any] = {"x": [[]] * 1000}
    log = run.parent / "log"
    log.mkdir()
    (log / "samples.jsonl").write_text('{"prompt": "[a]", "response": "[b]", "is_refusal": true}\n')
    (log / "metrics.json").write_text(json.dumps(many))
    (run.parent / "cal.json").write_text(json.dumps(many))
    (run.parent / "promptfoo.json").write_text(json.dumps({"results": {"results": [many]}}))
    asked = {
        "cal.json": ("score", run, "--calibration", run.parent / "cal.json"),
        "metrics.json": ("grade", log, "--judge", "lexical"),
        "promptfoo.json": ("grade", run.parent / "promptfoo.json", "--judge", "lexical"),
    }
    for name, words in asked.items():
        done = call(*words)
        assert (done.status, done.out) == (2, "")
        assert name in done.err
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, **many}))
    for words in (("score", run), ("resume", run), ("verify", run)):
        done = call(*words)
        assert (done.status, done.out) == (2, "")
        assert "it holds more than" in done.err
