"""The map of the rooms, as `make rooms` prints it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from places import ROOT


def rooms(root: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "rooms.py"), str(root)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=300,
    )
    return done.stdout


def test_no_room_is_in_a_circle() -> None:
    said = rooms(ROOT)
    assert said.endswith("circles: none\n")
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = [line.split()[0] for line in said.splitlines()[1:] if line and line[0] != "\n"]
    for room in named[: named.index("20") if "20" in named else len(named)]:
        if room not in ("__main__", "__init__", "circles:") and not room.isdigit():
            assert room in contributing, f"{room} is not on the map"


def test_a_new_circle_is_found(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.toml")
    )
    manifest = tmp_path / "src" / "refusalkit" / "runs" / "manifest.py"
    with manifest.open("a", encoding="utf-8") as file:
        file.write("from refusalkit.runs import new as _new\n")
    said = rooms(tmp_path)
    assert "circles: 1\n" in said
    assert "refusalkit.runs: " in said
