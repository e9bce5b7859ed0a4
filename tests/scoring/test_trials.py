"""Agreement of trials, checked against Krippendorff's alpha and against cases done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from handmade import HELD, write_run
from refusalkit.scoring.agreement.coefficients import krippendorff_alpha
from refusalkit.scoring.trials import fleiss_kappa, trial_agreement


def test_by_hand(tmp_path: Path) -> None:
    found = trial_agreement(rk.score(write_run(tmp_path / "made", HELD)))
    # Refused of three: 3, 1, 0, 0, 1, 3, 2, 3, 3 (a blocked answer is refused).
    assert found.n_prompts == found.n_whole == 9
    assert found.n_unanimous == 6
    assert found.spread == (2, 2, 1, 4)
    assert found.unanimous_percent == pytest.approx(66.667, abs=0.001)
    # P = (6 * 1 + 3 * 1/3) / 9, p = 16/27.
    chance = (16 / 27) ** 2 + (11 / 27) ** 2
    assert found.kappa == pytest.approx((7 / 9 - chance) / (1 - chance))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_it_is_fleiss_kappa(refused: list[int]) -> None:
    ours = fleiss_kappa([(k, 5) for k in refused])
    if len(set(refused)) == 1 and refused[0] in (0, 5):
        assert ours is None  # nothing, or everything, is refused
        return
    # With ratings of interchangeable raters, Krippendorff's alpha is Fleiss' kappa corrected for
    # the size of the sample: 1 - alpha = (1 - kappa) (n - 1) / n, over n ratings.
    n = 5 * len(refused)
    alpha = krippendorff_alpha(
        {
            f"trial {trial}": {str(prompt): trial < k for prompt, k in enumerate(refused)}
            for trial in range(5)
        }
    )
    assert alpha is not None
    assert ours == pytest.approx(1 - (1 - alpha) * n / (n - 1))


def test_trials_that_agree_always_and_as_chance_has_it() -> None:
    assert fleiss_kappa([(5, 5), (0, 5)]) == 1
    assert fleiss_kappa([(1, 2)] * 3 + [(2, 2)] * 2 + [(0, 2)] * 1) is not None
    assert fleiss_kappa([(2, 2), (1, 2), (1, 2), (0, 2)]) == pytest.approx(0)
    assert fleiss_kappa([]) is None
