"""Which endpoint a run asks is on record, and who goes on with it asks there again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from loopback import LoopbackServer, Script
from refusalkit.errors import ConfigurationError

KEY = "loopback-key-0123456789"
SMALL: dict[str, Any] = {"limit": 4, "trials": 1, "concurrency": 1, "canaries": 0}
JUDGED = {"judge": "graded", "judge_model": "openai/judge-x"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def named() -> Iterator[LoopbackServer]:
    """The endpoint that the environment names at first."""
    with LoopbackServer(Script(refusal_rate=0.0)) as running:
        yield running


@pytest.fixture
def other() -> Iterator[LoopbackServer]:
    """The endpoint that it names later."""
    with LoopbackServer(Script(refusal_rate=0.0)) as running:
        yield running


def start(out: Path, after: int = 2, **options: Any) -> rk.Run:
    """A run that is stopped after so many verdicts."""

    async def part() -> rk.Run:
        stop = asyncio.Event()

        def watch(progress: rk.Progress) -> None:
            if progress.verdicts >= after:
                stop.set()

        given = {**SMALL, **JUDGED, **options}
        return await rk.benchmark_async(
            "openai/target", out=out, stop=stop, on_progress=watch, **given
        )

    return asyncio.run(part())


def answers(folder: Path) -> Path:
    path = folder / "answers.jsonl"
    rows = [{"prompt": f"[demo prompt {n}]", "response": "[demo answer]"} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("later", ["another", "none"])
def test_a_resume_asks_the_endpoint_that_the_environment_named_at_the_start(
    named: LoopbackServer,
    other: LoopbackServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    later: str,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{named.openai_base}/")
    run = start(tmp_path / "run")
    config = run.manifest.run_config
    assert (config.api_base, config.judge_api_base) == (named.openai_base, named.openai_base)
    if later == "another":
        monkeypatch.setenv("OPENAI_BASE_URL", other.openai_base)
    else:
        monkeypatch.delenv("OPENAI_BASE_URL")
    run = rk.resume(run)
    assert run.manifest.sessions[-1].ended_because == "done"
    assert named.requests == {"target": 4, "judge": 4}
    assert other.requests == {}


def test_a_resume_goes_to_another_endpoint_if_told_to(
    named: LoopbackServer, other: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", named.openai_base)
    run = start(tmp_path / "run")
    before = run.manifest.config_digest
    run = rk.resume(run, api_base=other.openai_base)
    assert set(other.requests) == {"target"}
    assert run.manifest.sessions[-1].operational["api_base"] == other.openai_base
    assert run.manifest.config_digest == before == run.manifest.run_config.digest


def test_a_run_of_before_resumes_as_before_and_its_session_says_where(
    named: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", named.openai_base)
    run = start(tmp_path / "run")
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["config"] |= {"api_base": None, "judge_api_base": None}
    path.write_text(json.dumps(manifest), "utf-8")
    run = rk.resume(run.path)
    assert run.manifest.sessions[-1].ended_because == "done"
    assert run.manifest.sessions[-1].operational["api_base"] == named.openai_base
    # Written before there was a seal, it is adopted, and a resume asks there again.
    assert run.manifest.run_config.api_base == named.openai_base


def test_a_providers_own_endpoint_does_not_count_as_ones_own(
    monkeypatch: pytest.MonkeyPatch, named: LoopbackServer, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", named.openai_base)
    # Neither asks OpenAI.
    run = rk.benchmark("demo/open", out=tmp_path / "demo", **SMALL)
    assert run.manifest.run_config.api_base is None
    assert run.manifest.run_config.judge_api_base is None


def test_judges_at_different_endpoints_have_no_base_in_common(
    named: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", named.openai_base)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", named.anthropic_base)
    council = "graded@openai/judge-x,graded@anthropic/judge-y"
    options: dict[str, Any] = {"judge": council, "council": "majority", "judge_model": None}
    config = start(tmp_path / "run", **options).manifest.run_config
    assert (config.api_base, config.judge_api_base) == (named.openai_base, None)


@pytest.mark.parametrize("again", ["grade", "regrade"])
def test_grading_that_goes_on_asks_where_it_began(
    named: LoopbackServer,
    other: LoopbackServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    again: str,
) -> None:
    # Kept, so that there is something to judge again: a draw takes a prompt of each hard line.
    options: dict[str, Any] = {**SMALL, "keep_hard_line_text": True}
    run = rk.benchmark("demo/open", judge="lexical", out=tmp_path / "run", **options)
    records = answers(tmp_path)

    async def part(after: int) -> None:
        stop = asyncio.Event()

        def watch(progress: rk.Progress) -> None:
            if progress.verdicts >= after:
                stop.set()

        options: dict[str, Any] = {"judge_model": "openai/judge-x", "canaries": 0}
        options |= {"concurrency": 1, "stop": stop, "on_progress": watch}
        if again == "grade":
            await rk.grade_async(records, "graded", out=tmp_path / "g", **options)
        else:
            await rk.regrade_async(run.path, "graded", **options)

    monkeypatch.setenv("OPENAI_BASE_URL", named.openai_base)
    asyncio.run(part(2))
    assert 0 < named.requests["judge"] < 4
    monkeypatch.setenv("OPENAI_BASE_URL", other.openai_base)
    asyncio.run(part(100))
    assert named.requests == {"judge": 4}
    assert other.requests == {}
    folder = tmp_path / "g" if again == "grade" else run.path
    for session in rk.load_run(folder).manifest.sessions[-2:]:
        assert session.operational["judge_api_base"] == named.openai_base


@pytest.mark.parametrize(
    "base", [f"http://user:{KEY}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?key={KEY}"]
)
def test_a_base_that_cannot_be_written_down_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    for options in ({"judge": "lexical"}, JUDGED):
        model = "openai/target" if options != JUDGED else "demo/open"
        with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL in the environment") as told:
            rk.benchmark(model, out=tmp_path / "run", **{**SMALL, **options})
        assert "credentials" in str(told.value)
        assert KEY not in str(told.value)
    assert not (tmp_path / "run").exists()
