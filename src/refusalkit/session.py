"""What a run needs before and around its work: opened parts, a manifest, one session on record."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import secrets
import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from refusalkit.canaries import owed_canaries
from refusalkit.config import OPERATIONAL, RunConfig, check_unchanged, checked_base
from refusalkit.datasets.tables import slug_of
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    RefusalkitError,
    RunFolderError,
    StorageError,
)
from refusalkit.judge_entries import joined_judges, judge_entries
from refusalkit.manifest import (
    CategoryEntry,
    FramedEntry,
    JudgeEntry,
    JudgePart,
    Manifest,
    ParameterEntry,
    PartEntry,
    PromptSetEntry,
    Session,
)
from refusalkit.rubrics import Rubric
from refusalkit.store import Run, create_run, holds_run, open_run
from refusalkit.types import PromptSet, now
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.checkpoint import Checkpoint
    from refusalkit.config import CouncilRule
    from refusalkit.datasets.answers import RecordedAnswers
    from refusalkit.judges import Judge
    from refusalkit.judges.choice import JudgeChoice
    from refusalkit.models import Model, Pacers
    from refusalkit.spending import Budget
from refusalkit.runner import OnProgress, Plan

_PACKAGES = (
    *("litellm", "anthropic", "aiohttp", "pydantic", "polars", "jsonlines"),
    *("torch", "transformers"),  # where a classifier judges
)


_PACE = ("rpm", "tpm", "concurrency", "max_retries")


def how_to_resume(run: Run) -> str:
    """The command that goes on with a run."""
    path = printable(run.path, 400)
    quoted = shlex.quote(path)
    if run.manifest.kind == "grade":
        return f"the same command with --out {quoted}"
    return f"refusalkit resume {quoted}"


async def work_session(
    run: Run,
    plan: Plan,
    model: Model | None,
    judge: Judge,
    config: RunConfig,
    on_progress: OnProgress | None,
    stop: asyncio.Event | None,
    *,
    texts: Mapping[str, str] | None = None,
    budget: Budget | None = None,
    close_judge: bool = True,
    kept: Checkpoint | None = None,
) -> Run:
    """One stretch of work on a run, recorded in its manifest however it ends.

    Without a `model` it is judged again: `judge` joins the run's judges, `texts` holds answers by
    unit that the run withheld and that are known from elsewhere. `budget` is shared with others;
    so is a judge that is not to be closed. `kept` is a checkpoint that was loaded beforehand.
    """
    from refusalkit.runner import Ended, Runner

    because = "stopped"
    again = model is None
    go_on = "the same command" if again else how_to_resume(run)
    with run.writing() as writer:
        # Read again under the lock: another process may have finished meanwhile.
        run = open_run(run.path)
        operational = {name: getattr(config, name) for name in sorted(OPERATIONAL)}
        session = Session(
            started_at=now(), operational=operational, judge=judge.id if again else None
        )
        earlier = run.manifest.sessions
        begun: dict[str, Any] = {"sessions": (*earlier, session)}
        if again:
            begun["judges"] = joined_judges(run, judge)
        run = run.with_manifest(run.manifest.model_copy(update=begun))
        runner = Runner(
            run,
            plan,
            model,
            judge,
            config.generation,
            concurrency=config.concurrency,
            max_cost=config.max_cost,
            on_progress=on_progress,
            stop=stop,
            texts=texts,
            canaries=owed_canaries(run, judge, config.canaries),
            budget=budget,
            ceiling_usd=_ceiling(model, plan, config, budget),
            kept=kept,
        )
        failure: BaseException | None = None
        try:
            because = await runner.work(writer)
        except BaseException as error:
            failure = error
            if isinstance(error, asyncio.CancelledError):
                because = Ended.INTERRUPTED
                error.add_note(f"go on with: {go_on}")
            elif isinstance(error, RefusalkitError):
                because = f"failed: {type(error).__name__}"
                if not is_untouched(run):
                    error.add_note(f"go on with: {go_on}")
            raise
        finally:
            if model is not None:
                await model.aclose()
            if close_judge:
                await judge.aclose()
            ended = session.model_copy(update={"ended_at": now(), "ended_because": str(because)})
            parameters = {**run.manifest.parameters, **_all_parameters(model, judge)}
            update = {"sessions": (*earlier, ended), "parameters": parameters}
            try:
                run = run.with_manifest(run.manifest.model_copy(update=update))
            except StorageError as error:
                # On a full disk this fails too: what ended the work says more, and how to go on.
                if failure is None:
                    error.add_note(f"go on with: {go_on}")
                    raise
    return run


def _ceiling(
    model: Model | None, plan: Plan, config: RunConfig, budget: Budget | None
) -> float | None:
    """The most that one answer can cost, where there is a bound to hold and the model knows it."""
    if config.max_cost is None and budget is None:
        return None
    of = getattr(model, "ceiling_usd", None)
    _, prompts = next(iter(plan()), (1, ()))
    return None if of is None else cast("float | None", of(prompts, config.generation))


def _all_parameters(model: Model | None, judge: Judge) -> dict[str, ParameterEntry]:
    """What was sent: to the ``model``, to the run's own ``judge``, to ``judge <id>`` of others."""
    from refusalkit.judges.composed import asked_judges

    asked = asked_judges(judge)
    if model is not None and asked == (judge,):
        return {"model": _parameters(model), "judge": _parameters(judge)}
    found = {} if model is None else {"model": _parameters(model)}
    return {**found, **{f"judge {part.id}": _parameters(part) for part in asked}}


def _parameters(part: Any) -> ParameterEntry:
    log = getattr(part, "parameters", None)
    if log is None:
        return ParameterEntry()
    # What was sent is the provider's JSON already; a schema is covered by the judge's digest.
    left = ("response_format", "output_config")
    sent = {name: value for name, value in log.sent.items() if name not in left}
    return ParameterEntry(sent=json.loads(json.dumps(sent, default=str)), dropped=dict(log.dropped))


def open_configured_model(config: RunConfig, pacers: Pacers | None = None) -> Model:
    """The model that a configuration names; errors as `open_model`.

    Runs that share `pacers` keep the pace of one endpoint together: `ConfigurationError` where
    they ask for different limits.
    """
    from refusalkit.models import Pacer, open_model, own_base

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
    from refusalkit.models import price_at

    paid = [(config.model, config.api_base, config.via)] if asks_model else []
    judges = [rubric for rubric in rubrics if rubric is not None and rubric.kind == "llm"]
    paid.extend((rubric.model, config.judge_api_base, config.judge_via) for rubric in judges)
    for model_id, base, via in paid:
        if not model_id.startswith("demo/") and price_at(model_id, base, via) is None:
            raise ConfigurationError(
                f"the price of {printable(model_id)} is unknown, so --max-cost cannot hold: leave "
                "it out, or bound the run with --limit"
            )


def continued_run(path: Path, manifest: Manifest) -> Run:
    """The grade run at `path` if it is this very one, a new one if there is none."""
    if not holds_run(path):
        return create_run(path, manifest)
    there = open_run(path)
    if there.manifest.kind != "grade":
        raise RunFolderError(f"{printable(path)} holds a run: choose another --out")
    check_unchanged(there.manifest.run_config, RunConfig.model_validate(manifest.config))
    if there.manifest.prompt_set != manifest.prompt_set:
        raise ConfigurationChanged(f"records: not the ones that {printable(path)} was graded from")
    # Judged again, it has more judges than it began with.
    theirs = {name: there.manifest.judges.get(name) for name in manifest.judges}
    if there.manifest.judge != manifest.judge or theirs != manifest.judges:
        raise ConfigurationChanged(f"judge: not the one that {printable(path)} was graded by")
    return there


def is_untouched(run: Run) -> bool:
    """Whether nothing was recorded yet."""
    return not run.completions.stat().st_size and not run.verdicts.stat().st_size


def new_manifest(
    config: RunConfig,
    prompts: PromptSet,
    judge: Judge,
    *,
    kind: str,
    units: RecordedAnswers | None = None,
) -> Manifest:
    """What a new run is, before its first request."""
    counts: Counter[str] = Counter()
    contrast: Counter[str] = Counter()
    framed: Counter[str] = Counter()
    planned: Counter[str] = Counter()
    framings: dict[str, FramedEntry] = {}
    asked = Counter(prompt.id for prompt, _ in units.units) if units is not None else None
    for prompt in prompts.prompts:
        slug, times = prompt.category, config.trials if asked is None else asked[prompt.id]
        if prompt.twin is not None:
            contrast[slug] += 1
        elif prompt.framing is not None and prompt.frame_of is not None:
            framed[slug] += 1
            framings[prompt.id] = FramedEntry(
                framing=prompt.framing, frame_of=prompt.frame_of, category=slug, n_units=times
            )
        else:
            counts[slug] += 1
            planned[slug] += times
    n_units = len(prompts) * config.trials if units is None else len(units.units)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    imported = units is not None and judge.id.startswith("imported")
    return Manifest.model_validate(
        {
            "schema_version": 1,
            "kind": kind,
            "id": f"{stamp}-{slug_of(config.model)}-{secrets.token_hex(2)}",
            "refusalkit": importlib.metadata.version("refusalkit"),
            "python": platform.python_version(),
            "packages": _versions(),
            "config": config.model_dump(mode="json"),
            "config_digest": config.digest,
            "prompt_set": PromptSetEntry(
                name=prompts.name,
                version=prompts.version,
                digest=prompts.digest,
                licence=prompts.licence,
                source=prompts.source,
                selection=dict(prompts.selection),
                n_prompts=len(prompts),
                twins=dict(prompts.twins),
                framed=framings,
                parts=tuple(PartEntry.model_validate(asdict(part)) for part in prompts.parts),
                danger={p.id: p.danger for p in prompts.prompts if p.danger is not None},
                categories=tuple(
                    CategoryEntry(
                        slug=category.slug,
                        title=category.title,
                        hard_line=category.hard_line,
                        n_prompts=counts[category.slug],
                        n_units=planned[category.slug],
                        n_contrast=contrast[category.slug],
                        n_framed=framed[category.slug],
                    )
                    for category in prompts.categories
                ),
            ),
            "trials": config.trials,
            "n_units": n_units,
            "judge": judge.id,
            "judges": judge_entries(judge, kind="recorded" if imported else "custom"),
            "hard_line_text": "kept" if config.keep_hard_line_text else "withheld",
            "languages": dict(Counter(prompt.lang for prompt in prompts.prompts)),
        }
    )


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
