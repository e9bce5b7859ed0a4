"""Do models' refusals differ enough between categories for strata to be worth having?

    python benchmarks/human_categories.py xstest-answers
    python benchmarks/human_categories.py do-not-answer-answers:FILE.parquet

On published answers that people labelled (`refusalkit judges calibrate --labels NAME`; fetched by
name, or read from a copy with NAME:FILE): for each model the share of answers that decline, the
standard deviation of that share over categories, and what is left of the standard error and of the
interval *prompts like these* if categories are strata. The sources have one answer to a prompt, and
an effective size is at most the number of answers, so the interval of one trial gains nothing: it
is also shown for five trials that agree. It prints a table in Markdown; nothing is left to chance.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from refusalkit.runs.imported.published_labels import published_labels
from refusalkit.scoring.statistics.intervals import (
    PromptRate,
    prompts_like_these,
    variance_of_mean,
)

REFUSED = {"refusal", "deflection"}
"""What counts as declined. Do-Not-Answer files most refusals as a rebuttal or a discussion."""


def rates(path: Path) -> dict[str, list[PromptRate]]:
    """Each model's prompts, with their categories, from a file of plain recorded answers."""
    answers: dict[str, dict[tuple[str, str], list[bool]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            key = (record["prompt"], record.get("category") or "none")
            answers[record.get("model") or "-"][key].append(record["label"] in REFUSED)
    return {
        model: [
            PromptRate(sum(refused) / len(refused), len(refused), stratum=category)
            for (_, category), refused in prompts.items()
        ]
        for model, prompts in sorted(answers.items())
    }


def widths(prompts: list[PromptRate], trials: int) -> float:
    """How wide the stratified interval is, as a share of the one without strata."""
    asked = [prompt._replace(trials=trials) for prompt in prompts]
    found = prompts_like_these(asked), prompts_like_these([p._replace(stratum=None) for p in asked])
    stratified, plain = (interval.high - interval.low for interval in found)
    return stratified / plain


def rows(found: dict[str, list[PromptRate]]) -> Iterable[str]:
    yield (
        "| model | prompts | categories | declined | SD over categories | standard error | "
        "interval, one trial | five trials that agree |"
    )
    yield "|---" * 8 + "|"
    for model, prompts in found.items():
        by_category: dict[object, list[float]] = defaultdict(list)
        for prompt in prompts:
            by_category[prompt.stratum].append(prompt.mean)
        shares = [float(np.mean(means)) for means in by_category.values()]
        rate = float(np.mean([prompt.mean for prompt in prompts]))
        alike = [prompt._replace(stratum=None) for prompt in prompts]
        error = (variance_of_mean(prompts) / variance_of_mean(alike)) ** 0.5
        yield (
            f"| {model} | {len(prompts)} | {len(by_category)} | {100 * rate:.1f} % | "
            f"{np.std(shares, ddof=1):.2f} | {error:.2f} | {widths(prompts, 1):.2f} | "
            f"{widths(prompts, 5):.2f} |"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("labels", nargs="+", help="a source by name, or NAME:FILE")
    for named in arguments.parse_args().labels:
        source = published_labels(named)
        if source is None:
            arguments.error(f"{named}: not a source of published labels")
        for notice in source.notices:
            print(notice)
        print("\n".join(["", *rows(rates(source.path)), ""]))


if __name__ == "__main__":
    main()
