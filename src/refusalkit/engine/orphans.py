"""Retracts verdicts whose completion was lost.

After a power loss one of a run's two record files may lack records that the other needs. The model
is then asked again, and a verdict on the lost answer must not count for the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from refusalkit.types import Prompt, Unscored, Verdict


def retractions(prompt: Prompt, trial: int, judges: Iterable[str]) -> Iterator[Verdict]:
    """A verdict without a label from each judge that judged the lost answer."""
    for judge in judges:
        yield Verdict(
            prompt_id=prompt.id,
            category=prompt.category,
            trial=trial,
            judge=judge,
            unscored=Unscored.ERROR,
            source="provider",
            reason="the answer that was judged is gone",
            cost_usd=0.0,
        )
