"""A campaign: run folders as a hostile vendor might send them, given to every command.

Manifests, records, checkpoints and links are changed at random. Whatever comes of it: nothing
outside the folder changes, no planted key leaves, no withheld marker appears, and each command ends
within ten seconds in one sentence.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopback import LoopbackServer, Script
from refusalkit.cli import main

KEYS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-key-0123456789",
    "HF_TOKEN": "planted-hub-key-0123456789",
    "GROQ_API_KEY": "planted-groq-key-0123456789",
    "OPENAI_API_KEY": "planted-openai-key-0123456789",
}
MARKER = "[withheld marker 5209]"
OUTSIDE = b"# nothing may change here\n"
RECORDS = (
    *("completions.jsonl", "verdicts.jsonl", "canaries.jsonl"),
    *("checkpoint.jsonl", "pressure.jsonl", "batches.jsonl"),
)
FILES = ("manifest.json", *RECORDS)
LONGEST_S = 10.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@pytest.fixture(scope="module")
def attacker() -> Iterator[LoopbackServer]:
    """Answers every request with a marker, so that what is written of an answer shows."""
    with LoopbackServer(Script(refusal_rate=0.0, answer=MARKER)) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, attacker: LoopbackServer) -> Path:
    """A run of hard lines at the attacker's server, that owes its last units."""
    out = tmp_path_factory.mktemp("made") / "run"
    at = ("--api-base", attacker.openai_base, "--judge-api-base", attacker.openai_base)
    lines = ("--category", "suicide-and-self-harm", "--limit", 3, "--trials", 1, "--canaries", 1)
    judge = ("--judge", "graded", "--judge-model", "openai/judge-x")
    _, status, err, _ = call("run", "openai/target", *at, *lines, *judge, "--out", out)
    assert status in (0, 1), err
    for name in ("completions.jsonl", "verdicts.jsonl"):
        path = out / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    return out


def call(*words: object) -> tuple[str, int, str, float]:
    """(stdout, exit status, stderr, seconds) of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    # Its own time: the machine may be busy with something else.
    began = time.process_time()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["refusalkit", *map(str, words)]),
        mock.patch.dict(os.environ, {**KEYS, "COLUMNS": "80"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY"):
            os.environ.pop(name, None)
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
    return out.getvalue(), status, err.getvalue(), time.process_time() - began


def commands(run: Path, beside: Path) -> list[tuple[object, ...]]:
    return [
        ("score", run),
        ("score", run, "--by", "language", "--json"),
        ("audit", run),
        ("audit", run, "--all", "--format", "markdown"),
        *(("report", run, "-o", beside / f"report.{form}") for form in ("md", "html", "json")),
        ("report", run, "-o", beside / "units.csv"),
        ("verify", run),
        ("export", run, "--to", "bundle", beside / "bundle.zip"),
        ("export", run, "--to", "every-eval-ever", beside / "exported"),
        ("export", run, "--to", "inspect", beside / "inspect.json"),
        ("verify", beside / "bundle.zip"),
        ("runs", run.parent),
        ("show", run, "suicide-and-self-harm-01#1"),
        ("batches", run),
        ("batches", run, "--cancel"),
        ("merge", run, run, "--out", beside / "merged"),
        ("judges", "label", run, "--out", beside / "labels.jsonl"),
        ("estimate", "openai/target", "--prompts", run),
        ("compare", run, run),
        ("leaderboard", run),
        ("grade", run, "--judge", "lexical"),
        ("judges", "agree", run, "--judge", "lexical"),
        ("judges", "bridge", "graded", "lexical", run),
        ("regrade", run, "--judge", "lexical"),
        ("regrade", run, "--judge", "graded", "--judge-model", "openai/judge-x"),
        ("resume", run),
        ("resume", run, "--trust-folder"),
    ]


# All of them take a minute with each folder.
chosen = st.lists(st.integers(0, 33), min_size=8, max_size=12, unique=True)


# What a vendor writes into a manifest.

paths = st.sampled_from(["/etc/passwd", "../../home/.bashrc", "//host/share/set", "", "demo", "\0"])
values = st.one_of(
    st.sampled_from([*KEYS, "kept", "withheld", "openai/x", "groq/x", "demo/open", "grade"]),
    st.sampled_from([10**30, -1, 0, 2**63, 1e308, float("nan"), True, False, None]),
    st.sampled_from([[], {}, [[]], {"a": {"b": 1}}, "\ud800", "\x1b]0;owned\x07", "a" * 5000]),
    st.sampled_from([["graded:openai/judge-x"], {"suicide-and-self-harm-01": "x"}, "1/2", "=1+1"]),
    paths,
)
FIELDS = (
    ("config", "api_base"),
    ("config", "api_key_env"),
    ("config", "judge_api_base"),
    ("config", "judge_api_key_env"),
    ("config", "via"),
    ("config", "model"),
    ("config", "extra_body"),
    ("config", "keep_hard_line_text"),
    ("config", "max_cost"),
    ("config", "trials"),
    ("hard_line_text",),
    ("kind",),
    ("trials",),
    ("n_units",),
    ("judge",),
    ("seal",),
    ("prompt_set", "source"),
    ("prompt_set", "digest"),
    ("prompt_set", "categories", 0, "hard_line"),
    ("prompt_set", "categories", 0, "n_units"),
    ("prompt_set", "categories"),
    ("judges", "graded:openai/judge-x", "source"),
    ("judges", "graded:openai/judge-x", "model"),
    ("sessions", 0, "operational"),
    ("sessions", 0, "judge"),
    ("id",),
    *(("config", name) for name in ("batch", "shard", "pressure", "judge", "prompts", "order")),
    *(("prompt_set", name) for name in ("twins", "framed", "languages", "translations", "tags")),
    *(("prompt_set", name) for name in ("danger", "parts", "selection", "name", "version")),
    ("prompt_set", "categories", 0, "slug"),
    ("prompt_set", "categories", 0, "title"),
    ("judges", "graded:openai/judge-x", "members"),
    ("judges", "graded:openai/judge-x", "fallback"),
    ("judges", "graded:openai/judge-x", "kind"),
    ("parameters",),
    ("parameters", "model"),
    ("refusalkit",),
    ("packages",),
    ("config_digest",),
    ("schema",),
)


@st.composite
def manifests(draw: st.DrawFn) -> list[tuple[tuple[Any, ...], Any]]:
    return draw(st.lists(st.tuples(st.sampled_from(FIELDS), values), max_size=4))


links = st.lists(
    st.tuples(
        st.sampled_from([*FILES, ".lock", ".manifest.json.new", "labels", "report.html"]),
        st.sampled_from(["link", "hard link", "pipe", "folder", "device", "loop", "gone"]),
    ),
    max_size=2,
)
damage = st.lists(
    st.tuples(
        st.sampled_from(RECORDS),
        st.sampled_from(["cut", "garbage", "twice", "text", "unit", "category", "deep", "huge"]),
    ),
    max_size=2,
)


def change(data: Any, place: tuple[Any, ...], value: Any) -> None:
    for step in place[:-1]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return
    with contextlib.suppress(TypeError, IndexError):
        data[place[-1]] = value


def hurt(path: Path, how: str) -> None:
    """Damage a record file."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    records: list[dict[str, Any]] = [{}]
    with contextlib.suppress(IndexError, ValueError, RecursionError):  # damaged before
        records = [json.loads(lines[0])]
    forged: dict[str, Any] = {
        "text": {"text": MARKER[::-1]},
        "unit": {"unit": "../../x#1", "prompt_id": "../../x"},
        "category": {"category": "\x1b[31mnone"},
        "huge": {"trial": 10**30, "cost_usd": 1e308, "text_chars": -(10**18)},
    }
    if how in forged:
        records[0] |= forged[how]
        lines.append(json.dumps(records[0]).encode() + b"\n")
    elif how == "cut":
        lines = [*lines[:-1], b'{"schema": 1, "unit"']
    elif how == "garbage":
        lines.append(b"\xff\xfe\x00{]\n")
    elif how == "twice":
        lines += lines
    else:
        lines.append(b"[" * 100_000 + b"\n")
    path.write_bytes(b"".join(lines))


def plant(path: Path, what: str, outside: Path) -> None:
    """Put something else where a file should be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to(outside / ".bashrc")
    elif what == "hard link":
        path.hardlink_to(outside / ".bashrc")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "loop":
        path.symlink_to(path.name)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
@settings(suppress_health_check=list(HealthCheck))
@given(changes=manifests(), base=st.booleans(), planted=links, damaged=damage, asked=chosen)
def test_whatever_a_vendor_sends(
    made: Path,
    attacker: LoopbackServer,
    changes: list[tuple[tuple[Any, ...], Any]],
    base: bool,
    planted: list[tuple[str, str]],
    damaged: list[tuple[str, str]],
    asked: list[int],
) -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        outside, run = Path(scratch, "home"), Path(scratch, "received", "run")
        outside.mkdir()
        (outside / ".bashrc").write_bytes(OUTSIDE)
        shutil.copytree(made, run)
        data = json.loads((run / "manifest.json").read_bytes())
        for place, value in changes:
            change(data, place, value)
        if not base:
            data["config"] |= {"api_base": None, "judge_api_base": None, "model": "demo/open"}
        (run / "manifest.json").write_text(json.dumps(data), "utf-8")
        for name, how in damaged:
            hurt(run / name, how)
        for name, what in planted:
            plant(run / name, what, outside)
        own = data == json.loads((made / "manifest.json").read_bytes())
        before = contents(outside)
        n_before = len(attacker.log)
        every = commands(run, Path(scratch))
        for words in (every[place] for place in sorted(asked) if place < len(every)):
            out, status, err, seconds = call(*words)
            assert status in range(5), (words, status, err)
            assert "a defect of refusalkit" not in err, (words, err)
            assert "Traceback" not in err + out, (words, err)
            assert seconds < LONGEST_S, (words, seconds)
            assert contents(outside) == before, words
            shown = out + err
            assert not any(key in shown for key in KEYS.values()), words
            assert "\x1b" not in shown, words
            assert MARKER not in shown, words
            if not own and "--trust-folder" not in words:
                assert len(attacker.log) == n_before, (words, err)
        for exchange in attacker.log[n_before:]:
            sent = repr(exchange)
            assert not any(KEYS[name] in sent for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN"))
        for path in Path(scratch).rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert MARKER.encode() not in path.read_bytes(), path
