"""Whatever an endpoint, a judge or a file says: a declared outcome or a declared error.

More examples: ``pytest tests/whole/test_fuzz.py --hypothesis-profile=long``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit
import strategies
from loopback import LoopbackServer, Script
from refusalkit.errors import PromptSetError, RefusalkitError, UsageError
from refusalkit.judges.llm import LLMJudge
from refusalkit.judges.rubrics import load_rubric
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_client
from refusalkit.models.outcomes import parse_retry_after
from refusalkit.models.pacing import Pacer
from refusalkit.prompts.load import load_prompts
from refusalkit.runs import frames
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records
from refusalkit.types import Completion, GenerationConfig, Label, Outcome, Prompt, Unscored

UNHURRIED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PROMPT = Prompt("p1", "assault", "A placeholder request.")
CONFIG = GenerationConfig(max_tokens=64, timeout_s=5.0)
TEXT = st.one_of(st.text(max_size=20), strategies.ill_formed_texts())
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    TEXT,
    st.sampled_from(["stop", "text", "end_turn", "content_filter", "[demo answer]", "thinking"]),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def shaped(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object of these fields, any of which may be missing or anything at all."""
    return st.fixed_dictionaries({}, optional={k: v | JSON for k, v in fields.items()}) | JSON


ERROR = shaped(
    message=TEXT, type=TEXT, code=TEXT, param=TEXT, innererror=shaped(content_filter_result=JSON)
)
OPENAI = shaped(
    id=TEXT,
    model=TEXT,
    error=ERROR,
    choices=st.lists(
        shaped(
            finish_reason=TEXT,
            content_filter_results=JSON,
            message=shaped(
                content=TEXT | st.lists(shaped(text=TEXT), max_size=2),
                refusal=TEXT,
                reasoning=TEXT,
                reasoning_content=TEXT,
            ),
        ),
        max_size=2,
    ),
    usage=shaped(
        prompt_tokens=LEAF,
        completion_tokens=LEAF,
        completion_tokens_details=shaped(reasoning_tokens=LEAF),
        prompt_tokens_details=shaped(cached_tokens=LEAF, cache_write_tokens=LEAF),
    ),
)
ANTHROPIC = shaped(
    id=TEXT,
    model=TEXT,
    error=ERROR,
    content=st.lists(shaped(type=st.just("text"), text=TEXT, thinking=TEXT), max_size=3),
    stop_reason=TEXT,
    stop_details=shaped(category=TEXT),
    usage=shaped(
        input_tokens=LEAF,
        output_tokens=LEAF,
        output_tokens_details=shaped(thinking_tokens=LEAF),
        cache_read_input_tokens=LEAF,
        cache_creation_input_tokens=LEAF,
    ),
)
STATUS = st.sampled_from([200, 200, 200, 204, 206, 302, 400, 401, 413, 422, 429, 500, 529, 599])


def encoded(data: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Mostly JSON, sometimes cut or no UTF-8."""
    whole = data.map(lambda value: json.dumps(value).encode())
    cut = st.tuples(whole, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(whole, whole, whole, cut, st.binary(max_size=60))


class Mouth:
    """A raw socket that answers every request with `raw`."""

    def __init__(self) -> None:
        self.raw = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(5)
            got = b""
            while b"\r\n\r\n" not in got:
                got += connection.recv(65536)
            head, _, body = got.partition(b"\r\n\r\n")
            sizes = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
            missing = int(sizes[0].split(b":")[1]) - len(body)
            while missing > 0:
                missing -= len(connection.recv(65536))
            connection.sendall(self.raw)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def mouth() -> Iterator[Mouth]:
    mouth = Mouth()
    with pytest.MonkeyPatch.context() as patched:
        # Each client would load all certificates (0.1 s) and need none.
        patched.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
        # One 429 is enough: thirty would wait for minutes.
        patched.setattr("refusalkit.models.pacing._MAX_RATE_LIMITS", 0)
        yield mouth
    mouth.close()


def ask(mouth: Mouth, api: str, raw: bytes) -> Completion:
    """What the real client makes of it."""
    mouth.raw = raw
    base = f"http://127.0.0.1:{mouth.port}" + ("/v1" if api == "openai" else "")

    async def once() -> Completion:
        pacer = Pacer(max_retries=0)
        model = ChatModel(open_client(f"{api}/m", pacer=pacer, api_base=base))
        try:
            return await model.complete(PROMPT, CONFIG)
        finally:
            await model.aclose()

    return asyncio.run(asyncio.wait_for(once(), 20))


def check(mouth: Mouth, api: str, raw: bytes, write: Callable[[Completion], None]) -> None:
    try:
        completion = ask(mouth, api, raw)
    except RefusalkitError:
        return
    assert completion.outcome in Outcome
    assert (completion.error is not None) == (completion.outcome is Outcome.ERROR)
    write(completion)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("fuzz") / "run"
    return refusalkit.benchmark(
        "demo/mixed", prompts="starter", limit=3, trials=1, judge="lexical", canaries=0, out=out
    )


@pytest.fixture
def write(finished: Run) -> Callable[[Completion], None]:
    """Writes a completion as a run's last one and reads it back in both readers."""
    whole = finished.completions.read_bytes()

    def write(completion: Completion) -> None:
        with finished.writing() as writer:
            writer.completion(completion)
        try:
            *_, (_, record) = read_records(finished.completions)
            assert record["outcome"] == completion.outcome
            assert len(frames.completions(finished)) >= 2
        finally:
            finished.completions.write_bytes(whole)

    return write


@pytest.mark.parametrize("api_name", ["openai", "anthropic"])
@UNHURRIED
@given(data=st.data(), status=STATUS, kind=st.sampled_from(["application/json", "text/html"]))
def test_any_body_is_an_outcome_that_can_be_written_and_read(
    mouth: Mouth,
    write: Callable[[Completion], None],
    api_name: str,
    data: st.DataObject,
    status: int,
    kind: str,
) -> None:
    body = data.draw(encoded(OPENAI if api_name == "openai" else ANTHROPIC))
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    raw = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    check(mouth, api_name, raw, write)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 413, 429, 500])
@pytest.mark.parametrize("api_name", ["openai", "anthropic"])
def test_a_body_that_is_half_a_character_is_an_outcome_too(
    mouth: Mouth, write: Callable[[Completion], None], api_name: str, status: int
) -> None:
    body = rb'"\ud800"'
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
    raw = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    check(mouth, api_name, raw, write)


@pytest.mark.parametrize("api_name", ["openai", "anthropic"])
@UNHURRIED
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"HTTP/1.1 200 OK\r\n",
                    b"HTTP/1.1 429 X\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Content-Encoding: gzip\r\n",
                    b"Content-Encoding: br\r\n",
                    b"Content-Length: 5\r\n",
                    b"Content-Length: -1\r\n",
                    b"Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
                    b"Retry-After: nan\r\n",
                    b"\r\n",
                    b"\r\n",
                    b"ffffffff\r\n",
                    b"0\r\n\r\n",
                    b"{}",
                    b"\x1f\x8b\x08\x00",
                ]
            ),
        ),
        max_size=8,
    ).map(b"".join)
)
def test_any_bytes_at_all_are_an_outcome(
    mouth: Mouth, write: Callable[[Completion], None], api_name: str, pieces: bytes
) -> None:
    check(mouth, api_name, pieces, write)


@UNHURRIED
@given(value=st.one_of(TEXT, st.floats().map(str), st.dates().map(str), st.datetimes().map(str)))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        seconds = parse_retry_after({name: value})
        assert seconds is None or seconds >= 0


@pytest.fixture(scope="module")
def judging() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@UNHURRIED
@given(reply=TEXT | JSON.map(json.dumps) | shaped(verdict=TEXT, reason=TEXT).map(json.dumps))
def test_any_reply_of_a_judge_is_a_label_or_a_reason_why_not(
    judging: LoopbackServer, reply: str
) -> None:
    judging.script = Script(judge_reply=lambda _: reply)
    answered = Completion("p1", "assault", 1, "x/m", Outcome.ANSWERED, text="[demo answer]")

    async def once() -> Any:
        client = open_client(
            "openai/judge", pacer=Pacer(max_retries=0), api_base=judging.openai_base
        )
        judge = LLMJudge(load_rubric("graded"), client)
        try:
            return await judge.grade(PROMPT, answered)
        finally:
            await judge.aclose()

    verdict = asyncio.run(asyncio.wait_for(once(), 20))
    assert isinstance(verdict.label, Label) != isinstance(verdict.unscored, Unscored)


ROWS = shaped(
    id=TEXT, prompt=TEXT, category=TEXT, danger=LEAF, tags=st.lists(TEXT, max_size=2), system=TEXT
)
LINES = st.lists(encoded(ROWS), max_size=4).map(b"\n".join)


@UNHURRIED
@given(
    name=st.sampled_from(["set.jsonl", "set.csv", "set.json"]), raw=LINES | st.binary(max_size=80)
)
def test_any_prompt_set_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(raw)
    try:
        found = load_prompts(str(path))
    except (PromptSetError, UsageError):
        pass
    else:
        assert len({prompt.id for prompt in found.prompts}) == len(found.prompts) > 0


@UNHURRIED
@given(data=st.data(), which=st.sampled_from(["completions", "verdicts", "manifest"]))
def test_a_run_folder_with_anything_in_it_is_read_or_refused(
    finished: Run, data: st.DataObject, which: str
) -> None:
    path = finished.path / ("manifest.json" if which == "manifest" else f"{which}.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    place = data.draw(st.integers(0, len(lines) - 1))
    if which != "manifest" and data.draw(st.booleans()):
        # A whole record with one field that is something else.
        record = json.loads(lines[place])
        record[data.draw(st.sampled_from(sorted(record)))] = data.draw(JSON)
        lines[place] = json.dumps(record).encode() + b"\n"
    else:
        lines[place] = data.draw(encoded(JSON)) + b"\n"
    path.write_bytes(b"".join(lines))
    try:
        run = open_run(finished.path)
        refusalkit.score(run)
        for records in (run.completions, run.verdicts):
            list(read_records(records))
    except RefusalkitError:
        pass
    finally:
        path.write_bytes(whole)
