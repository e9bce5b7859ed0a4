"""A test for each row of the dialect tables: each has its source, and means what it says."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refusalkit.errors import (
    FatalProviderError,
    ModerationError,
    RequestError,
    TransientError,
    UnsupportedParameter,
)
from refusalkit.models import dialects
from refusalkit.models.dialects.filters import filter_in_fields
from refusalkit.models.dialects.forms import refuses_reply_form, refuses_system_role
from refusalkit.models.dialects.message import answer_text, reasoning_text
from refusalkit.models.dialects.reasoning import _tables, split_reasoning
from refusalkit.models.dialects.rows import folded, table
from refusalkit.models.openai import parse_chat_completion, parse_failure
from refusalkit.models.outcomes import ApiFailure, Reply, failure_error, read_reply
from refusalkit.types import Outcome

TABLES = sorted(path.stem for path in Path(dialects.__file__).parent.glob("*.toml"))
REASON, ANSWER = "Should this be answered? It is harmless.", "[demo answer]"
SENT = frozenset({"temperature", "top_p", "top_k", "seed", "max_tokens"})


def rows(name: str, of: str, key: str | None = None) -> pytest.MarkDecorator:
    found = table(name)[of]
    return pytest.mark.parametrize("row", found, ids=[str(row[key or of])[:40] for row in found])


def every_row() -> Iterator[Any]:
    for name in TABLES:
        for of, found in table(name).items():
            for number, row in enumerate(found):
                if isinstance(row, dict):
                    yield pytest.param(name, of, row, id=f"{name}-{of}-{number}")


@pytest.mark.parametrize(("name", "of", "row"), list(every_row()))
def test_each_row_has_its_source_and_its_day(name: str, of: str, row: dict[str, Any]) -> None:
    assert row["who"]
    assert isinstance(row["added"], datetime.date)
    source = row["source"]
    if source.startswith("like: "):
        names = {str(value) for other in table(name)[of] for value in other.values()}
        assert source.removeprefix("like: ") in names - {source}
    else:
        assert re.fullmatch(r"https://[\w.-]+/\S*", source)


@pytest.mark.parametrize(
    ("name", "of", "key"),
    [("finish", "word", "word"), ("filters", "code", "code"), ("failures", "code", "code")],
)
def test_no_word_is_in_a_table_twice(name: str, of: str, key: str) -> None:
    words = [folded(row[key]) for row in table(name)[of]]
    assert len(words) == len(set(words))


# Finish words


@rows("finish", "word")
def test_a_finish_word_means_what_its_row_says(row: dict[str, Any]) -> None:
    means, with_text = row["means"], row.get("with_text", row["means"])
    outcomes = {"fault": "error", "tools": "answered", "unsaid": "answered"}
    with_answer = read_reply(Reply(ANSWER, row["word"]))
    assert with_answer.outcome == outcomes.get(with_text, with_text)
    assert with_answer.finish_reason == row["word"]
    without = {"answered": "empty", "truncated": "no_answer", "tools": "no_answer"}
    without |= {"fault": "error", "unsaid": "empty"}
    assert read_reply(Reply("", row["word"])).outcome == without.get(means, means)


# Filters


def error(status: int, message: str = "it went wrong", **more: Any) -> Exception:
    return failure_error(ApiFailure(message, status, **more), names="x/m", sent=SENT)


@rows("filters", "code")
@pytest.mark.parametrize("status", [200, 400, 403, 422, 451, 500])
def test_a_filters_code_is_a_block_whatever_the_status(row: dict[str, Any], status: int) -> None:
    assert isinstance(error(status, code=row["code"]), ModerationError)
    assert isinstance(error(status, codes=("error", row["code"].upper())), ModerationError)


@rows("filters", "form")
def test_a_code_of_a_filters_form_is_a_block_and_a_finish_word(row: dict[str, Any]) -> None:
    assert re.fullmatch(row["form"], folded(row["example"]))
    assert isinstance(error(400, code=row["example"]), ModerationError)
    assert read_reply(Reply("", row["example"].upper())).outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    "code", ["moderation_failed", "guardrail_failed_to_respond", "request_blocked", "safety_check"]
)
def test_a_code_that_only_names_a_filter_is_no_block(code: str) -> None:
    assert not isinstance(error(400, code=code), ModerationError)


@pytest.mark.parametrize("row", [row for row in table("filters")["words"] if "page" in row])
def test_a_filters_words_in_a_page_are_a_block(row: dict[str, Any]) -> None:
    page = f"<html><body><p>{row['example']}</p></body></html>".encode()
    assert parse_failure(403, {"Content-Type": "text/html"}, None, page).filtered is not None
    # An answer with 200 that is a page is no error of the endpoint's.
    assert parse_failure(200, {"Content-Type": "text/html"}, None, page).filtered is None


def test_a_firewalls_page_is_no_block() -> None:
    page = b"<html><body>Request blocked by security policy, reference 18.2</body></html>"
    assert parse_failure(403, {"Content-Type": "text/html"}, None, page).filtered is None


@rows("filters", "words", "example")
def test_a_filters_words_are_a_block(row: dict[str, Any]) -> None:
    for status in (400, 403, 422):
        assert isinstance(error(status, row["example"]), ModerationError)
    # Without an answer the words are not a provider's: the request's own may be among them.
    unanswered = failure_error(ApiFailure(row["example"]), names="x/m")
    assert isinstance(unanswered, TransientError)
    assert re.search(row["words"], row["example"], re.IGNORECASE)


@rows("filters", "other", "example")
def test_what_only_sounds_like_a_filter_is_not_one(row: dict[str, Any]) -> None:
    assert not isinstance(error(403, row["example"]), ModerationError)
    assert not isinstance(error(451, row["example"]), ModerationError)


@rows("filters", "status")
def test_a_filters_status_is_a_block(row: dict[str, Any]) -> None:
    assert isinstance(error(row["status"]), ModerationError)


def body_with(path: list[str], value: object) -> Any:
    for step in reversed(path):
        value = [value] if step == "*" else {step: value}
    return value


@rows("filters", "field")
def test_a_filters_field_is_a_sign_in_an_answer_without_text(row: dict[str, Any]) -> None:
    path = row["field"].split(".")
    values = row.get("values", [True])
    for value in values:
        body = body_with(path, value)
        assert filter_in_fields(body) is not None
        beside = filter_in_fields(body, beside_text=True)
        assert (beside is not None) == row.get("even_with_text", False)
    for harmless in (
        None,
        False,
        0 if "0" not in values else 3,
        "",
        [],
        "NONE" if values[0] is not True else "",
    ):
        assert filter_in_fields(body_with(path, harmless)) is None


@rows("filters", "model")
def test_an_answer_that_names_a_guard_is_the_guards(row: dict[str, Any]) -> None:
    said = {"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}
    outcomes = {
        model: read_reply(parse_chat_completion({**said, "model": model}, structured=False)).outcome
        for model in (row["model"], f"{row['model']}-7b")
    }
    assert list(outcomes.values()) == [Outcome.BLOCKED, Outcome.ANSWERED]


@rows("filters", "code")
def test_a_filters_code_is_a_finish_word_too(row: dict[str, Any]) -> None:
    assert read_reply(Reply("", row["code"])).outcome is Outcome.BLOCKED


# Reasoning


def written(row: dict[str, Any]) -> tuple[str, str]:
    if "tag" in row:
        return f"<{row['tag']}>", f"</{row['tag']}>"
    return row["open"], row["close"]


MARKS = [*table("reasoning")["tag"], *table("reasoning")["pair"]]


@pytest.mark.parametrize("row", MARKS, ids=lambda row: written(row)[0].strip())
def test_a_mark_of_reasoning_sets_it_apart(row: dict[str, Any]) -> None:
    opening, closing = written(row)
    found = split_reasoning(f"{opening}\n{REASON}\n{closing}\n\n{ANSWER}")
    assert (found.final, found.reasoning, found.unclosed) == (ANSWER, REASON, False)
    cut = split_reasoning(f"{opening}{REASON}", cut=True)
    assert (cut.final, cut.reasoning, cut.unclosed) == ("", REASON, True)
    alone = split_reasoning(f"{REASON}\n{closing}\n{ANSWER}")
    if row.get("opening_always"):
        assert REASON in alone.final
    else:
        assert (alone.final, alone.reasoning) == (ANSWER, REASON)
    prose = f"The mark `{opening.strip()}` begins it, `{closing.strip()}` ends it. {ANSWER}"
    assert "\n" in closing or split_reasoning(prose).final == prose
    assert opening[0] in _tables().begins


@rows("reasoning", "pattern", "example")
def test_a_pattern_of_reasoning_sets_it_apart(row: dict[str, Any]) -> None:
    text = row["example"].replace("REASON", REASON).replace("ANSWER", ANSWER)
    found = split_reasoning(text)
    assert found.final == ANSWER
    assert REASON in found.reasoning
    cut = split_reasoning(text[: text.index(REASON) + len(REASON)], cut=True)
    assert (cut.final, cut.unclosed) == ("", True)
    assert text[0] in _tables().begins


@rows("reasoning", "wrapper", "open")
def test_a_wrapper_is_taken_off_the_answer(row: dict[str, Any]) -> None:
    wrapped = f"{row['open']}\n{ANSWER}\n{row['close']}"
    assert split_reasoning(f"<think>{REASON}</think>\n{wrapped}").final == ANSWER
    assert split_reasoning(wrapped, apart=True).final == ANSWER
    assert (split_reasoning(wrapped).final == ANSWER) == row.get("always", False)


@rows("reasoning", "field")
def test_a_field_of_reasoning_is_kept_apart(row: dict[str, Any]) -> None:
    message = {"content": ANSWER, row["field"]: REASON}
    assert (answer_text(message["content"]), reasoning_text(message)) == (ANSWER, REASON)
    listed = {"content": ANSWER, row["field"]: [{"type": "x", "text": REASON}]}
    assert reasoning_text(listed) == REASON


@rows("reasoning", "part")
def test_a_part_of_reasoning_is_kept_apart(row: dict[str, Any]) -> None:
    for key in ("text", "thinking", "reasoning"):
        content = [{"type": row["part"], key: REASON}, {"type": "text", "text": ANSWER}]
        assert answer_text(content) == ANSWER
        assert reasoning_text({"content": content}) == REASON


# Special tokens


@rows("tokens", "first", "example")
def test_a_leading_token_is_taken_off(row: dict[str, Any]) -> None:
    assert split_reasoning(row["example"] + ANSWER).final == ANSWER
    found = split_reasoning(f"{row['example']}<think>{REASON}</think>{ANSWER}")
    assert (found.final, found.reasoning) == (ANSWER, REASON)
    assert re.match(row["first"], row["example"])


@rows("tokens", "last")
def test_a_trailing_token_is_taken_off(row: dict[str, Any]) -> None:
    assert split_reasoning(ANSWER + row["last"]).final == ANSWER
    assert split_reasoning(f"{ANSWER}\n{row['last']}{row['last']}\n").final == ANSWER
    spoken = f"The token {row['last']} ends a turn, as everybody knows who has read about it."
    assert split_reasoning(spoken).final == spoken


# Parameters


@rows("parameters", "words", "example")
def test_a_refusal_of_a_parameter_names_it(row: dict[str, Any]) -> None:
    for status in (400, 422):
        refused = error(status, row["example"])
        assert isinstance(refused, UnsupportedParameter)
        assert refused.parameter in row["example"]
    assert re.search(row["words"], row["example"], re.IGNORECASE)


@rows("forms", "format", "example")
def test_a_refusal_of_a_reply_form_is_known(row: dict[str, Any]) -> None:
    assert refuses_reply_form(row["example"], None)
    assert not refuses_system_role(row["example"])
    assert re.search(row["words"], row["example"], re.IGNORECASE)


@rows("forms", "system", "example")
def test_a_refusal_of_the_system_role_is_known(row: dict[str, Any]) -> None:
    assert refuses_system_role(row["example"])
    assert not refuses_reply_form(row["example"], None)
    assert re.search(row["words"], row["example"], re.IGNORECASE)


@rows("parameters", "value", "example")
def test_a_complaint_about_a_value_leaves_nothing_out(row: dict[str, Any]) -> None:
    assert type(error(400, row["example"])) is RequestError


@pytest.mark.parametrize(
    ("message", "parameter", "named"),
    [
        ("This model works best without top_k, please drop it", None, "top_k"),
        ("We do not do top_k here", None, "top_k"),
        ("Nope", "top_k", "top_k"),
        ("Nope", "body.top_k", "top_k"),
        ("body.top_k : Extra inputs are not permitted", None, "top_k"),
        ("Nope", "messages.top_k", None),
        ("Nope", None, None),
        ("bad request: temperature, top_p and seed", None, None),
        ("temperature must be between 0 and 1", None, None),
        ("temperature must be 1", None, "temperature"),
        ("temperature should be set to 1.0 for this model", None, "temperature"),
        ("`temperature` may only be 1 when thinking is enabled", None, "temperature"),
        ("specify either temperature or top_p, but not both", None, "top_p"),
        ("max_tokens must not be used with top_k", None, None),
        ("Model m does not support parameter topP.", None, "top_p"),
        ("Top-K sampling is not supported", None, "top_k"),
        ("Temperature is not supported", None, "temperature"),
        ("model doubao-Seed-1.6 is not supported", None, None),
        ("maxTokens is not supported with topK", None, None),
        ("Nope", "topK", "top_k"),
    ],
)
def test_a_parameter_is_left_out_in_any_wording_where_it_is_clear_which(
    message: str, parameter: str | None, named: str | None
) -> None:
    refused = error(400, message, parameter=parameter)
    if named is None:
        assert type(refused) is RequestError
    else:
        assert isinstance(refused, UnsupportedParameter)
        assert refused.parameter == named


# Failures


FAILURES = {"fault": TransientError, "request": RequestError}


@rows("failures", "code")
def test_a_failures_code_ends_the_run_at_its_start_but_for_a_fault(row: dict[str, Any]) -> None:
    expected = FAILURES.get(row["means"], FatalProviderError)
    assert type(error(400, code=row["code"])) is expected


@rows("failures", "words", "example")
def test_a_failures_words_end_the_run_at_its_start_but_for_a_fault(row: dict[str, Any]) -> None:
    expected = FAILURES.get(row["means"], FatalProviderError)
    assert type(error(404, row["example"])) is expected


def test_no_vendors_word_is_in_the_code() -> None:
    """What endpoints say is in the tables: a word of a table is in no module beside them."""
    words = {row["word"] for row in table("finish")["word"] if len(row["word"]) > 7}
    words |= {row["code"] for row in table("filters")["code"] if len(row["code"]) > 7}
    # Words of the project's own, and of the two protocols that it speaks.
    words -= {
        "answered",
        "truncated",
        "no_answer",
        "completed",
        "canceled",
        "cancelled",
        "complete",
    }
    words -= {"max_tokens", "max_completion_tokens", "rate_limit_exceeded", "server_error"}
    models = Path(dialects.__file__).parents[1]
    for path in sorted(models.rglob("*.py")):
        if path.name == "demo.py":
            continue  # scripted models speak OpenAI's words
        said = set(re.findall(r"\"([\w.]+)\"", path.read_text(encoding="utf-8")))
        assert not said & words, f"{path.name}: {said & words}"


def test_outcomes_are_those_of_the_contract() -> None:
    means = {row["means"] for row in table("finish")["word"]}
    assert means <= {*map(str, Outcome), "tools", "fault", "unsaid"}
