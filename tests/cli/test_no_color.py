"""What NO_COLOR leaves of a terminal's styles: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from commandline import caller
from handmade import CROSSED, write_run


def test_no_color_means_no_bold_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    write_run(tmp_path / "crossed", CROSSED)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert "\x1b[1;31mCROSSED" in call("audit", "crossed").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in call("audit", "crossed").out
