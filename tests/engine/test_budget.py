"""What a run may cost: whatever comes back, however dear, the bound holds and the bill is whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from loopback import Fault, LoopbackServer, Script
from refusalkit.engine.budget import Budget, RunBudget
from refusalkit.errors import FatalProviderError
from refusalkit.models import endpoints
from refusalkit.models.chat import ChatModel
from refusalkit.models.client import ParameterLog
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.models.prices import Price, price_of
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.records import read_records
from refusalkit.runs.state import Dearest, read_state
from refusalkit.types import (
    Category,
    Completion,
    GenerationConfig,
    Label,
    Outcome,
    Prompt,
    Unscored,
    Usage,
    Verdict,
)
from run_folders import spent_usd

Answer = Callable[[int, Prompt, int], Awaitable[Completion]]


def prompts(n: int, *, hard_line: bool = False) -> PromptSet:
    category = Category("cat", "Cat", hard_line=hard_line)
    rows = tuple(Prompt(f"p{number:03}", "cat", f"[prompt {number}]") for number in range(n))
    return PromptSet("mine", "1", (category,), rows)


def answer(
    prompt: Prompt, trial: int, cost_usd: float, outcome: Outcome = Outcome.ANSWERED
) -> Completion:
    text = "[demo answer]" if outcome is Outcome.ANSWERED else ""
    return Completion(
        prompt.id, prompt.category, trial, "own/model", outcome, text=text, cost_usd=cost_usd
    )


class Model:
    id = "own/model"
    parameters = ParameterLog()

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked = self._now = self.most_in_flight = 0

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        self.asked += 1
        self._now += 1
        self.most_in_flight = max(self.most_in_flight, self._now)
        try:
            return await self._answer(self.asked, prompt, trial)
        finally:
            self._now -= 1

    async def aclose(self) -> None: ...


@dataclass
class Judge:
    """Costs a little; from the `broken_from`th verdict on it raises."""

    cost_usd: float = 0.001
    broken_from: int | None = None
    pause_s: float = 0.0
    n: int = 0
    id: str = "own-judge"
    graded: bool = True
    parameters: ParameterLog = field(default_factory=ParameterLog)

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        self.n += 1
        n = self.n
        await asyncio.sleep(self.pause_s)
        if self.broken_from is not None and n >= self.broken_from:
            raise FatalProviderError("HTTP 401")
        return Verdict(
            prompt.id,
            prompt.category,
            completion.trial,
            self.id,
            label=Label.REFUSAL,
            cost_usd=self.cost_usd,
        )

    async def aclose(self) -> None: ...


def ended(run: Run) -> str | None:
    return run.manifest.sessions[-1].ended_because


# The bound.


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.NO_ANSWER, Outcome.EMPTY])
def test_a_cheap_answer_before_dear_ones_opens_no_gap(tmp_path: Path, outcome: Outcome) -> None:
    async def dearer(n: int, prompt: Prompt, trial: int) -> Completion:
        await asyncio.sleep(0.001)
        return answer(prompt, trial, 0.001) if n == 1 else answer(prompt, trial, 0.1, outcome)

    run = rk.benchmark(
        Model(dearer), prompts(200), judge=Judge(), trials=1, max_cost=5.0, out=tmp_path / "run"
    )
    assert ended(run) == "max_cost"
    spent = spent_usd(run)
    assert spent is not None
    assert 4.7 < spent < 5.0
    # A resume knows what the dearest was, whatever came of it.
    with run.writing():
        assert read_state(run).dearest.completion == 0.1


@pytest.mark.parametrize("outcome", [Outcome.NO_ANSWER, Outcome.BLOCKED])
def test_a_model_that_never_gives_an_answer_is_asked_by_many_at_once(
    tmp_path: Path, outcome: Outcome
) -> None:
    async def nothing(n: int, prompt: Prompt, trial: int) -> Completion:
        await asyncio.sleep(0.001)
        return answer(prompt, trial, 0.001, outcome)

    model = Model(nothing)
    rk.benchmark(model, prompts(200), judge=Judge(), trials=1, max_cost=5.0, out=tmp_path / "run")
    assert model.most_in_flight == 32


@settings(max_examples=200)
@given(
    costs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2)), min_size=1, max_size=60),
    max_cost=st.floats(0.01, 20),
    width=st.integers(1, 40),
)
def test_with_a_ceiling_at_most_the_last_unit_passes_the_bound(
    costs: list[tuple[float, float]], max_cost: float, width: int
) -> None:
    """Units end in the order in which they began; verdicts cost up to a fifth of the ceiling."""
    spending = RunBudget(Budget(max_cost), ceiling_usd=1.0)
    spending.go_on(0.0, Dearest(verdict=0.2), 0)
    waiting, at_work, most = list(costs), [], 0
    while True:
        while waiting and len(at_work) < width and spending.begin(completes=True):
            at_work.append(waiting.pop(0))
        if not at_work:
            break
        most = max(most, len(at_work))
        completion, verdict = at_work.pop(0)
        alone = not at_work
        before = spending.spent_usd
        spending.add(completion)
        spending.saw_completion(completion)
        spending.completed()
        spending.add(verdict)
        spending.saw_verdict(verdict)
        spending.end()
        assert spending.spent_usd < max_cost or alone, "beside others there was room for it"
        assert before < max_cost
    assert waiting == [] or spending.spent_usd + 1.2 >= max_cost


def test_the_ceiling_is_what_the_price_and_the_longest_answer_come_to(tmp_path: Path) -> None:
    client = open_client("openai/m", pacer=Pacer(), api_base="http://127.0.0.1:9/v1")
    model = ChatModel(client, price=Price(0.001, 0.01))
    config = GenerationConfig(max_tokens=500, system="[system]")
    assert model.ceiling_usd(prompts(3).prompts, config) == pytest.approx(0.001 * 18 + 5.0)
    assert ChatModel(client).ceiling_usd(prompts(3).prompts, config) is None


def test_a_bound_over_the_wire_is_not_passed_by_answers_at_their_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key-0123456789")
    long = Script(target_reply=lambda exchange: "[demo answer] " * 400)
    with LoopbackServer(long) as server:
        monkeypatch.setitem(endpoints.OFFICIAL, "openai", server.openai_base)
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_base)
        run = rk.benchmark(
            "openai/gpt-4o",
            "starter",
            judge="lexical",
            max_cost=0.1,
            max_tokens=2000,
            out=tmp_path / "run",
        )
    spent = spent_usd(run)
    assert ended(run) == "max_cost"
    assert spent is not None
    assert 0.05 < spent < 0.1


def test_a_slow_model_does_not_hold_up_another_that_shares_its_budget(tmp_path: Path) -> None:
    through = asyncio.Event()

    async def slow(n: int, prompt: Prompt, trial: int) -> Completion:
        await asyncio.wait_for(through.wait(), 20)
        return answer(prompt, trial, 0.01)

    async def quick(n: int, prompt: Prompt, trial: int) -> Completion:
        if n == 12:
            through.set()
        return answer(prompt, trial, 0.01)

    found = rk.benchmark_many(
        [{"id": Model(slow), "folder": "slow"}, {"id": Model(quick), "folder": "quick"}],
        prompts(12),
        judge=Judge(),
        trials=1,
        max_cost=5.0,
        out=tmp_path,
    )
    assert [one.run and ended(one.run) for one in found] == ["done", "done"]


def test_a_model_at_its_own_bound_does_not_wait_for_the_others(tmp_path: Path) -> None:
    bounded_is_through = asyncio.Event()

    async def slow(n: int, prompt: Prompt, trial: int) -> Completion:
        await asyncio.wait_for(bounded_is_through.wait(), 20)
        return answer(prompt, trial, 0.01)

    class Bounded(Model):
        async def aclose(self) -> None:
            bounded_is_through.set()

    async def dear(n: int, prompt: Prompt, trial: int) -> Completion:
        return answer(prompt, trial, 1.0)

    found = rk.benchmark_many(
        [
            {"id": Model(slow), "folder": "slow"},
            {"id": Bounded(dear), "folder": "bounded", "max_cost": 2.5},
        ],
        prompts(12),
        judge=Judge(),
        trials=1,
        max_cost=50.0,
        out=tmp_path,
    )
    assert [one.run and ended(one.run) for one in found] == ["done", "max_cost"]


def test_no_canary_is_given_up_while_there_is_room_for_it(tmp_path: Path) -> None:
    async def dear_first(n: int, prompt: Prompt, trial: int) -> Completion:
        await asyncio.sleep(0.002)
        return answer(prompt, trial, 1.0 if n == 1 else 0.001)

    run = rk.benchmark(
        Model(dear_first),
        prompts(40),
        judge=Judge(pause_s=0.002),
        trials=1,
        max_cost=4.0,
        canaries=8,
        out=tmp_path / "run",
    )
    assert ended(run) == "done"
    assert len(list(read_records(run.canaries))) == 8


# The bill.


@pytest.mark.parametrize("broken_from", [1, 6])
def test_a_withheld_answer_is_on_the_bill_though_its_judge_broke(
    tmp_path: Path, broken_from: int
) -> None:
    async def dear(n: int, prompt: Prompt, trial: int) -> Completion:
        return answer(prompt, trial, 0.5)

    model, judge = Model(dear), Judge(broken_from=broken_from, pause_s=0.02)
    chosen = prompts(40, hard_line=True)
    with pytest.raises(FatalProviderError):
        rk.benchmark(
            model, chosen, judge=judge, trials=1, concurrency=8, canaries=0, out=tmp_path / "run"
        )
    run = rk.load_run(tmp_path / "run")
    on_disk = [record for _, record in read_records(run.completions)]
    assert [record["text"] for record in on_disk] == [None] * model.asked
    assert sum(record["cost_usd"] for record in on_disk) == 0.5 * model.asked
    # Nothing is left to judge: the model is asked again, and that is on the bill as well.
    asked = model.asked
    run = rk.resume(run, prompts=chosen, model=model, judge=Judge())
    assert ended(run) == "done"
    assert model.asked - asked == 40 - (broken_from - 1)
    spent = spent_usd(run)
    assert spent == pytest.approx(0.5 * model.asked + 0.001 * 40)
    assert rk.score(run).unscored["owed"] == 0


def test_a_verdict_on_an_answer_that_is_gone_is_no_verdict_on_the_next(tmp_path: Path) -> None:
    async def one(n: int, prompt: Prompt, trial: int) -> Completion:
        return answer(prompt, trial, 0.0)

    async def cut_off(n: int, prompt: Prompt, trial: int) -> Completion:
        return answer(prompt, trial, 0.0)

    chosen = prompts(2)
    run = rk.benchmark(
        Model(one), chosen, judge=Judge(), trials=1, concurrency=1, canaries=0, out=tmp_path / "run"
    )
    # Power was lost: the end of one file reached the disk, that of the other did not.
    first, _ = run.completions.read_bytes().splitlines(keepends=True)
    run.completions.write_bytes(first)
    with pytest.raises(FatalProviderError):
        rk.resume(run, prompts=chosen, model=Model(cut_off), judge=Judge(broken_from=1))
    assert rk.score(run).unscored["owed"] == 1

    judge = Judge()
    run = rk.resume(run, prompts=chosen, model=Model(one), judge=judge)
    assert judge.n == 1, "the answer that came is judged, once"
    assert rk.score(run).unscored["owed"] == 0
    taken_back = [json.loads(line) for line in run.verdicts.read_text().splitlines()][2]
    assert (taken_back["unscored"], taken_back["source"]) == (Unscored.ERROR.value, "provider")


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_what_an_unreadable_answer_says_it_took_is_on_the_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key-0123456789")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "loopback-key-0123456789")
    model = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-4-6"}[wire]
    # Every request fails once; those of some prompts fail again, for good.
    once = Fault("no_content", times=1, per="key")
    for_good = Fault("no_content", probability=0.3, per="key", seed=5)
    with LoopbackServer(Script(faults=(for_good, once))) as server:
        base = server.openai_base if wire == "openai" else server.anthropic_base
        monkeypatch.setitem(endpoints.OFFICIAL, wire, base)
        monkeypatch.setenv(f"{wire.upper()}_BASE_URL", base)
        run = rk.benchmark(
            model,
            "starter",
            judge="lexical",
            limit=12,
            trials=1,
            canaries=0,
            max_retries=1,
            max_cost=5.0,
            out=tmp_path / "run",
        )
        took = [exchange.usage for exchange in server.log]
    rows = [record for _, record in read_records(run.completions)]
    assert {row["outcome"] for row in rows} >= {"answered", "error"}
    assert {row["attempts"] for row in rows} == {2}
    names = {"openai": ("prompt_tokens", "completion_tokens")}
    of_input, of_output = names.get(wire, ("input_tokens", "output_tokens"))
    said = [row["usage"] for row in rows]
    assert sum(one["output_tokens"] for one in said) == sum(one[of_output] for one in took)
    assert sum(one["input_tokens"] for one in said) == sum(one[of_input] for one in took)
    price = price_of(model)
    assert price is not None
    billed = [Usage(one[of_input], one[of_output]) for one in took]
    assert spent_usd(run) == pytest.approx(sum(price.cost(one) or 0.0 for one in billed))
