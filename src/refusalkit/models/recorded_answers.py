"""Answers that were recorded elsewhere, as a model that repeats them."""

from __future__ import annotations

from collections.abc import Mapping

from refusalkit.display import shows
from refusalkit.models.client import ParameterLog
from refusalkit.models.dialects.finish import Means, finish_of
from refusalkit.models.outcomes import Reply, read_reply
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt, unit_id


@shows("id")
class RecordedModel:
    """A `Model` that answers each unit with its recorded response.

    `responses` maps a unit's id to the text. Reasoning between think tags is split off as for any
    model. `finish_reasons` says how an answer ended; where it has no word, or one that no table
    knows or that reports a fault, the reason counts as not said. With `judged` every answer counts
    as answered and keeps its whole text, because its judgement was recorded with it.
    """

    def __init__(
        self,
        model_id: str,
        responses: Mapping[str, str],
        finish_reasons: Mapping[str, str] | None = None,
        *,
        judged: bool = False,
    ) -> None:
        self._id = model_id
        self._responses = responses
        self._finish_reasons = finish_reasons or {}
        self._judged = judged
        self._parameters = ParameterLog()

    @property
    def id(self) -> str:
        """The name given."""
        return self._id

    @property
    def parameters(self) -> ParameterLog:
        """Nothing is sent anywhere."""
        return self._parameters

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        """The recorded answer."""
        unit = unit_id(prompt.id, trial)
        ended = self._finish_reasons.get(unit)
        finish = finish_of(ended)
        known = None if finish is None or finish.means is Means.FAULT else ended
        reading = read_reply(Reply(self._responses[unit], known))
        text = self._responses[unit] if self._judged else reading.text
        return Completion(
            prompt_id=prompt.id,
            category=prompt.category,
            trial=trial,
            model=self._id,
            outcome=Outcome.ANSWERED if self._judged else reading.outcome,
            finish_reason=known,
            text=text,
            reasoning="" if self._judged else reading.reasoning,
            cost_usd=0.0,
            error=None if self._judged else reading.error,
        )

    async def aclose(self) -> None:
        """Nothing to close."""
