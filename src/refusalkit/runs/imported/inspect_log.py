"""A log of Inspect as recorded answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refusalkit.errors import RecordError, UsageError
from refusalkit.files import open_file
from refusalkit.runs.imported.answers import (
    DANGER_WORDS,
    LABEL_WORDS,
    AnswerCollector,
    RecordedAnswers,
)
from refusalkit.types import Judgement, Message
from refusalkit.untrusted import printable

INSPECT_SUFFIXES = (".eval", ".json")

# Inspect's JSON logs say early on what was evaluated.
_HEAD = 4096


def is_inspect_json(path: Path) -> bool:
    """Whether a .json file begins like an Inspect log, or cannot be read."""
    try:
        with open_file(path) as file:
            return b'"eval"' in file.read(_HEAD)
    except OSError:
        return True


def read_inspect_log(path: Path) -> RecordedAnswers:
    """The answers of an Inspect log, and its scores if their values are words for our labels.

    A sample's id and epoch are prompt and trial; `category`, `hard_line`, `danger` and `lang` are
    taken from its metadata. Samples that failed or have no answer are counted as left out. For
    withheld answers only the scores are there.

    Raises `UsageError` if the extra `inspect` is not installed, `RecordError` at a broken log.
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
            danger=DANGER_WORDS.get(str(facts.get("danger"))),
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
