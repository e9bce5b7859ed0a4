"""The closed world: every finish reason and every failure has one meaning, the unknown is an error.

What a provider's answer amounts to is decided in `refusalkit.models.outcomes` alone: no network.
"""

from __future__ import annotations

import time
import unicodedata
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusalkit.errors import (
    FatalProviderError,
    ModerationError,
    ProviderError,
    RequestError,
    TransientError,
    UnsupportedParameter,
)
from refusalkit.models.dialects.finish import Means, known_finish, parse_finish_word
from refusalkit.models.dialects.reasoning import split_reasoning
from refusalkit.models.dialects.rows import table
from refusalkit.models.outcomes import (
    ApiFailure,
    Reply,
    failure_error,
    parse_retry_after,
    read_reply,
)
from refusalkit.types import Outcome, Usage

ANSWER = "[demo answer]"
KNOWN = [row["word"] for row in table("finish")["word"]]
# Texts that look like tags, with everything JSON can carry: lone surrogates too.
texts = st.text(st.characters(exclude_categories=()), max_size=30)
tags = st.sampled_from(
    ["<think>", "</think>", "<THINK>", "</Thinking>", "<thinking>", "<think", ">"]
)
tagged = st.lists(st.one_of(texts, tags), max_size=8).map("".join)
usages = st.builds(Usage, st.none(), st.none(), st.none() | st.integers(0, 9))
replies = st.builds(
    Reply,
    text=tagged,
    finish_reason=st.none() | st.sampled_from(KNOWN) | texts,
    reasoning=tagged,
    usage=usages,
)


def harmless(text: str) -> bool:
    """Whether it can neither steer a terminal nor reorder what a reader sees."""
    return not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)


# Finish reasons


@pytest.mark.parametrize("word", ["quantum_flux", "Stopp", "stop_the_press", "42", "x: y"])
def test_a_finish_word_that_no_table_has_is_an_error_that_names_it(word: str) -> None:
    reading = read_reply(Reply(ANSWER, word))
    assert reading.outcome is Outcome.ERROR
    assert reading.error == f"unknown finish reason {word!r}"
    assert reading.unknown_finish == word


@pytest.mark.parametrize(
    "word", ["MAX_TOKENS", "maxTokens", "max-tokens", "FinishReason.MAX_TOKENS"]
)
def test_a_finish_word_is_known_however_it_is_written(word: str) -> None:
    reading = read_reply(Reply(ANSWER, word))
    assert (reading.outcome, reading.finish_reason) == (Outcome.TRUNCATED, word)


@pytest.mark.parametrize(
    ("word", "native", "outcome", "kept"),
    [
        ("stop", "refusal", "blocked", "refusal"),
        ("content_filter", "RECITATION", "no_answer", "RECITATION"),
        ("content_filter: LANGUAGE", None, "no_answer", "content_filter: LANGUAGE"),
        ("content_filter", "SAFETY", "blocked", "SAFETY"),
        ("content_filter", "stop", "blocked", "content_filter"),
        ("content_filter", "max_tokens", "blocked", "content_filter"),
        ("stop", "MAX_TOKENS", "truncated", "MAX_TOKENS"),
        ("stop", "something new", "answered", "stop"),
        ("something new", "end_turn", "answered", "end_turn"),
    ],
)
def test_of_a_gateways_word_and_its_providers_the_more_specific_counts(
    word: str, native: str | None, outcome: str, kept: str
) -> None:
    reading = read_reply(Reply(ANSWER, word, native_reason=native))
    assert (reading.outcome, reading.finish_reason) == (outcome, kept)


def test_an_answer_without_a_finish_word_is_judged() -> None:
    for word in (None, "", "null", "FINISH_REASON_UNSPECIFIED"):
        assert read_reply(Reply(ANSWER, word)).outcome is Outcome.ANSWERED
        assert read_reply(Reply("", word)).outcome is Outcome.EMPTY
        assert read_reply(Reply("", word, "thoughts")).outcome is Outcome.NO_ANSWER


def test_a_user_says_what_a_word_means() -> None:
    words = dict(
        [parse_finish_word("quantum_flux=answered"), parse_finish_word("Flux-Out=blocked")]
    )
    assert read_reply(Reply(ANSWER, "QuantumFlux", finish_words=words)).outcome == "answered"
    assert read_reply(Reply("", "flux_out", finish_words=words)).outcome == "blocked"
    for wrong in ("stop=blocked", "flux", "flux=refused", "=answered", "flux=fault"):
        with pytest.raises(ValueError, match=r"WORD=OUTCOME|is known"):
            parse_finish_word(wrong)


@given(texts.filter(lambda word: known_finish(word) is None), tagged, tagged)
def test_whatever_else_came_an_unknown_finish_word_is_an_error(
    word: str, text: str, reasoning: str
) -> None:
    reading = read_reply(Reply(text, word, reasoning))
    assert reading.outcome is Outcome.ERROR
    assert str(reading.error).startswith("unknown finish reason ")
    assert harmless(str(reading.error))
    if word.isascii() and word.isalnum():
        assert word in str(reading.error)


@given(replies)
def test_any_reply_amounts_to_exactly_one_outcome(reply: Reply) -> None:
    reading = read_reply(reply)
    assert reading.outcome in Outcome
    assert (reading.error is not None) == (reading.outcome is Outcome.ERROR)
    # A judge gets final text, and only final text.
    judged = reading.outcome in (Outcome.ANSWERED, Outcome.TRUNCATED)
    assert not judged or reading.text.strip()
    if reading.outcome is Outcome.EMPTY:
        assert reading.text == ""
    if reading.outcome is Outcome.NO_ANSWER and reading.text:
        # Cut off by the provider for a reason that is no refusal, such as recitation.
        stop = known_finish(str(reply.finish_reason))
        assert stop is not None
        assert stop.with_text is Means.NO_ANSWER
    for part in (reading.text, reading.reasoning):
        part.encode("utf-8")  # fit for a file


# What an answer amounts to


@pytest.mark.parametrize(
    ("reply", "outcome", "text"),
    [
        (Reply(ANSWER, "stop"), "answered", ANSWER),
        (Reply(ANSWER, "stop", "thoughts"), "answered", ANSWER),
        (Reply(f"<think>t</think>{ANSWER}", "stop"), "answered", ANSWER),
        (Reply("[demo", "length"), "truncated", "[demo"),
        (Reply("<think>t</think>[demo", "max_tokens"), "truncated", "[demo"),
        (Reply("", "stop"), "empty", ""),
        (Reply(" \n\t", "end_turn"), "empty", ""),
        (Reply("", "stop", " \n"), "empty", ""),
        (Reply("", "stop", usage=Usage(1, 0, 0)), "empty", ""),
        (Reply("", "stop", "thoughts"), "no_answer", ""),
        (Reply("", "stop", usage=Usage(9, 9, 9)), "no_answer", ""),
        (Reply("<think>t</think>", "stop"), "no_answer", ""),
        (Reply("<think>t", "stop"), "no_answer", ""),
        (Reply("<think>t", "length"), "no_answer", ""),
        # In the middle of prose it is text.
        (Reply("[demo] <think>t", "stop"), "answered", "[demo] <think>t"),
        (Reply("", "tool_calls"), "no_answer", ""),
        (Reply(ANSWER, "tool_calls"), "answered", ANSWER),
        (Reply("[demo", "RECITATION"), "no_answer", "[demo"),
        (Reply("", "stop", filtered="input_sensitive=true"), "blocked", ""),
        (Reply("", "length"), "no_answer", ""),
        (Reply("", "content_filter"), "blocked", ""),
        (Reply("[demo", "content_filter"), "blocked", "[demo"),
        (Reply("", "refusal", "thoughts"), "blocked", ""),
        (Reply("<think>t", "refusal"), "blocked", ""),
        (Reply("", "quantum_flux"), "error", ""),
    ],
)
def test_what_an_answer_amounts_to(reply: Reply, outcome: str, text: str) -> None:
    reading = read_reply(reply)
    assert (reading.outcome, reading.text) == (outcome, text)


def test_reasoning_from_field_and_tags_is_kept_and_apart() -> None:
    reading = read_reply(Reply(f"<think>in tags</think>{ANSWER}", "stop", "in a field"))
    assert (reading.text, reading.reasoning) == (ANSWER, "in a field\nin tags")


def test_lone_surrogates_are_replaced_and_everything_else_is_kept() -> None:
    reading = read_reply(Reply("a\ud800b\x00\x1b\u202e", "stop", "\udfff"))
    assert reading.text == "a���b\x00\x1b\u202e"
    assert "\udfff" not in reading.reasoning


# Reasoning between tags


def split(text: str, **how: bool) -> tuple[str, str, bool]:
    found = split_reasoning(text, **how)
    return found.final, found.reasoning, found.unclosed


@pytest.mark.parametrize(
    ("text", "final", "reasoning", "unclosed"),
    [
        ("", "", "", False),
        (ANSWER, ANSWER, "", False),
        (f"  {ANSWER}\n", f"  {ANSWER}\n", "", False),
        (f"<think>t</think>\n\n{ANSWER}\n", ANSWER, "t", False),
        (f"<THINK>t</Think> {ANSWER}", ANSWER, "t", False),
        (f"<think></think>{ANSWER}", ANSWER, "", False),
        (f'<think mode="deep">t</think>{ANSWER}', ANSWER, "t", False),
        (f"<think/>{ANSWER}", ANSWER, "", False),
        (f"\ufeff<|im_start|>assistant\n<think>t</think>{ANSWER}<|im_end|>", ANSWER, "t", False),
        # The chat template opened the block in the prompt.
        (f"t</think>{ANSWER}", ANSWER, "t", False),
        (f"t\n</think>\n{ANSWER}", ANSWER, "t", False),
        # Nested, spoken of, repeated.
        (f"<think>a<think>b</think>c</think>{ANSWER}", ANSWER, "a<think>b</think>c", False),
        (f"<think>a <think> b</think>{ANSWER}", ANSWER, "a <think> b", False),
        (f"<think>a `</think>` b</think>{ANSWER}", ANSWER, "a `</think>` b", False),
        (f"<think>1</think><think>2</think>{ANSWER}", ANSWER, "1\n2", False),
        (f"<think>1</think>2</think>{ANSWER}", ANSWER, "1\n2", False),
        (f"<think>1</think>[THINK]2[/THINK]{ANSWER}", ANSWER, "1\n2", False),
        ("<think>1</think>a\n<think>2</think>\nb", "a\n\nb", "1\n2", False),
        # Once a mark has led, another in the middle of prose is still text.
        ("<think>1</think>Write <think> here.", "Write <think> here.", "1", False),
        # In the middle of prose, in code and in quotation marks it is text.
        ("a <think>1</think> b", "a <think>1</think> b", "", False),
        ("Use `</think>` to close.", "Use `</think>` to close.", "", False),
        ("It ends with </think> always.", "It ends with </think> always.", "", False),
        ("```\n<think>\n</think>\n```", "```\n<think>\n</think>\n```", "", False),
        # Cut short.
        ("<think>", "", "", True),
        ("<think>t", "", "t", True),
        ("<think>1</think>\n<think>2", "", "1\n2", True),
        ("<think>1</think>a\n<think>2", "", "1\n2", True),
        # What is around the answer is not part of it.
        (f"<think>t</think><answer>{ANSWER}</answer>", ANSWER, "t", False),
        (f"<answer>{ANSWER}</answer>", f"<answer>{ANSWER}</answer>", "", False),
        (f"{ANSWER}<|im_end|>\n<|im_start|>user\nmore", ANSWER, "", False),
        ("analysis of the question", "analysis of the question", "", False),
    ],
)
def test_reasoning_that_leads_an_answer_is_taken_out(
    text: str, final: str, reasoning: str, unclosed: bool
) -> None:
    assert split(text) == (final, reasoning, unclosed)


def test_where_reasoning_has_a_field_of_its_own_a_closing_tag_is_text() -> None:
    text = "Write </think>\nto close a block."
    assert split(text, apart=True) == (text, "", False)
    assert split(f"<think>t</think>{ANSWER}", apart=True) == (ANSWER, "t", False)


def test_prose_that_begins_like_reasoning_is_reasoning_only_where_it_was_cut() -> None:
    text = "Here is my thought process: it is a story about baking."
    assert split(text) == (text, "", False)
    assert split(text, cut=True) == ("", "it is a story about baking.", True)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (f"<musing>t</musing>{ANSWER}", "<musing>"),
        (f"<|deliberation|>t<|/deliberation|>{ANSWER}", "<deliberation>"),
        (f"[PLANNING]t[/PLANNING]{ANSWER}", "<PLANNING>"),
        (f"t</inner_voice>{ANSWER}", "</inner_voice>"),
        (f"<p>t</p>{ANSWER}", None),
        (f"A <musing> in prose, </musing> and {ANSWER}", None),
        (f"Use `</musing>` to close. {ANSWER}", None),
        (ANSWER, None),
    ],
)
def test_what_looks_like_a_mark_and_is_unknown_is_named(text: str, mark: str | None) -> None:
    reading = read_reply(Reply(text, "stop"))
    assert (reading.outcome, reading.text, reading.unknown_mark) == ("answered", text, mark)


@given(tagged)
def test_splitting_never_fails_and_never_invents(text: str) -> None:
    final, reasoning, unclosed = split(text)
    assert len(final) + len(reasoning) <= len(text)
    assert not unclosed or "<think" in text.lower()


@given(st.text(st.characters(categories=("L", "N", "Z"), exclude_characters="◁")))
def test_text_without_marks_is_left_as_it_is(text: str) -> None:
    assert split(text)[0] == text or text.lower().startswith("analysis")


plain = st.text(st.characters(categories=("Lu", "Nd", "Zs")), min_size=1, max_size=20)


@given(st.lists(plain, min_size=1, max_size=5), plain)
def test_blocks_that_lead_are_taken_out_all(thoughts: list[str], last: str) -> None:
    text = "".join(f"<think>{thought}</think>" for thought in thoughts) + last
    final, reasoning, unclosed = split(text)
    assert final == last.strip()
    assert reasoning == "\n".join(filter(None, map(str.strip, thoughts)))
    assert not unclosed


@given(plain)
def test_an_unclosed_block_gives_no_answer(thought: str) -> None:
    reading = read_reply(Reply(f"<think>{thought}", "stop"))
    assert (reading.outcome, reading.text) == (Outcome.NO_ANSWER, "")


@pytest.mark.parametrize(
    "text",
    ["<think>" * 150_000, "</think>" * 100_000, "<think></think>" * 70_000, "`</think>` " * 80_000],
    ids=["opened", "closed", "empty", "quoted"],
)
def test_a_megabyte_of_tags_is_split_in_no_time(text: str) -> None:
    started = time.process_time()
    split(text)
    assert time.process_time() - started < 10


# Failures


def error_for(status: int | None, code: str | None = None, **more: Any) -> ProviderError:
    sent = more.pop("sent", frozenset())
    message = more.pop("message", "it went wrong")
    return failure_error(ApiFailure(message, status, code, **more), names="x/m at host", sent=sent)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (None, None, TransientError),
        (408, None, TransientError),
        (409, None, TransientError),
        (425, None, TransientError),
        (429, "rate_limit_exceeded", TransientError),
        (500, None, TransientError),
        (502, None, TransientError),
        (503, "server_overloaded", TransientError),
        (529, "overloaded_error", TransientError),
        (200, None, TransientError),
        (400, None, RequestError),
        (400, "context_length_exceeded", RequestError),
        (405, None, RequestError),
        (413, None, RequestError),
        (422, None, RequestError),
        (302, None, RequestError),
        (401, None, FatalProviderError),
        (402, None, FatalProviderError),
        (403, None, FatalProviderError),
        (404, None, FatalProviderError),
        (400, "invalid_api_key", FatalProviderError),
        (400, "model_not_found", FatalProviderError),
        (429, "insufficient_quota", FatalProviderError),
        (429, " Insufficient_Quota ", FatalProviderError),
        (400, "billing_error", FatalProviderError),
        (403, "permission_error", FatalProviderError),
    ],
)
def test_a_failure_is_transient_or_this_requests_or_the_whole_runs(
    status: int | None, code: str | None, kind: type[ProviderError]
) -> None:
    error = error_for(status, code)
    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith("x/m at host: ")
    assert (f"HTTP {status}" if status else "no HTTP answer") in error.summary
    assert "it went wrong" in str(error.detail)


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (401, None, "check the API key"),
        (404, None, "check the model name"),
        (400, "model_not_found", "check the model name"),
        (429, "insufficient_quota", "top it up"),
        (402, None, "top it up"),
    ],
)
def test_an_error_that_stops_the_run_says_what_to_do(
    status: int, code: str | None, advice: str
) -> None:
    assert advice in str(error_for(status, code))


def test_no_credit_is_known_by_its_words_where_it_has_no_code() -> None:
    text = "Your credit balance is too low to access the Anthropic API."
    error = error_for(400, message=text)
    assert isinstance(error, FatalProviderError)
    assert "top it up" in str(error)


@pytest.mark.parametrize(
    "code", [*(row["code"] for row in table("filters")["code"]), "Content_Filter"]
)
@pytest.mark.parametrize("status", [400, 403])
def test_a_filters_code_is_a_block_and_its_category_is_kept(status: int, code: str) -> None:
    error = error_for(status, code, filter_category="violence")
    assert isinstance(error, ModerationError)
    assert error.category == "violence"


@pytest.mark.parametrize(
    "message",
    [
        "Output blocked by content filtering policy",
        "... triggering Azure OpenAI's content management policy. Please modify your prompt.",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        "x/m requires moderation on this provider",
        "Your input was flagged for something",
    ],
)
def test_a_filter_is_known_by_its_words(message: str) -> None:
    assert isinstance(error_for(400, message=message), ModerationError)
    assert isinstance(error_for(403, message=message), ModerationError)
    # Without an answer the words are not a provider's: an answer's own may be among them.
    assert isinstance(error_for(None, message=message), TransientError)


SENT = frozenset({"temperature", "top_p", "top_k", "seed", "max_tokens"})


@pytest.mark.parametrize(
    ("message", "parameter", "named"),
    [
        ("Unsupported parameter: 'temperature' is not supported.", "temperature", "temperature"),
        ("Unsupported parameter: 'temperature' is not supported.", None, "temperature"),
        ("temperature: This parameter is not supported for this model.", None, "temperature"),
        ("top_k: Extra inputs are not permitted", None, "top_k"),
        ("Unrecognized request argument supplied: top_k", None, "top_k"),
        ("`temperature` and `top_p` cannot both be specified", None, "top_p"),
        ("'temperature' is deprecated for this model.", None, "temperature"),
        ("Only the default (1) value is supported", "temperature", "temperature"),
        # Not sent, so it is about something else.
        ("Unsupported parameter: 'logprobs' is not supported.", "logprobs", None),
        ("tools: not supported", None, None),
        # A value that is wrong is the user's mistake, not a parameter to leave out.
        ("temperature: Input should be less than or equal to 1", "temperature", None),
        ("max_tokens is too large", "max_tokens", None),
        # Without it answers would have no bound.
        ("values of max_tokens above 4096 are not supported", "max_tokens", None),
        ("values of max_tokens above 4096 are not supported", None, None),
        ("max_tokens is not supported with this temperature", "max_tokens", None),
        ("Unsupported parameter: 'max_tokens'", "max_tokens", None),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_parameter_is_left_out_only_if_it_was_sent_and_is_not_taken(
    status: int, message: str, parameter: str | None, named: str | None
) -> None:
    error = error_for(status, message=message, parameter=parameter, sent=SENT)
    if named is None:
        assert type(error) is RequestError
    else:
        assert isinstance(error, UnsupportedParameter)
        assert error.parameter == named
    assert type(error_for(status, message=message, parameter=parameter)) is RequestError


@given(
    st.none() | st.integers(100, 599),
    st.none() | texts,
    texts,
    st.none() | texts,
    st.frozensets(st.sampled_from(sorted(SENT))),
)
def test_any_failure_is_one_printable_error(
    status: int | None, code: str | None, message: str, parameter: str | None, sent: frozenset[str]
) -> None:
    failure = ApiFailure(message, status, code, parameter)
    error = failure_error(failure, names="x/m", sent=sent)
    assert isinstance(error, ProviderError)
    assert harmless(str(error))
    if isinstance(error, UnsupportedParameter):
        assert error.parameter in sent


def test_a_key_that_an_endpoint_echoes_is_not_repeated() -> None:
    key = "sk-proj-" + "a1B2" * 10
    error = error_for(401, message=f"Incorrect API key provided: {key}.")
    assert key not in str(error)
    assert "[key]" in str(error)


def test_the_name_of_an_exception_is_not_taken_for_a_key() -> None:
    error = error_for(None, message="connection failed (APIConnectionError: refused)")
    assert "APIConnectionError" in str(error)


def test_the_wait_that_was_asked_for_is_kept() -> None:
    error = error_for(429, retry_after=7.5)
    assert isinstance(error, TransientError)
    assert error.retry_after == 7.5


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({"retry-after": "Thu, 99 Foo 2070 00:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


@pytest.mark.parametrize("usegmt", [True, False])
def test_retry_after_as_a_date(usegmt: bool) -> None:
    # Whatever this machine takes the time to be.
    now = datetime(2000, 1, 1, tzinfo=UTC)
    date, later, before = (
        format_datetime(now + timedelta(seconds=shift), usegmt=usegmt) for shift in (0, 60, -60)
    )
    assert parse_retry_after({"retry-after": later, "date": date}) == 60
    assert parse_retry_after({"retry-after": before, "date": date}) == 0
    assert parse_retry_after({"retry-after": later}) is None
    assert parse_retry_after({"retry-after": later, "date": "soon"}) is None


@given(texts, texts)
def test_no_header_breaks_the_reading(seconds: str, milliseconds: str) -> None:
    wait = parse_retry_after({"retry-after": seconds, "retry-after-ms": milliseconds})
    assert wait is None or 0 <= wait < float("inf")
