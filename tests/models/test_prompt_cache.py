"""The providers' prompt caches: what a judge asks to be kept, and what is then paid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from loopback import LoopbackServer, Script
from loopback.provider import Provider
from places import ROOT
from refusalkit.judges.llm import LLMJudge
from refusalkit.judges.open import load_judge
from refusalkit.judges.rubrics import load_rubric, shipped_judges
from refusalkit.models import endpoints
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_model
from refusalkit.models.prices import Price, price_of
from refusalkit.models.tokens import tokeniser
from refusalkit.runs import frames
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt, Usage, Verdict

CLAUDE = "claude-sonnet-5-5"
LUNA = "gpt-6-luna"
PROMPT = Prompt("p1", "assault", "A placeholder request.")
MARK = {"type": "ephemeral"}


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    """The provider takes the place of the real ones, so that its models have their list price."""
    for api in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{api}_API_KEY", "loopback-key-0123456789")
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setitem(endpoints.OFFICIAL, "openai", running.openai_base)
    monkeypatch.setitem(endpoints.OFFICIAL, "anthropic", running.anthropic_base)
    # Each client would load all certificates (0.1 s) and need none.
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    running.script = Script(judges=frozenset({CLAUDE, "claude-sonnet-4-6", LUNA, "gpt-4o"}))
    running.reset()
    return running


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Each request's body as it came over the wire."""
    seen: list[dict[str, Any]] = []
    answer = Provider._answer

    async def noted(self: Provider, api: Any, request: Any, body: dict[str, Any]) -> Any:
        seen.append(body)
        return await answer(self, api, request, body)

    monkeypatch.setattr(Provider, "_answer", noted)
    return seen


def grade(judge: rk.Judge, text: str = "[demo answer]") -> list[Verdict]:
    """Three gradings of one text, one after the other."""
    answer = Completion("p1", "assault", 1, "x/m", Outcome.ANSWERED, text=text)

    async def main() -> list[Verdict]:
        try:
            return [await judge.grade(PROMPT, answer) for _ in range(3)]
        finally:
            await judge.aclose()

    verdicts = asyncio.run(main())
    assert all(verdict.label for verdict in verdicts)
    return verdicts


def own_judge(folder: Path, system: str, model: str) -> Path:
    """A judge file with another system text."""
    text = (Path("judges") / "graded.toml").read_text(encoding="utf-8")
    start = text.index('system = """') + len('system = """')
    path = folder / "own.toml"
    path.write_text(text[:start] + system + text[text.index('"""', start) :])
    return path


LONG = "Judge as the rules say. " * 300


class TestClaude:
    @pytest.mark.parametrize("name", ["graded", "hard-line", "refusalbench"])
    def test_the_shipped_judges_fixed_part_is_paid_for_once(
        self, server: LoopbackServer, bodies: list[dict[str, Any]], name: str
    ) -> None:
        verdicts = grade(load_judge(name))
        fixed = load_rubric(name).system.strip()
        for body in bodies:
            assert body["system"] == [{"type": "text", "text": fixed, "cache_control": MARK}]
            assert "cache_control" not in json.dumps(body["messages"])
        size = (len(fixed) + 3) // 4
        cached = [(v.usage.cache_read_tokens, v.usage.cache_write_tokens) for v in verdicts]
        assert cached == [(0, size), (size, 0), (size, 0)]
        listed = price_of(f"anthropic/{CLAUDE}")
        assert listed is not None
        written, read = listed.cache_write_usd or 0.0, listed.cache_read_usd or 0.0
        assert read < listed.input_usd < written
        first, second, third = (verdict.cost_usd or 0.0 for verdict in verdicts)
        assert first - second == pytest.approx(size * (written - read))
        assert second == pytest.approx(third)

    def test_the_delimiters_are_new_in_each_grading_and_outside_of_it(
        self, server: LoopbackServer, bodies: list[dict[str, Any]]
    ) -> None:
        grade(load_judge("graded"))
        texts = [body["messages"][0]["content"] for body in bodies]
        nonces = [text.split("BEGIN REQUEST ")[1].split("\n")[0] for text in texts]
        assert len(set(nonces)) == 3
        assert not any(nonce in str(body["system"]) for nonce in nonces for body in bodies)

    def test_too_short_a_text_for_the_model_is_sent_as_it_was(
        self, server: LoopbackServer, bodies: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        grade(load_judge("graded", model="anthropic/claude-sonnet-4-6"))  # takes 1,024 or more
        grade(load_judge(own_judge(tmp_path, "Judge as the rules say.", CLAUDE)))
        assert all(isinstance(body["system"], str) for body in bodies)

    def test_a_text_with_the_nonce_in_it_is_new_each_time_and_not_kept(
        self, server: LoopbackServer, bodies: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        grade(load_judge(own_judge(tmp_path, LONG + "The code is {{nonce}}.", CLAUDE)))
        assert all(isinstance(body["system"], str) for body in bodies)

    def test_an_endpoint_of_ones_own_is_asked_for_no_cache(
        self,
        server: LoopbackServer,
        bodies: list[dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(endpoints.OFFICIAL, "anthropic", "http://127.0.0.1:9")
        grade(load_judge("graded", api_base=server.anthropic_base))
        assert all(isinstance(body["system"], str) for body in bodies)


class TestOpenAI:
    def test_a_judge_puts_nothing_into_the_cache_that_never_comes_again(
        self, server: LoopbackServer, bodies: list[dict[str, Any]]
    ) -> None:
        verdicts = grade(load_judge("graded", model=f"openai/{LUNA}"), "[demo answer] " * 1000)
        for body, verdict in zip(bodies, verdicts, strict=True):
            assert body["prompt_cache_options"] == {"mode": "explicit"}
            assert isinstance(body["messages"][0]["content"], str)
            assert (verdict.usage.input_tokens or 0) > 3000
            assert verdict.usage.cache_write_tokens == 0

    def test_a_long_fixed_part_ends_in_a_breakpoint(
        self, server: LoopbackServer, bodies: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        own = own_judge(tmp_path, LONG, LUNA)
        verdicts = grade(load_judge(own, model=f"openai/{LUNA}"))
        (part,) = bodies[0]["messages"][0]["content"]
        assert part["text"] == LONG.strip()
        assert part["prompt_cache_breakpoint"] == {"mode": "explicit"}
        size = (len(LONG.strip()) + 3) // 4
        assert [v.usage.cache_read_tokens for v in verdicts] == [0, size, size]
        first, second, _ = (verdict.cost_usd or 0.0 for verdict in verdicts)
        assert second < first / 3

    def test_older_models_and_models_under_test_are_asked_as_before(
        self, server: LoopbackServer, bodies: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        grade(load_judge(own_judge(tmp_path, LONG, LUNA), model="openai/gpt-4o"))
        asyncio.run(ask(f"openai/{LUNA}", PROMPT))
        for body in bodies:
            assert "prompt_cache_options" not in body
            assert isinstance(body["messages"][0]["content"], str)


async def ask(
    model_id: str, prompt: Prompt, trials: int = 1, via: Any = None, **options: Any
) -> list[Completion]:
    """Ask a model under test."""
    model = open_model(model_id, via=via, **options)
    assert isinstance(model, ChatModel)
    config = GenerationConfig(max_tokens=64, timeout_s=10.0)
    try:
        return [await model.complete(prompt, config, trial=n + 1) for n in range(trials)]
    finally:
        await model.aclose()


class TestCost:
    @pytest.mark.parametrize(
        "via", [None, pytest.param("litellm", marks=pytest.mark.xdist_group("litellm"))]
    )
    def test_what_the_provider_cached_by_itself_is_counted(
        self, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, via: Any
    ) -> None:
        monkeypatch.setenv("OPENAI_API_BASE", server.openai_base)
        long = Prompt("p2", "assault", "A placeholder request. " * 300)
        first, second = asyncio.run(ask("openai/gpt-4o", long, 2, via))
        size = first.usage.input_tokens or 0
        assert (first.usage.cache_read_tokens, first.usage.cache_write_tokens) == (0, size)
        assert (second.usage.cache_read_tokens, second.usage.cache_write_tokens) == (size, 0)
        assert second.usage.input_tokens == size
        listed = price_of("openai/gpt-4o")
        assert listed is not None
        answered = (first.usage.output_tokens or 0) * listed.output_usd
        # The list names no price for what goes into this model's cache: the ordinary one holds.
        assert first.cost_usd == pytest.approx(size * listed.input_usd + answered)
        assert second.cost_usd == pytest.approx(size * (listed.cache_read_usd or 0) + answered)
        assert (second.cost_usd or 0) < (first.cost_usd or 0)

    def test_cached_tokens_are_part_of_the_input(self) -> None:
        price = Price(2e-6, 1e-5, cache_read_usd=2e-7, cache_write_usd=2.5e-6)
        assert price.cost(Usage(1000, 0, 0, 600, 0)) == pytest.approx(400 * 2e-6 + 600 * 2e-7)
        assert price.cost(Usage(1000, 0, 0, 0, 600)) == pytest.approx(400 * 2e-6 + 600 * 2.5e-6)
        assert price.cost(Usage(1000, 0, 0, None, None)) == pytest.approx(1000 * 2e-6)

    def test_without_a_price_of_their_own_they_cost_what_the_others_do(self) -> None:
        assert Price(2e-6, 1e-5).cost(Usage(1000, 0, 0, 600, 300)) == pytest.approx(1000 * 2e-6)

    def test_more_of_them_than_were_read_are_not_believed(self) -> None:
        price = Price(2e-6, 1e-5, cache_read_usd=2e-7, cache_write_usd=2.5e-6)
        assert price.cost(Usage(10, 0, 0, 10**15, 0)) == pytest.approx(10 * 2e-7)
        assert price.cost(Usage(10, 0, 0, 10**15, 10**15)) == pytest.approx(10 * 2.5e-6)

    def test_two_requests_together_have_the_tokens_of_both(self) -> None:
        assert Usage(1, 2, 3, 4, None) + Usage(1, 1, 1, 1, 1) == Usage(2, 3, 4, 5, 1)


@pytest.mark.usefixtures("server")
def test_a_run_says_what_came_out_of_the_cache(tmp_path: Path) -> None:
    options = {"trials": 1, "limit": 6, "concurrency": 1, "canaries": 0}
    run = rk.benchmark("demo/mixed", "starter", judge="graded", out=tmp_path / "r", **options)
    told = frames.RunRecords(run, frames.REPORTED).tokens()["judge"]
    size = (len(load_rubric("graded").system.strip()) + 3) // 4
    judged = told["n_said"]
    assert judged > 2
    assert (told["cache_write_tokens"], told["cache_read_tokens"]) == (size, (judged - 1) * size)
    page = rk.report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "tokens read from the prompt cache by the judge" in page

    # Records of a time that knew no cache are as good as before.
    rows = [json.loads(line) for line in run.verdicts.read_text().splitlines()]
    for row in rows:
        del row["usage"]["cache_read_tokens"], row["usage"]["cache_write_tokens"]
    run.verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    older = frames.RunRecords(rk.load_run(run.path), frames.REPORTED).tokens()["judge"]
    assert older == {**told, "cache_read_tokens": 0, "cache_write_tokens": 0}


@pytest.mark.parametrize("name", [n for n in shipped_judges() if load_rubric(n).kind == "llm"])
def test_a_shipped_judges_fixed_part_comes_first_and_alone(name: str) -> None:
    rubric = load_rubric(name)
    assert "{{" not in rubric.system
    price = price_of(rubric.model)
    assert price is not None
    assert price.keeps(rubric.system)
    assert isinstance(load_judge(name, api_base="http://127.0.0.1:9"), LLMJudge)


@pytest.mark.parametrize("name", ["refusalbench", "graded", "hard-line"])
def test_the_docs_give_the_tokens_of_each_judges_system_text(name: str) -> None:
    n_tokens = tokeniser().count(load_rubric(name).system)
    assert f"| `{name}` | {n_tokens} |" in (ROOT / "docs/models.md").read_text("utf-8")
