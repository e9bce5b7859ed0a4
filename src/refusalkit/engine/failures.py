"""Ends a run whose requests keep failing."""

from __future__ import annotations

from refusalkit.errors import FatalProviderError

# This many failures in a row mean that the endpoint is down.
_MAX_AT_START = 5
_MAX = 40


class FailureStreak:
    """Counts requests that failed in a row, the judge's and the model's together."""

    def __init__(self) -> None:
        self._length = 0
        self._succeeded = False
        self._told: dict[str, str] = {}

    def end(self, *, succeeded: bool = False) -> None:
        """A request did not fail. `succeeded`: a unit of the plan was answered and judged."""
        self._length = 0
        self._succeeded = self._succeeded or succeeded

    def note(self, what: str | None, detail: str | None) -> None:
        """Count a failure; `detail` holds the provider's words, None if they are withheld.

        Raises `FatalProviderError` when the limit is reached, which is lower before the first
        success.
        """
        self._length += 1
        what = what or "error"
        if detail is not None:
            # Later failures of this kind whose detail is withheld are reported with this one's.
            self._told[what] = f"{what}: {detail}"
        what = self._told.get(what, what)
        if self._length >= (_MAX if self._succeeded else _MAX_AT_START):
            raise FatalProviderError(
                f"{self._length} requests in a row failed, the last with: {what}; fix the cause"
            )
