"""What is exported, held against the programs that read it. Run by `make test-integrations`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import refusalkit as rk

pytest.importorskip("every_eval_ever", reason="make test-integrations")


def validate(*paths: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("every_eval_ever")
    names = [path.relative_to(folder).as_posix() for path in paths]
    return subprocess.run(
        [program, "validate", *names],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("demo/leaky", {}),
        ("demo/mixed", {"prompts": "contrast-146", "limit": 20}),
        ("demo/cautious", {"category": ["privacy-and-doxxing"]}),
    ],
)
def test_every_eval_ever_validates_what_is_exported(
    model: str, options: dict[str, object], tmp_path: Path
) -> None:
    options = {"prompts": "starter", "trials": 2, **options}
    run = rk.benchmark(model, out=tmp_path / "run", **options)  # type: ignore[arg-type]
    out = tmp_path / "out"
    paths = rk.export(run, "every-eval-ever", out).paths
    said = validate(*paths, folder=out)
    assert said.returncode == 0, said.stdout
    assert "2 passed, 0 warning-only, 0 failed" in said.stdout


def test_every_eval_ever_sees_a_changed_instance_file(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", "starter", trials=1, limit=6, out=tmp_path / "run")
    out = tmp_path / "out"
    record, samples = rk.export(run, "every-eval-ever", out).paths
    samples.write_text(samples.read_text("utf-8").replace('"score":', '"scored":', 1))
    assert validate(record, samples, folder=out).returncode != 0
