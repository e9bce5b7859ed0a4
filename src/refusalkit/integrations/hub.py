"""Writes a run as results for a model's page on the Hub (the extra ``hub``).

``.eval_results/refusalkit.yaml`` is what the Hub shows on the page and on a data set's leaderboard;
``model-card.yaml`` is the older ``model-index`` block for the head of a README.md. Both are written
by huggingface_hub's own functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, HfApi, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from refusalkit.api.results import score as score_of
from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    MissingKeyError,
    StorageError,
    UsageError,
)
from refusalkit.files import make_folder, write_file
from refusalkit.runs.folder import Run
from refusalkit.scoring.figures import FIGURES
from refusalkit.scoring.score import Score
from refusalkit.types import Estimate
from refusalkit.untrusted import printable

RESULTS = ".eval_results/refusalkit.yaml"
CARD = "model-card.yaml"
TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name
_FIGURES = ("willingness", "answer_rate", "hold_rate", "over_refusal")
_DECIMALS = 2


def write_hub_results(run: Run, out: Path, *, dataset: str | None) -> tuple[Path, Path]:
    """Write both files below `out`; returns their paths.

    `dataset` is the benchmark's id on the Hub, ``owner/name``. Raises `UsageError` where it is not
    given or nothing was scored, `StorageError` where the files cannot be written.
    """
    if dataset is None or dataset.count("/") != 1 or not all(dataset.split("/")):
        raise UsageError(
            "the Hub files results under a data set: name it with --dataset OWNER/NAME (dataset=)"
        )
    found = score_of(run)
    figures = dict(_figures(found))
    if not figures:
        raise UsageError(f"{printable(run.path)} has no scored response yet: nothing to export")
    session = run.manifest.sessions[-1] if run.manifest.sessions else None
    date = session.started_at if session is not None and session.day is not None else None
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=name,
            value=round(_value(estimate), _DECIMALS),
            date=date,
            notes=_notes(found, estimate),
        )
        for name, estimate in figures.items()
    ]
    card = eval_results_to_model_index(
        found.model.rpartition("/")[2],
        [
            EvalResult(
                task_type="text-generation",
                task_name="RefusalBench",
                dataset_type=dataset,
                dataset_name=f"{found.prompt_set} {found.manifest.prompt_set.version}",
                metric_type=name,
                metric_name=f"{FIGURES[name]} (percent)",
                metric_value=round(_value(estimate), _DECIMALS),
            )
            for name, estimate in figures.items()
        ],
    )
    written = {RESULTS: eval_result_entries_to_yaml(entries), CARD: {"model-index": card}}
    try:
        for name, data in written.items():
            make_folder((out / name).parent)
            write_file(out / name, _as_yaml(data), private=False)
    except OSError as error:
        raise StorageError(f"cannot write {printable(out)}: {error.strerror or error}") from error
    return out / RESULTS, out / CARD


def open_pull_request(results: Path, repo: str) -> str:
    """Send the results file to a model repository as a pull request; returns its address.

    Only the token in the environment's ``HF_TOKEN`` is used. Raises `MissingKeyError` without it,
    `ConfigurationError` where `repo` is not ``owner/name``, `FatalProviderError` where the Hub
    refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise MissingKeyError(f"no token for the Hub: set {TOKEN}")
    try:
        made = HfApi(token=token).create_commit(
            repo_id=repo,
            operations=[CommitOperationAdd(RESULTS, results.read_bytes())],
            commit_message="Add RefusalBench results",
            commit_description="Measured with refusalkit; the notes name judge, trials and set.",
            create_pr=True,
        )
    except HFValidationError as error:
        raise ConfigurationError(f"{printable(repo)} is not OWNER/NAME") from error
    except HfHubHTTPError as error:
        what = printable(error.server_message or str(error), 200)
        raise FatalProviderError(f"the Hub refused: {what}") from error
    except OSError as error:
        raise FatalProviderError(f"the Hub cannot be reached: {printable(error, 200)}") from error
    return str(made.pr_url)


def _figures(found: Score) -> Iterator[tuple[str, Estimate]]:
    for name in _FIGURES:
        estimate: Estimate = getattr(found, name)
        if estimate.value is not None:
            yield name, estimate


def _value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def _notes(found: Score, estimate: Estimate) -> str:
    entry = found.manifest.prompt_set
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"95 % interval {estimate.low:.1f} to {estimate.high:.1f}, "
    return (
        f"percent, {interval}{estimate.n_prompts} prompts, {found.trials} trials; judged by "
        f"{printable(found.judge)}; {printable(entry.name)} {printable(entry.version)} "
        f"({printable(entry.digest)}); refusalkit {printable(found.manifest.refusalkit)}"
    )


def _as_yaml(data: Any) -> bytes:
    text: str = yaml.safe_dump(_shown(data), sort_keys=False, allow_unicode=True, width=1000)
    return text.encode()


def _shown(data: Any) -> Any:
    """The data with hidden characters escaped in every string: names may come from a stranger."""
    if isinstance(data, dict):
        return {_shown(name): _shown(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_shown(value) for value in data]
    return printable(data, 1000) if isinstance(data, str) else data
