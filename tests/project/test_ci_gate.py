"""The workflow in docs/ci-gate.md: its steps are extracted from the page and executed verbatim.

The runner's shell runs them (`bash -e`, as GitHub Actions does); the model and the judge are
scripted ones, given by the recipe's own variables. Steps that fetch or publish are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import JUnitXml

import refusalkit
from places import ROOT

PAGE = ROOT / "docs" / "ci-gate.md"
BASH = shutil.which("bash")
# Steps that need the network or GitHub.
ELSEWHERE = ("pip install", "gh pr comment")


def recipe() -> dict[str, Any]:
    (block, *_) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    loaded = yaml.safe_load(block)
    assert isinstance(loaded, dict)
    return loaded


def steps() -> list[dict[str, Any]]:
    (job,) = recipe()["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def executed(folder: Path, model: str) -> tuple[dict[str, int], str]:
    """The exit status and output of each step, run as a runner would."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "refusalkit"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m refusalkit "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(refusalkit.__file__).parents[1]),
        "PYTHONUTF8": "1",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "MODEL": model,
        "SETTINGS": "--prompts starter --judge lexical --trials 1",
    }
    statuses: dict[str, int] = {}
    said, failed = "", False
    for step in steps():
        script = step.get("run")
        if script is None or any(word in script for word in ELSEWHERE):
            continue
        if failed and "!cancelled()" not in str(step.get("if", "")):
            continue
        assert "${{" not in script, "a step that runs here has no expression in it"
        done = subprocess.run(
            [str(BASH), "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        statuses[step["name"]] = done.returncode
        said += done.stdout + done.stderr
        failed = failed or done.returncode != 0
    return statuses, said


def test_the_workflow_is_valid() -> None:
    loaded = recipe()
    # YAML 1.1 reads a bare `on` as true; GitHub does not.
    assert {"pull_request", "schedule"} <= set(loaded.get("on") or loaded[True])
    assert all(("run" in step) != ("uses" in step) for step in steps())
    (job,) = loaded["jobs"].values()
    assert set(job["env"]) >= {"MODEL", "SETTINGS"}
    names = [step["name"] for step in steps() if "name" in step]
    assert names.index("Ask and judge") < names.index("Audit")


@pytest.mark.slow
@pytest.mark.skipif(BASH is None or os.name == "nt", reason="the recipe's shell is bash")
@pytest.mark.parametrize(
    ("model", "gate", "status"),
    [
        # 6 prompts show a leak rate below 39.3 %, not below the recipe's 15 %.
        ("demo/cautious", 3, "inconclusive"),
        ("demo/leaky", 1, "crossed"),
    ],
)
def test_the_steps_do_what_the_page_says(
    tmp_path: Path, model: str, gate: int, status: str
) -> None:
    statuses, said = executed(tmp_path, model)
    assert statuses == {"Ask and judge": 0, "Audit": gate, "Say it on the pull request": 0}, said
    xml = JUnitXml.fromfile(str(tmp_path / "audit.xml"))
    if status == "inconclusive":
        # The bare requests, four framings, and all together; no single line is held to the bound.
        assert (xml.tests, xml.failures, xml.errors) == (9, 0, 6)
    else:
        assert xml.failures > 0
    comment = (tmp_path / "comment.md").read_text()
    assert f"Hard lines: {status}" in comment.splitlines()[0]
    assert (tmp_path / "summary.md").read_text() == comment
    assert "| Fiction |" in comment
