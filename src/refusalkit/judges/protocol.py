"""What a judge is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from refusalkit.types import Completion, Prompt, Verdict


@runtime_checkable
class Judge(Protocol):
    """Labels answers. Implement these to put any grader to work.

    `id` names the judge in records: one id, one way of judging.
    """

    @property
    def id(self) -> str: ...

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Label one completion whose outcome is `answered` or `truncated`.

        Failures are verdicts without a label, but for `FatalProviderError`: no request can succeed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
