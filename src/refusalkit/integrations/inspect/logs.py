"""Writes a run as an Inspect log, for Inspect's own viewer and reader."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from inspect_ai.dataset import Sample
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.scorer import Score

from refusalkit.api.results import score as score_of
from refusalkit.api.results import units
from refusalkit.errors import RefusalkitError, StorageError, UsageError
from refusalkit.files import check_replaceable
from refusalkit.integrations.inspect.figures import UNSCORED, figures_of
from refusalkit.integrations.inspect.scoring import WITHHELD
from refusalkit.integrations.inspect.tasks import sample_of
from refusalkit.prompts.load import shipped_sets
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.runs.records import read_records
from refusalkit.scoring.figures import FIGURES
from refusalkit.types import Outcome
from refusalkit.untrusted import printable

_SCORER = "refusal_judge"
_STOPS = {
    Outcome.ANSWERED: "stop",
    Outcome.TRUNCATED: "max_tokens",
    Outcome.BLOCKED: "content_filter",
}


def write_inspect_log(run: Run, out: Path) -> Path:
    """Write the run's log to `out`, a ``.eval`` or ``.json`` file; returns its path.

    It has the texts that the run kept, never those of hard lines, and those of the prompts where
    the set can be opened. Contrast and framed prompts are left out.

    Raises `UsageError` where nothing was scored, the run does not say when it was made, or the name
    ends otherwise; `StorageError` where the file cannot be written.
    """
    if out.suffix not in (".eval", ".json"):
        raise UsageError(f"an Inspect log ends with .eval or .json, and {printable(out)} does not")
    found = score_of(run)
    if found.willingness.value is None:
        raise UsageError(f"{printable(run.path)} has no scored response yet: nothing to export")
    manifest, config = run.manifest, run.manifest.config
    began = manifest.sessions[0].started_at if manifest.sessions else ""
    if not _is_time(began):
        raise UsageError(f"{printable(run.path)} does not say when it was made")
    samples = list(_samples(run))
    ended = manifest.sessions[-1].ended_at or began
    figures: dict[str, float] = {}
    for name in FIGURES:
        estimate = getattr(found, name)
        if estimate.value is not None:
            figures |= figures_of(name, estimate)
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=manifest.id,
            run_id=manifest.id,
            task_id=manifest.id,
            created=began,
            task="refusalkit/refusalbench",
            task_version=0,
            dataset=EvalDataset(
                name=manifest.prompt_set.name,
                samples=len({sample.id for sample in samples}),
                sample_ids=list(dict.fromkeys(sample.id for sample in samples)),
            ),
            model=found.model,
            model_generate_config=GenerateConfig(
                **{k: config.get(k) for k in ("temperature", "top_p", "top_k", "max_tokens")}
            ),
            config=EvalConfig(epochs=manifest.trials),
            packages={"inspect_ai": importlib.metadata.version("inspect_ai")},
            metadata={
                "run": manifest.id,
                "refusalkit": manifest.refusalkit,
                "prompt_set": manifest.prompt_set.name,
                "prompt_set_digest": manifest.prompt_set.digest,
                "judge": found.judge,
                "judge_digest": manifest.judges[found.judge].digest,
            },
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[
                EvalScore(
                    name=_SCORER,
                    scorer=_SCORER,
                    metrics={
                        name: EvalMetric(name=name, value=value)
                        for name, value in figures.items()
                        if value == value  # NaN is not JSON
                    },
                )
            ],
        ),
        stats=EvalStats(started_at=began, completed_at=ended if _is_time(ended) else began),
        samples=samples,
    )
    try:
        check_replaceable(out)
        write_eval_log(log, str(out))
    except OSError as error:
        raise StorageError(f"cannot write {printable(out)}: {error.strerror or error}") from error
    return out


def _samples(run: Run) -> Iterator[EvalSample]:
    asked, reasons = _prompts(run), _reasons(run)
    prompts = {} if asked is None else {prompt.id: prompt for prompt in asked}
    # A stranger's folder may call ordinary what the set calls a hard line.
    marked = frozenset() if asked is None else asked.hard_lines
    model = str(run.manifest.config.get("model"))
    rows = units(run, show_text=True)
    rows = rows.filter(rows["framing"].is_null() & rows["twin"].is_null())
    for row in rows.iter_rows(named=True):
        prompt = prompts.get(row["prompt_id"])
        if row["category"] in marked:
            row |= {"hard_line": True, "text": None}
        withheld = row["text"] is None and bool(row["text_chars"])
        shown = WITHHELD if withheld else row["text"] or ""
        stop = _STOPS.get(Outcome(row["outcome"]), "unknown")
        answered = ChatMessageAssistant(content=shown, model=model)
        facts = {"category": row["category"], "hard_line": row["hard_line"]}
        asked = Sample(input=f"[prompt {row['prompt_id']}]", metadata=facts)
        if prompt is not None:
            asked = sample_of(prompt, row["hard_line"])
        turns = asked.input
        if isinstance(turns, str):
            turns = [ChatMessageUser(content=turns)]
        yield EvalSample(
            id=row["prompt_id"],
            epoch=row["trial"],
            input=asked.input,
            target="refusal" if row["hard_line"] else "compliance",
            messages=[*turns, answered],
            output=ModelOutput(
                model=model, choices=[ChatCompletionChoice(message=answered, stop_reason=stop)]
            ),
            metadata=asked.metadata or {},
            scores={
                _SCORER: Score(
                    value=row["label"] or UNSCORED,
                    answer=shown,
                    explanation=None if row["hard_line"] else reasons.get(row["unit"]),
                    metadata={
                        "prompt_id": row["prompt_id"],
                        **facts,
                        "withheld": withheld,
                        "outcome": row["outcome"],
                        "unscored": row["unscored"],
                        "source": row["source"],
                        "judge": row["judge"],
                    },
                )
            },
        )


def _prompts(run: Run) -> PromptSet | None:
    """The run's prompts; None if the set is gone, or a path that a stranger's run names."""
    config = run.manifest.run_config
    if not run.is_own and config.prompts not in shipped_sets():
        return None
    with contextlib.suppress(RefusalkitError):
        return same_prompts(run.manifest, config, None)
    return None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _reasons(run: Run) -> Mapping[str, str]:
    """The reason that the judge of record gave, by unit; of several the last counts."""
    judge = run.manifest.judge
    said = (record for _, record in read_records(run.verdicts) if record.get("judge") == judge)
    return {str(record.get("unit")): str(record.get("reason") or "") for record in said}
