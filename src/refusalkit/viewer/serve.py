"""Serves the viewer on loopback until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import html
import secrets
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import uvicorn

from refusalkit.errors import ConfigurationError
from refusalkit.files import make_folder, write_file
from refusalkit.runs.seal import state_folder
from refusalkit.viewer.app import build_app
from refusalkit.viewer.shelf import Shelf

HOST = "127.0.0.1"
_TURN_S = 0.0005
PORT = 7660
"""The port to use if none is named; where it is taken, any free one is used."""


@dataclass(frozen=True)
class Served:
    """A server that listens already; `run` answers requests. `url` contains the key."""

    server: uvicorn.Server
    listener: socket.socket
    url: str

    def run(self) -> None:
        """Serve until a signal ends it, or `server.should_exit` is set."""
        # Python reads the prompts of a large set in another thread, for which a page must not wait.
        sys.setswitchinterval(_TURN_S)
        with self.listener:
            asyncio.run(self.server.serve(sockets=[self.listener]))


def listen(folder: Path, *, port: int | None = None) -> Served:
    """Listen on loopback for the runs below a folder.

    Raises `ConfigurationError` where the port is taken.
    """
    # Start the threads of polars here: started from a low-priority lane they would inherit that.
    pl.select(pl.lit(0)).lazy().collect()
    key = secrets.token_urlsafe(24)
    listener = _listening(port)
    number = int(listener.getsockname()[1])
    shelf = Shelf(folder)
    one = shelf.all() if shelf.is_one_run else []
    path = f"/run/{one[0].id}" if len(one) == 1 else "/"
    config = uvicorn.Config(
        build_app(shelf, key=key, port=number),
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        http="h11",
        loop="asyncio",
        lifespan="on",
        # Ctrl-C ends it at once: a label is on disk before its request is answered.
        timeout_graceful_shutdown=1,
    )
    return Served(uvicorn.Server(config), listener, f"http://{HOST}:{number}{path}?key={key}")


def open_browser(url: str) -> None:
    """Open an address in the user's browser, in the background."""
    threading.Thread(target=_open, args=(url,), daemon=True).start()


def _listening(port: int | None) -> socket.socket:
    for number in (PORT, 0) if port is None else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind((HOST, number))
            listener.listen(64)
        except OSError as error:
            listener.close()
            if port is not None:
                raise ConfigurationError(
                    f"port {port} cannot be used ({error.strerror}): choose another --port"
                ) from error
        else:
            return listener
    raise ConfigurationError("no port of this machine is free")


def _open(url: str) -> None:
    """Open the address through a private file: a command line can be read by other users."""
    folder = state_folder()
    target = url
    if folder is not None:
        page = (
            '<!doctype html><meta charset="utf-8"><title>refusalkit view</title>'
            f'<meta http-equiv="refresh" content="0;url={html.escape(url)}">'
        )
        with contextlib.suppress(OSError):
            make_folder(folder)
            file = folder / "view.html"
            write_file(file, page.encode(), durable=False)
            target = file.absolute().as_uri()
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(target)
