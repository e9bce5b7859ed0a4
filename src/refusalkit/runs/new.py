"""The manifest of a new run, and the grade run that a repeated command continues."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusalkit.config.resolve import check_unchanged
from refusalkit.config.run_config import RunConfig, Shard
from refusalkit.errors import ConfigurationChanged, RunFolderError
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.pressure import shipped_script
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run, create_run, holds_run, open_run, refuse_link
from refusalkit.runs.judge_entries import judge_entries
from refusalkit.runs.manifest import (
    CategoryEntry,
    FramedEntry,
    Manifest,
    PartEntry,
    PressureEntry,
    PromptSetEntry,
    ShardEntry,
)
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.judges.protocol import Judge
    from refusalkit.runs.imported.answers import RecordedAnswers


_PACKAGES = (
    *("litellm", "anthropic", "aiohttp", "pydantic", "polars", "jsonlines"),
    *("torch", "transformers"),  # where a classifier judges
)


def continued_run(path: Path, manifest: Manifest) -> Run:
    """The grade run at `path`, or a new one if there is none.

    Raises `ConfigurationChanged` if it was started with other settings, answers or judges, and
    `RunFolderError` if it is not a grade run.
    """
    if not holds_run(path):
        return create_run(path, manifest)
    refuse_link(path)
    there = open_run(path)
    if there.manifest.kind != "grade":
        raise RunFolderError(f"{printable(path)} holds a run: choose another --out")
    check_unchanged(there.manifest.run_config, RunConfig.model_validate(manifest.config))
    if there.manifest.prompt_set != manifest.prompt_set:
        raise ConfigurationChanged(f"records: not the ones that {printable(path)} was graded from")
    # After a regrade it has more judges than it began with.
    theirs = {name: there.manifest.judges.get(name) for name in manifest.judges}
    if there.manifest.judge != manifest.judge or theirs != manifest.judges:
        raise ConfigurationChanged(f"judge: not the one that {printable(path)} was graded by")
    return there


def is_untouched(run: Run) -> bool:
    """Whether nothing has been recorded yet."""
    return not run.completions.stat().st_size and not run.verdicts.stat().st_size


def new_manifest(
    config: RunConfig,
    prompts: PromptSet,
    judge: Judge,
    *,
    kind: str,
    units: RecordedAnswers | None = None,
) -> Manifest:
    """The manifest of a new run, before its first request."""
    asked = Counter(prompt.id for prompt, _ in units.units) if units is not None else None
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
            **_planned(prompts, config.trials, asked),
            "shard": _shard_entry(prompts, config),
            "trials": config.trials,
            "judge": judge.id,
            "judges": judge_entries(judge, kind="recorded" if imported else "custom"),
            "hard_line_text": "kept" if config.keep_hard_line_text else "withheld",
            "pressure": _pressure(config.pressure) if kind == "run" else None,
        }
    )


def _pressure(turns: int) -> PressureEntry | None:
    script = shipped_script()
    if not turns:
        return None
    return PressureEntry(
        script=script.name, version=script.version, digest=script.digest, turns=turns
    )


def _shard_entry(prompts: PromptSet, config: RunConfig) -> ShardEntry | None:
    if config.shard is None or prompts.whole is None:
        return None
    number, of = Shard.parse(config.shard)
    whole = _planned(prompts.whole, config.trials, None)
    return ShardEntry.model_validate({"number": number, "of": of, **whole})


def _planned(prompts: PromptSet, trials: int, asked: Mapping[str, int] | None) -> dict[str, Any]:
    """The manifest's fields that follow from the prompts: prompt_set, n_units, languages.

    `asked` has the number of planned units by prompt id, if it is not `trials` for all.
    """
    counts: Counter[str] = Counter()
    contrast: Counter[str] = Counter()
    framed: Counter[str] = Counter()
    planned: Counter[str] = Counter()
    framings: dict[str, FramedEntry] = {}
    for prompt in prompts.prompts:
        slug, times = prompt.category, trials if asked is None else asked[prompt.id]
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
    languages = dict(Counter(prompt.lang for prompt in prompts.prompts))
    entry = PromptSetEntry(
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
        tags={p.id: tuple(p.tags) for p in prompts.prompts if p.tags},
        languages={p.id: p.lang for p in prompts.prompts} if len(languages) > 1 else {},
        translations={
            p.id: p.translation_of for p in prompts.prompts if p.translation_of is not None
        },
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
    )
    n_units = len(prompts) * trials if asked is None else sum(asked.values())
    return {"prompt_set": entry, "n_units": n_units, "languages": languages}


def _versions() -> Mapping[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
