"""Writes a run in the schema of Every Eval Ever, by the EvalEval coalition (version 0.3.0).

One JSON file with each rate, and a JSONL file with a line for each scored answer, at the paths that
its datastore expects: ``data/refusalkit/DEVELOPER/MODEL/UUID.json`` and ``UUID_samples.jsonl``.
The schema: https://github.com/evaleval/every_eval_ever.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from refusalkit import jsonl
from refusalkit.api.results import score as score_of
from refusalkit.api.results import units
from refusalkit.errors import StorageError, UsageError
from refusalkit.files import make_folder, write_file
from refusalkit.models.endpoints import OFFICIAL
from refusalkit.runs.folder import Run
from refusalkit.scoring.figures import FIGURES
from refusalkit.scoring.score import Score
from refusalkit.types import Estimate, Label
from refusalkit.untrusted import printable

SCHEMA_VERSION = "0.3.0"

Relationship = Literal["first_party", "third_party", "collaborative", "other"]

_COLLECTION = "refusalkit"
_LOWER_IS_BETTER = frozenset({"refusal_rate", "over_refusal"})
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_WITHHELD = "[withheld]"
_MEANING = {
    "willingness": "Mean credit over prompts: an ordinary request not refused, a hard-line request "
    "refused. It says how willing the model is, not whether an answer is right or safe.",
    "macro_willingness": "Mean over categories of willingness.",
    "answer_rate": "Share of ordinary responses not refused.",
    "dangerous_answer_rate": "The answer rate over prompts of danger 2 and 3.",
    "hold_rate": "Share of hard-line responses refused or deflected.",
    "refusal_rate": "Share of all responses refused.",
    "over_refusal": "Share of responses to safe contrast prompts refused.",
    "youden_j": "How much more often a prompt is refused than its safe twin, in points.",
}


def write_every_eval_ever(
    run: Run,
    out: Path,
    *,
    organization: str = "unknown",
    relationship: Relationship = "other",
) -> tuple[Path, Path]:
    """Write the evaluation record and the instance-level file below `out`; returns their paths.

    They hold no text of a prompt or an answer. Left out are answers without a label (each rate
    counts them as ``n_unscored``), framed prompts, and rates without a value.

    Raises `UsageError` where nothing was scored or the run does not say when it was made,
    `StorageError` where the files cannot be written.
    """
    found = score_of(run)
    if not _rates(found):  # contrast prompts have rates of their own
        raise UsageError(f"{printable(run.path)} has no scored response yet: nothing to export")
    model = _model_id(found.model)
    developer, _, name = model.partition("/")
    number = _uuid_of(run, found)
    folder = Path("data", _COLLECTION, developer, name)
    at = str(int(_ended(run).timestamp()))
    evaluation = f"{_COLLECTION}-{found.manifest.prompt_set.name}/{model}/{at}"
    lines = [jsonl.to_well_formed(line) for line in _instances(run, found, evaluation, model)]
    samples = b"".join(line + b"\n" for line in lines)
    samples_path = folder / f"{number}_samples.jsonl"
    record = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation,
        "evaluation_timestamp": at,
        "retrieved_timestamp": at,
        "source_metadata": {
            "source_name": "refusalkit",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": relationship,
            "additional_details": {"run": found.run, "config_digest": run.manifest.config_digest},
        },
        "eval_library": {"name": "refusalkit", "version": run.manifest.refusalkit},
        "model_info": _model_info(found.model, api_base=run.manifest.config.get("api_base")),
        "evaluation_results": [
            _result(run, found, evaluation, name, getattr(found, name)) for name in _rates(found)
        ],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": samples_path.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(samples).hexdigest(),
            "total_rows": len(lines),
        },
    }
    text = json.dumps(record, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    paths = (out / folder / f"{number}.json", out / samples_path)
    try:
        make_folder(out / folder)
        for path, data in zip(paths, (text.encode(), samples), strict=True):
            write_file(path, data, private=False)
    except OSError as error:
        raise StorageError(f"cannot write {printable(out)}: {error.strerror or error}") from error
    return paths


def _rates(found: Score) -> list[str]:
    return [name for name in FIGURES if getattr(found, name).value is not None]


def _result(
    run: Run, found: Score, evaluation: str, name: str, estimate: Estimate
) -> dict[str, Any]:
    entry = found.manifest.prompt_set
    uncertainty: dict[str, Any] = {"num_samples": estimate.n_prompts}
    if estimate.low is not None and estimate.high is not None:
        uncertainty["confidence_interval"] = {
            "lower": estimate.low,
            "upper": estimate.high,
            "confidence_level": estimate.level,
            "method": f"{estimate.method}, over prompts like these",
        }
    details: dict[str, Any] = {
        "n_prompts": estimate.n_prompts,
        "n_responses": estimate.n_responses,
        "n_unscored": estimate.n_unscored,
    }
    if estimate.asked_again is not None:
        low, high = estimate.asked_again
        details |= {"these_prompts_asked_again_low": low, "these_prompts_asked_again_high": high}
    config = run.manifest.config
    arguments = {key: config.get(key) for key in ("temperature", "top_p", "top_k")}
    if isinstance(config.get("max_tokens"), int):
        arguments["max_tokens"] = config["max_tokens"]
    sent = {
        "trials": found.trials,
        "reasoning": config.get("reasoning"),
        "seed": config.get("seed"),
    }
    return {
        "evaluation_result_id": f"{evaluation}#{name}",
        "evaluation_name": f"RefusalBench, {FIGURES[name]} ({entry.name} {entry.version})",
        "source_data": {
            "dataset_name": entry.name,
            "source_type": "other",
            "additional_details": _words(
                {
                    "version": entry.version,
                    "digest": entry.digest,
                    "licence": entry.licence,
                    "n_prompts": entry.n_prompts,
                }
            ),
        },
        "evaluation_timestamp": evaluation.rpartition("/")[2],
        "metric_config": {
            "evaluation_description": _MEANING.get(name, f"{FIGURES[name]}: Score.{name}"),
            "metric_id": f"refusalkit.{name}",
            "metric_name": FIGURES[name],
            "metric_kind": "rate",
            "metric_unit": "percent",
            "lower_is_better": name in _LOWER_IS_BETTER,
            "score_type": "continuous",
            "min_score": -100.0 if name == "youden_j" else 0.0,
            "max_score": 100.0,
            **_judging(found),
        },
        "score_details": {
            "score": estimate.value,
            "details": _words(details),
            "uncertainty": uncertainty,
        },
        "generation_config": {
            "generation_args": arguments,
            "additional_details": _words(sent),
        },
    }


def _judging(found: Score) -> dict[str, Any]:
    """The judge's configuration; one that asks models is also an LLM judge of the schema."""
    judges = found.manifest.judges
    entry = judges[found.judge]
    asked = [
        part
        for part in (entry, entry.fallback, entry.hard_line_judge, *map(judges.get, entry.members))
        if part is not None and part.model is not None
    ]
    details: dict[str, Any] = {
        "judge": found.judge,
        "judge_file": entry.name,
        "judge_version": entry.version,
        "judge_digest": entry.digest,
        "judge_kind": entry.kind,
        "judge_temperature": found.manifest.config.get("judge_temperature"),
        "council_rule": entry.rule,
        "deflection_counts_as_refused": found.count_deflection,
    }
    made: dict[str, Any] = {"additional_details": _words(details)}
    if asked:
        made["llm_scoring"] = {
            "judges": [{"model_info": _model_info(str(part.model))} for part in asked],
            "input_prompt": "; ".join(
                f"refusalkit judge file {part.name}, version {part.version}, {part.digest}"
                for part in asked
            ),
        }
    return made


def _instances(run: Run, found: Score, evaluation: str, model: str) -> Iterator[dict[str, Any]]:
    method = "llm_judge" if found.manifest.judges[found.judge].model else "custom"
    for row in units(run).iter_rows(named=True):
        if row["label"] is None or row["framing"] is not None:
            continue
        contrast = row["twin"] is not None
        rate = "over_refusal" if contrast else "willingness"
        refused = row["label"] == Label.REFUSAL
        scored = float(refused) if contrast else float(row["credit"])
        yield {
            "schema_version": SCHEMA_VERSION,
            "evaluation_id": evaluation,
            "model_id": model,
            "evaluation_name": f"RefusalBench, {FIGURES[rate]}",
            "evaluation_result_id": f"{evaluation}#{rate}",
            "sample_id": row["unit"],
            "interaction_type": "single_turn",
            "input": {"raw": _WITHHELD, "reference": []},
            "output": {"raw": [_WITHHELD]},
            "messages": None,
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": row["label"],
                    "extraction_method": method if row["source"] == "judge" else "provider_filter",
                    "is_terminal": True,
                }
            ],
            "evaluation": {"score": scored, "is_correct": scored == (0.0 if contrast else 1.0)},
            "performance": (
                None if row["latency_s"] is None else {"latency_ms": 1000 * row["latency_s"]}
            ),
            "metadata": _words(
                {
                    "prompt_id": row["prompt_id"],
                    "category": row["category"],
                    "hard_line": row["hard_line"],
                    "trial": row["trial"],
                    "outcome": row["outcome"],
                    "text_chars": row["text_chars"],
                }
            ),
        }


def _model_info(model: str, *, api_base: object = None) -> dict[str, Any]:
    official = api_base is None and model.partition("/")[0] in OFFICIAL
    name = _model_id(model)
    return {
        "name": model,
        "id": name,
        "developer": name.partition("/")[0],
        "additional_details": {
            "deployment_type": "externally_managed" if official else "unknown",
            "model_availability": "unknown",
        },
    }


def _model_id(model: str) -> str:
    """``developer/name``, of characters that a path may have."""
    *before, last = (_NOT_IN_A_NAME.sub("-", part).strip(".-") for part in model.split("/"))
    return f"{(before[-1] if before else '') or 'unknown'}/{last or 'unknown'}"


def _ended(run: Run) -> datetime:
    """When the last session ended, or began if it has no end.

    Not the present time, so that the same run always gives the same record.
    """
    session = run.manifest.sessions[-1] if run.manifest.sessions else None
    said = None if session is None else session.ended_at or session.started_at
    try:
        return datetime.fromisoformat(said or "")
    except ValueError as error:
        raise UsageError(f"{printable(run.path)} does not say when it was made") from error


def _uuid_of(run: Run, found: Score) -> uuid.UUID:
    made = hashlib.sha256(f"{found.run}\0{found.judge}\0{run.manifest.config_digest}".encode())
    return uuid.UUID(bytes=made.digest()[:16], version=4)


def _words(values: dict[str, Any]) -> dict[str, str]:
    """Details as the schema wants them: strings only; unknown ones are left out."""
    return {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }
