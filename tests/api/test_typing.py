"""What a type checker says of a call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WRONG = """\
import refusalkit as rk

rk.benchmark("demo/mixed", trails=3)
rk.benchmark("demo/mixed", trials="3")
rk.resume("runs/x", trails=3)
rk.grade("a.jsonl", trials=3)
rk.regrade("r", "lexical", max_cots=3)
rk.benchmark_many(["demo/mixed"], trails=3)
rk.benchmark("demo/mixed", trials=3, max_cost=None, category=["a"], framings=True)
rk.score(rk.load_run("runs/x")).willingness
"""


@pytest.mark.slow
def test_a_mistaken_keyword_is_an_error_of_the_type_checker(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text(WRONG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=600,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == [3, 4, 5, 6, 7, 8]
    assert 'did you mean "trials"?' in errors[0]
