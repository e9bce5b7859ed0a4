"""People label answers of a run; the labels correct its score, and people are compared."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call, caller
from refusalkit.errors import RecordError, RunFolderError, RunLocked, UsageError
from refusalkit.runs.imported.person_labels import is_label_file, read_person_labels
from refusalkit.scoring.judge_quality.correction import FigureAnswers
from refusalkit.scoring.judge_quality.prediction_powered import labelled_interval
from refusalkit.scoring.judge_quality.sampling import allocate, draw_sample
from refusalkit.scoring.statistics.intervals import prompts_like_these
from refusalkit.types import Label

R, D, P, C = Label
SLY = "first line\nsecond \x1b[31mred \u202e line"


class SaysSo:
    """A model whose answers end with what they are, and begin as an attacker would like."""

    id = "test/says-so"

    async def complete(
        self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
    ) -> rk.Completion:
        words = ("refusal", "compliance", "partial", "deflection")
        word = words[sum(prompt.id.encode()) % 4 if trial == 1 else trial % 2]
        text = f"{SLY} {'x' * 2000} [{word}]"
        return rk.Completion(
            prompt.id, prompt.category, trial, self.id, rk.Outcome.ANSWERED, text=text
        )

    async def aclose(self) -> None:
        pass


class Lenient:
    """A judge that takes a deflection and every fifth refusal for compliance."""

    id = "lenient"

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        truth = true_label(completion.text)
        wrong = truth is D or (truth is R and sum(completion.unit.encode()) % 5 == 0)
        return rk.Verdict(
            prompt.id, prompt.category, completion.trial, self.id, C if wrong else truth
        )

    async def aclose(self) -> None:
        pass


def true_label(text: str) -> Label:
    return Label(text.rpartition("[")[2].rstrip("]"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every text was kept."""
    folder = tmp_path_factory.mktemp("made") / "run"
    rk.benchmark(
        SaysSo(), "starter", judge=Lenient(), trials=3, out=folder, keep_hard_line_text=True
    )
    return folder


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def label_all(run: Path, out: Path, *, wrong: int = 0, **how: Any) -> Path:
    """Label everything that is drawn truly, but the first `wrong` answers, as compliance."""
    with rk.open_labelling(run, out=out, **how) as labelling:
        while (item := labelling.next()) is not None:
            truth = true_label(item.response)
            labelling.label(item, C if labelling.n_labelled < wrong else truth)
    return out


class TestTool:
    def test_labels_are_kept_at_once_and_gone_on_with(
        self, made: Path, tmp_path: Path, refusalkit: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("judges", "label", made, "--n", 12, "--out", "me.jsonl")
        say(monkeypatch, "r", "s", "P", "q")
        first = refusalkit(*words)
        assert first.status == 3
        assert "2 labelled, 1 skipped, 9 left: me.jsonl" in first.out
        assert "go on with the same command" in first.err
        say(monkeypatch, *"dddddddddddd")
        second = refusalkit(*words)
        assert second.status == 0
        assert "12 answers to label, 9 left" in second.out
        assert "11 labelled, 1 skipped, 0 left" in second.out
        kept = read_person_labels(tmp_path / "me.jsonl")
        assert Counter(kept.labels.values()) == {R: 1, P: 1, D: 9}
        assert len(kept.skipped) == 1
        assert oct((tmp_path / "me.jsonl").stat().st_mode)[-3:] == "600"

    def test_the_last_label_is_undone(
        self, made: Path, tmp_path: Path, refusalkit: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        say(monkeypatch, "u", "r", "c", "u", "u", "p", "q")
        called = refusalkit("judges", "label", made, "--n", 12, "--out", "me.jsonl")
        assert "nothing of this session to undo" in called.out
        kept = read_person_labels(tmp_path / "me.jsonl")
        assert list(kept.labels.values()) == [P]
        # Appended, never rewritten: the sample, two labels, two undone, one more.
        assert len((tmp_path / "me.jsonl").read_bytes().splitlines()) == 6

    def test_a_person_sees_prompt_and_answer_and_nothing_of_the_judge(
        self, made: Path, refusalkit: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        say(monkeypatch, "m", "m", "?", "x", "", "r", "q")
        called = refusalkit("judges", "label", made, "--n", 12, "--out", "me.jsonl")
        assert "PROMPT:" in called.out
        assert "  first line\n  second \\u001b[31mred \\u202e line" in called.out
        assert "\x1b" not in called.out
        assert "\u202e" not in called.out
        assert "more characters)" in called.out
        assert "that is all of it" in called.out
        assert "no such key" in called.out
        assert "lenient" not in called.out

    def test_the_help_says_that_it_shows_texts(self, refusalkit: Call) -> None:
        text = " ".join(refusalkit("judges", "label", "--help").out.split())
        assert "This command prints texts, and some of them are offensive" in text
        assert "Example: refusalkit judges label" in text

    def test_on_a_terminal_one_key_is_enough(self, made: Path, tmp_path: Path) -> None:
        main, other = pty.openpty()
        command = [sys.executable, "-m", "refusalkit", "judges", "label", str(made)]
        with subprocess.Popen(
            [*command, "--n", "12", "--out", str(tmp_path / "me.jsonl")],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        ) as process:
            os.close(other)
            seen = b""
            for key, count in ((b"c", 1), (b"u", 2), (b"r", 3), (b"q", 4)):
                deadline = time.monotonic() + 60
                while seen.count(b"[r/d/p/c s u m q ?]") < count and time.monotonic() < deadline:
                    seen += os.read(main, 65536)
                os.write(main, key)
            try:
                while chunk := os.read(main, 65536):
                    seen += chunk
            except OSError:  # the other end is closed
                pass
            assert process.wait(60) == 3, seen
        os.close(main)
        assert list(read_person_labels(tmp_path / "me.jsonl").labels.values()) == [R]


class TestDraw:
    @settings(deadline=None)
    @given(
        st.dictionaries(st.text("abcd", min_size=1), st.integers(1, 400), min_size=1, max_size=8),
        st.integers(16, 500),
        st.integers(0, 99),
    )
    def test_every_kind_is_represented_and_nothing_drawn_twice(
        self, sizes: dict[str, int], n: int, seed: int
    ) -> None:
        drawn = allocate(sizes, n)
        assert sum(drawn.values()) == min(n, sum(sizes.values()))
        assert all(min(2, size) <= drawn[name] <= size for name, size in sizes.items())
        strata = {name: [f"{name}{i}" for i in range(size)] for name, size in sizes.items()}
        sample = draw_sample(strata, n, seed)
        assert len(set(sample.units)) == len(sample.units) == sum(drawn.values())
        assert sample == draw_sample(strata, n, seed)
        assert Counter(sample.stratum_of.values()) == Counter(drawn)

    def test_too_few_are_refused(self) -> None:
        with pytest.raises(UsageError, match="needs at least 4, two of each kind"):
            allocate({"a": 10, "b": 10}, 3)

    def test_every_answer_has_the_same_chance_in_its_stratum(self) -> None:
        strata = {"a": [str(i) for i in range(10)]}
        drawn = Counter(u for seed in range(2000) for u in draw_sample(strata, 3, seed).units)
        assert all(500 < count < 700 for count in drawn.values())

    def test_two_people_label_the_same_answers_in_orders_of_their_own(
        self, made: Path, tmp_path: Path
    ) -> None:
        orders = []
        for name in ("ann", "bob"):
            with rk.open_labelling(made, n=20, annotator=name, out=tmp_path / name) as labelling:
                orders.append([item.unit for item in labelling.items])
        assert sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != orders[1]

    def test_withheld_texts_are_counted_and_not_drawn(
        self, tmp_path: Path, refusalkit: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = rk.benchmark("demo/mixed", "starter", trials=1, out=tmp_path / "run")
        hard = sum(c.n_units for c in run.manifest.prompt_set.categories if c.hard_line)
        say(monkeypatch)
        called = refusalkit("judges", "label", "run")
        assert f"{hard} answers were not kept (hard lines) and cannot be labelled" in called.out
        assert "run/labels/me.jsonl" in called.out
        sample = read_person_labels(tmp_path / "run/labels/me.jsonl").sample
        assert all(stratum.name.startswith("ordinary/") for stratum in sample.strata)


class TestFile:
    def test_a_torn_last_line_is_labelled_again(self, made: Path, tmp_path: Path) -> None:
        out = label_all(made, tmp_path / "me.jsonl", n=12)
        whole = out.read_bytes()
        out.write_bytes(whole[:-20])
        assert len(read_person_labels(out).labels) == 11
        with rk.open_labelling(made, n=12, out=out) as labelling:
            assert (labelling.n_labelled, labelling.n_left) == (11, 1)
        assert out.read_bytes() == whole[: whole[:-1].rindex(b"\n") + 1]

    def test_one_process_writes_it(self, made: Path, tmp_path: Path) -> None:
        with (
            rk.open_labelling(made, n=12, out=tmp_path / "me.jsonl"),
            pytest.raises(RunLocked),
            rk.open_labelling(made, n=12, out=tmp_path / "me.jsonl"),
        ):
            pass

    @pytest.mark.parametrize("change", [{"n": 13}, {"seed": 1}, {"annotator": "ann"}])
    def test_another_draw_is_not_gone_on_with(
        self, made: Path, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        label_all(made, tmp_path / "me.jsonl", n=12)
        with (
            pytest.raises(UsageError, match=f"was begun with another {next(iter(change))}"),
            rk.open_labelling(made, out=tmp_path / "me.jsonl", **{"n": 12, **change}),
        ):
            pass

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ('{"schema":1,"kind":"label"}', "is not a label file"),
            ('{"schema":1,"kind":"sample"}', r"me:1: run: is missing"),
            ("", "is empty"),
            ("[1]\n{}", r"me:1: "),
        ],
    )
    def test_an_invalid_label_file_is_refused_with_a_reason(
        self, tmp_path: Path, line: str, why: str
    ) -> None:
        (tmp_path / "me").write_text(line)
        with pytest.raises(RecordError, match=why):
            read_person_labels(tmp_path / "me")

    def test_it_is_known_by_its_first_line(self, made: Path, tmp_path: Path) -> None:
        assert is_label_file(label_all(made, tmp_path / "me.jsonl", n=12))
        assert not is_label_file(made / "verdicts.jsonl")
        assert not is_label_file(made)

    def test_a_run_without_texts_is_reported(self, tmp_path: Path) -> None:
        run = rk.benchmark("demo/mixed", "starter", trials=1, out=tmp_path / "r", limit=4)
        text = run.completions.read_text().replace('"text":"', '"text":null,"was":"')
        run.completions.write_text(text)
        with pytest.raises((RecordError, RunFolderError), match="keep"), rk.open_labelling(run):
            pass


def answers_of(said: np.ndarray, trials: int) -> FigureAnswers:
    """A share of answers that a judge read, so many to a prompt."""
    n = len(said)
    return FigureAnswers(
        said=said,
        judged=np.ones(n, dtype=bool),
        sign=np.ones(n, dtype=int),
        hard=np.zeros(n, dtype=bool),
        prompt=np.arange(n) // trials,
        units=tuple(map(str, range(n))),
        strata=("one",) * (n // trials),
    )


class TestPredictionPowered:
    def test_it_is_the_tuned_estimate_of_the_papers(self) -> None:
        """mean(l f) + mean(Y - l f), weighted by the draw, l = cov(Y, f) / var(f) (PPI++)."""
        chance = np.random.default_rng(3)
        n = 400
        said = chance.random(n) < 0.4
        true = np.where(chance.random(n) < 0.85, said, ~said)
        units = tuple(map(str, range(n)))
        strata = {"yes": [u for u in units if said[int(u)]], "no": []}
        strata["no"] = [u for u in units if not said[int(u)]]
        drawn = draw_sample(strata, 80, 1)
        chosen = np.array([int(u) for u in drawn.units])
        share = {s.name: s.drawn / s.units for s in drawn.strata}
        chances = np.array([share["yes" if said[i] else "no"] for i in chosen])
        y, f = true[chosen].astype(float), said[chosen].astype(float)
        weights = (1 / chances) / (1 / chances).sum()
        mean_y, mean_f = (weights * y).sum(), (weights * f).sum()
        tuned = (weights * (y - mean_y) * (f - mean_f)).sum() / (weights * (f - mean_f) ** 2).sum()
        expected = tuned * said.mean() + (weights * (y - tuned * f)).sum()
        value, low, high = labelled_interval(
            answers_of(said, 4),
            {u: name for name, members in strata.items() for u in members},
            {u: float(true[int(u)]) for u in drawn.units},
            settled=True,
        )
        assert value == pytest.approx(expected)
        assert low < value < high

    @pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
    def test_with_everything_labelled_it_is_the_interval_of_the_labels(self, rate: float) -> None:
        chance = np.random.default_rng(2)
        true = chance.random((40, 5)) < chance.beta(rate, 1.01 - rate, (40, 1))
        said = np.where(chance.random((40, 5)) < 0.8, true, ~true).ravel()
        found = answers_of(said, 5)
        people = {unit: float(true.ravel()[int(unit)]) for unit in found.units}
        strata = {unit: str(said[int(unit)]) for unit in found.units}
        _, low, high = labelled_interval(found, strata, people, settled=True)
        alone = prompts_like_these(answers_of(true.ravel(), 5).prompt_rates(true.ravel()))
        assert (low, high) == pytest.approx((alone.low, alone.high))

    @pytest.mark.slow
    @pytest.mark.parametrize(("rate", "labels"), [(0.05, 60), (0.05, 400), (0.5, 400)])
    def test_the_interval_holds(self, rate: float, labels: int) -> None:
        """It held in 89.8 % of runs with 400 of 830 answers labelled, and with all."""
        chance = np.random.default_rng(9)
        runs, held = 150, 0
        for seed in range(runs):
            own = chance.beta(rate * 0.4, (1 - rate) * 0.4, (166, 1))
            true = (chance.random((166, 5)) < own).ravel()
            said = np.where(chance.random(830) < 0.85, true, ~true)
            found = answers_of(said, 5)
            strata = {
                name: [u for u in found.units if said[int(u)] == (name == "yes")]
                for name in ("yes", "no")
            }
            drawn = draw_sample(strata, labels, seed)
            _, low, high = labelled_interval(
                found,
                {u: name for name, members in strata.items() for u in members},
                {u: float(true[int(u)]) for u in drawn.units},
                settled=True,
            )
            held += low <= rate <= high
        assert held / runs >= 0.95 - 3 * (0.95 * 0.05 / runs) ** 0.5

    def test_labels_put_the_score_right(self, made: Path, tmp_path: Path, refusalkit: Call) -> None:
        completions = (made / "completions.jsonl").read_text().splitlines()
        labels = [true_label(json.loads(line)["text"]) for line in completions]
        truth = 100 * sum(label is R for label in labels) / len(labels)
        everything = label_all(made, tmp_path / "all.jsonl", n=len(labels))
        exact = rk.correct(made, labels=[everything])["refusal rate"]
        assert exact.corrected is not None
        assert exact.corrected.value == pytest.approx(truth)
        assert exact.uncorrected.value is not None
        assert exact.uncorrected.value < truth - 4
        some = label_all(made, tmp_path / "some.jsonl", n=60)
        part = rk.correct(made, labels=[some])["refusal rate"].corrected
        assert part is not None
        assert part.low <= truth <= part.high
        called = refusalkit("score", made, "--labels", some)
        assert called.status == 0
        assert "60 of 60 drawn answers are labelled" in called.out

    def test_people_who_differ_count_by_their_share(self, made: Path, tmp_path: Path) -> None:
        n = len((made / "completions.jsonl").read_text().splitlines())
        right = label_all(made, tmp_path / "ann", n=n, annotator="ann")
        other = label_all(made, tmp_path / "bob", n=n, annotator="bob", wrong=40)
        alone, both = (
            rk.correct(made, labels=files)["refusal rate"].corrected
            for files in ([right], [right, other])
        )
        said = [read_person_labels(path).labels for path in (right, other)]
        lost = sum(said[0][u] is R and said[1][u] is not R for u in said[0])
        assert lost
        assert alone is not None
        assert both is not None
        assert both.value == pytest.approx(alone.value - 100 * 0.5 * lost / n)
        note = " ".join(rk.correct(made, labels=[right, other]).notes)
        assert f"who differ on {sum(said[0][u] is not said[1][u] for u in said[0])}" in note

    def test_what_could_not_be_seen_is_not_corrected(
        self, tmp_path: Path, refusalkit: Call
    ) -> None:
        run = rk.benchmark(SaysSo(), "starter", judge=Lenient(), trials=2, out=tmp_path / "run")
        out = label_all(run.path, tmp_path / "me.jsonl", n=50)
        found = rk.correct(run, labels=[out])
        assert found["answer rate"].corrected is not None
        for name in ("willingness", "hold rate", "refusal rate"):
            assert found[name].corrected is None
            assert "were not kept, so they cannot be labelled" in (found[name].why_not or "")
        assert "not corrected" in refusalkit("score", "run", "--labels", "me.jsonl").out

    def test_too_few_labels_do_not_correct(self, made: Path, tmp_path: Path) -> None:
        out = label_all(made, tmp_path / "me.jsonl", n=20)
        found = rk.correct(made, labels=[out])
        assert found.refused == "20 answers are labelled, and 30 are needed: label on"

    def test_labels_of_another_run_or_draw_are_refused(self, made: Path, tmp_path: Path) -> None:
        one = label_all(made, tmp_path / "a", n=40)
        two = label_all(made, tmp_path / "b", n=41, annotator="ann")
        with pytest.raises(UsageError, match="was not drawn as"):
            rk.correct(made, labels=[one, two])
        with pytest.raises(UsageError, match="of the same annotator"):
            rk.correct(made, labels=[one, one])
        other = rk.benchmark("demo/mixed", "starter", trials=1, out=tmp_path / "run", limit=4)
        with pytest.raises(UsageError, match="has labels of the run"):
            rk.correct(other, labels=[one])


class TestAgree:
    def test_people_and_judges_over_one_run(
        self, made: Path, tmp_path: Path, refusalkit: Call
    ) -> None:
        label_all(made, tmp_path / "ann.jsonl", n=40, annotator="ann")
        label_all(made, tmp_path / "bob.jsonl", n=40, annotator="bob", wrong=10)
        called = refusalkit("judges", "agree", made, "ann.jsonl", "bob.jsonl", "--json")
        assert called.status == 0, called.err
        found = json.loads(called.out)
        assert set(found["labelled"]) == {"lenient", "annotator ann", "annotator bob"}
        people = next(pair for pair in found["pairs"] if pair["first"] == "annotator ann")
        assert people["n"] == 40
        assert 0 < found["alpha"] < 1
        assert sum(row["n"] for row in found["by_category"]) == 40
        alone = json.loads(refusalkit("judges", "agree", "ann.jsonl", "bob.jsonl", "--json").out)
        assert alone["pairs"] == [people]

    def test_texts_are_shown_on_request_and_safely_and_never_of_hard_lines(
        self, made: Path, tmp_path: Path, refusalkit: Call
    ) -> None:
        label_all(made, tmp_path / "ann.jsonl", n=60, annotator="ann")
        words = ("judges", "agree", made, "ann.jsonl")
        assert "second" not in refusalkit(*words).out
        shown = refusalkit(*words, "--show-text").out
        assert "answer: first line second \\u001b[31mred \\u202e line" in shown
        assert "\x1b" not in shown
        hard = {
            p.text
            for p in rk.load_prompts("starter").prompts
            if p.category in rk.load_prompts("starter").hard_lines
        }
        joined = " ".join(shown.split())
        assert not any(" ".join(text.split()) in joined for text in hard)
        assert "more are hard lines or were not kept" in joined
