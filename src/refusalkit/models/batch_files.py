"""Batches as files: requests that the user has answered offline, as by ``vllm run-batch``.

A batch is a file of requests in a folder that the user names; the results are looked for beside it,
under the name that `results_file` gives. Nothing is sent anywhere.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from refusalkit import jsonl
from refusalkit.display import shows
from refusalkit.errors import ConfigurationError, RequestError
from refusalkit.files import lines_of, make_folder, open_file, write_file
from refusalkit.models.batches import BatchLimits, BatchRequest, BatchResult, BatchState
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")
_PREFIX = "files:"
_LABEL = re.compile(r"rk-[0-9a-f]{24}")
_URL = "/v1/chat/completions"
# A results file with fewer lines than requests is still being written, unless nothing was added
# for this long. vLLM writes a hundred lines at a time, in the order of the requests: one slow
# request holds up all behind it.
_STILL_S = 3600.0


def is_in_files(batch_id: str | None) -> bool:
    """Whether a batch is a file of requests, by its id."""
    return batch_id is not None and batch_id.startswith(_PREFIX)


def requests_file(folder: Path, batch_id: str) -> Path:
    """The file of a batch's requests."""
    return folder / f"{_label_of(batch_id)}.jsonl"


def results_file(folder: Path, batch_id: str) -> Path:
    """The file in which a batch's results are looked for."""
    return folder / f"{_label_of(batch_id)}.results.jsonl"


def asked_model(path: Path) -> str:
    """The name of the model that a file of requests asks. Raises `ConfigurationError`."""
    for line in _lines(path):
        return printable(jsonl.from_bytes(line)["body"]["model"])
    raise ConfigurationError(f"{printable(path)} is empty")


@shows("folder")
class BatchFiles:
    """The batches of a run in a folder of the user's."""

    uploads = False
    list_lags = False
    limits = BatchLimits(max_requests=10**9, max_bytes=10**15, price_factor=1.0)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Write the requests. Raises `RequestError` where that is not possible."""
        from refusalkit.models.openai_batches import request_lines

        del on_upload
        batch_id = f"{_PREFIX}{label}"
        path = requests_file(self.folder, batch_id)
        try:
            make_folder(self.folder)
            write_file(path, b"".join(request_lines(requests, _URL)))
        except OSError as error:
            raise RequestError(
                f"{printable(path)} cannot be written: {error.strerror}; name another folder"
            ) from error
        _LOG.warning(
            f"{len(requests)} requests are in {printable(path)}: have them answered into "
            f"{printable(results_file(self.folder, batch_id))}"
        )
        return self._state(batch_id, len(requests))

    async def recent(self, since: float) -> list[BatchState]:
        """The batches whose requests are in the folder."""
        names = [path.stem for path in self.folder.glob("rk-*.jsonl")]
        return [
            self._state(f"{_PREFIX}{name}", None)
            for name in sorted(names)
            if _LABEL.fullmatch(name)
        ]

    async def state(self, batch_id: str) -> BatchState:
        """Whether the results are there. Raises `RequestError` where the requests are not."""
        asked = requests_file(self.folder, batch_id)
        results = results_file(self.folder, batch_id)
        if not asked.is_file():
            raise RequestError(f"{printable(asked)} is not there", status=404)
        if not results.is_file():
            return self._state(batch_id, None)
        wanted = set(_names(asked))
        found = wanted.intersection(_names(results))
        lies_still = time.time() - results.stat().st_mtime > _STILL_S
        return self._state(
            batch_id,
            len(wanted),
            ended=len(found) == len(wanted) or lies_still,
            counts={"answered": len(found)},
        )

    async def results(self, state: BatchState) -> AsyncIterator[BatchResult]:
        """The lines of its results file."""
        from refusalkit.models.openai_batches import read_result

        path = results_file(self.folder, state.id)
        if not path.is_file():
            raise RequestError(f"{printable(path)} is not there", status=404)
        for line in _lines(path):
            if (result := read_result(line)) is not None:
                yield result

    async def cancel(self, batch_id: str) -> BatchState:
        """Nothing is stopped: the user has to stop the program that answers the file."""
        return await self.state(batch_id)

    def _state(
        self,
        batch_id: str,
        n_requests: int | None,
        *,
        ended: bool = False,
        counts: dict[str, int] | None = None,
    ) -> BatchState:
        return BatchState(
            id=batch_id,
            ended=ended,
            status="answered" if ended else "in a file",
            n_requests=n_requests,
            label=_label_of(batch_id),
            counts=counts or {},
        )


def _label_of(batch_id: str) -> str:
    label = batch_id.removeprefix(_PREFIX)
    if not _LABEL.fullmatch(label):
        raise RequestError(f"the batch {printable(batch_id)} is not one in files", status=404)
    return label


def _names(path: Path) -> Iterator[str]:
    """The custom ids in a file of requests or results."""
    for line in _lines(path):
        try:
            name = jsonl.from_bytes(line)["custom_id"]
        except (ValueError, RecursionError, LookupError, TypeError):
            continue
        if isinstance(name, str):
            yield name


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file. Raises `ConfigurationError` where it cannot be read."""
    try:
        with open_file(path) as file:
            yield from lines_of(file)
    except OSError as error:
        raise ConfigurationError(f"{printable(path)} cannot be read: {error.strerror}") from error
