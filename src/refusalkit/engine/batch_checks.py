"""Whether what is asked for can be asked in batches; told before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refusalkit.errors import ConfigurationError
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.chat import ChatModel
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model


def check_batch(config: RunConfig, model: Model | None, judge: Judge) -> None:
    """Raise `ConfigurationError` where a run cannot be worked through in batches as asked."""
    if config.batch is None:
        if config.wait:
            raise ConfigurationError("wait is for batches: give batch too")
        return
    for name, value in (("pressure", config.pressure), ("stop_when", config.stop_when)):
        if value:
            raise ConfigurationError(
                f"{name} needs one answer before the next request: leave out it or batch"
            )
    if config.max_cost is not None:
        raise ConfigurationError(
            "max_cost cannot hold over a batch, which is paid for once it is handed over: bound "
            "the run with limit, and see what `refusalkit estimate` says"
        )
    if config.batch in ("model", "both"):
        if not isinstance(model, ChatModel):
            raise ConfigurationError(
                f"{printable(config.model)} is not asked through a provider, which batches need: "
                "leave out --batch"
            )
        model.batches()
    if config.batch in ("judge", "both") and _asks(judge):
        if not isinstance(judge, LLMJudge):
            raise ConfigurationError(
                f"the judge {printable(judge.id)} asks several in turn, and a batch only one: "
                "give --batch model"
            )
        judge.batches()
    if config.batch == "judge" and not _asks(judge):
        raise ConfigurationError(f"the judge {printable(judge.id)} asks no model: nothing to batch")


def _asks(judge: Judge) -> bool:
    """Whether a judge asks a model."""
    return any(rubric.asks_model for rubric in rubrics_of(judge)) or isinstance(judge, LLMJudge)


def judged_in_batches(config: RunConfig, judge: Judge, *, kept_by: str | None = None) -> RunConfig:
    """The configuration of work that only judges, with its batches those of the judge.

    `kept_by` is the option that says where the verdicts are kept, if it was not given. Raises
    `ConfigurationError` where the judge cannot be asked in batches as asked.
    """
    if config.batch == "model":
        raise ConfigurationError("no model is asked here, only the judge: give --batch judge")
    if config.batch is not None:
        config = config.model_copy(update={"batch": "judge"})
    check_batch(config, None, judge)
    if config.batch is not None and kept_by is not None:
        raise ConfigurationError(
            f"the verdicts of a batch are collected later: give --{kept_by}, the folder that keeps "
            "track of it"
        )
    return config
