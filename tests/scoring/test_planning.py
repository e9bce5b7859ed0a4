"""How large a run must be: what was planned is what it takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call, caller
from refusalkit.errors import UsageError
from refusalkit.scoring.audit import audit_run
from refusalkit.scoring.planning import Plan, PlannedRun, correlation_within, prompts_needed
from refusalkit.scoring.statistics.proportions import exact_upper, korn_graubard
from refusalkit.scoring.statistics.sequential import leaks_upper
from run_folders import Row, write_run


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


def row(plan: Plan, target: str = "prompts like these", trials: int = 5) -> PlannedRun:
    (found,) = (r for r in plan.rows if r.target == target and r.trials == trials)
    return found


def rates(chance: np.random.Generator, n: int, within: float, trials: int) -> np.ndarray:
    """How many of a prompt's trials count in, for n prompts with a mean of one half."""
    spread = (1 - within) / within / 2
    return chance.binomial(trials, chance.beta(spread, spread, n))


class TestBound:
    @pytest.mark.parametrize(
        ("bound", "leaks", "needed"), [(1, 0, 299), (5, 0, 59), (1, 1, 473), (99.9, 0, 1)]
    )
    def test_is_the_least_number_that_shows_it(self, bound: float, leaks: int, needed: int) -> None:
        found = rk.plan(bound=bound, leaks=leaks).rows[leaks]
        assert (found.n_prompts, found.leaking_prompts) == (needed, leaks)
        assert (found.n_responses, found.n_requests) == (5 * needed, 5 * needed)

    @given(st.floats(0.001, 99.99), st.integers(0, 20))
    def test_one_prompt_fewer_does_not_show_it(self, bound: float, leaks: int) -> None:
        needed = prompts_needed(bound, leaks)
        assert 100 * exact_upper(leaks, needed) <= bound < 100 * exact_upper(leaks, needed - 1)

    def test_says_after_how_many_a_run_would_stop(self) -> None:
        (found,) = rk.plan(bound=5).rows
        assert found.n_sequential == 60
        assert leaks_upper(0, 60) <= 0.05 < leaks_upper(0, 59)

    def test_what_was_planned_is_held_and_one_prompt_less_is_not(self, tmp_path: Path) -> None:
        needed = rk.plan(bound=20).rows[0].n_prompts
        for n, status in ((needed, "held"), (needed - 1, "inconclusive")):
            rows: list[Row] = [(f"p{i}", "hard-one", 1, "answered", "refusal") for i in range(n)]
            run = write_run(tmp_path / f"{n}", rows)
            assert audit_run(run, bound_percent=20).status == status

    def test_a_plan_from_a_run_says_what_it_lacks(self, tmp_path: Path) -> None:
        rows: list[Row] = [
            (f"p{n}", "hard-one", trial, "answered", "refusal")
            for n in range(21)
            for trial in (1, 2)
        ]
        plan = rk.plan(bound=1, run=write_run(tmp_path / "run", rows), leaks=1)
        assert [r.more_prompts for r in plan.rows] == [278, 452]
        assert {r.trials for r in plan.rows} == {2}
        leaky = write_run(tmp_path / "leaky", [*rows[:-1], (*rows[-1][:4], "partial")])
        (found,) = rk.plan(bound=1, run=leaky).rows
        assert (found.leaking_prompts, found.n_prompts, found.more_prompts) == (1, 473, 452)


class TestWidth:
    @pytest.mark.parametrize(("within", "trials"), [(0.8, 1), (0.8, 5), (0.3, 5)])
    def test_a_planned_width_is_what_that_many_prompts_give(
        self, within: float, trials: int
    ) -> None:
        needed = row(rk.plan(width=15, within=within, trials=trials), trials=trials).n_prompts
        chance = np.random.default_rng(5)
        widths = []
        for _ in range(60):
            hits = rates(chance, needed, within, trials)
            low, high = korn_graubard(hits.mean() / trials, hits.tolist(), [trials] * needed)
            widths.append(100 * (high - low))
        assert np.mean(widths) == pytest.approx(15, rel=0.05)

    def test_more_trials_hardly_help_where_prompts_dominate(self) -> None:
        plan = rk.plan(width=10, within=0.8)
        once, five = (row(plan, trials=t).n_prompts for t in (1, 5))
        assert (once / five) ** 0.5 == pytest.approx(1.09, abs=0.01)
        assert any("9 % wider" in note and "more prompts do" in note for note in plan.notes)

    def test_the_same_prompts_asked_again_need_trials_and_more_than_one(self) -> None:
        plan = rk.plan(width=10, within=0.8)
        again = [r for r in plan.rows if r.target == "these prompts, asked again"]
        assert min(r.trials for r in again) == 2
        counts = [r.n_responses for r in again]
        assert max(counts) - min(counts) <= 20  # only the number of answers counts
        assert counts[0] < row(plan).n_responses / 4

    def test_labels_that_widen_it_by_a_tenth(self) -> None:
        good = rk.plan(width=10, sensitivity=98, specificity=98).labels
        poor = rk.plan(width=10, sensitivity=80, specificity=80).labels
        assert [one.where for one in good] == ["calibration", "on the run"]
        for better, worse in zip(good, poor, strict=True):
            assert better.n_labels < worse.n_labels
        assert rk.plan(bound=5).labels == ()


class TestDifference:
    @pytest.mark.parametrize("target", ["prompts like these", "these prompts, asked again"])
    def test_is_found_as_often_as_planned(self, target: str) -> None:
        within, trials = 0.5, 4
        plan = rk.plan(difference=15, within=within, between=0.0, trials=trials, power=80)
        needed = row(plan, target, trials).n_prompts
        chance = np.random.default_rng(3)
        found, runs = 0, 500
        for _ in range(runs):
            spread = 1 / within - 1
            first = chance.beta(0.5 * spread, 0.5 * spread, needed)
            second = chance.beta(0.35 * spread, 0.65 * spread, needed)
            ours, theirs = (chance.binomial(trials, p) / trials for p in (first, second))
            apart = float((ours - theirs).mean())
            if target == "prompts like these":
                error = float((ours - theirs).std(ddof=1)) / needed**0.5
            else:
                left = ours * (1 - ours) + theirs * (1 - theirs)
                error = float(left.mean() / (trials - 1) / needed) ** 0.5
                apart += 0.15 - float((first - second).mean())  # these very prompts
            found += abs(apart) > 1.96 * error
        assert found / runs == pytest.approx(0.8, abs=0.06)

    def test_takes_two_runs(self) -> None:
        found = row(rk.plan(difference=10))
        assert (found.n_runs, found.n_requests) == (2, 2 * found.n_responses)


class TestExpectations:
    def test_come_from_a_run(self, tmp_path: Path) -> None:
        chance = np.random.default_rng(1)
        rows: list[Row] = []
        for n, hits in enumerate(rates(chance, 400, 0.6, 5)):
            for trial in range(1, 6):
                word = "compliance" if trial <= hits else "refusal"
                rows.append((f"p{n:03}", f"c{n % 8}", trial, "answered", word))
        run = write_run(tmp_path / "run", rows)
        assert correlation_within(rk.score(run)) == pytest.approx(0.6, abs=0.06)
        plan = rk.plan(width=10, run=run)
        assert plan.measured_on == run.manifest.id
        assert plan.rate == pytest.approx(50, abs=4)

    def test_categories_of_one_prompt_count_as_in_the_variance(self, tmp_path: Path) -> None:
        chance = np.random.default_rng(1)
        # A category of two prompts that agree is all that is left without those of one.
        rows: list[Row] = [
            (f"q{n}", "both", trial, "answered", "refusal") for n in (1, 2) for trial in range(1, 6)
        ]
        for n, hits in enumerate(rates(chance, 400, 0.6, 5)):
            for trial in range(1, 6):
                word = "compliance" if trial <= hits else "refusal"
                rows.append((f"p{n:03}", f"c{n}", trial, "answered", word))
        score = rk.score(write_run(tmp_path / "run", rows))
        assert correlation_within(score) == pytest.approx(0.6, abs=0.06)
        # Of five trials: within + (1 - within) / 5, of which the first part is the prompts'.
        assert score.variance.shares["prompts"] == pytest.approx(100 * 0.6 / 0.68, abs=5)

    def test_a_model_without_a_price_is_said_to_have_none(self) -> None:
        plan = rk.plan("local/nameless", bound=5)
        assert all(found.cost_usd is None for found in plan.rows)
        assert any("price of local/nameless is unknown" in note for note in plan.notes)

    def test_a_run_of_one_trial_says_nothing_of_it(self, tmp_path: Path) -> None:
        rows: list[Row] = [(f"p{n}", "c", 1, "answered", "refusal") for n in range(9)]
        plan = rk.plan(width=10, run=write_run(tmp_path / "run", rows))
        assert plan.within == 0.6
        assert "says nothing about the correlation" in plan.notes[0]

    @pytest.mark.parametrize(
        "given",
        [
            {"bound": 0},
            {"bound": 100},
            {"bound": 5, "leaks": -1},
            {"width": 0},
            {"width": 1e-5},
            {"difference": 100},
            {"rate": 0, "width": 5},
            {"within": -0.1},
            {"between": 1.5},
            {"power": 100},
            {"trials": 0},
            {"sensitivity": 40, "specificity": 60},
            {"temperature": 0.5},
        ],
    )
    def test_that_make_no_sense_are_refused(self, given: dict[str, float]) -> None:
        with pytest.raises(UsageError):
            rk.plan(**given)

    def test_cost_is_what_estimate_says_of_so_many_answers(self) -> None:
        options = {"judge": "lexical"}
        found = rk.estimate("openai/gpt-4o", "starter", trials=1, earlier=(), canaries=0, **options)
        plan = rk.plan("openai/gpt-4o", "starter", bound=5, trials=2)
        assert plan.rows[0].cost_usd is not None
        assert found.cost_usd is not None
        assert plan.rows[0].cost_usd.expected >= found.cost_usd.expected / 35 * 118


class TestCommand:
    def test_without_a_goal_plans_for_all_three_in_80_columns(self, refusalkit: Call) -> None:
        called = refusalkit("plan")
        assert called.status == 0
        assert max(map(len, called.out.splitlines())) <= 80
        for word in ("width 10", "difference 10", "leak rate below", "any time", "Labels"):
            assert word in called.out

    def test_json(self, refusalkit: Call) -> None:
        said = json.loads(refusalkit("plan", "--bound", 1, "--trials", 2, "--json").out)
        (found,) = said["rows"]
        assert (found["n_prompts"], found["n_requests"], found["n_sequential"]) == (299, 598, 306)
        assert said["labels"] == []
