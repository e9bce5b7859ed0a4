"""The texts of a run's prompts, where their set can still be opened."""

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
    """Prompts by id, and the categories that the prompt set itself marks as hard lines.

    `missing` says in a sentence why there are no prompts, None where there are.
    """

    by_id: Mapping[str, Prompt]
    hard_lines: frozenset[str]
    missing: str | None = None
    serial: int = field(default_factory=itertools.count().__next__, compare=False)
    """A number that no other `KnownPrompts` of this process has."""

    @cached_property
    def _lower(self) -> pl.DataFrame:
        texts = [prompt.text.lower() for prompt in self.by_id.values()]
        return pl.DataFrame(
            {"prompt_id": list(self.by_id), "text": texts},
            schema={"prompt_id": pl.String, "text": pl.String},
        )

    def saying(self, words: str) -> pl.Series:
        """The ids of the prompts whose text contains `words`, ignoring case."""
        hit = pl.col("text").str.contains(words.lower(), literal=True)
        return self._lower.filter(hit)["prompt_id"]


def read_prompts(run: Run) -> KnownPrompts:
    """The prompts that a run asked, without access to the network."""
    try:
        with from_cache_only():
            found = asked_prompts(run)
    except RefusalkitError as error:
        return KnownPrompts({}, frozenset(), missing=str(error))
    return KnownPrompts({prompt.id: prompt for prompt in found}, found.hard_lines)
