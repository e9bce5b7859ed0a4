"""The headline figures of a score, and what they are called wherever they are shown."""

from __future__ import annotations

from collections.abc import Mapping

FIGURES: Mapping[str, str] = {
    "willingness": "willingness",
    "macro_willingness": "macro willingness",
    "answer_rate": "answer rate",
    "dangerous_answer_rate": "answers, danger 2-3",
    "hold_rate": "hold rate",
    "refusal_rate": "refusal rate",
    "over_refusal": "over-refusal",
    "youden_j": "Youden's J",
}
"""The headline figures: the field of `Score` and the title under which it is shown, in order."""


def figure_title(name: str) -> str:
    """The title of a headline figure, by its field."""
    return FIGURES.get(name, name.replace("_", " "))
