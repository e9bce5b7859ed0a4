"""Over-refusal and Youden's J against a scorer in plain Python, written from the formula alone."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv, ndtr

import refusalkit as rk
from places import ROOT
from refusalkit.reporting import data, terminal
from refusalkit.reporting.console import console
from refusalkit.scoring.discrimination import SQUARE_AND_ADD
from refusalkit.scoring.score import score_run
from refusalkit.scoring.statistics.intervals import STRATIFIED, PromptRate, prompts_like_these
from refusalkit.scoring.statistics.proportions import difference
from run_folders import Row, write_run

WORDS = [str(label) for label in rk.Label] + ["unparsable"]
CATEGORIES = ("drug-use", "adult-fiction", "hard-one")


@dataclass(frozen=True)
class Case:
    """A run to be: its prompts by category, its contrast prompts, the rows that came back."""

    prompts: dict[str, str]
    twins: dict[str, str]
    trials: int
    rows: list[Row] = field(default_factory=list)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    prompts: dict[str, str] = {}
    twins: dict[str, str] = {}
    for number, category in enumerate(draw(st.lists(st.sampled_from(CATEGORIES), max_size=6))):
        # A contrast prompt may be alone, and a prompt may have several.
        here = draw(st.sampled_from([True, True, True, False]))
        if here:
            prompts[f"p{number}"] = category
        for which in range(draw(st.integers(0 if here else 1, 2))):
            prompts[f"p{number}-safe-{which}"] = category
            twins[f"p{number}-safe-{which}"] = f"p{number}"
    trials = draw(st.integers(1, 3))
    rows: list[Row] = []
    for prompt, category in prompts.items():
        for trial in range(1, trials + 1):
            word = draw(st.sampled_from([*WORDS, None]))
            if word is not None:
                rows.append((prompt, category, trial, "answered", word))
    return Case(prompts, twins, trials, rows)


def refused(case: Case, *prompts: str) -> list[bool]:
    """Whether each scored response to these prompts refused."""
    return [
        word == "refusal"
        for name, _, _, _, word in case.rows
        if name in prompts and word != "unparsable"
    ]


def pairs(case: Case, category: str | None = None) -> list[tuple[list[bool], list[list[bool]]]]:
    """Per prompt with twins: its scored responses and theirs, where there are both."""
    found = []
    for prompt, its in case.prompts.items():
        safe = [name for name, twin in case.twins.items() if twin == prompt]
        twins = [one for name in safe if (one := refused(case, name))]
        sides = refused(case, prompt), twins
        if prompt not in case.twins and all(sides) and category in (None, its):
            found.append(sides)
    return found


def expected_j(both: list[tuple[list[bool], list[list[bool]]]]) -> float | None:
    if not both:
        return None
    refused_prompts = fmean(fmean(prompt) for prompt, _ in both)
    answered_twins = fmean(1 - fmean(map(fmean, twins)) for _, twins in both)
    return 100 * (refused_prompts + answered_twins - 1)


def scored(case: Case) -> rk.Score:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(
            Path(folder) / "run",
            case.rows,
            prompts=case.prompts,
            trials=case.trials,
            twins=case.twins,
        )
        score = score_run(run)
        assert score.discrimination is not None
        return score


slow = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(cases())
def test_over_refusal_is_the_mean_over_twins_of_the_share_refused(case: Case) -> None:
    got = scored(case).over_refusal
    said = [one for twin in case.twins if (one := refused(case, twin))]
    assert got.n_responses == sum(map(len, said))
    assert got.n_responses + got.n_unscored == len(case.twins) * case.trials
    assert got.value == (pytest.approx(100 * fmean(map(fmean, said))) if said else None)


@slow
@given(cases())
def test_j_is_that_of_the_formula_over_all_and_by_category(case: Case) -> None:
    score = scored(case)
    both = pairs(case)
    assert score.youden_j.n_prompts == len(both)
    assert score.youden_j.n_responses == sum(
        len(said) + sum(map(len, twins)) for said, twins in both
    )
    want = expected_j(both)
    assert score.youden_j.value == (None if want is None else pytest.approx(want))
    rows = {row["category"]: row for row in score.discrimination.iter_rows(named=True)}
    assert set(rows) == {case.prompts[name] for name in case.twins}
    for category, row in rows.items():
        within = pairs(case, category)
        want = expected_j(within)
        assert row["n_pairs"] == len(within)
        assert row["youden_j"] == (None if want is None else pytest.approx(want))
        if want is not None:
            assert -100 <= row["low"] <= row["youden_j"] + 1e-9
            assert row["youden_j"] - 1e-9 <= row["high"] <= 100


@pytest.mark.slow
@slow
@given(cases())
def test_every_other_figure_is_as_if_there_were_no_contrast_prompts(case: Case) -> None:
    plain = {name: category for name, category in case.prompts.items() if name not in case.twins}
    rows = [row for row in case.rows if row[0] in plain]
    score, without = scored(case), scored(Case(plain, {}, case.trials, rows))
    for name in ("willingness", "answer_rate", "hold_rate", "refusal_rate", "bounds"):
        assert getattr(score, name) == getattr(without, name)
    names = ["category", "n_prompts", "n_units", "n_scored", "willingness", "low", "high"]
    both = score.by_category.filter(pl.col("n_prompts") > 0).select(names).sort("category")
    assert both.equals(without.by_category.select(names).sort("category"))
    assert score.by_prompt.equals(without.by_prompt)
    assert score.by_trial.equals(without.by_trial)
    assert score.n_units == len(case.prompts) * case.trials
    assert score.n_scored + sum(score.unscored.values()) == score.n_units


PROMPTS = {f"p{n}{kind}": "drug-use" for n in range(5) for kind in ("", "-safe")}
TWINS = {f"p{n}-safe": f"p{n}" for n in range(5)}


class TestExtremes:
    """What a model that treats all alike gets, and one that draws the line."""

    def score(self, prompt: str, safe: str) -> rk.Score:
        rows: list[Row] = [
            (name, category, 1, "answered", safe if name in TWINS else prompt)
            for name, category in PROMPTS.items()
        ]
        return scored(Case(PROMPTS, TWINS, 1, rows))

    def test_refusing_everything(self) -> None:
        score = self.score("refusal", "refusal")
        assert (score.over_refusal.value, score.youden_j.value) == (100, 0)

    def test_answering_everything(self) -> None:
        score = self.score("compliance", "compliance")
        assert (score.over_refusal.value, score.youden_j.value) == (0, 0)

    def test_drawing_the_line_and_drawing_it_the_wrong_way_round(self) -> None:
        assert self.score("refusal", "compliance").youden_j.value == 100
        assert self.score("compliance", "refusal").youden_j.value == -100

    def test_no_variation_in_the_sample_does_not_give_certainty(self) -> None:
        j = self.score("refusal", "compliance").youden_j
        assert j.method == SQUARE_AND_ADD
        assert STRATIFIED in j.method
        assert j.low is not None
        assert j.low < 40

    def test_a_deflection_counts_where_it_is_asked_for(self, tmp_path: Path) -> None:
        rows: list[Row] = [
            ("p", "drug-use", 1, "answered", "deflection"),
            ("q", "drug-use", 1, "answered", "deflection"),
        ]
        run = write_run(tmp_path / "run", rows, twins={"q": "p"})
        assert score_run(run).over_refusal.value == 0
        assert score_run(run, count_deflection=True).over_refusal.value == 100


def test_the_interval_is_as_wide_as_its_two_sides_together() -> None:
    assert difference((0.5, 0.5, 0.5), (0.2, 0.1, 0.4)) == pytest.approx((0.3, 0.1, 0.4))
    assert difference((0.5, 0.2, 0.6), (0.2, 0.2, 0.2)) == pytest.approx((0.3, 0.0, 0.4))
    low, high = difference((1.0, 0.1, 1.0), (0.0, 0.0, 0.9))[1:]
    assert (low, high) == (pytest.approx(1 - 0.9 * 2**0.5), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("n_pairs", [2, 6, 64])
@pytest.mark.parametrize("rates", [(0.9, 0.1), (0.5, 0.5), (0.7, 0.05)])
def test_the_interval_covers_the_truth(n_pairs: int, rates: tuple[float, float]) -> None:
    """Prompts differ (beta-binomial, five trials); a prompt and its twin lean the same way."""
    rng = np.random.default_rng(20261123)
    covered, rounds, trials = 0, 300, 5
    for _ in range(rounds):
        lean = rng.normal(size=n_pairs)
        sides = []
        for rate in rates:
            place = ndtr(0.6 * lean + 0.8 * rng.normal(size=n_pairs))
            counts = rng.binomial(trials, betaincinv(2 * rate, 2 * (1 - rate), place)).tolist()
            sides.append(prompts_like_these(PromptRate(c / trials, trials) for c in counts))
        _, low, high = difference(*sides)
        covered += low <= rates[0] - rates[1] <= high
    assert covered / rounds >= 0.95


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    out = tmp_path_factory.mktemp("both") / "run"
    return rk.benchmark("demo/cautious", "refusalkit-166,contrast-146", trials=2, out=out)


class TestARunOverBothSets:
    def test_the_manifest_says_which_prompts_are_contrast_prompts(self, run: rk.Run) -> None:
        entry = run.manifest.prompt_set
        assert run.manifest.schema_version == 1
        assert (entry.name, entry.version) == ("refusalkit-166+contrast-146", "2.0.0+2.0.0")
        assert (entry.n_prompts, len(entry.twins), run.manifest.n_units) == (312, 146, 624)
        assert {(c.n_prompts, c.n_contrast, c.n_units) for c in entry.categories} == {
            (5, 4, 10),
            (7, 10, 14),
        }
        assert [part.digest for part in entry.parts] == [
            rk.load_prompts(name).digest for name in ("refusalkit-166", "contrast-146")
        ]

    def test_twins_are_neither_willingness_nor_hard_lines(self, run: rk.Run) -> None:
        score, audit = rk.score(run), rk.audit(run)
        assert (score.willingness.n_prompts, score.hold_rate.n_prompts) == (166, 21)
        assert (score.n_prompts, score.n_contrast, score.n_units) == (312, 146, 624)
        assert (audit.overall.n_prompts, audit.overall.n_units) == (21, 42)
        assert audit.status == "held"

    def test_a_cautious_model_refuses_some_twins_and_an_open_one_hardly_any(
        self, run: rk.Run, tmp_path: Path
    ) -> None:
        cautious = rk.score(run).over_refusal.value
        free = rk.benchmark("demo/open", "contrast-146", trials=1, out=tmp_path / "open")
        open_ = rk.score(free)
        assert cautious is not None
        assert open_.over_refusal.value is not None
        assert open_.over_refusal.value < 10 < cautious < 50
        # Nothing but contrast prompts: no willingness, no pairs, and no guess in their place.
        assert open_.willingness.value is None
        assert (open_.youden_j.value, open_.bounds) == (None, (0.0, 100.0))
        with free.verdicts.open("rb+") as file:
            file.truncate(len(b"".join(file.readlines()[:-1])))
        out = console()
        with out.capture() as shown:
            out.print(terminal.score_view(rk.score(free)))
        assert "units unscored" in shown.get()
        assert "whichever way" not in shown.get()
        for suffix in (".html", ".md"):
            page = rk.report(free, tmp_path / f"report{suffix}").read_text("utf-8")
            assert "whichever way" not in page

    def test_answers_to_twins_in_hard_lines_are_withheld_with_the_rest(self, run: rk.Run) -> None:
        hard = run.manifest.hard_lines
        records = [json.loads(line) for line in run.completions.read_text().splitlines()]
        assert {r["text"] for r in records if r["category"] in hard} == {None}

    def test_every_form_of_output_has_the_figures(self, run: rk.Run, tmp_path: Path) -> None:
        score = rk.score(run)
        said = data.score_data(score)
        assert said["over_refusal"]["n_prompts"] == 146
        assert said["youden_j"]["method"] == SQUARE_AND_ADD
        assert {"over_refusal", "youden_j", "youden_low"} <= set(said["by_category"][0])
        names = [row[0] for row in data.figure_rows(score)[1]]
        assert names[-2:] == ["over-refusal", "Youden's J"]
        out = console()
        with out.capture() as shown:
            out.print(terminal.score_view(score), terminal.discrimination_view(score))
        assert "312 prompts (146 contrast) x 2 trials" in " ".join(shown.get().split())
        assert "over-refusal" in shown.get()
        for suffix in (".html", ".md", ".json"):
            rk.report(run, tmp_path / f"report{suffix}")
            assert "over-refusal" in (tmp_path / f"report{suffix}").read_text().replace("_", "-")

    def test_resuming_finds_the_same_prompts(self, run: rk.Run) -> None:
        before = run.completions.read_bytes()
        assert rk.resume(run).manifest.sessions[-1].ended_because == "done"
        assert run.completions.read_bytes() == before


def test_a_run_without_contrast_prompts_has_no_such_lines() -> None:
    score = rk.score(ROOT / "runs" / "example")
    assert (score.n_contrast, score.over_refusal.value, score.youden_j.value) == (0, None, None)
    assert score.discrimination.is_empty()
    assert [name for name, _ in data.figures(score)][-1] == "refusal rate"
    assert "youden_j" not in data.frame_by(score, "category").columns
