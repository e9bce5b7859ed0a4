"""The protocol of a model under test."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from refusalkit.models.client import ParameterLog
from refusalkit.types import Completion, GenerationConfig, Prompt


@runtime_checkable
class Model(Protocol):
    """A model under test. Implement these methods to test anything that answers prompts.

    `id` names it in records. `parameters` says what was sent and what was left out.
    """

    @property
    def id(self) -> str: ...

    @property
    def parameters(self) -> ParameterLog: ...

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        """Answer one prompt once.

        Failures are outcomes, not exceptions. The exception is `FatalProviderError`: no request
        can succeed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
