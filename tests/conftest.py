"""Settings and the browser, which all tests share."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from browser import chromium, open_browser
from commandline import Call, caller

# The key that seals manifests: a test has none of the developer's, nor leaves one behind.
_STATE = tempfile.TemporaryDirectory(prefix="refusalkit-state-")
os.environ["REFUSALKIT_STATE"] = _STATE.name
# Nor does it read the developer's configuration.
os.environ["XDG_CONFIG_HOME"] = str(Path(_STATE.name) / "config")

# The same examples each time, so that what fails is a change and not chance. The machine that runs
# the tests may be busy: an example that takes long is not a failure.
settings.register_profile("refusalkit", deadline=None, max_examples=20, derandomize=True)
# `make torture`, or pytest --hypothesis-profile=long: new examples each time, and more where a test
# names no number.
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("refusalkit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, up to eight: many a test waits for a process it started."""
    return min(8, (os.cpu_count() or 1) + 1)


def pytest_collection_finish() -> None:
    """Keep what is imported and collected by now out of every later search for garbage."""
    gc.set_threshold(50_000, 20, 20)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _notes_are_a_librarys() -> None:
    """The command line, called by an earlier test in this process, has set the logger up."""
    log = logging.getLogger("refusalkit")
    log.setLevel(logging.NOTSET)
    log.propagate, log.handlers = True, [logging.NullHandler()]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """The command, called in this process, with the test's own folder as the current one."""
    return caller(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium, opened once a module: while it is open an event loop runs in this thread."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    found = chromium()
    if found is None:
        pytest.skip("no Chromium is here: name one in $CHROMIUM")
    with open_browser(found) as opened:
        yield opened
