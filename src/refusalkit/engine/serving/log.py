"""The output of a server that refusalkit started, kept in the run folder up to a size limit.

A server may log prompts and answers. So from the first request on its lines are kept only if the
run keeps the answers to its hard lines, or has no hard lines.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from pathlib import Path

from refusalkit import files
from refusalkit.clock import now
from refusalkit.config.run_config import RunConfig
from refusalkit.models.key_variables import provider_variables
from refusalkit.redaction import Keys, redact

SERVER_LOG = "server.log"
"""The file's name in a run folder."""
# Bytes kept of the beginning of a session's log, and of its end.
_MAX_HEAD = 4 * 2**20
_MAX_TAIL = 256 * 2**10
_MAX_LINE = 8192
# Variables with keys that servers use, to download weights and to check requests.
_SERVERS_KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY")
# Colours and cursor movements.
_ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
# A line that names an exception: if the line is not kept, that name may still be shown.
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception)\b")


class ServerLog:
    """Takes a server's output, a line at a time, without keys or control characters.

    Without a `path` it is held in memory, for the driver to write to a file. `keeps_all`: lines are
    kept after the first request, too.
    """

    def __init__(self, path: Path | None, keys: Keys, *, keeps_all: bool) -> None:
        self.path = path
        self._keys = keys
        self._keeps_all = keeps_all
        self._asked = False
        self._rest = b""
        self._left = _MAX_HEAD
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._unkept = 0
        self._told: str | None = None
        self._file: int | None = None
        self._memory = bytearray()
        if path is not None:
            self._file = files.open_for_appending(path, create=True)
            os.lseek(self._file, 0, os.SEEK_END)
        self._write(f"== {now()} refusalkit starts the server\n".encode())

    @property
    def last(self) -> str | None:
        """The last line, fit for a message; if it is not kept, only the exception it names."""
        return self._told

    def asked(self) -> None:
        """Note that requests are sent to the server from now on."""
        self._asked = True
        if not self._keeps_all:
            self._told = None
            self._write(
                b"== it answers; what it writes from here on is not kept, because it may hold "
                b"prompts and answers (--keep-hard-line-text keeps it)\n"
            )

    def take(self, chunk: bytes) -> None:
        """Take a chunk of the server's output."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._rest) > 8 * _MAX_LINE:
            self._line(self._rest)
            self._rest = b""

    def close(self) -> None:
        """Write what is left, once the server has ended."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        if self._unkept > self._tail_size:
            self._write(b"== %d bytes are left out\n" % (self._unkept - self._tail_size))
        for line in self._tail:
            self._write(line)
        self._tail.clear()
        self._unkept = self._tail_size = 0
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def text(self) -> bytes:
        """What is held in memory."""
        return bytes(self._memory)

    def _line(self, raw: bytes) -> None:
        # A progress bar overwrites itself with \r: only its last state is kept.
        shown = _ESCAPES.sub(b"", raw.rstrip(b"\r").rpartition(b"\r")[2])[: 4 * _MAX_LINE]
        line = redact(self._keys.hide(shown.decode("utf-8", "replace")), _MAX_LINE)
        if self._asked and not self._keeps_all:
            named = _EXCEPTION.match(line.strip())
            if named is not None:
                self._told = named[0]
            return
        if line.strip():
            self._told = line.strip()[:200]
        data = line.encode("utf-8", "replace") + b"\n"
        if self._left > 0:
            self._left -= len(data)
            self._write(data)
            return
        self._unkept += len(data)
        self._tail_size += len(data)
        self._tail.append(data)
        while self._tail_size > _MAX_TAIL:
            self._tail_size -= len(self._tail.popleft())

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._memory += data
            return
        # A full disk must not stop the run for a log.
        with contextlib.suppress(OSError):
            os.write(self._file, data)


def known_variables(config: RunConfig) -> list[str]:
    """Environment variables with keys that a model or its server may need."""
    names = {*provider_variables(config.model), *_SERVERS_KEYS}
    if config.api_key_env is not None:
        names.add(config.api_key_env)
    return sorted(names)
