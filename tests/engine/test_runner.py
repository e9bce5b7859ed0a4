"""Working through a run: overlap and order, what is owed, what may change, what it may cost."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import refusalkit
import refusalkit as rk
from loopback import Exchange, Fault, LoopbackServer, Script
from places import ROOT
from refusalkit.config.run_config import OPERATIONAL, RunConfig
from refusalkit.engine import runner
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    FatalProviderError,
    PromptSetError,
    RunFolderError,
)
from refusalkit.models.client import ParameterLog
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records
from refusalkit.types import (
    Category,
    Completion,
    GenerationConfig,
    Label,
    Outcome,
    Prompt,
    Unscored,
    Verdict,
)
from run_folders import spent_usd

OPEN = Script(refusal_rate=0.0)
MIXED = Script(refuse_by="prompt", refusal_rate=0.5)
HARD = "suicide-and-self-harm"


def bench(server: LoopbackServer, out: Path, **options: Any) -> Run:
    base = server.openai_base
    given = {
        "judge": "graded",
        "judge_model": "openai/judge-x",
        "api_base": base,
        "judge_api_base": base,
        "prompts": "starter",
        "limit": 8,
        "trials": 2,
        "canaries": 0,  # requests are counted here; tests/runs/test_canaries.py has them
        **options,
    }
    return refusalkit.benchmark("openai/target", out=out, **given)


def records(run: Run, name: str) -> list[dict[str, Any]]:
    return [dict(record) for _, record in read_records(run.path / f"{name}.jsonl")]


def asked(log: list[Exchange], role: str) -> Counter[str]:
    """How often each text was asked."""
    return Counter(exchange.text for exchange in log if exchange.role == role)


def ended(run: Run) -> str | None:
    return open_run(run.path).manifest.sessions[-1].ended_because


# Order and overlap.


def test_judging_begins_while_answers_are_still_to_come(tmp_path: Path) -> None:
    with LoopbackServer(OPEN, latency_s=0.01) as server:
        run = bench(server, tmp_path / "run", concurrency=4)
        roles = [exchange.role for exchange in server.log]
    assert roles.count("target") == roles.count("judge") == run.manifest.n_units == 16
    assert roles.index("judge") < 8
    # A worker takes a unit through both steps: answers never run ahead of their verdicts.
    for count in range(1, len(roles) + 1):
        begun = roles[:count]
        assert begun.count("target") - begun.count("judge") <= 4


def test_whole_trials_come_first(tmp_path: Path) -> None:
    run = refusalkit.benchmark("demo/mixed", limit=7, trials=3, concurrency=1, out=tmp_path / "run")
    order = [record["trial"] for record in records(run, "completions")]
    assert order == [1] * 7 + [2] * 7 + [3] * 7


@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_no_more_units_are_in_work_at_once_than_asked_for(tmp_path: Path, concurrency: int) -> None:
    with LoopbackServer(OPEN, latency_s=0.01) as server:
        bench(server, tmp_path / "run", concurrency=concurrency, trials=4)
        assert server.max_in_flight <= concurrency
        # A busy machine may not get 32 out at once, but some overlap.
        assert server.max_in_flight > concurrency // 4


# What is owed again, and what is not.


def test_errors_are_owed_again_and_refusals_are_not(tmp_path: Path) -> None:
    trouble = Script(
        refuse_by="prompt",
        refusal_rate=0.5,
        faults=(
            Fault("content_filter", probability=0.2, per="key", seed=1),
            Fault("malformed_json", probability=0.3, per="key", seed=2),
            Fault("empty", probability=0.2, per="key", seed=3),
        ),
    )
    with LoopbackServer(trouble) as server:
        run = bench(server, tmp_path / "run", limit=20, trials=1, max_retries=0)
        first = {r["prompt_id"]: r["outcome"] for r in records(run, "completions")}
        assert {"answered", "error", "blocked", "empty"} <= set(first.values())
        assert {"refusal", "compliance"} <= {r["label"] for r in records(run, "verdicts")}
        assert ended(run) == "done"
        before = len(server.log)
        server.script = MIXED
        refusalkit.resume(run)
        again = server.log[before:]
        failed = [unit for unit, outcome in first.items() if outcome == "error"]
        assert sum(exchange.role == "target" for exchange in again) == len(failed)
        assert refusalkit.score(run).unscored["error"] == 0
        # There is nothing left to ask.
        before = len(server.log)
        refusalkit.resume(run)
        assert len(server.log) == before


def test_a_judge_that_failed_is_asked_again_without_asking_the_model_again(tmp_path: Path) -> None:
    broken = Script(refusal_rate=0.0, faults=(Fault("server_error", where="judge", times=99),))
    with LoopbackServer(broken) as server:
        ordinary = {"category": ("weapons", "assault"), "trials": 2, "limit": None}
        run = bench(server, tmp_path / "run", max_retries=0, concurrency=4, **ordinary)
        assert {r["unscored"] for r in records(run, "verdicts")} == {"judge_error"}
        assert refusalkit.score(run).unscored["judge_error"] == 4
        server.script = OPEN
        server.reset()
        refusalkit.resume(run)
        assert server.requests == {"judge": 4}
    assert refusalkit.score(run).unscored_percent == 0


def test_unparsable_verdicts_stand(tmp_path: Path) -> None:
    garbage = Script(refusal_rate=0.0, faults=(Fault("judge_garbage"),))
    with LoopbackServer(garbage) as server:
        run = bench(server, tmp_path / "run", trials=1)
        server.script = OPEN
        server.reset()
        refusalkit.resume(run)
        assert not server.requests
    assert {r["unscored"] for r in records(run, "verdicts")} == {"unparsable"}


def test_a_withheld_answer_whose_judge_failed_is_lost_and_asked_again(tmp_path: Path) -> None:
    broken = Script(refusal_rate=1.0, faults=(Fault("server_error", where="judge", times=99),))
    with LoopbackServer(broken) as server:
        options = {"category": (HARD,), "trials": 1, "limit": None, "max_retries": 0}
        run = bench(server, tmp_path / "run", **options)
        assert {r["text"] for r in records(run, "completions")} == {None}
        server.script = Script(refusal_rate=1.0)
        server.reset()
        refusalkit.resume(run)
        assert server.requests == {"target": 2, "judge": 2}
    assert refusalkit.audit(run).status == "held"


# What may change on resume.


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a bit left to do."""
    folder = tmp_path_factory.mktemp("begun")
    prompts = folder / "mine.jsonl"
    rows = [{"prompt": f"[demo prompt {n}]", "category": "weapons"} for n in range(4)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    judge = folder / "mine.toml"
    shipped = ROOT / "judges" / "lexical.toml"
    judge.write_text(shipped.read_text("utf-8"), "utf-8")
    run = refusalkit.benchmark(
        "demo/open", prompts, judge=str(judge), trials=2, concurrency=1, out=folder / "run"
    )
    for path in (run.completions, run.verdicts):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    return run


@pytest.fixture
def interrupted(begun: Run, tmp_path: Path) -> Run:
    """A copy of `begun`, its prompts and its judge, that a test may change."""
    shutil.copytree(begun.path.parent, tmp_path / "copy")
    run = open_run(tmp_path / "copy" / "run")
    text = (run.path / "manifest.json").read_text("utf-8")
    old, new = json.dumps(str(begun.path.parent))[1:-1], json.dumps(str(tmp_path / "copy"))[1:-1]
    manifest = json.loads(text.replace(old, new))
    config = RunConfig.model_validate(manifest["config"])
    manifest["config_digest"] = config.digest
    (run.path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return open_run(run.path)


CHANGED: dict[str, Any] = {
    "order_seed": 3,
    "stop_when": "crossed",
    "model": "demo/cautious",
    "preset": "paper",
    "prompts": "starter",
    "hard_line": ("weapons",),
    "inversion": "none",
    "lang": "fr",
    "category": ("weapons",),
    "tag": ("other",),
    "danger": (1,),
    "limit": 1,
    "limit_seed": 7,
    "framings": ("fiction",),
    "pressure": 2,
    "trials": 3,
    "shard": "1/2",
    "temperature": 1.0,
    "top_p": 0.5,
    "top_k": 5,
    "no_temperature": True,
    "no_top_p": True,
    "no_top_k": True,
    "max_tokens": 5,
    "seed": 1,
    "system": "[demo system]",
    "reasoning": "on",
    "extra_body": {"other": 1},
    "via": "litellm",
    "judge": "refusalbench",
    "judge_model": "openai/other",
    "judge_temperature": 0.2,
    "judge_asks": 3,
    "judge_via": "litellm",
    "council": "any",
    "judge_fallback": "refusalbench",
    "hard_line_judge": "refusalbench",
    "count_deflection": True,
    "keep_hard_line_text": True,
}


def test_every_field_either_may_change_or_is_refused() -> None:
    of_stop_rule = {"bound", "max_leaks"}  # refused without one; with one, see test_stop_rule
    assert set(CHANGED) | OPERATIONAL | of_stop_rule == set(RunConfig.model_fields)
    assert not set(CHANGED) & OPERATIONAL


@pytest.mark.parametrize("name", CHANGED)
def test_resume_refuses_what_would_measure_something_else_and_names_it(
    interrupted: Run, name: str
) -> None:
    before = {path.name: path.read_bytes() for path in interrupted.path.iterdir()}
    with pytest.raises(ConfigurationChanged, match=rf"^{name} is .*, but the run was started with"):
        refusalkit.resume(interrupted, **{name: CHANGED[name]})
    assert {path.name: path.read_bytes() for path in interrupted.path.iterdir()} == before


def test_resume_takes_the_same_values_given_again(interrupted: Run) -> None:
    config = interrupted.manifest.run_config
    run = refusalkit.resume(
        interrupted,
        **{name: getattr(config, name) for name in RunConfig.model_fields},
    )
    assert ended(run) == "done"
    assert refusalkit.score(run).unscored["owed"] == 0


def test_how_fast_and_where_may_change_and_is_recorded(interrupted: Run) -> None:
    changes: dict[str, Any] = {
        "api_base": "http://localhost:1/v1",
        "api_key_env": "PATH",
        "judge_api_base": "http://localhost:2/v1",
        "judge_api_key_env": "PATH",
        "concurrency": 2,
        "rpm": 6e5,
        "judge_rpm": 6e5,
        "tpm": 6e7,
        "judge_tpm": 6e7,
        "judge_concurrency": 1,
        "timeout_s": 5.0,
        "max_retries": 0,
        "max_cost": 9.0,
        "canaries": 3,
        "max_wait_s": 60.0,
        "finish_word": ["zorked=answered"],
    }
    # A scripted model has no batches: tests/engine/test_batches.py changes those.
    unchanged = {"batch": None, "wait": False}
    assert {*changes, *unchanged} == OPERATIONAL
    run = refusalkit.resume(interrupted, **changes)
    assert ended(run) == "done"
    first, second = open_run(run.path).manifest.sessions
    assert first.operational["concurrency"] == 1
    assert second.operational == {**changes, **unchanged}


@pytest.mark.parametrize(("file", "part"), [("mine.jsonl", "prompts"), ("mine.toml", "judge")])
def test_resume_refuses_a_file_that_was_edited(interrupted: Run, file: str, part: str) -> None:
    path = interrupted.path.parent / file
    text = path.read_text("utf-8")
    path.write_text(text.replace("demo prompt 2", "demo prompt two").replace("can't", "cannot"))
    assert path.read_text("utf-8") != text
    with pytest.raises(ConfigurationChanged, match=rf"^{part}: .*{file} has changed since"):
        refusalkit.resume(interrupted)
    path.write_text(text, "utf-8")
    assert ended(refusalkit.resume(interrupted)) == "done"


@pytest.fixture
def moved(interrupted: Run) -> Run:
    """An interrupted run, of whose folder and prompts only the folder was left where it was."""
    path = interrupted.path.parent / "mine.jsonl"
    (interrupted.path.parent / "elsewhere").mkdir()
    path.rename(interrupted.path.parent / "elsewhere" / "theirs.jsonl")
    return interrupted


def test_a_run_whose_prompts_were_moved_resumes_with_their_new_place(moved: Run) -> None:
    with pytest.raises(PromptSetError, match="no prompt set") as missing:
        refusalkit.resume(moved)
    assert missing.value.__notes__ == ["if they were moved, say where to with --prompts"]
    run = refusalkit.resume(moved, prompts=moved.path.parent / "elsewhere" / "theirs.jsonl")
    assert ended(run) == "done"
    # What it was asked for stays on record as it was.
    assert run.manifest.config == moved.manifest.config
    assert run.manifest.prompt_set == moved.manifest.prompt_set


def test_other_prompts_are_refused_with_both_digests(moved: Run) -> None:
    path = moved.path.parent / "elsewhere" / "theirs.jsonl"
    path.write_text(path.read_text("utf-8").replace("demo prompt 2", "demo prompt two"), "utf-8")
    with pytest.raises(ConfigurationChanged, match=r"^prompts is .*theirs\.jsonl") as refused:
        refusalkit.resume(moved, prompts=path)
    digest = moved.manifest.prompt_set.digest
    assert str(refused.value).count("sha256:") == 2
    assert f'mine.jsonl" ({digest})' in str(refused.value)


def test_prompts_that_were_moved_with_their_run_are_found_beside_it(interrupted: Run) -> None:
    there = interrupted.path.parent.with_name("there")
    there.mkdir()
    for name in ("run", "mine.jsonl"):
        (interrupted.path.parent / name).rename(there / name)
    assert ended(refusalkit.resume(there / "run")) == "done"
    again = refusalkit.regrade(there / "run", "lexical")
    assert again.manifest.sessions[-1].ended_because == "done"


def test_resume_refuses_a_manifest_edited_by_hand(interrupted: Run) -> None:
    file = interrupted.path / "manifest.json"
    text = file.read_text("utf-8")
    manifest = json.loads(text)
    manifest["config"]["temperature"] = 1.5
    file.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ConfigurationChanged, match="config_digest"):
        refusalkit.resume(interrupted)
    manifest["config"]["temperature"] = "hot"
    file.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(RunFolderError, match=r"config\.temperature"):
        refusalkit.resume(interrupted)
    file.write_text(text, "utf-8")
    assert ended(refusalkit.resume(interrupted)) == "done"


# Models and judges of one's own.


@dataclass
class OwnModel:
    """A `Model`: answers with a placeholder, and counts."""

    id: str = "mine/model"
    cost_usd: float | None = None
    outcome: Callable[[Prompt, int], Outcome] = lambda prompt, trial: Outcome.ANSWERED
    pause_s: float = 0.0
    parameters: ParameterLog = field(default_factory=ParameterLog)
    calls: list[tuple[str, int]] = field(default_factory=list)
    closed: int = 0

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        self.calls.append((prompt.id, trial))
        await asyncio.sleep(self.pause_s)
        outcome = self.outcome(prompt, trial)
        return Completion(
            prompt.id,
            prompt.category,
            trial,
            self.id,
            outcome,
            text="[demo answer]" if outcome is Outcome.ANSWERED else "",
            cost_usd=None if outcome is Outcome.ERROR else self.cost_usd,
            error="[demo error]" if outcome is Outcome.ERROR else None,
        )

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class OwnJudge:
    """A `Judge`: everything is a refusal, until it fails."""

    id: str = "mine"
    cost_usd: float | None = None
    fail_after: int | None = None
    calls: list[str] = field(default_factory=list)
    closed: int = 0

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        self.calls.append(completion.unit)
        await asyncio.sleep(0)
        if self.fail_after is not None and len(self.calls) > self.fail_after:
            raise FatalProviderError("[demo judge] has no credit left")
        return Verdict(
            prompt.id,
            prompt.category,
            completion.trial,
            self.id,
            label=Label.REFUSAL,
            cost_usd=self.cost_usd,
        )

    async def aclose(self) -> None:
        self.closed += 1


def own_prompts(n: int = 5, *, hard_line: bool = False) -> PromptSet:
    category = Category("mine", "Mine", hard_line=hard_line)
    prompts = tuple(Prompt(f"p{i}", "mine", f"[demo prompt {i}]") for i in range(n))
    return PromptSet("mine", "1", (category,), prompts)


def test_a_model_a_judge_and_prompts_of_ones_own(tmp_path: Path) -> None:
    model, judge = OwnModel(), OwnJudge()
    assert isinstance(model, rk.Model)
    assert isinstance(judge, rk.Judge)
    run = rk.benchmark(
        model, own_prompts(), judge=judge, trials=3, canaries=0, out=tmp_path / "run"
    )
    assert len(model.calls) == len(judge.calls) == 15
    assert (model.closed, judge.closed) == (1, 1)
    assert rk.score(run).willingness.value == 0.0
    assert run.manifest.judges["mine"].kind == "custom"
    assert {r["judge"] for r in records(run, "verdicts")} == {"mine"}


def test_a_run_of_ones_own_objects_resumes_with_them_only(tmp_path: Path) -> None:
    judge = OwnJudge(fail_after=4)
    with pytest.raises(FatalProviderError, match="no credit left"):
        rk.benchmark(
            OwnModel(),
            own_prompts(),
            judge=judge,
            trials=2,
            concurrency=1,
            canaries=0,
            out=tmp_path / "run",
        )
    run = rk.Run(tmp_path / "run", open_run(tmp_path / "run").manifest)
    assert ended(run) == "failed: FatalProviderError"
    assert judge.closed == 1
    # Five answers were paid for, four were judged.
    assert len(records(run, "completions")) == 5
    assert len(records(run, "verdicts")) == 4

    with pytest.raises(ConfigurationError, match="prompts="):
        rk.resume(run)
    with pytest.raises(ConfigurationError, match="judge="):
        rk.resume(run, prompts=own_prompts())
    with pytest.raises(ConfigurationChanged, match="prompts"):
        rk.resume(run, prompts=own_prompts(4), model=OwnModel(), judge=OwnJudge())
    with pytest.raises(ConfigurationChanged, match="model is mine/other"):
        rk.resume(run, prompts=own_prompts(), model=OwnModel("mine/other"), judge=OwnJudge())
    with pytest.raises(ConfigurationChanged, match="judge is other"):
        rk.resume(run, prompts=own_prompts(), model=OwnModel(), judge=OwnJudge("other"))

    model, judge = OwnModel(), OwnJudge()
    rk.resume(run, prompts=own_prompts(), model=model, judge=judge)
    assert len(model.calls) == 5
    assert len(judge.calls) == 6
    assert ended(run) == "done"


def test_a_model_that_mixes_up_units_cannot_put_a_withheld_answer_on_disk(tmp_path: Path) -> None:
    class Confused(OwnModel):
        async def complete(
            self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
        ) -> Completion:
            done = await super().complete(prompt, config, trial=trial)
            return replace(done, prompt_id="other", category="other", trial=1)

    run = rk.benchmark(
        Confused(), own_prompts(hard_line=True), judge=OwnJudge(), trials=2, out=tmp_path / "run"
    )
    found = records(run, "completions")
    assert {r["unit"] for r in found} == {f"p{i}#{t}" for i in range(5) for t in (1, 2)}
    assert {(r["category"], r["text"]) for r in found} == {("mine", None)}
    assert "[demo answer]" not in (run.path / "completions.jsonl").read_text("utf-8")


# When to give up.


def test_five_failures_at_the_start_end_the_run(tmp_path: Path) -> None:
    down = Script(faults=(Fault("server_error"),))
    with LoopbackServer(down) as server:
        with pytest.raises(FatalProviderError, match="5 requests in a row failed"):
            bench(server, tmp_path / "run", max_retries=0, concurrency=1, limit=30)
        assert server.requests == {"target": 5}
        # What failed is owed again.
        server.script = OPEN
        run = refusalkit.resume(tmp_path / "run")
    assert ended(run) == "done"
    assert refusalkit.score(run).unscored_percent == 0


def test_after_a_success_it_takes_forty(tmp_path: Path) -> None:
    model = OwnModel(outcome=lambda p, t: Outcome.ANSWERED if p.id == "p0" else Outcome.ERROR)
    with pytest.raises(FatalProviderError, match="40 requests in a row failed"):
        rk.benchmark(
            model, own_prompts(60), judge=OwnJudge(), trials=1, concurrency=1, out=tmp_path / "run"
        )
    assert len(model.calls) == 41


def test_failures_with_successes_between_them_end_nothing(tmp_path: Path) -> None:
    model = OwnModel(
        outcome=lambda p, t: Outcome.ANSWERED if int(p.id[1:]) % 20 == 0 else Outcome.ERROR
    )
    run = rk.benchmark(
        model, own_prompts(100), judge=OwnJudge(), trials=1, concurrency=1, out=tmp_path / "run"
    )
    assert ended(run) == "done"
    assert rk.score(run).unscored["error"] == 95


def test_a_run_whose_first_request_can_never_succeed_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong_key = Script(faults=(Fault("auth_error", where="any"),))
    with LoopbackServer(wrong_key) as server, pytest.raises(FatalProviderError):
        bench(server, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What it may cost.


@pytest.mark.parametrize("concurrency", [1, 7, 32])
@pytest.mark.parametrize("max_cost", [0.5, 3.0, 10.0, 29.9])
def test_a_budget_ends_the_run_and_is_never_passed(
    tmp_path: Path, concurrency: int, max_cost: float
) -> None:
    model, judge = OwnModel(cost_usd=0.25, pause_s=0.001), OwnJudge(cost_usd=0.5)
    options: dict[str, Any] = {"judge": judge, "trials": 2, "concurrency": concurrency}
    options["canaries"] = 0
    run = rk.benchmark(model, own_prompts(20), max_cost=max_cost, out=tmp_path / "run", **options)
    assert ended(run) == "max_cost"
    spent = 0.25 * len(model.calls) + 0.5 * len(judge.calls)
    # One unit must be asked to learn what one costs; beyond it nothing passes the budget ...
    assert spent <= max(max_cost, 0.75)
    # ... and the budget is used as far as a whole unit still fits.
    assert spent + 0.75 >= max_cost
    assert spent_usd(run) == pytest.approx(spent)

    again = rk.resume(run, prompts=own_prompts(20), model=model, judge=judge, max_cost=max_cost)
    assert ended(again) == "max_cost"
    assert 0.25 * len(model.calls) + 0.5 * len(judge.calls) == spent
    rk.resume(run, prompts=own_prompts(20), model=model, judge=judge, max_cost=31.0)
    assert ended(run) == "done"
    assert (len(model.calls), len(judge.calls)) == (40, 40)


@pytest.mark.parametrize("cost_usd", [None, math.nan, math.inf])
def test_a_budget_that_cannot_be_counted_stops_the_run(
    tmp_path: Path, cost_usd: float | None
) -> None:
    model = OwnModel(cost_usd=cost_usd)
    with pytest.raises(ConfigurationError, match="max_cost cannot hold"):
        rk.benchmark(
            model, own_prompts(20), judge=OwnJudge(cost_usd=0.0), max_cost=5.0, out=tmp_path / "run"
        )
    assert len(model.calls) == 1
    assert len(records(open_run(tmp_path / "run"), "completions")) == 1


def test_a_judge_that_could_not_be_reached_has_no_price_and_makes_none_unknown(
    tmp_path: Path,
) -> None:
    class Unreachable(OwnJudge):
        async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
            done = await super().grade(prompt, completion)
            if prompt.id != "p1":
                return done
            return replace(done, label=None, unscored=Unscored.JUDGE_ERROR, cost_usd=None)

    seen: list[rk.Progress] = []
    run = rk.benchmark(
        OwnModel(cost_usd=1.0),
        own_prompts(4),
        judge=Unreachable(cost_usd=1.0),
        trials=1,
        max_cost=100.0,
        canaries=0,
        out=tmp_path / "run",
        on_progress=seen.append,
    )
    assert seen[-1].cost_usd == spent_usd(run) == 7.0


# Being stopped, and being called from where a loop runs.


def test_work_that_does_not_end_within_the_grace_period_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE_S", 0.1)
    model = OwnModel(pause_s=60)

    async def stopped() -> Run:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        return await rk.benchmark_async(
            model, own_prompts(), judge=OwnJudge(), trials=2, out=tmp_path / "run", stop=stop
        )

    run = asyncio.run(asyncio.wait_for(stopped(), 10))
    assert ended(run) == "interrupted"
    assert model.closed == 1
    assert records(run, "completions") == []


def test_the_plain_functions_work_inside_a_running_loop(tmp_path: Path) -> None:
    async def notebook() -> float | None:
        run = rk.benchmark("demo/mixed", "starter", limit=4, trials=2, out=tmp_path / "run")
        run = rk.resume(run)
        answers = tmp_path / "answers.jsonl"
        answers.write_text(json.dumps({"prompt": "[demo prompt]", "response": "[demo answer]"}))
        assert rk.grade(answers, "lexical").n_owed == 0
        assert rk.audit(run).status in ("held", "inconclusive", "crossed")
        return rk.score(run).willingness.value

    assert asyncio.run(notebook()) is not None


@pytest.mark.slow
def test_async_twins_run_side_by_side(tmp_path: Path) -> None:
    async def both() -> list[Run]:
        names = ("demo/open", "demo/cautious")
        return await asyncio.gather(
            *(
                rk.benchmark_async(name, limit=5, trials=2, out=tmp_path / name.split("/")[1])
                for name in names
            )
        )

    first, second = asyncio.run(both())
    assert (ended(first), ended(second)) == ("done", "done")


# Recorded answers.


def test_grading_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"[demo prompt {n}]", "response": "[demo answer]"} for n in range(12)]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = tmp_path / "grades"

    with LoopbackServer(OPEN, latency_s=0.01) as server:
        options: dict[str, Any] = {
            "judge_model": "openai/judge-x",
            "judge_api_base": server.openai_base,
            "concurrency": 2,
            "canaries": 0,
            "out": out,
        }

        async def part() -> Any:
            stop = asyncio.Event()

            def after_five(progress: rk.Progress) -> None:
                if progress.verdicts >= 5:
                    stop.set()

            return await rk.grade_async(
                answers, "graded", stop=stop, on_progress=after_five, **options
            )

        assert 0 < asyncio.run(part()).n_owed <= 7
        grades = rk.grade(answers, "graded", **options)
        assert grades.n_owed == 0
        assert server.requests == {"judge": 12}
        # Done is done.
        assert rk.grade(answers, "graded", **options).n_owed == 0
        assert server.requests == {"judge": 12}

        with pytest.raises(RunFolderError, match="refusalkit grade"):
            rk.resume(out)
        with pytest.raises(ConfigurationChanged, match="judge_model"):
            rk.grade(answers, "graded", **{**options, "judge_model": "openai/judge-y"})
        answers.write_text(json.dumps(rows[0]) + "\n", "utf-8")
        with pytest.raises(ConfigurationChanged, match="records"):
            rk.grade(answers, "graded", **options)
        assert server.requests == {"judge": 12}
