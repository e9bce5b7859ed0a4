"""The line of progress fits its terminal, and the time left is never cut."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusalkit.engine.plan import Progress
from refusalkit.reporting.progress_text import fitted, shortened

NAMES = [
    "anthropic/claude-sonnet-5-5",
    "openrouter/nousresearch/hermes-4-405b:reasoning",
    "openrouter/nousresearch/hermes-4-405b:plain",
    "demo/open",
]
CHILD = """
import sys, time
from refusalkit.engine.plan import Progress
from refusalkit.reporting.progress import ProgressDisplay, SeveralProgress
names = sys.argv[1:]
with SeveralProgress(names) if names else ProgressDisplay() as shown:
    for done in (12_345, 12_400, 12_500):
        for name in names or [None]:
            now = Progress(83_000, done + 99, done, 4_321, 17, 123.456, 0, 4_000.0)
            shown(name, now) if name else shown(now)
        time.sleep(0.15)
"""


def on_a_terminal(columns: int, *words: str, cwd: Path | None = None) -> list[str]:
    """The lines that a command draws on a terminal of that width, each frame's."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    left_out = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    child = subprocess.Popen(
        [sys.executable, *words],
        stdin=other,
        stdout=subprocess.DEVNULL,
        stderr=other,
        env=environment,
        cwd=cwd,
    )
    os.close(other)
    drawn = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        assert ready, "the command does not go on"
        try:
            data = os.read(main, 65536)
        except OSError:
            break
        if not data:
            break
        drawn += data
    os.close(main)
    assert child.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_the_line_fits_with_a_bar_of_fixed_width_and_the_time_left(columns: int) -> None:
    lines = on_a_terminal(columns, "-c", CHILD)
    assert all(len(line) < columns for line in lines)
    last = lines[-1]
    bar = re.match(r"[━╸╺ -]+", last)
    assert bar is not None
    assert len(bar[0].rstrip()) in (12, 20)
    assert "12500/83000" in last
    assert "6:16:00 left" in last
    assert ("4321 refusals" in last) == (columns >= 80)
    assert ("$123.46" in last) == (columns >= 120)


def test_of_a_run_of_the_usual_size_all_is_shown_in_80_columns() -> None:
    usual = Progress(830, 430, 412, 95, 3, 0.1234, 0, 31.0)
    said = "412/830 judged, 0:31 left, 430 answered, 95 refusals, 3 unscored, $0.12"
    assert fitted(usual, 80 - 12 - 1 - 1) == said.replace("430 answered, ", "")
    assert fitted(usual, 80) == said


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_several_models_are_told_apart_and_each_keeps_its_time_left(columns: int) -> None:
    lines = on_a_terminal(columns, "-c", CHILD, *NAMES)
    assert all(len(line) < columns for line in lines)
    last = lines[-len(NAMES) :]
    assert len({line.split()[0] for line in last}) == len(NAMES)
    for name, line in zip(NAMES, last, strict=True):
        assert line.startswith(name[:2])
        assert "12500/83000" in line
        assert "left" in line
        assert re.search(r"\d:16:00 left", line)


@pytest.mark.parametrize("columns", [pytest.param(40, marks=pytest.mark.slow), 80])
def test_a_real_run_draws_within_its_terminal(columns: int, tmp_path: Path) -> None:
    command = ("-m", "refusalkit", "run", "demo/mixed", "demo/open", "--trials", "2")
    lines = on_a_terminal(columns, *command, "--out", "both", cwd=tmp_path)
    drawn = [line for line in lines if "/332" in line]
    assert drawn
    assert all(len(line) < columns for line in drawn)
    assert sum("332/332" in line for line in drawn[-2:]) == 2


counts = st.integers(0, 10_000_000)


@given(
    counts, counts, counts, st.none() | st.floats(0, 1e6), st.floats(0, 1e7), st.integers(10, 200)
)
def test_what_is_judged_and_the_time_left_are_never_cut(
    planned: int, done: int, refusals: int, cost: float | None, elapsed: float, room: int
) -> None:
    done = min(done, planned)
    progress = Progress(planned, done, done, refusals, 3, cost, 0, elapsed)
    text = fitted(progress, room)
    assert text.startswith(f"{done}/{planned}")
    assert ("left" in text) == (0 < done < planned)
    least = fitted(progress, 0)
    assert len(text) <= max(room, len(least))


@given(st.text(min_size=1, max_size=100), st.integers(2, 60))
def test_a_short_name_is_its_beginning_and_its_end(name: str, room: int) -> None:
    short = shortened(name, room)
    assert len(short) <= room
    if len(name) > room:
        head, ending = short.split("…", 1) if "…" not in name else (short[:0], short[-1:])
        assert name.startswith(head)
        assert name.endswith(ending)
