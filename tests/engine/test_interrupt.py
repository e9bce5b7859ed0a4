"""Ctrl-C, SIGTERM and progress, with real processes and a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import refusalkit
from loopback import LoopbackServer, Script
from refusalkit.engine.plan import Progress
from refusalkit.reporting import progress as progress_module
from refusalkit.reporting.progress import ProgressDisplay
from refusalkit.runs.folder import open_run
from refusalkit.runs.records import read_records

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")
OPEN = Script(refusal_rate=0.0)
PYTHON = [sys.executable, "-m", "refusalkit"]


def command(server: LoopbackServer, out: Path, *more: object) -> list[str]:
    base = server.openai_base
    target = [
        "run",
        "openai/target",
        "--api-base",
        base,
        "--out",
        str(out),
        "--prompts",
        "starter",
        "--category",
        "weapons",
        "--canaries",
        "0",  # requests are counted
    ]
    judge = ["--judge", "graded", "--judge-model", "openai/judge-x", "--judge-api-base", base]
    return [*PYTHON, *target, *judge, *map(str, more)]


@contextlib.contextmanager
def running(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """The next line on stderr that holds `text`."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the process ended without saying {text!r}")


def units(path: Path) -> list[str]:
    return [record["unit"] for _, record in read_records(path)]


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_in_flight_is_awaited_and_the_command_to_go_on_is_printed(
    tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    with LoopbackServer(OPEN) as server:
        server.hold()
        with running(command(server, out, "--trials", 30, "--concurrency", 6)) as process:
            server.wait_for(6, 30)
            process.send_signal(number)
            wait_for_line(process, "stopping; waiting briefly for what is in flight")
            server.release()
            stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 3, stderr
        assert f"refusalkit: interrupted; go on with: refusalkit resume {out}\n" in stderr
        assert "Traceback" not in stderr
        assert f"Run: {out}" in stdout
        # What was in flight was finished, its verdicts too, and nothing new was begun.
        assert server.requests == {"target": 6, "judge": 6}
        assert len(units(out / "completions.jsonl")) == 6
        assert sorted(units(out / "verdicts.jsonl")) == sorted(units(out / "completions.jsonl"))
        assert open_run(out).manifest.sessions[-1].ended_because == "interrupted"

        # And the command that was printed does go on.
        after = subprocess.run(
            [*PYTHON, "resume", str(out)], capture_output=True, text=True, timeout=60, check=False
        )
        assert after.returncode == 0, after.stderr
        assert server.requests == {"target": 30, "judge": 30}
        assert len(units(out / "verdicts.jsonl")) == 30


@posix_only
def test_the_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LoopbackServer(OPEN) as server:
        server.hold()
        with running(command(server, out, "--trials", 30, "--concurrency", 6)) as process:
            server.wait_for(6, 30)
            process.send_signal(signal.SIGINT)
            wait_for_line(process, "stopping")
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
            assert time.monotonic() - pressed < 3.0, "less than the grace period"
        assert process.returncode == 3
        assert "Traceback" not in stderr
        assert stderr.strip().splitlines()[-1].startswith("refusalkit: ")
        server.release()
        run = open_run(out)
        assert run.manifest.sessions[-1].ended_because == "interrupted"
        assert refusalkit.resume(run).manifest.sessions[-1].ended_because == "done"


@posix_only
@pytest.mark.slow
def test_ctrl_c_in_a_script_ends_the_run_within_two_seconds(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LoopbackServer(OPEN, latency_s=0.3) as server:
        program = f"""
import refusalkit as rk
base = {server.openai_base!r}
options = dict(judge="graded", judge_model="openai/judge-x", judge_api_base=base, api_base=base)
rk.benchmark("openai/target", "starter", category=["weapons"], trials=60, concurrency=3,
             canaries=0, out={str(out)!r}, **options)
"""
        with running([sys.executable, "-c", program]) as process:
            server.wait_for(9, 30)
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
            assert time.monotonic() - pressed < 2.5, "two seconds, and the end of a process"
        told = f"KeyboardInterrupt: interrupted; go on with: refusalkit resume {out}"
        assert stderr.strip().splitlines()[-1] == told
        # What was in flight came back and is kept.
        assert len(units(out / "completions.jsonl")) == server.requests["target"]
        assert refusalkit.resume(out).manifest.sessions[-1].ended_because == "done"
        assert server.requests["target"] == 60


# Progress.


@posix_only
@pytest.mark.slow
def test_without_a_terminal_plain_lines_come_now_and_then_on_stderr_only(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LoopbackServer(OPEN, latency_s=0.2) as server:
        options = ("--trials", 200, "--concurrency", 4, "--json")
        with running(command(server, out, *options)) as process:
            line = wait_for_line(process, "answered")
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "\x1b" not in line
    assert "\r" not in line
    assert "/200 answered, " in line
    for word in ("judged", "refusals", "unscored", "cost unknown", "left"):
        assert word in line
    assert json.loads(stdout)["path"] == str(out)


@posix_only
def test_on_a_terminal_a_line_moves_and_stdout_is_clean_json(tmp_path: Path) -> None:
    import pty

    out = tmp_path / "run"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CI"):
        environment.pop(name, None)
    with LoopbackServer(OPEN, latency_s=0.05) as server:
        options = ("--trials", 40, "--concurrency", 4, "--json")
        process = subprocess.Popen(
            command(server, out, *options),
            stdout=subprocess.PIPE,
            stderr=theirs,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        os.close(theirs)
        screen = everything_on(ours)
        assert process.stdout is not None
        stdout = process.stdout.read()
        process.stdout.close()
        assert process.wait(30) == 0, screen
    assert json.loads(stdout)["path"] == str(out)
    assert b"\x1b[" in screen
    assert screen.count(b"\r") > 3, "the line is drawn again and again"
    assert screen.count(b"judged") > 3
    assert b"40/40 judged" in screen
    assert b"Traceback" not in screen


def everything_on(terminal: int) -> bytes:
    """All that is written to a terminal until its other side is closed."""
    chunks: list[bytes] = []
    until = time.monotonic() + 60
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as screen:
        while time.monotonic() < until and select.select([screen], [], [], 60)[0]:
            chunk = screen.read(65536)  # EIO: no process has it open any more
            if not chunk:
                break
            chunks.append(chunk)
    return b"".join(chunks)


def test_the_library_prints_nothing_and_tells_a_callback_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    run = refusalkit.benchmark(
        "demo/mixed", limit=6, trials=2, out=tmp_path / "run", on_progress=seen.append
    )
    refusalkit.benchmark("demo/mixed", limit=3, trials=1, out=tmp_path / "silent")
    assert capfd.readouterr() == ("", "")
    assert seen[0] == Progress(planned=12, elapsed_s=seen[0].elapsed_s)
    last = seen[-1]
    assert (last.planned, last.completions, last.verdicts, last.found) == (12, 12, 12, 0)
    assert last.refusals == sum(r["label"] == "refusal" for _, r in read_records(run.verdicts))
    assert last.unscored == sum(r["label"] is None for _, r in read_records(run.verdicts))
    assert [p.verdicts for p in seen] == sorted(p.verdicts for p in seen)
    assert any(p.eta_s is not None and p.eta_s > 0 for p in seen[:-1])
    assert last.eta_s == 0
    refusalkit.resume(run, on_progress=seen.append)
    assert seen[-1].found == 12


def test_plain_progress_comes_at_a_steady_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: float(next(clock)))
    with ProgressDisplay() as display:
        for done in range(1, 21):
            display(Progress(planned=20, completions=done, verdicts=done, elapsed_s=float(done)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4, "every five seconds"
    assert lines[0] == "5/20 answered, 5 judged, 0 refusals, 0 unscored, $0.00, 0:15 left"


def test_a_signal_ends_a_command_that_is_too_busy_to_hear_it() -> None:
    """The loop is blocked, as by a file that takes minutes to read."""
    code = """
        import os, signal, threading, time
        from refusalkit.cli import work
        work._UNHEARD_S = 0.5

        async def busy(on_progress, stop):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            while True:
                time.sleep(0.01)

        work.work(busy)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.splitlines() == ["refusalkit: stopped"]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_ends_a_command_whose_thread_reads_what_never_answers(signals: int) -> None:
    """As a file on a network disk that hangs: the loop hears, the thread does not end."""
    code = f"""
        import asyncio, os, signal, threading
        from refusalkit.cli import work
        work._ENDED_S, work._UNHEARD_S = (0.7, 60) if {signals} == 1 else (60, 0.7)
        nobody_writes, _ = os.pipe()

        async def reading(on_progress, stop):
            for n in range({signals}):
                threading.Timer(0.3 + n / 2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.to_thread(os.read, nobody_writes, 1)

        work.work(reading)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "refusalkit: stopped"
