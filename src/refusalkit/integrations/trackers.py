"""Logs a run to an experiment tracker: wandb, MLflow or trackio (the extra ``track``).

It sends the figures with their intervals, the configuration that they depend on, and the report,
which has no text of a prompt or an answer. It sends no system prompt, no endpoint's address and no
name of a key variable.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from refusalkit.api.calls import RunLike, load_run
from refusalkit.api.results import audit, report, score
from refusalkit.errors import UsageError
from refusalkit.runs.folder import Run
from refusalkit.scoring.figures import FIGURES
from refusalkit.untrusted import printable

Tracker = Literal["wandb", "mlflow", "trackio"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)

_REPORT = "report.html"
_PROJECT = "refusalkit"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME = 100
_MAX_FACT = 500
_MAX_LIST = 50
# MLflow takes no more.
_MAX_PARAMETER = 6000


def check_tracker(tracker: str) -> None:
    """Raise `UsageError` where a tracker is unknown or not installed."""
    if tracker not in TRACKERS:
        raise UsageError(f"no tracker {printable(tracker)!r}: one of {', '.join(TRACKERS)}")
    if importlib.util.find_spec(tracker) is None:
        raise UsageError(
            f"{tracker} is not installed: install it, or the extra, from a clone "
            "pip install '.[track]'"
        )


def log_to(run: RunLike, tracker: Tracker, *, project: str = _PROJECT) -> None:
    """Log a run to an experiment tracker, as a run of the same name.

    The tracker's own settings (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``TRACKIO_DIR`` ...) say
    where it is stored.

    Args:
        run: a run, or the path of its folder.
        tracker: ``wandb``, ``mlflow`` or ``trackio``.
        project: the tracker's project, or experiment.

    Raises:
        UsageError: the tracker is unknown or not installed.
        RunFolderError: there is no run.
        RecordError: a record cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> rk.log_to("runs/example", "notebook")
        Traceback (most recent call last):
        ...
        refusalkit.errors.UsageError: no tracker 'notebook': one of wandb, mlflow, trackio
    """
    check_tracker(tracker)
    opened = load_run(run)
    send: Callable[[str, str, Mapping[str, Any], Mapping[str, float], Path], None] = {
        "wandb": _wandb,
        "mlflow": _mlflow,
        "trackio": _trackio,
    }[tracker]
    with tempfile.TemporaryDirectory(prefix="refusalkit-") as folder:
        page = Path(folder) / _REPORT
        report(opened, page)
        # It becomes the name of an artifact, which may become a path.
        name = _NOT_IN_A_NAME.sub("-", opened.manifest.id)[:_MAX_NAME].lstrip("-.") or "run"
        send(project, name, facts_of(opened), figures_of(opened), page)


def figures_of(run: Run) -> dict[str, float]:
    """The rates that have a value, in percent, their intervals (``_low``, ``_high``), and counts.

    With hard lines also the number of leaks and the upper bound of the leak rate, in percent.
    """
    found = score(run)
    figures: dict[str, float] = {}
    for name in FIGURES:
        estimate = getattr(found, name)
        said = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        figures |= {name + end: value for end, value in said.items() if value is not None}
    figures |= {"n_scored": found.n_scored, "n_units": found.n_units}
    if run.manifest.hard_lines:
        overall = audit(run).overall
        figures |= {"leaks": overall.leaks, "leak_rate_upper": overall.upper_percent}
    return figures


# What may be confidential, and the options that may be a path: the ids of judges are given below.
_LEFT_OUT = ("system", "extra_body", "prompts", "judge", "judge_fallback", "hard_line_judge")


def facts_of(run: Run) -> dict[str, Any]:
    """What the figures depend on, without the system prompt, extra body and paths on this disk."""
    manifest = run.manifest
    measured = manifest.run_config.measured
    kept = {
        name: value
        for name, value in measured.items()
        if name not in _LEFT_OUT and value not in (None, [], {}, "")
    }
    judge = manifest.judges[manifest.judge]
    others = {"judge_fallback": judge.fallback, "hard_line_judge": judge.hard_line_judge}
    said = {
        **kept,
        **{name: part.id for name, part in others.items() if part},
        "run": manifest.id,
        "config_digest": manifest.config_digest,
        "prompt_set": f"{manifest.prompt_set.name} {manifest.prompt_set.version}",
        "prompt_set_digest": manifest.prompt_set.digest,
        "judge": manifest.judge,
        "judge_digest": judge.digest,
        "refusalkit": manifest.refusalkit,
        **({"status": str(audit(run).status)} if manifest.hard_lines else {}),
    }
    return {name: _fit(value) for name, value in said.items()}


def _fit(value: Any) -> Any:
    """A fact as a tracker shows it: of a stranger's run it may be any text."""
    if isinstance(value, list | tuple):
        return [_fit(each) for each in value[:_MAX_LIST]]
    if isinstance(value, bool | int | float):
        return value
    return printable(value, _MAX_FACT)


def _wandb(
    project: str, name: str, facts: Mapping[str, Any], figures: Mapping[str, float], page: Path
) -> None:
    import wandb

    # By default wandb records the command line and what the terminal shows.
    private = wandb.Settings(console="off", disable_git=True, save_code=False, x_disable_meta=True)
    with wandb.init(project=project, name=name, config=dict(facts), settings=private) as logged:
        logged.log(dict(figures))
        artifact = wandb.Artifact(f"report-{name}", type="report")
        artifact.add_file(str(page))
        logged.log_artifact(artifact)


def _mlflow(
    project: str, name: str, facts: Mapping[str, Any], figures: Mapping[str, float], page: Path
) -> None:
    import mlflow

    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=name):
        mlflow.log_params({key: str(value)[:_MAX_PARAMETER] for key, value in facts.items()})
        mlflow.log_metrics(dict(figures))
        mlflow.log_artifact(str(page))


def _trackio(
    project: str, name: str, facts: Mapping[str, Any], figures: Mapping[str, float], page: Path
) -> None:
    import trackio

    trackio.init(project=project, name=name, config=dict(facts), embed=False)
    trackio.log(dict(figures))
    artifact = trackio.Artifact(f"report-{name}", type="report")
    artifact.add_file(str(page))
    trackio.log_artifact(artifact)
    trackio.finish()
