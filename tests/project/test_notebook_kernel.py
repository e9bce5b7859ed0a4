"""A real Jupyter kernel: its Stop button, its progress and its errors."""

from __future__ import annotations

import os
import queue
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit
from loopback import LoopbackServer, Script
from refusalkit.runs.folder import open_run
from refusalkit.runs.records import read_records

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a kernel is interrupted by a signal")
OPEN = Script(refusal_rate=0.0)


class Kernel:
    """A kernel whose cells are run and interrupted."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager(kernel_name="python3")
        assert self._manager.kernel_spec is not None
        self._manager.kernel_spec.argv[0] = sys.executable
        self._manager.start_kernel(cwd=str(folder))
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def start(self, cell: str) -> None:
        self._asked = self._client.execute(cell)

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def outputs(self, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """What the cell put out, once it has ended."""
        found = []
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                message = self._client.get_iopub_msg(timeout=1.0)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != self._asked:
                continue
            content = message["content"]
            if message["msg_type"] == "status":
                if content["execution_state"] == "idle":
                    return found
                continue
            found.append({"kind": message["msg_type"], **content})
        raise AssertionError(f"the cell did not end within {timeout_s} s")

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    # These libraries raise deprecation warnings about one another on import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Kernel(tmp_path)
        yield made
        made.close()


def own_time_of(kernel: Kernel, folder: Path) -> float:
    """Seconds that the kernel itself takes to end a cell that waits, on this machine now."""
    kernel.start("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)")
    until = time.monotonic() + 30
    while not (folder / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    stopped = time.monotonic()
    kernel.interrupt()
    kernel.outputs(20)
    return time.monotonic() - stopped


def cell(server: LoopbackServer, call: str) -> str:
    base = server.openai_base
    return f"""
import refusalkit as rk
options = dict(
    judge="graded", judge_model="openai/judge-x", judge_api_base={base!r}, api_base={base!r},
    category=["weapons"], trials=60, concurrency=4, canaries=0, out="stopped",
)
run = {call}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        'rk.benchmark("openai/target", "starter", **options)',
        'await rk.benchmark_async("openai/target", "starter", **options)',
    ],
)
@pytest.mark.parametrize("latency_s", [0.4, 30.0])
def test_the_stop_button_ends_a_run_within_two_seconds_and_it_can_be_resumed(
    kernel: Kernel, tmp_path: Path, call: str, latency_s: float
) -> None:
    own = own_time_of(kernel, tmp_path)
    with LoopbackServer(OPEN, latency_s=latency_s) as server:
        kernel.start(cell(server, call))
        server.wait_for(12 if latency_s < 1 else 4, 30)
        stopped = time.monotonic()
        kernel.interrupt()
        outputs = kernel.outputs(20)
        assert time.monotonic() - stopped < 2.0 + own
        asked = server.requests.total()
        time.sleep(1.0)
        assert server.requests.total() == asked, "nothing is asked after the cell has ended"

        run = open_run(tmp_path / "stopped")
        assert run.manifest.sessions[-1].ended_because == "interrupted"
        (error,) = (each for each in outputs if each["kind"] == "error")
        if not call.startswith("await"):
            assert error["ename"] == "KeyboardInterrupt"
            (line,) = error["traceback"]
            assert line.startswith("KeyboardInterrupt: interrupted; go on with: refusalkit resume")
            # What was in flight was waited for a moment.
            if latency_s < 1:
                kept = sum(1 for _ in read_records(run.completions))
                assert kept == server.requests["target"]
        before = sum(1 for _ in read_records(run.completions))
        paid = server.requests["target"]
        server.provider.latency_s = 0.0
        done = refusalkit.resume(run)
        assert done.manifest.sessions[-1].ended_because == "done"
        assert server.requests["target"] - paid == 60 - before, "only what was owed"
        units = [record["unit"] for _, record in read_records(done.completions)]
        assert len(units) == len(set(units)) == 60


@pytest.mark.slow
def test_an_error_is_one_sentence_and_progress_is_a_line_of_text(kernel: Kernel) -> None:
    kernel.start('import refusalkit as rk\nrk.benchmark("demo/open", "no-such-set")')
    (error,) = (each for each in kernel.outputs() if each["kind"] == "error")
    assert error["ename"] == "PromptSetError"
    (line,) = error["traceback"]
    assert line.startswith("PromptSetError: ")
    assert "no-such-set" in line
    assert "\n" not in line

    asked = 'run = rk.benchmark("demo/open", "starter", category=["weapons"], trials=15'
    kernel.start(f"{asked}, on_progress=rk.TextProgress())")
    outputs = kernel.outputs()
    assert {each["kind"] for each in outputs} <= {"execute_input", "stream"}
    text = "".join(each["text"] for each in outputs if each["kind"] == "stream")
    assert text.rpartition("\r")[2] == (
        "15/15 answered, 15 judged, 0 refusals, 0 unscored, $0.00\n"
    )
