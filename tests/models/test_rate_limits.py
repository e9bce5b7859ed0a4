"""Tokens per minute hold; requests in flight back off, recover, and never pass their cap."""

from __future__ import annotations

import asyncio
import contextlib
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from loopback import Asked, Exchange, Fault, LoopbackServer, Script, chance
from own_time import in_own_time, now
from refusalkit.errors import TransientError
from refusalkit.models.chat import ChatModel
from refusalkit.models.concurrency import AdaptiveLimiter
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.models.token_limit import Demand, Spent, TokenPace
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt

CONFIG = GenerationConfig(max_tokens=200, timeout_s=10.0)
MINUTE_S = 0.4

# They measure time: not beside each other.
pytestmark = pytest.mark.xdist_group("timing")


def ask_all(
    server: LoopbackServer, pacer: Pacer, n: int, *, workers: int = 16, watch: Any = None
) -> list[Completion]:
    async def main() -> list[Completion]:
        model = ChatModel(open_client("openai/m", pacer=pacer, api_base=server.openai_base))
        prompts = iter([Prompt(f"p{i}", "assault", f"placeholder {i} " * 8) for i in range(n)])
        done: list[Completion] = []

        async def worker() -> None:
            for prompt in prompts:
                done.append(await model.complete(prompt, CONFIG))
                if watch is not None:
                    watch(len(done))

        try:
            await asyncio.gather(*(worker() for _ in range(workers)))
        finally:
            await model.aclose()
        return done

    return asyncio.run(main())


def most_in_a_minute(log: list[Exchange]) -> float:
    """The most tokens whose requests arrived within one minute, as short as it is here."""
    counted = [(e.at, e.usage["total_tokens"]) for e in log if e.usage]
    return max(
        sum(tokens for at, tokens in counted if start <= at < start + MINUTE_S)
        for start, _ in counted
    )


# Tokens per minute


@pytest.fixture
def _short_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refusalkit.models.token_limit._MINUTE_S", MINUTE_S)


def uneven(asked: Asked) -> str:
    return "placeholder " * (1 + int(20 * chance("length", asked.key)))


@pytest.mark.usefixtures("_short_minute")
@pytest.mark.parametrize("tpm", [300, 1000])
def test_tokens_per_minute_hold(tpm: int) -> None:
    with LoopbackServer(Script(target_reply=uneven), latency_s=0.02) as server:
        done = ask_all(server, Pacer(tpm=tpm), n=24 if tpm == 1000 else 8)
        log = server.log
    assert {c.outcome for c in done} == {Outcome.ANSWERED}
    longest = max(e.usage["completion_tokens"] for e in log if e.usage)
    # What cannot be known is by how much an answer is longer than any before it.
    assert most_in_a_minute(log) <= tpm + longest
    # Nor is it held back more than it must.
    total = sum(e.usage["total_tokens"] for e in log if e.usage)
    took = log[-1].at - log[0].at
    assert took <= (total / (tpm - 150) + 3) * (MINUTE_S + 0.1)


@pytest.mark.usefixtures("_short_minute")
def test_of_answers_of_one_length_no_token_is_too_many() -> None:
    with LoopbackServer(Script(refusal_rate=0.0), latency_s=0.02) as server:
        ask_all(server, Pacer(tpm=500), n=24)
        assert most_in_a_minute(server.log) <= 500


@pytest.mark.usefixtures("_short_minute")
def test_a_request_larger_than_the_limit_goes_alone() -> None:
    with LoopbackServer(latency_s=0.02) as server:
        ask_all(server, Pacer(tpm=10), n=3)
        times = [e.at for e in server.log]
        assert server.max_in_flight == 1
    assert min(b - a for a, b in pairwise(times)) >= MINUTE_S


@pytest.mark.usefixtures("_short_minute")
def test_a_runs_tokens_hold_for_model_and_judge_apart(tmp_path: Path) -> None:
    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        base = server.openai_base
        rk.benchmark(
            "openai/m",
            "starter",
            out=tmp_path / "run",
            judge_model="openai/a-judge",
            api_base=base,
            judge_api_base=base,
            canaries=0,
            limit=6,
            trials=1,
            max_tokens=100,
            tpm=400,
            judge_tpm=4000,
        )
        log = server.log
    assert most_in_a_minute([e for e in log if e.role == "target"]) <= 400
    judged = [e for e in log if e.role == "judge"]
    assert len(judged) == 6
    longest = max(e.usage["completion_tokens"] for e in judged if e.usage)
    assert most_in_a_minute(judged) <= 4000 + longest


def waits_after(status: int | None) -> float:
    """How long a request waits for its tokens after one of its size failed with this status."""

    async def main() -> float:
        pacer, demand = Pacer(tpm=1000, max_retries=0, max_wait_s=1e6), Demand(100, 500)

        async def fails() -> Spent:
            raise TransientError("it failed", status=status)

        async def succeeds() -> Spent:
            return Spent(100, 500, 500)

        with pytest.raises(TransientError):
            await pacer.send(fails, demand=demand, spent=lambda spent: spent)
        started = now()
        pacer._resume_at = 0.0  # the pause after a 429 is not what is asked here
        await pacer.send(succeeds, demand=demand, spent=lambda spent: spent)
        return now() - started

    return in_own_time(main)


@pytest.mark.parametrize("status", [307, 400, 409, 413, 422, 425, 429, 503, 529])
def test_what_was_turned_away_counts_no_tokens(status: int) -> None:
    assert waits_after(status) < 1


@pytest.mark.parametrize("status", [None, 200, 206, 408, 500, 502, 504, 520, 524])
def test_what_may_have_been_generated_counts_for_a_minute(status: int | None) -> None:
    assert waits_after(status) == pytest.approx(60, abs=1)


@pytest.mark.usefixtures("_short_minute")
def test_unreadable_answers_count_as_well() -> None:
    garbled = Fault("malformed_json", times=3)
    with LoopbackServer(Script(refusal_rate=0.0, faults=(garbled,)), latency_s=0.02) as server:
        done = ask_all(server, Pacer(tpm=100, backoff_s=0.001), n=2)
        log = server.log
    assert {c.attempts for c in done} == {4}
    assert all(e.usage for e in log)
    assert most_in_a_minute(log) <= 100


@settings(max_examples=30, deadline=None)
@given(
    tpm=st.integers(50, 2000),
    answers=st.lists(st.tuples(st.integers(0, 800), st.integers(1, 300)), min_size=1, max_size=25),
)
def test_nothing_stays_on_the_books(tpm: int, answers: list[tuple[int, int]]) -> None:
    async def main() -> None:
        pace = TokenPace(tpm, minute_s=0.0)

        async def one(size: int, used: int) -> None:
            booking = await pace.book(Demand(size, 300))
            await asyncio.sleep(0)
            if used % 3 == 0:
                pace.release(booking)
            else:
                pace.settle(booking, Spent(size, used, used) if used % 3 == 1 else None)

        async with asyncio.timeout(5):
            await asyncio.gather(*(one(*answer) for answer in answers))
        await asyncio.sleep(0.001)
        assert pace._has_room(tpm)
        assert abs(pace._booked) < 1e-6

    asyncio.run(main())


USUAL = Demand(400, 100), Spent(100, 10, 40)


async def use(pace: TokenPace, demand: Demand, spent: Spent, seconds: float = 0.0) -> float:
    """When a request goes out that uses so much."""
    booking = await pace.book(demand)
    sent = now()
    await asyncio.sleep(seconds)
    pace.settle(booking, spent)
    return sent


@pytest.mark.parametrize("before", [0, 1, 20])
@pytest.mark.parametrize(
    "wrong",
    [
        Spent(10**12, 10, 40),
        Spent(10**15, 10**15, 40),
        Spent(9_000_000, 10, 40),
        Spent(2000, 10, 40),
        Spent(100, 10**12, 40),
        Spent(100, 50_000, 40),
    ],
)
def test_one_wrong_figure_slows_a_minute_at_most(before: int, wrong: Spent) -> None:
    async def main() -> int:
        pace = TokenPace(10_000)
        for _ in range(before):
            await use(pace, *USUAL)
        await use(pace, USUAL[0], wrong)
        await asyncio.sleep(60)
        started = now()
        sent = [await use(pace, *USUAL) for _ in range(200)]
        return sum(at < started + 1 for at in sent)

    # Each uses 110 of 10,000 tokens, and is booked with 600 at most.
    assert in_own_time(main) >= 85


def test_some_wrong_figures_are_outvoted() -> None:
    async def main() -> float:
        pace, started = TokenPace(1_000_000), now()
        for number in range(60):
            await use(pace, USUAL[0], Spent(400_000, 10, 40) if number % 10 == 5 else USUAL[1])
        return now() - started

    # Six of 400,000 tokens, which count as they were said: two to a minute.
    assert in_own_time(main) <= 130


@pytest.mark.parametrize("unseen", [200, 2000, 9000])
def test_what_an_endpoint_adds_to_every_request_is_counted_in_full(unseen: int) -> None:
    spent = Spent(unseen + 100, 10, 40)

    async def main() -> list[float]:
        pace = TokenPace(20_000)
        first = await use(pace, USUAL[0], spent, 1.0)
        rest = (use(pace, USUAL[0], spent, 1.0) for _ in range(60))
        return [first, *await asyncio.gather(*rest)]

    sent = in_own_time(main)
    most = max(sum(start <= at < start + 60 for at in sent) for start in sent)
    assert most * (unseen + 110) <= 20_000


def test_who_gives_up_waiting_holds_up_no_other() -> None:
    async def main() -> None:
        pace = TokenPace(100, minute_s=0.05)
        first = await pace.book(Demand(1, 90))
        waiting = [asyncio.ensure_future(pace.book(Demand(1, 90))) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        waiting[1].cancel()
        pace.settle(first, Spent(1, 90, 0))
        async with asyncio.timeout(2):
            await waiting[2]

    asyncio.run(main())


# Requests in flight, by a server on paper: times in seconds


def drive(limit: AdaptiveLimiter, latency: Any, seconds: float, *, start: float = 0.0) -> list[int]:
    """Keep as many in flight as `limit` lets; its limit after each answer.

    `latency(now, in_flight)` is how long a request takes that is sent now, and for how many tokens;
    None: it is turned away after 10 ms.
    """
    now, flying, limits = start, [], []
    while now < start + seconds:
        while len(flying) < limit.limit:
            found = latency(now, len(flying) + 1)
            took, tokens = (0.01, None) if found is None else found
            flying.append((now + took, now, tokens))
        flying.sort(key=lambda one: one[0])
        now, sent, tokens = flying.pop(0)
        if tokens is None:
            limit.turned_away(sent, now)
        else:
            limit.answered(sent, now, tokens)
        limits.append(limit.limit)
    return limits


def lognormal(seed: int) -> Any:
    rng = random.Random(seed)
    return lambda now, n: (0.2 * rng.lognormvariate(-0.5, 1.0), 50)


def test_a_healthy_endpoint_is_asked_at_the_cap_throughout() -> None:
    for seed in range(6):
        limits = drive(AdaptiveLimiter(32), lognormal(seed), 60.0)
        assert sum(limit < 32 for limit in limits) <= 0.01 * len(limits)


def test_longer_answers_are_not_taken_for_a_queue() -> None:
    def longer(now: float, n: int) -> tuple[float, float]:
        tokens = 20 if now < 10 else 2000
        return 0.1 + tokens * 0.01, tokens

    assert min(drive(AdaptiveLimiter(16), longer, 200.0)) == 16


def test_those_turned_away_together_count_once() -> None:
    limit = AdaptiveLimiter(32)
    for _ in range(32):
        limit.turned_away(0.0, 1.0)
    assert limit.limit == int(32 * 0.7)


def test_it_never_falls_below_one_and_comes_back() -> None:
    limit = AdaptiveLimiter(16)
    assert min(drive(limit, lambda now, n: None, 10.0)) == 1
    drive(limit, lambda now, n: (0.1, 50), 40.0, start=10.0)
    assert limit.limit == 16


def test_it_settles_where_the_endpoint_turns_no_request_away() -> None:
    limits = drive(AdaptiveLimiter(64), lambda now, n: None if n > 20 else (0.2, 50), 60.0)
    late = limits[len(limits) // 2 :]
    assert min(late) >= 13
    assert max(late) <= 22


def test_a_queue_that_grows_is_answered_by_asking_less() -> None:
    def crowded(now: float, n: int) -> tuple[float, float]:
        # From 20 s on the server can do only 8 at once.
        width = 64 if now < 20 else 8
        return 0.2 * max(1.0, n / width), 50

    limits = drive(AdaptiveLimiter(64), crowded, 200.0)
    late = limits[-len(limits) // 4 :]
    assert max(late) < 32
    assert min(late) >= 8  # what the server can do at once is always asked


def test_slowness_that_asking_less_does_not_mend_costs_nothing_for_long() -> None:
    limits = drive(AdaptiveLimiter(32), lambda now, n: (0.2 if now < 20 else 1.0, 50), 200.0)
    assert limits[-1] == 32
    assert sum(limit < 32 for limit in limits) < 0.1 * len(limits)


def test_places_are_given_in_order_and_back() -> None:
    async def main() -> None:
        limit, order = AdaptiveLimiter(2), []

        async def one(number: int) -> None:
            await limit.enter()
            order.append(number)
            assert limit._count <= 2
            await asyncio.sleep(0)
            limit.leave()

        jobs = [asyncio.ensure_future(one(number)) for number in range(8)]
        await asyncio.sleep(0)
        jobs[4].cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert order == [0, 1, 2, 3, 5, 6, 7]
        assert limit._count == 0

    asyncio.run(main())


def test_who_gives_up_as_a_place_is_free_has_given_up() -> None:
    async def main() -> None:
        limit = AdaptiveLimiter(1)
        assert limit.enter_at_once()
        waiting = [asyncio.ensure_future(limit.enter()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limit.leave()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        await waiting[1]

    in_own_time(main)


# All limits at once


@settings(max_examples=150, deadline=None)
@given(
    rpm=st.none() | st.sampled_from([30.0, 600.0]),
    tpm=st.none() | st.sampled_from([50.0, 1000.0, 1e6]),
    concurrency=st.none() | st.integers(1, 3),
    # When it begins, how long it is given, and what its answers say one after the other.
    requests=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.1, 1.0, 7.0]),
            st.none() | st.sampled_from([0.0, 0.1, 0.2, 1.0, 30.0]),
            st.lists(st.sampled_from([429, 503, 500, 200, None]), max_size=3),
            st.sampled_from([None, 0, 7, 300, 10**7, 10**12]),
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_a_caller_may_give_up_at_any_time_and_nothing_hangs_and_nothing_is_kept(
    rpm: float | None,
    tpm: float | None,
    concurrency: int | None,
    requests: list[tuple[float, float | None, list[int | None], int | None]],
) -> None:
    async def main() -> None:
        pacer = Pacer(rpm=rpm, tpm=tpm, concurrency=concurrency, max_retries=2)

        async def one(
            start: float, patience: float | None, failures: list[int | None], used: int | None
        ) -> None:
            left = iter(failures)

            async def request() -> Spent:
                await asyncio.sleep(0.1)
                for status in left:
                    raise TransientError("it failed", status=status, retry_after=0.1)
                return Spent(used, used, 100)

            await asyncio.sleep(start)
            with contextlib.suppress(TransientError, TimeoutError):
                async with asyncio.timeout(patience):
                    await pacer.send(request, demand=Demand(50, 100), spent=lambda spent: spent)

        await asyncio.gather(*(one(*request) for request in requests))
        started = now()
        await one(0.0, None, [], 10)
        assert now() - started <= 70  # a minute of tokens, and the turn
        if pacer._in_flight is not None:
            assert pacer._in_flight._count == len(pacer._in_flight._waiting) == 0
        if pacer._tokens is not None:
            assert pacer._tokens._open == len(pacer._tokens._queue) == 0
            await asyncio.sleep(61)
            assert pacer._tokens._has_room(1e9)  # the books are empty
            assert pacer._tokens._booked == 0

    in_own_time(main)


# ... and over sockets


def test_it_backs_off_where_requests_are_turned_away_and_recovers() -> None:
    pacer = Pacer(concurrency=16, max_retries=0, backoff_s=0.005)
    seen: list[int] = []
    turned = Script(refusal_rate=0.0, faults=(Fault("rate_limit", probability=0.3, seconds=0.01),))
    with LoopbackServer(turned, latency_s=0.01) as server:

        def watch(n: int) -> None:
            assert pacer._in_flight is not None
            seen.append(pacer._in_flight.limit)
            if n == 100:
                server.script = Script(refusal_rate=0.0)

        done = ask_all(server, pacer, n=500, workers=24, watch=watch)
        assert server.max_in_flight <= 16
    assert {c.outcome for c in done} == {Outcome.ANSWERED}
    assert min(seen) < 8
    assert min(seen) >= 1
    assert seen[-1] == 16


def test_a_judge_that_turns_requests_away_leaves_the_target_its_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._BACKOFF_CAP_S", 0.01)
    busy = Script(
        refusal_rate=0.0,
        faults=(Fault("rate_limit", where="judge", times=1, probability=0.5, seconds=0.01),),
    )
    with LoopbackServer(busy, latency_s=0.01) as server:
        base = server.openai_base
        run = rk.benchmark(
            "openai/m",
            "starter",
            out=tmp_path / "run",
            judge_model="openai/a-judge",
            api_base=base,
            judge_api_base=base,
            canaries=0,
            trials=2,
            concurrency=12,
            judge_concurrency=3,
        )
        assert server.max_in_flight <= 12
        most = server.max_in_flight_by_role
    assert most["judge"] <= 3
    assert most["target"] > 6
    assert rk.score(run).unscored_percent == 0


def test_what_waits_for_its_turn_is_not_in_flight_when_it_is_cancelled() -> None:
    async def main() -> None:
        pacer = Pacer(concurrency=1, tpm=1000)
        held = asyncio.Event()

        async def slow() -> str:
            await held.wait()
            return "done"

        first = asyncio.ensure_future(pacer.send(slow))
        second = asyncio.ensure_future(pacer.send(slow))
        await asyncio.sleep(0.01)
        second.cancel()
        held.set()
        assert await first == ("done", 1)

        async def broken() -> str:
            raise TransientError("it failed", status=529)

        pacer = Pacer(concurrency=1, max_retries=1, backoff_s=0.0)
        with pytest.raises(TransientError):
            await pacer.send(broken)
        assert await pacer.send(slow) == ("done", 1)

    asyncio.run(main())
