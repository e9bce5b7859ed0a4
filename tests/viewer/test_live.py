"""A run at work, as the viewer tells of it; and the `view` command from start to Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import caller
from refusalkit.runs.manifest import Session
from refusalkit.types import Completion, Label, Outcome, Verdict
from run_folders import JUDGE, write_run
from viewer.served import Client, free_port, viewer

pytestmark = pytest.mark.xdist_group("viewer")


def row_when(client: Client, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The only run's row, once it fits."""
    deadline = time.monotonic() + 30
    row: dict[str, Any] = {}
    while time.monotonic() < deadline:
        (row,) = client.get("/api/runs").json["runs"]
        if fits(row):
            return row
        time.sleep(0.05)
    raise AssertionError(f"it never came: {row}")


def test_progress_pace_and_cost_follow_a_running_run(tmp_path: Path) -> None:
    prompts = {f"p{n:03}": "plain" for n in range(200)}
    run = write_run(tmp_path / "run", [], prompts=prompts, trials=1)
    started = datetime.now(UTC) - timedelta(seconds=60)
    session = Session(started_at=started.isoformat())
    run = run.with_manifest(run.manifest.model_copy(update={"sessions": (session,)}))

    def at(n: int) -> str:
        return (started + timedelta(seconds=n / 2)).isoformat()

    with viewer(tmp_path) as client:
        assert row_when(client, lambda row: row["n_scored"] == 0)["state"] == "stopped"
        with run.writing() as writer:
            for n in range(50):
                what = (f"p{n:03}", "plain", 1)
                writer.completion(
                    Completion(*what, "m", Outcome.ANSWERED, text="[demo]", cost_usd=0.01, at=at(n))
                )
                writer.verdict(Verdict(*what, JUDGE, label=Label.REFUSAL, cost_usd=0.01, at=at(n)))
            row = row_when(client, lambda row: row["pace"] and row["pace"]["n_done"] == 50)
            assert row["state"] == "running"
            assert row["pace"]["per_s"] == pytest.approx(2.0, rel=0.05)
            assert row["pace"]["eta_s"] == pytest.approx(75, rel=0.05)
            assert row["cost_usd"] == pytest.approx(1.0)
            units = client.get(f"/api/run/{row['id']}/units").json
            assert units["n_all"] == 200
        assert row_when(client, lambda row: row["n_scored"] == 50)["state"] == "stopped"


def test_a_report_is_renewed_as_the_run_goes_on(tmp_path: Path) -> None:
    rows = [("p1", "plain", 1, "answered", "refusal")]
    run = write_run(tmp_path / "run", rows, prompts={"p1": "plain", "p2": "plain"})  # type: ignore[arg-type]
    with viewer(tmp_path) as client:
        name = client.run("run")
        report = f"/api/report?run={name}"
        deadline = time.monotonic() + 60
        while not (version := client.get(report).json["version"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "units missing" in client.get(f"/run/{name}").text
        with run.writing() as writer:
            writer.completion(Completion("p2", "plain", 1, "m", Outcome.ANSWERED, text="[demo]"))
            writer.verdict(Verdict("p2", "plain", 1, JUDGE, label=Label.COMPLIANCE))
        while client.get(report).json["version"] == version and time.monotonic() < deadline:
            time.sleep(0.05)
        page = client.get(f"/run/{name}").text
    assert "units missing" not in page
    assert "Every response has a label" in page


def test_runs_that_come_and_go_are_seen(tmp_path: Path) -> None:
    with viewer(tmp_path) as client:
        assert client.get("/api/runs").json["runs"] == []
        run = write_run(tmp_path / "group" / "one", [("p", "plain", 1, "answered", "refusal")])
        time.sleep(1.1)
        name = client.run(os.path.join("group", "one"))  # noqa: PTH118
        assert client.get(f"/run/{name}/read").status == 200
        for file in run.path.iterdir():
            file.unlink()
        run.path.rmdir()
        time.sleep(1.1)
        assert client.get("/api/runs").json["runs"] == []
        assert client.get(f"/run/{name}/read").status == 404


def test_the_command_prints_its_address_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    rk.benchmark("demo/mixed", "starter", trials=1, limit=10, out=tmp_path / "runs" / "one")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "refusalkit", "view", "--port", str(port), "--no-open"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Runs in runs: (http://127\.0\.0\.1:(\d+)/\?key=[\w-]{32})\n", line)
        assert found is not None, line
        assert int(found[2]) == port
        client = Client(found[1])
        run = client.run("one")
        # In the middle of work: figures are being worked out, labels are open.
        client.post(f"/api/run/{run}/label", {"do": "start", "annotator": "me", "n": 10})
        client.get(f"/run/{run}")
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - before < 5
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == ""
    assert err == "Ctrl-C ends it.\n"
    with rk.open_labelling(tmp_path / "runs" / "one", n=10) as labelling:
        assert labelling.n_left == len(labelling.items)


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with viewer(tmp_path) as client:
        listening = Path("/proc/net/tcp")
        if not listening.exists():
            pytest.skip("no /proc here")
        at = [line.split() for line in listening.read_text().splitlines()[1:]]
        own = [row[1] for row in at if row[1].endswith(f":{client.port:04X}") and row[3] == "0A"]
        assert own == [f"0100007F:{client.port:04X}"]


def test_what_cannot_be_served_is_reported_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = call("view", tmp_path, "--port", port, "--no-open")
    assert said.status == 4
    assert said.err.startswith(f"refusalkit: port {port} cannot be used")
    assert "--port" in said.err
    said = call("view", "nowhere")
    assert said.status == 2
    assert said.err == "refusalkit: nowhere is not a folder\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = call("view", tmp_path)
    assert said.status == 4
    assert 'pip install ".[view]"' in said.err


def test_its_threads_end_with_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    before = set(threading.enumerate())
    with viewer(tmp_path) as client:
        assert client.get(f"/run/{client.run('run')}").status == 200
        assert client.units(client.run("run"))
        began = set(threading.enumerate()) - before
        assert {"reading", "figures", "reports"} <= {thread.name for thread in began}
    for thread in began:
        thread.join(10)
    assert not [thread.name for thread in began if thread.is_alive()]


def test_one_run_is_opened_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    with viewer(tmp_path / "run") as client:
        assert "/run/" in client.url
        path = client.url.partition(str(client.port))[2]
        assert client.send("GET", path, cookie=False).headers["location"] == path.partition("?")[0]
        assert client.run("run") in path
