"""Agreement with people's labels, against tables worked out by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusalkit.scoring.agreement.coefficients import (
    SPLITS,
    agreement,
    krippendorff_alpha,
)
from refusalkit.scoring.judge_quality.grades import grade_run
from refusalkit.types import Label, Unscored
from run_folders import Row, write_run

REFUSAL, DEFLECTION, PARTIAL, COMPLIANCE = Label
ANY, ONLY = SPLITS  # any holding back against compliance; refusal against the rest

# Machines that run tests are busy.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Pairs = list[tuple[Label, Label]]
PAIRS = st.lists(st.tuples(st.sampled_from(Label), st.sampled_from(Label)), max_size=60)


def table(both: int, missed: int, invented: int, neither: int) -> Pairs:
    """Pairs (people's label, judge's label) that fill a table of two by two."""
    return [
        *[(REFUSAL, REFUSAL)] * both,
        *[(REFUSAL, COMPLIANCE)] * missed,
        *[(COMPLIANCE, REFUSAL)] * invented,
        *[(COMPLIANCE, COMPLIANCE)] * neither,
    ]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("cells", "accuracy", "precision", "recall", "kappa"),
    [
        # Chance agreement of 20, 5, 10, 15 is 0.5 x 0.6 + 0.5 x 0.4 = 0.5.
        ((20, 5, 10, 15), 0.70, 20 / 30, 20 / 25, 0.4),
        ((45, 15, 25, 15), 0.60, 45 / 70, 45 / 60, 3 / 23),
        ((25, 35, 5, 35), 0.60, 25 / 30, 25 / 60, 7 / 27),
        ((10, 0, 0, 10), 1, 1, 1, 1),
        ((0, 10, 10, 0), 0, 0, 0, -1),
        ((5, 5, 5, 5), 0.5, 0.5, 0.5, 0),
        # The judge calls everything a refusal: right half of the time, and worth nothing.
        ((10, 0, 10, 0), 0.5, 0.5, 1, 0),
    ],
)
def test_figures(
    split: str,
    cells: tuple[int, int, int, int],
    accuracy: float,
    precision: float,
    recall: float,
    kappa: float,
) -> None:
    found = agreement(table(*cells), split)
    assert (found.split, found.n) == (split, sum(cells))
    assert found.accuracy == pytest.approx(accuracy)
    assert found.precision == pytest.approx(precision)
    assert found.recall == pytest.approx(recall)
    assert found.kappa == pytest.approx(kappa)


class TestUndefined:
    """What cannot be said is None, never 0 or 1."""

    def test_without_pairs_everything_is(self) -> None:
        found = agreement([], ANY)
        assert (found.n, found.accuracy, found.precision, found.recall, found.kappa) == (
            (0,) + (None,) * 4
        )

    def test_precision_where_the_judge_found_nothing(self) -> None:
        found = agreement(table(0, 3, 0, 7), ANY)
        assert (found.precision, found.recall) == (None, 0)

    def test_recall_where_there_was_nothing_to_find(self) -> None:
        found = agreement(table(0, 0, 3, 7), ANY)
        assert (found.precision, found.recall) == (0, None)

    @pytest.mark.parametrize("cells", [(9, 0, 0, 0), (0, 0, 0, 9)])
    def test_kappa_where_all_agree_on_one_class(self, cells: tuple[int, int, int, int]) -> None:
        found = agreement(table(*cells), ANY)
        assert (found.accuracy, found.kappa) == (1, None)


@pytest.mark.parametrize(
    ("split", "positive"), [(ANY, {REFUSAL, DEFLECTION, PARTIAL}), (ONLY, {REFUSAL})]
)
def test_a_split_says_which_labels_count(split: str, positive: set[Label]) -> None:
    for truth in Label:
        for said in Label:
            agrees = (truth in positive) == (said in positive)
            assert agreement([(truth, said)], split).accuracy == agrees


@UNHURRIED
@given(PAIRS, st.sampled_from(sorted(SPLITS)))
def test_kappa_by_another_formula(pairs: Pairs, split: str) -> None:
    found = agreement(pairs, split)
    a = sum(t in SPLITS[split] and s in SPLITS[split] for t, s in pairs)
    b = sum(t in SPLITS[split] and s not in SPLITS[split] for t, s in pairs)
    c = sum(t not in SPLITS[split] and s in SPLITS[split] for t, s in pairs)
    d = len(pairs) - a - b - c
    divisor = (a + b) * (b + d) + (a + c) * (c + d)
    if divisor == 0:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(2 * (a * d - b * c) / divisor)
    # It does not matter who is called the truth, but for precision and recall, which change places.
    other = agreement([(said, truth) for truth, said in pairs], split)
    assert (other.accuracy, other.precision, other.recall) == (
        found.accuracy,
        found.recall,
        found.precision,
    )
    assert other.kappa == (found.kappa and pytest.approx(found.kappa))


def by_judge(*rows: str) -> dict[str, dict[str, str]]:
    """A reliability matrix: a row for each judge, a character for each unit, "." where missing."""
    return {
        f"judge {n}": {str(unit): label for unit, label in enumerate(row) if label != "."}
        for n, row in enumerate(rows)
    }


class TestKrippendorffAlpha:
    @pytest.mark.parametrize(
        ("rows", "alpha"),
        [
            # The nominal examples of Krippendorff (2011), sections A to C.
            (("0100000010", "1110010000"), 0.095),
            (("aabbdcccedda", "babbbccceddd"), 0.692),
            (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
        ],
        ids=["two judges, two labels", "two judges, five labels", "four judges, labels missing"],
    )
    def test_published_examples(self, rows: tuple[str, ...], alpha: float) -> None:
        assert krippendorff_alpha(by_judge(*rows)) == pytest.approx(alpha, abs=0.0005)

    def test_by_hand(self) -> None:
        # One difference in ten: 2 of 20 values in unequal pairs; by chance 2 x 11 x 9 / (20 x 19).
        found = krippendorff_alpha(by_judge("RRRRRRCCCC", "CRRRRRCCCC"))
        assert found == pytest.approx(1 - (2 / 20) / (2 * 11 * 9 / (20 * 19)))

    @pytest.mark.parametrize("rows", [(), ("RC",), ("R.", ".C"), ("RR", "RR"), ("R.C", "R..")])
    def test_undefined_without_two_labels_on_shared_units(self, rows: tuple[str, ...]) -> None:
        assert krippendorff_alpha(by_judge(*rows)) is None

    @UNHURRIED
    @given(st.lists(st.text("abc.", min_size=8, max_size=8), min_size=2, max_size=5))
    def test_its_definition(self, rows: list[str]) -> None:
        """1 - D_o / D_e, each a mean over pairs of values, pair by pair."""
        units = [[label for label in column if label != "."] for column in zip(*rows, strict=True)]
        units = [labels for labels in units if len(labels) > 1]
        values = [label for labels in units for label in labels]
        if len(set(values)) < 2:
            assert krippendorff_alpha(by_judge(*rows)) is None
            return
        observed = sum(
            (first != second) / (len(labels) - 1)
            for labels in units
            for first, second in itertools.permutations(labels, 2)
        ) / len(values)
        by_chance = [first != second for first, second in itertools.permutations(values, 2)]
        expected = sum(by_chance) / len(by_chance)
        assert krippendorff_alpha(by_judge(*rows)) == pytest.approx(1 - observed / expected)


class TestGrades:
    ROWS: tuple[Row, ...] = (
        ("a", "one", 1, "answered", "refusal"),
        ("b", "one", 1, "answered", "partial"),
        ("c", "one", 1, "answered", "compliance"),
        ("d", "one", 1, "empty", "empty"),
        ("e", "one", 1, "answered", "judge_error"),
        ("f", "one", 1, "answered", None),
    )

    def test_counts_and_agreements(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", self.ROWS, kind="grade")
        labels = dict.fromkeys(("a#1", "b#1", "c#1", "d#1"), REFUSAL)
        grades = grade_run(run, labels, kept=True)
        assert (grades.n_records, grades.n_labelled, grades.run) == (6, 4, run)
        assert grades.labels == {REFUSAL: 1, DEFLECTION: 0, PARTIAL: 1, COMPLIANCE: 1}
        assert grades.unscored == {"empty": 1, "judge_error": 1, "owed": 1}
        # The judge's failure and the verdict that was never given are still to be had.
        assert grades.n_owed == 2
        # Agreement is over records that have both labels: `d` has no verdict to compare.
        assert [(a.split, a.n, a.accuracy) for a in grades.agreements] == [
            (ANY, 3, pytest.approx(2 / 3)),
            (ONLY, 3, pytest.approx(1 / 3)),
        ]

    def test_answers_that_never_came_are_owed(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", self.ROWS[:1], prompts={"a": "one", "b": "one"})
        assert grade_run(run, {}, kept=True).n_owed == 1

    def test_without_peoples_labels_there_is_no_agreement(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", self.ROWS, kind="grade")
        grades = grade_run(run, {}, kept=False)
        assert (grades.agreements, grades.run) == ((), None)
        assert sum(grades.unscored.values()) + sum(grades.labels.values()) == grades.n_records
        assert set(grades.unscored) <= set(Unscored)
