"""Reads other evaluation programs' logs as recorded answers.

Which field holds what is data, in log_formats.toml. This module reads the shapes that the formats
share: a prompt is a text or a conversation; an answer is a text, a message, or a list of them.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from refusalkit import jsonl
from refusalkit.errors import RecordError
from refusalkit.files import MAX_LINE, open_file, read_json_file
from refusalkit.models.dialects.message import answer_text
from refusalkit.runs.imported.answers import AnswerCollector, RecordedAnswers
from refusalkit.types import Judgement, Label, Message
from refusalkit.untrusted import printable

FACTS = Path(__file__).with_name("log_formats.toml")
# How deep a list of answers may be nested.
_MAX_DEPTH = 6
_ROLES = {"human": "user", "model": "assistant", "developer": "system"}
_MISSING = object()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LogJudge(_Strict):
    """A judgement in an answer's record; log_formats.toml explains each field."""

    value: str
    words: Mapping[str, Label]
    name: str | None = None
    named: str | None = None
    within: str | None = None
    field: str | None = None


class LogFormat(_Strict):
    """The log format of one program; log_formats.toml explains each field."""

    name: str
    source: str
    met: str
    has: tuple[str, ...]
    prompt: tuple[str, ...]
    answers: tuple[str, ...]
    only: Mapping[str, str | int] = Field(default_factory=dict)
    records: str | None = None
    conversation: str | None = None
    id: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    first_of: str | None = None
    judge: tuple[LogJudge, ...] = ()

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a record has the format's fields."""
        return all(_at(record, path) is not _MISSING for path in self.has)


class _Line(BaseModel):
    """Any JSON object."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


@cache
def log_formats() -> tuple[LogFormat, ...]:
    """The known formats, in the order in which they are tried."""
    rows = tomllib.loads(FACTS.read_text("utf-8"))["format"]
    return tuple(map(LogFormat.model_validate, rows))


def log_format_of(path: Path) -> LogFormat | None:
    """The format of a .json or JSONL file, by its first record; None for any other."""
    if path.suffix.lower() == ".json":
        try:
            document = jsonl.from_bytes(read_json_file(path))
        except (OSError, ValueError, RecursionError):
            return None
        found = (each for each in log_formats() if each.records is not None)
        return next((each for each in found if _first(_list(document, each), each)), None)
    try:
        with open_file(path) as lines:
            first = lines.readline(MAX_LINE)
        record = jsonl.from_bytes(first)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or {"prompt", "response"} <= record.keys():
        return None  # the plain format
    return next((each for each in log_formats() if each.is_of(record)), None)


def read_log(path: Path, log: LogFormat) -> RecordedAnswers:
    """The answers of a file in a known format, and the judgements in it.

    Failed requests and records without an answer are counted as left out. `lacks` names what no
    record has. Raises `RecordError`, naming file and record.
    """
    found = AnswerCollector()
    said: set[str] = set()
    first: Any = _MISSING
    for place, record in _joined(_records(path, log), log):
        if not all(_at(record, name) == value for name, value in log.only.items()):
            continue
        if not log.is_of(record) and log.conversation is None:
            found.left_out["another kind of record"] += 1
            continue
        if log.first_of is not None:
            value = _at(record, log.first_of)
            first = value if first is _MISSING else first
            if value != first:
                continue
        said |= _collect(found, place, record, log)
    return found.finish(path, lacks=_lacks(log, said))


def _collect(
    found: AnswerCollector, place: str, record: Mapping[str, Any], log: LogFormat
) -> set[str]:
    """Add the answers of one record; returns the names of the other facts that it has."""
    system, turns, last = _conversation(_first_at(record, log.prompt))
    error = _text(_first_at(record, log.error))
    blocked = error in log.blocked and error is not None
    if error in ("none", ""):
        error = None
    given = _first_at(record, log.answers)
    texts = [last] if last is not None else list(_texts(given))
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        found.left_out["no prompt"] += 1
        return set()
    if error is not None and not blocked and not any(texts):
        found.left_out["error"] += 1
        return set()
    if blocked and not texts:
        texts = [""]
    if not texts:
        found.left_out["no answer"] += 1
        return set()
    named = _first_at(record, log.id)
    category = _text(_first_at(record, log.category))
    finish = "content_filter" if blocked else _text(_first_at(record, log.finish))
    model = _text(_first_at(record, log.model))
    prompt_id = str(named) if isinstance(named, str | int) else _known_by_text(system, turns)
    units = []
    for text in texts:
        unit = found.add(
            place,
            prompt_id,
            turns[-1].content,
            text,
            category=category,
            system=system,
            messages=tuple(turns) if len(turns) > 1 else (),
        )
        units.append(unit)
        if finish is not None:
            found.finish_reasons[unit] = finish
        if model is not None:
            found.origins[unit] = {"model": model}
    judged = [judge for judge in log.judge if _judged(found, record, judge, units)]
    facts = {"category": category, "finish": finish, "model": model, "judge": judged or None}
    return {name for name, value in facts.items() if value is not None}


def _judged(
    found: AnswerCollector, record: Mapping[str, Any], judge: LogJudge, units: Sequence[str]
) -> bool:
    """Keep a judge's judgement in the record; returns whether there is one."""
    name = judge.name if judge.named is None else _text(_at(record, judge.named))
    value = _at(record, judge.value)
    if judge.within is not None:
        entries = _at(record, judge.within)
        mine = [e for e in _entries(entries) if _at(e, judge.field or "") == judge.name]
        value = _at(mine[0], judge.value) if mine else _MISSING
    values = value if isinstance(value, list) else [value] * len(units)
    labels = [judge.words.get(_word(each)) for each in values]
    if name is None or len(labels) != len(units) or not any(labels):
        return False
    for unit, label in zip(units, labels, strict=True):
        found.judged(name, unit, Judgement(label))
    return True


def _lacks(log: LogFormat, said: set[str]) -> str | None:
    """What no record has, and what follows from that, in one sentence."""
    missing = {
        "category": "categories (all prompts are one, and --hard-line can only name that)",
        "finish": "finish reasons (an answer that was cut off looks whole)",
        "model": "the model's name",
        "judge": "judgements of refusals to compare with",
    }
    names = [what for name, what in missing.items() if name not in said]
    if not names:
        return None
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{log.name}: the file does not have {listed}"


def _records(path: Path, log: LogFormat) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each record with its place."""
    if log.records is None or path.suffix.lower() != ".json":
        for place, line in jsonl.read_lines(path, _Line):
            yield place, line.model_extra or {}
        return
    document = jsonl.from_bytes(read_json_file(path))
    for number, record in enumerate(_list(document, log), 1):
        place = f"{printable(path)}: record {number}"
        if not isinstance(record, dict):
            raise RecordError(f"{place}: is not a JSON object")
        yield place, record


def _joined(
    records: Iterable[tuple[str, Mapping[str, Any]]], log: LogFormat
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records as they are, but message pieces joined to one record for each conversation."""
    if log.conversation is None:
        yield from records
        return
    pieces: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for place, record in records:
        pieces.setdefault(str(_at(record, log.conversation)), []).append((place, record))
    for conversation in pieces.values():
        ordered = sorted(conversation, key=lambda piece: _number(piece[1].get("sequence")))
        messages = [
            {"role": piece.get("role"), "content": _piece_text(piece)} for _, piece in ordered
        ]
        place, last = ordered[-1]
        facts = {k: v for _, piece in ordered for k, v in piece.items() if v not in (None, [], {})}
        yield place, {**facts, "response_error": last.get("response_error"), "messages": messages}


def _piece_text(piece: Mapping[str, Any]) -> str:
    """The text of a message as sent or received, after any converter."""
    if piece.get("response_error") not in (None, "none"):
        return ""  # the text there is the error's
    text = piece.get("converted_value")
    return str(piece.get("original_value") or "") if text is None else str(text)


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _conversation(value: Any) -> tuple[str | None, list[Message], str | None]:
    """(system message, turns up to the last request, the answer if it is the last turn)."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        chat = _as_chat(value)
        if chat is None:
            return None, [Message("user", value)] if value.strip() else [], None
        value = chat
    if isinstance(value, dict):
        value = value.get("turns") or value.get("messages")
    system: str | None = None
    turns: list[Message] = []
    for message in _entries(value):
        role = _ROLES.get(str(message.get("role")), str(message.get("role")))
        text = answer_text(message.get("content"))
        if role == "system":
            system = text if system is None else f"{system}\n\n{text}"
        elif role == "user":
            turns.append(Message("user", text))
        elif role == "assistant":
            turns.append(Message("assistant", text))
        else:
            return None, [], None  # a tool's turn: not a conversation that can be judged
    last = turns.pop().content if turns and turns[-1].role == "assistant" else None
    return system, turns, last


def _as_chat(text: str) -> list[Any] | None:
    """The chat messages that a text holds as JSON, or None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = jsonl.from_bytes(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    chat = isinstance(found, list) and found and all(isinstance(m, dict) for m in found)
    return found if chat and all("role" in message for message in found) else None


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """The answers in a value, one for each trial; values that are not text are skipped."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < _MAX_DEPTH:
        # A pair of a log likelihood and whether greedy decoding would give it.
        likelihood = len(value) == 2 and str(value[1]) in ("True", "False")
        for each in () if likelihood else value:
            yield from _texts(each, depth + 1)
    elif isinstance(value, dict) and isinstance(value.get("message"), dict):
        yield from _texts(value["message"], depth + 1)  # one of a response's choices
    elif isinstance(value, dict) and "content" in value:
        yield answer_text(value["content"])
    elif isinstance(value, dict) and isinstance(value.get("text"), str):
        yield value["text"]


def _known_by_text(system: str | None, turns: Sequence[Message]) -> str:
    text = json.dumps([system, *((turn.role, turn.content) for turn in turns)])
    return f"prompt-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _list(document: Any, log: LogFormat) -> list[Any]:
    found = _at(document, log.records) if log.records else document
    return found if isinstance(found, list) else []


def _first(records: Sequence[Any], log: LogFormat) -> bool:
    return bool(records) and isinstance(records[0], dict) and log.is_of(records[0])


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _first_at(record: Mapping[str, Any], paths: Sequence[str]) -> Any:
    found = (_at(record, path) for path in paths)
    return next((value for value in found if value is not _MISSING and value is not None), None)


def _at(value: Any, path: str) -> Any:
    """What is at a path, or `_MISSING`."""
    for step in path.split("/"):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
