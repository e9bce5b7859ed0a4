"""The time in records."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from refusalkit.clock import now


def test_the_current_time_is_utc_to_the_millisecond_and_never_runs_back() -> None:
    # Over the end of a second, where the two parts of the text change together.
    until = time.monotonic() + 1.1
    before, told = datetime.now(UTC), [now()]
    while time.monotonic() < until:
        told.append(now())
        time.sleep(0.0005)
    after = datetime.now(UTC)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text) for text in told)
    assert told == sorted(told)
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(told[0])
    assert datetime.fromisoformat(told[-1]) <= after
    assert len({text[:-5] for text in told}) >= 2
