"""Two runs compared while they are still running: what may be claimed however often one looks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import polars as pl

from refusalkit.display import shows
from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.prompts.random_order import in_random_order
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.scoring.compare.sides import sides_of
from refusalkit.scoring.figures import figure_title
from refusalkit.scoring.score import Score
from refusalkit.scoring.statistics.sequential import sequential_difference
from refusalkit.untrusted import printable

SEQUENTIAL = "hedged betting, a confidence sequence (Waudby-Smith & Ramdas 2023)"


@shows("figure", "value", "low", "high", "p", "n_prompts", "decided_at")
@dataclass(frozen=True)
class InOrder:
    """A difference in the order in which prompts were asked, in points; valid however often one
    looks.
    """

    figure: str
    """Name of the figure compared."""
    value: float | None
    """First less second over the prompts that count; None if none does yet."""
    low: float
    """Lower end: in at least 95 % of experiments the interval holds the true difference at every
    moment."""
    high: float
    """Upper end of that interval."""
    p: float
    """0 to 1; between equal models it ever falls to 0.05 or less in at most 5 % of experiments."""
    n_prompts: int
    """Prompts that count: in their order, up to the first that still lacks an answer."""
    n_planned: int
    """Prompts that both runs will have asked in the end."""
    decided_at: int | None
    """After how many prompts `p` first was 0.05 or less; None: not yet."""
    method: str = SEQUENTIAL
    """How the interval was computed."""

    @property
    def claim(self) -> str:
        """What may be said now, in words."""
        name = figure_title(self.figure)
        if not self.n_planned:
            return f"no prompt of these runs counts towards {name}"
        if self.value is None:
            return "no prompt has all its answers in both runs yet"
        so_far = f"after {self.n_prompts} of {self.n_planned} prompts {name} differs by"
        interval = f"{self.value:+.1f} points, {self.low:+.1f} to {self.high:+.1f}"
        told = (
            "nothing is shown yet"
            if self.decided_at is None
            else f"the runs were shown to differ after {self.decided_at} prompts, and may stop"
        )
        return f"{so_far} {interval}, however often one looks: {told}"


def compare_in_order(first: Score, second: Score, figure: str) -> InOrder:
    """Compare two runs, finished or not, in the order in which their prompts were asked.

    Raises `UsageError` where that order was not drawn by one seed, or the prompts are not known.
    """
    seeds = {score.manifest.run_config.order for score in (first, second)}
    (seed, *others) = seeds
    if seed is None or others:
        raise UsageError(
            "--sequential needs prompts asked in one random order: run both models with the same "
            "--order-seed"
        )
    sides = sides_of(first, second, figure)
    planned = _planned(first, figure, seed)
    if sides is None:
        return InOrder(figure, None, -100.0, 100.0, 1.0, 0, len(planned), None)
    came = {row["prompt_id"]: row for row in sides.prompts.iter_rows(named=True)}
    settled = [_settled(score) for score in (first, second)]
    apart = []
    for prompt in planned:
        row = came.get(prompt)
        whole = all(of.get(prompt, 0) >= first.trials for of in settled)
        if row is None or not whole:
            break
        if row["n_first"] and row["n_second"]:
            apart.append(row["sum_first"] / row["n_first"] - row["sum_second"] / row["n_second"])
    if not apart:
        return InOrder(figure, None, -100.0, 100.0, 1.0, 0, len(planned), None)
    found = sequential_difference(apart)
    return InOrder(
        figure,
        100 * found.value,
        100 * found.low,
        100 * found.high,
        found.p,
        found.n,
        len(planned),
        found.decided_at,
    )


def _settled(score: Score) -> dict[str, int]:
    """How many units of each prompt are finished; units that failed will be asked again."""
    again = ("owed", "error", "judge_error")
    rows = pl.concat([score.responses, score.contrast], how="diagonal")
    done = rows.filter(pl.col("unscored").is_null() | ~pl.col("unscored").is_in(again))
    return dict(done.group_by("prompt_id").len().iter_rows())


def _planned(score: Score, figure: str, seed: int) -> list[str]:
    """The prompts that a figure will rest on in the end, in the order in which they are asked."""
    manifest = score.manifest
    try:
        prompts = same_prompts(manifest, manifest.run_config, None)
    except RefusalkitError as error:
        raise UsageError(
            f"--sequential needs the prompts of {printable(manifest.id)}, to know their order: "
            f"{error}"
        ) from error
    wanted = {"answer_rate": (False,), "hold_rate": (True,)}.get(figure, (False, True))
    return [
        prompt.id
        for prompt in chain.from_iterable(in_random_order(prompts, seed))
        if prompt.framing is None
        and (prompt.twin is not None) == (figure == "over_refusal")
        and (prompt.category in prompts.hard_lines) in wanted
    ]
