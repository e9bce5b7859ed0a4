"""Does correcting for judge error remove the bias, and does the interval hold what it says?

    python benchmarks/judge_correction.py

draws runs of 166 or 21 prompts x 5 trials from known rates, judges them with known errors,
calibrates on labelled answers of a known number, and corrects: by the code that `score
--calibration` and `score --labels` use. It prints tables in Markdown and writes
docs/plots/judge-correction.svg. The points at which fewest intervals held are drawn again, many
times more, from other seeds and with 4,000 draws for each interval (a score takes 20,000): the
lowest of hundreds is low by chance, and ends of few draws lie anywhere. Seeded; about fifteen
minutes on one core, less with --jobs.
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
    FigureAnswers,
    JudgeErrors,
    Share,
    at_least_as_wide,
    corrected_interval,
)
from refusalkit.scoring.judge_quality.prediction_powered import labelled_interval
from refusalkit.scoring.judge_quality.sampling import draw_sample
from refusalkit.scoring.statistics.intervals import prompts_like_these

TRIALS = 5
RATES = (0.05, 0.2, 0.5, 0.8, 0.95)
LEAK_RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
ERRORS = tuple(itertools.product((0.7, 0.85, 0.98), repeat=2))
SIZES = (100, 300, 1000)
LABELS = (60, 200, 400, 830)
LOWEST = 10
PORTION = 500
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
    prompts: int = 166
    bias_before: float = 0.0
    bias_after: float = 0.0
    covered: float = 0.0
    covered_before: float = 0.0
    width: float = 0.0
    width_before: float = 0.0
    surer: int = 0
    covered_plain: float = 0.0
    covered_adjusted: float = 0.0


def answers(cell: Cell, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whether each answer truly counts in, and whether the judge says so: prompts x trials."""
    if cell.alike == 0 or cell.rate == 0:
        own = np.full((cell.prompts, 1), cell.rate)
    else:
        spread = (1 - cell.alike) / cell.alike
        own = chance.beta(cell.rate * spread, (1 - cell.rate) * spread, size=(cell.prompts, 1))
    true = chance.random((cell.prompts, TRIALS)) < own
    found = np.where(true, cell.sensitivity, 1 - cell.specificity)
    return true, chance.random((cell.prompts, TRIALS)) < found


def figure(cell: Cell, said: np.ndarray) -> FigureAnswers:
    """The answers as the library has them; 3 categories of 21 prompts, 32 of 166."""
    n = said.size
    categories = 3 if cell.prompts < 32 else 32
    return FigureAnswers(
        said=said.ravel(),
        judged=np.ones(n, dtype=bool),
        sign=np.ones(n, dtype=int),
        hard=np.zeros(n, dtype=bool),
        prompt=np.repeat(np.arange(cell.prompts), TRIALS),
        units=tuple(map(str, range(n))),
        strata=tuple(str(number % categories) for number in range(cell.prompts)),
    )


def draw_errors(cell: Cell, chance: np.random.Generator) -> JudgeErrors:
    """So many labelled answers elsewhere, two in five of them positive."""
    positives = int(chance.binomial(cell.size, 0.4))
    # One answer to a prompt: a prompt is positive or negative, and right or wrong.
    positive = np.arange(cell.size) < positives
    right = chance.random(cell.size) < np.where(positive, cell.sensitivity, cell.specificity)
    return JudgeErrors(
        Share.of(positive & right, positive, positives),
        Share.of(~positive & right, ~positive, cell.size - positives),
    )


def plug_in(judged: Share, errors: JudgeErrors, *, adjusted: bool) -> tuple[float, float]:
    """The interval that adds up variances at the estimates, to compare with.

    `adjusted` is the form of Lang & Reiczigel (2014, Preventive Veterinary Medicine 113, 13-22)
    that Lee et al. (arXiv 2511.21140) take over: pseudo-counts and a shifted centre.
    """
    z = 1.959964
    p, n = judged.rate, judged.size
    se, positives = errors.sensitivity.rate, errors.sensitivity.size
    sp, negatives = errors.specificity.rate, errors.specificity.size
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


def by_labels(
    cell: Cell, found: FigureAnswers, true: np.ndarray, chance: np.random.Generator
) -> tuple[float, float, float]:
    """Corrected by so many labels on the run itself, drawn by the judge's word."""
    strata: dict[str, list[str]] = {}
    for unit, word in zip(found.units, found.said, strict=True):
        strata.setdefault(str(bool(word)), []).append(unit)
    drawn = draw_sample(strata, cell.size, int(chance.integers(2**31)))
    flat = true.ravel()
    return labelled_interval(
        found,
        {unit: name for name, units in strata.items() for unit in units},
        {unit: float(flat[int(unit)]) for unit in drawn.units},
        settled=True,
    )


def simulate(task: tuple[Cell, int, int, int]) -> Cell:
    """Fill in one cell from so many simulated runs; `turn` 0 has the seed of the tables."""
    cell, runs, draws, turn = task
    point = (cell.rate, cell.sensitivity, cell.specificity, cell.alike)
    key = [
        *(int(1000 * value) for value in point),
        cell.size,
        cell.prompts,
        *([turn] if turn else []),
    ]
    chance = np.random.default_rng(key)
    sums = dict.fromkeys(
        ("bias_before", "bias_after", "covered", "covered_before", "width", "width_before"), 0.0
    )
    surer, covered_plain, covered_adjusted = 0, 0, 0
    for _ in range(runs):
        true, said = answers(cell, chance)
        found = figure(cell, said)
        before = prompts_like_these(found.prompt_rates(found.said.astype(float)))
        if cell.kind == "calibration":
            errors = draw_errors(cell, chance)
            value, low, high, _ = corrected_interval(
                found, errors, settled=True, draws=draws, seed=int(chance.integers(2**31))
            )
            low, high = at_least_as_wide(low, high, before.high - before.low)
            surer += high - low < before.high - before.low - 1e-9
            sizes = np.full(cell.prompts, TRIALS)
            judged = Share.of(said.sum(axis=1), sizes, said.size)
            for adjusted in (False, True):
                plain_low, plain_high = plug_in(judged, errors, adjusted=adjusted)
                inside = plain_low <= cell.rate <= plain_high
                covered_plain += inside and not adjusted
                covered_adjusted += inside and adjusted
        else:
            value, low, high = by_labels(cell, found, true, chance)
        sums["bias_before"] += before.rate - cell.rate
        sums["bias_after"] += value - cell.rate
        sums["covered"] += low - 1e-9 <= cell.rate <= high + 1e-9
        sums["covered_before"] += before.low - 1e-9 <= cell.rate <= before.high + 1e-9
        sums["width"] += high - low
        sums["width_before"] += before.high - before.low
    return replace(
        cell,
        **{name: value / runs for name, value in sums.items()},
        surer=surer,
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
    for rate, sensitivity, specificity, size, alike in itertools.product(
        LEAK_RATES, (0.8, 0.95), (0.85, 0.93, 1.0), (100, 300), (0.0, 0.3, 0.8)
    ):
        yield Cell("calibration", rate, sensitivity, specificity, size, alike, prompts=21)
    for rate, error, size, alike in itertools.product(RATES, (0.7, 0.98), LABELS, (0.1, 0.3, 0.8)):
        yield Cell("labels", rate, error, error, size, alike)
    for rate, error, size in itertools.product(LEAK_RATES, (0.7, 0.93), (40, 105)):
        yield Cell("labels", rate, error, error, size, 0.8, prompts=21)


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
        "worst and best point | uncorrected interval holds | mean width, as judged | corrected",
    )
    rows = [f"| {' | '.join(heads)} |", "|---" * 9 + "|"]
    groups: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.size, cell.alike), []).append(cell)
    for (size, alike), part in sorted(groups.items()):
        held = [cell.covered for cell in part]
        rows.append(
            f"| {size}, trials alike {alike} | {len(part)} "
            f"| {100 * max(abs(c.bias_before) for c in part):.1f} "
            f"| {100 * max(abs(c.bias_after) for c in part):.1f} "
            f"| {100 * float(np.mean(held)):.1f} % "
            f"| {100 * min(held):.1f} to {100 * max(held):.1f} % "
            f"| {100 * float(np.mean([c.covered_before for c in part])):.0f} % "
            f"| {100 * float(np.mean([c.width_before for c in part])):.0f} "
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
        usual = [
            c
            for c in cells
            if (c.kind, c.alike, c.size, c.prompts) == ("calibration", 0.3, 300, 166)
        ]
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
        right.axhline(95, color=grey, linewidth=0.6)
        names = [f"{size}" for size in SIZES] + [f"{size} on the run" for size in LABELS]
        for column, (kind, size) in enumerate(
            [("calibration", s) for s in SIZES] + [("labels", s) for s in LABELS]
        ):
            part = [c for c in cells if (c.kind, c.size, c.prompts) == (kind, size, 166)]
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
    arguments.add_argument("--runs", type=int, default=400, help="simulated runs for each point")
    arguments.add_argument("--draws", type=int, default=500, help="draws for each interval")
    arguments.add_argument("--again", type=int, default=6000, help="for each of the lowest points")
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--plot", type=Path, default=PLOT)
    given = arguments.parse_args()
    tasks = [(cell, given.runs, given.draws, 0) for cell in grid()]
    with ProcessPoolExecutor(given.jobs) as pool:
        cells = list(pool.map(simulate, tasks, chunksize=4))
        lowest = sorted(cells, key=lambda cell: cell.covered)[:LOWEST]
        # In portions, so that no core waits for the last of them.
        turns = range(1, 1 + max(1, given.again // PORTION))
        many = max(given.draws, 4000)
        portions = [(cell, PORTION, many, turn) for cell in lowest for turn in turns]
        drawn = list(pool.map(simulate, portions))
    error = 100 * (0.95 * 0.05 / given.runs) ** 0.5
    print(
        f"{given.runs} runs a point; a coverage of 95 % is known to +- {1.96 * error:.1f} points\n"
    )
    print("\n".join(recovered(2000)), end="\n\n")
    for prompts, title in ((166, "166 prompts"), (21, "21 prompts, leak rates")):
        here = [cell for cell in cells if cell.prompts == prompts]
        calibrated = [cell for cell in here if cell.kind == "calibration"]
        print(f"{title}:\n")
        print("\n".join(table(calibrated, "calibration size")), end="\n\n")
        labelled = [cell for cell in here if cell.kind == "labels"]
        print("\n".join(table(labelled, "labels on the run")), end="\n\n")
        surer = sum(cell.surer for cell in calibrated)
        print(f"narrower than as judged: {surer} of {given.runs * len(calibrated)} intervals")
        for name, at in (("plain", "covered_plain"), ("adjusted", "covered_adjusted")):
            held = [getattr(cell, at) for cell in calibrated]
            print(
                f"the {name} plug-in interval holds the truth in {100 * min(held):.1f} to "
                f"{100 * max(held):.1f} % of runs; below 93 % at "
                f"{sum(each < 0.93 for each in held)} of {len(held)} points"
            )
        print()
    again = PORTION * len(turns)
    print(f"the {LOWEST} points with the lowest coverage, and what {again} runs more said of each:")
    for number, c in enumerate(lowest):
        held = np.mean([each.covered for each in drawn[number * len(turns) :][: len(turns)]])
        error = 1.96 * (held * (1 - held) / again) ** 0.5
        point = f"rate {c.rate}, sensitivity {c.sensitivity}, specificity {c.specificity}"
        where = f"{c.kind} {c.size}, {c.prompts} prompts"
        said = f"{100 * c.covered:.1f} %, then {100 * held:.1f} +- {100 * error:.1f} %"
        print(f"  {where}: {point}, alike {c.alike}: {said}")
    plot(cells, given.plot)


if __name__ == "__main__":
    main()
