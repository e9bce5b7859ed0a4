"""The fault campaign in a short form, and what single faults of the wire may cost.

The long form is ``make torture``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import anthropic  # slow to import: not within a request's deadline
import pytest

from loopback import LoopbackServer
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_client
from refusalkit.models.outcomes import parse_retry_after
from refusalkit.models.pacing import Pacer
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt
from torture import KINDS, Campaign, FaultyWire

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]
PROMPT = Prompt("p1", "assault", "A placeholder request.")
TIMEOUT_S = 0.5
assert anthropic.__version__


def test_killed_behind_a_faulty_wire_a_run_loses_and_repeats_nothing(tmp_path: Path) -> None:
    tally = Campaign(
        tmp_path, kills=1, seed=4, prompts=16, trials=2, minutes=1, acts=("kill",)
    ).run()
    # Memory is the long campaign's to judge: a child's peak begins with that of its parent, and
    # this process has all tests loaded.
    assert [found for found in tally.violations if "at the peak" not in found] == []
    assert tally.kills == 1
    assert tally.runs >= 1
    assert tally.duplicates == tally.lost == 0
    assert tally.peak_mib > 20, "it was measured"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("rate_limit")])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_spoilt_answer_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, api: str, kind: str
) -> None:
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)

    async def ask(base: str) -> Completion:
        model = ChatModel(open_client(f"{api}/m", pacer=Pacer(max_retries=0), api_base=base))
        try:
            config = GenerationConfig(max_tokens=8, timeout_s=TIMEOUT_S)
            return await model.complete(PROMPT, config)
        finally:
            await model.aclose()

    with LoopbackServer() as server, FaultyWire(server.port, share=1.0, kinds=[kind]) as wire:
        started = time.monotonic()
        completion = asyncio.run(ask(wire.openai_base if api == "openai" else wire.url))
        assert time.monotonic() - started < 10
    whole = kind == "wrong_content_type"
    assert completion.outcome is (Outcome.ANSWERED if whole else Outcome.ERROR), completion.error
    assert whole or completion.error
    assert wire.faults[kind] == 1


# litellm's ways: the OpenAI SDK, its own handler with our session, and one with a handler of ours.
@pytest.mark.xdist_group("litellm")
@pytest.mark.parametrize("model_id", ["openai/m", "groq/m", "anthropic/m", "gemini/m"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("enormous", "larger than 8 MiB"),
        ("gzip_bomb", "larger than 8 MiB"),
        ("no_gzip", ""),
        ("redirect", "a redirect: it is not followed"),
    ],
)
def test_through_litellm_too_a_body_is_bounded_and_a_redirect_not_followed(
    monkeypatch: pytest.MonkeyPatch, model_id: str, kind: str, said: str
) -> None:
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    monkeypatch.setenv("LOOPBACK_KEY", "loopback-key-0123456789")

    async def ask(base: str) -> Completion:
        client = open_client(
            model_id,
            pacer=Pacer(max_retries=0),
            api_base=base,
            api_key_env="LOOPBACK_KEY",
            via="litellm",
        )
        model = ChatModel(client)
        try:
            config = GenerationConfig(max_tokens=8, timeout_s=5)
            return await model.complete(PROMPT, config)
        finally:
            await model.aclose()

    with LoopbackServer() as server, FaultyWire(server.port, share=1.0, kinds=[kind]) as wire:
        completion = asyncio.run(ask(wire.url if model_id == "anthropic/m" else wire.openai_base))
    assert completion.outcome is Outcome.ERROR
    assert said in (completion.error_detail or "")
    assert wire.faults[kind] == 1


MEMORY = """
import asyncio, resource, sys
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.types import GenerationConfig, Prompt
async def ask():
    model = ChatModel(open_client(sys.argv[1], pacer=Pacer(max_retries=0), api_base=sys.argv[2]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = await model.complete(Prompt("p", "c", "A placeholder request."), GenerationConfig())
    await model.aclose()
    return done.error_detail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(*asyncio.run(ask()), sep="|")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_gzip_bomb_of_ten_gigabytes_fills_no_memory(api: str) -> None:
    with FaultyWire(9, share=1.0, kinds=["gzip_bomb"]) as wire:
        base = wire.openai_base if api == "openai" else wire.url
        command = [sys.executable, "-c", MEMORY, f"{api}/m", base]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said, grown = done.stdout.strip().split("|")
    assert "larger than 8 MiB" in said
    assert int(grown) < 100 * 1024, "the SDK's own import is in it"


@pytest.mark.parametrize("sent", ["Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_retry_date_is_compared_with_the_providers_clock(sent: str) -> None:
    later = sent.replace("00:00 GMT", "00:07 GMT")
    assert parse_retry_after({"retry-after": later, "date": sent}) == 7
