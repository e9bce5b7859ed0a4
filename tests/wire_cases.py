"""Replies as endpoints give them (`samples/wire`), asked for by the real clients."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from loopback.canned import Canned, CannedServer
from places import SAMPLES
from refusalkit.errors import FatalProviderError
from refusalkit.judges.llm import LLMJudge
from refusalkit.judges.rubrics import load_rubric
from refusalkit.models.chat import ChatModel
from refusalkit.models.client import ChatClient
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt, Verdict

ANSWER = (
    "Here is a harmless placeholder answer: step one, mix flour and water; "
    "step two, bake it for an hour."
)
VERDICT = '{"reason": "short line", "verdict": "compliance"}'
PROMPT = Prompt("p1", "assault", "A placeholder request.")
RETRIES = 1

THROUGH_LITELLM = frozenset({"gemini", "bedrock"})
# Each protocol's model, and what comes behind the server's URL.
MODELS = {
    "openai": ("openai/m", "/v1"),
    "anthropic": ("anthropic/claude-x", ""),
    "gemini": ("gemini/gemini-x", ""),
    "bedrock": ("bedrock/converse/amazon.nova-lite-v1:0", ""),
}


@dataclass(frozen=True)
class WireCase:
    """A line of a case file; its fields are described in ``samples/wire/README.md``."""

    name: str
    protocol: str
    kind: str
    expect: dict[str, Any]
    reply: dict[str, Any]
    parameter: str | None = None
    after_ok: int = 0
    times: int | None = None
    source: str | None = None

    @property
    def canned(self) -> Canned:
        """The reply as bytes."""
        said = self.reply
        body = (
            json.dumps(said["json"]).encode()
            if "json" in said
            else said["text"].encode("latin-1" if said.get("latin1") else "utf-8")
        )
        return Canned(said["status"], body, said.get("headers", {}))


@cache
def wire_cases(*kinds: str, file: str = "cases.jsonl") -> tuple[WireCase, ...]:
    """The cases of these kinds, in the file's order."""
    lines = (SAMPLES / "wire" / file).read_text("utf-8").splitlines()
    cases = [WireCase(**json.loads(line)) for line in lines]
    return tuple(case for case in cases if case.kind in kinds)


def good_answer(protocol: str, text: str) -> Canned:
    """An ordinary answer in a protocol's words."""
    match protocol:
        case "anthropic":
            return Canned.json(
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": "claude-x",
                    "content": [{"type": "text", "text": text}],
                    "stop_reason": "end_turn",
                    "stop_sequence": None,
                    "usage": {"input_tokens": 10, "output_tokens": 5},
                }
            )
        case "gemini":
            part = {"content": {"role": "model", "parts": [{"text": text}]}}
            return Canned.json(
                {
                    "candidates": [{**part, "finishReason": "STOP", "index": 0}],
                    "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 15},
                }
            )
        case "bedrock":
            return Canned.json(
                {
                    "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                    "stopReason": "end_turn",
                    "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15},
                }
            )
    message = {"role": "assistant", "content": text}
    return Canned.json(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    )


def each_case(*kinds: str, file: str = "cases.jsonl") -> pytest.MarkDecorator:
    """One test for each case of these kinds."""

    def marks(case: WireCase) -> list[pytest.MarkDecorator]:
        once = case.protocol in THROUGH_LITELLM  # 5 s and 180 MB for each worker that imports it
        return [pytest.mark.xdist_group("litellm")] if once else []

    params = [
        pytest.param(case, id=case.name, marks=marks(case))
        for case in wire_cases(*kinds, file=file)
    ]
    return pytest.mark.parametrize("case", params)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clients find in the environment, for `play`."""
    monkeypatch.setenv("LOOPBACK_KEY", "loopback-key-0123456789abcdef")
    monkeypatch.setenv("AWS_REGION_NAME", "us-east-1")
    # Each client would load all certificates (0.1 s) and need none.
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)


@dataclass
class Became:
    """What came of a case: a completion or a verdict, or the error that ended the run."""

    case: WireCase
    completion: Completion | None = None
    verdict: Verdict | None = None
    fatal: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wrong(self) -> str | None:
        """What is not as the case expects it; None where all is."""
        if self.case.expect.get("ends_run"):
            return None if self.fatal is not None else f"did not end the run: {self.completion!r}"
        if self.fatal is not None:
            return f"ended the run: {self.fatal}"
        if self.verdict is not None:
            return self._wrong_verdict(self.verdict)
        assert self.completion is not None
        return self._wrong_completion(self.completion)

    def _wrong_completion(self, done: Completion) -> str | None:
        expect = self.case.expect
        wanted = expect.get("one_of") or [expect["outcome"]]
        if done.outcome not in wanted:
            return f"{done.outcome}, not {' or '.join(wanted)} ({done.error}: {done.error_detail})"
        match expect.get("text"):
            case "final" if done.text.strip() != ANSWER:
                return f"the final text is {done.text!r}"
            case "whole" if done.text != _said(self.case):
                return f"the text is {done.text!r}"
            case "refusal" if done.text != _said(self.case, "refusal"):
                return f"the refusal is {done.text!r}"
        told = f"{done.finish_reason} {done.error} {done.error_detail}"
        native = expect.get("says")
        if native == "the native reason":
            native = self.case.reply["json"]["candidates"][0]["finishReason"]
        if native and native not in told:
            return f"{native!r} is not in {told!r}"
        if expect.get("retried") and done.attempts != RETRIES + 1:
            return f"sent {done.attempts} times"
        return None

    def _wrong_verdict(self, verdict: Verdict) -> str | None:
        expect, label = self.case.expect, verdict.label
        became = f"{label or verdict.unscored} ({verdict.reason})"
        if (wanted := expect.get("label")) is not None and label != wanted:
            return f"{became}, not {wanted}"
        if (wanted := expect.get("unscored")) is not None and verdict.unscored != wanted:
            return f"{became}, not {wanted}"
        if (wanted := expect.get("label_or_unscored")) is not None and label not in (None, wanted):
            return f"{became}, not {wanted} or none"
        return None


def _said(case: WireCase, name: str = "content") -> str:
    return str(case.reply["json"]["choices"][0]["message"][name])


def _holds(asked: dict[str, Any], parameter: str) -> bool:
    """Whether a request has a parameter; ``system`` is a message of that role."""
    if parameter == "system":
        return any(message["role"] == "system" for message in asked["messages"])
    return parameter in asked


def play(case: WireCase) -> Became:
    """Ask a server that replies as the case says, by the real client of its protocol."""
    judged = case.kind in ("judge", "jlearn")
    good = good_answer(case.protocol, VERDICT if judged else ANSWER)
    model_id, path = MODELS[case.protocol]
    answered = said = 0

    def reply(asked: dict[str, Any], _: str) -> Canned:
        nonlocal answered, said
        if (
            case.after_ok > answered
            or (case.parameter and not _holds(asked, case.parameter))
            or said == case.times
        ):
            answered += 1
            return good
        said += 1
        return case.canned

    with CannedServer(reply) as server:

        async def main() -> Became:
            client = open_client(
                model_id,
                pacer=Pacer(max_retries=RETRIES, backoff_s=0.002),
                api_base=server.url + path,
                api_key_env="LOOPBACK_KEY",
                via="litellm" if case.protocol in THROUGH_LITELLM else None,
            )
            try:
                return await (_judge(case, client) if judged else _ask(case, client))
            finally:
                await client.aclose()

        became = asyncio.run(main())
    became.requests = server.requests
    return became


async def _ask(case: WireCase, client: ChatClient) -> Became:
    model, config = ChatModel(client), GenerationConfig(max_tokens=64, timeout_s=20.0)
    try:
        for _ in range(case.after_ok):
            before = await model.complete(PROMPT, config)
            assert before.outcome is Outcome.ANSWERED, before.error
        return Became(case, await model.complete(PROMPT, config))
    except FatalProviderError as error:
        return Became(case, fatal=str(error))


async def _judge(case: WireCase, client: ChatClient) -> Became:
    rubric = load_rubric("graded", model=client.model_id)
    answer = Completion(PROMPT.id, PROMPT.category, 1, "x/m", Outcome.ANSWERED, text=ANSWER)
    try:
        return Became(case, verdict=await LLMJudge(rubric, client).grade(PROMPT, answer))
    except FatalProviderError as error:
        return Became(case, fatal=str(error))
