"""What the loopback provider remembers of each request, and the ledger that holds it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import IO, Any


@dataclass(slots=True)
class Exchange:
    """One request and what was decided for it. Written down on arrival, before any answer.

    `expected` is what a correct client records for it if it is final: an outcome (`answered`,
    `truncated`, `no_answer`, `empty`, `blocked`, `error`), for a judge `answered`, `unparsable`,
    `judge_blocked` or `judge_error`; or `retry` where it should ask again. `final` is the same for
    the last attempt: `retry` has become an error.
    """

    n: int  # sequence number, from 0
    at: float  # monotonic seconds
    api: str
    role: str
    model: str
    key: str  # sha256 of the last user message
    ask: int  # how many times this model was asked this before
    params: dict[str, Any]  # the request's parameters, less messages and system
    fault: str | None
    expected: str
    final: str
    status: int | None  # None: the socket is closed without an answer
    in_flight: int  # at arrival, this one included
    in_flight_role: int  # the same among requests of this role
    usage: dict[str, Any] | None  # what the answer says was used; None for errors
    request_id: str
    key_digest: str | None  # first 16 hex digits of sha256 of the API key; never the key
    text: str = field(default="", repr=False)  # the last user message
    system: str | None = field(default=None, repr=False)
    # How it ended: None while in flight; "full", "half" or "dropped" as the script wanted it; or
    # "gone", because the client left first.
    sent: str | None = None

    def as_json(self) -> str:
        """One line for the log file: no message text in it."""
        row = {name: getattr(self, name) for name in _IN_FILE}
        row["system_sent"] = self.system is not None
        return json.dumps(row)


# Message texts, which hold prompts, stay out of the log's file; how a request ends is not yet known
# when its line is written.
_IN_FILE = [f.name for f in fields(Exchange) if f.name not in ("text", "system", "sent")]


class Ledger:
    """All exchanges: in memory, in a file, or only counted.

    The server's own thread writes; readers in other threads get copies of the list.
    """

    def __init__(self, keep: bool = True, file: IO[str] | None = None) -> None:
        self._keep = keep
        self._file = file
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything, ask counters included; the file keeps what it has."""
        with self._lock:
            self.entries: list[Exchange] = []
            self.asks: Counter[tuple[str, str, str]] = Counter()
            self.requests: Counter[str] = Counter()
            self.faults: Counter[str] = Counter()
            self.in_flight: Counter[str] = Counter()
            self.cached: set[tuple[str, str]] = set()
            self.max_in_flight = 0
            self.max_in_flight_by_role: dict[str, int] = {}
            self.n = 0

    @property
    def in_use(self) -> bool:
        """Whether exchanges are kept at all: if not, none need be made."""
        return self._keep or self._file is not None

    def ask_number(self, role: str, model: str, key: str) -> int:
        """How often this was asked before; counts this time."""
        where = (role, model, key)
        number = self.asks[where]
        self.asks[where] = number + 1
        return number

    def cache(self, model: str, text: str) -> dict[str, int]:
        """How many characters of a marked text come from the prompt cache, or go into it."""
        kind = "read" if (model, text) in self.cached else "written"
        self.cached.add((model, text))
        return {kind: len(text)}

    def arrive(self, role: str) -> tuple[int, int, int]:
        """Count a request in: its number, all in flight, those of its role in flight."""
        number, self.n = self.n, self.n + 1
        self.requests[role] += 1
        self.in_flight[role] += 1
        mine, everyone = self.in_flight[role], self.in_flight.total()
        self.max_in_flight = max(self.max_in_flight, everyone)
        if mine > self.max_in_flight_by_role.get(role, 0):
            self.max_in_flight_by_role[role] = mine
        return number, everyone, mine

    def leave(self, role: str) -> None:
        """Count a request out."""
        self.in_flight[role] -= 1

    def write(self, exchange: Exchange) -> None:
        """Remember an exchange, in the file at once."""
        if self._keep:
            self.entries.append(exchange)
        if self._file is not None:
            self._file.write(exchange.as_json() + "\n")
            self._file.flush()

    def snapshot(self) -> list[Exchange]:
        """The exchanges so far."""
        with self._lock:
            return list(self.entries)
