"""Results for the Hub, written by huggingface_hub and sent by it to a loopback server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk

hub = pytest.importorskip("huggingface_hub", reason="make test-integrations")
yaml = pytest.importorskip("yaml", reason="make test-integrations")


class _Hub(BaseHTTPRequestHandler):
    """The Hub's commit API, as huggingface_hub asks it."""

    asked: list[tuple[str, str, str, bytes]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers["Authorization"], "POST", body))
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self._say(200, {"files": files})
        elif type(self).status != 200:
            self._say(type(self).status, {"error": "You may not."})
        else:
            base = f"http://{self.headers['Host']}"
            self._say(
                200,
                {
                    "commitUrl": f"{base}/lab/model/commit/{'a' * 40}",
                    "commitOid": "a" * 40,
                    "pullRequestUrl": f"{base}/lab/model/discussions/7",
                },
            )

    def _say(self, status: int, data: dict[str, Any]) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Hub]]]:
    handler = type("Hub", (_Hub,), {"asked": [], "status": 200})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", handler
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    return rk.benchmark("demo/leaky", "starter", trials=1, out=tmp_path_factory.mktemp("r") / "run")


def push(run: rk.Run, out: Path, endpoint: str, *more: str, token: str = "hf_loopback") -> Any:
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(out / "home")}
    words = ["export", str(run.path), str(out), "--to", "hub", "--dataset", "lab/refusalbench"]
    return subprocess.run(
        [sys.executable, "-m", "refusalkit", *words, "--push", "lab/model", *more],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_the_hubs_own_reader_finds_each_figure(run: rk.Run, tmp_path: Path) -> None:
    results, card = rk.export(run, "hub", tmp_path, dataset="lab/refusalbench").paths
    assert results == tmp_path / ".eval_results" / "refusalkit.yaml"
    entries = hub.parse_eval_result_entries(yaml.safe_load(results.read_text("utf-8")))
    score = rk.score(run)
    assert {each.task_id: each.value for each in entries} == {
        "willingness": round(score.willingness.value or 0, 2),
        "answer_rate": round(score.answer_rate.value or 0, 2),
        "hold_rate": round(score.hold_rate.value or 0, 2),
    }
    assert {each.dataset_id for each in entries} == {"lab/refusalbench"}
    assert "95 % interval" in entries[0].notes
    assert "judged by lexical" in entries[0].notes
    written = hub.ModelCard(f"---\n{card.read_text('utf-8')}---\n# A model\n")
    assert written.data.eval_results is not None
    assert len(written.data.eval_results) == 3


def test_without_a_data_set_it_says_what_to_add(run: rk.Run, tmp_path: Path) -> None:
    with pytest.raises(rk.UsageError, match="--dataset OWNER/NAME"):
        rk.export(run, "hub", tmp_path)


@pytest.mark.slow
def test_a_push_shows_what_it_sends_and_opens_a_pull_request(
    run: rk.Run, tmp_path: Path, server: tuple[str, type[_Hub]]
) -> None:
    endpoint, handler = server
    asked = push(run, tmp_path, endpoint)
    assert asked.returncode == 2
    assert "nothing was sent" in asked.stderr
    assert not handler.asked
    done = push(run, tmp_path, endpoint, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"Pull request: {endpoint}/lab/model/discussions/7" in done.stdout
    assert "task_id: willingness" in done.stderr
    path, token, _, body = handler.asked[-1]
    assert path.startswith("/api/models/lab/model/commit/main")
    assert "create_pr=1" in path
    assert token == "Bearer hf_loopback"
    lines = [json.loads(line) for line in body.splitlines()]
    (file,) = [line["value"] for line in lines if line["key"] == "file"]
    assert file["path"] == ".eval_results/refusalkit.yaml"
    sent = base64.b64decode(file["content"])
    assert sent == (tmp_path / ".eval_results" / "refusalkit.yaml").read_bytes()
    assert "hf_loopback" not in done.stdout + done.stderr


def test_no_token_and_a_refusal_are_reported_in_one_sentence(
    run: rk.Run, tmp_path: Path, server: tuple[str, type[_Hub]]
) -> None:
    endpoint, handler = server
    without = push(run, tmp_path, endpoint, "--yes", token="")
    assert without.returncode == 4
    assert "no token for the Hub: set HF_TOKEN" in without.stderr
    handler.status = 403
    refused = push(run, tmp_path, endpoint, "--yes")
    assert refused.returncode == 4
    assert "the Hub refused: You may not." in refused.stderr
    assert "Traceback" not in refused.stderr
