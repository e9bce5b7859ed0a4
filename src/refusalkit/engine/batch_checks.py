"""Checks, before anything is sent, that a run can be done in batches as configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refusalkit.errors import ConfigurationError
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.batch_files import is_in_files
from refusalkit.models.chat import ChatModel
from refusalkit.runs.batch_journal import read_batches
from refusalkit.runs.folder import Run
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model


def check_batch(config: RunConfig, model: Model | None, judge: Judge) -> None:
    """Raise `ConfigurationError` if a run cannot be done in batches as configured."""
    if config.batch is None:
        if config.wait:
            raise ConfigurationError("wait is only for batches: set batch as well")
        return
    for name, value in (("pressure", config.pressure), ("stop_when", config.stop_when)):
        if value:
            raise ConfigurationError(
                f"{name} needs each answer before the next request: leave out {name} or batch"
            )
    check_no_bound(config.max_cost)
    if config.batch in ("model", "both"):
        if not isinstance(model, ChatModel):
            raise ConfigurationError(
                f"{printable(config.model)} is not called through a provider's API, which batches "
                "need: leave out --batch"
            )
        model.batches()
    if config.batch in ("judge", "both") and _asks(judge):
        if not isinstance(judge, LLMJudge):
            raise ConfigurationError(
                f"the judge {printable(judge.id)} calls several models in turn, and a batch holds "
                "requests to one: use --batch model"
            )
        judge.batches()
    if config.batch == "judge" and not _asks(judge):
        raise ConfigurationError(
            f"the judge {printable(judge.id)} calls no model, so there is nothing to batch: leave "
            "out --batch"
        )


def check_no_bound(max_cost: float | None) -> None:
    """Raise `ConfigurationError` if a budget in USD is set for requests in batches."""
    if max_cost is not None:
        raise ConfigurationError(
            "max_cost cannot stop a batch, which is paid for once it is submitted: bound the run "
            "with limit, and check the price with `refusalkit estimate`"
        )


def _asks(judge: Judge) -> bool:
    """Whether a judge calls a model."""
    return any(rubric.asks_model for rubric in rubrics_of(judge)) or isinstance(judge, LLMJudge)


def batched_to_files(config: RunConfig, folder: str | None) -> RunConfig:
    """The configuration with the model in batches, if `folder` says where to write their files.

    Raises `ConfigurationError` if the configuration keeps the model out of batches.
    """
    if folder is None:
        return config
    if not folder.strip():
        raise ConfigurationError("batch_to is empty: name a folder")
    if config.batch == "judge":
        raise ConfigurationError("batch_to is for the model's batches: set batch to model or both")
    return config.model_copy(update={"batch": config.batch or "model"})


def check_place(run: Run, folder: str | None) -> None:
    """Raise `ConfigurationError` if open batches are in files and no folder is given, or if a
    folder is given and open batches are at the provider.
    """
    give_up = f"give it up by `refusalkit batches {printable(run.path)} --forget`"
    for batch in read_batches(run):
        if not batch.is_open or batch.kind != "model" or batch.id is None:
            continue
        if is_in_files(batch.id) and folder is None:
            raise ConfigurationError(
                "the requests of an open batch are in a file: give --batch-to DIR, the folder that "
                f"it is in, or {give_up}"
            )
        if folder is not None and not is_in_files(batch.id):
            raise ConfigurationError(
                f"the batch {printable(batch.id)} is at the provider: collect it without "
                f"--batch-to first, or {give_up}"
            )


def judged_in_batches(config: RunConfig, judge: Judge, *, kept_by: str | None = None) -> RunConfig:
    """The configuration of a command that only judges: its batches are the judge's.

    `kept_by` names the option for the output folder, if the caller left it out. Raises
    `ConfigurationError` if the judge cannot be called in batches as configured.
    """
    if config.batch == "model":
        raise ConfigurationError("only the judge is called here, no model: use --batch judge")
    if config.batch is not None:
        config = config.model_copy(update={"batch": "judge"})
    check_batch(config, None, judge)
    if config.batch is not None and kept_by is not None:
        raise ConfigurationError(
            f"the verdicts of a batch arrive later: give --{kept_by}, the folder that keeps track "
            "of the batch"
        )
    return config
