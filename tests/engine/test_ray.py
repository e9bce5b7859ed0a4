"""`--engine ray`: real workers on a real local cluster ask a real server. Needs the extra `ray`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit
from loopback import Fault, LoopbackServer, Script
from processes import is_running
from refusalkit.errors import ConfigurationError, FatalProviderError
from refusalkit.models import endpoints
from refusalkit.models.prices import Price
from refusalkit.runs.folder import Run
from run_folders import spent_usd

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from refusalkit.engine.serving import ray_workers  # noqa: E402

KEY = "loopback-key-of-the-workers"
OWN: dict[str, Any] = {"judge": "lexical", "canaries": 0, "engine": "ray"}
PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("own_server.py"))])

# What Ray leaves open is not ours to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.xdist_group("ray"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster for all tests here, which takes seconds to start; the folder of its logs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
    )
    yield Path(ray._private.worker._global_node.get_session_dir_path())
    ray.shutdown()


def benchmark(server: LoopbackServer, out: Path, **options: Any) -> Run:
    chosen: dict[str, Any] = {"trials": 2, "workers": 2, **OWN, **options}
    return refusalkit.benchmark(
        "local/small", "starter", out=out, api_base=server.openai_base, **chosen
    )


def workers() -> list[int]:
    """The process ids of the workers that are alive."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def ended(run: Run) -> str | None:
    return run.manifest.sessions[-1].ended_because


def test_workers_ask_all_and_the_result_is_what_one_process_gets(tmp_path: Path) -> None:
    with LoopbackServer(Script(refuse_by="prompt")) as server:
        run = benchmark(server, tmp_path / "ray")
        assert sorted(e.ask for e in server.log) == [0] * 35 + [1] * 35
        alone = refusalkit.benchmark(
            "local/small",
            "starter",
            trials=2,
            judge="lexical",
            canaries=0,
            api_base=server.openai_base,
            out=tmp_path / "alone",
        )
    assert ended(run) == "done"
    assert refusalkit.score(run).willingness == refusalkit.score(alone).willingness
    assert run.manifest.parameters == alone.manifest.parameters
    assert run.manifest.sessions[-1].operational["workers"] == 2
    assert run.manifest.config_digest == alone.manifest.config_digest


def test_a_worker_that_is_killed_is_replaced_and_its_requests_are_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []

    def kill(progress: refusalkit.Progress) -> None:
        if progress.verdicts >= 20 and not killed:
            killed.extend(workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with LoopbackServer(Script(), 0.05) as server:
        run = benchmark(server, tmp_path / "run", on_progress=kill, concurrency=16)
        n_asked = len(server.log)
    assert killed
    assert ended(run) == "done"
    assert refusalkit.score(run).n_scored == 70
    units = [line.split('"unit":"')[1].split('"')[0] for line in run.completions.open()]
    assert len(units) == len(set(units)) == 70
    # No more than what was in flight.
    assert 70 <= n_asked <= 70 + 16
    assert "requests are asked again, another takes its place" in caplog.text


def test_a_run_whose_workers_are_all_lost_says_so_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "_MAX_LOSSES", 0)

    def kill(progress: refusalkit.Progress) -> None:
        if progress.verdicts >= 20:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)

    with LoopbackServer(Script(), 0.05) as server:
        with pytest.raises(FatalProviderError, match="the workers are lost, the last: "):
            benchmark(server, tmp_path / "run", on_progress=kill, workers=1, concurrency=8)
        there = refusalkit.score(tmp_path / "run").n_scored
        assert 20 <= there < 70
        # A folder keeps no cluster: this process goes on.
        run = refusalkit.resume(tmp_path / "run", api_base=server.openai_base)
    assert refusalkit.score(run).n_scored == 70


def test_a_rate_holds_over_all_workers_together(tmp_path: Path) -> None:
    with LoopbackServer(Script()) as server:
        benchmark(server, tmp_path / "run", trials=1, limit=12, rpm=600)
        times = sorted(e.at for e in server.log)
    assert len(times) == 12
    assert times[-1] - times[0] >= 11 * 0.1 - 0.08


def test_a_rate_limit_that_one_worker_meets_holds_all_back(tmp_path: Path) -> None:
    limit = Fault("rate_limit", times=1, seconds=0.3)
    with LoopbackServer(Script(faults=(limit,))) as server:
        run = benchmark(server, tmp_path / "run", trials=1, concurrency=8)
        times = [e.at for e in server.log if e.status == 200]
        n_limited = sum(e.status == 429 for e in server.log)
    assert refusalkit.score(run).n_scored == n_limited == 35
    # Each pause was one for both workers: none had the endpoint to itself meanwhile.
    assert max(b - a for a, b in itertools.pairwise(sorted(times))) > 0.2


def test_a_budget_holds_over_all_workers_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = Price(0.0, 0.001)
    for module in (endpoints, ray_workers):
        monkeypatch.setattr(module, "price_at", lambda *_: price)
    with LoopbackServer(Script()) as server:
        run = benchmark(server, tmp_path / "run", max_cost=0.2, max_tokens=40, trials=5)
    spent = spent_usd(run)
    assert ended(run) == "max_cost"
    assert spent is not None
    assert 0.05 < spent < 0.2


def test_what_an_endpoint_does_not_take_is_learned_for_all(tmp_path: Path) -> None:
    refuses = Fault("bad_param", where="target", param="top_k")
    with LoopbackServer(Script(faults=(refuses,))) as server:
        run = benchmark(server, tmp_path / "run", trials=1)
        n_refused = sum(e.status == 400 for e in server.log)
    assert refusalkit.score(run).n_scored == 35
    assert "top_k" in run.manifest.parameters["model"].dropped
    assert n_refused <= 32


def test_a_wrong_key_ends_the_run_in_the_same_words(tmp_path: Path) -> None:
    told = []
    with LoopbackServer(Script(faults=(Fault("auth_error"),))) as server:
        for name, options in (("ray", {}), ("alone", {"engine": None, "workers": None})):
            with pytest.raises(FatalProviderError) as failed:
                benchmark(server, tmp_path / name, **options)
            told.append(str(failed.value))
    assert told[0] == told[1]


def test_neither_key_nor_answer_is_in_a_file_of_the_cluster(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_ENDPOINT_KEY", KEY)
    said = "an answer that nobody else gives"
    with LoopbackServer(Script(target_reply=lambda _: said)) as server:
        benchmark(server, tmp_path / "run", api_key_env="MY_ENDPOINT_KEY", trials=1)
        assert all(e.key_digest is not None for e in server.log)
    read = 0
    for path in [*cluster.rglob("*"), *(tmp_path / "run").iterdir()]:
        if path.is_file() and path.stat().st_size < 50_000_000:
            data, read = path.read_bytes(), read + 1
            assert KEY.encode() not in data, path
            if "run" not in path.parts[-2]:
                assert said.encode() not in data, path
    assert read > 10


def test_each_worker_has_a_server_that_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run = refusalkit.benchmark(
        "local/small",
        "starter",
        trials=1,
        out=tmp_path / "run",
        serve=f"{PROGRAM} {{port}} --model {{model}} --child {pids}",
        **OWN,
    )
    assert refusalkit.score(run).n_scored == 35
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())
    log = (run.path / "server.log").read_text()
    assert log.startswith("== worker 1 on ")
    assert "ready\n" in log
    assert "asked:" not in log
    assert run.manifest.config["api_base"] is None


def test_a_server_that_dies_is_replaced_with_its_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = refusalkit.benchmark(
        "local/small",
        "starter",
        trials=1,
        out=tmp_path / "run",
        serve=f"{PROGRAM} {{port}} --model {{model}} --crash-at 20",
        concurrency=2,
        **OWN,
    )
    assert refusalkit.score(run).n_scored == 35
    assert "exit code 70, and last said: MemoryError" in caplog.text


def test_a_server_that_does_not_start_ends_the_run_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as failed:
        refusalkit.benchmark(
            "local/small",
            "starter",
            out=tmp_path / "run",
            serve=f"{PROGRAM} {{port}} --crash-at-start",
            **OWN,
        )
    assert "exit code 1, and last said: ValueError: the weights" in str(failed.value)
    assert "the weights of this model" in (tmp_path / "run" / "server.log").read_text()


def test_an_interruption_ends_the_workers(tmp_path: Path) -> None:
    async def stopped(server: LoopbackServer) -> Run:
        stop = asyncio.Event()
        return await refusalkit.benchmark_async(
            "local/small",
            "starter",
            out=tmp_path / "run",
            api_base=server.openai_base,
            trials=5,
            stop=stop,
            on_progress=lambda progress: stop.set() if progress.verdicts >= 10 else None,
            **OWN,
        )

    with LoopbackServer(Script(), 0.05) as server:
        run = asyncio.run(stopped(server))
    assert ended(run) == "interrupted"
    assert 10 <= refusalkit.score(run).n_scored < 175
    assert not workers()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gpus": 64}, "a worker needs 1 CPU and 64 GPU, and no node of the cluster has that"),
        ({"serve": "serve --port 8000"}, "write {port} in the command"),
        ({"batch": "model"}, "leave out one of them"),
    ],
)
def test_what_no_cluster_can_do(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    with LoopbackServer(Script()) as server, pytest.raises(ConfigurationError) as failed:
        benchmark(server, tmp_path / "run", **options)
    assert why in str(failed.value)


def test_an_address_where_nothing_listens_is_reported_at_once(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    command = [sys.executable, "-m", "refusalkit", "run", "local/small", "--prompts", "starter"]
    command += ["--judge", "lexical", "--api-base", "http://127.0.0.1:9/v1", "--engine", "ray"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert f"nothing answers at RAY_ADDRESS {address}: start the cluster" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_command_starts_a_cluster_of_its_own_and_says_nothing_of_rays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "refusalkit", "run", "local/small", "--prompts", "starter"]
    command += ["--judge", "lexical", "--trials", "20", "--out", str(tmp_path / "run"), "--json"]
    command += ["--engine", "ray", "--workers", "2", "--concurrency", "8"]
    before = set(workers())
    with LoopbackServer(Script(), 0.1) as server:
        command += ["--api-base", server.openai_base]
        ours = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(server.log) < 60:
            time.sleep(0.05)
        os.kill((set(workers()) - before).pop(), signal.SIGKILL)
        out, err = ours.communicate(timeout=300)
    assert ours.returncode == 0, err
    assert json.loads(out)["score"]["n_scored"] == 700
    assert "is lost" in err
    assert "raylet" not in err
    assert "SIGTERM" not in err


def test_checkpoints_of_a_sweep_are_placed_as_the_cluster_has_room(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    serve = f"{PROGRAM} {{port}} --model {{model}} --journal {journal}"
    done = refusalkit.benchmark_many(
        [{"id": f"local/step-{n}", "serve": serve, "cpus": 4} for n in (1, 2, 3)],
        "starter",
        trials=1,
        out=tmp_path / "sweep",
        **OWN,
    )
    assert [one.error for one in done] == [None] * 3
    for one in done:
        assert one.run is not None
        assert refusalkit.score(one.run).n_scored == 35
        assert (one.path / "server.log").exists()
    # Each reserves the whole cluster: one after the other.
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert [beside for _, _, beside in lines] == ["0"] * 3
    assert not workers()


def test_answers_that_gather_a_while_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if there were 28 workers: a tenth of a second.
    monkeypatch.setattr(ray_workers, "_FEW_WORKERS", -18)
    with LoopbackServer(Script()) as server:
        run = benchmark(server, tmp_path / "run", concurrency=70)
        assert len(server.log) == 70
    assert refusalkit.score(run).n_scored == 70
