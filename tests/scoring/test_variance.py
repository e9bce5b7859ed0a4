"""Where a score's uncertainty comes from, and what would lower it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.scoring.variance import variance_of
from refusalkit.types import Estimate, Label, Verdict
from run_folders import JUDGE, Row, write_run

WHOLE = Estimate(50.0, 40.0, 60.0, "", 1, 1, 0)
MATRIX = st.integers(2, 6).flatmap(
    lambda trials: st.lists(
        st.lists(st.integers(0, 1), min_size=trials, max_size=trials), min_size=2, max_size=30
    )
)


def frame(matrix: list[list[int]]) -> pl.DataFrame:
    """Credit of each trial, a row for each prompt, counted by prompt."""
    rows = [(f"p{n}", "c", False, float(sum(row)), len(row)) for n, row in enumerate(matrix)]
    columns = {"prompt_id": pl.String, "category": pl.String, "hard_line": pl.Boolean}
    columns |= {"credit": pl.Float64, "n_scored": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MATRIX)
def test_prompts_and_trials_add_up_to_the_clustered_variance(matrix: list[list[int]]) -> None:
    found = variance_of(frame(matrix), WHOLE)
    means = np.mean(matrix, axis=1)
    clustered = 1e4 * means.var(ddof=1) / len(means)
    within = 1e4 * np.var(matrix, axis=1, ddof=1).mean() / np.size(matrix)
    assert found.trials == pytest.approx(within)
    # Where trials alone vary more than means do, the prompts' part is 0, not negative.
    assert found.prompts == pytest.approx(max(0.0, clustered - within), abs=1e-6)
    assert found.with_twice_the_trials <= found.half_width
    assert sum(found.shares.values()) == pytest.approx(100 if found.shares else 0)


def test_known_parts_are_found_again() -> None:
    rng = np.random.default_rng(8)
    leanings = rng.beta(2, 3, 4000)
    found = variance_of(frame(rng.binomial(1, leanings[:, None], (4000, 5)).tolist()), WHOLE)
    between = 2 * 3 / (5**2 * 6)
    within = 0.4 * 0.6 - between
    assert found.prompts == pytest.approx(1e4 * between / 4000, rel=0.08)
    assert found.trials == pytest.approx(1e4 * within / 20000, rel=0.05)


def test_trials_that_agree_add_nothing_and_prompts_alike_add_nothing() -> None:
    agreeing = variance_of(frame([[1, 1, 1], [0, 0, 0]] * 10), WHOLE)
    assert (agreeing.trials, agreeing.dominant) == (0, "prompts")
    assert agreeing.with_twice_the_trials == agreeing.half_width == 10
    alike = variance_of(frame([[1, 0], [0, 1]] * 10), WHOLE)
    assert (alike.prompts, alike.dominant) == (0, "trials")
    assert alike.with_twice_the_trials == pytest.approx(10 / np.sqrt(2))


def test_one_trial_cannot_be_split_and_says_so() -> None:
    found = variance_of(frame([[1], [0], [1]]), WHOLE)
    assert (found.prompts, found.trials, found.dominant) == (None, None, None)
    assert found.standard_error is not None
    assert "one scored trial of a prompt cannot tell prompts from trials" in " ".join(
        found.sentences
    )


def test_a_variance_of_zero_is_put_in_words() -> None:
    found = variance_of(frame([[1, 1]] * 5), WHOLE)
    assert (found.shares, found.dominant) == ({}, None)
    assert "every response earned the same credit" in found.sentences[0]
    assert variance_of(frame([]), Estimate(None, None, None, "", 0, 0, 9)).sentences == ()
    assert "One prompt says nothing" in variance_of(frame([[1, 0]]), WHOLE).sentences[0]


def test_a_second_judge_measures_the_judges_part(tmp_path: Path) -> None:
    rows: list[Row] = [
        (f"p{n}", "plain", trial, "answered", "compliance" if n < 10 else "refusal")
        for n in range(20)
        for trial in (1, 2)
    ]
    run = write_run(tmp_path / "run", rows)
    assert rk.score(run).variance.judge is None
    assert "judge: not measured" in " ".join(rk.score(run).variance.sentences)
    manifest = run.manifest.model_dump()
    manifest["judges"]["stricter"] = {"name": "stricter", "kind": "llm"}
    run = run.with_manifest(type(run.manifest).model_validate(manifest))
    with run.writing() as writer:
        for prompt, category, trial, _, word in rows:
            # It refuses four more prompts: 50 % for one judge, 30 % for the other.
            label = Label.REFUSAL if int(prompt[1:]) >= 6 else Label(str(word))
            writer.verdict(Verdict(prompt, category, trial, "stricter", label))
    found = rk.score(run).variance
    assert found.n_judges == 2
    per_prompt = np.array(
        [[1.0, 1.0 if n < 6 else 0.0] if n < 10 else [0.0, 0.0] for n in range(20)]
    )
    apart = per_prompt[:, 0] - per_prompt[:, 1]
    # Of two judges: half the squared difference, less what prompts' disagreement makes by chance.
    expected = 1e4 * (apart.mean() ** 2 - apart.var(ddof=1) / 20) / 2
    assert found.judge == pytest.approx(expected)
    assert rk.score(run, judge="stricter").variance.judge == pytest.approx(found.judge)
    assert rk.score(run, judge=JUDGE).willingness.value == 50


class TestMeanOverCategories:
    def test_each_category_weighs_the_same(self, tmp_path: Path) -> None:
        rows: list[Row] = [(f"a{n}", "large", 1, "answered", "compliance") for n in range(9)]
        rows.append(("b", "small", 1, "answered", "refusal"))
        score = rk.score(write_run(tmp_path / "run", rows))
        assert score.willingness.value == 90
        assert score.macro_willingness.value == pytest.approx(50)
        assert score.macro_willingness.low < 50 < score.macro_willingness.high
        width = score.willingness.high - score.willingness.low
        assert score.macro_willingness.high - score.macro_willingness.low > width

    def test_is_the_mean_of_the_categories_rows(self, tmp_path: Path) -> None:
        run = rk.benchmark("demo/mixed", "starter", trials=3, out=tmp_path / "run")
        score = rk.score(run)
        by_category = score.by_category["willingness"].drop_nulls()
        assert score.macro_willingness.value == pytest.approx(by_category.mean())

    def test_all_of_it_is_exactly_all(self, tmp_path: Path) -> None:
        rows: list[Row] = [
            (f"{c}{n}", f"c{c}", 1, "answered", "compliance")
            for c in range(7)
            for n in range(c + 1)
        ]
        estimate = rk.score(write_run(tmp_path / "run", rows)).macro_willingness
        assert (estimate.value, estimate.high) == (100, 100)
        assert estimate.low < 90
