"""The real viewer on a real port of loopback, and a client that has its key."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from refusalkit.viewer.serve import listen


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A browser of the user's, without the browser: it keeps the cookie of the viewer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self.url, self.port = url, parts.port
        self.host = f"127.0.0.1:{parts.port}"
        self.key = url.partition("key=")[2]
        let_in = self.send("GET", f"/?key={self.key}", cookie=False)
        self.cookie = let_in.headers["set-cookie"].partition(";")[0]

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        cookie: bool = True,
        **headers: str,
    ) -> Answer:
        """One request; header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            named.setdefault("Cookie", self.cookie)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **query: object) -> Answer:
        asked = urlencode({name: str(value) for name, value in query.items()})
        return self.send("GET", path + (f"?{asked}" if asked else ""))

    def post(self, path: str, data: object, **headers: str) -> Answer:
        given = {"Origin": f"http://{self.host}", "Content_Type": "application/json", **headers}
        return self.send("POST", path, json.dumps(data).encode(), **given)

    def run(self, name: str) -> str:
        """The id of a run, by its folder."""
        return str(next(r["id"] for r in self.get("/api/runs").json["runs"] if r["name"] == name))

    def units(self, run: str, **query: object) -> list[str]:
        """The units of a list, in order."""
        found = self.get(f"/api/run/{run}/units", limit=200, **query).json
        return [row["unit"] for row in found["rows"]]

    def unit(self, run: str, unit: str, **query: object) -> dict[str, Any]:
        found = self.get(f"/api/run/{run}/unit", unit=unit, **query)
        assert found.status == 200, found.text
        return dict(found.json["unit"])

    def raw(self, request: bytes) -> bytes:
        """What comes back for bytes that no client would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as opened:
            opened.sendall(request)
            found = b""
            while piece := opened.recv(65536):
                found += piece
        return found


@contextmanager
def viewer(folder: Path) -> Iterator[Client]:
    """The viewer of the runs in a folder, until the block ends."""
    served = listen(folder, port=free_port())
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    try:
        yield Client(served.url)
    finally:
        served.server.should_exit = True
        thread.join(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unit_path(run: str, unit: str) -> str:
    return f"/run/{run}/read?unit={quote(unit, safe='')}"
