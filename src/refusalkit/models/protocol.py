"""What a model under test does."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from refusalkit.models.client import ParameterLog
from refusalkit.types import Completion, GenerationConfig, Prompt


@runtime_checkable
class Model(Protocol):
    """A model under test. Implement these to put anything under test.

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

        Failures are outcomes, not exceptions, but for `FatalProviderError`: no request can succeed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
