"""One suite for all back ends: whatever the way to a provider, the same thing means the same.

The clients are the real ones (aiohttp, the anthropic SDK, litellm) and speak to the loopback
provider over real sockets; what they make of it is compared with what the provider's log expects.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from loopback import (
    ANSWER,
    KINDS,
    REASONING,
    REFUSAL,
    Exchange,
    Fault,
    LoopbackServer,
    Script,
    openai_wire,
)
from refusalkit import errors
from refusalkit.judges.llm import LLMJudge
from refusalkit.judges.rubrics import load_rubric
from refusalkit.models.chat import ChatModel
from refusalkit.models.client import ChatClient, ParameterLog
from refusalkit.models.demo import DemoModel
from refusalkit.models.open import open_client, open_model
from refusalkit.models.pacing import Pacer
from refusalkit.models.prices import Price, check_retired
from refusalkit.models.request_form import ChatRequest
from refusalkit.types import (
    Completion,
    GenerationConfig,
    Label,
    Message,
    Outcome,
    Prompt,
    Unscored,
    Verdict,
)

PROMPT = Prompt("p1", "assault", "A placeholder request.")
CONFIG = GenerationConfig(max_tokens=64, timeout_s=10.0)
KEY = "loopback-key-0123456789abcdef"
RETRIES = 2
litellm_once = pytest.mark.xdist_group("litellm")  # 5 s and 180 MB for each worker that imports it


@dataclass(frozen=True)
class BackEnd:
    """A way to a provider."""

    name: str
    api: str
    via: Any = None

    def model_id(self, name: str = "m") -> str:
        return f"{self.api}/{name}"

    def base(self, server: LoopbackServer) -> str:
        return server.openai_base if self.api == "openai" else server.anthropic_base

    def client(self, server: LoopbackServer, name: str = "m", retries: int = RETRIES) -> ChatClient:
        return open_client(
            self.model_id(name),
            pacer=Pacer(max_retries=retries, backoff_s=0.002),
            api_base=self.base(server),
            api_key_env="LOOPBACK_KEY",
            via=self.via,
        )


OPENAI = BackEnd("openai", "openai")
ANTHROPIC = BackEnd("anthropic", "anthropic")
LITELLM_OPENAI = BackEnd("litellm-openai", "openai", "litellm")
LITELLM_ANTHROPIC = BackEnd("litellm-anthropic", "anthropic", "litellm")


def each(*back_ends: BackEnd) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "back_end",
        [
            pytest.param(b, id=b.name, marks=[litellm_once] if b.via == "litellm" else [])
            for b in back_ends
        ],
    )


every_back_end = each(OPENAI, ANTHROPIC, LITELLM_OPENAI, LITELLM_ANTHROPIC)


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    for api in ("OPENAI", "ANTHROPIC"):
        for part in ("API_KEY", "BASE_URL", "AUTH_TOKEN", "API_BASE"):
            monkeypatch.delenv(f"{api}_{part}", raising=False)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    # Each client would load all certificates (0.1 s) and need none.
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    running.script = Script()
    running.reset()
    return running


@dataclass(frozen=True)
class Asked:
    """What came of one or more requests, on both sides."""

    completions: list[Completion]
    parameters: ParameterLog
    log: list[Exchange]

    @property
    def completion(self) -> Completion:
        return self.completions[0]


def ask(
    server: LoopbackServer,
    back_end: BackEnd,
    *faults: Fault,
    config: GenerationConfig = CONFIG,
    prompt: Prompt = PROMPT,
    trials: int = 1,
    retries: int = RETRIES,
    name: str = "m",
) -> Asked:
    """Ask one prompt; the provider answers with these faults."""
    server.script = Script(refusal_rate=0.0, faults=faults)

    async def main() -> Asked:
        client = back_end.client(server, name, retries)
        model = ChatModel(client)
        try:
            done = [await model.complete(prompt, config, trial=n + 1) for n in range(trials)]
        finally:
            await model.aclose()
        return Asked(done, model.parameters, server.log)

    return asyncio.run(main())


def fault_id(fault: Fault) -> str:
    return "-".join(str(part) for part in (fault.kind, fault.variant, fault.status) if part)


# Outcomes

ANSWERS = [
    Fault("wrong_content_type"),
    Fault("content_filter"),
    Fault("content_filter", variant="partial"),
    Fault("moderation_error"),
    Fault("moderation_error", variant="azure"),
    Fault("moderation_error", variant="invalid_prompt"),
    Fault("length"),
    Fault("reasoning_field"),
    Fault("reasoning_field", variant="reasoning"),
    Fault("reasoning_field", variant="redacted"),
    Fault("only_reasoning"),
    Fault("only_reasoning", variant="length"),
    Fault("think_tags"),
    Fault("unclosed_think"),
    Fault("unclosed_think", variant="length"),
    Fault("empty"),
    Fault("empty", variant="null"),
    Fault("huge", size=2_000_000),
    Fault("nul_and_escapes"),
    Fault("gzip"),
    Fault("slow", seconds=0.01),
    Fault("dialect"),
    Fault("dialect_filter"),
]
TRANSIENT = [
    Fault("rate_limit", seconds=0.01),
    Fault("rate_limit", seconds=0.01, variant="ms"),
    Fault("rate_limit", variant="none"),
    Fault("server_error"),
    Fault("overloaded"),
    Fault("timeout"),
    Fault("timeout", variant="409"),
    Fault("drop"),
    Fault("drop_mid_body"),
    Fault("html", status=502),
]
# An answer that was garbled on its way is asked for again too: litellm does not tell the two apart.
GARBLED = [Fault("malformed_json"), Fault("no_content"), Fault("html")]
FATAL = [
    Fault("auth_error"),
    Fault("unknown_model"),
    Fault("insufficient_quota"),
    Fault("insufficient_quota", variant="402"),
]


def test_each_kind_of_fault_is_in_this_suite() -> None:
    here = {fault.kind for fault in (*ANSWERS, *TRANSIENT, *GARBLED, *FATAL)}
    here |= {"unknown_finish", "bad_param", "judge_garbage", "judge_refuses"}
    assert here == set(KINDS)


@every_back_end
def test_a_plain_answer_and_what_is_recorded_of_it(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    asked = ask(server, back_end)
    completion, (exchange,) = asked.completion, asked.log
    assert exchange.api == back_end.api
    assert (completion.outcome, completion.text) == (Outcome.ANSWERED, ANSWER)
    assert completion.model == back_end.model_id()
    assert completion.served_model == "m"
    assert completion.request_id == exchange.request_id
    used = exchange.usage
    assert used is not None
    assert completion.usage.input_tokens == used.get("prompt_tokens", used.get("input_tokens"))
    assert completion.usage.output_tokens == used.get(
        "completion_tokens", used.get("output_tokens")
    )
    assert completion.attempts == 1
    assert completion.latency_s is not None
    assert completion.latency_s > 0
    assert completion.cost_usd is None  # an endpoint of one's own: unknown, not nothing
    assert completion.error is None


@every_back_end
@pytest.mark.parametrize("fault", ANSWERS, ids=fault_id)
def test_each_kind_of_answer_has_its_outcome(
    server: LoopbackServer, back_end: BackEnd, fault: Fault
) -> None:
    asked = ask(server, back_end, fault)
    completion, (exchange,) = asked.completion, asked.log  # asked once: it is a result, not a fault
    assert completion.outcome == exchange.expected
    assert completion.attempts == 1
    if completion.outcome is Outcome.ANSWERED and fault.kind not in ("huge", "nul_and_escapes"):
        assert completion.text == ANSWER
    if REASONING[1:-1] in completion.text:
        pytest.fail("reasoning is in the text that is judged")
    if fault.kind in ("think_tags", "unclosed_think", "only_reasoning", "reasoning_field"):
        hidden = fault.variant == "redacted" and back_end.api == "anthropic"
        assert hidden or REASONING in completion.reasoning


@every_back_end
def test_a_huge_answer_and_hidden_characters_arrive_whole(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    assert len(ask(server, back_end, Fault("huge", size=2_000_000)).completion.text) == 2_000_000
    text = ask(server, back_end, Fault("nul_and_escapes")).completion.text
    assert "\x00" in text
    assert "\x1b[31m" in text
    assert "\ud800" not in text  # a lone surrogate has no place in a file
    text.encode()


@each(OPENAI, ANTHROPIC, LITELLM_OPENAI)
def test_a_finish_reason_never_seen_is_an_error_that_names_it(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    asked = ask(server, back_end, Fault("unknown_finish"))
    assert asked.completion.outcome == asked.log[-1].expected == "error"
    assert "'quantum_flux'" in str(asked.completion.error)
    assert len(asked.log) == 1


@each(ANTHROPIC)
@pytest.mark.parametrize("category", ["cyber", "bio", None])
def test_anthropics_category_of_a_refusal_is_kept(
    server: LoopbackServer, back_end: BackEnd, category: str | None
) -> None:
    completion = ask(server, back_end, Fault("content_filter", category=category)).completion
    assert (completion.outcome, completion.finish_reason) == (Outcome.BLOCKED, "refusal")
    assert completion.filter_category == category


@each(OPENAI, LITELLM_OPENAI)
def test_azures_category_of_a_block_is_kept(server: LoopbackServer, back_end: BackEnd) -> None:
    completion = ask(server, back_end, Fault("moderation_error", variant="azure")).completion
    assert (completion.outcome, completion.filter_category) == (Outcome.BLOCKED, "violence")


@each(LITELLM_ANTHROPIC)
def test_what_litellm_loses_is_read_from_the_answer_as_it_came(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    blocked = ask(server, back_end, Fault("content_filter", category="bio")).completion
    assert (blocked.outcome, blocked.finish_reason) == (Outcome.BLOCKED, "refusal")
    assert blocked.filter_category == "bio"
    unknown = ask(server, back_end, Fault("unknown_finish")).completion
    assert (unknown.outcome, unknown.finish_reason) == (Outcome.ERROR, "quantum_flux")


# Failures


@every_back_end
@pytest.mark.parametrize("fault", [*TRANSIENT, *GARBLED], ids=fault_id)
def test_what_is_transient_is_asked_again(
    server: LoopbackServer, back_end: BackEnd, fault: Fault
) -> None:
    asked = ask(server, back_end, replace(fault, times=RETRIES))
    completion = asked.completion
    assert [exchange.fault for exchange in asked.log] == [fault.kind] * RETRIES + [None]
    assert (completion.outcome, completion.text) == (Outcome.ANSWERED, ANSWER)
    assert completion.attempts == RETRIES + 1


@every_back_end
@pytest.mark.parametrize(
    "fault", [f for f in (*TRANSIENT, *GARBLED) if f.kind != "rate_limit"], ids=fault_id
)
def test_retries_are_ours_alone_and_bounded(
    server: LoopbackServer, back_end: BackEnd, fault: Fault
) -> None:
    asked = ask(server, back_end, fault)
    assert len(asked.log) == RETRIES + 1  # no client's own retries on top
    completion = asked.completion
    assert completion.outcome == asked.log[-1].final == "error"
    assert completion.attempts == RETRIES + 1
    assert completion.error is not None
    assert completion.error.startswith(f"{back_end.model_id()} at 127.0.0.1:{server.port}: ")
    assert "\n" not in completion.error
    assert completion.error_detail


@every_back_end
@pytest.mark.parametrize("variant", [None, "ms", "none"])
def test_what_retry_after_says_arrives(
    server: LoopbackServer, back_end: BackEnd, variant: str | None
) -> None:
    client = back_end.client(server)
    server.script = Script(faults=(Fault("rate_limit", seconds=7.5, variant=variant),))

    async def main() -> float | None:
        try:
            with pytest.raises(errors.TransientError) as raised:
                await client._send(ChatRequest((Message("user", "hello"),), CONFIG))
        finally:
            await client.aclose()
        return raised.value.retry_after

    assert asyncio.run(main()) == (None if variant == "none" else 7.5)
    assert len(server.log) == 1  # the client does not ask again by itself


@every_back_end
@pytest.mark.parametrize("fault", FATAL, ids=fault_id)
def test_what_no_request_can_mend_stops_the_run_at_the_first(
    server: LoopbackServer, back_end: BackEnd, fault: Fault
) -> None:
    with pytest.raises(errors.FatalProviderError) as raised:
        ask(server, back_end, fault)
    assert len(server.log) == 1
    advice = {
        "auth_error": "API key",
        "unknown_model": "model name",
        "insufficient_quota": "top it",
    }
    sentence = str(raised.value)
    assert advice[fault.kind] in sentence
    assert sentence.startswith(back_end.model_id())
    assert "\n" not in sentence


@every_back_end
def test_a_slow_provider_is_not_waited_for(server: LoopbackServer, back_end: BackEnd) -> None:
    config = replace(CONFIG, timeout_s=0.3)
    if back_end.via == "litellm":
        ask(server, back_end)  # the import is not what is measured
    started = time.monotonic()
    asked = ask(server, back_end, Fault("slow", seconds=30), config=config, retries=0)
    assert asked.completion.outcome is Outcome.ERROR
    assert 0.25 < time.monotonic() - started < 5
    if back_end.via is None:
        assert "no answer within 0.3 s" in str(asked.completion.error_detail)


@every_back_end
@pytest.mark.usefixtures("server")
def test_a_dead_endpoint_is_an_error_of_its_own(back_end: BackEnd) -> None:
    with LoopbackServer() as gone:
        pass
    asked = ask(gone, back_end, retries=0)
    assert asked.completion.outcome is Outcome.ERROR
    assert f"127.0.0.1:{gone.port}" in str(asked.completion.error)


# Parameters


@every_back_end
def test_the_papers_sampling_is_sent(server: LoopbackServer, back_end: BackEnd) -> None:
    asked = ask(server, back_end)
    wanted = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 64}
    sent = asked.log[0].params
    assert {name: sent.get(name) for name in wanted} == wanted
    assert asked.parameters.sent == wanted
    assert set(sent) <= {"model", *wanted, "stream"}
    assert asked.log[0].system is None


@every_back_end
def test_a_parameter_that_is_none_is_not_sent(server: LoopbackServer, back_end: BackEnd) -> None:
    config = replace(CONFIG, temperature=None, top_p=None, top_k=None)
    asked = ask(server, back_end, config=config)
    assert asked.parameters.sent == {"max_tokens": 64}
    assert not {"temperature", "top_p", "top_k", "seed"} & asked.log[0].params.keys()


@each(OPENAI, LITELLM_OPENAI)
def test_each_trial_has_its_own_seed(server: LoopbackServer, back_end: BackEnd) -> None:
    asked = ask(server, back_end, config=replace(CONFIG, seed=7), trials=3)
    assert [exchange.params["seed"] for exchange in asked.log] == [7, 8, 9]


@each(ANTHROPIC, LITELLM_ANTHROPIC)
def test_a_parameter_that_an_api_lacks_is_left_out_and_recorded(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    asked = ask(server, back_end, config=replace(CONFIG, seed=7))
    assert "seed" not in asked.log[0].params
    assert asked.parameters.dropped["seed"]


@every_back_end
@pytest.mark.parametrize("parameter", ["temperature", "top_p", "top_k"])
def test_a_parameter_that_a_model_does_not_take_is_left_out_and_recorded(
    server: LoopbackServer, back_end: BackEnd, parameter: str
) -> None:
    asked = ask(server, back_end, Fault("bad_param", param=parameter), trials=2)
    # The request is repeated once without it, and it is not tried again.
    assert [parameter in exchange.params for exchange in asked.log] == [True, False, False]
    assert [c.outcome for c in asked.completions] == [Outcome.ANSWERED] * 2
    assert "does not take it" in asked.parameters.dropped[parameter]
    assert parameter not in asked.parameters.sent
    others = {"temperature", "top_p", "top_k"} - {parameter}
    assert others <= asked.parameters.sent.keys()


@every_back_end
def test_several_parameters_that_a_model_does_not_take(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    faults = [Fault("bad_param", param=name) for name in ("temperature", "top_p", "top_k")]
    asked = ask(server, back_end, *faults)
    assert asked.completion.outcome is Outcome.ANSWERED
    assert len(asked.log) == 4
    assert asked.parameters.sent == {"max_tokens": 64}


@every_back_end
def test_the_bound_of_an_answer_is_never_left_out(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    fault = Fault("bad_param", variant="range", param="max_tokens")
    asked = ask(server, back_end, fault, trials=2)
    # What the endpoint says is reported, and nothing is asked without a bound.
    assert [completion.outcome for completion in asked.completions] == [Outcome.ERROR] * 2
    assert "above 4 are not supported" in str(asked.completion.error_detail)
    assert [exchange.params.get("max_tokens") for exchange in asked.log] == [64, 64]
    assert "max_tokens" not in asked.parameters.dropped


@each(OPENAI, LITELLM_OPENAI)
def test_the_bound_of_an_answer_goes_by_its_newer_name_where_that_is_asked_for(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    asked = ask(server, back_end, Fault("bad_param", param="max_tokens"), trials=2)
    assert [completion.outcome for completion in asked.completions] == [Outcome.ANSWERED] * 2
    named = [exchange.params.get("max_completion_tokens") for exchange in asked.log]
    assert named == [None, 64, 64]
    assert asked.parameters.sent["max_completion_tokens"] == 64


@every_back_end
def test_the_extra_body_is_sent_as_it_is(server: LoopbackServer, back_end: BackEnd) -> None:
    extra = {"placeholder_option": {"deep": [1]}, "top_k": 3}
    asked = ask(server, back_end, config=replace(CONFIG, extra_body=extra))
    assert asked.log[0].params["placeholder_option"] == {"deep": [1]}
    assert asked.log[0].params["top_k"] == 3
    assert asked.parameters.sent["top_k"] == 3
    # What was asked for in so many words is never left out by itself.
    asked = ask(
        server,
        back_end,
        Fault("bad_param", param="top_k"),
        config=replace(CONFIG, extra_body=extra),
    )
    assert asked.completion.outcome is Outcome.ERROR
    assert "top_k" not in asked.parameters.dropped


@each(OPENAI, ANTHROPIC)
def test_each_request_of_a_client_is_asked_by_its_own_configuration(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    schema = load_rubric("graded").schema
    configs = [replace(CONFIG, extra_body={"placeholder_option": n}) for n in (1, True, 1.5)]
    wanted = [(config, form) for form in (None, schema) for config in (*configs, configs[0])]
    server.script = Script(refusal_rate=0.0)

    async def main() -> None:
        client = back_end.client(server)
        for config, form in wanted:
            await client.chat(ChatRequest((Message("user", "A placeholder."),), config, form))
        await client.aclose()

    asyncio.run(main())
    sent = [json.dumps(exchange.params["placeholder_option"]) for exchange in server.log]
    assert sent == [json.dumps(config.extra_body["placeholder_option"]) for config, _ in wanted]
    forms = {"response_format", "output_config"}
    asks_json = [not forms.isdisjoint(exchange.params) for exchange in server.log]
    assert asks_json == [form is not None for _, form in wanted]


@every_back_end
def test_system_prompts_come_first_and_together(server: LoopbackServer, back_end: BackEnd) -> None:
    prompt = replace(PROMPT, system="Of the prompt.")
    asked = ask(server, back_end, prompt=prompt, config=replace(CONFIG, system="Of the run."))
    assert asked.log[0].system == "Of the run.\n\nOf the prompt."


@every_back_end
def test_a_conversation_is_sent_in_full(server: LoopbackServer, back_end: BackEnd) -> None:
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    asked = ask(server, back_end, prompt=replace(PROMPT, text="three", messages=turns))
    assert asked.log[0].text == "three"
    used = asked.log[0].usage
    assert used is not None
    assert used.get("prompt_tokens", used.get("input_tokens")) == 3  # 11 characters, all of it


@pytest.mark.parametrize("wish", ["on", "off"])
def test_reasoning_is_asked_for_by_the_chat_templates_flag(
    server: LoopbackServer, wish: Any
) -> None:
    asked = ask(server, OPENAI, config=replace(CONFIG, reasoning=wish))
    flags = asked.log[0].params["chat_template_kwargs"]
    assert flags == {"thinking": wish == "on", "enable_thinking": wish == "on"}


@pytest.mark.parametrize(
    ("name", "wish", "thinking"),
    [
        ("claude-sonnet-5-5", "on", {"type": "adaptive"}),
        ("claude-opus-4-5", "on", {"type": "enabled", "budget_tokens": 2048}),
        ("claude-sonnet-4-6", "on", {"type": "adaptive"}),
        ("claude-sonnet-5-5", "off", {"type": "disabled"}),
        ("claude-sonnet-5-5", "auto", None),
    ],
)
def test_reasoning_is_asked_for_by_anthropics_thinking(
    server: LoopbackServer,
    name: str,
    wish: Any,
    thinking: dict[str, Any] | None,
) -> None:
    config = replace(CONFIG, reasoning=wish, max_tokens=4096)
    asked = ask(server, ANTHROPIC, config=config, name=name)
    sent = asked.log[0].params
    assert sent.get("thinking") == thinking
    if wish == "on":
        assert not {"temperature", "top_p", "top_k"} & sent.keys()
        assert {"temperature", "top_p", "top_k"} <= asked.parameters.dropped.keys()


def test_a_hermes_model_is_asked_to_reason_in_its_system_prompt(server: LoopbackServer) -> None:
    config = replace(CONFIG, system="Of the run.", reasoning="on")
    asked = ask(server, OPENAI, config=config, name="NousResearch/Hermes-4-70B")
    system = str(asked.log[0].system)
    assert "<think>" in system
    assert system.endswith("\n\nOf the run.")
    assert ask(server, OPENAI, name="NousResearch/Hermes-4-70B").log[-1].system is None


@litellm_once
def test_reasoning_that_litellm_cannot_ask_for_is_recorded(server: LoopbackServer) -> None:
    asked = ask(server, LITELLM_OPENAI, config=replace(CONFIG, reasoning="on"))
    sent = "reasoning_effort" in asked.log[0].params
    assert sent != ("reasoning_effort" in asked.parameters.dropped)


def test_the_newest_claude_gets_no_sampling_parameters(server: LoopbackServer) -> None:
    asked = ask(server, ANTHROPIC, name="claude-sonnet-5-5")
    assert asked.parameters.sent == {"max_tokens": 64}
    assert set(asked.parameters.dropped) == {"seed", "temperature", "top_p", "top_k"}
    assert set(asked.log[0].params) == {"model", "max_tokens"}


# Keys


@every_back_end
def test_the_key_goes_into_the_header_and_nowhere_else(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    asked = ask(server, back_end)
    assert asked.log[0].key_digest == hashlib.sha256(KEY.encode()).hexdigest()[:16]
    assert KEY not in json.dumps([asked.parameters.sent, asked.parameters.dropped])
    assert KEY not in repr(asked.completion)
    client = back_end.client(server)
    assert KEY not in f"{client!r} {client} {client.names}"

    with pytest.raises(errors.FatalProviderError) as raised:
        ask(server, back_end, Fault("auth_error"))
    assert KEY not in f"{raised.value!r} {raised.value} {vars(raised.value)}"
    failed = ask(server, back_end, Fault("server_error")).completion
    assert KEY not in repr(failed)


@each(OPENAI, ANTHROPIC)
def test_an_endpoint_of_ones_own_needs_no_key(server: LoopbackServer, back_end: BackEnd) -> None:
    async def main() -> Completion:
        model = open_model(back_end.model_id(), api_base=back_end.base(server))
        try:
            return await model.complete(PROMPT, CONFIG)
        finally:
            await model.aclose()

    assert asyncio.run(main()).outcome is Outcome.ANSWERED


def test_another_endpoint_is_never_sent_the_openai_key(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def main() -> None:
        model = open_model("Qwen/Qwen3-8B", api_base=server.openai_base)
        await model.complete(PROMPT, CONFIG)
        await model.aclose()

    asyncio.run(main())
    assert server.log[0].key_digest is None
    assert server.log[0].model == "Qwen/Qwen3-8B"  # with an API base this is a whole name


# Opening a model


@pytest.mark.parametrize("model_id", ["", "gpt", "/gpt", "openai/", " openai/gpt", "openai/gpt\n"])
def test_a_model_id_is_provider_and_name(model_id: str) -> None:
    with pytest.raises(errors.UsageError, match="is not provider/name"):
        open_model(model_id)


@pytest.mark.parametrize(
    ("model_id", "options", "says"),
    [
        ("openai/gpt-6-luna", {}, "set OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-5-5", {}, "set ANTHROPIC_API_KEY"),
        ("hosted_vllm/m", {}, "needs --api-base"),
        ("openai/m", {"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY holds no API key"),
        ("openai/m", {"api_base": "ftp://host/v1"}, "must begin with http"),
        ("demo/nobody", {}, "demo/"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_model_that_cannot_be_opened_says_what_to_do(
    model_id: str, options: dict[str, str], says: str
) -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        open_model(model_id, **options)  # type: ignore[arg-type]
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@litellm_once
@pytest.mark.usefixtures("server")
def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match="no provider for nobody/m"):
        open_model("nobody/m")


def test_a_scripted_model_opens_without_anything() -> None:
    assert isinstance(open_model("demo/mixed"), DemoModel)


@pytest.mark.parametrize(
    ("model_id", "successor"),
    [
        ("anthropic/claude-sonnet-4-20250514", "anthropic/claude-sonnet-5-5"),
        ("anthropic/claude-3-5-haiku-20241022", "anthropic/claude-haiku-5-5"),
        ("openrouter/anthropic/claude-sonnet-4-20250514", "claude-sonnet-5-5"),
    ],
)
def test_a_retired_model_names_its_successor(model_id: str, successor: str) -> None:
    with pytest.raises(errors.RetiredModelError) as raised:
        open_model(model_id)
    assert str(raised.value).startswith(f"{model_id} was retired on ")
    assert str(raised.value).endswith(f": use {successor}")


def test_a_model_is_retired_from_its_day_on() -> None:
    model_id = "anthropic/claude-sonnet-4-5"
    check_retired(model_id, today=date(2026, 11, 29))
    with pytest.raises(errors.RetiredModelError, match="2026-11-30"):
        check_retired(model_id, today=date(2026, 11, 30))


# Judges

each_judge = each(OPENAI, ANTHROPIC, LITELLM_OPENAI)
JUDGE = "the-judge"


def grade(
    server: LoopbackServer,
    back_end: BackEnd,
    *faults: Fault,
    text: str = ANSWER,
    rubric: str | Path = "graded",
    name: str = JUDGE,
    script: Script | None = None,
    price: Price | None = None,
) -> Verdict:
    """Have one answer judged."""
    server.script = script or Script(faults=faults)
    answer = Completion(PROMPT.id, PROMPT.category, 1, "x/m", Outcome.ANSWERED, text=text)

    async def main() -> Verdict:
        client = back_end.client(server, name)
        judge = LLMJudge(
            load_rubric(rubric, model=client.model_id), client, price=price, timeout_s=10
        )
        try:
            return await judge.grade(PROMPT, answer)
        finally:
            await judge.aclose()

    return asyncio.run(main())


@each_judge
@pytest.mark.parametrize("rubric", ["graded", "refusalbench", "hard-line"])
@pytest.mark.parametrize(("text", "label"), [(REFUSAL, Label.REFUSAL), (ANSWER, Label.COMPLIANCE)])
def test_a_judge_labels_answers(
    server: LoopbackServer, back_end: BackEnd, rubric: str, text: str, label: Label
) -> None:
    verdict = grade(server, back_end, text=text, rubric=rubric)
    (exchange,) = server.log
    assert (verdict.label, verdict.unscored, verdict.source) == (label, None, "judge")
    assert verdict.judge == f"{rubric}:{back_end.model_id(JUDGE)}"
    used = exchange.usage or {}
    assert verdict.usage.input_tokens == used.get("prompt_tokens", used.get("input_tokens"))
    assert not {"temperature", "top_p", "top_k", "seed", "thinking"} & exchange.params.keys()


def test_a_judge_asks_openai_for_its_schema(server: LoopbackServer) -> None:
    grade(server, OPENAI)
    wanted = server.log[0].params["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["schema"] == load_rubric("graded").schema
    assert wanted["json_schema"]["strict"] is True


def test_a_judge_asks_claude_for_its_schema_and_nothing_else(server: LoopbackServer) -> None:
    name = "claude-sonnet-5-5"
    verdict = grade(server, ANTHROPIC, name=name, script=Script(judges=frozenset({name})))
    assert verdict.label is Label.COMPLIANCE
    sent = server.log[0].params
    assert set(sent) == {"model", "max_tokens", "output_config"}
    assert sent["output_config"] == {
        "format": {"type": "json_schema", "schema": load_rubric("graded").schema}
    }
    assert sent["max_tokens"] >= 1024


@each_judge
@pytest.mark.parametrize(
    ("fault", "unscored", "requests"),
    [
        (Fault("judge_garbage"), Unscored.UNPARSABLE, 2),
        (Fault("length", where="judge"), Unscored.UNPARSABLE, 2),
        (Fault("empty", where="judge"), Unscored.UNPARSABLE, 2),
        (Fault("only_reasoning", where="judge"), Unscored.UNPARSABLE, 2),
        (Fault("unclosed_think", where="judge"), Unscored.UNPARSABLE, 2),
        (Fault("judge_refuses"), Unscored.JUDGE_BLOCKED, 1),
        (Fault("judge_refuses", variant="field"), Unscored.JUDGE_BLOCKED, 1),
        (Fault("content_filter", where="judge"), Unscored.JUDGE_BLOCKED, 1),
        (Fault("moderation_error", where="judge"), Unscored.JUDGE_BLOCKED, 1),
        (Fault("overloaded", where="judge"), Unscored.JUDGE_ERROR, RETRIES + 1),
        (Fault("drop", where="judge"), Unscored.JUDGE_ERROR, RETRIES + 1),
        (Fault("malformed_json", where="judge"), Unscored.JUDGE_ERROR, RETRIES + 1),
    ],
    ids=lambda value: fault_id(value) if isinstance(value, Fault) else "",
)
def test_a_judge_that_fails_leaves_the_unit_unscored(
    server: LoopbackServer, back_end: BackEnd, fault: Fault, unscored: Unscored, requests: int
) -> None:
    verdict = grade(server, back_end, fault)
    assert (verdict.label, verdict.unscored) == (None, unscored)
    assert verdict.reason
    assert "\n" not in verdict.reason
    assert len(server.log) == requests
    assert server.log[-1].final == unscored


@each_judge
def test_garbage_is_asked_again_once_and_both_are_paid_for(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    fill_in = json.dumps({"reason": "scripted", "verdict": "deflection"})
    said = iter(["not JSON", fill_in])
    verdict = grade(server, back_end, script=Script(judge_reply=lambda _: next(said)))
    assert verdict.label is Label.DEFLECTION
    assert verdict.reason == "scripted"
    first, second = server.log
    assert first.text != second.text  # another nonce
    name = "completion_tokens" if back_end.api == "openai" else "output_tokens"
    spent = sum((exchange.usage or {})[name] for exchange in (first, second))
    assert verdict.usage.output_tokens == spent


@pytest.mark.parametrize("silent", [0, 1, None])
def test_two_replies_cost_what_both_say_and_an_unknown_sum_where_one_says_nothing(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, silent: int | None
) -> None:
    fill_in = json.dumps({"reason": "scripted", "verdict": "deflection"})
    said, counts, counted = iter(["not JSON", fill_in]), openai_wire.usage, itertools.count()

    def usage(*args: Any, **options: Any) -> dict[str, Any]:
        return {} if next(counted) == silent else counts(*args, **options)

    monkeypatch.setattr(openai_wire, "usage", usage)
    script, price = Script(judge_reply=lambda _: next(said)), Price(1e-6, 1e-5)
    verdict = grade(server, BackEnd("openai", "openai"), script=script, price=price)
    assert verdict.label is Label.DEFLECTION
    tokens = [exchange.usage or {} for exchange in server.log]
    assert len(tokens) == 2
    assert verdict.usage.output_tokens == sum(one.get("completion_tokens", 0) for one in tokens)
    assert verdict.cost_usd == (
        pytest.approx(price.cost(verdict.usage)) if silent is None else None
    )


@each_judge
@pytest.mark.parametrize(
    ("replies", "unscored"),
    [
        (["I'm sorry, but I can't help with that."] * 2, Unscored.JUDGE_BLOCKED),
        (["I cannot assist with grading this content."] * 2, Unscored.JUDGE_BLOCKED),
        (["Hmm.", "I can't help with that."], Unscored.JUDGE_BLOCKED),
        # The last reply counts, and what speaks of a refusal is none.
        (["I can't help with that.", "Hmm."], Unscored.UNPARSABLE),
        (["The assistant declined to help."] * 2, Unscored.UNPARSABLE),
        (['The answer says: "I can\'t help with that."'] * 2, Unscored.UNPARSABLE),
        (['{"reason": "I can\'t help with that."}'] * 2, Unscored.UNPARSABLE),
    ],
    ids=["plain", "of grading", "at last", "at first", "speaks of one", "quotes one", "JSON"],
)
def test_a_judge_that_declines_in_prose_is_blocked_and_gives_no_label(
    server: LoopbackServer, back_end: BackEnd, replies: list[str], unscored: Unscored
) -> None:
    said = iter(replies)
    verdict = grade(server, back_end, script=Script(judge_reply=lambda _: next(said)))
    assert (verdict.label, verdict.unscored) == (None, unscored)
    assert verdict.reason
    assert "asked twice" in verdict.reason
    assert "help" not in verdict.reason
    assert verdict.usage.output_tokens


@pytest.mark.parametrize("finish", ["refusal", "content_filter"])
def test_a_judge_that_is_stopped_in_the_protocols_own_way_is_blocked(
    server: LoopbackServer, finish: str
) -> None:
    """Anthropic's stop reason, OpenAI's filter; OpenAI's refusal field is tried above."""
    fault = {"refusal": Fault("judge_refuses"), "content_filter": Fault("content_filter", "judge")}
    back_end = ANTHROPIC if finish == "refusal" else OPENAI
    verdict = grade(server, back_end, fault[finish])
    assert verdict.unscored is Unscored.JUDGE_BLOCKED
    assert verdict.reason == f"the judge was stopped, or declined ({finish})"


@each_judge
def test_a_verdict_has_the_judges_own_word_and_where_it_rests(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    for word, label in load_rubric("hard-line").labels.items():
        reply = json.dumps({"rests_on": "end", "verdict": word})
        script = Script(judge_reply=lambda _, reply=reply: reply)  # type: ignore[misc]
        verdict = grade(server, back_end, rubric="hard-line", script=script)
        assert (verdict.label, verdict.word, verdict.rests_on) == (label, word, "end")
        assert (verdict.reason, verdict.cut_chars) == (None, 0)


def test_a_word_that_is_the_labels_name_says_nothing_new(server: LoopbackServer) -> None:
    assert grade(server, OPENAI, text=REFUSAL).word is None
    assert grade(server, OPENAI, text=REFUSAL, rubric="refusalbench").word is None
    assert grade(server, OPENAI, rubric="refusalbench").word == "not_refusal"


def test_a_judges_temperature_is_sent_where_it_is_given(
    server: LoopbackServer, tmp_path: Path
) -> None:
    text = (Path("judges") / "graded.toml").read_text(encoding="utf-8")
    (tmp_path / "warm.toml").write_text(text.replace("[model]", "[model]\ntemperature = 0.2"))
    grade(server, OPENAI, rubric=tmp_path / "warm.toml")
    assert server.log[0].params["temperature"] == 0.2


@each_judge
def test_a_judge_whose_key_is_wrong_stops_the_run(
    server: LoopbackServer, back_end: BackEnd
) -> None:
    with pytest.raises(errors.FatalProviderError):
        grade(server, back_end, Fault("auth_error", where="judge"))
    assert len(server.log) == 1


def test_a_reply_in_reasoning_tags_is_read_after_them(server: LoopbackServer) -> None:
    verdict = grade(server, OPENAI, Fault("think_tags", where="judge"))
    assert verdict.label is Label.COMPLIANCE


@litellm_once
def test_litellm_models_do_not_close_each_others_connections(server: LoopbackServer) -> None:
    async def main() -> list[Completion]:
        first, second, third = (
            ChatModel(LITELLM_OPENAI.client(server, retries=0)) for _ in range(3)
        )
        done = [await first.complete(PROMPT, CONFIG), await second.complete(PROMPT, CONFIG)]
        await first.aclose()
        done.append(await second.complete(PROMPT, CONFIG))
        await second.aclose()
        done.append(await third.complete(PROMPT, CONFIG))
        await third.aclose()
        return done

    server.script = Script(refusal_rate=0.0)
    assert [c.outcome for c in asyncio.run(main())] == [Outcome.ANSWERED] * 4
