"""How an endpoint is asked for a verdict in JSON: learned once, on record, by the real command."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commandline import Call, Called
from loopback.canned import Canned, CannedServer
from refusalkit.judges.rubrics import load_rubric
from refusalkit.prompts.load import load_prompts
from refusalkit.runs.folder import open_run

VERDICT = json.dumps({"reason": "scripted", "verdict": "refusal"})
SCHEMA = json.dumps(dict(load_rubric("graded").schema), ensure_ascii=False)


def said(text: str | None, finish: str = "stop") -> Canned:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return Canned.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


def refused(message: str, status: int = 400) -> Canned:
    """An error in the OpenAI protocol's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Canned.json({"error": error}, status)


def form(body: dict[str, Any]) -> str:
    """How a request asks for JSON."""
    return str((body.get("response_format") or {"type": "text"})["type"])


def has_schema(body: dict[str, Any]) -> bool:
    """Whether the judge's schema is in the last message."""
    return SCHEMA in body["messages"][-1]["content"]


Judge = Callable[[dict[str, Any]], Canned]


class Endpoint(CannedServer):
    """A server whose model answers everything and whose judge is scripted."""

    def __init__(self, judge: Judge, model: Judge = lambda _: said("[demo answer]")) -> None:
        super().__init__(lambda body, _: (judge if body["model"] == "judge" else model)(body))

    @property
    def judged(self) -> list[dict[str, Any]]:
        """The judge's requests."""
        return [body for body in self.requests if body["model"] == "judge"]

    @property
    def base(self) -> str:
        """The base URL."""
        return f"{self.url}/v1"


def run(call: Call, server: Endpoint, *more: object, judge: str = "graded", n: int = 12) -> Called:
    """One run in `run`: a model and its judge at one endpoint."""
    return call(
        *("run", "local/m", "--api-base", server.base, "--prompts", "starter", "--limit", n),
        *("--trials", 1, "--judge", judge, "--judge-model", "local/judge", "--out", "run"),
        *("--judge-api-base", server.base, "--max-retries", 0, "--canaries", 0, *more),
    )


def parameters(folder: Path) -> Any:
    """What the manifest says of the judge's requests."""
    return open_run(folder / "run").manifest.parameters["judge"]


def verdicts_in(folder: Path) -> list[dict[str, Any]]:
    """The verdicts on record."""
    return [json.loads(line) for line in open_run(folder / "run").verdicts.read_text().splitlines()]


def only_object(body: dict[str, Any]) -> Canned:
    """A server like llama.cpp's in Python, which knows `json_object` and breaks on a schema."""
    if form(body) == "json_schema":
        return refused("body -> response_format -> type: Input should be 'text'", 500)
    return said(VERDICT)


WAYS: dict[str, tuple[Judge, str]] = {
    "a schema is taken": (lambda body: said(VERDICT), "json_schema"),
    "500 that names it": (only_object, "json_object"),
    "400 that names it": (
        lambda b: (
            refused("This response_format type is unavailable now")
            if form(b) == "json_schema"
            else said(VERDICT)
        ),
        "json_object",
    ),
    "400 in unknown words": (
        lambda b: refused("bad request") if form(b) == "json_schema" else said(VERDICT),
        "json_object",
    ),
    "500 in unknown words": (
        lambda b: (
            refused("Internal Server Error", 500) if form(b) == "json_schema" else said(VERDICT)
        ),
        "json_object",
    ),
    "422 that is not JSON": (
        lambda b: (
            Canned(422, b"Failed to deserialize: response_format.type `json_schema`")
            if form(b) == "json_schema"
            else said(VERDICT)
        ),
        "json_object",
    ),
    "no form is taken": (
        lambda b: (
            refused("Unrecognized request argument supplied: response_format")
            if "response_format" in b
            else said(VERDICT)
        ),
        "text",
    ),
    "no form is taken, in unknown words": (
        lambda b: refused("?!", 422) if "response_format" in b else said(VERDICT),
        "text",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_strictest_form_that_an_endpoint_takes_is_learned_once(
    call: Call, tmp_path: Path, way: str
) -> None:
    judge, taken = WAYS[way]
    # A server that breaks without a word may be broken: others do not wait for the one that tries.
    alone = ("--concurrency", 1) if way == "500 in unknown words" else ()
    with Endpoint(judge) as server:
        done = run(call, server, *alone)
    assert done.status == 0, done.err
    asked = Counter(map(form, server.judged))
    assert asked[taken] == 12
    # One request alone tries each stricter form, however many are at work.
    stricter = {"json_schema": 0, "json_object": 1, "text": 2}[taken]
    assert asked.total() == 12 + stricter
    assert all(has_schema(body) == (form(body) != "json_schema") for body in server.judged)
    entry = parameters(tmp_path)
    assert entry.reply_form == taken
    assert bool(entry.dropped) == (taken != "json_schema")
    if taken != "json_schema":
        name = "response_format" if taken == "text" else "json_schema"
        assert "the schema is in the text" in entry.dropped[name]
        assert f"judge: {name} was left out: the endpoint does not take it" in done.err


def test_requests_of_one_moment_step_down_once(call: Call, tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def judge(body: dict[str, Any]) -> Canned:
        if form(body) != "json_schema":
            return said(VERDICT)
        if not first.is_set():
            first.set()
            return said(VERDICT)
        # Others are refused later, all at once, such as by one server behind a gateway.
        together.wait(10)
        return refused("response_format json_schema is not supported here")

    first = threading.Event()
    with Endpoint(judge) as server:
        done = run(call, server, "--concurrency", 3, n=6)
    assert done.status == 0, done.err
    assert Counter(map(form, server.judged)) == {"json_schema": 4, "json_object": 5}
    assert parameters(tmp_path).reply_form == "json_object"


def test_judges_of_one_endpoint_learn_together(call: Call) -> None:
    with Endpoint(only_object) as server:
        done = run(call, server, judge="graded,refusalbench", n=4)
    # The second rubric's words are not of this scripted judge's: it gets no verdict.
    assert done.status in (0, 1)
    assert Counter(map(form, server.judged))["json_schema"] == 1


def test_a_broken_judge_is_not_asked_in_ever_other_forms(call: Call, tmp_path: Path) -> None:
    """A server that breaks on everything fails as it did, with its own words."""
    with Endpoint(lambda _: refused("out of memory", 500)) as server:
        done = run(call, server, "--concurrency", 1)
    assert done.status == 4
    assert "5 requests in a row failed" in done.err
    assert "out of memory" in done.err
    assert Counter(map(form, server.judged)) == {"json_schema": 5, "json_object": 5, "text": 5}


def test_a_form_that_was_taken_once_is_kept_when_a_request_fails(call: Call) -> None:
    seen: Counter[str] = Counter()

    def judge(body: dict[str, Any]) -> Canned:
        seen["all"] += 1
        return refused("bad request") if seen["all"] % 3 == 0 else said(VERDICT)

    with Endpoint(judge) as server:
        done = run(call, server, "--concurrency", 1)
    assert Counter(map(form, server.judged)) == {"json_schema": 12}
    assert "4 could not be judged" in done.err


class TestWithoutObedience:
    """Servers that take a schema and pay no heed to it."""

    def test_the_schema_is_written_out_where_replies_are_not_of_it(
        self, call: Call, tmp_path: Path
    ) -> None:
        def judge(body: dict[str, Any]) -> Canned:
            return said(VERDICT if has_schema(body) else '{"answer": "it refused"}')

        with Endpoint(judge) as server:
            done = run(call, server, "--concurrency", 1)
        assert done.status == 0, done.err
        # Asked twice once; from then on the schema is in the text at once.
        assert [has_schema(body) for body in server.judged] == [False] + [True] * 12
        assert {form(body) for body in server.judged} == {"json_schema"}
        assert "as well" in parameters(tmp_path).dropped["json_schema"]

    def test_prose_is_not_guessed_at_and_the_cause_is_reported(
        self, call: Call, tmp_path: Path
    ) -> None:
        with Endpoint(lambda _: said("This is plainly a refusal.")) as server:
            done = run(call, server, n=3)
        assert done.status == 1
        assert "3 got no verdict that can be read" in done.err
        assert "asked twice; the last one has no JSON object" in done.err
        records = verdicts_in(tmp_path)
        assert {r["unscored"] for r in records} == {"unparsable"}
        assert all("has no JSON object" in r["reason"] for r in records)

    @pytest.mark.parametrize(
        ("reply", "why"),
        [
            (said(""), "is empty"),
            (said(VERDICT[:-5], "length"), "was cut off by its length limit"),
            (said('{"verdict": "refusal"}'), "has no reason"),
            (said('{"reason": "x", "verdict": "Refusal"}'), "is not one of its words"),
            (said('{"reason": "x", "verdict": "refusal", "sure": 1}'), "has fields that"),
            (said('{"reason": 1, "verdict": "refusal"}'), "has a value of the wrong kind"),
            (said(f"Verdict: {VERDICT}"), "malformed, or not alone"),
            (said(f"{VERDICT}\n{VERDICT.replace('refusal', 'compliance')}"), "not alone"),
        ],
    )
    def test_each_reply_that_cannot_be_read_has_its_cause(
        self, call: Call, reply: Canned, why: str
    ) -> None:
        with Endpoint(lambda _: reply) as server:
            done = run(call, server, n=3)
        assert done.status == 1
        assert why in done.err


# One of each status; each row of the table has its own test (tests/models/test_dialect_rows.py).
SYSTEM_REFUSALS = [
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (422, "Template error: invalid operation: System role not supported (in <string>:1)"),
    (500, "Jinja Exception: System role not supported"),
]


@pytest.mark.parametrize(("status", "words"), SYSTEM_REFUSALS)
def test_a_server_without_a_system_role_gets_its_text_in_the_users_turn(
    call: Call, tmp_path: Path, status: int, words: str
) -> None:
    def either(body: dict[str, Any], text: str) -> Canned:
        if any(message["role"] == "system" for message in body["messages"]):
            return refused(words, status)
        return said(text)

    with Endpoint(
        lambda body: either(body, VERDICT), lambda body: either(body, "[demo answer]")
    ) as server:
        done = run(call, server, "--system", "Be brief.", "--concurrency", 1, n=3)
    assert done.status == 0, done.err
    with_system = [b["model"] for b in server.requests if b["messages"][0]["role"] == "system"]
    assert with_system == ["m", "judge"]
    rubric = load_rubric("graded")
    for body in server.requests:
        if body["messages"][0]["role"] != "system":
            system = rubric.system.strip() if body["model"] == "judge" else "Be brief."
            (turn,) = body["messages"]
            assert turn["content"].startswith(f"{system}\n\n")
    manifest = open_run(tmp_path / "run").manifest
    assert not manifest.parameters["judge"].system_role
    assert not manifest.parameters["model"].system_role
    assert "user's turn" in manifest.parameters["model"].dropped["system role"]


def test_both_are_learned_of_one_server(call: Call, tmp_path: Path) -> None:
    def judge(body: dict[str, Any]) -> Canned:
        if body["messages"][0]["role"] == "system":
            return refused("System role not supported")
        if "response_format" in body:
            return refused("Extra inputs are not permitted: response_format", 422)
        return said(f"<think>It may be {{}}.</think>\n```json\n{VERDICT}\n```")

    with Endpoint(judge) as server:
        done = run(call, server)
    assert done.status == 0, done.err
    entry = parameters(tmp_path)
    assert (entry.reply_form, entry.system_role) == ("text", False)
    assert len(server.judged) == 12 + 3


class TestCause:
    """Why a judge failed is reported in the provider's words, except about a hard line."""

    HARD = load_prompts("starter").hard_lines

    def test_it_is_taken_from_a_unit_that_is_not_withheld(self, call: Call, tmp_path: Path) -> None:
        def judge(body: dict[str, Any]) -> Canned:
            # As gateways do, it repeats what it was sent.
            repeated = body["messages"][-1]["content"].replace("\n", " ")[60:160]
            return refused(f"model overloaded, see: {repeated}", 400)

        with Endpoint(judge) as server:
            done = run(call, server, "--concurrency", 1, n=35)
        assert done.status == 4
        assert "5 requests in a row failed" in done.err
        assert "model overloaded" in done.err
        verdicts = verdicts_in(tmp_path)
        hard = [v for v in verdicts if v["category"] in self.HARD]
        other = [v for v in verdicts if v["category"] not in self.HARD]
        assert other
        assert all("model overloaded" in v["error_detail"] for v in other)
        assert all(v["error_detail"] is None for v in hard)

    def test_a_run_that_went_on_tells_it_too(self, call: Call, tmp_path: Path) -> None:
        def judge(body: dict[str, Any]) -> Canned:
            count["asked"] += 1
            return refused("[why it failed]") if count["asked"] % 3 == 0 else said(VERDICT)

        count: Counter[str] = Counter()
        with Endpoint(judge) as server:
            done = run(call, server, "--concurrency", 1, n=32)
        assert "could not be judged: local/judge at 127.0.0.1" in done.err
        assert "HTTP 400 (invalid_request_error): [why it failed]" in done.err
        verdicts = verdicts_in(tmp_path)
        hard = [v for v in verdicts if v["category"] in self.HARD]
        assert hard
        assert all(v["error_detail"] is None for v in hard)
