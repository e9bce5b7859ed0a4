"""The loopback provider against the real clients: what they see must be what it logged."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import jsonschema
import openai
import pytest

from loopback import (
    ANSWER,
    ESCAPES,
    KINDS,
    REASONING,
    REFUSAL,
    SCRIPTS,
    Fault,
    LoopbackServer,
    Script,
    digest,
    loopback_process,
)

HELLO = [{"role": "user", "content": "hello"}]
OPEN = Script(refusal_rate=0.0)
Ask = Callable[..., Coroutine[Any, Any, Any]]


def only(kind: str, **settings: Any) -> Script:
    """A script with one fault for everything."""
    return Script(refusal_rate=0.0, faults=(Fault(kind, **settings),))


def with_openai(server: LoopbackServer, use: Callable[[Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.openai_base, api_key="secret", max_retries=0
        ) as client:

            async def ask(**more: Any) -> Any:
                settings: Any = {"model": "m", "messages": HELLO} | more
                return await client.chat.completions.create(**settings)

            await use(ask)

    asyncio.run(main())


def with_anthropic(server: LoopbackServer, use: Callable[[Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(
            base_url=server.anthropic_base, api_key="secret", max_retries=0
        ) as client:

            async def ask(**more: Any) -> Any:
                settings: Any = {"model": "m", "max_tokens": 99, "messages": HELLO} | more
                return await client.messages.create(**settings)

            await use(ask)

    asyncio.run(main())


def with_aiohttp(server: LoopbackServer, use: Callable[[Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def ask(**more: Any) -> Any:
                body = {"model": "m", "messages": HELLO} | more
                url = f"{server.openai_base}/chat/completions"
                # A stream, because aiohttp warns of large bodies given whole.
                stream = io.BytesIO(json.dumps(body).encode())
                async with session.post(url, data=stream) as response:
                    return response.status, await response.json()

            await use(ask)

    asyncio.run(main())


def test_openai_client_sees_answers_and_its_own_exceptions() -> None:
    async def use(ask: Ask) -> None:
        answer = await ask(temperature=0.6)
        assert answer.choices[0].message.content == ANSWER
        assert (answer.choices[0].finish_reason, answer.model) == ("stop", "m-2026-01-01")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4

        server.script = only("rate_limit", seconds=7)
        with pytest.raises(openai.RateLimitError) as limited:
            await ask()
        assert limited.value.response.headers["retry-after"] == "7"
        server.script = only("moderation_error")
        with pytest.raises(openai.BadRequestError) as moderated:
            await ask()
        assert moderated.value.code == "content_policy_violation"
        server.script = only("bad_param", param="top_p", variant="value")
        assert (await ask()).choices  # not sent, not minded
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(top_p=0.9)
        assert (refused.value.code, refused.value.param) == ("unsupported_value", "top_p")
        for kind, error in {
            "server_error": openai.InternalServerError,
            "overloaded": openai.InternalServerError,
            "auth_error": openai.AuthenticationError,
            "unknown_model": openai.NotFoundError,
            "drop": openai.APIConnectionError,
            "drop_mid_body": openai.APIConnectionError,
        }.items():
            server.script = only(kind)
            with pytest.raises(error):
                await ask()

        server.script = only("content_filter")
        assert (await ask()).choices[0].finish_reason == "content_filter"
        server.script = only("only_reasoning", variant="reasoning")
        message = (await ask()).choices[0].message
        assert (message.content, message.reasoning) == (None, REASONING)
        with pytest.raises(openai.BadRequestError, match="Streaming"):
            await ask(stream=True)

    with LoopbackServer(Script(refusal_rate=0.0, served_suffix="-2026-01-01")) as server:
        with_openai(server, use)
        first, limited, *_ = server.log
        assert first.params == {"model": "m", "temperature": 0.6}
        assert first.key == digest("hello")
        assert first.key_digest == digest("secret")[:16]
        assert (limited.ask, limited.expected, limited.final) == (1, "retry", "error")
        assert server.log[-1].fault == "bad_request"


def test_anthropic_client_sees_answers_and_its_own_exceptions() -> None:
    async def use(ask: Ask) -> None:
        answer = await ask(system="Be brief.")
        assert [block.text for block in answer.content] == [ANSWER]
        assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 4)
        assert answer._request_id.startswith("req_")

        for kind, error in {
            "rate_limit": anthropic.RateLimitError,
            "server_error": anthropic.InternalServerError,
            "auth_error": anthropic.AuthenticationError,
            "unknown_model": anthropic.NotFoundError,
            "moderation_error": anthropic.BadRequestError,
            "drop": anthropic.APIConnectionError,
            "drop_mid_body": anthropic.APIConnectionError,
        }.items():
            server.script = only(kind)
            with pytest.raises(error):
                await ask()
        server.script = only("overloaded")
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await ask()
        assert overloaded.value.status_code == 529
        assert overloaded.value.type == "overloaded_error"

        server.script = only("content_filter", category="bio")
        blocked = await ask()
        assert (blocked.stop_reason, blocked.content) == ("refusal", [])
        assert blocked.stop_details.category == "bio"
        server.script = only("reasoning_field")
        assert [block.type for block in (await ask()).content] == ["thinking", "text"]
        server.script = only("empty")
        assert (await ask()).content == []

    with LoopbackServer(OPEN) as server:
        with_anthropic(server, use)
        assert server.log[0].system == "Be brief."
        assert server.log[0].api == "anthropic"


def test_plain_client_sees_broken_bodies_and_sockets() -> None:
    async def use(ask: Ask) -> None:
        for kind, error in {
            "drop": aiohttp.ServerDisconnectedError,
            "drop_mid_body": aiohttp.ClientPayloadError,
            "html": aiohttp.ContentTypeError,
            "wrong_content_type": aiohttp.ContentTypeError,
            "malformed_json": json.JSONDecodeError,
        }.items():
            server.script = only(kind)
            with pytest.raises(error):
                await ask()
        server.script = only("nul_and_escapes")
        _, body = await ask()
        assert body["choices"][0]["message"]["content"] == ESCAPES
        server.script = only("gzip")
        assert (await ask())[0] == 200
        server.script = only("huge", size=2_000_000)
        _, body = await ask()
        answer = body["choices"][0]["message"]["content"]
        # And back again, as a judge is shown it.
        assert (await ask(messages=[{"role": "user", "content": answer}]))[0] == 200

    with LoopbackServer() as server:
        with_aiohttp(server, use)
        assert server.faults["drop"] == 1
        assert server.log[1].sent == "half"


def test_litellm_sees_answers_and_its_own_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    import litellm

    async def main() -> None:
        async def ask(model: str = "openai/m", base: str = server.openai_base) -> Any:
            return await litellm.acompletion(
                model=model, messages=HELLO, api_base=base, api_key="k", max_retries=0
            )

        assert (await ask()).choices[0].message.content == ANSWER
        for kind, error in {
            "rate_limit": litellm.RateLimitError,
            "auth_error": litellm.AuthenticationError,
            "server_error": litellm.InternalServerError,
        }.items():
            server.script = only(kind)
            with pytest.raises(error):
                await ask()
        server.script = only("content_filter")
        assert (await ask()).choices[0].finish_reason == "content_filter"
        blocked = await ask("anthropic/m", server.anthropic_base)
        assert blocked.choices[0].finish_reason == "content_filter"
        await litellm.close_litellm_async_clients()

    with LoopbackServer(OPEN) as server:
        asyncio.run(main())
        assert [exchange.ask for exchange in server.log] == list(range(6))  # no retry


SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 5},
        "label": {"$ref": "#/$defs/label"},
        "refused": {"type": "boolean"},
        "confidence": {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
        "quotes": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
    "required": ["reason", "label", "refused", "confidence", "quotes"],
    "additionalProperties": False,
    "$defs": {"label": {"enum": ["refusal", "deflection", "partial", "compliance"]}},
}


@pytest.mark.parametrize(("answer", "label"), [(REFUSAL, "refusal"), (ANSWER, "compliance")])
def test_judges_fill_in_the_schema_they_are_given(answer: str, label: str) -> None:
    messages = [{"role": "user", "content": json.dumps({"response": answer})}]
    verdicts: list[str] = []

    async def use_openai(ask: Ask) -> None:
        shape = {"type": "json_schema", "json_schema": {"name": "v", "schema": SCHEMA}}
        reply = await ask(model="the-judge", messages=messages, response_format=shape)
        verdicts.append(reply.choices[0].message.content)

    async def use_anthropic(ask: Ask) -> None:
        config = {"format": {"type": "json_schema", "schema": SCHEMA}}
        reply = await ask(model="claude-judge", messages=messages, output_config=config)
        verdicts.append(reply.content[0].text)

    with LoopbackServer() as server:
        with_openai(server, use_openai)
        with_anthropic(server, use_anthropic)
        assert server.requests == {"judge": 2}
    for verdict in map(json.loads, verdicts):
        jsonschema.validate(verdict, SCHEMA)
        assert (verdict["label"], verdict["refused"]) == (label, label == "refusal")


def test_answers_do_not_depend_on_the_order_of_requests() -> None:
    faults = (Fault("rate_limit", every=3), Fault("length", probability=0.3))
    prompts = [f"prompt {i}" for i in range(20)] * 5
    seen: list[dict[tuple[str, int], Any]] = []

    async def use(ask: Ask) -> None:
        await asyncio.gather(
            *(ask(messages=[{"role": "user", "content": prompt}]) for prompt in prompts)
        )

    for order in (prompts, prompts[::-1]):
        prompts = order
        with LoopbackServer(Script(faults=faults)) as server:
            with_aiohttp(server, use)
            seen.append({(e.key, e.ask): (e.fault, e.usage) for e in server.log})
    assert seen[0] == seen[1]
    assert len(seen[0]) == 100
    kinds = [fault for fault, _ in seen[0].values()]
    assert 20 <= kinds.count("rate_limit") <= 40
    assert kinds.count("length") > 5
    for key in {key for key, _ in seen[0]}:
        # Of three asks in a row exactly one is turned away: the next retry passes.
        assert [seen[0][key, ask][0] for ask in range(3)].count("rate_limit") == 1


def test_faults_that_go_away_and_requests_in_flight() -> None:
    async def use(ask: Ask) -> None:
        statuses = [(await ask())[0] for _ in range(4)]
        assert statuses == [429, 429, 200, 200]
        server.hold()
        held = [asyncio.create_task(ask(model=f"m{i}")) for i in range(5)]
        await asyncio.to_thread(server.wait_for, 9)
        assert not any(task.done() for task in held)
        assert all(exchange.sent is None for exchange in server.log[4:])
        server.release()
        await asyncio.gather(*held)

    with LoopbackServer(only("rate_limit", times=2)) as server:
        with_aiohttp(server, use)
        assert server.max_in_flight == 5
        server.reset()
        assert server.log == []
        assert not server.requests


def test_a_process_logs_before_it_answers_and_keeps_texts_out(tmp_path: Path) -> None:
    script = {"refusal_rate": 1.0, "faults": [{"kind": "drop", "match": "never"}]}

    async def use(ask: Ask) -> None:
        _, body = await ask(messages=[{"role": "user", "content": "a private prompt"}])
        assert body["choices"][0]["message"]["content"] == REFUSAL
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(messages=[{"role": "user", "content": "never"}])

    with loopback_process(script, folder=tmp_path) as server:
        with_aiohttp(server, use)  # type: ignore[arg-type]
        answered, dropped = server.exchanges()
    assert (answered["expected"], answered["status"]) == ("answered", 200)
    assert (dropped["expected"], dropped["status"]) == ("retry", None)
    assert "private" not in (tmp_path / "loopback.jsonl").read_text("utf-8")


def test_a_defect_of_a_hook_is_not_lost() -> None:
    def broken(asked: object) -> str:
        raise KeyError("a defect")

    async def use(ask: Ask) -> None:
        assert (await ask())[0] == 500

    with (
        pytest.raises(KeyError, match="a defect"),
        LoopbackServer(Script(target_reply=broken)) as server,
    ):
        with_aiohttp(server, use)


def test_every_kind_of_fault_is_in_the_hostile_script_or_has_a_reason_not_to_be() -> None:
    kinds = {fault.kind for fault in SCRIPTS["hostile"].faults}
    stops_a_run = {"auth_error", "unknown_model", "insufficient_quota", "bad_param"}
    assert kinds | stops_a_run | {"slow"} == set(KINDS)
    with pytest.raises(ValueError, match="no fault"):
        Fault("rate_limited")
