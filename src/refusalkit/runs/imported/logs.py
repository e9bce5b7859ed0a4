"""Logs of other tools as recorded answers: the reference environment's, and Inspect's.

The reference environment's log folder also holds `evaluate_config.yaml`, with API keys in plain
text. It is never opened: only the two files named here are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from refusalkit.errors import RecordError, UsageError
from refusalkit.files import MAX_LINE, open_file, read_file
from refusalkit.jsonl import read_lines
from refusalkit.runs.imported.answers import (
    LABEL_WORDS,
    AnswerCollector,
    RecordedAnswers,
)
from refusalkit.types import Judgement, Label, Message
from refusalkit.untrusted import printable

SAMPLES = "samples.jsonl"
METRICS = "metrics.json"
ATROPOS_JUDGE = "atropos"
INSPECT_SUFFIXES = (".eval", ".json")

# Inspect's JSON logs say early on what was evaluated.
_HEAD = 4096

# The environment's metrics by our name for them.
_RATES = {
    "overall": "eval/overall_refusal_rate",
    "ordinary": "eval/normal_categories_refusal_rate",
    "inverted": "eval/inverted_categories_refusal_rate",
}
_DANGER = {"low": 1, "medium": 2, "high": 3, "1": 1, "2": 2, "3": 3}


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

    A prompt is known by its text and category; of a prompt that occurs twice in one run the second
    is another prompt. `run_number` is the trial. What is judged is `response`, reasoning and all:
    the reasoning is split off as that of any answer is.
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
            danger=_DANGER.get(str(sample.danger_level).strip().casefold()),
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
    """The log's own figures, those that it has; a log without them can be graded all the same."""
    try:
        data = json.loads(read_file(file))
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
    return {name: float(rate) for name, rate in found.items() if isinstance(rate, int | float)}


def is_inspect_json(path: Path) -> bool:
    """Whether a .json file begins like an Inspect log, or cannot be read."""
    try:
        with open_file(path) as file:
            return b'"eval"' in file.read(_HEAD)
    except OSError:
        return True


def read_inspect_log(path: Path) -> RecordedAnswers:
    """The answers of an Inspect log; its scores where they are words for our labels.

    A sample's id and epoch are prompt and trial; `category`, `hard_line`, `danger` and `lang` are
    taken from its metadata. Samples that failed or hold no answer are counted as left out. Of an
    answer that was withheld there is only what was said of it.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise UsageError(
            f"{printable(path)} is an Inspect log: install the extra that reads it, from a clone "
            "pip install '.[inspect]'"
        ) from error
    try:
        log = read_eval_log(str(path))
    except Exception as error:  # whatever inspect_ai raises at a broken file
        what = printable(error, 120) or type(error).__name__
        raise RecordError(f"{printable(path)} cannot be read as an Inspect log: {what}") from error
    found = AnswerCollector()
    for number, sample in enumerate(log.samples or [], 1):
        place = f"{printable(path)}: sample {number}"
        if sample.error is not None:
            found.left_out["error"] += 1
            continue
        if not sample.output.choices:
            found.left_out["no answer"] += 1
            continue
        system, messages = _turns(sample.input)
        if not messages or messages[-1].role != "user":
            found.left_out["no prompt"] += 1
            continue
        facts = sample.metadata or {}
        category, lang = facts.get("category"), facts.get("lang")
        unit = found.add(
            place,
            str(sample.id),
            messages[-1].content,
            sample.output.completion,
            category=category if isinstance(category, str) else None,
            hard_line=facts.get("hard_line") is True,
            danger=_DANGER.get(str(facts.get("danger"))),
            lang=lang if isinstance(lang, str) else "en",
            trial=sample.epoch,
            system=system,
            messages=messages if len(messages) > 1 else (),
        )
        if sample.output.stop_reason:
            found.finish_reasons[unit] = str(sample.output.stop_reason)
        for scorer, score in (sample.scores or {}).items():
            label = LABEL_WORDS.get(str(score.value).strip().casefold())
            if label is not None:
                found.judged(scorer, unit, Judgement(label))
            if (score.metadata or {}).get("withheld") is True:
                found.withheld.add(unit)
    return found.finish(path)


def _turns(given: Any) -> tuple[str | None, tuple[Message, ...]]:
    """(system message, conversation) of a sample's input, a text or a list of messages."""
    if isinstance(given, str):
        return None, (Message("user", given),)
    system: str | None = None
    turns: list[Message] = []
    for message in given:
        if message.role == "system":
            system = message.text if system is None else f"{system}\n\n{message.text}"
        elif message.role == "user":
            turns.append(Message("user", message.text))
        elif message.role == "assistant":
            turns.append(Message("assistant", message.text))
        else:
            return system, ()  # a tool's turn: not a conversation that can be judged
    return system, tuple(turns)
