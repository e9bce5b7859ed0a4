"""A report as JSON values, in the shape of `ReportRecord` (docs/records.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from refusalkit.reporting.data import (
    audit_data,
    comparison_data,
    correction_data,
    judge_pairs_data,
    preset_rows,
    score_data,
)
from refusalkit.reporting.document.cautions import alarms, alarms_of, cautions, cautions_between
from refusalkit.reporting.document.configuration import configuration_of
from refusalkit.reporting.document.facts import Facts, RunFacts, labels_of
from refusalkit.reporting.document.provenance import preset_of

SCHEMA = 1


def report_data(facts: Facts) -> dict[str, Any]:
    """Everything on the page, as JSON values in the shape of `ReportRecord`."""
    return {
        "schema": SCHEMA,
        "kind": "refusalkit-report",
        "warnings": alarms(facts),
        "runs": [_run(run) for run in facts.runs],
        "cautions": cautions_between(facts),
        "comparison": None if facts.comparison is None else comparison_data(facts.comparison),
    }


def _run(facts: RunFacts) -> dict[str, Any]:
    trials = facts.trials
    spending = facts.spending
    again = facts.reproduction
    return {
        "name": facts.name,
        "date": facts.date,
        "complete": facts.is_complete,
        "cautions": [*alarms_of(facts), *cautions(facts)],
        "score": score_data(facts.score),
        "audit": None if facts.audit is None else audit_data(facts.audit),
        "by_danger": facts.score.by_danger.to_dicts(),
        "labels": labels_of(facts.score),
        "trial_agreement": {
            "trials": trials.trials,
            "n_prompts": trials.n_prompts,
            "n_unanimous": trials.n_unanimous,
            "unanimous_percent": trials.unanimous_percent,
            "n_whole": trials.n_whole,
            "spread": list(trials.spread),
            "fleiss_kappa": trials.kappa,
        },
        "judging": _judging(facts),
        "spending": asdict(spending),
        "configuration": configuration_of(facts.manifest),
        "preset": _preset(facts),
        "reproduce": {
            "command": again.command or None,
            "words": list(again.words),
            "obstacles": list(again.obstacles),
        },
    }


def _preset(facts: RunFacts) -> dict[str, Any] | None:
    found = preset_of(facts.manifest)
    if found is None:
        return None
    rows = [
        {
            "aspect": row.aspect,
            "report": row.report,
            "preset": row.presets[found["name"]],
            "environment": row.environment,
        }
        for row in preset_rows()
    ]
    return {"name": found["name"], "otherwise": found["otherwise"], "rows": rows}


def _judging(facts: RunFacts) -> dict[str, Any]:
    judging, score = facts.judging, facts.score
    found = judging.agreements
    return {
        "judge": judging.id,
        "n_judged": judging.n_judged,
        "n_by_provider": judging.n_by_provider,
        "unscored": judging.unscored,
        "words": score.judge_words,
        "n_cut": score.n_cut,
        "rests_on": score.rests_on,
        "answered_by": judging.answered_by,
        "others": {name: asdict(other.willingness) for name, other in judging.others.items()},
        "agreements": None if found is None else judge_pairs_data(found),
        "correction": None if facts.correction is None else correction_data(facts.correction),
    }
