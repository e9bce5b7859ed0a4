"""What a token costs, and which models are no longer served."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import pytest

import refusalkit as rk
from loopback import LoopbackServer, Script
from refusalkit.errors import ConfigurationError, RetiredModelError
from refusalkit.models import (
    endpoints,
    prices,
)
from refusalkit.models.endpoints import price_at
from refusalkit.models.prices import Price, _retired, check_retired, price_of
from refusalkit.types import Usage


class TestPrice:
    def test_is_that_of_the_tokens_in_and_out(self) -> None:
        price = Price(input_usd=2e-6, output_usd=1e-5)
        assert price.cost(Usage(1000, 100)) == pytest.approx(0.003)
        assert price.cost(Usage(0, 0)) == 0
        # A provider's output tokens have its reasoning in them.
        assert price.cost(Usage(1000, 100, 90)) == pytest.approx(0.003)

    @pytest.mark.parametrize("usage", [Usage(), Usage(1, None), Usage(None, 1)])
    def test_is_unknown_where_tokens_are(self, usage: Usage) -> None:
        assert Price(1.0, 1.0).cost(usage) is None

    @pytest.mark.parametrize(
        "model", ["no-such-provider/no-such-model", "openai/no-such-model", "openai/", "", "/", "x"]
    )
    def test_of_an_unknown_model_is_unknown_never_0(self, model: str) -> None:
        assert price_of(model) is None

    def test_of_a_known_model_is_listed_with_or_without_its_provider(self) -> None:
        for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-6", "gpt-4o"):
            price = price_of(model)
            assert price is not None
            assert 0 < price.input_usd < price.output_usd < 1e-3
        assert price_of("openai/gpt-4o") == price_of("gpt-4o")
        # A name belongs to its own provider: somebody else's may cost anything.
        assert price_of("together_ai/gpt-4o") is None

    @pytest.mark.parametrize(
        ("entry", "expected"),
        [
            ({"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}, Price(1e-6, 2e-6)),
            ({"input_cost_per_token": 1e-6, "output_cost_per_token": 0}, Price(1e-6, 0.0)),
            ({"input_cost_per_token": 0, "output_cost_per_token": 0}, None),
            ({"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}, None),
            ({"input_cost_per_token": 1e-6}, None),
            ({"input_cost_per_token": "1e-6", "output_cost_per_token": "2e-6"}, None),
            ({"input_cost_per_token": None, "output_cost_per_token": None}, None),
            ({"input_cost_per_second": 0.1}, None),
            ({}, None),
            ([], None),
        ],
    )
    def test_is_read_only_where_the_list_states_it(
        self, entry: object, expected: Price | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prices, "_prices", lambda: {"test/model": entry})
        assert price_of("test/model") == expected

    @pytest.mark.parametrize(
        ("variable", "model", "via"),
        [
            ("OPENAI_BASE_URL", "openai/gpt-4o", None),
            ("OPENAI_API_BASE", "openai/gpt-4o", "litellm"),
            ("ANTHROPIC_BASE_URL", "anthropic/claude-sonnet-4-6", None),
        ],
    )
    def test_is_unknown_at_an_endpoint_that_the_environment_names(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        variable: str,
        model: str,
        via: Literal["litellm"] | None,
    ) -> None:
        official = endpoints.OFFICIAL[model.partition("/")[0]]
        monkeypatch.setenv(variable, f"{official}/")
        assert price_at(model, None, via) == price_at(model, official, via) == price_of(model)

        monkeypatch.setenv(variable, "http://127.0.0.1:9/v1")
        assert price_at(model, None, via) is None
        # Another provider's variable says nothing of it.
        assert price_at("groq/openai/gpt-oss-120b", None, via) is not None
        monkeypatch.setenv("LOOPBACK_KEY", "loopback-key-0123456789")
        options = {"judge": "lexical", "api_key_env": "LOOPBACK_KEY", "via": via, "limit": 3}
        assert rk.estimate(model, earlier=(), **options).cost_usd is None
        if via == "litellm":
            return  # to open its client would load it for all tests that follow
        options |= {"max_cost": 5.0, "out": tmp_path / "run"}
        with pytest.raises(ConfigurationError, match="--max-cost cannot hold"):
            rk.benchmark(model, **options)
        options |= {"judge": "graded", "judge_model": model, "judge_api_key_env": "LOOPBACK_KEY"}
        with pytest.raises(ConfigurationError, match="--max-cost cannot hold"):
            rk.benchmark("demo/open", **options)

    def test_is_unknown_in_the_records_of_an_endpoint_that_the_environment_names(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "loopback-key-0123456789")
        with LoopbackServer(Script()) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.openai_base)
            options = {"limit": 3, "trials": 1, "out": tmp_path / "run"}
            run = rk.benchmark("openai/gpt-4o", judge="lexical", **options)
        records = [json.loads(line) for line in run.completions.read_text().splitlines()]
        assert [record["cost_usd"] for record in records] == [None] * 3
        assert records[0]["usage"]["input_tokens"] > 0

    def test_is_read_without_importing_litellm(self) -> None:
        script = (
            "import json, sys\n"
            "from refusalkit.models.prices import price_of\n"
            "price = price_of('openai/gpt-4o')\n"
            "heavy = {'litellm', 'openai', 'anthropic', 'httpx'} & set(sys.modules)\n"
            "print(json.dumps([price is not None, sorted(heavy)]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == [True, []]


class TestRetired:
    @pytest.mark.parametrize("prefix", ["anthropic/", "bedrock/", ""])
    @pytest.mark.parametrize("model", _retired())
    def test_a_model_is_refused_from_its_day_on_and_its_successor_named(
        self, model: str, prefix: str
    ) -> None:
        day, successor = _retired()[model]["retired"], _retired()[model]["successor"]
        check_retired(prefix + model, today=day - timedelta(days=1))
        for today in (day, day + timedelta(days=1000)):
            with pytest.raises(RetiredModelError) as refused:
                check_retired(prefix + model, today=today)
            told = str(refused.value)
            assert f"{prefix}{model} was retired on {day.isoformat()}" in told
            assert told.endswith(successor)

    @pytest.mark.parametrize("successor", sorted({row["successor"] for row in _retired().values()}))
    def test_a_successor_is_still_served(self, successor: str) -> None:
        check_retired(f"anthropic/{successor}", today=date.max)

    def test_the_successor_is_named_as_it_is_to_be_typed(self) -> None:
        with pytest.raises(RetiredModelError, match="use anthropic/claude-sonnet-5-5"):
            check_retired("anthropic/claude-sonnet-4-20250514", today=date(2026, 6, 15))

    def test_the_papers_judge_was_retired_on_15_june_2026(self) -> None:
        assert _retired()["claude-sonnet-4-20250514"]["retired"] == date(2026, 6, 15)

    def test_sonnet_4_5_is_served_until_30_november_2026(self) -> None:
        check_retired("anthropic/claude-sonnet-4-5", today=date(2026, 11, 29))
        with pytest.raises(RetiredModelError):
            check_retired("anthropic/claude-sonnet-4-5", today=date(2026, 11, 30))

    @pytest.mark.parametrize(
        "model", ["anthropic/claude-sonnet-5-5", "anthropic/claude-sonnet-4-6", "openai/gpt-x", ""]
    )
    def test_other_models_pass(self, model: str) -> None:
        check_retired(model)
        check_retired(model, today=date.max)


def test_in_a_batch_a_request_costs_the_providers_share_of_its_price() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100)
    for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-6"):
        price = price_of(model)
        assert price is not None
        alone = price.cost(usage)
        assert alone is not None
        assert price.cost(usage, batched=True) == pytest.approx(alone / 2)
    assert Price(1.0, 1.0).cost(usage, batched=True) is None, "unknown is not free"
