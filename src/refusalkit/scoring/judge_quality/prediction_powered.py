"""Prediction-powered inference: a score corrected by people's labels on the run itself.

Angelopoulos et al. (2023, Science 382, 669; arXiv 2301.09633): the judge's verdicts on all answers,
plus what people's labels on a few of them say about its error. The answers were drawn within strata
of the judge's own label, where its prediction is constant; there the estimate tuned for least
variance (PPI++, arXiv 2311.01453) is the stratified mean: each stratum's share of labels that count
in, weighted by the stratum's part of the figure. The labels need no model of the judge's errors.

The interval combines two sources of uncertainty by square and add. The first is about other prompts
and about which answers were labelled: the figure's usual interval, round prompts' means in which a
labelled answer counts as its stratum's share plus its own distance from that share, over the chance
of being drawn (the linearised two-phase estimator, Särndal, Swensson & Wretman 1992, Model
Assisted Survey Sampling, 9.3). It includes the covariance between a prompt's predictions and its
residuals, and with every answer labelled it is the interval that people's labels would have by
themselves. The second is what that variance misses where few labels of a stratum disagree with the
rest: how much further the exact binomial interval of the stratum's share reaches than the normal
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from refusalkit.errors import UsageError
from refusalkit.runs.imported.person_labels import PersonLabels, SampleRecord
from refusalkit.scoring.agreement.coefficients import krippendorff_alpha
from refusalkit.scoring.judge_quality.calibration import (
    LEAKED,
    QUESTIONS,
    REFUSED,
    REFUSED_OR_DEFLECTED,
)
from refusalkit.scoring.judge_quality.correction import (
    CorrectedFigure,
    Correction,
    FigureAnswers,
    Share,
    figure_answers,
    named_figures,
)
from refusalkit.scoring.score import Score
from refusalkit.scoring.statistics.intervals import estimated_rates
from refusalkit.scoring.statistics.proportions import clopper_pearson
from refusalkit.types import Estimate, Label
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREDICTION_POWERED = "prediction-powered, two-phase, Korn-Graubard, stratified by category"
MIN_LABELS = 30
"""Labels that a run needs before it is corrected by them."""

Strata = Mapping[str, list[str]]
"""Units by stratum, see `sampling.strata_of`."""


def correct_by_labels(score: Score, files: Sequence[PersonLabels], strata: Strata) -> Correction:
    """A score's figures corrected by people's labels on its own answers.

    `strata` are those of the judge by which the answers were drawn (`sampling.strata_of`). Where
    several people labelled an answer, it counts in by the share of them who count it in: nobody is
    preferred and no answer left out. Raises `UsageError` where the files are not of this run, or
    their answers were not drawn in the same way.
    """
    sample = common_sample(score.run, files)
    named = named_figures(score)
    by = ", ".join(printable(file.annotator, 60) for file in files)
    bare = Correction(PREDICTION_POWERED, by, tuple(CorrectedFigure(name, e) for name, e in named))
    sizes = {name: len(units) for name, units in strata.items()}
    if sizes != {s.name: s.units for s in sample.strata}:
        return replace(
            bare,
            refused="the run's verdicts have changed since its answers were drawn for labelling: "
            "label it again",
        )
    said: dict[str, list[Label]] = {}
    for file in files:
        for unit, label in file.labels.items():
            said.setdefault(unit, []).append(label)
    if len(said) < MIN_LABELS:
        return replace(
            bare, refused=f"{len(said)} answers are labelled, and {MIN_LABELS} are needed: label on"
        )
    figures = []
    for name, estimate in named:
        asked = REFUSED_OR_DEFLECTED if score.count_deflection else REFUSED
        question = LEAKED if name == "hold rate" else asked
        shares = {
            unit: sum(label in QUESTIONS[question] for label in labels) / len(labels)
            for unit, labels in said.items()
        }
        figures.append(
            _corrected(score, name, estimate, shares, strata, settled=question != LEAKED)
        )
    return replace(bare, figures=tuple(figures), notes=_notes(files, said, sample))


def common_sample(run_id: str, files: Sequence[PersonLabels]) -> SampleRecord:
    """How the answers of these files were drawn, all alike and from this run.

    Raises `UsageError` where they were not.
    """
    if not files:
        raise UsageError("no label file was given")
    first = files[0].sample
    for file in files:
        where, sample = printable(file.path), file.sample
        if sample.run != run_id:
            raise UsageError(
                f"{where} has labels of the run {printable(sample.run)}, not of {printable(run_id)}"
            )
        if (sample.judge, sample.seed, sample.n, sample.strata) != (
            first.judge,
            first.seed,
            first.n,
            first.strata,
        ):
            raise UsageError(
                f"{where} was not drawn as {printable(files[0].path)} was: two people label the "
                "same answers with the same --n and --seed"
            )
    names = [file.annotator for file in files]
    if len(set(names)) < len(names):
        raise UsageError("two label files are of the same annotator: give one file for each person")
    return first


def _notes(
    files: Sequence[PersonLabels], said: Mapping[str, list[Label]], sample: SampleRecord
) -> tuple[str, ...]:
    notes = [f"{len(said)} of {sum(s.drawn for s in sample.strata)} drawn answers are labelled"]
    skipped = len(frozenset().union(*(file.skipped for file in files)) - said.keys())
    if skipped:
        notes[0] += f", {skipped} were skipped and taken to be like the others of their kind"
    both = [labels for labels in said.values() if len(labels) > 1]
    if len(files) > 1:
        differ = sum(len(set(labels)) > 1 for labels in both)
        alpha = krippendorff_alpha({file.annotator: file.labels for file in files})
        agreed = "not defined" if alpha is None else f"{alpha:.3f}"
        notes.append(
            f"{len(both)} answers have labels by several people, who differ on {differ} "
            f"(Krippendorff's alpha {agreed}); these count in by the share who say so"
        )
    return tuple(notes)


def _corrected(
    score: Score,
    name: str,
    estimate: Estimate,
    shares: Mapping[str, float],
    strata: Strata,
    *,
    settled: bool,
) -> CorrectedFigure:
    if estimate.value is None:
        return CorrectedFigure(name, estimate, why_not="nothing was scored")
    answers = figure_answers(score, name)
    of_unit = {unit: h for h, units in strata.items() for unit in units}
    read = [u for u, judged in zip(answers.units, answers.judged, strict=True) if judged]
    outside = sum(unit not in of_unit for unit in read)
    if outside:
        return CorrectedFigure(
            name,
            estimate,
            why_not=f"{outside} answers that it rests on were not kept, so they cannot be labelled",
        )
    for stratum in sorted({of_unit[unit] for unit in read}):
        labelled = sum(unit in shares for unit in strata[stratum])
        if labelled < min(2, len(strata[stratum])):
            return CorrectedFigure(
                name,
                estimate,
                why_not=f"only {labelled} of {len(strata[stratum])} answers that the judge calls "
                f"{stratum} are labelled: label two at least",
            )
    value, low, high = labelled_interval(answers, of_unit, shares, settled=settled)
    corrected = Estimate(
        100 * value,
        100 * low,
        100 * high,
        PREDICTION_POWERED,
        estimate.n_prompts,
        estimate.n_responses,
        estimate.n_unscored,
    )
    return CorrectedFigure(name, estimate, corrected)


def labelled_interval(
    answers: FigureAnswers,
    stratum_of: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    settled: bool,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """A figure from labels drawn within strata: (value, low, high), fractions.

    `shares` are people's answers by unit, `settled` whether what the provider settled counts in.
    """
    import numpy as np

    names = [stratum_of[u] if j else "" for u, j in zip(answers.units, answers.judged, strict=True)]
    here = np.array(names)
    counts_in = np.full(len(here), float(settled))
    further = np.zeros(2)
    for stratum in sorted(set(names) - {""}):
        inside = np.flatnonzero(here == stratum)
        labelled = np.array([i for i in inside.tolist() if answers.units[i] in shares])
        people = np.array([shares[answers.units[i]] for i in labelled])
        weight = answers.weight[labelled]
        share = Share.of(
            np.bincount(answers.prompt[labelled], weights=weight * people),
            np.bincount(answers.prompt[labelled], weights=weight),
            len(labelled),
        )
        counts_in[inside] = share.rate
        counts_in[labelled] += len(inside) / len(labelled) * (people - share.rate)
        # Counting in earns credit for one kind of prompt and loses it for the other.
        signed = float((answers.weight[inside] * answers.sign[inside]).sum())
        reach = signed * _beyond_normal(share, 1 - len(labelled) / len(inside), level)
        further += (reach if signed > 0 else reach[::-1]) ** 2
    rates = answers.prompt_rates(answers.credit(counts_in))
    value, low, high = estimated_rates(rates, level=level)
    low = value - math.hypot(value - low, math.sqrt(further[0]))
    high = value + math.hypot(high - value, math.sqrt(further[1]))
    return value, max(0.0, low), min(1.0, high)


def _beyond_normal(share: Share, unlabelled: float, level: float) -> NDArray[np.float64]:
    """How much further down and up the exact interval of a stratum's share reaches.

    Against the normal interval, as the root of the difference of squares; `unlabelled` is the share
    of the stratum without a label, as nothing is uncertain where all have one.
    """
    import numpy as np

    low, high = clopper_pearson(share.rate, share.size, level=level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    normal = z**2 * share.rate * (1 - share.rate) / share.size
    reach = np.array([share.rate - low, high - share.rate])
    return np.sqrt(unlabelled * np.maximum(0.0, reach**2 - normal))
