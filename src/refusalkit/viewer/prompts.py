"""The texts of a run's prompts, where they are still to be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refusalkit.api.grading import graded_records
from refusalkit.errors import RefusalkitError
from refusalkit.prompts.fetch import from_cache_only
from refusalkit.runs.folder import Run
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.types import Prompt


@dataclass(frozen=True)
class KnownPrompts:
    """Prompts by id, and the categories that the prompt set itself calls hard lines.

    `missing` says in a sentence why there are none.
    """

    by_id: Mapping[str, Prompt]
    hard_lines: frozenset[str]
    missing: str | None = None


def read_prompts(run: Run) -> KnownPrompts:
    """The prompts that a run asked; nothing is fetched from the network for them."""
    manifest = run.manifest
    try:
        with from_cache_only():
            if manifest.kind == "run":
                beside = run.path.absolute().parent
                found = same_prompts(manifest, manifest.run_config, None, beside=beside)
            else:
                found = graded_records(run).prompts
    except RefusalkitError as error:
        return KnownPrompts({}, frozenset(), missing=str(error))
    return KnownPrompts({prompt.id: prompt for prompt in found}, found.hard_lines)
