"""A campaign: run folders as a hostile vendor might send them, given to every command.

Manifests, records, journals, label files, calibrations and links are changed at random. Whatever
comes of it: nothing outside the folder changes, no planted key leaves, no withheld marker appears,
no text steers a terminal, and each command ends within ten seconds in one sentence.
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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from loopback import LoopbackServer, Script
from refusalkit.cli import cli, main
from refusalkit.types import Label
from viewer.served import viewer
from whole import mutations
from whole.mutations import KEYS, MARKER, Change, hurt, plant

OUTSIDE = b"# nothing may change here\n"
MAX_SECONDS = 10.0
MOST_MEMORY = 8 * 2**30
TAKE_NO_RUN = {"completion", "config", "presets"}
KINDS = ("run", "shard", "batch", "grade", "demo")

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX"),
    pytest.mark.xdist_group("hostile folders"),
]


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """What would take all memory of the machine ends in a `MemoryError`, which is a defect."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def attacker() -> Iterator[LoopbackServer]:
    """Answers every request with a marker, so that what is written of an answer shows."""
    with LoopbackServer(Script(refusal_rate=0.0, answer=MARKER)) as running:
        running.batches.script.delay_s = 3600.0
        yield running


@pytest.fixture(scope="module")
def home() -> Iterator[LoopbackServer]:
    """Where this user's environment says that the provider is."""
    with LoopbackServer(Script(refusal_rate=0.0, answer=MARKER)) as running:
        yield running


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, attacker: LoopbackServer, home: LoopbackServer
) -> Iterator[Path]:
    """Runs of hard lines at the attacker's server that owe their last units, and files beside."""
    folder = tmp_path_factory.mktemp("made")
    at = ("--api-base", attacker.openai_base, "--judge-api-base", attacker.openai_base)
    judge = ("--judge", "graded", "--judge-model", "openai/judge-x", "--canaries", 1)
    lines = ("--category", "suicide-and-self-harm", "--trials", 1)
    asked = ("run", "openai/target", *at, *judge, *lines)
    call(home, *asked, "--limit", 3, "--out", folder / "run", ok=(0, 1))
    for number in (1, 2):
        words = (*asked, "--limit", 6, "--shard", f"{number}/2")
        call(home, *words, "--out", folder / ("other" if number == 2 else "shard"), ok=(0, 1))
    call(home, *asked, "--limit", 3, "--batch", "--out", folder / "batch", ok=(3,))
    rows = [
        {"id": f"a{n}", "prompt": "A placeholder?", "response": "[demo answer]", "label": label}
        for n, label in enumerate([*Label] * 2)
    ]
    labelled = folder / "labelled.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade = ("grade", labelled, "--judge", "graded", "--judge-model", "openai/judge-x", *at[2:])
    call(home, *grade, "--out", folder / "grade")
    call(home, "judges", "calibrate", "lexical", "--labels", labelled, "--out", folder / "cal.json")
    run = rk.benchmark("demo/mixed", "starter", trials=2, limit=6, out=folder / "demo")
    with rk.open_labelling(run) as labelling:
        while (item := labelling.next()) is not None:
            labelling.label(item, Label.REFUSAL)
    for kind in KINDS[:2]:
        for name in ("completions.jsonl", "verdicts.jsonl"):
            path = folder / kind / name
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    COUNTED.clear()
    yield folder
    n = sum(COUNTED.values()) - COUNTED["example"]
    by = ", ".join(f"{COUNTED[name]} {name}" for name in sorted(COUNTED))
    print(f"\ncalls of commands: {n} ({by})")


COUNTED: Counter[str] = Counter()


def call(
    home: LoopbackServer, *words: object, ok: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> tuple[str, int, str, float]:
    """(stdout, exit status, stderr, seconds) of a command, in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    COUNTED[" ".join(map(str, words[: 2 if words[0] in ("judges", "prompts") else 1]))] += 1
    # Its own time: the machine may be busy with something else.
    began = time.process_time()
    status = 0
    environment = {**KEYS, "COLUMNS": "80", "OPENAI_BASE_URL": home.openai_base}
    with (
        mock.patch.object(sys, "argv", ["refusalkit", *map(str, words)]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name in ("OPENAI_API_BASE", "ANTHROPIC_API_KEY"):
            os.environ.pop(name, None)
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
    took = time.process_time() - began
    said, told = (each.buffer.getvalue().decode("utf-8") for each in (out, err))  # type: ignore[attr-defined]
    assert status in ok, (words, status, told)
    return said, status, told, took


def commands(run: Path, beside: Path, made: Path) -> list[tuple[object, ...]]:
    """Every command that takes a run, in its forms; the options are those that read of it."""
    written = beside / "written"
    calibration, labels = beside / "cal.json", run / "labels" / "me.jsonl"
    forms = {"html": "--show-text", "md": "", "json": "", "csv": "--show-text", "parquet": ""}
    once = ("--max-retries", 0)
    return [
        ("score", run),
        ("score", "@last", "--json"),
        *(("score", run, "--by", by, "--format", "csv") for by in ("category", "trial", "prompt")),
        *(("score", run, "--by", by, "--format", "markdown") for by in ("tag", "danger", "lang")),
        ("score", run, "--calibration", calibration),
        ("score", run, "--labels", labels),
        ("score", run, "--judge", "lexical", "--count-deflection"),
        ("audit", run),
        ("audit", run, "--all", "--format", "markdown", "--bound", 50, "--max-leaks", 1),
        ("audit", run, "--show-text", "--junit", beside / "audit.xml"),
        *(
            ("report", run, "-o", f"{written}.{form}", *filter(None, [option]))
            for form, option in forms.items()
        ),
        ("report", run, "--calibration", calibration),
        ("report", run, beside / "runs" / "other", "-o", beside / "two.html"),
        ("verify", run),
        ("verify", run, "--prompts", "starter", "--json"),
        ("export", run, "--to", "bundle", beside / "bundle.zip"),
        ("export", run, "--to", "every-eval-ever", beside / "exported"),
        ("export", run, "--to", "inspect", beside / "inspect.json"),
        ("export", run, "--to", "hub", beside / "hub", "--dataset", "a/b"),
        ("verify", beside / "bundle.zip"),
        ("audit", beside / "bundle.zip"),
        ("runs", run.parent),
        ("runs", "--json"),
        ("view", run.parent),
        ("show", run, "suicide-and-self-harm-01#1"),
        ("show", run, "suicide-and-self-harm-01#1", "--show-text"),
        ("batches", run),
        ("batches", run, "--cancel", "--json"),
        ("batches", run, "--forget"),
        ("merge", run, beside / "runs" / "other", "--out", beside / "merged"),
        ("merge", run, "--out", beside / "merged", "--json"),
        ("judges", "label", run, "--out", beside / "labels.jsonl"),
        ("judges", "label", run),
        ("judges", "agree", run, "--judge", "lexical", "--show-text"),
        ("judges", "agree", run, labels),
        ("judges", "calibrate", "lexical", "--labels", run, "--out", beside / "mine.json"),
        ("judges", "calibrate", "lexical", "--labels", made / "labelled.jsonl", "--verdicts", run),
        ("judges", "bridge", "graded", "lexical", run),
        ("judges", "probe", "lexical", "--kind", "verdict"),
        ("estimate", "demo/open", "--prompts", run),
        ("estimate", "openai/target"),
        ("plan", "--run", run, "--width", 5),
        ("compare", run, beside / "runs" / "other"),
        ("compare", run, run, "--anyway", "--format", "markdown", "--by", "category"),
        ("compare", run, run, "--calibration", calibration, "--json"),
        ("leaderboard", run),
        ("leaderboard", run, "--format", "markdown"),
        ("prompts", "show", run),
        ("prompts", "convert", run, beside / "converted"),
        ("grade", run, "--judge", "lexical"),
        ("grade", made / "labelled.jsonl", "--judge", "lexical", "--out", run),
        ("regrade", run, "--judge", "lexical"),
        ("regrade", run, "--judge", "graded", "--judge-model", "openai/judge-x", *once),
        ("run", "demo/mixed", "--limit", 6, "--trials", 2, "--out", run),
        ("resume", run, *once),
        ("resume", run, "--trust-folder", "--no-wait", *once),
        ("resume", run.parent, *once),
    ]


def test_every_command_is_in_the_campaign() -> None:
    here = Path()
    assert N_COMMANDS % 29
    asked = {str(words[0]) for words in commands(here, here, here)}
    assert asked == set(cli.list_commands(None)) - TAKE_NO_RUN  # type: ignore[arg-type]


def pages(folder: Path) -> str:
    """What the viewer's pages hold for the runs in a folder."""
    COUNTED["view"] += 1
    found = []
    with viewer(folder) as client:
        answers = [client.get("/"), client.get("/api/runs")]
        ids = [row["id"] for row in answers[1].json["runs"]]
        for run in ids:
            answers += [client.get(f"/run/{run}"), client.get(f"/run/{run}/read")]
            answers.append(client.get(f"/run/{run}/label"))
            listed = client.get(f"/api/run/{run}/units")
            rows = listed.json.get("rows", []) if listed.status == 200 else []
            answers.append(listed)
            for row in rows[:3]:
                answers.append(client.get(f"/api/run/{run}/unit", unit=row["unit"]))
            answers.append(client.get(f"/api/run/{run}/labels"))
            answers.append(
                client.post(f"/api/run/{run}/label", {"annotator": "me", "what": "start", "n": 3})
            )
        if ids:
            answers.append(client.get("/compare", runs=",".join(ids)))
        for answer in answers:
            assert answer.status != 500, answer.text
            found.append(answer.text)
    return "\n".join(found)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


N_COMMANDS = len(commands(Path(), Path(), Path()))
# All of them take minutes with each folder. Small numbers are drawn most, so they are spread.
chosen = st.lists(
    st.integers(0, N_COMMANDS - 1).map(lambda place: place * 29 % N_COMMANDS),
    min_size=8,
    max_size=12,
    unique=True,
)


@pytest.mark.slow
@settings(suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    changes=mutations.changes,
    of_calibration=mutations.changes,
    base=st.booleans(),
    planted=mutations.links,
    damaged=mutations.damage,
    asked=chosen,
)
def test_whatever_a_vendor_sends(
    made: Path,
    attacker: LoopbackServer,
    home: LoopbackServer,
    kind: str,
    changes: list[Change],
    of_calibration: list[Change],
    base: bool,
    planted: list[tuple[str, str]],
    damaged: list[tuple[str, Any]],
    asked: list[int],
) -> None:
    COUNTED["example"] += 1
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        outside, run = Path(scratch, "home"), Path(scratch, "runs", "run")
        outside.mkdir()
        (outside / ".bashrc").write_bytes(OUTSIDE)
        shutil.copytree(made / kind, run)
        shutil.copytree(made / "other", run.with_name("other"))
        data = json.loads((run / "manifest.json").read_bytes())
        for change in changes:
            change.apply(data)
        if not base and isinstance(data.get("config"), dict):
            data["config"] |= {"api_base": None, "judge_api_base": None, "model": "demo/open"}
        (run / "manifest.json").write_text(json.dumps(data), "utf-8")
        calibration = json.loads((made / "cal.json").read_bytes())
        for change in of_calibration:
            change.apply(calibration)
        Path("cal.json").write_text(json.dumps(calibration), "utf-8")
        for name, how in damaged:
            hurt(run / name, how)
        for name, what in planted:
            plant(run / name, what, outside / ".bashrc")
        own = data == json.loads((made / kind / "manifest.json").read_bytes())
        before = contents(outside)
        n_before = len(attacker.log)
        every = commands(run, Path(scratch), made)
        for words in (every[place] for place in sorted(asked)):
            shown = ""
            if words[0] == "view":
                shown = pages(Path(str(words[1])))
            else:
                out, status, err, seconds = call(home, *words)
                assert "a defect of refusalkit" not in err, (words, err)
                assert "Traceback" not in err + out, (words, err)
                assert seconds < MAX_SECONDS, (words, seconds)
                assert status == 0 or err or out, words
                shown = out + err
            assert contents(outside) == before, words
            assert not any(key in shown for key in KEYS.values()), words
            assert not {"\x1b", "\x07", "\u202e"} & set(shown), words
            assert MARKER not in shown, words
            if not own and "--trust-folder" not in words:
                assert len(attacker.log) == n_before, (words, shown)
        for exchange in (*attacker.log[n_before:], *home.log):
            sent = repr(exchange)
            assert not any(KEYS[name] in sent for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN"))
        home.log.clear()
        for path in Path(scratch).rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert MARKER.encode() not in content, path
                if path.suffix in (".md", ".html", ".csv", ".xml", ".yaml"):
                    assert not any(sign.encode() in content for sign in "\x1b\x07\u202e"), path
