"""A command's exit status says what it found, whatever becomes of its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from handmade import CROSSED, HELD, write_run

COMMAND = (sys.executable, "-m", "refusalkit")
STATUS = {"held": 0, "crossed": 1}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="closes streams as a Unix shell does")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "held", HELD)
    write_run(tmp_path / "crossed", CROSSED)
    return tmp_path


def ended(
    folder: Path,
    *words: str,
    stdout: int | IO[bytes] | None = None,
    redirected: str = "",
) -> tuple[int, str]:
    """How a command in a process of its own ends, and what it says on stderr."""
    command = [*COMMAND, *words]
    if redirected:
        command = ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *command]
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "form",
    ["table", *(pytest.param(name, marks=pytest.mark.slow) for name in ("json", "markdown"))],
)
@pytest.mark.parametrize("run", STATUS)
def test_a_reader_that_has_gone_does_not_change_an_audit(run: str, form: str, runs: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = ended(runs, "audit", run, "--format", form, stdout=writing)
    finally:
        os.close(writing)
    assert found == (STATUS[run], "")


@pytest.mark.parametrize("run", STATUS)
@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&-"])
def test_a_closed_stdout_does_not_change_an_audit(run: str, redirected: str, runs: Path) -> None:
    assert ended(runs, "audit", run, redirected=redirected) == (STATUS[run], "")


@pytest.mark.parametrize("words", ["audit held", "audit crossed --json", "--help"])
def test_an_output_that_cannot_be_written_is_one_sentence(words: str, runs: Path) -> None:
    (runs / "out.txt").touch()
    # Opened for reading: to the writer it is as a disk that refuses.
    with (runs / "out.txt").open("rb") as refused:
        status, said = ended(runs, *words.split(), stdout=refused)
    assert status == 4
    assert said == "refusalkit: cannot write to stdout: Bad file descriptor\n"


def test_a_stderr_without_a_reader_does_not_end_a_run(runs: Path) -> None:
    words = ("run", "demo/mixed", "--limit", "4", "--trials", "1", "--out", "made")
    status, _ = ended(runs, *words, stdout=subprocess.DEVNULL, redirected="2>&-")
    assert status == 0


@pytest.mark.parametrize("place", [".", "/", "missing/audit.xml"])
def test_an_audit_is_not_written_where_no_file_can_be(place: str, runs: Path) -> None:
    status, said = ended(runs, "audit", "held", "--junit", place, stdout=subprocess.DEVNULL)
    assert status == 4
    assert said.startswith(f"refusalkit: cannot write {place}: ")
    assert said.count("\n") == 1
