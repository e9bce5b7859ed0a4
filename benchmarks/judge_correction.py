"""Does correcting for judge error remove the bias, and does the interval hold what it says?

    python benchmarks/judge_correction.py

draws runs of 166 prompts x 5 trials from known rates, judges them with known errors, calibrates on
labelled answers of a known number, and corrects: by the code that `score --calibration` and
`score --labels` use. It prints three tables in Markdown and writes docs/plots/judge-correction.svg.
Seeded; a few minutes on one core, less with --jobs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import refusalkit as rk
from refusalkit.scoring.judge_quality.correction import (
    JudgeErrors,
    Part,
    Share,
    Term,
    corrected_interval,
)
from refusalkit.scoring.judge_quality.prediction_powered import stratified_interval
from refusalkit.scoring.judge_quality.sampling import draw_sample

PROMPTS, TRIALS = 166, 5
RATES = (0.05, 0.2, 0.5, 0.8, 0.95)
ERRORS = tuple(itertools.product((0.7, 0.85, 0.98), repeat=2))
SIZES = (100, 300, 1000)
LABELS = (60, 200)
# How much more alike answers to one prompt are: the correlation between two trials.
ALIKE = (0.1, 0.3, 0.6)
PLOT = Path(__file__).resolve().parents[1] / "docs" / "plots" / "judge-correction.svg"


@dataclass(frozen=True)
class Cell:
    """One point of the grid, and how the intervals did there (fractions)."""

    kind: str
    rate: float
    sensitivity: float
    specificity: float
    size: int
    alike: float
    bias_before: float = 0.0
    bias_after: float = 0.0
    covered: float = 0.0
    covered_before: float = 0.0
    width: float = 0.0
    covered_plain: float = 0.0
    covered_adjusted: float = 0.0


def answers(cell: Cell, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whether each answer truly counts in, and whether the judge says so: prompts x trials."""
    spread = (1 - cell.alike) / cell.alike
    own = chance.beta(cell.rate * spread, (1 - cell.rate) * spread, size=(PROMPTS, 1))
    true = chance.random((PROMPTS, TRIALS)) < own
    found = np.where(true, cell.sensitivity, 1 - cell.specificity)
    return true, chance.random((PROMPTS, TRIALS)) < found


@dataclass(frozen=True)
class Drawn:
    """What a run and a calibration came to."""

    judged: Share
    errors: JudgeErrors


def draw_calibration(cell: Cell, said: np.ndarray, chance: np.random.Generator) -> Drawn:
    """So many labelled answers elsewhere, two in five of them positive."""
    positives = int(chance.binomial(cell.size, 0.4))
    # One answer to a prompt: a prompt is positive or negative, and right or wrong.
    positive = np.arange(cell.size) < positives
    right = chance.random(cell.size) < np.where(positive, cell.sensitivity, cell.specificity)
    return Drawn(
        Share.of(said.sum(axis=1), np.full(PROMPTS, TRIALS), PROMPTS * TRIALS),
        JudgeErrors(
            Share.of(positive & right, positive, positives),
            Share.of(~positive & right, ~positive, cell.size - positives),
        ),
    )


def by_calibration(
    drawn: Drawn, chance: np.random.Generator, draws: int
) -> tuple[float, float, float]:
    """Corrected by a calibration."""
    nobody = Share.of(np.zeros(PROMPTS), np.full(PROMPTS, TRIALS), PROMPTS * TRIALS)
    value, low, high, _ = corrected_interval(
        0.0,
        [Part(1.0, drawn.judged, nobody, 1.0)],
        drawn.errors,
        draws=draws,
        seed=int(chance.integers(2**31)),
    )
    return value, low, high


def plug_in(drawn: Drawn, *, adjusted: bool) -> tuple[float, float]:
    """The interval that adds up variances at the estimates, to compare with.

    `adjusted` is the form of Lang & Reiczigel (2014, Preventive Veterinary Medicine 113, 13-22)
    that Lee et al. (arXiv 2511.21140) take over: pseudo-counts and a shifted centre.
    """
    z = 1.959964
    p, n = drawn.judged.rate, drawn.judged.size
    se, positives = drawn.errors.sensitivity.rate, drawn.errors.sensitivity.size
    sp, negatives = drawn.errors.specificity.rate, drawn.errors.specificity.size
    if adjusted:
        p, n = (n * p + z * z / 2) / (n + z * z), n + z * z
        se, positives = (positives * se + 1) / (positives + 2), positives + 2
        sp, negatives = (negatives * sp + 1) / (negatives + 2), negatives + 2
    youden = se + sp - 1
    true = (p + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / positives, sp * (1 - sp) / negatives
    half = z * (p * (1 - p) / n + true**2 * of_se + (1 - true) ** 2 * of_sp) ** 0.5 / youden
    if adjusted:
        true += 2 * z * z * (true * of_se - (1 - true) * of_sp)
    return true - half, true + half


UNITS = tuple(f"{number}" for number in range(PROMPTS * TRIALS))
NUMBERS = np.repeat(np.arange(PROMPTS), TRIALS)


def by_labels(
    cell: Cell, true: np.ndarray, said: np.ndarray, chance: np.random.Generator, draws: int
) -> tuple[float, float, float]:
    """Corrected by so many labels on the run itself, drawn by the judge's word."""
    strata: dict[str, list[str]] = {}
    for unit, word in zip(UNITS, said.ravel(), strict=True):
        strata.setdefault(str(bool(word)), []).append(unit)
    drawn = draw_sample(strata, cell.size, int(chance.integers(2**31)))
    flat = true.ravel()
    n = PROMPTS * TRIALS
    term = Term(np.full(n, 1 / n), said.ravel(), np.ones(n, dtype=bool), NUMBERS, UNITS)
    return stratified_interval(
        0.0,
        [term],
        {unit: name for name, units in strata.items() for unit in units},
        {unit: float(flat[int(unit)]) for unit in drawn.units},
        settled=True,
        draws=draws,
        seed=int(chance.integers(2**31)),
    )


def simulate(task: tuple[Cell, int, int]) -> Cell:
    """Fill in one cell from so many simulated runs."""
    cell, runs, draws = task
    point = (cell.rate, cell.sensitivity, cell.specificity, cell.alike)
    chance = np.random.default_rng([*(int(1000 * value) for value in point), cell.size])
    before, after, width = [], [], 0.0
    covered, covered_before, covered_plain, covered_adjusted = 0, 0, 0, 0
    for _ in range(runs):
        true, said = answers(cell, chance)
        if cell.kind == "calibration":
            drawn = draw_calibration(cell, said, chance)
            value, low, high = by_calibration(drawn, chance, draws)
            for adjusted in (False, True):
                plain_low, plain_high = plug_in(drawn, adjusted=adjusted)
                inside = plain_low <= cell.rate <= plain_high
                covered_plain += inside and not adjusted
                covered_adjusted += inside and adjusted
        else:
            value, low, high = by_labels(cell, true, said, chance, draws)
        before.append(said.mean() - cell.rate)
        after.append(value - cell.rate)
        covered += low <= cell.rate <= high
        width += high - low
        share = Share.of(said.sum(axis=1), np.full(PROMPTS, TRIALS), PROMPTS * TRIALS)
        half = 1.96 * (share.rate * (1 - share.rate) / share.size) ** 0.5
        covered_before += abs(share.rate - cell.rate) <= half
    return replace(
        cell,
        bias_before=float(np.mean(before)),
        bias_after=float(np.mean(after)),
        covered=covered / runs,
        covered_before=covered_before / runs,
        width=width / runs,
        covered_plain=covered_plain / runs,
        covered_adjusted=covered_adjusted / runs,
    )


def grid() -> Iterable[Cell]:
    for rate, (sensitivity, specificity), size in itertools.product(RATES, ERRORS, SIZES):
        yield Cell("calibration", rate, sensitivity, specificity, size, 0.3)
    for rate, (sensitivity, specificity), alike in itertools.product(
        RATES, ((0.7, 0.7), (0.85, 0.98), (0.98, 0.85)), (0.1, 0.6)
    ):
        yield Cell("calibration", rate, sensitivity, specificity, 300, alike)
    for rate, error, size in itertools.product(RATES, (0.7, 0.98), LABELS):
        yield Cell("labels", rate, error, error, size, 0.3)


class ScriptedJudge:
    """A judge with a known sensitivity and specificity, by chance of its own seed.

    It knows the truth from the answer, which says it, and nothing else.
    """

    id = "scripted"

    def __init__(self, sensitivity: float, specificity: float) -> None:
        self._right = {True: sensitivity, False: specificity}

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        refused = "[refusal]" in completion.text
        right = random.Random(f"scripted {completion.unit}").random() < self._right[refused]
        label = rk.Label.REFUSAL if refused == right else rk.Label.COMPLIANCE
        return rk.Verdict(prompt.id, prompt.category, completion.trial, self.id, label)

    async def aclose(self) -> None:
        """Nothing to close."""


def recovered(size: int) -> list[str]:
    """What `calibrate` finds out about judges whose errors are known."""
    rows = ["| planted sensitivity, specificity | measured | 95 % interval |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labelled.jsonl"
        with file.open("w") as out:
            for number in range(size):
                label = "refusal" if number % 5 < 2 else "compliance"
                record = {"prompt": f"request {number}", "response": f"[{label}]", "label": label}
                out.write(json.dumps(record) + "\n")
        for planted in ((0.7, 0.98), (0.85, 0.85), (0.98, 0.7)):
            found = rk.calibrate(
                ScriptedJudge(*planted), file, verdicts=Path(folder) / str(planted)
            )
            both = (found.rates.sensitivity, found.rates.specificity)
            values = ", ".join(f"{one.value:.1f}" for one in both)
            ranges = "; ".join(f"{one.low:.1f} to {one.high:.1f}" for one in both)
            rows.append(f"| {100 * planted[0]:.0f}, {100 * planted[1]:.0f} | {values} | {ranges} |")
    return rows


def table(cells: list[Cell], name: str) -> list[str]:
    heads = (
        f"{name} | points | largest bias as judged | corrected | 95 % interval holds (mean)",
        "worst and best point | uncorrected interval holds | mean width",
    )
    rows = [f"| {' | '.join(heads)} |", "|---" * 8 + "|"]
    groups: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.size, cell.alike), []).append(cell)
    for (size, alike), part in sorted(groups.items()):
        held = [cell.covered for cell in part]
        rows.append(
            f"| {size}{'' if alike == 0.3 else f', trials alike {alike}'} | {len(part)} "
            f"| {100 * max(abs(c.bias_before) for c in part):.1f} "
            f"| {100 * max(abs(c.bias_after) for c in part):.1f} "
            f"| {100 * float(np.mean(held)):.1f} % "
            f"| {100 * min(held):.1f} to {100 * max(held):.1f} % "
            f"| {100 * float(np.mean([c.covered_before for c in part])):.0f} % "
            f"| {100 * float(np.mean([c.width for c in part])):.0f} points |"
        )
    return rows


def plot(cells: list[Cell], path: Path) -> None:
    """Bias and coverage, small, readable on light and dark pages."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    grey, blue, orange = "#808080", "#3b82c4", "#d9822b"
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "refusalkit",
        "font.family": "sans-serif",
        "font.size": 8,
        "text.color": grey,
        "axes.edgecolor": grey,
        "axes.labelcolor": grey,
        "xtick.color": grey,
        "ytick.color": grey,
    }
    with plt.rc_context(settings):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), layout="constrained")
        usual = [c for c in cells if (c.kind, c.alike, c.size) == ("calibration", 0.3, 300)]
        for shift, colour, name, label in (
            (-1, orange, "bias_before", "as judged"),
            (1, blue, "bias_after", "corrected"),
        ):
            left.plot(
                [100 * cell.rate + shift for cell in usual],
                [100 * getattr(cell, name) for cell in usual],
                ".",
                color=colour,
                markersize=4,
                label=label,
            )
        left.axhline(0, color=grey, linewidth=0.6)
        left.set(xlabel="true rate, percent", ylabel="mean error, points")
        left.legend(frameon=False, labelcolor=grey)
        right.axhspan(93, 97, color=grey, alpha=0.18, linewidth=0)
        names = [f"{size}" for size in SIZES] + [f"{size} on the run" for size in LABELS]
        for column, (kind, size) in enumerate(
            [("calibration", s) for s in SIZES] + [("labels", s) for s in LABELS]
        ):
            part = [c for c in cells if c.kind == kind and c.size == size]
            spread = np.linspace(-0.3, 0.3, len(part))
            right.plot(
                column + spread,
                [100 * c.covered for c in part],
                ".",
                color=blue if kind == "calibration" else orange,
                markersize=4,
            )
        right.set(ylim=(90, 100), ylabel="interval holds the truth, percent")
        right.set_xticks(range(len(names)), names, rotation=20)
        right.set_xlabel("human labels")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=1000, help="simulated runs for each point")
    arguments.add_argument("--draws", type=int, default=1000, help="draws for each interval")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--plot", type=Path, default=PLOT)
    given = arguments.parse_args()
    tasks = [(cell, given.runs, given.draws) for cell in grid()]
    with ProcessPoolExecutor(given.jobs) as pool:
        cells = list(pool.map(simulate, tasks, chunksize=4))
    error = 100 * (0.95 * 0.05 / given.runs) ** 0.5
    print(
        f"{given.runs} runs a point; a coverage of 95 % is known to +- {1.96 * error:.1f} points\n"
    )
    print("\n".join(recovered(2000)), end="\n\n")
    calibrated = [cell for cell in cells if cell.kind == "calibration"]
    print("\n".join(table(calibrated, "calibration size")), end="\n\n")
    print("\n".join(table([c for c in cells if c.kind == "labels"], "labels on the run")))
    for name, at in (("plain", "covered_plain"), ("adjusted", "covered_adjusted")):
        held = [getattr(cell, at) for cell in calibrated]
        print(
            f"\nthe {name} plug-in interval holds the truth in {100 * min(held):.1f} to "
            f"{100 * max(held):.1f} % of runs; outside 93 to 97 % at "
            f"{sum(not 0.93 <= each <= 0.97 for each in held)} of {len(held)} points"
        )
    outside = [cell for cell in cells if not 0.93 <= cell.covered <= 0.97]
    print(f"\noutside 93 to 97 %: {len(outside)} of {len(cells)} points")
    for c in outside:
        point = f"rate {c.rate}, sensitivity {c.sensitivity}, specificity {c.specificity}"
        print(f"  {c.kind} {c.size}: {point}, alike {c.alike}: {100 * c.covered:.1f} %")
    plot(cells, given.plot)


if __name__ == "__main__":
    main()
