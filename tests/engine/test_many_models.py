"""Several models in one command: side by side, and one that fails does not stop the others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, caller
from loopback import Fault, LoopbackServer, Script
from refusalkit.api.many import run_names
from refusalkit.engine.plan import Progress
from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    RunFolderError,
    StorageError,
    UsageError,
)
from refusalkit.types import Completion, Label, Outcome, Prompt, Verdict

DEMO = ["demo/mixed", "demo/open", "demo/cautious"]
SMALL: dict[str, Any] = {"limit": 6, "trials": 1}
OPEN = Script(refusal_rate=0.0)


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


def served(server: LoopbackServer, **more: Any) -> dict[str, Any]:
    base = server.openai_base
    return {
        "judge_model": "openai/a-judge",
        "api_base": base,
        "judge_api_base": base,
        "canaries": 0,
        **SMALL,
        **more,
    }


def ended(found: rk.ModelRun) -> str | None:
    assert found.run is not None
    return rk.load_run(found.run).manifest.sessions[-1].ended_because


# Each by itself


def test_each_model_gives_the_same_as_alone(tmp_path: Path) -> None:
    together = rk.benchmark_many(DEMO, out=tmp_path / "together", **SMALL)
    assert [one.name for one in together] == DEMO
    for one in together:
        alone = rk.benchmark(one.name, out=tmp_path / one.path.name, **SMALL)
        assert one.run is not None
        assert rk.score(one.run).willingness == rk.score(alone).willingness
        assert one.run.manifest.config_digest == alone.manifest.config_digest


def test_they_are_asked_side_by_side(tmp_path: Path) -> None:
    with LoopbackServer(OPEN, latency_s=0.01) as server:
        rk.benchmark_many(["openai/a", "openai/b"], out=tmp_path, **served(server, concurrency=2))
        order = [e.model for e in server.log if e.role == "target"]
    assert order.count("a") == order.count("b") == 6
    assert {"a", "b"} <= set(order[:4])


def test_a_slow_model_does_not_hold_up_the_others(tmp_path: Path) -> None:
    slow = Script(refusal_rate=0.0, faults=(Fault("slow", model="slow", seconds=0.15),))
    with LoopbackServer(slow) as server:
        rk.benchmark_many(
            ["openai/slow", "openai/quick"], out=tmp_path, **served(server, concurrency=2)
        )
        log = server.log
    last_quick = max(e.at for e in log if e.model == "quick")
    assert sum(e.at > last_quick for e in log if e.model == "slow") >= 2


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    broken = Script(refusal_rate=0.0, faults=(Fault("auth_error", model="locked"),))
    with LoopbackServer(broken) as server:
        locked, good = rk.benchmark_many(
            ["openai/locked", "openai/good"], out=tmp_path, **served(server)
        )
    assert isinstance(locked.error, FatalProviderError)
    assert locked.run is None
    assert not locked.path.exists()
    assert good.error is None
    assert ended(good) == "done"


def test_an_interruption_ends_all_and_each_is_resumed_by_itself(tmp_path: Path) -> None:
    async def main(options: dict[str, Any]) -> list[rk.ModelRun]:
        stop = asyncio.Event()

        def watch(name: str, progress: Progress) -> None:
            if progress.verdicts >= 2:
                stop.set()

        return await rk.benchmark_many_async(
            ["openai/a", "openai/b"], out=tmp_path, on_progress=watch, stop=stop, **options
        )

    with LoopbackServer(OPEN, latency_s=0.02) as server:
        found = asyncio.run(main(served(server, concurrency=1)))
        assert [ended(one) for one in found] == ["interrupted", "interrupted"]
        for one in found:
            assert one.run is not None
            assert rk.resume(one.run).manifest.sessions[-1].ended_because == "done"
        assert server.requests == {"target": 12, "judge": 12}


def test_a_shared_judge_keeps_one_pace(tmp_path: Path) -> None:
    with LoopbackServer(OPEN, latency_s=0.01) as server:
        options = served(server, concurrency=4, judge_concurrency=1)
        rk.benchmark_many(["openai/a", "openai/b", "openai/c"], out=tmp_path, **options)
        assert server.max_in_flight_by_role["judge"] == 1
        assert server.max_in_flight_by_role["target"] > 1


@pytest.mark.parametrize(
    ("option", "first", "second", "said"),
    [
        ("rpm", None, 60, "rpm is 60 here and not set in a table before"),
        ("tpm", 9000, 800, "tpm is 800 here and 9000 in a table before"),
        ("concurrency", 32, 4, "concurrency is 4 here and 32 in a table before"),
        ("max_retries", 5, 0, "max_retries is 0 here and 5 in a table before"),
        ("judge_rpm", 60, None, "judge_rpm is not set here and 60 in a table before"),
    ],
)
def test_one_endpoint_is_not_given_two_paces(
    tmp_path: Path, option: str, first: int | None, second: int | None, said: str
) -> None:
    tables = [{"id": "openai/a", option: first}, {"id": "openai/a", "folder": "b", option: second}]
    with LoopbackServer(OPEN) as server:
        with pytest.raises(ConfigurationError, match=f"^b: {said}, and both ask one endpoint"):
            rk.benchmark_many(tables, out=tmp_path / "out", **served(server))
        assert not server.log
        assert not (tmp_path / "out").exists()
        # Of two models each has its own pace; a scripted one has none.
        apart = [{"id": "openai/a", "concurrency": 2}, {"id": "openai/c", "concurrency": 3}]
        scripted = [{"id": "demo/open", "rpm": 5}, {"id": "demo/open", "rpm": 6, "folder": "d"}]
        options = served(server, judge="graded", out=tmp_path / "out")
        found = rk.benchmark_many([*apart, *scripted], **options)
        assert {ended(one) for one in found} == {"done"}


def test_judges_of_the_callers_own_are_closed_once_all_are_through(tmp_path: Path) -> None:
    class Judge:
        id = "custom/judge"
        closed = 0

        async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
            assert not self.closed
            await asyncio.sleep(0)
            return Verdict(
                prompt_id=prompt.id,
                category=prompt.category,
                trial=completion.trial,
                judge=self.id,
                label=Label.COMPLIANCE,
                cost_usd=0.0,
            )

        async def aclose(self) -> None:
            self.closed += 1

    judge = Judge()
    models = [{"id": "demo/mixed", "limit": 3}, {"id": "demo/open", "limit": 20}]
    found = rk.benchmark_many(models, judge=judge, out=tmp_path, trials=1)
    assert [ended(one) for one in found] == ["done", "done"]
    assert judge.closed == 1


# What all may cost together


class Dear:
    """A model that says what it costs."""

    def __init__(self, name: str, cost: float) -> None:
        self.id, self.cost, self.asked = f"custom/{name}", cost, 0

    async def complete(self, prompt: Prompt, config: Any, *, trial: int = 1) -> Completion:
        self.asked += 1
        await asyncio.sleep(0.001)
        return Completion(
            prompt_id=prompt.id,
            category=prompt.category,
            trial=trial,
            model=self.id,
            outcome=Outcome.ANSWERED,
            text="[demo answer]",
            cost_usd=self.cost,
        )

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_budget_is_for_all_together(tmp_path: Path, concurrency: int) -> None:
    models = [Dear("a", 1.0), Dear("b", 0.5), Dear("c", 1.0)]
    found = rk.benchmark_many(
        models,
        judge="lexical",
        out=tmp_path,
        max_cost=60.0,
        limit=40,
        trials=1,
        concurrency=concurrency,
    )
    spent = sum(model.asked * model.cost for model in models)
    assert 50.0 <= spent < 60.0
    assert "max_cost" in {ended(one) for one in found}


def test_a_models_own_budget_applies_below_that_of_all(tmp_path: Path) -> None:
    a, b = Dear("a", 1.0), Dear("b", 1.0)
    rk.benchmark_many(
        [{"id": a, "max_cost": 5.0}, {"id": b}],
        judge="lexical",
        out=tmp_path,
        max_cost=100.0,
        limit=20,
        trials=1,
    )
    assert a.asked == 4
    assert b.asked == 20


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), True, 0, -1, "5"])
def test_an_invalid_budget_for_all_is_refused_as_a_models_own_is(
    tmp_path: Path, bound: Any
) -> None:
    own = [{"id": name, "max_cost": 5.0} for name in DEMO]
    with pytest.raises(ConfigurationError, match="max_cost: Input should be") as of_all:
        rk.benchmark_many(own, out=tmp_path / "runs", max_cost=bound, **SMALL)
    with pytest.raises(ConfigurationError) as of_one:
        rk.benchmark(DEMO[0], max_cost=bound, **SMALL)
    assert str(of_all.value) == str(of_one.value)
    assert not (tmp_path / "runs").exists()


# Names and folders


def test_no_two_runs_share_a_name_or_a_folder(tmp_path: Path) -> None:
    twice = [
        "demo/mixed",
        {"id": "demo/mixed", "temperature": 1.0},
        {"id": "demo/mixed", "folder": "hot", "temperature": 1.5},
    ]
    assert run_names(twice) == ["demo/mixed", "demo/mixed 2", "hot"]
    found = rk.benchmark_many(twice, out=tmp_path, **SMALL)
    assert [one.path.name for one in found] == ["demo-mixed", "demo-mixed-2", "hot"]
    runs = [one.run for one in found if one.run is not None]
    assert [run.manifest.run_config.temperature for run in runs] == [0.6, 1.0, 1.5]


@pytest.mark.parametrize("folder", ["../elsewhere", "a/b", "", ".hidden", 7])
def test_a_folder_stays_where_it_belongs(tmp_path: Path, folder: object) -> None:
    if folder == "":
        return  # none is given: the model's name is taken
    with pytest.raises(UsageError, match="is not a name for a run's folder"):
        rk.benchmark_many([{"id": "demo/mixed", "folder": folder}], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_one_model_is_reported_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigurationError, match=r"demo/open: .*trials"):
        rk.benchmark_many(["demo/mixed", {"id": "demo/open", "trials": 0}], out=out)
    with pytest.raises(UsageError, match="as a list, of one at least"):
        rk.benchmark_many([], out=out)
    assert not out.exists()
    rk.benchmark_many(["demo/open"], out=out, **SMALL)
    with pytest.raises(RunFolderError, match="demo-open exists already"):
        rk.benchmark_many(["demo/mixed", "demo/open"], out=out, **SMALL)
    assert not (out / "demo-mixed").exists()


# The command


def test_the_command_ends_with_a_table_the_runs_and_how_to_report(refusalkit: Call) -> None:
    done = refusalkit("run", *DEMO[:2], "--limit", 6, "--trials", 1, "--out", "all")
    assert done.status == 0
    assert "demo/mixed" in done.out
    assert "100.0 (50.0-100.0)" in done.out
    assert "Run: all/demo-mixed\nRun: all/demo-open\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    said = "refusalkit report all/demo-mixed all/demo-open -o report.html"
    assert said in done.err
    assert refusalkit(*said.split()[1:]).status == 0


def test_a_plan_holds_options_for_all_and_for_each(refusalkit: Call, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        """
limit = 6
trials = 2

[[model]]
id = "demo/mixed"

[[model]]
id = "demo/open"
folder = "open-hot"
temperature = 1.0
trials = 1
"""
    )
    done = refusalkit("run", "--plan", "plan.toml", "--out", "all", "--json")
    assert done.status == 0
    first, second = json.loads(done.out)["runs"]
    assert (first["path"], second["path"]) == ("all/demo-mixed", "all/open-hot")
    configs = [rk.load_run(one["path"]).manifest.run_config for one in (first, second)]
    assert [(c.limit, c.trials, c.temperature) for c in configs] == [(6, 2, 0.6), (6, 1, 1.0)]
    # The command line overrides both.
    refusalkit("run", "--plan", "plan.toml", "--trials", 3, "--out", "more")
    assert rk.load_run("more/open-hot").manifest.trials == 3


def test_with_report_it_writes_one(refusalkit: Call, tmp_path: Path) -> None:
    words = ("--limit", 4, "--trials", 1, "--report", "both.md")
    done = refusalkit("run", *DEMO[:2], *words, "--out", "all")
    assert done.status == 0
    text = (tmp_path / "both.md").read_text()
    assert "demo/mixed" in text
    assert "demo/open" in text
    assert refusalkit("run", DEMO[0], *words[:-1], "one.md", "--out", "one").status == 0
    assert (tmp_path / "one.md").exists()


@pytest.mark.parametrize("models", [DEMO[:1], DEMO[:2]], ids=["one model", "two"])
@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("x.txt", "a report ends in .html"),
        ("missing/r.html", "there is no folder missing"),
        ("file/r.html", "file is not a folder"),
        ("folder.html", "folder.html is a folder"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_asked(
    report: str, said: str, models: tuple[str, ...], refusalkit: Call, tmp_path: Path
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    done = refusalkit("run", *models, "--limit", 4, "--report", report, "--out", "made")
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("models", [DEMO[:1], DEMO[:2]], ids=["one model", "two"])
@pytest.mark.parametrize("report", ["ci/made/r.html", "ci/r.html"])
def test_a_report_may_lie_in_a_folder_that_the_run_makes(
    report: str, models: tuple[str, ...], refusalkit: Call, tmp_path: Path
) -> None:
    words = ("--limit", 4, "--trials", 1, "--report", report, "--out", "ci/made")
    assert refusalkit("run", *models, *words).status == 0
    assert (tmp_path / report).exists()


@pytest.mark.parametrize("models", [DEMO[:1], DEMO[:2]], ids=["one model", "two"])
def test_the_result_is_reported_where_its_report_cannot_be_written(
    models: tuple[str, ...], refusalkit: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("cannot write r.html: No space left on device")

    monkeypatch.setattr(rk, "report", full)
    words = ("--limit", 4, "--trials", 1, "--report", "r.html", "--out", "made")
    done = refusalkit("run", *models, *words)
    assert done.status == 4
    assert "Run: made" in done.out
    assert "No space left on device; what was run is kept" in done.err


def test_a_failure_is_reported_at_the_end_with_its_exit_code(refusalkit: Call) -> None:
    broken = Script(refusal_rate=0.0, faults=(Fault("auth_error", model="locked"),))
    with LoopbackServer(broken) as server:
        base = ("--api-base", server.openai_base, "--judge", "lexical", "--limit", 3)
        done = refusalkit("run", "local/locked", "local/good", *base, "--out", "all")
    assert done.status == 4
    assert "refusalkit: local/locked: " in done.err
    assert "Run: all/local-good" in done.out
    assert "failed" in done.out


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("trials = 1\n", "plan.toml: names no model"),
        ("[[model]]\ntrials = 1\n", "plan.toml: [[model]] 1: id is missing"),
        ('[[model]]\nid = "demo/open"\nmodel = "x/y"\n', "give the model as id, not as model"),
        (
            'limit = 3\n\n[[model]]\nid = "demo/open"\n[[model]]\nid = "demo/mixed"\ntrails = 1\n',
            "plan.toml:7: trails is not an option: did you mean trials?",
        ),
        (
            '[[model]]\nid = "demo/open"\n\ntrials = 0\n',
            "[[model]] 1 (demo/open): plan.toml:4: trials: Input should be greater than",
        ),
        ("[[model\n", "plan.toml is not TOML"),
    ],
)
def test_a_plan_that_is_wrong_is_refused(
    refusalkit: Call, tmp_path: Path, plan: str, said: str
) -> None:
    (tmp_path / "plan.toml").write_text(plan)
    done = refusalkit("run", "--plan", "plan.toml", "--out", "all")
    assert done.status == 4
    assert said in done.err
    assert not (tmp_path / "all").exists()


def test_models_are_named_in_one_place(refusalkit: Call) -> None:
    assert refusalkit("run", "demo/open", "--plan", "plan.toml").status == 2
