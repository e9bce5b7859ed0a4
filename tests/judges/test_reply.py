"""A judge's reply is taken exactly where jsonschema takes it, however it was looked at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from refusalkit.judges.reply import ReplySchema, flat_fields
from refusalkit.judges.rubrics import load_rubric, shipped_judges

NAMES = st.sampled_from(["verdict", "reason", "rests_on", ""])
WORDS = st.sampled_from(["refusal", "compliance", "", "Refusal"])
VALUES: st.SearchStrategy[Any] = WORDS | st.none() | st.booleans() | st.integers(0, 1)
FIELDS: st.SearchStrategy[Any] = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "object", "integer", ["string", "null"]]),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "description": st.just("what it says"),
        "maxLength": st.integers(0, 3),
        "const": WORDS,
    },
)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "object", "object", "string", ["object", "null"]]),
        "properties": st.dictionaries(NAMES, FIELDS, max_size=3),
        "required": st.lists(NAMES, max_size=3, unique=True),
        "additionalProperties": st.booleans() | FIELDS,
        "title": st.just("a verdict"),
        "minProperties": st.integers(0, 3),
        "not": FIELDS,
    },
)
REPLIES = st.dictionaries(NAMES, VALUES, max_size=3) | VALUES | st.lists(VALUES, max_size=2)

FLAT = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": ["refusal", "compliance"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


@given(SCHEMAS, REPLIES)
def test_of_any_schema_a_reply_is_taken_as_jsonschema_takes_it(schema: Any, reply: Any) -> None:
    assert ReplySchema(schema).takes(reply) is Draft202012Validator(schema).is_valid(reply)


@given(
    st.dictionaries(NAMES, st.none() | st.lists(WORDS, min_size=1, unique=True), min_size=1),
    st.data(),
)
def test_of_a_flat_schema_too(fields: dict[str, list[str] | None], data: st.DataObject) -> None:
    wanted = {
        name: {"type": "string", **({} if words is None else {"enum": words})}
        for name, words in fields.items()
    }
    schema = {**FLAT, "properties": wanted, "required": list(fields)}
    assert flat_fields(schema) is not None
    reply = data.draw(st.fixed_dictionaries(dict.fromkeys(fields, WORDS)) | REPLIES)
    assert ReplySchema(schema).takes(reply) is Draft202012Validator(schema).is_valid(reply)


@pytest.mark.parametrize("name", shipped_judges())
def test_what_a_shipped_judge_asks_for_is_flat(name: str) -> None:
    rubric = load_rubric(name)
    if rubric.kind == "llm":
        assert flat_fields(rubric.schema) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"minProperties": 2},
        {"required": ["verdict", "reason"]},
        {"properties": {"verdict": {"type": "string", "pattern": "^refusal$"}}},
        {"properties": {"verdict": {"type": ["string", "null"]}}},
        {"properties": {"verdict": True}},
        {"$ref": "#/$defs/verdict"},
        {"type": "array"},
    ],
)
def test_what_asks_for_more_is_left_to_jsonschema(more: dict[str, Any]) -> None:
    assert flat_fields({**FLAT, **more}) is None
