"""The texts of a run's prompts, where they are still to be had."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from refusalkit.api.grading import asked_prompts
from refusalkit.errors import RefusalkitError
from refusalkit.prompts.fetch import from_cache_only
from refusalkit.runs.folder import Run
from refusalkit.types import Prompt


@dataclass(frozen=True)
class KnownPrompts:
    """Prompts by id, and the categories that the prompt set itself calls hard lines.

    `missing` says in a sentence why there are none.
    """

    by_id: Mapping[str, Prompt]
    hard_lines: frozenset[str]
    missing: str | None = None
    serial: int = field(default_factory=itertools.count().__next__, compare=False)
    """Which prompts of this process they are: no two have the same."""

    @cached_property
    def _lower(self) -> pl.DataFrame:
        texts = [prompt.text.lower() for prompt in self.by_id.values()]
        return pl.DataFrame(
            {"prompt_id": list(self.by_id), "text": texts},
            schema={"prompt_id": pl.String, "text": pl.String},
        )

    def saying(self, words: str) -> pl.Series:
        """The ids of the prompts whose text contains some words, whatever their case."""
        hit = pl.col("text").str.contains(words.lower(), literal=True)
        return self._lower.filter(hit)["prompt_id"]


def read_prompts(run: Run) -> KnownPrompts:
    """The prompts that a run asked; nothing is fetched from the network for them."""
    try:
        with from_cache_only():
            found = asked_prompts(run)
    except RefusalkitError as error:
        return KnownPrompts({}, frozenset(), missing=str(error))
    return KnownPrompts({prompt.id: prompt for prompt in found}, found.hard_lines)
