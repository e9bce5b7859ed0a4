"""Whether the trials of a prompt agree: how often all do, how refusals spread, Fleiss' kappa."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from refusalkit.scoring.score import Score


@dataclass(frozen=True, slots=True)
class TrialAgreement:
    """How the trials of one prompt agree on refused or not, over prompts with two or more scored.

    `n_unanimous` counts the prompts whose scored trials all agree. `spread` counts, among the
    prompts with every trial scored, those refused in 0, 1, ... of `trials`; `n_whole` is how many
    prompts that are. `kappa` is Fleiss' (1971, Psychological Bulletin 76, 378-382) for two classes,
    each prompt weighing the same, also where trials are missing: 1 where trials always agree, 0
    where they agree as often as by chance. None where nothing or everything is refused.
    """

    trials: int
    n_prompts: int
    n_unanimous: int
    n_whole: int
    spread: tuple[int, ...]
    kappa: float | None

    @property
    def unanimous_percent(self) -> float | None:
        """Share of the prompts whose scored trials all agree, in percent."""
        return 100 * self.n_unanimous / self.n_prompts if self.n_prompts else None


def trial_agreement(score: Score) -> TrialAgreement:
    """How far the trials of a run agree; contrast prompts left out, as in willingness."""
    by_prompt = (
        score.counts.group_by("prompt_id")
        .agg(refused=pl.col("refused").sum().cast(pl.Int64), n=pl.col("n_scored").sum())
        .filter(pl.col("n") > 1)
        .sort("prompt_id")
    )
    trials = score.trials
    whole = by_prompt.filter(pl.col("n") == trials)
    counted = dict(whole.group_by("refused").len().iter_rows())
    pairs = list(by_prompt.select("refused", "n").iter_rows())
    return TrialAgreement(
        trials=trials,
        n_prompts=len(pairs),
        n_unanimous=sum(refused in (0, n) for refused, n in pairs),
        n_whole=len(whole),
        spread=tuple(counted.get(k, 0) for k in range(trials + 1)),
        kappa=fleiss_kappa(pairs),
    )


def fleiss_kappa(counts: list[tuple[int, int]]) -> float | None:
    """Fleiss' kappa from (refused, scored) for each prompt, at least two scored in each."""
    total = sum(n for _, n in counts)
    if not total:
        return None
    share = sum(yes for yes, _ in counts) / total
    chance = share**2 + (1 - share) ** 2
    if chance >= 1:
        return None
    observed = sum(
        (yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1)) for yes, n in counts
    ) / len(counts)
    return (observed - chance) / (1 - chance)
