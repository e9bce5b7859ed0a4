"""Inspect itself runs our tasks, and reads what a run is exported as."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import refusalkit as rk
from browser import chromium
from loopback import LoopbackServer, Script
from refusalkit.errors import RecordError, StorageError, UsageError

pytest.importorskip("inspect_ai", reason="make test-integrations")

REFUSED, ANSWERED = "I can't help with that.", "[demo answer]"
SECRET = "PLANTED-5d1e"
# litellm ships the encoding with which Inspect counts tokens.
TOKENIZERS = "litellm_core_utils/tokenizers"


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(Script(refusal_rate=0.5)) as running:
        yield running


@pytest.fixture
def env(server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = importlib.util.find_spec("litellm")
    assert found is not None
    for name, value in {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": server.openai_base,
        "TIKTOKEN_CACHE_DIR": str(Path(str(found.origin)).parent / TOKENIZERS),
        "XDG_DATA_HOME": str(tmp_path / "home"),
        "INSPECT_LOG_DIR": str(tmp_path / "logs"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspect(*words: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("inspect")), *words],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def evaluate(task: str, *options: str) -> Path:
    # mockllm would answer without a socket; the loopback server has no Responses API.
    words = ["-M", "responses_api=false"]
    words += [word for option in options for word in ("-T", option)]
    inspect("eval", task, "--model", "openai/m", "--display", "none", "--no-log-realtime", *words)
    (log,) = Path("logs").glob("*.eval")
    return log


def metrics_of(log: Path) -> Mapping[str, float]:
    from inspect_ai.log import read_eval_log

    read = read_eval_log(str(log))
    assert read.error is None, read.error.message
    assert read.results is not None
    (scores,) = read.results.scores
    return {name: metric.value for name, metric in scores.metrics.items()}


def same(score: rk.Score, metrics: Mapping[str, float]) -> None:
    """The figures of a score are those of a log, to the last digit."""
    names = ("willingness", "answer_rate", "hold_rate", "refusal_rate")
    found = 0
    for name in names:
        estimate = getattr(score, name)
        if estimate.value is not None:
            said = (metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"])
            assert said == (estimate.value, estimate.low, estimate.high)
            found += 1
    assert found


def test_the_task_scores_as_our_own_grade_of_its_log_to_the_last_digit(env: Path) -> None:
    log = evaluate("refusalkit/refusalbench", "prompts=starter", "trials=3", "judge=lexical")
    metrics = metrics_of(log)
    assert 0 < metrics["refusal_rate"] < 100
    rk.grade(log, "imported", out="graded")
    score = rk.score("graded")
    assert score.n_scored == 105
    same(score, metrics)


def test_hard_line_answers_do_not_reach_inspects_log(env: Path) -> None:
    log = evaluate("refusalkit/hard_lines", "prompt_limit=6", "judge=lexical")
    from inspect_ai.log import read_eval_log

    samples = read_eval_log(str(log)).samples or []
    assert len(samples) == 6
    for sample in samples:
        text = sample.model_dump_json()
        assert REFUSED not in text
        assert ANSWERED not in text
        assert "[withheld]" in text
        assert sample.scores is not None
        assert sample.scores["refusal_judge"].value in ("refusal", "compliance")
    rk.grade(log, "imported", out="graded")
    assert rk.audit("graded").overall.n_scored == 6
    with pytest.raises(rk.RecordError, match="withheld"):
        rk.grade(log, "lexical")


def test_the_judge_asks_its_model_with_rubric_and_schema(env: Path, server: LoopbackServer) -> None:
    before = len(server.log)
    log = evaluate(
        "refusalkit/refusalbench",
        "prompts=starter",
        "prompt_limit=3",
        "trials=1",
        "judge=graded",
        "judge_model=openai/judge",
        f"judge_api_base={server.openai_base}",
    )
    from inspect_ai.log import read_eval_log

    for sample in read_eval_log(str(log)).samples or []:
        assert sample.scores is not None
        score = sample.scores["refusal_judge"]
        assert score.value in ("refusal", "deflection", "partial", "compliance")
        assert score.metadata is not None
        assert score.metadata["judge"] == "graded:openai/judge"
        assert str(score.metadata["judge_digest"]).startswith("sha256:")
    asked = [each for each in server.log[before:] if each.role == "judge"]
    assert len(asked) == 3
    assert all("response_format" in each.params for each in asked), "the judge file's schema"


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_an_exported_run_is_read_by_inspect_and_graded_to_the_same_score(
    env: Path, suffix: str
) -> None:
    run = rk.benchmark("demo/leaky", "starter", trials=2, out="run")
    out = Path(f"run{suffix}")
    assert rk.export(run, "inspect", out).paths == (out,)
    dumped = json.loads(inspect("log", "dump", str(out)))
    assert len(dumped["samples"]) == 70
    hard = [sample for sample in dumped["samples"] if sample["metadata"]["hard_line"]]
    assert {sample["output"]["completion"] for sample in hard} == {"[withheld]"}
    same(rk.score(run), metrics_of(out))
    rk.grade(out, "imported", out=f"graded{suffix}")
    same(rk.score(f"graded{suffix}"), metrics_of(out))


@contextmanager
def inspects_viewer(logs: str) -> Iterator[str]:
    """`inspect view` of a folder of logs; its address."""
    viewer = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("inspect")),
            *("view", "start", "--log-dir", logs, "--port", str(free_port())),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert viewer.stdout is not None
        line = next(line for line in viewer.stdout if "http://" in line)
        yield "http://" + line.partition("http://")[2].split()[0].rstrip("/)")
    finally:
        viewer.terminate()
        viewer.communicate(timeout=10)


def test_inspects_viewer_serves_an_exported_run(env: Path) -> None:
    run = rk.benchmark("demo/mixed", "starter", trials=1, limit=5, out="run")
    Path("logs").mkdir()
    rk.export(run, "inspect", "logs/run.eval")
    with inspects_viewer("logs") as address:
        listed: Any = json.loads(fetched(f"{address}/api/logs"))
        names = [each["name"] for each in listed["files"]]
        assert any(name.endswith("run.eval") for name in names)
        log = fetched(f"{address}/api/logs/{urllib.parse.quote(names[0], safe='')}")
        assert b'"status": "success"' in log or b'"status":"success"' in log


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_inspects_viewer_shows_an_exported_run_and_nothing_that_was_withheld(env: Path) -> None:
    run = rk.benchmark("demo/leaky", "starter", trials=1, limit=6, out="run")
    leak = next(row for row in rk.units(run).to_dicts() if row["hard_line"])
    Path("logs").mkdir()
    rk.export(run, "inspect", "logs/run.eval")
    with inspects_viewer("logs") as address, Tab(env / "profile") as tab:
        fetched(f"{address}/api/logs")
        shown = tab.text_of(f"{address}/#/tasks/run.eval", leak["prompt_id"])
        willing = rk.score(run).willingness.value
        assert f"{willing:.3f}".rstrip("0") in shown
        assert "refusalkit/refusalbench" in shown
        sample = f"{address}/#/tasks/run.eval/samples/sample/{leak['prompt_id']}/1/"
        assert leak["label"] in tab.text_of(sample, "[withheld]")


class Tab:
    """A page of a headless Chromium, by its debugging protocol: playwright is not at hand here."""

    def __init__(self, profile: Path) -> None:
        program = chromium()
        assert program is not None
        self._profile = profile
        self._process = subprocess.Popen(
            [
                program,
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def text_of(self, address: str, expected: str) -> str:
        """The text of the page at an address, once it has what is expected."""
        return asyncio.run(self._text_of(address, expected))

    async def _text_of(self, address: str, expected: str) -> str:
        written = self._profile / "DevToolsActivePort"
        for _ in range(300):
            if written.exists() and written.read_text():
                break
            await asyncio.sleep(0.1)
        port = written.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                pages = [one for one in await listed.json() if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"]) as socket:
                await socket.send_json(
                    {"id": 0, "method": "Page.navigate", "params": {"url": address}}
                )
                text = ""
                for number in range(1, 300):
                    asked = {"expression": "document.body ? document.body.innerText : ''"}
                    await socket.send_json(
                        {"id": number, "method": "Runtime.evaluate", "params": asked}
                    )
                    while (said := await socket.receive_json()).get("id") != number:
                        pass
                    text = str(said.get("result", {}).get("result", {}).get("value", ""))
                    if expected in text:
                        return text
                    await asyncio.sleep(0.1)
        raise AssertionError(f"{expected!r} never came: {text[:500]}")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def fetched(url: str) -> bytes:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: bytes = answer.read()
                return data
        except OSError as error:
            if "refused" not in str(error):
                raise
            time.sleep(0.1)
    raise AssertionError(f"no answer from {url}")


def test_a_small_log_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    run = rk.benchmark("demo/open", "starter", trials=1, limit=12, out=tmp_path / "run")
    rk.export(run, "inspect", tmp_path / "log.eval")
    assert rk.grade(tmp_path / "log.eval", "lexical").n_judged
    zstandard = 93  # as Inspect packs
    with (
        zipfile.ZipFile(tmp_path / "log.eval", "a", zstandard) as log,
        log.open("samples/more_epoch_1.json", "w", force_zip64=True) as sample,
    ):
        for _ in range(1100):
            sample.write(bytes(2**20))
    assert (tmp_path / "log.eval").stat().st_size < 2**20
    with pytest.raises(RecordError, match="unpacks to more than 1074 MB"):
        rk.grade(tmp_path / "log.eval", "lexical")


def test_a_strangers_run_keeps_hard_line_texts_out_of_inspects_log(tmp_path: Path) -> None:
    """Whatever it calls ordinary, however long it says a text is, and whenever it was made."""
    own = {"trials": 1, "limit": 12, "keep_hard_line_text": True}
    run = rk.benchmark("demo/leaky", "starter", out=tmp_path / "run", **own)
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    lines = run.manifest.hard_lines
    for category in manifest["prompt_set"]["categories"]:
        category["hard_line"] = False
    for path in (run.completions, run.verdicts):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows:
            if row["category"] in lines:
                row |= {"reason": SECRET} if "judge" in row else {"text": SECRET, "text_chars": 0}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = tmp_path / "log.json"
    (tmp_path / "link.json").symlink_to(out)
    with pytest.raises(StorageError, match="it is a link to"):
        rk.export(run, "inspect", tmp_path / "link.json")
    for when, ended in (("2026-01-01T00:00:00+00:00", "[31m"), ("[31m", None)):
        manifest["sessions"][0] |= {"started_at": when, "ended_at": ended}
        (run.path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        if ended is None:
            with pytest.raises(UsageError, match="does not say when it was made"):
                rk.export(run.path, "inspect", out)
        else:
            rk.export(run.path, "inspect", out)
            assert SECRET not in out.read_text("utf-8")
