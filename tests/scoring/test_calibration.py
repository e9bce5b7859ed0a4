"""A judge measured on people's labels, and the score corrected by what was measured."""

from __future__ import annotations

import json
import random
from collections import Counter
from csv import reader
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call, caller
from loopback import REFUSAL, LoopbackServer
from refusalkit.errors import RecordError, UsageError
from refusalkit.scoring.judge_quality.calibration import (
    LEAKED,
    REFUSED,
    REFUSED_OR_DEFLECTED,
    Cells,
    JudgeIdentity,
    nested,
    prompt_patterns,
)
from refusalkit.scoring.judge_quality.correction import (
    FigureAnswers,
    JudgeErrors,
    Share,
    correct_score,
    corrected_interval,
    why_useless,
)
from refusalkit.scoring.score import score_run
from refusalkit.types import Label
from run_folders import JUDGE, Row, write_run

R, D, P, C = Label
UNHURRIED = settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


class ScriptedJudge:
    """Right about refusals and about answers with the chances it is given; the answer says which.

    The draw is by the unit, so that nothing depends on the order of work.
    """

    id = "scripted"

    def __init__(self, sensitivity: float, specificity: float) -> None:
        self._right = {True: sensitivity, False: specificity}

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        refused = "[refusal]" in completion.text
        right = random.Random(f"scripted {completion.unit}").random() < self._right[refused]
        label = R if refused == right else C
        return rk.Verdict(prompt.id, prompt.category, completion.trial, self.id, label)

    async def aclose(self) -> None:
        pass


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labelled(n: int, share: float = 0.4) -> list[dict[str, Any]]:
    cut = round(n * share)
    labels = ["refusal"] * cut + ["compliance"] * (n - cut)
    return [
        {"prompt": f"request {number}", "response": f"[{label}] {number}", "label": label}
        for number, label in enumerate(labels)
    ]


def calibration_of(cells: Cells, **changes: Any) -> rk.Calibration:
    """A calibration with these counts, each answer to a prompt of its own."""
    by_prompt = [{pair: 1} for pair, n in cells.items() for _ in range(n)]
    total = sum(cells.values())
    fields: dict[str, Any] = {
        "refusalkit": "0",
        "made_at": "2026-11-23T00:00:00.000Z",
        "judge": JudgeIdentity(id=JUDGE, name="graded", kind="llm"),
        "labels": (),
        "languages": {"en": total},
        "n_labelled": total,
        "n_scored": total,
        "unscored": {},
        "cells": nested(cells),
        "prompts": prompt_patterns(by_prompt),
        **changes,
    }
    return rk.Calibration(**fields)


PERFECT = calibration_of({(label, label): 200 for label in Label})
GOOD = calibration_of({(R, R): 90, (R, C): 10, (C, R): 40, (C, C): 160})


class TestCalibrate:
    @pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.8), (0.7, 0.98)])
    def test_what_was_planted_in_a_judge_is_found(
        self, tmp_path: Path, sensitivity: float, specificity: float
    ) -> None:
        file = write_labels(tmp_path / "labels.jsonl", labelled(600))
        judge = ScriptedJudge(sensitivity, specificity)
        found = rk.calibrate(judge, file, verdicts=tmp_path / "verdicts")
        for planted, measured in (
            (sensitivity, found.rates.sensitivity),
            (specificity, found.rates.specificity),
        ):
            assert measured.low is not None
            assert measured.high is not None
            assert measured.low <= 100 * planted <= measured.high
            assert measured.high - measured.low < 14
        assert (found.rates.n_positive, found.rates.n_negative) == (240, 360)
        assert found.agreement.recall == pytest.approx(found.rates.sensitivity.value / 100)
        assert found.calibration.judge.id == "scripted"

    def test_answers_to_one_prompt_count_less_than_answers_to_many(self, tmp_path: Path) -> None:
        """Ten models err alike on a prompt: ten answers, hardly more than one's worth."""

        class Stubborn(ScriptedJudge):
            async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
                said = C if int(prompt.text.split()[1]) % 4 == 0 else R
                return rk.Verdict(prompt.id, prompt.category, completion.trial, self.id, said)

        rows = [
            {
                "id": f"{n}-{model}",
                "prompt": f"request {n}",
                "response": "[refusal]",
                "label": "refusal",
            }
            for n in range(40)
            for model in range(10)
        ]
        apart = [{**row, "prompt": f"{row['prompt']} {row['id']}"} for row in rows]
        widths = []
        for name, records in (("together", rows), ("apart", apart)):
            file = write_labels(tmp_path / f"{name}.jsonl", records)
            found = rk.calibrate(Stubborn(1, 1), file, verdicts=tmp_path / name)
            assert found.rates.sensitivity.value == 75
            again = found.calibration.error_rates(REFUSED)
            assert again.sensitivity == found.rates.sensitivity
            widths.append(found.rates.sensitivity.high - found.rates.sensitivity.low)
        assert widths[0] > 2.5 * widths[1]

    def test_what_has_no_verdict_is_counted(self, tmp_path: Path) -> None:
        class Mute(ScriptedJudge):
            async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
                if completion.text.endswith(("0", "1")):
                    return rk.Verdict(
                        prompt.id,
                        prompt.category,
                        completion.trial,
                        self.id,
                        unscored=rk.Unscored.UNPARSABLE,
                    )
                return await super().grade(prompt, completion)

        rows = [*labelled(100), {"prompt": "p", "response": "", "label": "refusal"}]
        found = rk.calibrate(
            Mute(1, 1), write_labels(tmp_path / "l.jsonl", rows), verdicts=tmp_path / "verdicts"
        )
        assert found.calibration.unscored == {"empty": 1, "unparsable": 20}
        assert found.calibration.n_scored == found.agreement.n == 80
        assert found.calibration.n_labelled == 101
        assert found.rates.sensitivity.n_unscored == 21

    def test_only_labelled_answers_are_judged(self, tmp_path: Path) -> None:
        asked: list[str] = []

        class Counting(ScriptedJudge):
            async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
                asked.append(prompt.text)
                return await super().grade(prompt, completion)

        rows = [*labelled(10), {"prompt": "without", "response": "a label"}]
        found = rk.calibrate(
            Counting(1, 1), write_labels(tmp_path / "l.jsonl", rows), verdicts=tmp_path / "verdicts"
        )
        assert "without" not in asked
        assert (len(asked), found.calibration.labels[0].n_records) == (10, 11)

    def test_by_source_model_category_and_language(self, tmp_path: Path) -> None:
        rows = [
            {**row, "model": f"m{n % 2}", "source": "s", "category": "One", "lang": "de"}
            for n, row in enumerate(labelled(40))
        ]
        file = write_labels(tmp_path / "l.jsonl", rows)
        found = rk.calibrate(ScriptedJudge(1, 1), file, verdicts=tmp_path / "verdicts")
        parts = {(row.by, row.value): row.n_labelled for row in found.breakdown}
        assert parts == {
            ("source", "s"): 40,
            ("model", "m0"): 20,
            ("model", "m1"): 20,
            ("category", "one"): 40,
            ("language", "de"): 40,
        }
        assert found.calibration.languages == {"de": 40}

    def test_a_file_without_labels_is_refused_before_anything_is_asked(
        self, tmp_path: Path
    ) -> None:
        good = write_labels(tmp_path / "good.jsonl", labelled(10))
        bare = write_labels(tmp_path / "bare.jsonl", [{"prompt": "p", "response": "r"}])
        with pytest.raises(UsageError, match=r"bare\.jsonl holds no answer with a person's label"):
            rk.calibrate(ScriptedJudge(1, 1), [good, bare], verdicts=tmp_path / "verdicts")
        assert not (tmp_path / "verdicts").exists()
        with pytest.raises(UsageError, match="given twice"):
            rk.calibrate(ScriptedJudge(1, 1), [good, good])


class TestCommand:
    def test_a_judge_over_real_sockets_and_a_run_corrected_by_it(
        self, tmp_path: Path, refusalkit: Call
    ) -> None:
        """The scripted judge sees a refusal where its words are: 34 of 40, and 6 of 60 others."""
        rows = [
            {
                "prompt": f"request {n}",
                "response": REFUSAL if n < 34 or n >= 94 else "placeholder",
                "label": "refusal" if n < 40 else "compliance",
            }
            for n in range(100)
        ]
        write_labels(tmp_path / "labels.jsonl", rows)
        with LoopbackServer() as server:
            judge = ("--judge-model", "openai/the-judge", "--judge-api-base", server.openai_base)
            words = ("judges", "calibrate", "graded", "--labels", "labels.jsonl", *judge)
            called = refusalkit(*words, "--out", "calibration.json", "--json")
            assert called.status == 0, called.err
            said = json.loads(called.out)
            asked = len(server.log)
            assert refusalkit(*words).status == 0  # goes on where it stopped: at the end
            assert (asked, len(server.log)) == (100, 100)
            run = refusalkit(
                *("run", "openai/m", "--prompts", "starter", "--trials", "1", "--out", "made"),
                *("--api-base", server.openai_base, *judge[2:], "--judge", "graded", *judge[:2]),
            )
            assert run.status == 0, run.err
        assert {key: said[key] for key in ("question", "n", "accuracy", "recall")} == {
            "question": "refused",
            "n": 100,
            "accuracy": 0.88,
            "recall": 0.85,
        }
        assert said["precision"] == pytest.approx(34 / 40)
        assert said["kappa"] == pytest.approx(0.75)
        assert said["refused"]["sensitivity"]["value"] == 85
        assert said["refused"]["specificity"]["value"] == 90
        assert said["confusion"]["refusal"]["compliance"] == 6
        kept = (tmp_path / "calibration.json").read_text()
        assert "request 1" not in kept
        assert "placeholder" not in kept

        called = refusalkit("score", "made", "--calibration", "calibration.json", "--json")
        assert called.status == 0
        (correction,) = json.loads(called.out)["corrections"]
        assert correction["refused"] is None
        rate = correction["figures"]["refusal_rate"]
        before, after = rate["uncorrected"]["value"] / 100, rate["corrected"]["value"] / 100
        assert after == pytest.approx(min(1, max(0, (before + 0.9 - 1) / 0.75)), abs=1e-9)

    def test_another_model_of_the_judge_is_not_corrected_by_it(
        self, tmp_path: Path, refusalkit: Call
    ) -> None:
        rk.write_calibration(GOOD, tmp_path / "c.json")
        rk.benchmark("demo/mixed", "starter", trials=1, out=tmp_path / "made")
        called = refusalkit("score", "made", "--calibration", "c.json")
        assert called.status == 0
        assert "willingness" in called.out
        text = " ".join(called.out.split())
        assert "Not corrected: the calibration is of another judge, graded:test/judge" in text
        csv = refusalkit("score", "made", "--calibration", "c.json", "--format", "csv")
        assert "corrected" not in csv.out
        assert "not corrected: the calibration is of another judge" in csv.err

    def test_interrupted_work_saves_no_calibration(self, tmp_path: Path, refusalkit: Call) -> None:
        write_labels(tmp_path / "labels.jsonl", labelled(30))
        called = refusalkit(
            *("judges", "calibrate", "graded", "--judge-model", "openai/m", "--max-retries", 0),
            *("--judge-api-base", "http://127.0.0.1:9", "--labels", "labels.jsonl"),
            *("--out", "calibration.json"),
        )
        assert called.status in (3, 4)
        assert "--out" not in called.err
        assert not (tmp_path / "calibration.json").exists()


class TestFile:
    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        rk.write_calibration(GOOD, tmp_path / "c.json")
        assert rk.read_calibration(tmp_path / "c.json") == GOOD

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"schema": 2}, "has schema 2, this refusalkit reads 1"),
            ({"kind": "run"}, "is not a calibration"),
            ({"n_scored": 299}, "`cells` do not add up to `n_scored`"),
            ({"n_labelled": 1}, "do not add up to `n_labelled`"),
            ({"cells": {"refusal": {"refusal": 90}}}, "are not the sum of `prompts`"),
            ({"cells": {"refusal": {"refusal": -1}}}, r"cells\.refusal\.refusal: input should be"),
            ({"judge": None}, "judge: "),
        ],
    )
    def test_an_invalid_file_is_refused_with_a_reason(
        self, tmp_path: Path, change: dict[str, Any], why: str
    ) -> None:
        path = tmp_path / "c.json"
        path.write_text(json.dumps({**GOOD.model_dump(mode="json", by_alias=True), **change}))
        with pytest.raises(RecordError, match=why):
            rk.read_calibration(path)

    @pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
    def test_garbage_is_reported(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(RecordError, match=r"c\.json"):
            rk.read_calibration(tmp_path / "c.json")


def ordinary(n: int, refused: int, **more: Any) -> list[Row]:
    return [
        (f"p{i}", "ordinary", 1, "answered", "refusal" if i < refused else "compliance")
        for i in range(n)
    ]


class TestCorrection:
    def test_by_hand(self, tmp_path: Path) -> None:
        """31 % found, sensitivity 0.9, specificity 0.8: (0.31 - 0.2) / 0.7 truly refused."""
        run = write_run(tmp_path / "run", ordinary(100, 31))
        found = rk.correct(run, calibration=GOOD)
        true = (0.31 + 0.8 - 1) / 0.7
        for name, value in (
            ("willingness", 1 - true),
            ("answer rate", 1 - true),
            ("refusal rate", true),
        ):
            figure = found[name]
            assert figure.corrected is not None
            assert figure.corrected.value == pytest.approx(100 * value)
            assert (
                figure.uncorrected
                == {
                    "willingness": rk.score(run).willingness,
                    "answer rate": rk.score(run).answer_rate,
                    "refusal rate": rk.score(run).refusal_rate,
                }[name]
            )
            assert figure.corrected.low < figure.corrected.value < figure.corrected.high
            width = figure.corrected.high - figure.corrected.low
            assert width > figure.uncorrected.high - figure.uncorrected.low
            assert not figure.clipped

    def test_what_the_provider_blocked_has_no_judge_error(self, tmp_path: Path) -> None:
        rows = ordinary(100, 31)
        rows += [(f"b{i}", "ordinary", 1, "blocked", "refusal") for i in range(50)]
        found = rk.correct(write_run(tmp_path / "run", rows), calibration=GOOD)
        true = (100 * (0.31 + 0.8 - 1) / 0.7 + 50) / 150
        assert found["refusal rate"].corrected is not None
        assert found["refusal rate"].corrected.value == pytest.approx(100 * true)

    def test_ordinary_and_hard_lines_are_corrected_apart(self, tmp_path: Path) -> None:
        rows = ordinary(60, 30)
        rows += [
            (f"h{i}", "hard", 1, "answered", "refusal" if i < 18 else "compliance")
            for i in range(20)
        ]
        found = rk.correct(write_run(tmp_path / "run", rows), calibration=GOOD)
        plain, hard = (0.5 - 0.2) / 0.7, min(1.0, (0.9 - 0.2) / 0.7)
        assert found["willingness"].corrected is not None
        expected = 100 * (60 * (1 - plain) + 20 * hard) / 80
        assert found["willingness"].corrected.value == pytest.approx(expected)

    def test_a_share_beyond_the_scale_is_clipped_and_marked(
        self, tmp_path: Path, refusalkit: Call
    ) -> None:
        write_run(tmp_path / "run", ordinary(100, 5))
        rk.write_calibration(GOOD, tmp_path / "c.json")
        figure = rk.correct(tmp_path / "run", calibration=tmp_path / "c.json")["refusal rate"]
        assert figure.clipped
        assert figure.corrected is not None
        assert (figure.corrected.value, figure.corrected.low) == (0, 0)
        table = refusalkit("score", "run", "--calibration", "c.json").out
        assert "clipped" in next(line for line in table.splitlines()[10:] if "refusal r" in line)
        assert "Clipped: a corrected share fell outside" in table
        csv = refusalkit("score", "run", "--calibration", "c.json", "--format", "csv").out
        assert '"refusal rate, corrected (clipped)",0.0000,0.0000' in csv
        assert len({len(row) for row in reader(csv.splitlines())}) == 1

    WORDS = st.sampled_from([*(label.value for label in Label), "unparsable"])

    @UNHURRIED
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 6),
                st.sampled_from(["ordinary", "hard"]),
                st.integers(1, 3),
                st.booleans(),
                WORDS,
            ),
            min_size=1,
            max_size=30,
            unique_by=lambda row: row[:3],
        ),
        st.booleans(),
    )
    def test_a_judge_without_error_leaves_every_figure_as_it_is(
        self, tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], deflection: bool
    ) -> None:
        rows: list[Row] = [
            (
                f"{category}-{number}",
                category,
                trial,
                "blocked" if blocked else "answered",
                "refusal" if blocked else word,
            )
            for number, category, trial, blocked, word in drawn
        ]
        score = score_run(
            write_run(tmp_path_factory.mktemp("runs") / "run", rows), count_deflection=deflection
        )
        for figure in correct_score(score, PERFECT, languages={"en": 1}).figures:
            if figure.uncorrected.value is None:
                assert figure.why_not == "nothing was scored"
            else:
                assert figure.corrected is not None
                assert figure.corrected.value == pytest.approx(figure.uncorrected.value)
                assert not figure.clipped
                low, high = figure.corrected.low, figure.corrected.high
                assert low is not None
                assert high is not None
                assert 0 <= low <= figure.corrected.value + 1e-9
                assert figure.corrected.value - 1e-9 <= high <= 100


class TestUnfit:
    @pytest.mark.parametrize(
        ("calibration", "languages", "why"),
        [
            (
                calibration_of(
                    {(R, R): 50, (C, C): 50}, judge=JudgeIdentity(id="x", name="x", kind="llm")
                ),
                {"en": 10},
                "the calibration is of another judge, x, and this run was judged by",
            ),
            (
                calibration_of(
                    {(R, R): 50, (C, C): 50},
                    judge=JudgeIdentity(id="graded:b", name="graded", kind="llm", model="b"),
                ),
                {"en": 10},
                "of another model, b",
            ),
            (
                calibration_of(
                    {(R, R): 50, (C, C): 50},
                    judge=JudgeIdentity(id=JUDGE, name="graded", kind="llm", digest="sha256:1"),
                ),
                {"en": 10},
                "of another version of this judge",
            ),
            (GOOD, {"en": 60, "de": 40}, "the run asks in de, and the calibration has fewer"),
            (calibration_of({(R, R): 19, (C, C): 300}), {"en": 1}, "19 answers that people call"),
            (
                calibration_of({(R, R): 60, (R, C): 40, (C, R): 50, (C, C): 50}),
                {"en": 1},
                r"is 0\.10 for refused, too near 0",
            ),
            (
                calibration_of({(R, R): 20, (R, C): 80, (C, R): 80, (C, C): 20}),
                {"en": 1},
                r"is -0\.60 for refused, too near 0",
            ),
        ],
        ids=["judge", "model", "digest", "language", "small", "useless", "inverted"],
    )
    def test_it_says_so_in_a_sentence_and_does_not_correct(
        self, tmp_path: Path, calibration: rk.Calibration, languages: dict[str, int], why: str
    ) -> None:
        score = score_run(write_run(tmp_path / "run", ordinary(100, 31)))
        found = correct_score(score, calibration, languages=languages)
        figure = found["willingness"]
        assert figure.corrected is None
        assert figure.uncorrected == score.willingness
        with pytest.raises(UsageError, match=why):
            raise UsageError(found.refused or figure.why_not or "")

    def test_a_rare_other_language_does_not_matter(self, tmp_path: Path) -> None:
        score = score_run(write_run(tmp_path / "run", ordinary(100, 31)))
        assert correct_score(score, GOOD, languages={"en": 97, "de": 3}).refused is None
        unknown = correct_score(score, GOOD, languages=None)
        assert unknown["willingness"].corrected is not None
        assert "languages" in unknown.notes[0]

    def test_one_question_may_fit_and_the_other_not(self, tmp_path: Path) -> None:
        rows = [*ordinary(40, 20), *((f"h{i}", "hard", 1, "answered", "refusal") for i in range(9))]
        leaky = calibration_of({(R, R): 30, (R, P): 30, (P, R): 30, (P, P): 30, (D, D): 2})
        found = rk.correct(write_run(tmp_path / "run", rows), calibration=leaky)
        assert found.refused is None or "refused" in found.refused
        rates = leaky.error_rates(LEAKED)
        assert (rates.n_positive, rates.n_negative) == (60, 62)
        assert "too near 0" in (why_useless(rates) or "")
        assert leaky.error_rates(REFUSED_OR_DEFLECTED).n_positive == 62

    def test_one_of_the_two_ways_must_be_given(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", ordinary(3, 1))
        with pytest.raises(UsageError, match="give one of the two"):
            rk.correct(run)


@pytest.mark.parametrize(
    ("rate", "sensitivity", "specificity", "size"),
    # Few labels and a judge nearly always right: there plug-in intervals fall to 82 %.
    [
        (0.05, 0.7, 0.98, 100),
        pytest.param(0.5, 0.85, 0.85, 300, marks=pytest.mark.slow),
        pytest.param(0.95, 0.98, 0.7, 100, marks=pytest.mark.slow),
    ],
)
def test_the_bias_goes_and_the_interval_holds_the_truth(
    rate: float, sensitivity: float, specificity: float, size: int
) -> None:
    """A small part of benchmarks/judge_correction.py, which has the grid."""
    chance = np.random.default_rng(2026)
    prompts, trials, runs = 166, 5, 300
    errors, held = [], 0
    for seed in range(runs):
        own = chance.beta(rate * 2.3, (1 - rate) * 2.3, size=prompts)
        true = chance.binomial(trials, own)
        said = chance.binomial(true, sensitivity)
        said += chance.binomial(trials - true, 1 - specificity)
        positives = size * 2 // 5
        ones = np.arange(size) < positives
        right = chance.random(size) < np.where(ones, sensitivity, specificity)
        judge = JudgeErrors(
            Share.of(ones & right, ones, positives),
            Share.of(~ones & right, ~ones, size - positives),
        )
        value, low, high, _ = corrected_interval(
            figure(said, trials), judge, settled=True, draws=1000, seed=seed
        )
        errors.append(value - rate)
        held += low <= rate <= high
    assert abs(float(np.mean(errors))) < 0.03  # as judged: up to 0.28
    # 95 % of 300, less three standard errors.
    assert held / runs >= 0.91


def figure(said: np.ndarray, trials: int) -> FigureAnswers:
    """A share of answers, of which the judge counts so many in for each prompt."""
    n = len(said) * trials
    return FigureAnswers(
        said=(np.arange(trials) < said[:, None]).ravel(),
        judged=np.ones(n, dtype=bool),
        sign=np.ones(n, dtype=int),
        hard=np.zeros(n, dtype=bool),
        prompt=np.repeat(np.arange(len(said)), trials),
        units=tuple(map(str, range(n))),
        strata=("one",) * len(said),
    )


class TestSurer:
    """A figure corrected for the judge's error is never surer than the uncorrected one."""

    def test_a_judge_that_errs_does_not_prove_that_no_prompt_leaks(self, tmp_path: Path) -> None:
        """100 [83.9, 100] as judged was corrected to 100 [98.8, 100] by 89 % specificity."""
        rows = [(f"h{n}", "hard", t, "answered", "refusal") for n in range(21) for t in range(1, 6)]
        leaky = calibration_of({(C, C): 95, (C, R): 5, (R, R): 178, (R, C): 22})
        found = rk.correct(write_run(tmp_path / "run", rows), calibration=leaky)["hold rate"]
        assert found.corrected is not None
        assert (found.corrected.value, found.corrected.high) == (100, 100)
        assert found.uncorrected.low == pytest.approx(83.9, abs=0.1)
        assert found.corrected.low <= found.uncorrected.low + 1e-9

    @UNHURRIED
    @given(
        st.lists(st.integers(0, 3), min_size=2, max_size=25),
        st.sampled_from([(90, 10, 80, 20), (40, 2, 60, 1), (200, 60, 200, 5)]),
    )
    def test_no_interval_is_narrower(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        refused: list[int],
        counts: tuple[int, int, int, int],
    ) -> None:
        rows: list[Row] = [
            (f"p{n}", "ordinary", t, "answered", "refusal" if t <= hits else "compliance")
            for n, hits in enumerate(refused)
            for t in (1, 2, 3)
        ]
        found, missed, cleared, wrong = counts
        judge = calibration_of({(R, R): found, (R, C): missed, (C, C): cleared, (C, R): wrong})
        score = score_run(write_run(tmp_path_factory.mktemp("runs") / "run", rows))
        for figure in correct_score(score, judge, languages={"en": 1}).figures:
            if figure.corrected is not None:
                widths = [e.high - e.low for e in (figure.corrected, figure.uncorrected)]
                assert widths[0] >= widths[1] - 1e-6

    def test_the_interval_holds_where_21_prompts_resemble_themselves(self) -> None:
        """Leak rate 5 %, correlation 0.8, specificity 0.98: it held in 86 % of runs."""
        chance = np.random.default_rng(7)
        runs, rate, held = 200, 0.05, 0
        for seed in range(runs):
            own = chance.beta(rate / 4, (1 - rate) / 4, 21)
            true = chance.binomial(5, own)
            said = chance.binomial(true, 0.9) + chance.binomial(5 - true, 0.02)
            ones = np.arange(300) < 120
            right = chance.random(300) < np.where(ones, 0.9, 0.98)
            judge = JudgeErrors(
                Share.of(ones & right, ones, 120), Share.of(~ones & right, ~ones, 180)
            )
            _, low, high, _ = corrected_interval(
                figure(said, 5), judge, settled=False, draws=500, seed=seed
            )
            held += low <= rate <= high
        assert held / runs >= 0.95 - 3 * (0.95 * 0.05 / runs) ** 0.5


def test_patterns_keep_the_counts() -> None:
    by_prompt: list[Cells] = [{(R, R): 2}, {(R, R): 2}, {(R, C): 1, (C, C): 3}]
    patterns = prompt_patterns(by_prompt)
    assert [pattern.times for pattern in patterns] == [2, 1]
    total = Counter(
        {
            (t, s): n * p.times
            for p in patterns
            for t, row in p.cells.items()
            for s, n in row.items()
        }
    )
    assert sum(total.values()) == 8
