"""When requests go out: one pause for all workers, bounded retries, requests per minute that hold.

Timed by the provider's own log, on arrival.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from loopback import Exchange, Fault, LoopbackServer, Script
from own_time import in_own_time, now
from refusalkit.errors import FatalProviderError, RequestError, TransientError
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_client
from refusalkit.models.outcomes import exhausted_limit
from refusalkit.models.pacing import _BACKOFF_CAP_S, _MAX_RATE_LIMITS, MAX_WAIT_S, Pacer
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt

CONFIG = GenerationConfig(max_tokens=64, timeout_s=10.0)

# They measure time: not beside each other.
pytestmark = pytest.mark.xdist_group("timing")


def ask_all(server: LoopbackServer, pacer: Pacer, n: int, workers: int = 8) -> list[Completion]:
    """Ask n prompts with so many workers."""

    async def main() -> list[Completion]:
        client = open_client("openai/m", pacer=pacer, api_base=server.openai_base)
        model = ChatModel(client)
        prompts = iter([Prompt(f"p{i}", "assault", f"placeholder {i}") for i in range(n)])
        done: list[Completion] = []

        async def worker() -> None:
            for prompt in prompts:
                done.append(await model.complete(prompt, CONFIG))

        try:
            await asyncio.gather(*(worker() for _ in range(workers)))
        finally:
            await model.aclose()
        return done

    return asyncio.run(main())


# One pause for all


@pytest.mark.parametrize("variant", [None, "ms"])
def test_one_429_slows_all_workers(variant: str | None) -> None:
    pause, margin = 0.8, 0.3
    limited = Fault("rate_limit", match="placeholder 20", times=1, seconds=pause, variant=variant)
    with LoopbackServer(Script(faults=(limited,)), latency_s=0.02) as server:
        done = ask_all(server, Pacer(), n=60)
        log = server.log
    assert [c.outcome for c in done] == [Outcome.ANSWERED] * 60
    (refused,) = (e for e in log if e.fault == "rate_limit")
    in_the_pause = [e for e in log if refused.at + margin < e.at < refused.at + pause]
    assert in_the_pause == []
    assert sum(e.at >= refused.at + pause for e in log) >= 30  # it was everybody who waited
    assert len(log) == 61


def test_a_429_without_a_wish_pauses_all_workers_too() -> None:
    limited = Fault("rate_limit", match="placeholder 20", times=1, variant="none")
    with LoopbackServer(Script(faults=(limited,)), latency_s=0.02) as server:
        ask_all(server, Pacer(backoff_s=1.2), n=40)
        log = server.log
    (refused,) = (e for e in log if e.fault == "rate_limit")
    assert [e for e in log if refused.at + 0.3 < e.at < refused.at + 0.6] == []


def test_a_fault_of_one_request_slows_no_other() -> None:
    broken = Fault("server_error", match="placeholder 5", times=1)
    with LoopbackServer(Script(faults=(broken,)), latency_s=0.02) as server:
        ask_all(server, Pacer(backoff_s=1.0), n=40)
        log = server.log
    again = log[-1]  # everybody else was through by then
    assert again.text == "placeholder 5"
    assert again.ask == 1
    (first,) = (e for e in log if e.fault)
    assert again.at - first.at >= 0.5
    assert all(e.at < again.at for e in log[:-1])


@pytest.mark.parametrize("rpm", [300, 20])
def test_a_pause_holds_who_waits_for_a_turn_already(rpm: int) -> None:
    pause, gap = 4.0, 60 / rpm

    async def main() -> list[float]:
        pacer, sent = Pacer(rpm=rpm, backoff_s=0.0), []

        async def request() -> None:
            sent.append(now())
            if len(sent) == 1:
                await asyncio.sleep(0.1)  # the others queue by then
                raise limited(pause)

        await asyncio.gather(*(pacer.send(request) for _ in range(16)))
        return sent

    sent = in_own_time(main)
    assert len(sent) == 17
    assert sent[1] - sent[0] >= pause
    # No burst follows, and no turn after the pause is left out.
    assert [after - before for before, after in pairwise(sent[1:])] == pytest.approx([gap] * 15)
    assert sent[1] - sent[0] <= 0.1 + 1.1 * pause + gap


@settings(max_examples=60, deadline=None)
@given(
    rpm=st.sampled_from([6.0, 60.0, 600.0]),
    waits=st.lists(st.none() | st.floats(0.0, 20.0), max_size=12),
    starts=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12),
)
def test_no_request_goes_out_in_any_pause_or_before_its_turn(
    rpm: float, waits: list[float | None], starts: list[float]
) -> None:
    async def main() -> tuple[list[float], list[tuple[float, float]]]:
        pacer, sent, pauses = Pacer(rpm=rpm), [], []
        asked = iter(waits)

        async def request() -> None:
            sent.append(now())
            await asyncio.sleep(0.3)
            if (wait := next(asked, None)) is not None:
                pauses.append((now(), now() + wait))
                raise limited(wait)

        async def one(start: float) -> None:
            await asyncio.sleep(start)
            await pacer.send(request)

        await asyncio.gather(*map(one, starts))
        return sent, pauses

    sent, pauses = in_own_time(main)
    assert len(sent) == len(starts) + len(pauses)
    assert all(after - before >= 0.999 * 60 / rpm for before, after in pairwise(sent))
    assert not [at for at in sent for start, end in pauses if start < at < end - 1e-6]


@pytest.mark.parametrize("status", [503, 529])
def test_an_overloaded_endpoints_wish_is_for_all_and_our_own_wait_for_one(status: int) -> None:
    async def main() -> dict[str, float]:
        pacer, done = Pacer(backoff_s=8.0), {}

        async def one(name: str, errors: list[TransientError]) -> None:
            async def request() -> None:
                if errors:
                    raise errors.pop()

            await pacer.send(request)
            done[name] = now() - started

        started = now()
        await one("first", [])
        busy = asyncio.ensure_future(
            one("busy", [TransientError("busy", status=status, retry_after=2.0)])
        )
        await asyncio.sleep(0.1)
        await one("other", [])
        await busy
        return done

    done = in_own_time(main)
    assert 2.0 <= done["other"] <= 2.3
    assert 4.0 <= done["busy"] <= 8.0


# Retries


def limited(retry_after: float | None) -> TransientError:
    """What a 429 is."""
    return TransientError("slower", status=429, retry_after=retry_after)


def times_sent(pacer: Pacer, errors: list[TransientError]) -> list[float]:
    """When a request goes out that meets these errors, one after the other, and then succeeds."""

    async def main() -> list[float]:
        sent: list[float] = []
        failures = iter(errors)

        async def request() -> None:
            sent.append(now())
            if (error := next(failures, None)) is not None:
                raise error

        await pacer.send(request)
        return sent

    return in_own_time(main)


def count_requests(pacer: Pacer, error: TransientError | RequestError) -> int:
    """How often a request that always fails is sent."""
    sent = 0

    async def request() -> None:
        nonlocal sent
        sent += 1
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as raised:
            await pacer.send(request)
        assert raised.value.attempts == sent

    asyncio.run(main())
    return sent


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize("status", [None, 408, 500, 529])
def test_retries_are_bounded(retries: int, status: int | None) -> None:
    pacer = Pacer(max_retries=retries, backoff_s=0.0)
    assert count_requests(pacer, TransientError("it failed", status=status)) == retries + 1


def test_rate_limits_have_a_bound_of_their_own() -> None:
    error = TransientError("slower", status=429, retry_after=0.0)
    assert count_requests(Pacer(max_retries=0, backoff_s=0.0), error) == _MAX_RATE_LIMITS + 1


def test_what_is_not_transient_is_sent_once() -> None:
    assert count_requests(Pacer(), RequestError("it will not do", status=400)) == 1


def test_the_result_comes_with_the_number_of_attempts() -> None:
    failures = [TransientError("f", status=500), TransientError("f", status=429, retry_after=0.0)]

    async def request() -> str:
        if failures:
            raise failures.pop()
        return "done"

    result = asyncio.run(Pacer(backoff_s=0.0).send(request))
    assert result == ("done", 3)


def test_waits_double_up_to_a_cap_and_differ() -> None:
    pacer = Pacer(backoff_s=0.5)
    for attempt, ceiling in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (20, _BACKOFF_CAP_S)]:
        waits = {pacer._backoff(attempt) for _ in range(50)}
        assert all(ceiling / 2 <= wait <= ceiling for wait in waits)
        assert len(waits) > 40
        assert max(waits) - min(waits) > ceiling / 5


def test_what_asks_for_no_wait_is_met_by_waits_that_grow() -> None:
    sent = times_sent(Pacer(backoff_s=0.5), [limited(0.0)] * 8)
    for attempt, (before, after) in enumerate(pairwise(sent)):
        ceiling = min(_BACKOFF_CAP_S, 0.5 * 2**attempt)
        assert 0.5 * ceiling <= after - before <= 1.1 * ceiling


def test_a_wish_for_a_longer_wait_is_met_as_it_is() -> None:
    sent = times_sent(Pacer(backoff_s=0.5), [limited(20.0)] * 3)
    assert all(20.0 <= after - before <= 22.0 for before, after in pairwise(sent))


def test_a_provider_that_asks_for_no_wait_is_not_flooded() -> None:
    busy = Fault("rate_limit", times=3, seconds=0.0)
    with LoopbackServer(Script(faults=(busy,))) as server:
        done = ask_all(server, Pacer(backoff_s=0.2), n=1)
        times = arrivals(server.log)
    assert (done[0].outcome, done[0].attempts) == (Outcome.ANSWERED, 4)
    assert times[-1] - times[0] >= 0.5 * (0.2 + 0.4 + 0.8)


# Pauses that are too long


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded"])
def test_a_pause_of_more_than_ten_minutes_stops_the_run(kind: str) -> None:
    too_long = Fault(kind, seconds=MAX_WAIT_S + 1)
    with LoopbackServer(Script(faults=(too_long,))) as server:
        with pytest.raises(
            FatalProviderError,
            match="asks to wait 601 s, longer than --max-wait 600; resume the run then",
        ):
            ask_all(server, Pacer(), n=1)
        assert len(server.log) == 1


@pytest.mark.parametrize("where", ["target", "judge"])
def test_only_a_run_that_still_exists_is_offered_for_resuming(
    tmp_path: Path, where: Literal["target", "judge"]
) -> None:
    too_long = Fault("rate_limit", where=where, seconds=MAX_WAIT_S + 1)
    with LoopbackServer(Script(faults=(too_long,))) as server:
        base = server.openai_base
        bases: dict[str, Any] = {
            "api_base": base,
            "judge_api_base": base,
            "judge_model": "openai/a-judge",
        }
        options: dict[str, Any] = {
            "category": ["weapons"],
            "limit": 2,
            "trials": 1,
            "out": tmp_path / "run",
        }
        with pytest.raises(
            FatalProviderError, match="asks to wait 601 s, longer than --max-wait 600; "
        ) as told:
            rk.benchmark("openai/m", "starter", judge="graded", **bases, **options)
    # The answer that waits for its verdict was recorded.
    recorded = where == "judge"
    assert (tmp_path / "run").exists() == recorded
    assert ("resume the run then" in str(told.value)) == recorded
    assert ("nothing was recorded: start the run then" in str(told.value)) != recorded


def test_a_pause_of_ten_minutes_is_waited_for() -> None:
    sent = times_sent(Pacer(), [limited(MAX_WAIT_S)])
    assert MAX_WAIT_S <= sent[1] - sent[0] <= 1.1 * MAX_WAIT_S


def test_a_bound_on_waiting_holds_for_many_short_waits_too() -> None:
    waits = [limited(4.0)] * 5
    assert len(times_sent(Pacer(max_wait_s=30), waits)) == 6
    with pytest.raises(FatalProviderError, match=r"held this run back for 1\d s, longer than"):
        times_sent(Pacer(max_wait_s=10), waits)


def test_a_run_that_is_held_back_says_so_once_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    first = limited(5.0)
    first.limit = "requests"
    times_sent(Pacer(), [first, limited(7.0), limited(9.0)])
    (line,) = [record.getMessage() for record in caplog.records if record.name == "refusalkit"]
    assert "slower: a rate limit holds this run back, its limit of requests being used up" in line
    assert "waiting 5 s" in line
    assert "--max-wait" in line
    assert "\n" not in line


def test_a_short_wait_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    times_sent(Pacer(backoff_s=0.0), [limited(0.5)])
    assert not [record for record in caplog.records if record.name == "refusalkit"]


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "9"}, "requests"),
        ({"x-ratelimit-remaining-tokens": "0"}, "tokens"),
        ({"anthropic-ratelimit-input-tokens-remaining": "0"}, "input-tokens"),
        ({"x-ratelimit-remaining-tokens": "7"}, None),
        ({}, None),
    ],
)
def test_which_limit_is_used_up_is_in_the_headers(
    headers: dict[str, str], limit: str | None
) -> None:
    assert exhausted_limit(headers) == limit


# An endpoint where nothing listens


@pytest.mark.parametrize(
    "provider",
    ["openai", "anthropic", pytest.param("novita", marks=pytest.mark.xdist_group("litellm"))],
)
def test_a_dead_endpoint_is_reported_within_three_seconds(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("anthropic")  # not what is timed
    monkeypatch.setenv("LOOPBACK_KEY", "loopback-key-0123456789abcdef")
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # no one else takes the port, and nothing listens
        client = open_client(
            f"{provider}/m",
            pacer=Pacer(),
            api_base=f"http://127.0.0.1:{reserved.getsockname()[1]}/v1",
            api_key_env="LOOPBACK_KEY",
            via="litellm" if provider == "novita" else None,
        )

        async def ask() -> float:
            started = time.monotonic()
            try:
                await ChatModel(client).complete(Prompt("p", "c", "Hello"), CONFIG)
            finally:
                await client.aclose()
                took.append(time.monotonic() - started)
            raise AssertionError

        took: list[float] = []
        with pytest.raises(FatalProviderError, match="nothing listens there: start the server"):
            asyncio.run(ask())
    # Of which litellm's first call of all takes a good part.
    assert took[0] < (20 if provider == "novita" else 4)


# Requests per minute and concurrency


def arrivals(log: list[Exchange]) -> list[float]:
    return sorted(exchange.at for exchange in log)


def test_requests_per_minute_hold_and_are_spaced() -> None:
    rpm, n = 1200, 16  # one each 50 ms
    with LoopbackServer() as server:
        ask_all(server, Pacer(rpm=rpm), n=n)
        times = arrivals(server.log)
    assert times[-1] - times[0] >= 0.9 * (n - 1) * 60 / rpm
    gaps = [after - before for before, after in pairwise(times)]
    # Sent evenly; on a busy machine one may arrive late and the next in time.
    assert sum(gap < 0.6 * 60 / rpm for gap in gaps) <= n // 4


def test_retries_count_as_requests() -> None:
    rpm = 1200
    with LoopbackServer(Script(faults=(Fault("server_error", times=1),))) as server:
        ask_all(server, Pacer(rpm=rpm, backoff_s=0.001), n=6)
        times = arrivals(server.log)
    assert len(times) == 12
    assert times[-1] - times[0] >= 0.9 * 11 * 60 / rpm


@pytest.mark.parametrize("refused", ["top_k", "max_tokens"])
def test_what_goes_again_in_another_form_counts_as_a_request_too(refused: str) -> None:
    rpm = 300
    with LoopbackServer(Script(faults=(Fault("bad_param", param=refused),))) as server:
        done = ask_all(server, Pacer(rpm=rpm, concurrency=1), n=1)
        times = arrivals(server.log)
    assert done[0].outcome is Outcome.ANSWERED
    assert done[0].attempts == len(times) == 2
    # On a busy machine the first may arrive late.
    assert times[1] - times[0] >= 0.5 * 60 / rpm


def test_many_that_go_again_in_another_form_keep_to_the_rate() -> None:
    rpm = 1200
    faults = tuple(Fault("bad_param", param=name) for name in ("top_k", "top_p"))
    with LoopbackServer(Script(faults=faults)) as server:
        done = ask_all(server, Pacer(rpm=rpm), n=6)
        times = arrivals(server.log)
    assert sum(completion.attempts for completion in done) == len(times) >= 8
    assert times[-1] - times[0] >= 0.9 * (len(times) - 1) * 60 / rpm


def test_tokens_per_minute_are_free_again_where_nothing_was_generated() -> None:
    # Room for one request and its answer: were the refused one still on the books, the next waited.
    with LoopbackServer(Script(faults=(Fault("bad_param", param="top_k"),))) as server:
        done = ask_all(server, Pacer(tpm=200), n=1)
    assert done[0].attempts == 2


def run(server: LoopbackServer, out: Path, **options: object) -> rk.Run:
    return rk.benchmark(
        "openai/m",
        "starter",
        out=out,
        judge_model="openai/a-judge",
        api_base=server.openai_base,
        judge_api_base=server.openai_base,
        canaries=0,  # requests are counted
        **options,
    )


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_than_concurrency_requests_are_in_flight(tmp_path: Path, concurrency: int) -> None:
    with LoopbackServer(latency_s=0.01) as server:
        run(server, tmp_path / "run", trials=1, concurrency=concurrency)
        assert server.max_in_flight == concurrency
        assert server.requests == {"target": 35, "judge": 35}


def test_a_runs_requests_per_minute_hold_for_model_and_judge_apart(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        run(server, tmp_path / "run", trials=1, limit=8, rpm=1200, judge_rpm=600)
        by_role = {
            role: arrivals([e for e in server.log if e.role == role]) for role in server.requests
        }
    assert len(by_role["target"]) == len(by_role["judge"]) == 8
    assert by_role["target"][-1] - by_role["target"][0] >= 0.9 * 7 * 0.05
    assert by_role["judge"][-1] - by_role["judge"][0] >= 0.9 * 7 * 0.1
