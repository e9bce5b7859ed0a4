"""`--serve`: a real server process is started, waited for, watched, and ended with the run."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import refusalkit
from commandline import caller
from processes import is_running
from refusalkit.engine.serving import server as serving
from refusalkit.errors import ConfigurationError, FatalProviderError, RunFolderError
from refusalkit.runs.folder import Run

PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("own_server.py"))])
SERVE = f"{PROGRAM} {{port}} --model {{model}}"
OWN: dict[str, Any] = {"judge": "lexical", "trials": 1, "limit": 4, "canaries": 0}


def benchmark(out: Path, serve: str = SERVE, **options: Any) -> Run:
    return refusalkit.benchmark("local/small", "starter", out=out, serve=serve, **OWN, **options)


def log_of(out: Path) -> str:
    return (out / "server.log").read_text("utf-8")


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[], list[int]]:
    """The ids of the server and of its child, once they run."""
    return lambda: [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_the_server_is_asked_and_ends_with_the_run(
    tmp_path: Path, processes: Callable[[], list[int]]
) -> None:
    run = benchmark(tmp_path / "run", f"{SERVE} --child {tmp_path / 'pids'}")
    assert refusalkit.score(run).n_scored == 4
    assert not any(map(is_running, processes()))
    assert run.manifest.sessions[-1].ended_because == "done"


def test_its_log_is_kept_private_without_colours_keys_or_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "quite-a-private-thing")
    run = benchmark(tmp_path / "run")
    log = log_of(run.path)
    assert "loading small with [key]\nready\n" in log
    assert "\x1b" not in log
    assert "asked:" not in log
    assert stat.S_IMODE((run.path / "server.log").stat().st_mode) == 0o600


def test_where_answers_are_kept_so_is_the_rest_of_the_log(tmp_path: Path) -> None:
    run = benchmark(tmp_path / "run", keep_hard_line_text=True)
    assert log_of(run.path).count("asked: ") == 4


def test_a_log_without_end_is_kept_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refusalkit.engine.serving import log
    from refusalkit.redaction import Keys

    monkeypatch.setattr(log, "_MAX_HEAD", 10_000)
    monkeypatch.setattr(log, "_MAX_TAIL", 20_000)
    kept = log.ServerLog(tmp_path / "server.log", Keys(), keeps_all=True)
    for number in range(20_000):
        kept.take(f"line {number}\n".encode())
    kept.take(b"x" * 1_000_000)
    kept.close()
    text = (tmp_path / "server.log").read_text()
    assert len(text) < 40_000
    assert "line 0\n" in text
    assert "line 19999\n" in text
    assert "bytes are left out" in text


def test_the_command_is_in_no_file_of_the_run(tmp_path: Path) -> None:
    run = benchmark(tmp_path / "run", f"{SERVE} --loading 0.01")
    for path in run.path.iterdir():
        assert b"--loading" not in path.read_bytes(), path.name
    assert run.manifest.config["api_base"] is None
    assert run.manifest.sessions[-1].operational["serve"] is True


def test_a_server_that_loads_is_waited_for(tmp_path: Path) -> None:
    run = benchmark(tmp_path / "run", f"{SERVE} --loading 0.5")
    assert refusalkit.score(run).outcomes["answered"] == 4


def test_a_server_without_a_health_page_is_asked_for_its_models(tmp_path: Path) -> None:
    assert refusalkit.score(benchmark(tmp_path / "run", f"{SERVE} --no-health")).n_scored == 4


def test_requests_to_the_server_use_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert refusalkit.score(benchmark(tmp_path / "run")).n_scored == 4


def test_a_server_that_takes_too_long_is_ended(
    tmp_path: Path, processes: Callable[[], list[int]]
) -> None:
    slow = f"{SERVE} --loading 60 --child {tmp_path / 'pids'}"
    with pytest.raises(ConfigurationError, match=r"did not answer within 3 s .*--serve-wait"):
        benchmark(tmp_path / "run", slow, serve_wait_s=3.0)
    assert not any(map(is_running, processes()))


def test_a_crash_at_start_says_how_and_where_its_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    run = ["run", "local/small", "--prompts", "starter", "--judge", "lexical", "--out", "run"]
    said = call(*run, "--serve", f"{SERVE} --crash-at-start")
    assert said.status == 4
    assert "ended before it answered: exit code 1, and last said: ValueError: the we" in said.err
    assert "run/server.log" in said.err
    assert 'refusalkit resume run --serve "COMMAND"' in said.err
    assert "the weights of this model are not here" in log_of(tmp_path / "run")
    assert call("resume", "run", "--serve", SERVE).status == 0


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program {port}", "no-such-program: No such file or directory: install it"),
        ("/etc/passwd {port}", "/etc/passwd: Permission denied"),
        ("serve {port} | tee log", "no shell reads the command, so it cannot hold"),
        ("serve {port} 2>log", "no shell reads the command, so it cannot hold"),
        ("cd /models && serve {port}", "no shell reads the command, so it cannot hold"),
        ("LOGLEVEL=1 serve {port}", "env NAME=VALUE"),
        ("serve 'small", "cannot be read: No closing quotation"),
        ("serve --port 8000", "write {port} in its command, or give --api-base"),
        (" ", "is empty"),
    ],
)
def test_a_command_that_cannot_be_started(tmp_path: Path, command: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        benchmark(tmp_path / "run", command)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"api_base": "https://models.example/v1"}, "is not one"),
        ({"batch": "model"}, "leave out one of them"),
        ({"workers": 2}, "give engine ray too"),
        ({"gpus": 0.5}, "whole number of GPUs"),
    ],
)
def test_options_that_do_not_go_with_it(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        benchmark(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_scripted_model_has_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="answers in this process"):
        refusalkit.benchmark("demo/mixed", "starter", serve=SERVE, out=tmp_path / "run")


def test_a_port_that_is_taken_is_reported_before_anything_is_started(
    tmp_path: Path, processes: Callable[[], list[int]]
) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        base = f"http://127.0.0.1:{theirs.getsockname()[1]}/v1"
        with pytest.raises(ConfigurationError, match=r"something answers at port \d+ already"):
            benchmark(tmp_path / "run", f"{SERVE} --child {tmp_path / 'pids'}", api_base=base)
    assert not (tmp_path / "pids").exists()


def test_an_address_of_ones_own_fills_in_the_port(tmp_path: Path) -> None:
    base = f"http://localhost:{serving._free_port()}/v1"
    run = benchmark(tmp_path / "run", api_base=base)
    assert refusalkit.score(run).n_scored == 4


def test_a_server_that_dies_during_the_run_ends_it_with_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(FatalProviderError) as failed:
        benchmark(out, f"{SERVE} --crash-at 3", concurrency=1)
    # Of a line that may repeat a request no more than the exception's name.
    assert str(failed.value) == (
        "the server of --serve ended: exit code 70, and last said: MemoryError"
    )
    assert failed.value.__notes__ == [
        f"its log: {out}/server.log",
        f'go on with: refusalkit resume {out} --serve "COMMAND"',
    ]
    assert "no room for" not in log_of(out)
    assert refusalkit.score(out).n_scored == 2
    run = refusalkit.resume(out, serve=SERVE)
    assert refusalkit.score(run).n_scored == 4
    records = [json.loads(line) for line in run.completions.read_text().splitlines()]
    assert len({record["unit"] for record in records}) == len(records) == 4


def test_a_folder_never_starts_a_command(tmp_path: Path) -> None:
    run = benchmark(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="give --serve again, or --api-base"):
        refusalkit.resume(run)
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["config"]["serve"] = f"touch {tmp_path / 'started'}"
    manifest["sessions"][-1]["operational"]["serve"] = f"touch {tmp_path / 'started'}"
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match=r"config\.serve"):
        refusalkit.resume(run, trust_folder=True)
    assert not (tmp_path / "started").exists()


def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Callable[[], list[int]]
) -> None:
    monkeypatch.setattr(serving, "GRACE_S", 0.2)
    benchmark(tmp_path / "run", f"{SERVE} --stubborn --child {tmp_path / 'pids'}")
    assert not any(map(is_running, processes()))


def test_a_server_ends_where_we_are_killed(
    tmp_path: Path, processes: Callable[[], list[int]]
) -> None:
    serve = f"{SERVE} --loading 60 --child {tmp_path / 'pids'}"
    command = [sys.executable, "-m", "refusalkit", "run", "local/small", "--prompts", "starter"]
    command += ["--judge", "lexical", "--out", str(tmp_path / "run"), "--serve", serve]
    ours = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: (tmp_path / "pids").exists() and len(processes()) == 2)
        assert all(map(is_running, processes()))
    finally:
        ours.kill()
        ours.wait()
    assert wait_until(lambda: not any(map(is_running, processes())))


def test_its_watcher_may_be_killed_too(tmp_path: Path, processes: Callable[[], list[int]]) -> None:
    seen: list[int] = []

    def kill_watcher(progress: refusalkit.Progress) -> None:
        if progress.verdicts == 1 and not seen:
            stated = Path(f"/proc/{processes()[0]}/stat").read_text()
            seen.append(int(stated.rpartition(")")[2].split()[1]))
            os.kill(seen[0], signal.SIGKILL)

    with pytest.raises(FatalProviderError, match="killed together with what watches it"):
        benchmark(
            tmp_path / "run",
            f"{SERVE} --child {tmp_path / 'pids'}",
            concurrency=1,
            on_progress=kill_watcher,
            rpm=120,
        )
    assert wait_until(lambda: not any(map(is_running, processes())))


def test_an_interruption_does_not_wait_for_a_server_that_loads(
    tmp_path: Path, processes: Callable[[], list[int]]
) -> None:
    async def stopped() -> Run:
        stop = asyncio.Event()

        async def interrupt() -> None:
            while not (tmp_path / "pids").exists() or len(processes()) < 2:
                await asyncio.sleep(0.02)
            stop.set()

        interrupting = asyncio.create_task(interrupt())
        run = await refusalkit.benchmark_async(
            "local/small",
            "starter",
            out=tmp_path / "run",
            serve=f"{SERVE} --loading 60 --child {tmp_path / 'pids'}",
            stop=stop,
            **OWN,
        )
        await interrupting
        return run

    began = time.monotonic()
    run = asyncio.run(stopped())
    assert time.monotonic() - began < 8
    assert run.manifest.sessions[-1].ended_because == "interrupted"
    assert not any(map(is_running, processes()))


def test_nothing_of_ray_is_imported_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys, refusalkit\n"
        f"refusalkit.benchmark('local/small', 'starter', serve={SERVE!r}, limit=4, trials=1,\n"
        f"    judge='lexical', canaries=0, out={str(tmp_path / 'run')!r})\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    # As where the extra is not installed.
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'refusalkit\[ray\]'$"):
        benchmark(tmp_path / "other", engine="ray")


PLAN = """
trials = 1
judge = "lexical"
prompts = "starter"
limit = 4
canaries = 0
serve = "{serve}"

[[model]]
id = "local/small"
folder = "step-1"

[[model]]
id = "local/small"
folder = "step-2"
{second}

[[model]]
id = "local/small"
folder = "step-3"
"""


def sweep(
    tmp_path: Path,
    call: Callable[..., Any],
    *,
    more: str = "",
    second: str = "",
    gpus: str = "",
) -> tuple[Any, list[list[str]]]:
    """What a plan's command says, and the journal of its servers: id, GPUs, how many beside."""
    serve = f"{SERVE} --journal {tmp_path / 'journal'} --loading 0.4 {more}"
    plan = PLAN.format(serve=serve, second=second)
    (tmp_path / "plan.toml").write_text(f"{gpus}\n{plan}")
    said = call("run", "--plan", "plan.toml", "--out", "sweep", "--report", "sweep.html")
    return said, [line.split() for line in (tmp_path / "journal").read_text().splitlines()]


@pytest.mark.slow
def test_servers_of_a_plan_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said, journal = sweep(tmp_path, call)
    assert said.status == 0, said.err
    assert [beside for _, _, beside in journal] == ["0", "0", "0"]
    assert not any(is_running(int(pid)) for pid, *_ in journal)
    assert "Over the sweep" in (tmp_path / "sweep.html").read_text()


@pytest.mark.slow
def test_with_gpus_as_many_run_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    said, journal = sweep(tmp_path, call, gpus="gpus = 1")
    assert said.status == 0, said.err
    assert {gpus for _, gpus, _ in journal} == {"4", "7"}
    assert max(int(beside) for *_, beside in journal) == 1


def test_a_server_takes_no_more_gpus_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with pytest.raises(ConfigurationError, match="gpus is 3, but CUDA_VISIBLE_DEVICES names 2"):
        benchmark(tmp_path / "run", gpus=3)
    log = benchmark(tmp_path / "other", f"{SERVE} --journal {tmp_path / 'journal'}", gpus=1)
    assert refusalkit.score(log).n_scored == 4
    assert (tmp_path / "journal").read_text().split()[1] == "4"


@pytest.mark.slow
def test_a_checkpoint_that_does_not_load_does_not_stop_the_others_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    broken = f'serve = "{PROGRAM} {{port}} --crash-at-start"'
    said, _ = sweep(tmp_path, call, second=broken)
    assert said.status == 4
    assert "ValueError: the weights of this model are not here" in said.err
    assert [refusalkit.score(tmp_path / f"sweep/step-{n}").n_scored for n in (1, 2, 3)] == [4, 0, 4]
    (tmp_path / "journal").unlink()
    said, _ = sweep(tmp_path, call)
    assert said.status == 0, said.err
    assert refusalkit.score(tmp_path / "sweep/step-2").n_scored == 4
