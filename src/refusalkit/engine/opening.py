"""Opens the model and the judges that a configuration or a manifest names."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from refusalkit.config import RunConfig, checked_base
from refusalkit.errors import ConfigurationError
from refusalkit.judges.rubrics import Rubric
from refusalkit.runs.manifest import JudgeEntry, JudgePart, Manifest
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config import CouncilRule
    from refusalkit.judges.choice import JudgeChoice
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.endpoints import Pacers
    from refusalkit.models.protocol import Model


_PACE = ("rpm", "tpm", "concurrency", "max_retries")


def open_configured_model(config: RunConfig, pacers: Pacers | None = None) -> Model:
    """The model that a configuration names; errors as `open_model`.

    Runs that share `pacers` keep the pace of one endpoint together: `ConfigurationError` where
    they ask for different limits.
    """
    from refusalkit.models.endpoints import own_base
    from refusalkit.models.open import open_model
    from refusalkit.models.pacing import Pacer

    pacer = Pacer(
        rpm=config.rpm,
        tpm=config.tpm,
        concurrency=config.concurrency,
        max_retries=config.max_retries,
    )
    if pacers is not None and not config.model.startswith("demo/"):
        base = own_base(config.model, config.api_base, config.via)
        limits = {name: getattr(config, name) for name in _PACE}
        pacer = pacers.share(("model", config.model, base, config.api_key_env), pacer, limits)
    return open_model(
        config.model,
        api_base=config.api_base,
        api_key_env=config.api_key_env,
        via=config.via,
        pacer=pacer,
        connections=config.concurrency,
    )


def open_configured_judge(
    config: RunConfig,
    judge: str | Judge | None,
    *,
    hard_lines: Collection[str] = (),
    recorded: Manifest | None = None,
    pacers: Pacers | None = None,
) -> tuple[Rubric | None, Judge]:
    """The judge to use, with its rubric if it is a single one from a file.

    A `judge` that is an object takes the place of those that the configuration names. `hard_lines`
    are the slugs of the set's hard-line categories. With the manifest of a run that is `recorded`
    the judge of record is opened from the files that it names.
    """
    from refusalkit.judges.choice import choose_judge, open_choice

    choice = choose_judge(config) if recorded is None else _recorded_choice(recorded)
    base = None if judge is None or isinstance(judge, str) else judge
    opened = open_choice(choice, config, base=base, hard_lines=hard_lines, pacers=pacers)
    rubric = getattr(opened, "rubric", None) if base is None else None
    return rubric if isinstance(rubric, Rubric) else None, opened


def _recorded_choice(manifest: Manifest) -> JudgeChoice:
    """The judges that a run's manifest names as its judge of record."""
    from refusalkit.judges.choice import JudgeChoice, NamedJudge

    def named(part: JudgeEntry | JudgePart) -> NamedJudge:
        return NamedJudge(part.source or part.name, part.model)

    entry = manifest.judges[manifest.judge]
    members = [manifest.judges[member] for member in entry.members] or [entry]
    return JudgeChoice(
        members=tuple(map(named, members)),
        rule=cast("CouncilRule | None", entry.rule),
        fallback=None if entry.fallback is None else named(entry.fallback),
        hard_line_judge=None if entry.hard_line_judge is None else named(entry.hard_line_judge),
    )


def with_named_bases(config: RunConfig, asks_model: bool, *rubrics: Rubric | None) -> RunConfig:
    """The configuration with the base URLs that the environment names for what is asked.

    They are on record so, and who goes on with the run asks there again. `rubrics` are those of the
    judges that the configuration opens; several at different endpoints have no base in common.
    Raises `ConfigurationError` where a base cannot be written down.
    """
    found: dict[str, str] = {}
    if asks_model and config.api_base is None:
        base = _named_base(config.model, config.via)
        found |= {} if base is None else {"api_base": base}
    if config.judge_api_base is None:
        asked = {rubric.model for rubric in rubrics if rubric is not None and rubric.kind == "llm"}
        bases = {_named_base(model, config.judge_via) for model in asked}
        if len(bases) == 1 and (base := bases.pop()) is not None:
            found["judge_api_base"] = base
    return config.model_copy(update=found)


def _named_base(model_id: str, via: str | None) -> str | None:
    """The base of one's own that the environment names for a model."""
    from refusalkit.models.endpoints import base_variable, own_base

    base = own_base(model_id, None, via)
    try:
        return None if base is None else checked_base(base)
    except ValueError as error:
        variable = base_variable(model_id, via)
        raise ConfigurationError(f"{variable} in the environment {error}") from None


def check_budget(config: RunConfig, asks_model: bool, *rubrics: Rubric | None) -> None:
    """A budget that cannot be counted is refused before anything is spent.

    `rubrics` are those of the judges that will be asked.
    """
    if config.max_cost is None:
        return
    from refusalkit.models.endpoints import price_at

    paid = [(config.model, config.api_base, config.via)] if asks_model else []
    judges = [rubric for rubric in rubrics if rubric is not None and rubric.kind == "llm"]
    paid.extend((rubric.model, config.judge_api_base, config.judge_via) for rubric in judges)
    for model_id, base, via in paid:
        if not model_id.startswith("demo/") and price_at(model_id, base, via) is None:
            raise ConfigurationError(
                f"the price of {printable(model_id)} is unknown, so --max-cost cannot hold: leave "
                "it out, or bound the run with --limit"
            )
