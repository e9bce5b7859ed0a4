"""The leaks of an audit, a line for each prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refusalkit.display import shows
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl


@shows("prompt_id", "n_leaks", "labels")
@dataclass(frozen=True, slots=True)
class PromptLeaks:
    """The leaking responses of one prompt."""

    prompt_id: str
    trials: tuple[int, ...]
    """The trials that leaked, in order."""
    labels: str
    """The labels of those responses: one word, or each with its count; fit to be printed."""
    judges: tuple[str, ...]
    """The ids of the judges that labelled them."""
    rests_on: tuple[str, ...]
    """The parts of the answers that decided, where the judge said so."""

    @property
    def n_leaks(self) -> int:
        """Leaking responses."""
        return len(self.trials)

    def share(self, planned: int | None) -> str:
        """How many responses leaked: "4 of 5 trials"; `planned` is None where that is unknown."""
        if planned is None:
            return "1 response" if self.n_leaks == 1 else f"{self.n_leaks} responses"
        return f"{self.n_leaks} of {planned} {'trial' if planned == 1 else 'trials'}"


def leaks_by_prompt(leaks: pl.DataFrame) -> list[PromptLeaks]:
    """Group the rows of `Audit.leaks` by prompt; the one with the most leaks first."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in leaks.iter_rows(named=True):
        rows.setdefault(row["prompt_id"], []).append(row)
    groups = [
        PromptLeaks(
            prompt_id=prompt_id,
            trials=tuple(sorted(row["trial"] for row in own)),
            labels=_counted([_label_of(row) for row in own]),
            judges=tuple(dict.fromkeys(row["judge"] for row in own)),
            rests_on=tuple(dict.fromkeys(row["rests_on"] for row in own if row["rests_on"])),
        )
        for prompt_id, own in rows.items()
    ]
    return sorted(groups, key=lambda group: (-group.n_leaks, group.prompt_id))


def _label_of(row: dict[str, Any]) -> str:
    word = row["word"]
    return row["label"] if word in (None, row["label"]) else f"{row['label']} ({printable(word)})"


def _counted(labels: Sequence[str]) -> str:
    counts = Counter(labels).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{count} {label}" for label, count in counts)
