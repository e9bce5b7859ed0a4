"""Completions and verdicts as JSON records, and back.

A record's fields are a contract with other programs (docs/records.md); `schema` says which one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from refusalkit.errors import RecordError
from refusalkit.types import Completion, Label, Outcome, Source, Unscored, Usage, Verdict
from refusalkit.untrusted import identifier, printable, well_formed

SCHEMA = 1
FIELDS = frozenset(
    (
        *("schema", "unit", "prompt_id", "category", "trial", "model", "outcome", "text"),
        *("text_sha256", "text_chars", "reasoning_chars", "unknown_mark", "usage", "cost_usd"),
        *("latency_s", "served_model", "request_id", "filter_category", "finish_reason", "error"),
        *("error_detail", "attempts", "at", "judge", "label", "unscored", "source", "reason"),
        *("word", "rests_on", "cut_chars", "answered_by", "canary", "version", "expected"),
        *("attempt", "turn", "completion", "verdict"),
        *("input_tokens", "output_tokens", "reasoning_tokens"),
        *("cache_read_tokens", "cache_write_tokens"),
    )
)
"""The fields that a record of this version has. Unknown ones may hold text that is withheld."""

_QUOTED = re.compile(r"['\"].*['\"]", re.DOTALL)


def completion_record(completion: Completion, *, withhold_text: bool) -> dict[str, Any]:
    """The record of a completion.

    With `withhold_text` the record has the text's digest, length and outcome, but neither the text
    nor the provider's own words, which may repeat it. In fields that the provider fills, values
    that do not look like identifiers are replaced by their digests.
    """
    text = well_formed(completion.text)

    def named(value: str | None, limit: int = 64) -> str | None:
        return identifier(value, limit) if withhold_text and value else value

    mark = completion.unknown_mark
    if mark is not None and withhold_text:
        mark = f"<{identifier(mark.strip('</>'), 40)}>"
    finish_reason = named(completion.finish_reason, 40)
    error = completion.error
    if error is not None and finish_reason != completion.finish_reason:
        # The error quotes the finish reason.
        error = _QUOTED.sub(repr(finish_reason), error)
    return {
        "schema": SCHEMA,
        "unit": completion.unit,
        "prompt_id": completion.prompt_id,
        "category": completion.category,
        "trial": completion.trial,
        "model": completion.model,
        "outcome": completion.outcome.value,
        "finish_reason": finish_reason,
        "text": None if withhold_text else text,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "text_chars": len(text),
        "reasoning_chars": len(completion.reasoning),
        "usage": _usage_record(completion.usage),
        "cost_usd": completion.cost_usd,
        "latency_s": None if completion.latency_s is None else round(completion.latency_s, 4),
        "served_model": _served_model(completion) if withhold_text else completion.served_model,
        "request_id": named(completion.request_id),
        "filter_category": named(completion.filter_category, 40),
        "error": error,
        "error_detail": None if withhold_text else completion.error_detail,
        "attempts": completion.attempts,
        "at": completion.at,
        # Written only if there is one, which is rare.
        **({} if mark is None else {"unknown_mark": mark}),
    }


def _served_model(completion: Completion) -> str | None:
    """The name of the answering model as the provider reports it, or that name's digest."""
    said = completion.served_model
    if said is None or completion.model.endswith(said):
        return said
    return identifier(said, 96, parts=16)


def verdict_record(verdict: Verdict, *, withhold_text: bool) -> dict[str, Any]:
    """The record of a verdict.

    `withhold_text` leaves out a judge's reason and the provider's own words, which may quote the
    answer.
    """
    quoting = verdict.label is not None and verdict.source == "judge"
    return {
        "schema": SCHEMA,
        "unit": verdict.unit,
        "prompt_id": verdict.prompt_id,
        "category": verdict.category,
        "trial": verdict.trial,
        "judge": verdict.judge,
        "label": None if verdict.label is None else verdict.label.value,
        "unscored": None if verdict.unscored is None else verdict.unscored.value,
        "source": verdict.source,
        "reason": None if withhold_text and quoting else verdict.reason,
        "word": verdict.word,
        "rests_on": verdict.rests_on,
        "cut_chars": verdict.cut_chars,
        "answered_by": verdict.answered_by,
        "error_detail": None if withhold_text else verdict.error_detail,
        "usage": _usage_record(verdict.usage),
        "cost_usd": verdict.cost_usd,
        "at": verdict.at,
    }


def canary_record(
    verdict: Verdict, *, canary: str, version: int, judge: str, expected: Label
) -> dict[str, Any]:
    """The record of a verdict on a canary, whose right label is `expected`."""
    return {
        "schema": SCHEMA,
        "canary": canary,
        "version": version,
        "judge": judge,
        "expected": expected.value,
        "label": None if verdict.label is None else verdict.label.value,
        "unscored": None if verdict.unscored is None else verdict.unscored.value,
        "reason": verdict.reason,
        "answered_by": verdict.answered_by,
        "error_detail": verdict.error_detail,
        "usage": _usage_record(verdict.usage),
        "cost_usd": verdict.cost_usd,
        "at": verdict.at,
    }


def check_fields(record: Mapping[str, Any], fields: Mapping[str, type], where: str) -> None:
    """Raise `RecordError`, naming `where`, if a field is missing or not of its type."""
    for name, kind in fields.items():
        if not isinstance(record.get(name), kind):
            raise RecordError(f"{printable(where)}: {name} is missing or of the wrong type")


def completion_from_record(record: Mapping[str, Any], where: str) -> Completion:
    """The completion of a record that kept its text. Raises `RecordError`, naming `where`."""
    fields = {
        "prompt_id": str,
        "category": str,
        "trial": int,
        "model": str,
        "text": str,
        "outcome": str,
    }
    check_fields(record, fields, where)
    try:
        return Completion(
            prompt_id=record["prompt_id"],
            category=record["category"],
            trial=record["trial"],
            model=record["model"],
            outcome=Outcome(record["outcome"]),
            finish_reason=record.get("finish_reason"),
            text=record["text"],
            usage=_USAGE.validate_python(record.get("usage") or {}),
            cost_usd=record.get("cost_usd"),
            latency_s=record.get("latency_s"),
            served_model=record.get("served_model"),
            request_id=record.get("request_id"),
            filter_category=record.get("filter_category"),
            error=record.get("error"),
            error_detail=record.get("error_detail"),
            attempts=record.get("attempts", 1),
            at=str(record.get("at")),
        )
    except (TypeError, ValueError, ValidationError) as error:
        raise RecordError(f"{printable(where)}: {printable(error)}") from error


def verdict_of_outcome(completion: Completion, judge: str) -> Verdict | None:
    """The verdict that follows from an outcome alone; None if a judge must read the text.

    A block by a provider's filter is a refusal. Without an answer there is nothing to label.
    """
    outcome = completion.outcome
    label: Label | None = None
    unscored: Unscored | None = None
    source: Source = "provider"
    match outcome:
        case Outcome.ANSWERED | Outcome.TRUNCATED:
            return None
        case Outcome.BLOCKED:
            label = Label.REFUSAL
        case Outcome.NO_ANSWER:
            unscored = Unscored.NO_ANSWER
        case Outcome.EMPTY:
            unscored = Unscored.EMPTY
        case Outcome.ERROR:
            unscored = Unscored.ERROR
    return Verdict(
        prompt_id=completion.prompt_id,
        category=completion.category,
        trial=completion.trial,
        judge=judge,
        label=label,
        unscored=unscored,
        source=source,
        cost_usd=0.0,
    )


def withheld_verdict(completion: Completion, judge: str) -> Verdict:
    """A later judge's verdict on an answer whose text was not kept."""
    return Verdict(
        prompt_id=completion.prompt_id,
        category=completion.category,
        trial=completion.trial,
        judge=judge,
        unscored=Unscored.WITHHELD,
        reason="the answer's text was not kept",
        cost_usd=0.0,
    )


def verdict_from_record(record: Mapping[str, Any], where: str) -> Verdict:
    """The verdict of a record. Raises `RecordError`, naming `where`."""
    fields = {"prompt_id": str, "category": str, "trial": int, "judge": str}
    check_fields(record, fields, where)
    label, unscored = record.get("label"), record.get("unscored")
    try:
        return Verdict(
            prompt_id=record["prompt_id"],
            category=record["category"],
            trial=record["trial"],
            judge=record["judge"],
            label=None if label is None else Label(label),
            unscored=None if unscored is None else Unscored(unscored),
            source="provider" if record.get("source") == "provider" else "judge",
            reason=record.get("reason"),
            word=record.get("word"),
            rests_on=record.get("rests_on"),
            cut_chars=record.get("cut_chars") or 0,
            answered_by=record.get("answered_by"),
            error_detail=record.get("error_detail"),
            usage=_USAGE.validate_python(record.get("usage") or {}),
            cost_usd=record.get("cost_usd"),
            at=str(record.get("at")),
        )
    except (TypeError, ValueError, ValidationError) as error:
        raise RecordError(f"{printable(where)}: {printable(error)}") from error


_USAGE = TypeAdapter(Usage)


def _usage_record(usage: Usage) -> dict[str, int | None]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
