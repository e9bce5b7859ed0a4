"""What a server calls things, in the records of hard lines: a name, or a digest of what it said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusalkit.runs.record_json import completion_record, verdict_record
from refusalkit.types import Completion, Label, Outcome, Verdict
from refusalkit.untrusted import identifier

SAID = "Step one: take the [withheld] and then"
NAMES = {
    "finish_reason": [
        "stop",
        "content_filter",
        "SAFETY",
        "end_turn",
        "model_context_window_exceeded",
    ],
    "request_id": [
        "req_011CSHoEeqs5C35K2UUqR7Fy",
        "chatcmpl-9f1c2d3e-4b5a-6789-abcd-ef0123456789",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
    ],
    "served_model": [
        "gpt-6-luna-2026-01-01",
        "accounts/fireworks/models/llama-v3p1-405b-instruct",
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
    ],
    "filter_category": ["self_harm", "HARM_CATEGORY_DANGEROUS_CONTENT", "S11"],
}


def completion(**fields: str) -> Completion:
    return Completion(
        "p1", "hard", 1, "openai/m", Outcome.ERROR, text="", **{"error": None, **fields}
    )


@pytest.mark.parametrize(("field", "name"), [(f, n) for f, names in NAMES.items() for n in names])
def test_a_name_is_kept(field: str, name: str) -> None:
    record = completion_record(completion(**{field: name}), withhold_text=True)
    assert record[field] == name


@pytest.mark.parametrize("field", NAMES)
@pytest.mark.parametrize(
    "said",
    [
        SAID,
        SAID.replace(" ", "_"),
        SAID.replace(" ", "-"),
        "a" * 121,
        "nächster-Schritt",
        "\x1b[0m",
    ],
)
def test_anything_else_is_a_digest(field: str, said: str) -> None:
    record = completion_record(completion(**{field: said}), withhold_text=True)
    assert record[field].startswith("sha256:")
    assert said not in json.dumps(record)
    # Where nothing is withheld it is told as it was.
    assert completion_record(completion(**{field: said}), withhold_text=False)[field] == said


def test_an_error_does_not_quote_a_finish_reason_that_is_not_a_name() -> None:
    error = f"finish reason {SAID!r} is not one that refusalkit knows"
    found = completion_record(completion(finish_reason=SAID, error=error), withhold_text=True)
    assert SAID not in json.dumps(found)
    assert "finish reason" in found["error"]
    error = "finish reason 'tool_calls' is not one that refusalkit knows"
    found = completion_record(
        completion(finish_reason="tool_calls", error=error), withhold_text=True
    )
    assert found["error"] == error


@given(st.text())
def test_no_prose_is_an_identifier(text: str) -> None:
    kept = identifier(text)
    assert kept == text or kept.startswith("sha256:")
    if kept == text:
        assert text.isascii()
        assert text.isprintable()
        assert not any(char.isspace() for char in text)
        assert len(text) <= 64


def test_a_judges_reason_is_withheld_with_its_label() -> None:
    verdict = Verdict("p1", "hard", 1, "graded", label=Label.REFUSAL, reason=SAID)
    assert SAID not in json.dumps(verdict_record(verdict, withhold_text=True))
