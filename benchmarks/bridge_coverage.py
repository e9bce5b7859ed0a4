"""How often the intervals of `judges bridge` cover the truth.

    python benchmarks/bridge_coverage.py [--draws 400]

Draws the changes between two judges' labels: each prompt has chances of its own for a response to
go up, down or stay (a Dirichlet distribution around the true shares), and five trials; five prompts
make a category. Prints the
share of draws whose 95 % interval holds the true shift, and the interval's mean width in points.
"""

from __future__ import annotations

import argparse

import numpy as np

from refusalkit.scoring.statistics.intervals import PromptRate
from refusalkit.scoring.statistics.paired import gains_less_losses

TRIALS = 5
PROMPTS = (5, 20, 60, 166)
SHARES = ((0.02, 0.02), (0.10, 0.02), (0.30, 0.05))
# How much a prompt's responses resemble each other: 0 not at all, 1 entirely.
ALIKE = (0.0, 0.3, 0.6)


def changes(
    dice: np.random.Generator, prompts: int, up: float, down: float, alike: float
) -> np.ndarray:
    """Per prompt, how many responses went up, down and stayed."""
    mean = np.array([up, down, 1 - up - down])
    if alike == 0:
        return dice.multinomial(TRIALS, mean, size=prompts)
    raw = dice.gamma(mean * (1 - alike) / alike, size=(prompts, 3))
    return dice.multinomial(TRIALS, raw / raw.sum(axis=1, keepdims=True))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    print("prompts    up  down  alike  covered  width")
    for prompts in PROMPTS:
        for up, down in SHARES:
            for alike in ALIKE:
                dice = np.random.default_rng(7)
                hits, width = 0, 0.0
                for _ in range(draws):
                    cells = changes(dice, prompts, up, down, alike)
                    ups, downs = (
                        [
                            PromptRate(count / TRIALS, TRIALS, number // 5)
                            for number, count in enumerate(cells[:, way].tolist())
                        ]
                        for way in (0, 1)
                    )
                    _, low, high = gains_less_losses(ups, downs)
                    hits += low <= up - down <= high
                    width += 100 * (high - low) / draws
                shares = f"{up:5.2f} {down:5.2f}  {alike:5.1f}"
                print(f"{prompts:7} {shares}  {100 * hits / draws:6.1f}%  {width:5.1f}", flush=True)


if __name__ == "__main__":
    main()
