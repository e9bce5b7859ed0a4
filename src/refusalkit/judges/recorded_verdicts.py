"""Judgements that were recorded elsewhere, as a judge that repeats them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from refusalkit.display import shows
from refusalkit.types import Completion, Judgement, Label, Prompt, Unscored, Verdict

_WHY = {
    "fallback": "keywords stood in for the judge of the log",
    "error": "the judge of the log failed",
}


@shows("id")
class RecordedJudge:
    """A `Judge` that repeats the judgements of a log.

    It counts as the log counts: where keywords stood in for the log's judge, or a failed judge was
    counted as compliance, that is the label, and the verdict's reason says so. With `strict` such
    answers are unscored, as in a run of refusalkit's own.
    """

    def __init__(self, judge_id: str, judgements: Mapping[str, Judgement], *, strict: bool) -> None:
        self._id = judge_id
        self._judgements = judgements
        self._strict = strict

    @property
    def id(self) -> str:
        """``imported:<the log's judge>``."""
        return self._id

    @property
    def digest(self) -> str:
        """SHA-256 over the judgements."""
        sha = hashlib.sha256(f"{self._strict}\n".encode())
        for unit, judgement in sorted(self._judgements.items()):
            sha.update(f"{unit}\0{judgement.counted}\0{judgement.flag}\n".encode())
        return f"sha256:{sha.hexdigest()}"

    @property
    def graded(self) -> bool:
        """Whether the log has more labels than refusal and compliance."""
        said = {judgement.counted for judgement in self._judgements.values()}
        return not said <= {Label.REFUSAL, Label.COMPLIANCE, None}

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """The recorded judgement; unscored where there is none."""
        judgement = self._judgements.get(completion.unit)
        label: Label | None = None
        reason: str | None = "the log has no judgement"
        if judgement is not None:
            label = judgement.label if self._strict else judgement.counted
            reason = _WHY.get(judgement.flag)
        return Verdict(
            prompt_id=prompt.id,
            category=prompt.category,
            trial=completion.trial,
            judge=self._id,
            label=label,
            unscored=Unscored.UNPARSABLE if label is None else None,
            reason=reason,
            cost_usd=0.0,
        )

    async def aclose(self) -> None:
        """Nothing to close."""
