"""Judges and what they said, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refusalkit.rubrics import Rubric
    from refusalkit.scoring import Bridge, CouncilVotes, Grades, JudgeAgreements, JudgeProbe


def grades_data(grades: Grades) -> dict[str, Any]:
    """What a judge said of recorded answers, as JSON values (docs/records.md).

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
