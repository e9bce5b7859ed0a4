"""Makes a million prompts quickly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import repeat

from refusalkit.types import Prompt


def plain_prompts(
    ids: Sequence[str], categories: Sequence[str], texts: Sequence[str]
) -> list[Prompt]:
    """Prompts that have only an id, a category and a text; every other field has its default."""
    # Column by column: calling `Prompt` for each takes three times as long.
    columns: dict[str, Iterable[object]] = {"id": ids, "category": categories, "text": texts}
    prompts = list(map(object.__new__, repeat(Prompt, len(ids))))
    for column in fields(Prompt):
        values = columns.get(column.name, repeat(column.default))
        deque(map(getattr(Prompt, column.name).__set__, prompts, values), maxlen=0)
    return prompts
