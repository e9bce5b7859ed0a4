"""Every exception refusalkit raises, with the exit code the command line gives it.

    RefusalkitError
    ├── UsageError                    2  the call, or a file it names, is wrong
    │   ├── PromptSetError            2  a prompt set has mistakes (all of them are listed)
    │   ├── JudgeFileError            2  a judge file has mistakes
    │   ├── RecordError               2  a record file holds a line that is not such a record
    │   └── RunFolderError            2  not a run, or a run that cannot be used this way
    ├── ConfigurationError            4  a configuration that cannot be run
    │   ├── ConfigurationChanged      4  resume was asked to go on with something else
    │   ├── FolderNotTrusted          4  somebody else's run folder says where requests go
    │   ├── MissingKeyError           4  no API key is set for a model that needs one
    │   └── RetiredModelError         4  the provider no longer serves this model
    ├── DownloadError                 4  a public prompt set could not be fetched
    ├── StorageError                  4  the disk is full, read-only or failing
    ├── RunLocked                     4  another process is writing this run
    ├── Interrupted                   3  stopped by the user before the work was done
    └── ProviderError                 4  an endpoint did not answer as it should
        ├── TransientError               worth asking again (408, 409, 429, 5xx, no connection)
        ├── UnsupportedParameter         the model does not take one parameter
        ├── RequestError                 this one request failed for good
        │   └── ModerationError          the provider's filter answered: outcome `blocked`
        └── FatalProviderError        4  no request can succeed: wrong key, unknown model, no credit

A `ProviderError` that concerns one request becomes that unit's outcome (`blocked` for a
`ModerationError`, else `error`); of provider errors only a `FatalProviderError` stops a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack


def one_sentence(error: BaseException) -> list[str]:
    """An error as the lines that IPython shows: its name, its text, and how to go on."""
    told = "; ".join([str(error), *getattr(error, "__notes__", ())])
    return [f"{type(error).__name__}: {told}"]


class RefusalkitError(Exception):
    """Base of all refusalkit exceptions. Its text is one sentence that says what to do.

    A notebook shows that sentence without a traceback; `traceback.print_exc()` prints it whole.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return one_sentence(self)


class UsageError(RefusalkitError):
    """The call, or a file that it names, is wrong."""


class PromptSetError(UsageError):
    """A prompt set has mistakes.

    `mistakes` holds one line for each, as ``file:line: field: what is wrong``.
    """

    def __init__(self, summary: str, mistakes: Sequence[str] = ()) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n  ".join([summary, *self.mistakes]))


class JudgeFileError(UsageError):
    """A judge file is missing, malformed or contradicts itself."""


class RecordError(UsageError):
    """A record file holds a line that cannot be read as the record it should be."""


class RunFolderError(UsageError):
    """A path is not a run folder, or the run cannot be used for what was asked."""


class ConfigurationError(RefusalkitError):
    """A configuration that cannot be run: no key, unknown option value, unknown price."""


class ConfigurationChanged(ConfigurationError):
    """A run cannot be resumed because something it was started with has changed."""


class FolderNotTrusted(ConfigurationError):
    """A run folder that somebody else may have written says where requests go or with what key."""


class MissingKeyError(ConfigurationError):
    """No API key is set for a model that needs one; the text names the variable."""


class RetiredModelError(ConfigurationError):
    """The provider has retired this model; the text names its successor."""


class DownloadError(RefusalkitError):
    """A public prompt set could not be fetched: gated, moved, too large, or no network."""


class StorageError(RefusalkitError):
    """The file system refused a write; what was written before stays readable."""


class RunLocked(RefusalkitError):
    """Another process is writing this run."""


class Interrupted(RefusalkitError):
    """The user stopped the work at once, without waiting for what was in flight."""


class _Details(TypedDict, total=False):
    """The keyword arguments that every `ProviderError` takes."""

    detail: str | None
    status: int | None
    code: str | None


class ProviderError(RefusalkitError):
    """An endpoint did not answer as it should.

    `status` is the HTTP status or None, `code` the provider's own error code or type or None.
    `detail` holds the provider's own words, kept apart because they may repeat text that must not
    be written to disk. `attempts` counts how many times the request was sent. `usage` is the
    `Usage` that unreadable replies reported, or None.
    """

    attempts = 1
    usage: Any = None

    def __init__(
        self,
        summary: str,
        *,
        detail: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        self.summary = summary
        self.detail = detail
        self.status = status
        self.code = code
        super().__init__(f"{summary}: {detail}" if detail else summary)


class TransientError(ProviderError):
    """The same request may succeed later.

    `retry_after` is how long the provider asks to wait, in seconds, or None. `unreachable`: no
    connection could be made. `limit` names the rate limit that is used up, where the provider says
    which.
    """

    unreachable = False
    limit: str | None = None

    def __init__(
        self, summary: str, *, retry_after: float | None = None, **said: Unpack[_Details]
    ) -> None:
        self.retry_after = retry_after
        super().__init__(summary, **said)


class UnsupportedParameter(ProviderError):
    """The model does not take `parameter`; the request can go again without it."""

    def __init__(self, summary: str, parameter: str, **said: Unpack[_Details]) -> None:
        self.parameter = parameter
        super().__init__(summary, **said)


class RequestError(ProviderError):
    """This request failed and asking again would not help."""


class ModerationError(RequestError):
    """The provider's filter refused the request or the answer: the outcome is `blocked`.

    `category` is the provider's own name for what it saw, or None.
    """

    def __init__(
        self, summary: str, *, category: str | None = None, **said: Unpack[_Details]
    ) -> None:
        self.category = category
        super().__init__(summary, **said)


class FatalProviderError(ProviderError):
    """No request of this run can succeed: wrong key, unknown model, no credit, no endpoint."""
