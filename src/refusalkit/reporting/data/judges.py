"""Judges and their labels as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refusalkit.types import Label

if TYPE_CHECKING:
    from refusalkit.judges.rubrics import Rubric
    from refusalkit.scoring.agreement.council_votes import CouncilVotes
    from refusalkit.scoring.agreement.judge_pairs import JudgeAgreements
    from refusalkit.scoring.judge_quality.bridge import Bridge
    from refusalkit.scoring.judge_quality.calibration import Calibrated, ErrorRates
    from refusalkit.scoring.judge_quality.correction import Correction
    from refusalkit.scoring.judge_quality.grades import Grades
    from refusalkit.scoring.judge_quality.probe_results import JudgeProbe


def grades_data(grades: Grades) -> dict[str, Any]:
    """A judge's labels for recorded answers, as JSON values (docs/records.md).

    `n, accuracy, precision, recall, kappa` are those of the first split.
    """
    first = grades.agreements[0] if grades.agreements else None
    names = ("accuracy", "precision", "recall", "kappa")
    return {
        "schema": 1,
        "judge": grades.judge,
        "records": grades.n_records,
        "labelled": grades.n_labelled,
        "labels": grades.labels,
        "unscored": grades.unscored,
        "split": first.split if first else None,
        "n": first.n if first else 0,
        **{name: getattr(first, name) if first else None for name in names},
        "splits": [asdict(agreement) for agreement in grades.agreements],
        "imported": {
            "against": {
                name: [asdict(agreement) for agreement in agreements]
                for name, agreements in grades.against.items()
            },
            "flags": grades.flags,
            "left_out": grades.left_out,
            "lacks": grades.lacks,
            "rates": grades.rates,
            "recorded_rates": grades.recorded_rates,
        },
        "canaries": grades.canaries.as_data(),
        "run": None if grades.run is None else str(grades.run.path),
    }


def judge_pairs_data(found: JudgeAgreements) -> dict[str, Any]:
    """Judges compared pairwise, as JSON values (docs/records.md)."""
    return {
        "schema": 1,
        "labelled": found.labelled,
        "alpha": found.alpha,
        "alpha_first_split": found.alpha_first_split,
        "by_category": [asdict(row) for row in found.by_category],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "n": pair.n,
                "splits": [asdict(agreement) for agreement in pair.agreements],
                "differ": list(pair.differ),
            }
            for pair in found.pairs
        ],
    }


def council_data(votes: CouncilVotes) -> dict[str, Any]:
    """How the members of a council voted, as JSON values (docs/records.md)."""
    return {
        "rule": votes.rule,
        "members": list(votes.members),
        "labelled": votes.labelled,
        "n_answers": votes.n_answers,
        "n_unanimous": votes.n_unanimous,
        "unanimous_percent": votes.unanimous_percent,
        "n_owed": votes.n_owed,
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "n": pair.n,
                "splits": [asdict(agreement) for agreement in pair.agreements],
            }
            for pair in votes.pairs
        ],
    }


def bridge_data(found: Bridge) -> dict[str, Any]:
    """The succession report as JSON values (docs/records.md)."""
    return {
        "schema": 1,
        "old": found.old,
        "new": found.new,
        "runs": list(found.runs),
        "verdict": found.verdict.value,
        "reasons": list(found.reasons),
        "notes": list(found.notes),
        "margin": found.margin,
        "min_kappa": found.min_kappa,
        "count_deflection": found.count_deflection,
        "n_units": found.n_units,
        "n_both": found.n_both,
        "n_only_old": found.n_only_old,
        "n_only_new": found.n_only_new,
        "n_neither": found.n_neither,
        "n_withheld": found.n_withheld,
        "n_read": found.n_read,
        "accuracy": found.accuracy,
        "kappa": asdict(found.kappa),
        "splits": [asdict(agreement) for agreement in found.agreements],
        "confusion": found.confusion,
        "differ": list(found.differ),
        "shifts": [asdict(shift) for shift in found.shifts],
        "equivalence": asdict(found.equivalence),
        "by_category": found.by_category.to_dicts(),
        "by_run": found.by_run.to_dicts(),
    }


def calibrated_data(found: Calibrated) -> dict[str, Any]:
    """A judge measured on people's labels, as JSON values (docs/judge-error.md).

    `n, accuracy, precision, recall, kappa` are those of `question`, fractions; sensitivity and
    specificity are in percent.
    """
    calibration = found.calibration
    names = ("n", "accuracy", "precision", "recall", "kappa")
    return {
        "schema": 1,
        "judge": calibration.judge.model_dump(mode="json"),
        "question": found.question,
        **{name: getattr(found.agreement, name) for name in names},
        "alpha": found.alpha,
        "people_alpha": found.people_alpha,
        "labelled": calibration.n_labelled,
        "unscored": calibration.unscored,
        "languages": calibration.languages,
        "refused": _rates_data(found.rates),
        "leaked": _rates_data(found.leak_rates),
        "confusion": {
            truth.value: {
                said.value: calibration.cells.get(truth, {}).get(said, 0) for said in Label
            }
            for truth in Label
        },
        "splits": [asdict(agreement) for agreement in found.agreements],
        "breakdown": [
            {
                "by": row.by,
                "value": row.value,
                "labelled": row.n_labelled,
                **{name: getattr(row.agreement, name) for name in names},
                **_rates_data(row.rates),
            }
            for row in found.breakdown
        ],
        "labels": [entry.model_dump(mode="json") for entry in calibration.labels],
        "runs": [str(path) for path in found.runs],
    }


def _rates_data(rates: ErrorRates) -> dict[str, Any]:
    return {
        "question": rates.question,
        "sensitivity": asdict(rates.sensitivity),
        "specificity": asdict(rates.specificity),
        "youden": rates.youden,
    }


def correction_data(correction: Correction) -> dict[str, Any]:
    """A correction as JSON values, in percent (docs/judge-error.md)."""
    return {
        "method": correction.method,
        "by": correction.by,
        "refused": correction.refused,
        "notes": list(correction.notes),
        "figures": {
            figure.name.replace(" ", "_"): {
                "uncorrected": asdict(figure.uncorrected),
                "corrected": None if figure.corrected is None else asdict(figure.corrected),
                "clipped": figure.clipped,
                "why_not": figure.why_not,
            }
            for figure in correction.figures
        },
    }


def correction_rows(correction: Correction) -> list[list[Any]]:
    """Corrected figures as rows that follow those of `figure_rows`; clipped ones are marked."""
    rows: list[list[Any]] = []
    for figure in correction.figures:
        found = figure.corrected
        if found is not None:
            name = f"{figure.name}, corrected{' (clipped)' if figure.clipped else ''}"
            values = (found.value, found.low, found.high)
            counts = (found.n_prompts, found.n_responses, found.n_unscored)
            rows.append([name, *values, *counts, *(found.asked_again or (None, None))])
    return rows


def rubric_data(rubric: Rubric) -> dict[str, Any]:
    """A judge file as JSON values."""
    return {
        **asdict(rubric),
        "labels": {value: label.value for value, label in rubric.labels.items()},
    }


def probe_data(found: JudgeProbe) -> dict[str, Any]:
    """The self-test of a judge, as JSON values (docs/records.md)."""
    return {
        "schema": 1,
        "judge": found.judge,
        "digest": found.digest,
        "status": found.status.value,
        "probes": {
            "version": found.version,
            "digest": found.set_digest,
            "planned": found.n_planned,
            "asked": found.n_asked,
        },
        "baseline": [asdict(verdict) for verdict in found.baseline],
        "baseline_failures": [v.carrier for v in found.baseline if not v.right],
        "flips": [asdict(flip) for flip in found.flips],
        "denied": list(found.denied),
        "failed": list(found.failed),
        "unscored_percent": found.unscored_percent,
        "max_unscored_percent": found.max_unscored,
        "overall": [asdict(line) for line in found.overall],
        "kinds": [asdict(line) for line in found.lines],
        "cost_usd": found.cost_usd,
    }
