"""The real command, called in this process as the console script calls it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from refusalkit.cli import main

# What a developer's shell may hold and a test must not see.
_LEFT_OUT = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "HOSTED_VLLM_API_KEY",
    "FORCE_COLOR",
    "NO_COLOR",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)
# Where things lie: set by tests, and no option of a command.
_PLACES = ("REFUSALKIT_STATE", "REFUSALKIT_CACHE", "REFUSALKIT_GITHUB_ENDPOINT")


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    status: int
    out: str
    err: str


Call = Callable[..., Called]


def caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Call:
    """A function that calls ``refusalkit`` with its arguments, in `folder`, 80 columns wide."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    # click names the program after the module that was started, which is pytest.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    options = [name for name in os.environ if name.startswith("REFUSALKIT_")]
    for name in (*_LEFT_OUT, *(name for name in options if name not in _PLACES)):
        monkeypatch.delenv(name, raising=False)

    def call(*words: object) -> Called:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["refusalkit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        said = capsys.readouterr()
        return Called(code or 0, said.out, said.err)

    return call
