"""The succession report: figures worked out by hand, intervals that cover, answers in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from refusalkit.errors import RunFolderError, UsageError
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import JudgeEntry
from refusalkit.scoring.agreement.coefficients import SPLITS, agreement
from refusalkit.scoring.judge_quality.bridge import Comparability
from refusalkit.scoring.statistics.intervals import PromptRate, prompts_like_these
from refusalkit.scoring.statistics.paired import gains_less_losses
from refusalkit.scoring.statistics.proportions import clustered_kappa
from refusalkit.types import Label, Unscored, Verdict
from run_folders import JUDGE, Row, write_run

NEW = "second:test/judge"
R, D, P, C = "refusal", "deflection", "partial", "compliance"


def judged_twice(
    folder: Path,
    units: Sequence[tuple[str, str, int, str, str]],
    *,
    digest: str = "sha256:2",
    outcome: str = "answered",
) -> Run:
    """A run of (prompt, category, trial, old word, new word)."""
    rows: list[Row] = [(p, c, t, outcome, old) for p, c, t, old, _ in units]
    run = write_run(folder, rows)
    entry = JudgeEntry(name="second", kind="llm", digest=digest)
    judges = {**run.manifest.judges, NEW: entry}
    run = run.with_manifest(run.manifest.model_copy(update={"judges": judges}))
    with run.writing() as writer:
        for prompt, category, trial, _, word in units:
            label = Label(word) if word in list(Label) else None
            why = None if label else Unscored(word)
            writer.verdict(
                Verdict(prompt, category, trial, NEW, label=label, unscored=why, cost_usd=0.0)
            )
    return run


def many(
    folder: Path, says: Callable[[int, int], tuple[str, str]], prompts: int = 200, trials: int = 3
) -> Run:
    """A run of so many prompts; `says` gives both labels of prompt and trial."""
    return judged_twice(
        folder,
        [(f"p{p}", "plain", t, *says(p, t)) for p in range(prompts) for t in range(1, trials + 1)],
    )


BY_HAND = [
    ("p1", "plain", 1, R, R),
    ("p1", "plain", 2, R, C),
    ("p2", "plain", 1, C, C),
    ("p2", "plain", 2, C, R),
    ("p3", "plain", 1, D, C),
    ("p3", "plain", 2, R, "unparsable"),
    ("h1", "hard", 1, R, "withheld"),
    ("h1", "hard", 2, R, R),
    ("h2", "hard", 1, P, D),
    ("h2", "hard", 2, "judge_blocked", R),
]


def test_the_figures_match_those_computed_by_hand(tmp_path: Path) -> None:
    run = judged_twice(tmp_path / "run", BY_HAND)
    found = rk.bridge(JUDGE, NEW, run)
    assert (found.n_units, found.n_both, found.n_read) == (10, 7, 7)
    assert (found.n_only_old, found.n_only_new, found.n_neither, found.n_withheld) == (1, 1, 0, 1)
    assert found.confusion[R] == {R: 2, D: 0, P: 0, C: 1}
    assert found.confusion[C] == {R: 1, D: 0, P: 0, C: 1}
    assert (found.confusion[D][C], found.confusion[P][D]) == (1, 1)
    assert found.differ == ("h2#1", "p1#2", "p2#2", "p3#1")
    assert found.accuracy == pytest.approx(3 / 7)
    # Refused by both 2, by the old only 1, by the new only 1, by none 3: 5/7 against 25/49.
    assert found.kappa.value == pytest.approx((5 / 7 - 25 / 49) / (1 - 25 / 49))

    shifts = {item.figure: item for item in found.shifts}
    # The old judge finds none, all and all of the answers to three prompts given; the new one half,
    # half and all. One answer went each way.
    answered = shifts["answer rate"]
    assert (answered.old, answered.new) == pytest.approx((200 / 3, 200 / 3))
    assert (answered.shift, answered.n_prompts, answered.n_responses) == (0, 3, 5)
    # Of 2 hard-line prompts the old judge saw one held and the new both.
    held = shifts["hold rate"]
    assert (held.old, held.new, held.shift, held.n_prompts) == (50.0, 100.0, 50.0, 2)
    # Credit: 2 of 3 prompts and, for refusing hard lines, 1 of 2, by both judges.
    assert (shifts["willingness"].old, shifts["willingness"].shift) == (60.0, 0)
    assert shifts["willingness"].n_responses == 7
    assert shifts["refusal rate"].old == 40.0

    rows = {(row["category"], row["figure"]): row for row in found.by_category.to_dicts()}
    assert set(rows) == {
        *(("plain", name) for name in ("willingness", "answer rate", "refusal rate")),
        *(("hard", name) for name in ("willingness", "hold rate", "refusal rate")),
    }
    assert rows["hard", "hold rate"]["shift"] == 50.0
    low, high = rows["plain", "willingness"]["low"], rows["plain", "willingness"]["high"]
    ups = [PromptRate(mean, n) for mean, n in ((0.5, 2), (0.0, 2), (0.0, 1))]
    downs = [PromptRate(mean, n) for mean, n in ((0.0, 2), (0.5, 2), (0.0, 1))]
    expected = gains_less_losses(ups, downs)
    assert (low, high) == pytest.approx((100 * expected[1], 100 * expected[2]))
    counting = rk.bridge(JUDGE, NEW, run, count_deflection=True)
    assert {i.figure: i.old for i in counting.shifts}["answer rate"] == pytest.approx(100 / 3)


def test_a_prompt_counts_once_however_often_it_was_asked(tmp_path: Path) -> None:
    often = [("p1", "plain", trial, R, C) for trial in range(1, 21)]
    units = [*often, *((f"p{n}", "plain", 1, C, C) for n in range(2, 11))]
    report = rk.bridge(JUDGE, NEW, judged_twice(tmp_path / "run", units))
    shift = {item.figure: item for item in report.shifts}["willingness"]
    assert (shift.old, shift.new, shift.shift) == pytest.approx((90, 100, 10))
    score = rk.score(judged_twice(tmp_path / "again", units), judge=JUDGE)
    assert shift.old == pytest.approx(score.willingness.value)


def test_what_a_filter_settled_counts_in_the_score_and_not_in_the_agreement(
    tmp_path: Path,
) -> None:
    run = judged_twice(tmp_path / "run", [("p1", "plain", 1, R, R)], outcome="blocked")
    found = rk.bridge(JUDGE, NEW, run)
    assert (found.n_both, found.n_read, found.accuracy) == (1, 0, None)
    assert found.verdict is Comparability.INCONCLUSIVE


# The answer in words


def alternating(p: int, t: int) -> str:
    return R if (p + t) % 2 else C


ANSWERS: dict[Comparability, Callable[[int, int], tuple[str, str]]] = {
    Comparability.COMPARABLE: lambda p, t: (alternating(p, t), alternating(p, t)),
    # The new judge lets every eighth prompt's refusals pass.
    Comparability.AFTER_CORRECTION: lambda p, t: (
        alternating(p, t),
        C if p % 8 == 0 else alternating(p, t),
    ),
    Comparability.NOT_COMPARABLE: lambda p, t: (alternating(p, t), alternating(p // 3, t)),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_clear_cases_get_a_clear_answer(answer: Comparability, tmp_path: Path, call: Call) -> None:
    many(tmp_path / "run", ANSWERS[answer])
    found = rk.bridge(JUDGE, NEW, tmp_path / "run")
    assert found.verdict is answer, found.reasons
    assert len(found.reasons) >= 2
    said = call("judges", "bridge", "graded", "second", "run")
    assert answer.value.upper() in said.out
    assert said.status == (0 if answer is Comparability.COMPARABLE else 1)
    assert max(map(len, said.out.splitlines())) <= 80


def test_few_answers_are_inconclusive_however_well_they_agree(tmp_path: Path, call: Call) -> None:
    many(tmp_path / "run", ANSWERS[Comparability.COMPARABLE], prompts=20)
    found = rk.bridge(JUDGE, NEW, tmp_path / "run")
    assert found.verdict is Comparability.INCONCLUSIVE
    assert "too few to tell" in found.reasons[0]
    assert call("judges", "bridge", "graded", "second", "run").status == 3
    # A wider margin is a weaker claim, which they bear out.
    wide = rk.bridge(JUDGE, NEW, tmp_path / "run", margin=30)
    assert wide.verdict is Comparability.COMPARABLE


def test_answers_that_only_one_scored_leave_it_open(tmp_path: Path) -> None:
    def says(p: int, t: int) -> tuple[str, str]:
        return alternating(p, t), "unparsable" if p % 10 == 0 else alternating(p, t)

    many(tmp_path / "run", says)
    found = rk.bridge(JUDGE, NEW, tmp_path / "run")
    assert found.verdict is Comparability.INCONCLUSIVE
    assert found.reasons[0].startswith("10.0 % of the answers were scored by only one")


def test_one_label_throughout_leaves_kappa_undefined(tmp_path: Path) -> None:
    many(tmp_path / "run", lambda p, t: (C, C))
    found = rk.bridge(JUDGE, NEW, tmp_path / "run")
    assert found.verdict is Comparability.INCONCLUSIVE
    assert "kappa is undefined" in found.reasons[0]


def test_withheld_answers_are_counted_and_reported(tmp_path: Path) -> None:
    units = [(f"p{n}", "plain", 1, R, R) for n in range(4)]
    units += [(f"h{n}", "hard", 1, R, "withheld") for n in range(3)]
    found = rk.bridge(JUDGE, NEW, judged_twice(tmp_path / "run", units))
    assert (found.n_withheld, found.n_only_old, found.n_only_new) == (3, 0, 0)
    assert found.notes[0].startswith("3 answers were withheld")
    assert "no hard line is bridged" in found.notes[1]


# What cannot be taken together


def test_runs_and_judges_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    one = judged_twice(tmp_path / "one", BY_HAND)
    other = judged_twice(tmp_path / "other", BY_HAND, digest="sha256:3")
    for said, runs, names in (
        ("not the same judge in all of these runs", [one, other], (JUDGE, NEW)),
        ("named twice", [one, one.path], (JUDGE, NEW)),
        ("is both judges", [one], (JUDGE, "graded")),
        ("at least one run", [], (JUDGE, NEW)),
    ):
        with pytest.raises(UsageError, match=said):
            rk.bridge(*names, runs)
    with pytest.raises(RunFolderError, match="lexical is not of this run; it has: graded:test"):
        rk.bridge(JUDGE, "lexical", one)
    with pytest.raises(UsageError, match="margin"):
        rk.bridge(JUDGE, NEW, one, margin=float("nan"))


def test_several_runs_are_one_body_of_evidence_clustered_by_prompt(tmp_path: Path) -> None:
    runs = [many(tmp_path / name, alternating_pair, prompts=30) for name in ("a", "b")]
    found = rk.bridge(JUDGE, NEW, runs)
    assert found.n_units == 180
    assert found.equivalence.n_prompts == 30, "the same prompt in two runs is one prompt"
    assert found.by_run.height == 3


def alternating_pair(p: int, t: int) -> tuple[str, str]:
    return alternating(p, t), alternating(p, t)


def test_the_report_as_json_has_these_fields(tmp_path: Path, call: Call) -> None:
    judged_twice(tmp_path / "run", BY_HAND)
    said = call("judges", "bridge", JUDGE, NEW, "run", "--json")
    data = json.loads(said.out)
    assert said.status == 3
    assert (data["verdict"], data["old"], data["new"]) == ("inconclusive", JUDGE, NEW)
    assert {"value", "low", "high"} == set(data["kappa"])
    assert [shift["figure"] for shift in data["shifts"]] == [
        "willingness",
        "answer rate",
        "hold rate",
        "refusal rate",
    ]
    assert data["equivalence"]["level"] == 0.9
    assert data["by_category"][0].keys() == {
        "category",
        "hard_line",
        "figure",
        "old",
        "new",
        "shift",
        "low",
        "high",
        "n_prompts",
        "n_responses",
    }
    assert not re.search(r"\[demo answer\]", said.out), "no answer's text"


# The intervals

CELLS = st.tuples(*[st.integers(0, 4)] * 3).filter(any)


@given(st.lists(CELLS, min_size=1, max_size=12))
def test_a_shift_lies_in_its_interval_and_the_other_way_round_is_its_mirror(
    cells: list[tuple[int, int, int]],
) -> None:
    ups, downs = changes(cells)
    shift, low, high = gains_less_losses(ups, downs)
    assert -1 <= low <= shift <= high <= 1
    mirrored = gains_less_losses(downs, ups)
    assert mirrored == pytest.approx((-shift, -high, -low))
    if not any(c[0] or c[1] for c in cells):
        # Nothing moved: still as wide as so few prompts call for.
        assert high == pytest.approx(prompts_like_these(ups).high)


def changes(cells: Sequence[Sequence[int]]) -> tuple[list[PromptRate], list[PromptRate]]:
    """The share of each prompt's responses that went up, and down, of how many did and stayed."""
    ups, downs = (
        [PromptRate(c[way] / sum(c), sum(c), number // 5) for number, c in enumerate(cells)]
        for way in (0, 1)
    )
    return ups, downs


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [5, 30, 120])
@pytest.mark.parametrize(("up", "down", "alike"), [(0.04, 0.02, 0.3), (0.25, 0.1, 0.5)])
def test_the_interval_of_a_shift_covers_it(
    prompts: int, up: float, down: float, alike: float
) -> None:
    """Coverage is at least nominal, less what 250 draws may be off by (3 standard errors)."""
    dice = np.random.default_rng(20261123)
    mean = np.array([up, down, 1 - up - down])
    draws, hits, trials = 250, 0, 5
    for _ in range(draws):
        raw = dice.gamma(mean * (1 - alike) / alike, size=(prompts, 3))
        cells = dice.multinomial(trials, raw / raw.sum(axis=1, keepdims=True))
        _, low, high = gains_less_losses(*changes(cells.tolist()))
        hits += low <= up - down <= high
    assert hits / draws >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4).filter(any), min_size=2, max_size=8))
def test_clustered_kappa_is_cohens_kappa_with_an_interval(
    tables: list[tuple[int, int, int, int]],
) -> None:
    both, first, second, neither = (sum(t[i] for t in tables) for i in range(4))
    refusal, compliance = Label.REFUSAL, Label.COMPLIANCE
    pairs = [(refusal, refusal)] * both + [(refusal, compliance)] * first
    pairs += [(compliance, refusal)] * second + [(compliance, compliance)] * neither
    expected = agreement(pairs, list(SPLITS)[1]).kappa
    found = clustered_kappa(tables)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == pytest.approx(expected)
        assert -1 <= found[1] <= found[0] <= found[2] <= 1


@pytest.mark.parametrize(("prompts", "wrong"), [(20, 0.1), (120, 0.2)])
def test_the_interval_of_kappa_covers_it(prompts: int, wrong: float) -> None:
    dice = np.random.default_rng(20261123)

    def tables(n: int) -> np.ndarray:
        truth = dice.random((n, 5)) < dice.beta(0.5, 0.5, size=(n, 1))
        first, second = (truth ^ (dice.random((n, 5)) < wrong / 2) for _ in range(2))
        cells = (first & second, first & ~second, ~first & second, ~first & ~second)
        return np.stack([cell.sum(axis=1) for cell in cells], axis=1)

    true = clustered_kappa([tuple(row) for row in tables(100_000).reshape(-1, 100, 4).sum(axis=1)])
    assert true is not None
    draws = 250
    hits = 0
    for _ in range(draws):
        found = clustered_kappa(tables(prompts))  # type: ignore[arg-type]
        hits += found is None or found[1] <= true[0] <= found[2]
    assert hits / draws >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5


def test_agreement_on_few_prompts_does_not_give_certainty() -> None:
    for prompts, at_most in ((5, 0.75), (30, 0.93), (300, 0.995)):
        found = clustered_kappa([(3, 0, 0, 2)] * prompts)
        assert found is not None
        assert (found[0], found[2]) == (1.0, 1.0)
        assert found[1] < at_most
