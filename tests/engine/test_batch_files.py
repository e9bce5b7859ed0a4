"""Batches as files that somebody answers offline, in the form that ``vllm run-batch`` reads."""

from __future__ import annotations

import json
import logging
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call
from loopback import LoopbackServer, Script
from refusalkit.engine import batching
from refusalkit.errors import ConfigurationError, FatalProviderError
from refusalkit.runs.folder import Run, open_run
from refusalkit.runs.records import read_records

MODEL = "Qwen/Qwen3-8B"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "POLL_S", 0.02)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """The judge's endpoint; the model has none."""
    with LoopbackServer(Script()) as running:
        yield running


def start(server: LoopbackServer, out: Path, files: Path, **more: Any) -> Run:
    return rk.benchmark(
        f"hosted_vllm/{MODEL}",
        "refusalkit-166",
        judge="graded",
        judge_model="openai/judge-x",
        judge_api_base=server.openai_base,
        batch_to=str(files),
        limit=8,
        trials=2,
        canaries=0,
        out=out,
        **more,
    )


def ended(run: Run) -> object:
    return run.manifest.sessions[-1].ended_because


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def answered(asked: Path, into: Path | None = None, change: Change = lambda rows: rows) -> Path:
    """Answer a file of requests as vLLM does: a line each, with a completion as its body."""
    rows = []
    for number, line in enumerate(asked.read_text("utf-8").splitlines()):
        row = json.loads(line)
        assert row.keys() == {"custom_id", "method", "url", "body"}
        assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
        assert row["body"]["model"] == MODEL
        text = "I can't help with that." if number % 3 else "[demo answer]"
        body = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "reasoning_content": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                }
            ],
            "usage": {"prompt_tokens": 20, "total_tokens": 26, "completion_tokens": 6},
        }
        response = {"status_code": 200, "request_id": f"vllm-batch-{number}", "body": body}
        rows.append(
            {
                "id": f"vllm-{number}",
                "custom_id": row["custom_id"],
                "response": response,
                "error": None,
            }
        )
    into = into or asked.with_name(asked.name.replace(".jsonl", ".results.jsonl"))
    into.write_text("".join(json.dumps(row) + "\n" for row in change(rows)), "utf-8")
    return into


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("rk-*.jsonl") if "results" not in path.name)


def test_requests_go_to_a_file_and_answers_come_from_one(
    server: LoopbackServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="refusalkit")
    run = start(server, tmp_path / "run", tmp_path / "files")
    assert ended(run) == "batches"
    (asked,) = files_of(tmp_path / "files")
    assert "16 requests are in" in caplog.text
    if os.name == "posix":
        assert stat.S_IMODE(asked.stat().st_mode) == 0o600
    lines = asked.read_text("utf-8").splitlines()
    assert len({json.loads(line)["custom_id"] for line in lines}) == 16
    assert not server.log, "nothing was sent"

    def mess(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*reversed(rows), rows[0], {**rows[1], "custom_id": "somebody-elses"}]

    answered(asked, change=mess)
    run = rk.resume(run, batch_to=str(tmp_path / "files"))
    assert ended(run) == "done"
    assert "1 for requests that are not in the batch, 1 that are there twice" in caplog.text
    records = [r for _, r in read_records(run.completions)]
    assert len(records) == 16
    assert {r["outcome"] for r in records} == {"answered"}
    assert {r["cost_usd"] for r in records} == {None}, "what your own machine costs is not known"
    assert len(server.log) == 16, "each answer was judged once"
    withheld = {r["unit"] for r in records if r["text"] is None}
    assert withheld
    assert withheld <= {r["unit"] for _, r in read_records(run.verdicts) if r["label"]}
    whole = "".join(p.read_text("utf-8") for p in run.path.iterdir() if p.is_file())
    assert str(tmp_path / "files") not in whole, "the folder is said by whoever runs the command"


def test_what_is_missing_or_failed_in_the_results_goes_into_another_file(
    server: LoopbackServer, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files)
    (first,) = files_of(files)
    error = {"status_code": 400, "body": {"error": {"message": "too long", "code": 400}}}

    def part(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[0], "response": error}, *rows[3:]]

    results = answered(first, change=part)
    run = rk.resume(run, batch_to=str(files))
    assert ended(run) == "batches", "fewer lines than requests: it may still be being written"
    assert len(files_of(files)) == 1
    long_ago = time.time() - 7200  # vLLM holds lines back until the slowest before them is there
    os.utime(results, (long_ago, long_ago))
    run = rk.resume(run, batch_to=str(files))
    assert ended(run) == "batches"
    (second,) = (path for path in files_of(files) if path != first)
    assert len(second.read_text("utf-8").splitlines()) == 3
    answered(second)
    assert ended(rk.resume(run, batch_to=str(files))) == "done"
    assert len(server.log) == 16


@pytest.mark.parametrize(
    "error",
    [
        "too long for [demo model]",
        {"error": {"message": "too long for [demo model]", "type": "BadRequestError", "code": 400}},
        {"object": "error", "message": "too long for [demo model]", "code": 400},
    ],
)
def test_why_a_request_failed_is_read_where_vllm_says_it(
    server: LoopbackServer, tmp_path: Path, error: object
) -> None:
    # A response without a body, and the reason beside it: `make_error_request_output` and
    # `run_request` of vllm/entrypoints/openai/run_batch.py, today's form and that of before 0.10.
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files)
    failed = {"status_code": 400, "request_id": "vllm-batch-1", "body": None}

    def part(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[0], "response": failed, "error": error}, *rows[1:]]

    answered(*files_of(files), change=part)
    run = rk.resume(run, batch_to=str(files))
    lost = [r for _, r in read_records(run.completions) if r["outcome"] == "error"]
    assert len(lost) == 1
    assert "too long for [demo model]" in str(lost[0]["error_detail"])


def test_a_killed_run_finds_the_file_that_it_wrote(server: LoopbackServer, tmp_path: Path) -> None:
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files)
    journal = (run.path / "batches.jsonl").read_text("utf-8").splitlines(keepends=True)
    (run.path / "batches.jsonl").write_text(journal[0], "utf-8")  # killed before it wrote more
    answered(*files_of(files))
    assert ended(rk.resume(run, batch_to=str(files))) == "done"
    assert len(files_of(files)) == 1


def test_a_run_killed_before_its_file_was_written_writes_it_at_once(
    server: LoopbackServer, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files)
    journal = (run.path / "batches.jsonl").read_text("utf-8").splitlines(keepends=True)
    (run.path / "batches.jsonl").write_text(journal[0], "utf-8")
    files_of(files)[0].unlink()
    assert ended(rk.resume(run, batch_to=str(files))) == "batches"
    assert len(files_of(files)) == 1


def test_hard_line_answers_are_read_from_the_results_again_for_a_batch_judge(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.batches.script.delay_s = 0.05
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files, batch="both")
    answered(*files_of(files))
    for _ in range(20):
        run = rk.resume(run, batch_to=str(files))
        if ended(run) == "done":
            break
        time.sleep(0.05)
    assert ended(run) == "done"
    assert len(server.batches.paid) == 16, "the judge's batch is a provider's, with all answers"


def test_the_command_says_how_to_answer_the_file_and_how_to_come_back(
    server: LoopbackServer, call: Call, tmp_path: Path
) -> None:
    command = ("run", MODEL, "--limit", "4", "--trials", "1", "--canaries", "0", "--out", "r")
    judge = ("--judge-model", "openai/judge-x", "--judge-api-base", server.openai_base)
    first = call(*command, *judge, "--batch-to", "my files")
    assert first.status == 3
    said = next(line for line in first.out.splitlines() if "vllm run-batch" in line)
    program, verb, *rest = shlex.split(said)
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    assert (program, verb, options["--model"]) == ("vllm", "run-batch", MODEL)
    assert "come back with refusalkit resume r --batch-to 'my files'" in first.err
    assert "hard lines too" in first.err
    listed = call("batches", "r")
    assert (listed.status, "in a file" in listed.out) == (3, True)
    answered(tmp_path / options["-i"], tmp_path / options["-o"])
    lost = call("resume", "r")
    assert (lost.status, "give --batch-to DIR" in lost.err) == (4, True)
    elsewhere = call("resume", "r", "--batch-to", "other")
    assert (elsewhere.status, "the folder it was written to" in elsewhere.err) == (4, True)
    assert call("resume", "r", "--batch-to", "my files", "--max-unscored", "100").status == 0
    assert open_run(tmp_path / "r").manifest.sessions[-1].ended_because == "done"


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (MODEL, {"batch": "judge"}, "set batch to model or both"),
        ("anthropic/claude-sonnet-5-5", {}, "leave out --batch-to"),
        ("demo/mixed", {"judge": "lexical", "judge_model": None}, "leave out"),
        (MODEL, {"batch_to": " "}, "batch_to is empty"),
        (MODEL, {"engine": "ray"}, "leave out serve and engine"),
        (MODEL, {"pressure": 2}, "pressure"),
    ],
)
def test_what_cannot_go_to_files_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, options: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.chdir(tmp_path)
    given = {
        "judge": "graded",
        "judge_model": "openai/judge-x",
        "judge_api_base": "http://127.0.0.1:9/v1",
        "batch_to": "files",
        "out": tmp_path / "run",
        **options,
    }
    with pytest.raises(ConfigurationError, match=says):
        rk.benchmark(model, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_results_that_are_no_file_are_reported(server: LoopbackServer, tmp_path: Path) -> None:
    files = tmp_path / "files"
    run = start(server, tmp_path / "run", files)
    (asked,) = files_of(files)
    results = asked.with_name(asked.name.replace(".jsonl", ".results.jsonl"))
    results.write_bytes(b"\x00 not JSON\n{\n[]\n" * 3)
    assert ended(rk.resume(run, batch_to=str(files))) == "batches"
    results.unlink()
    (tmp_path / "a file").write_text("")
    with pytest.raises(FatalProviderError, match="cannot be written"):
        start(server, tmp_path / "second", tmp_path / "a file" / "files")
