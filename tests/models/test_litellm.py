"""Through litellm: which ways there are through it, and what it is kept from doing.

What comes of each kind of answer is in `test_back_ends.py`, for this way as for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commandline import Call, caller
from loopback import ANSWER, Fault, LoopbackServer, Script
from refusalkit.errors import FatalProviderError
from refusalkit.models.chat import ChatModel
from refusalkit.models.litellm_calls import PREPARED_AT_ONCE, load_litellm
from refusalkit.models.open import open_client, open_model
from refusalkit.models.pacing import Pacer
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt

pytestmark = pytest.mark.xdist_group("litellm")  # 5 s and 180 MB for each worker that imports it


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """The command in an empty folder."""
    return caller(monkeypatch, capsys, tmp_path)


PROMPT = Prompt("p1", "assault", "A placeholder request.")
CONFIG = GenerationConfig(max_tokens=64, timeout_s=20.0)
# litellm prepares its requests in threads; its protocol is OpenAI's.
IN_A_THREAD = "novita"


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "loopback-key-0123456789abcdef")
    # Each client would load all certificates (0.1 s) and need none.
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)


def open_chat(model_id: str, base: str, retries: int = 0) -> ChatModel:
    client = open_client(
        model_id,
        pacer=Pacer(max_retries=retries, backoff_s=0.002),
        api_base=base,
        api_key_env="LOOPBACK_KEY",
        via="litellm",
    )
    return ChatModel(client)


async def ask(
    provider: str, base: str, times: int = 1, config: GenerationConfig = CONFIG
) -> list[Completion]:
    """The same prompt so many times at once."""
    model = open_chat(f"{provider}/m", base)
    try:
        return await asyncio.gather(*(model.complete(PROMPT, config) for _ in range(times)))
    finally:
        await model.aclose()


# Several requests at once

TEXT = "[demo answer]"
USED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
OPENAI = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "service_tier": "default",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    ],
    "usage": USED,
}
ANSWERS: dict[str, Any] = {
    "anthropic": {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    },
    "cohere": {
        "id": "x",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
        "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}},
    },
    "gemini": {
        "responseId": "x",
        "modelVersion": "m",
        "candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"text": TEXT}]}}
            | {"finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 2,
            "totalTokenCount": 5,
        },
    },
}


@contextlib.contextmanager
def answers_two_together(provider: str) -> Iterator[str]:
    """A provider that answers no request before a second one has come; yields its URL."""
    both = threading.Barrier(2, timeout=5)
    body = json.dumps(ANSWERS.get(provider, OPENAI)).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
            self.send_response(503 if both.broken else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("provider", [*sorted(PREPARED_AT_ONCE), IN_A_THREAD])
def test_no_request_waits_for_another(provider: str) -> None:
    with answers_two_together(provider) as base:
        completions = asyncio.run(ask(provider, base, times=2))
    for completion in completions:
        assert (completion.outcome, completion.text) == (Outcome.ANSWERED, TEXT), completion.error
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 2)
        assert completion.attempts == 1


# Two ways, one result


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault("rate_limit", seconds=0.01),
        Fault("server_error"),
        Fault("moderation_error"),
        Fault("content_filter"),
        Fault("drop"),
        Fault("malformed_json"),
        Fault("auth_error"),
        Fault("unknown_model"),
        Fault("bad_param", param="top_p"),
    ],
    ids=lambda fault: fault.kind if fault else "answer",
)
def test_it_does_not_matter_whether_litellm_prepares_requests_in_threads(
    fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Thirty waits that grow would take minutes.
    monkeypatch.setattr("refusalkit.models.pacing._BACKOFF_CAP_S", 0.01)

    def come_of(provider: str) -> tuple[object, ...]:
        script = Script(refusal_rate=0.0, faults=(fault,) if fault else ())
        with LoopbackServer(script) as server:
            model = open_chat(f"{provider}/m", server.openai_base, retries=1)

            async def main() -> Completion:
                try:
                    return await model.complete(PROMPT, CONFIG)
                finally:
                    await model.aclose()

            try:
                done = asyncio.run(main())
            except FatalProviderError as error:
                return "fatal", error.status, len(server.log)
            asked = [exchange.params | {"model": "m"} for exchange in server.log]
            error = (done.error or "").partition(": ")[2]
            return done.outcome, done.text, done.attempts, error, done.usage, asked

    assert IN_A_THREAD not in PREPARED_AT_ONCE
    assert come_of("openai") == come_of(IN_A_THREAD)


@pytest.mark.parametrize("provider", ["openai", IN_A_THREAD])
def test_a_field_of_the_users_may_have_any_name(provider: str) -> None:
    # OpenRouter's routing is called provider.
    extra = {"provider": {"order": ["somebody"]}, "call": 1}
    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        config = replace(CONFIG, extra_body=extra)
        (done,) = asyncio.run(ask(provider, server.openai_base, config=config))
        assert done.text == ANSWER
        assert {name: server.log[0].params[name] for name in extra} == extra


# What is read of an answer that is not as usual


@contextlib.contextmanager
def answers(choice: dict[str, Any]) -> Iterator[list[str]]:
    """A provider with one choice for everyone; yields its URL, and after it each request's path."""
    body = json.dumps({**OPENAI, "choices": [{"index": 0, **choice}]}).encode()
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        asked.append(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("provider", ["openai", "azure", "hosted_vllm", IN_A_THREAD])
def test_the_category_of_a_filtered_answer_is_kept(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    said = {"violence": {"filtered": True}, "hate": {"filtered": False}}
    message = {"role": "assistant", "content": ""}
    choice = {"message": message, "finish_reason": "content_filter"}
    with answers({**choice, "content_filter_results": said}) as asked:
        (done,) = asyncio.run(ask(provider, asked[0]))
    assert (done.outcome, done.filter_category) == (Outcome.BLOCKED, "violence")


# The openai SDK, which some ways lead through, expects no list.
@pytest.mark.filterwarnings("ignore:.*Pydantic serializer:UserWarning")
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "mistral", IN_A_THREAD])
def test_a_text_in_parts_is_an_answer_and_paid_for_once(provider: str) -> None:
    parts = [{"type": "text", "text": part} for part in ("[demo ", "answer]")]
    message = {"role": "assistant", "content": parts}
    with answers({"message": message, "finish_reason": "stop"}) as asked:
        (done,) = asyncio.run(ask(provider, asked[0]))
    assert (done.outcome, done.text) == (Outcome.ANSWERED, TEXT), done.error
    assert (done.usage.input_tokens, done.usage.output_tokens) == (3, 2)
    assert len(asked) == 1 + done.attempts == 2


# What it is kept from


@pytest.mark.parametrize("provider", ["openai", IN_A_THREAD])
@pytest.mark.parametrize("fault", [None, "server_error"])
def test_callbacks_that_the_host_program_set_hear_of_nothing(
    monkeypatch: pytest.MonkeyPatch, provider: str, fault: str | None
) -> None:
    litellm = load_litellm()
    from litellm.integrations.custom_logger import CustomLogger

    heard: list[str] = []

    def told(*_: Any, **__: Any) -> None:
        heard.append("told")

    async def told_later(*_: Any, **__: Any) -> None:
        heard.append("told later")

    class Listener(CustomLogger):  # type: ignore[misc]
        log_pre_api_call = told
        log_post_api_call = told

    monkeypatch.setattr(litellm, "input_callback", [Listener()])
    for name in ("success_callback", "failure_callback"):
        monkeypatch.setattr(litellm, name, [told])
        monkeypatch.setattr(litellm, f"_async_{name}", [told_later])

    async def main(base: str) -> None:
        await ask(provider, base)
        for _ in range(20):  # whatever was left to do
            await asyncio.sleep(0.01)

    script = Script(refusal_rate=0.0, faults=(Fault(fault),) if fault else ())
    with LoopbackServer(script) as server:
        asyncio.run(main(server.openai_base))
    assert heard == []


@pytest.mark.parametrize("provider", ["openai", IN_A_THREAD])
def test_no_answer_comes_out_of_a_cache_of_the_host_program(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    litellm = load_litellm()
    monkeypatch.setattr(litellm, "cache", litellm.Cache(type="local"))
    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        for _ in range(2):
            asyncio.run(ask(provider, server.openai_base))
        assert len(server.log) == 2


# What it leaves alone


@contextlib.asynccontextmanager
async def litellm_of_the_host() -> AsyncIterator[Any]:
    """litellm as a host program uses it, which closes its clients at the end."""
    litellm = load_litellm()
    litellm.in_memory_llm_clients_cache.flush_cache()  # what tests before left there
    try:
        yield litellm
    finally:
        await litellm.close_litellm_async_clients()
        litellm.in_memory_llm_clients_cache.flush_cache()


async def ask_as_the_host(litellm: Any, provider: str, base: str) -> str:
    response = await litellm.acompletion(
        model=f"{provider}/m",
        messages=[{"role": "user", "content": "[demo]"}],
        api_base=base,
        api_key="loopback-key-0123456789abcdef",
        timeout=CONFIG.timeout_s,
        num_retries=0,
        max_retries=0,
    )
    return str(response.choices[0].message.content)


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("provider", ["openai", "groq", "hosted_vllm", "anthropic", IN_A_THREAD])
def test_a_request_of_the_host_program_outlives_our_client(provider: str, used: bool) -> None:
    async def main(server: LoopbackServer) -> str:
        base = server.anthropic_base if provider == "anthropic" else server.openai_base
        async with litellm_of_the_host() as litellm:
            model = open_chat(f"{provider}/m", base)
            if used:
                assert (await model.complete(PROMPT, CONFIG)).outcome is Outcome.ANSWERED
            server.hold()
            host = asyncio.create_task(ask_as_the_host(litellm, provider, base))
            while server.ledger.n < 1 + used:
                await asyncio.sleep(0.01)
            await model.aclose()
            server.release()
            return await host

    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        assert asyncio.run(main(server)) == ANSWER


@pytest.mark.parametrize("provider", ["openai", "groq", IN_A_THREAD])
def test_our_requests_and_the_hosts_share_no_client(provider: str) -> None:
    async def main(base: str) -> None:
        async with litellm_of_the_host() as litellm:
            cached = litellm.in_memory_llm_clients_cache.cache_dict
            await ask(provider, base)
            assert cached == {}
            assert await ask_as_the_host(litellm, provider, base) == ANSWER
            theirs = dict(cached)
            assert theirs
            (done,) = await ask(provider, base)
            assert done.text == ANSWER
            assert cached == theirs
            # What ours are closed with leaves the host's open.
            assert await ask_as_the_host(litellm, provider, base) == ANSWER

    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        for _ in range(2):  # each time in an event loop of its own
            asyncio.run(main(server.openai_base))


@pytest.mark.parametrize("model_id", ["gemini/m", "fireworks_ai/m", "perplexity/m"])
def test_a_key_that_is_missing_ends_the_run_at_its_first_request(
    monkeypatch: pytest.MonkeyPatch, model_id: str
) -> None:
    for variable in ("GEMINI", "GOOGLE", "FIREWORKS", "FIREWORKS_AI", "PERPLEXITYAI", "OPENAI"):
        monkeypatch.delenv(f"{variable}_API_KEY", raising=False)

    async def main() -> None:
        model = open_model(model_id)
        try:
            await model.complete(PROMPT, CONFIG)
        finally:
            await model.aclose()

    with pytest.raises(FatalProviderError, match="check the API key") as raised:
        asyncio.run(main())
    assert raised.value.attempts == 1


# What litellm logs


@contextlib.contextmanager
def answering(body: Any) -> Iterator[str]:
    """A provider that answers each request with this; yields its URL."""
    data = json.dumps(body).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


MARKER = "WITHHELD \x1b]0;owned\x07 text"


def test_what_a_server_says_is_not_logged_and_the_host_programs_log_is_as_it_was(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """litellm warns of a finish reason that it does not know, word for word."""
    load_litellm()
    logger = logging.getLogger("LiteLLM")
    before = (list(logger.filters), logger.level, logger.disabled, list(logger.handlers))
    said = {**OPENAI, "choices": [{**OPENAI["choices"][0], "finish_reason": MARKER}]}

    async def both(base: str) -> list[Completion]:
        asked = asyncio.ensure_future(ask(IN_A_THREAD, base, times=3))
        while not asked.done():
            await asyncio.sleep(0.01)
            logger.warning("the host's own")
        return await asked

    with answering(said) as base:
        found = asyncio.run(both(base))
    assert [one.outcome for one in found] == [Outcome.ERROR] * 3  # its word is unknown
    assert {record.getMessage() for record in caplog.records} == {"the host's own"}
    assert "WITHHELD" not in "".join(capfd.readouterr())
    assert (list(logger.filters), logger.level, logger.disabled, list(logger.handlers)) == before


@pytest.mark.parametrize(
    ("written", "offered"),
    [
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("antropic/claude-sonnet-5-5", "anthropic/claude-sonnet-5-5"),
        ("gemni/gemini-3.8-flash", "gemini/gemini-3.8-flash"),
        ("OpenAI/gpt-4o", "openai/gpt-4o"),
        ("google/gemini-3.8-flash", "gemini/gemini-3.8-flash or vertex_ai/gemini-3.8-flash"),
        ("grok/grok-4", "xai/grok-4 or groq/grok-4"),
        ("together/some/model", "together_ai/some/model"),
    ],
)
@pytest.mark.parametrize("part", ["model", "judge"])
def test_a_misspelt_provider_is_reported_with_what_was_meant(
    written: str, offered: str, part: str, command: Call, tmp_path: Path
) -> None:
    words = ["run", written, "--judge", "lexical"]
    if part == "judge":
        words = ["run", "demo/mixed", "--judge", "graded", "--judge-model", written]
    ended = command(*words, "--limit", "4", "--out", tmp_path / "run")
    assert ended.status == 4
    assert f"did you mean {offered}?" in ended.err
    assert not (tmp_path / "run").exists()


def test_a_provider_that_is_near_to_none_is_reported_without_a_guess(command: Call) -> None:
    ended = command("run", "zzzqqq/m", "--judge", "lexical")
    assert (ended.status, "did you mean" in ended.err) == (4, False)


def test_a_model_without_its_provider_is_reported_with_the_one_that_has_it(command: Call) -> None:
    ended = command("run", "gpt-4o", "--judge", "lexical")
    assert ended.status == 2
    assert "did you mean openai/gpt-4o?" in ended.err
