"""What a run needs before and around its work: opened parts, a manifest, one session on record."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusalkit.config import OPERATIONAL, RunConfig, check_unchanged
from refusalkit.datasets.tables import slug_of
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    RefusalkitError,
    RunFolderError,
)
from refusalkit.prompts import load_prompts, select
from refusalkit.rubrics import Rubric, load_rubric
from refusalkit.store import (
    CategoryEntry,
    JudgeEntry,
    Manifest,
    ParameterEntry,
    PartEntry,
    PromptSetEntry,
    Run,
    Session,
    create_run,
    holds_run,
    open_run,
)
from refusalkit.types import PromptSet, now
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.datasets.answers import RecordedAnswers
    from refusalkit.judges import Judge
    from refusalkit.models import Model
    from refusalkit.runner import OnProgress, Plan

_PACKAGES = (
    *("litellm", "anthropic", "aiohttp", "pydantic", "polars", "jsonlines", "scipy"),
    *("torch", "transformers"),  # where a classifier judges
)


def how_to_resume(run: Run) -> str:
    """The command that goes on with a run."""
    path = printable(run.path, 400)
    quoted = shlex.quote(path)
    if run.manifest.kind == "grade":
        return f"the same command with --out {quoted}"
    return f"refusalkit resume {quoted}"


def choose_prompts(config: RunConfig, prompts: PromptSet | None = None) -> PromptSet:
    """The prompts that a configuration asks: its set, its hard lines, its filters."""
    whole = prompts or load_prompts(
        config.prompts, hard_lines=config.hard_line, inversion=config.inversion
    )
    return select(
        whole,
        categories=config.category,
        tags=config.tag,
        danger=config.danger,
        limit=config.limit,
        seed=config.limit_seed,
    )


async def work_session(
    run: Run,
    plan: Plan,
    model: Model,
    judge: Judge,
    config: RunConfig,
    on_progress: OnProgress | None,
    stop: asyncio.Event | None,
) -> Run:
    """One stretch of work on a run, recorded in its manifest however it ends."""
    from refusalkit.runner import Ended, Runner

    because = "stopped"
    with run.writing() as writer:
        # Read again under the lock: another process may have finished meanwhile.
        run = open_run(run.path)
        operational = {name: getattr(config, name) for name in sorted(OPERATIONAL)}
        session = Session(started_at=now(), operational=operational)
        earlier = run.manifest.sessions
        run = run.with_manifest(run.manifest.model_copy(update={"sessions": (*earlier, session)}))
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
        )
        try:
            because = await runner.work(writer)
        except asyncio.CancelledError as error:
            because = Ended.INTERRUPTED
            error.add_note(f"go on with: {how_to_resume(run)}")
            raise
        except RefusalkitError as error:
            because = f"failed: {type(error).__name__}"
            if not is_untouched(run):
                error.add_note(f"go on with: {how_to_resume(run)}")
            raise
        finally:
            await model.aclose()
            await judge.aclose()
            ended = session.model_copy(update={"ended_at": now(), "ended_because": str(because)})
            parameters = {"model": _parameters(model), "judge": _parameters(judge)}
            update = {"sessions": (*earlier, ended), "parameters": parameters}
            run = run.with_manifest(run.manifest.model_copy(update=update))
    return run


def _parameters(part: Any) -> ParameterEntry:
    log = getattr(part, "parameters", None)
    if log is None:
        return ParameterEntry()
    # What was sent is the provider's JSON already; a schema is covered by the judge's digest.
    left = ("response_format", "output_config")
    sent = {name: value for name, value in log.sent.items() if name not in left}
    return ParameterEntry(sent=json.loads(json.dumps(sent, default=str)), dropped=dict(log.dropped))


def open_configured_model(config: RunConfig) -> Model:
    """The model that a configuration names; errors as `open_model`."""
    from refusalkit.models import open_model

    return open_model(
        config.model,
        api_base=config.api_base,
        api_key_env=config.api_key_env,
        via=config.via,
        rpm=config.rpm,
        max_retries=config.max_retries,
        connections=config.concurrency,
    )


def open_configured_judge(
    config: RunConfig, judge: str | Judge | None, *, source: str | None = None
) -> tuple[Rubric | None, Judge]:
    """The judge to use, with its rubric unless it is an object of the caller's.

    `source` is where a run's manifest says the judge's file lies.
    """
    from refusalkit.judges import open_judge

    if judge is not None and not isinstance(judge, str):
        return None, judge
    rubric = load_rubric(source or config.judge_name, model=config.judge_model)
    opened = open_judge(
        rubric,
        api_base=config.judge_api_base,
        api_key_env=config.judge_api_key_env,
        via=config.judge_via,
        rpm=config.judge_rpm,
        max_retries=config.max_retries,
        timeout_s=config.timeout_s,
    )
    return rubric, opened


def check_budget(config: RunConfig, asks_model: bool, rubric: Rubric | None) -> None:
    """A budget that cannot be counted is refused before anything is spent."""
    if config.max_cost is None:
        return
    from refusalkit.models.prices import price_of

    paid = [(config.model, config.api_base)] if asks_model else []
    if rubric is not None and rubric.kind == "llm":
        paid.append((rubric.model, config.judge_api_base))
    for model_id, base in paid:
        if not model_id.startswith("demo/") and (base or price_of(model_id) is None):
            raise ConfigurationError(
                f"the price of {printable(model_id)} is unknown, so --max-cost cannot hold: leave "
                "it out, or bound the run with --limit"
            )


def same_prompts(manifest: Manifest, config: RunConfig, given: PromptSet | None) -> PromptSet:
    """The prompts that a run was started with. Raises `ConfigurationChanged` if they are others."""
    entry = manifest.prompt_set
    if given is None and entry.source is None:
        raise ConfigurationError(
            f"the prompts of {printable(manifest.id)} were built in Python: resume it from Python, "
            "with prompts="
        )
    whole = given or load_prompts(
        str(entry.source), hard_lines=config.hard_line, inversion=config.inversion
    )
    chosen = choose_prompts(config, whole)
    if chosen.digest != entry.digest:
        raise ConfigurationChanged(
            f"prompts: {printable(entry.source or entry.name)} has changed since the run was "
            f"started (it was {entry.digest}): start a new run to use it"
        )
    return chosen


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
    if there.manifest.judges != manifest.judges:
        raise ConfigurationChanged(f"judge: not the one that {printable(path)} was graded by")
    return there


def is_untouched(run: Run) -> bool:
    """Whether nothing was recorded yet."""
    return not run.completions.stat().st_size and not run.verdicts.stat().st_size


def new_manifest(
    config: RunConfig,
    prompts: PromptSet,
    judge: Judge,
    rubric: Rubric | None,
    *,
    kind: str,
    units: RecordedAnswers | None = None,
) -> Manifest:
    """What a new run is, before its first request."""
    counts: dict[str, int] = {}
    contrast: dict[str, int] = {}
    for prompt in prompts.prompts:
        into = counts if prompt.twin is None else contrast
        into[prompt.category] = into.get(prompt.category, 0) + 1
    planned = {slug: count * config.trials for slug, count in counts.items()}
    if units is not None:
        planned = dict.fromkeys(counts, 0)
        for prompt, _ in units.units:
            planned[prompt.category] += 1
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    entry = JudgeEntry(
        name=judge.id,
        kind="custom" if units is None or not judge.id.startswith("imported") else "recorded",
        digest=getattr(judge, "digest", None),
        graded=bool(getattr(judge, "graded", True)),
    )
    if rubric is not None:
        entry = JudgeEntry(
            name=rubric.name,
            source=rubric.source,
            version=rubric.version,
            digest=rubric.digest,
            kind=rubric.kind,
            model=rubric.model or None,
            graded=rubric.is_graded,
        )
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
                parts=tuple(PartEntry.model_validate(asdict(part)) for part in prompts.parts),
                categories=tuple(
                    CategoryEntry(
                        slug=category.slug,
                        title=category.title,
                        hard_line=category.hard_line,
                        n_prompts=counts.get(category.slug, 0),
                        n_units=planned.get(category.slug, 0),
                        n_contrast=contrast.get(category.slug, 0),
                    )
                    for category in prompts.categories
                ),
            ),
            "trials": config.trials,
            "n_units": sum(planned.values()) + len(prompts.twins) * config.trials,
            "judge": judge.id,
            "judges": {judge.id: entry},
            "hard_line_text": "kept" if config.keep_hard_line_text else "withheld",
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
