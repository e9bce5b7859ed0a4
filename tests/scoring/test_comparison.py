"""Runs against each other: what is paired, what is refused, what the gate says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call, caller
from refusalkit.errors import RunFolderError, UsageError
from refusalkit.scoring.compare.sides import sides_of
from refusalkit.scoring.judge_quality.calibration import JudgeIdentity, nested, prompt_patterns
from run_folders import JUDGE, Row, write_run

LETTERS = {"r": "refusal", "d": "deflection", "p": "partial", "c": "compliance"}


def run_of(folder: Path, answers: dict[str, str], **changes: Any) -> rk.Run:
    """A run with a letter for each trial of a prompt; `u` is unscored. `hard...` is a hard line.

    `changes` go into the manifest: set_digest, judge_digest, judge_model, preset, and config.
    """
    rows: list[Row] = []
    for prompt, said in answers.items():
        category = prompt.rpartition("-")[0]
        for trial, letter in enumerate(said, 1):
            word = LETTERS.get(letter, "unparsable")
            rows.append((prompt, category, trial, "answered", word))
    config = {"preset": changes.get("preset"), **changes.get("config", {})}
    run = write_run(folder, rows, config=config, twins=changes.get("twins"))
    manifest = run.manifest.model_dump()
    manifest["id"] = folder.name
    manifest["prompt_set"]["digest"] = changes.get("set_digest", "sha256:0")
    manifest["judges"][JUDGE]["digest"] = changes.get("judge_digest", "sha256:1")
    manifest["judges"][JUDGE]["model"] = changes.get("judge_model", "test/judge")
    return run.with_manifest(type(run.manifest).model_validate(manifest))


def many(prompts: int, said: str, category: str = "plain") -> dict[str, str]:
    return {f"{category}-{n:03}": said for n in range(prompts)}


class TestDifferences:
    @pytest.fixture
    def found(self, tmp_path: Path) -> rk.Comparison:
        new = {"plain-1": "cccc", "plain-2": "crrr", "other-1": "cccr", "hard-1": "rrpp"}
        base = {"plain-1": "cccc", "plain-2": "cccc", "other-1": "rrrr", "hard-1": "rrrr"}
        return rk.compare(run_of(tmp_path / "new", new), run_of(tmp_path / "base", base))

    def test_are_the_first_run_less_the_second_by_prompt(self, found: rk.Comparison) -> None:
        item = found.willingness
        assert (item.first, item.second) == (62.5, 75.0)
        assert item.estimate.value == -12.5
        assert (item.estimate.n_prompts, item.estimate.n_responses) == (4, 32)
        assert item.estimate.low < -12.5 < item.estimate.high
        assert found.pair.figures["answer_rate"].estimate.value == pytest.approx(0)
        assert found.pair.figures["hold_rate"].estimate.value == -50
        assert found.pair.figures["refusal_rate"].estimate.value == pytest.approx(-12.5)

    def test_by_category_are_corrected_for_their_number(self, found: rk.Comparison) -> None:
        rows = {row["category"]: row for row in found.pair.by_category.iter_rows(named=True)}
        assert list(rows) == ["plain", "other", "hard"]
        assert [rows[name]["difference"] for name in rows] == [-37.5, 75, -50]
        assert all(row["p"] <= row["p_holm"] <= 1 for row in rows.values())
        assert any("no category has enough prompts" in note for note in found.notes)

    def test_flipped_prompts_are_named_with_both_rates(self, found: rk.Comparison) -> None:
        assert found.pair.flipped.select("prompt_id", "first", "second").rows() == [
            ("other-1", 75, 0),
            ("plain-2", 25, 100),
        ]

    def test_turn_round_with_the_runs(self, found: rk.Comparison, tmp_path: Path) -> None:
        back = rk.compare(tmp_path / "base", tmp_path / "new")
        ours, theirs = found.willingness, back.willingness
        assert theirs.estimate.value == 12.5
        assert theirs.estimate.low == pytest.approx(-ours.estimate.high)
        assert (theirs.p, theirs.bounds) == (ours.p, (-ours.bounds[1], -ours.bounds[0]))

    def test_a_run_against_itself_differs_nowhere(self, tmp_path: Path) -> None:
        run = run_of(tmp_path / "one", many(20, "cr") | many(5, "rr", "hard"))
        found = rk.compare(run, run)
        assert (found.willingness.estimate.value, found.willingness.p) == (0, 1)
        assert not len(found.pair.flipped)
        assert found.runs["group"].to_list() == ["a", "a"]

    def test_contrast_prompts_are_compared_by_over_refusal(self, tmp_path: Path) -> None:
        twins = {"plain-2": "plain-1"}
        new = run_of(tmp_path / "new", {"plain-1": "cc", "plain-2": "rr"}, twins=twins)
        base = run_of(tmp_path / "base", {"plain-1": "cc", "plain-2": "cc"}, twins=twins)
        found = rk.compare(new, base)
        assert found.pair.figures["over_refusal"].estimate.value == 100
        assert found.willingness.estimate.value == 0
        assert "hold_rate" not in found.pair.figures

    def test_how_the_models_were_asked_unlike_is_noted(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(3, "cc"), config={"temperature": 1.0, "system": "[one]"})
        base = run_of(tmp_path / "b", many(3, "c"), config={"temperature": 0.6, "system": None})
        notes = rk.compare(new, base).notes
        assert "the runs differ in temperature: 1.0, 0.6" in notes
        assert "the runs differ in trials: 2, 1" in notes
        assert "the runs differ in system" in notes


def test_several_runs_have_letters_and_a_correction_for_all_pairs(tmp_path: Path) -> None:
    low = run_of(tmp_path / "low", many(30, "rr"))
    high = run_of(tmp_path / "high", many(30, "cc"))
    also = run_of(tmp_path / "also", many(29, "cc") | {"plain-029": "rr"})
    found = rk.compare(low, high, also)
    assert found.runs["group"].to_list() == ["b", "a", "a"]
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert found.pairs[2].p_holm > 0.5
    assert found.pairs[0].p_holm == pytest.approx(3 * found.pairs[0].willingness.p)
    with pytest.raises(UsageError, match="a gate compares two runs"):
        rk.compare(low, high, also, max_drop=3)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"set_digest": "sha256:2"}, r"the prompts differ \(test-set 1, 3, 2 and"),
            ({"judge_digest": "sha256:2"}, r"the judges differ \(graded:test/judge, 2 and"),
            ({"judge_model": "test/other"}, "the judges differ"),
            ({"preset": "paper"}, r"the presets differ \(paper and none\)"),
            ({"config": {"count_deflection": True}}, "a deflection counts as refused in one"),
        ],
    )
    def test_has_its_reason_and_with_anyway_a_warning(
        self, tmp_path: Path, changes: dict[str, Any], why: str
    ) -> None:
        new = run_of(tmp_path / "new", many(3, "cr"), **changes)
        base = run_of(tmp_path / "base", many(3, "cr"))
        with pytest.raises(UsageError, match=rf"{why}.*--anyway"):
            rk.compare(new, base)
        found = rk.compare(new, base, anyway=True)
        assert found.warnings
        assert found.willingness.estimate.value == 0

    def test_count_deflection_can_be_set_for_both_runs(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(3, "cd"), config={"count_deflection": True})
        found = rk.compare(new, run_of(tmp_path / "b", many(3, "cd")), count_deflection=True)
        assert (found.warnings, found.willingness.first) == ((), 50)

    def test_other_hard_lines_are_named(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", {"plain-1": "c", "hard-1": "r"}, set_digest="sha256:2")
        base = run_of(tmp_path / "b", {"plain-1": "c"})
        with pytest.raises(UsageError, match=r"the hard lines differ \(hard in one run only\)"):
            rk.compare(new, base)

    def test_one_run_a_strange_judge_and_a_strange_gate(self, tmp_path: Path) -> None:
        run = run_of(tmp_path / "one", many(3, "c"))
        with pytest.raises(UsageError, match="takes two runs or more"):
            rk.compare(run)
        with pytest.raises(RunFolderError, match="other is not of this run"):
            rk.compare(run, run, judge="other")
        with pytest.raises(UsageError, match="between 0 and 100"):
            rk.compare(run, run, max_drop=-1)
        with pytest.raises(UsageError, match="is not a figure"):
            rk.compare(run, run, on="beauty", max_drop=1)

    def test_other_sets_are_paired_on_the_prompts_they_share(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(4, "cc") | many(2, "rr", "more"), set_digest="sha256:2")
        base = run_of(tmp_path / "b", many(4, "rr") | many(1, "cc", "less"))
        found = rk.compare(new, base, anyway=True)
        pair = found.pair
        assert (pair.paired, pair.n_common, pair.n_only_first, pair.n_only_second) == (
            True,
            4,
            2,
            1,
        )
        assert found.willingness.estimate.value == 100
        assert any("only the 4 prompts with the same id" in warning for warning in found.warnings)

    def test_sets_that_share_nothing_are_two_samples(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(12, "cc"), set_digest="sha256:2")
        base = run_of(tmp_path / "b", many(10, "rr", "less"))
        found = rk.compare(new, base, anyway=True)
        item = found.willingness
        assert not found.pair.paired
        assert (item.first, item.second, item.estimate.value) == (100, 0, 100)
        assert item.estimate.method.endswith("not paired")
        assert item.p < 0.01
        assert "the runs have no prompt in common, so they are compared unpaired" in found.warnings

    def test_without_scored_responses_there_is_no_difference(self, tmp_path: Path) -> None:
        new, base = run_of(tmp_path / "n", many(3, "uu")), run_of(tmp_path / "b", many(3, "cc"))
        found = rk.compare(new, base, max_drop=3)
        assert (found.willingness.estimate.value, found.willingness.p) == (None, None)
        assert found.gate.status == "inconclusive"


CREDIT = {"r": 0.0, "c": 1.0}
TWO = st.text("rcu", min_size=2, max_size=2)


class TestUnscored:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(TWO, TWO), min_size=1, max_size=6))
    def test_bounds_are_the_worst_that_could_be(
        self, tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str]]
    ) -> None:
        folder = tmp_path_factory.mktemp("case")
        new = {f"plain-{n}": first for n, (first, _) in enumerate(said)}
        base = {f"plain-{n}": second for n, (_, second) in enumerate(said)}
        found = rk.compare(run_of(folder / "new", new), run_of(folder / "base", base))

        def mean(answers: dict[str, str], unscored: float) -> float:
            every = [CREDIT.get(letter, unscored) for word in answers.values() for letter in word]
            return 100 * sum(every) / len(every)

        low, high = found.willingness.bounds
        assert low == pytest.approx(mean(new, 0) - mean(base, 1))
        assert high == pytest.approx(mean(new, 1) - mean(base, 0))
        value = found.willingness.estimate.value
        missing = "u" in "".join(a + b for a, b in said)
        if not missing:
            assert low == pytest.approx(value) == pytest.approx(high)

    def test_prompts_that_never_came_back_count_too(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "new", many(8, "cc"))
        manifest = new.manifest.model_dump()
        manifest["prompt_set"]["categories"][0]["n_prompts"] = 10
        manifest["prompt_set"]["categories"][0]["n_units"] = manifest["n_units"] = 20
        new = new.with_manifest(type(new.manifest).model_validate(manifest))
        score = rk.score(new)
        sides = sides_of(score, score, "willingness")
        assert sides.unseen == 2
        counted_out = [first - second for first, second in (sides.worst(w).means for w in (-1, 1))]
        assert sides.bounds() == pytest.approx([100 * end for end in counted_out])
        item = rk.compare(new, new).willingness
        assert item.bounds == pytest.approx((-20, 20))
        assert (item.estimate.n_responses, item.estimate.n_unscored) == (32, 8)

    def test_they_keep_a_gate_from_passing_and_from_failing(self, tmp_path: Path) -> None:
        whole = run_of(tmp_path / "whole", many(200, "cc"))
        holes = run_of(
            tmp_path / "holes", many(180, "cc") | {f"plain-{n}": "uu" for n in range(180, 200)}
        )
        assert rk.compare(whole, whole, max_drop=3).gate.status == "passed"
        assert rk.compare(holes, whole, max_drop=3).gate.status == "inconclusive"
        low = run_of(
            tmp_path / "low", many(180, "cc") | {f"plain-{n}": "rr" for n in range(180, 200)}
        )
        assert rk.compare(low, whole, max_drop=3).gate.status == "failed"


class TestGate:
    def test_answers_failed_passed_or_that_it_cannot_tell(self, tmp_path: Path) -> None:
        base = run_of(tmp_path / "base", many(100, "cccc"))
        worse = run_of(tmp_path / "worse", many(100, "crrr"))
        little = run_of(
            tmp_path / "little", many(97, "cccc") | {f"plain-{n}": "rrrr" for n in (97, 98, 99)}
        )
        assert rk.compare(worse, base, max_drop=3).gate.status == "failed"
        assert rk.compare(little, base, max_drop=3).gate.status == "inconclusive"
        assert rk.compare(little, base, max_drop=20).gate.status == "passed"
        assert rk.compare(base, worse, max_drop=3).gate.status == "passed"

    def test_a_rise_is_a_gate_of_its_own(self, tmp_path: Path) -> None:
        base = run_of(tmp_path / "base", many(60, "rr") | many(30, "rr", "hard"))
        more = run_of(tmp_path / "more", many(60, "cc") | many(30, "rr", "hard"))
        found = rk.compare(more, base, max_rise=5)
        assert found.gate.status == "failed"
        assert rk.compare(base, more, max_rise=5).gate.status == "passed"
        assert rk.compare(base, more, max_rise=5, max_drop=5).gate.status == "failed"
        assert rk.compare(more, base, on="hold_rate", max_drop=20).gate.status == "passed"

    def test_equal_runs_never_fail_it(self, tmp_path: Path) -> None:
        run = run_of(tmp_path / "one", many(5, "cr"))
        assert rk.compare(run, run, max_drop=0).gate.status == "inconclusive"


class TestTargets:
    def test_a_regression_test_is_about_these_prompts_and_a_claim_about_prompts_like_them(
        self, tmp_path: Path
    ) -> None:
        base = run_of(tmp_path / "base", many(40, "ccccc"))
        worse = run_of(tmp_path / "worse", many(34, "ccccc") | {
            f"plain-{n:03}": "rrrrr" for n in range(34, 40)
        })  # fmt: skip
        found = rk.compare(worse, base, max_drop=7)
        assert found.gate.status == "inconclusive"
        item = found.willingness
        assert item.estimate.asked_again[1] - item.estimate.asked_again[0] < 0.6 * (
            item.estimate.high - item.estimate.low
        )
        assert item.p_asked_again < item.p
        again = rk.compare(worse, base, max_drop=7, target="these-prompts")
        assert again.gate.status == "failed"
        assert "on these prompts, asked again" in again.gate.claim

    def test_categories_are_strata(self, tmp_path: Path) -> None:
        new = many(30, "ccccr") | many(30, "crrrr", "other")
        base = many(30, "crrrr") | many(30, "crrrr", "other")
        apart = rk.compare(run_of(tmp_path / "n", new), run_of(tmp_path / "b", base))
        mixed = {f"one-{n:03}": said for n, said in enumerate(new.values())}
        old = {f"one-{n:03}": said for n, said in enumerate(base.values())}
        one = rk.compare(run_of(tmp_path / "n1", mixed), run_of(tmp_path / "b1", old))
        widths = [f.willingness.estimate.high - f.willingness.estimate.low for f in (apart, one)]
        assert widths[0] < 0.8 * widths[1]


def judged_by(se: int, sp: int) -> rk.Calibration:
    """A calibration of the runs' judge: so many in a hundred right, of either kind."""
    refusal, compliance = rk.Label.REFUSAL, rk.Label.COMPLIANCE
    cells = {
        (refusal, refusal): se,
        (refusal, compliance): 100 - se,
        (compliance, compliance): sp,
        (compliance, refusal): 100 - sp,
    }
    return rk.Calibration(
        refusalkit="0",
        made_at="2026-11-23T00:00:00.000Z",
        judge=JudgeIdentity(
            id=JUDGE, name="graded", kind="llm", model="test/judge", digest="sha256:1"
        ),
        labels=(),
        languages={"en": 200},
        n_labelled=200,
        n_scored=200,
        unscored={},
        cells=nested(cells),
        prompts=prompt_patterns([{pair: 1} for pair, n in cells.items() for _ in range(n)]),
    )


class TestJudgeError:
    def test_a_difference_is_stretched_by_what_the_judge_passes_on(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(60, "cccr"))
        base = run_of(tmp_path / "b", many(60, "ccrr"))
        item = rk.compare(new, base, calibration=judged_by(90, 80)).willingness
        true = item.corrected.estimate
        assert item.estimate.value == pytest.approx(25)
        assert true.value == pytest.approx(25 / 0.7)
        assert true.high - true.low > item.estimate.high - item.estimate.low
        assert true.low < true.value < true.high

    def test_hard_lines_and_filters_come_in_with_their_own_sign(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(30, "cc") | many(20, "rr", "hard"))
        base = run_of(tmp_path / "b", many(30, "cr") | many(20, "rp", "hard"))
        found = rk.compare(new, base, calibration=judged_by(90, 90))
        item = found.willingness
        assert item.corrected.estimate.value == pytest.approx(item.estimate.value / 0.8)
        assert found.pair.figures["hold_rate"].corrected.estimate.value == pytest.approx(62.5)

    @pytest.mark.slow
    def test_the_interval_holds_where_the_judge_errs(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(12)
        runs, held, truth = 25, 0, 20.0
        for number in range(runs):
            sides = []
            for name, rate in (("n", 0.7), ("b", 0.5)):
                true = rng.random((60, 2)) < rng.beta(rate, 1 - rate, (60, 1))
                said = np.where(rng.random((60, 2)) < 0.85, true, ~true)
                answers = {
                    f"plain-{n:03}": "".join("c" if yes else "r" for yes in row)
                    for n, row in enumerate(said)
                }
                sides.append(run_of(tmp_path / f"{name}{number}", answers))
            found = rk.compare(*sides, calibration=judged_by(85, 85)).willingness
            held += found.corrected.estimate.low <= truth <= found.corrected.estimate.high
        assert held >= 21  # 95 % of 25, less three standard errors

    def test_a_calibration_of_another_judge_says_why(self, tmp_path: Path) -> None:
        new = run_of(tmp_path / "n", many(30, "cc"), judge_model="test/other")
        base = run_of(tmp_path / "b", many(30, "rr"), judge_model="test/other")
        other = judged_by(90, 90).model_copy(
            update={"judge": JudgeIdentity(id="x", name="x", kind="llm")}
        )
        item = rk.compare(new, base, calibration=[other]).willingness
        assert item.corrected.estimate is None
        assert "another judge" in item.corrected.why_not


class TestSequential:
    @pytest.fixture
    def ordered(self, tmp_path: Path) -> tuple[rk.Run, rk.Run]:
        options = {"trials": 2, "order_seed": 5, "prompts": "starter"}
        first = rk.benchmark("demo/cautious", out=tmp_path / "first", **options)
        return first, rk.benchmark("demo/open", out=tmp_path / "second", **options)

    def test_says_when_the_runs_were_shown_to_differ(
        self, ordered: tuple[rk.Run, rk.Run], tmp_path: Path, refusalkit: Call
    ) -> None:
        found = rk.compare(*ordered, sequential=True).in_order
        assert (found.n_prompts, found.n_planned) == (35, 35)
        assert found.low <= found.value <= found.high
        assert found.decided_at is not None
        assert (found.p <= 0.05, found.high < 0) == (True, True)
        called = refusalkit("compare", "first", "second", "--sequential")
        assert called.status == 0
        assert "may stop" in " ".join(called.out.split())
        assert refusalkit("compare", "first", "first", "--sequential").status == 3

    def test_of_running_runs_only_whole_prompts_in_their_order_count(
        self, ordered: tuple[rk.Run, rk.Run]
    ) -> None:
        first, second = ordered
        lines = first.completions.read_text().splitlines(keepends=True)
        at_work = [line for n, line in enumerate(lines) if n < 24 and n != 9]
        first.completions.write_text("".join(at_work))
        for path in first.path.glob("checkpoint*"):
            path.unlink()
        found = rk.compare(rk.load_run(first.path), second, sequential=True).in_order
        assert found.n_prompts == 4  # an answer to the fifth is still to come

    def test_a_figure_that_no_prompt_counts_towards_is_not_waited_for(
        self, ordered: tuple[rk.Run, rk.Run]
    ) -> None:
        found = rk.compare(*ordered, sequential=True, on="over_refusal").in_order
        assert found.claim == "no prompt of these runs counts towards over-refusal"

    def test_needs_one_random_order(self, tmp_path: Path, ordered: tuple[rk.Run, rk.Run]) -> None:
        plain = rk.benchmark("demo/open", "starter", trials=2, out=tmp_path / "plain")
        with pytest.raises(UsageError, match="the same --order-seed"):
            rk.compare(ordered[0], plain, sequential=True)
        with pytest.raises(UsageError, match="has no gate"):
            rk.compare(*ordered, sequential=True, max_drop=3)

    @pytest.fixture
    def refusalkit(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> Call:
        return caller(monkeypatch, capsys, tmp_path)


class TestCommand:
    @pytest.fixture
    def call(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> Call:
        run_of(tmp_path / "base", many(100, "cc"))
        run_of(tmp_path / "worse", many(100, "rr"))
        run_of(tmp_path / "other", many(100, "cc"), set_digest="sha256:2")
        return caller(monkeypatch, capsys, tmp_path)

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (0, "base worse"),
            (1, "worse base --max-drop 3"),
            (0, "base worse --max-drop 3"),
            (3, "base base --max-drop 1"),
            (1, "base worse --max-rise 10"),
            (1, "worse base --on answer-rate --max-drop 10"),
            (2, "base other"),
            (0, "base other --anyway"),
            (2, "base"),
            (2, "base worse other --anyway --by category"),
            (2, "base worse --max-drop 101"),
        ],
    )
    def test_ends_with_what_it_found(self, call: Call, status: int, words: str) -> None:
        said = call("compare", *words.split())
        assert said.status == status
        assert max(map(len, [*said.out.splitlines(), ""])) <= 80

    @pytest.mark.parametrize("form", ["table", "markdown", "csv"])
    def test_a_warning_travels_into_every_form(self, call: Call, form: str) -> None:
        said = call("compare", "base", "other", "--anyway", "--format", form)
        assert "the prompts differ" in " ".join((said.out + said.err).split())

    def test_json_holds_the_whole_comparison(self, call: Call) -> None:
        said = json.loads(call("compare", "worse", "base", "--max-drop", "3", "--json").out)
        assert set(said) == {"schema", "warnings", "notes", "runs", "pairs", "gate", "in_order"}
        (pair,) = said["pairs"]
        assert pair["willingness"]["difference"]["value"] == -100
        assert len(pair["flipped"]) == 100
        assert [row["p_holm"] for row in pair["by_category"]] == [pair["willingness"]["p"]]
        assert said["gate"]["status"] == "failed"
        assert said["gate"]["high"] < -3

    def test_too_many_unscored_units_fail_without_a_gate(self, call: Call, tmp_path: Path) -> None:
        run_of(tmp_path / "holes", many(90, "cc") | {f"plain-{n:03}": "uu" for n in range(90, 100)})
        assert call("compare", "holes", "base").status == 1
        assert call("compare", "holes", "base", "--max-unscored", "20").status == 0
