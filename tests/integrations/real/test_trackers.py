"""Runs in the trackers themselves: their local stores, and wandb offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import refusalkit as rk

SECRET = "a system prompt that is nobody's business"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logged(tracker: str) -> rk.Score:
    """The command in a process of its own: trackers leave threads and handlers behind."""
    words = ["run", "demo/leaky", "--prompts", "starter", "--trials", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "refusalkit", *words, "--system", SECRET, "--log-to", tracker],
        env=dict(os.environ),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert f"logged to {tracker}" in done.stderr
    return rk.score("run")


def nothing_private(folder: Path) -> None:
    """No answer and no system prompt is anywhere below a tracker's folder."""
    data = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert data
    assert not any(SECRET.encode() in each or b"[demo answer]" in each for each in data)


@pytest.mark.filterwarnings("ignore:codecs.open:DeprecationWarning")  # MLflow's, on Python 3.14
def test_mlflows_file_store_has_figures_configuration_and_report(home: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="make test-integrations")
    score = logged("mlflow")
    client = mlflow.MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("refusalkit")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == score.run
    assert found.data.metrics["willingness"] == score.willingness.value
    assert found.data.metrics["willingness_low"] == score.willingness.low
    assert found.data.metrics["leaks"] == 1
    assert found.data.params["judge"] == "lexical"
    assert found.data.params["config_digest"] == score.manifest.config_digest
    assert [each.path for each in client.list_artifacts(found.info.run_id)] == ["report.html"]
    nothing_private(home / "mlruns")


def test_trackios_local_store_has_them_too(home: Path) -> None:
    pytest.importorskip("trackio", reason="make test-integrations")
    score = logged("trackio")
    code = (
        "import json, trackio; api = trackio.Api(); run = api.runs('refusalkit')[0]; "
        "print(json.dumps([run.name, run.config['judge']]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert score.run in said
    assert "lexical" in said
    nothing_private(home / "trackio")


def test_wandb_offline_has_them_too(home: Path) -> None:
    pytest.importorskip("wandb", reason="make test-integrations")
    score = logged("wandb")
    (folder,) = (home / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    data = record.read_bytes()
    assert score.run.encode() in data
    assert b"willingness_low" in data
    nothing_private(home / "wandb")


def test_a_tracker_that_is_not_there_is_reported_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    from refusalkit.integrations.trackers import check_tracker

    with pytest.raises(rk.UsageError, match="no tracker 'aim': one of wandb, mlflow, trackio"):
        check_tracker("aim")
