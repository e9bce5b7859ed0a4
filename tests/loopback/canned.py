"""A provider on 127.0.0.1 that gives one reply to everyone, byte for byte.

`LoopbackServer` is scripted and words its replies itself; this one says what it was given, for
replies that somebody met in the wild.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Canned:
    """A reply: status, headers, and a body. An exception is a connection that breaks."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Canned:
        """A reply of JSON."""
        return cls(status, json.dumps(value).encode())


class CannedServer:
    """`reply` is given each request's body and path, in any thread.

    `requests` are the bodies so far, `paths` the paths.
    """

    def __init__(self, reply: Callable[[dict[str, Any], str], Canned]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        outer = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(raw)
                outer.requests.append(asked)
                outer.paths.append(self.path)
                said = reply(asked, self.path)
                headers = {"Content-Type": "application/json", **said.headers}
                self.send_response(said.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> CannedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
