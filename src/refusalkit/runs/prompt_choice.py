"""The prompts that a configuration selects, and those that a run was started with."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

from refusalkit.config.run_config import RunConfig, Shard
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    PromptSetError,
    RefusalkitError,
    UsageError,
)
from refusalkit.prompts.draw import DRAW
from refusalkit.prompts.framings import part_of, with_framings
from refusalkit.prompts.load import load_prompts, shipped_sets
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest
from refusalkit.untrusted import printable


def choose_prompts(
    config: RunConfig,
    prompts: PromptSet | None = None,
    *,
    source: str | None = None,
    draw_version: int = DRAW,
) -> PromptSet:
    """The prompts that a configuration selects by its set, hard lines, filters and framings.

    `prompts` replaces the configured set, `source` its name. `draw_version` is the version of the
    random draw that the run uses (`prompts.draw`).
    """
    whole = whole_set(config, prompts, source=source)
    chosen = whole.select(
        category=config.category,
        tag=config.tag,
        danger=config.danger,
        limit=config.limit,
        seed=config.limit_seed,
        draw_version=draw_version,
    )
    if config.stop_when is not None:
        chosen = chosen.only_hard_lines()
    if config.framings:
        framed = with_framings(chosen, config.framings)
        # A resume derives them again from the same source; parts are recorded as before a filter.
        parts = (*(whole.parts or (part_of(whole),)), framed.parts[-1])
        chosen = replace(framed, source=whole.source, parts=parts)
    return chosen if config.shard is None else chosen.shard(*Shard.parse(config.shard))


def whole_set(
    config: RunConfig, prompts: PromptSet | None = None, *, source: str | None = None
) -> PromptSet:
    """The set that a configuration names, with its hard lines, before any filter."""
    if prompts is None:
        return load_prompts(
            source or config.prompts,
            hard_lines=config.hard_line,
            inversion=config.inversion,
            lang=config.lang,
        )
    if (config.inversion, config.lang) != (None, None):
        name = "an inversion" if config.inversion is not None else "a language"
        raise UsageError(f"{name} is for a set that is loaded: give it to load_prompts")
    return prompts.with_hard_lines(config.hard_line) if config.hard_line else prompts


def draw_of(manifest: Manifest) -> int:
    """The version of the random draw by which a run's prompts were chosen."""
    version = manifest.prompt_set.selection.get("draw", 1)
    return version if isinstance(version, int) else 1


def marked_hard_lines(run: Run) -> frozenset[str]:
    """The hard lines that a run's manifest names and, of a stranger's, its shipped sets too.

    Such a folder may call ordinary what its set calls a hard line.
    """
    manifest = run.manifest
    named = () if run.is_own else str(manifest.config.get("prompts")).split(",")
    sets = (load_prompts(name) for name in named if name in shipped_sets())
    return manifest.hard_lines.union(*(each.hard_lines for each in sets))


def same_prompts(
    manifest: Manifest,
    config: RunConfig,
    given: PromptSet | None,
    *,
    source: str | None = None,
    beside: Path | None = None,
) -> PromptSet:
    """The prompts that a run was started with. Raises `ConfigurationChanged` if they have changed.

    `source` is their new place, if the user gave one. `beside` is the run's folder, which may have
    been moved together with the prompts.
    """
    entry = manifest.prompt_set
    if source is not None:
        return _prompts_at(source, manifest, config)
    if given is None and entry.source is None:
        raise ConfigurationError(
            f"the prompts of {printable(manifest.id)} were built in Python: resume it from Python, "
            "with prompts="
        )
    if given is None and is_gone(entry.source):
        name = Path(config.prompts)
        near = () if beside is None else (beside / name, beside / name.name)
        for place in (name, *near):
            # A file of that name counts only if its prompts have the recorded digest.
            with contextlib.suppress(RefusalkitError):
                return _prompts_at(str(place), manifest, config)
    chosen = choose_prompts(config, given, source=entry.source, draw_version=draw_of(manifest))
    if chosen.digest != entry.digest:
        raise ConfigurationChanged(
            f"prompts: {printable(entry.source or entry.name)} has changed since the run was "
            f"started (it was {entry.digest}): start a new run to use it"
        )
    return chosen


def without_inversion(chosen: PromptSet, config: RunConfig) -> frozenset[str]:
    """The selected categories that would be hard lines without the configured inversion.

    An inversion may take hard lines away.
    """
    if config.inversion is None or chosen.source is None:
        return frozenset()
    with contextlib.suppress(RefusalkitError):
        plain = load_prompts(chosen.source, hard_lines=config.hard_line)
        return plain.hard_lines & {prompt.category for prompt in chosen.prompts}
    return frozenset()


def is_gone(source: str | None) -> bool:
    """Whether a prompt set's source is an absolute path that no longer exists."""
    return source is not None and Path(source).is_absolute() and not Path(source).exists()


def _prompts_at(source: str, manifest: Manifest, config: RunConfig) -> PromptSet:
    """A run's prompts, read from a new place; the manifest keeps the old one."""
    try:
        chosen = choose_prompts(config, source=source, draw_version=draw_of(manifest))
        if chosen.digest == manifest.prompt_set.digest:
            return chosen
        why = chosen.digest
    except PromptSetError:
        raise
    except UsageError as error:  # the run's filters do not fit them
        why = str(error)
    raise ConfigurationChanged(
        f"prompts is {printable(json.dumps(source), 200)} ({why}), but the run was started "
        f"with {printable(json.dumps(config.prompts), 200)} ({manifest.prompt_set.digest}): start "
        "a new run to change it"
    )
