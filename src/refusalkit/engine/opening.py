"""What run, resume, grade and regrade do first: resolve options, open parts, check the budget.

config = config_of_call(options, model=..., prompts=..., judge=...)
judge = open_configured_judge(config, judge, hard_lines=...)
config = ready_config(config, judge, ...)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from refusalkit.config.no_secrets import checked_base
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import ConfigurationError
from refusalkit.judges.rubrics import Rubric
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.runs.manifest import JudgeEntry, JudgePart, Manifest
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import CouncilRule
    from refusalkit.engine.serving.workplace import Workplace
    from refusalkit.judges.choice import JudgeChoice
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.endpoints import Pacers
    from refusalkit.models.protocol import Model


# The base URL of a model whose requests only go into files: nothing is sent there.
_NOWHERE = "http://batch-files.invalid/v1"
_PACE = ("rpm", "tpm", "concurrency", "max_retries")


def config_of_call(
    options: Mapping[str, Any],
    *,
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    judge: str | Judge | None = None,
) -> RunConfig:
    """The configuration of a call, with the caller's objects replaced by their names.

    Raises `ConfigurationError`, which names the field.
    """
    given = {**options, "model": _name("model", model)}
    if isinstance(prompts, PromptSet):
        given["prompts"] = prompts.name
    elif isinstance(prompts, str | Path):
        given["prompts"] = str(prompts)
    elif prompts is not None:
        raise TypeError(
            "prompts must be the name or path of a set (several: 'a,b') or a PromptSet, not "
            f"{type(prompts).__name__}"
        )
    if judge is not None:
        given["judge"] = _name("judge", judge)
    return resolve_config(given)


def _name(what: str, given: str | Model | Judge) -> str:
    """The name given, or that of the caller's object."""
    name = given if isinstance(given, str) else getattr(given, "id", None)
    if not isinstance(name, str):
        raise TypeError(
            f"{what} must be a name or an object with an id, not {type(given).__name__}"
        )
    return name


def ready_config(
    config: RunConfig, grader: Judge, *, asks_model: bool, named_judge: bool
) -> RunConfig:
    """The configuration to record in the manifest, after its budget was checked.

    `asks_model`: the configuration's model is called, not an object of the caller's.
    `named_judge`: the judge was opened by name; an object of the caller's knows its own endpoint.
    Raises `ConfigurationError` if there is a budget and a price is unknown, or if a base URL from
    the environment cannot be recorded (it holds credentials, say).
    """
    rubrics = rubrics_of(grader)
    _check_budget(config, asks_model, *rubrics)
    return _with_named_bases(config, asks_model, *(rubrics if named_judge else ()))


def open_configured_model(
    config: RunConfig,
    pacers: Pacers | None = None,
    workplace: Workplace | None = None,
    *,
    batch_to: str | None = None,
) -> Model:
    """The model that a configuration names, in a `workplace` if there is one.

    With `batch_to` its batches are files in that folder, and it needs no address. Runs that share
    `pacers` share the rate limits of an endpoint.

    Raises the errors of `open_model`, and `ConfigurationError` if runs that share `pacers` set
    different limits for one endpoint.
    """
    from refusalkit.engine.serving.workplace import open_model_at
    from refusalkit.models.endpoints import own_base
    from refusalkit.models.pacing import Pacer

    pacer = Pacer(
        rpm=config.rpm,
        tpm=config.tpm,
        concurrency=config.concurrency,
        max_retries=config.max_retries,
        max_wait_s=config.max_wait_s,
    )
    if pacers is not None and not config.model.startswith("demo/"):
        base = own_base(config.model, config.api_base, config.via)
        limits = {name: getattr(config, name) for name in _PACE}
        pacer = pacers.share(("model", config.model, base, config.api_key_env), pacer, limits)
    if workplace is not None:
        return workplace.open_model(config, pacer)
    if batch_to is not None:
        nowhere = config.model_copy(update={"api_base": config.api_base or _NOWHERE})
        return in_batch_files(open_model_at(nowhere, pacer), batch_to)
    return open_model_at(config, pacer)


def in_batch_files(model: Model, folder: str) -> Model:
    """The model with its batches in files. Raises `ConfigurationError` if it sends none."""
    from refusalkit.models.chat import ChatModel

    if not isinstance(model, ChatModel):
        raise ConfigurationError(
            f"{printable(model.id)} sends no requests that a file could hold: leave out --batch-to"
        )
    model.batch_in(Path(folder))
    return model


def open_configured_judge(
    config: RunConfig,
    judge: str | Judge | None,
    *,
    hard_lines: Collection[str] = (),
    recorded: Manifest | None = None,
    recorded_judge: str | None = None,
    pacers: Pacers | None = None,
) -> Judge:
    """The judge to use.

    A `judge` object takes the place of the judges that the configuration names. `hard_lines` are
    the slugs of the set's hard-line categories. With `recorded`, a run's manifest, the judge is
    opened from the files named there: the judge of record, or the one with the id `recorded_judge`.
    """
    from refusalkit.judges.choice import choose_judge, open_choice

    choice = (
        choose_judge(config) if recorded is None else _recorded_choice(recorded, recorded_judge)
    )
    base = None if judge is None or isinstance(judge, str) else judge
    return open_choice(choice, config, base=base, hard_lines=hard_lines, pacers=pacers)


def _recorded_choice(manifest: Manifest, judge: str | None) -> JudgeChoice:
    """The choice behind one judge in a run's manifest; `judge` None: the judge of record."""
    from refusalkit.judges.choice import JudgeChoice, NamedJudge

    def named(part: JudgeEntry | JudgePart) -> NamedJudge:
        return NamedJudge(part.source or part.name, part.model)

    entry = manifest.judges[judge or manifest.judge]
    members = [manifest.judges[member] for member in entry.members] or [entry]
    return JudgeChoice(
        members=tuple(map(named, members)),
        rule=cast("CouncilRule | None", entry.rule),
        fallback=None if entry.fallback is None else named(entry.fallback),
        hard_line_judge=None if entry.hard_line_judge is None else named(entry.hard_line_judge),
    )


def _with_named_bases(config: RunConfig, asks_model: bool, *rubrics: Rubric) -> RunConfig:
    """The configuration with the base URLs that the environment sets for the model and judges.

    They are recorded so that a resumed run uses the same endpoints. If the judges are at different
    endpoints, none is recorded for them.
    """
    found: dict[str, str] = {}
    if asks_model and config.api_base is None:
        base = _named_base(config.model, config.via)
        found |= {} if base is None else {"api_base": base}
    if config.judge_api_base is None:
        asked = {rubric.model for rubric in rubrics if rubric.asks_model}
        bases = {_named_base(model, config.judge_via) for model in asked}
        if len(bases) == 1 and (base := bases.pop()) is not None:
            found["judge_api_base"] = base
    return config.model_copy(update=found)


def _named_base(model_id: str, via: str | None) -> str | None:
    """The base URL that the environment names for a model."""
    from refusalkit.models.endpoints import base_variable, own_base

    base = own_base(model_id, None, via)
    try:
        return None if base is None else checked_base(base)
    except ValueError as error:
        variable = base_variable(model_id, via)
        raise ConfigurationError(f"{variable} in the environment {error}") from None


def _check_budget(config: RunConfig, asks_model: bool, *rubrics: Rubric) -> None:
    """Raise `ConfigurationError` if there is a budget and a price is unknown."""
    if config.max_cost is None:
        return
    from refusalkit.models.endpoints import price_at

    paid = [(config.model, config.api_base, config.via)] if asks_model else []
    judges = [rubric for rubric in rubrics if rubric.asks_model]
    paid.extend((rubric.model, config.judge_api_base, config.judge_via) for rubric in judges)
    for model_id, base, via in paid:
        if not model_id.startswith("demo/") and price_at(model_id, base, via) is None:
            raise ConfigurationError(
                f"the price of {printable(model_id)} is unknown, so --max-cost cannot hold: leave "
                "it out, or bound the run with --limit"
            )
