"""A log of the reference environment (Atropos) as recorded answers.

Its folder also holds `evaluate_config.yaml`, with API keys in plain
text. It is never opened: only the two files named here are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from refusalkit.errors import RecordError
from refusalkit.files import MAX_LINE, open_file, read_json_file
from refusalkit.jsonl import read_lines
from refusalkit.runs.imported.answers import (
    DANGER_WORDS,
    AnswerCollector,
    RecordedAnswers,
)
from refusalkit.types import Judgement, Label
from refusalkit.untrusted import printable

SAMPLES = "samples.jsonl"
METRICS = "metrics.json"
ATROPOS_JUDGE = "atropos"

# The environment's metrics by our name for them.
_RATES = {
    "overall": "eval/overall_refusal_rate",
    "ordinary": "eval/normal_categories_refusal_rate",
    "inverted": "eval/inverted_categories_refusal_rate",
}


class _Sample(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    prompt: Annotated[str, Field(repr=False)]
    response: Annotated[str, Field(repr=False)]
    overarching_category: str = "Unknown"
    danger_level: Any = None
    is_refusal: StrictBool
    judge_judgment: str = ""
    finish_reason: str | None = None
    should_invert: StrictBool = False
    run_number: Annotated[int, Field(ge=1)] = 1


def is_atropos_log(path: Path) -> bool:
    """Whether the path is a folder of the reference environment, or the samples in one."""
    try:
        file = path / SAMPLES if path.is_dir() else path
        if file.name != SAMPLES or not file.is_file():
            return False
        with open_file(file) as lines:
            return path.is_dir() or b'"judge_judgment"' in lines.readline(MAX_LINE)
    except OSError:
        return False


def read_atropos_log(path: Path) -> RecordedAnswers:
    """The answers of the reference environment's log, its judgements, and its own three rates.

    A prompt is identified by its text and category; if it occurs twice in one run, the second is
    another prompt. `run_number` is the trial. `response` is judged; reasoning in it is split off as
    from any answer.
    """
    folder = path if path.is_dir() else path.parent
    found = AnswerCollector()
    ids: dict[tuple[str, str, int], str] = {}
    times: Counter[tuple[str, str, int]] = Counter()
    for place, sample in read_lines(folder / SAMPLES, _Sample):
        in_run = (sample.prompt, sample.overarching_category, sample.run_number)
        times[in_run] += 1
        which = (sample.prompt, sample.overarching_category, times[in_run])
        prompt_id = ids.setdefault(which, f"sample-{len(ids) + 1:04}")
        unit = found.add(
            place,
            prompt_id,
            sample.prompt,
            sample.response,
            category=sample.overarching_category,
            hard_line=sample.should_invert,
            trial=sample.run_number,
            danger=DANGER_WORDS.get(str(sample.danger_level).strip().casefold()),
        )
        if sample.finish_reason is not None:
            found.finish_reasons[unit] = sample.finish_reason
        found.judged(ATROPOS_JUDGE, unit, _judgement(sample))
    return found.finish(folder, _rates(folder / METRICS))


def _judgement(sample: _Sample) -> Judgement:
    counted = Label.REFUSAL if sample.is_refusal else Label.COMPLIANCE
    if sample.judge_judgment.startswith(("FALLBACK_REFUSAL", "FALLBACK_COMPLIANCE")):
        return Judgement(counted, "fallback")
    if sample.judge_judgment.startswith("JUDGE_ERROR"):
        return Judgement(counted, "error")
    return Judgement(counted)


def _rates(file: Path) -> dict[str, float]:
    """The log's own figures, as far as it has them; a log without any can still be graded."""
    try:
        data = json.loads(read_json_file(file))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"{printable(file)} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{printable(file)} is not JSON: {printable(error)}") from error
    results = data.get("results") if isinstance(data, dict) else None
    figures = results.get("all") if isinstance(results, dict) else None
    if not isinstance(figures, Mapping):
        return {}
    found = {name: figures.get(key) for name, key in _RATES.items()}
    numbers = {name: rate for name, rate in found.items() if isinstance(rate, int | float)}
    return {name: float(rate) for name, rate in numbers.items() if 0 <= rate <= 1}
