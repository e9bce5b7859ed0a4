"""One timer keeps the deadlines of all requests, and each means what `asyncio.timeout` means."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusalkit.models.deadlines import Deadlines

LONG_S = 60.0


async def ends_late(deadlines: Deadlines, seconds: float) -> bool:
    """Whether a wait without end was ended by its deadline."""
    try:
        with deadlines.within(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        return True
    return False


def test_work_that_ends_in_time_is_left_alone() -> None:
    async def main() -> str:
        with Deadlines().within(LONG_S):
            await asyncio.sleep(0)
            return "done"

    assert asyncio.run(main()) == "done"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 0.02), min_size=1, max_size=8), st.integers(0, 8))
def test_each_passes_whatever_the_order_in_which_they_began(waits: list[float], at: int) -> None:
    async def main() -> list[bool]:
        deadlines = Deadlines()
        # One that outlasts them all is neither hurt by them nor holds them up.
        waiting = [ends_late(deadlines, wait) for wait in waits]
        long = asyncio.create_task(ends_late(deadlines, LONG_S))
        waiting.insert(min(at, len(waiting)), asyncio.sleep(0, result=True))
        found = await asyncio.gather(*waiting)
        assert not long.done()
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        return found

    assert all(asyncio.run(main()))


def test_the_work_is_told_once_and_may_tidy_up() -> None:
    told: list[str] = []

    async def main() -> None:
        with Deadlines().within(0.0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                told.append("tidied up")
                raise

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert told == ["tidied up"]


def test_whoever_cancels_the_task_is_obeyed_even_as_the_deadline_passes() -> None:
    async def main() -> None:
        early = asyncio.create_task(ends_late(Deadlines(), 0.01))
        await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early

        async def both() -> None:
            asyncio.get_running_loop().call_later(0.0, task.cancel)
            with Deadlines().within(0.0):
                await asyncio.sleep(LONG_S)

        task = asyncio.create_task(both())
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_another_failure_is_what_it_is() -> None:
    async def main() -> None:
        with Deadlines().within(0.0):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        asyncio.run(main())


def test_one_within_another_ends_by_itself() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        with deadlines.within(LONG_S):
            with pytest.raises(TimeoutError), deadlines.within(0.0):
                await asyncio.Event().wait()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_they_go_on_in_another_event_loop() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        assert asyncio.run(ends_late(deadlines, 0.0))
