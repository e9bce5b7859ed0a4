"""Providers that speak OpenAI's batches in words of their own, over real sockets."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import refusalkit as rk
from loopback import LoopbackServer, Script
from refusalkit.api.batches import list_batches
from refusalkit.engine import batch_exchange, batching
from refusalkit.errors import ConfigurationError, FatalProviderError
from refusalkit.models import batch_dialects, openai_batches
from refusalkit.models.batch_dialects import BatchDialect, batch_providers, provider_at
from refusalkit.runs.folder import Run
from refusalkit.runs.records import read_records

SPOKEN = {"azure": "azure", "groq": "groq", "together_ai": "together", "mistral": "mistral"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "POLL_S", 0.02)
    monkeypatch.setattr(batch_exchange, "LIST_LAG_S", 0.3)
    monkeypatch.setattr(openai_batches, "_PREPARING_S", 0.6)


@pytest.fixture(params=sorted(SPOKEN))
def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackServer]:
    """The provider of one row, which the loopback address takes the place of."""
    name = str(request.param)
    row = replace(batch_providers()[name], hosts=("127.0.0.1",))
    monkeypatch.setitem(batch_providers(), name, row)
    with LoopbackServer(Script()) as running:
        running.batches.script.speaks = SPOKEN[name]  # type: ignore[assignment]
        yield running


def start(server: LoopbackServer, out: Path, *, wait: bool = True) -> Run:
    return rk.benchmark(
        "openai/target",
        "refusalkit-166",
        judge="graded",
        judge_model="openai/judge-x",
        api_base=server.openai_base,
        judge_api_base=server.openai_base,
        limit=6,
        trials=2,
        canaries=0,
        batch="both",
        wait=wait,
        out=out,
    )


def ended(run: Run) -> object:
    return run.manifest.sessions[-1].ended_because


def test_a_run_in_its_batches_is_whole_and_paid_for_once(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.batches.script.expires = frozenset({0})
    run = start(server, tmp_path / "run")
    assert ended(run) == "done"
    assert max(server.batches.paid.values()) == 1
    assert len(server.log) == 24
    assert len(server.batches.made) > 2, "what expired went into a batch of its own"
    counts = Counter[str]()
    for _, record in read_records(run.batches):
        counts.update(record.get("counts", {}))
    assert counts["answered"] == 24
    expired = sum(made.counts["expired"] for made in server.batches.made.values())
    assert counts["expired"] == expired > 0
    assert all(one.expires_at is None or "T" in one.expires_at for one in list_batches(run))


def test_a_batch_whose_creation_was_not_heard_of_is_found_in_its_list(
    server: LoopbackServer, tmp_path: Path
) -> None:
    script = server.batches.script
    script.lose, script.delay_s, script.list_lag_s = {"create"}, 0.05, 0.1
    run = start(server, tmp_path / "run")
    assert ended(run) == "done"
    assert len(server.batches.made) == 2
    assert max(server.batches.paid.values()) == 1


def test_a_batch_is_found_in_a_list_of_many(server: LoopbackServer, tmp_path: Path) -> None:
    script = server.batches.script
    for number in range(3):
        assert ended(start(server, tmp_path / f"earlier-{number}")) == "done"
    script.lose = {"create"}
    assert ended(start(server, tmp_path / "run")) == "done"
    assert max(server.batches.paid.values()) == 1
    assert len(server.batches.made) == 8


def test_it_can_be_looked_at_and_cancelled(server: LoopbackServer, tmp_path: Path) -> None:
    server.batches.script.delay_s = 3600
    run = start(server, tmp_path / "run", wait=False)
    (report,) = list_batches(run)
    assert report.status.upper() in ("IN_PROGRESS", "RUNNING")
    assert report.is_open
    (report,) = list_batches(run, cancel=True)
    assert report.status.upper() == "CANCELLED"
    server.batches.script.delay_s = 0
    assert ended(rk.resume(run, wait=True)) == "done"


def test_what_it_refuses_is_reported_in_its_words(server: LoopbackServer, tmp_path: Path) -> None:
    server.batches.script.refuse = "this model has no batches"
    with pytest.raises(FatalProviderError, match="this model has no batches"):
        start(server, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("groq", "GROQ_API_KEY"),
        ("mistral", "MISTRAL_API_KEY"),
        ("together_ai", "TOGETHER_API_KEY"),
    ],
)
def test_a_provider_that_litellm_reaches_is_asked_by_its_own_batches(
    name: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "loopback-key-0123456789")
    with LoopbackServer(Script()) as server:
        server.batches.script.speaks = SPOKEN[name]  # type: ignore[assignment]
        row = replace(batch_providers()[name], hosts=("127.0.0.1",), base=server.openai_base)
        monkeypatch.setitem(batch_providers(), name, row)
        run = rk.benchmark(
            f"{name}/target",
            "refusalkit-166",
            judge="graded",
            judge_model=f"{name}/judge-x",
            limit=4,
            trials=1,
            canaries=0,
            batch="both",
            wait=True,
            out=tmp_path / "run",
        )
        assert ended(run) == "done"
        assert sum(server.batches.paid.values()) == len(server.log) == 8
        assert {exchange.model for exchange in server.log} == {"target", "judge-x"}
        assert [one.status for one in list_batches(run)] == ["collected"] * 2


def test_a_provider_whose_key_is_not_set_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="GROQ_API_KEY holds no API key"):
        rk.benchmark("groq/target", batch="model", judge="lexical", out=tmp_path / "run")


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.together.xyz/v1", "together_ai"),
        ("https://api.mistral.ai/v1/", "mistral"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://mine.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.openai.com/v1", "openai"),
        ("http://gpu-box:8000/v1", "openai"),
        ("https://openai.azure.com.example.org/v1", "openai"),
        ("https://evil-api.groq.com/v1", "openai"),
    ],
)
def test_a_provider_is_known_by_the_host_of_its_base(base: str, name: str) -> None:
    assert provider_at(base).name == name


def test_every_row_of_the_table_is_whole_and_has_its_source() -> None:
    text = Path(batch_dialects.__file__).with_name("batches.toml").read_text("utf-8")
    for row in tomllib.loads(text)["provider"]:
        assert row["source"].startswith("https://")
        assert 0 < row.get("price_factor", 0.5) < 1
        assert row["form"] in ("openai", "anthropic")
        speaks = batch_providers()[row["provider"]].dialect
        assert isinstance(speaks, BatchDialect)
        assert set(speaks.refused) <= set(speaks.ended)
