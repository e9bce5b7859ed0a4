"""The protocol of a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from refusalkit.types import Completion, Prompt, Verdict, Via

if TYPE_CHECKING:
    from refusalkit.models.pacing import Pacer
    from refusalkit.models.request_form import RequestForm


@runtime_checkable
class Judge(Protocol):
    """Labels answers. Implement these methods to use any grader as a judge.

    `id` names the judge in records: judges that judge differently need different ids.
    """

    @property
    def id(self) -> str: ...

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Label one completion whose outcome is `answered` or `truncated`.

        Failures are verdicts without a label. Raises `FatalProviderError` where no request can
        succeed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """How a judge reaches the model that it asks, if it asks one.

    `share_form` returns what is known of the form that the endpoint takes; `finish_words` are
    meanings of finish words, as for `open_model`. `batched`: its requests will go in batches.
    """

    pacer: Pacer
    api_base: str | None = None
    api_key_env: str | None = None
    via: Via | None = None
    timeout_s: float = 600.0
    share_form: Callable[[RequestForm], RequestForm] | None = None
    finish_words: Sequence[str] = ()
    batched: bool = False
