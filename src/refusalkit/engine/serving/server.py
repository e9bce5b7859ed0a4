"""Starts the user's server command on this machine, waits for it, watches it and ends it.

The server runs in its own process group under `guard.py`, which ends the group when this process
ends, for whatever reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import shlex
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from refusalkit.engine.serving.log import ServerLog
from refusalkit.errors import ConfigurationError, FatalProviderError
from refusalkit.models.endpoints import is_loopback
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import aiohttp

# Seconds between SIGTERM and SIGKILL, and seconds until a warning that a start is slow.
GRACE_S = 10.0
_SLOW_S = 15.0
_POLL_S = 0.1
_MAX_POLL_S = 1.0
_PORTS = range(20_000, 32_000)
_GUARD = Path(__file__).with_name("guard.py")
# Shell syntax: pipes, redirections and the like.
_SHELL = re.compile(r"\d*(?:[|&;]+|[<>]{1,2}&?\d*|>{1,2}\S+)")

_LOG = logging.getLogger("refusalkit")


def command_words(command: str) -> list[str]:
    """The words of a command. Raises `ConfigurationError` if it needs a shell or is malformed."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"serve: the command cannot be read: {error}") from error
    if not words:
        raise ConfigurationError("serve is empty: name the server's command")
    if any(_SHELL.fullmatch(word) for word in words):
        raise ConfigurationError(
            "serve: no shell reads the command, so it cannot hold | & ; < or >: write sh -c '...'"
        )
    if re.match(r"[A-Za-z_]\w*=", words[0]):
        raise ConfigurationError(
            "serve: no shell reads the command: set a variable with env NAME=VALUE before it"
        )
    return words


class OwnServer:
    """A server that a command starts on a port of this machine.

    In the command ``{model}`` is replaced by `model` and ``{port}`` by the port: that of `base`,
    the URL below which the server answers, or else a free one.
    """

    def __init__(
        self,
        command: str,
        model: str,
        *,
        base: str | None = None,
        wait_s: float = 1200.0,
    ) -> None:
        if not hasattr(os, "killpg"):
            raise ConfigurationError(
                "serve needs process groups, which this system does not have: start the server "
                "yourself and give --api-base"
            )
        words = command_words(command)
        names_port = any("{port}" in word for word in words)
        if base is None:
            if not names_port:
                raise ConfigurationError(
                    "serve does not say where the server listens: write {port} in its command, or "
                    "give --api-base, such as http://127.0.0.1:8000/v1"
                )
            self._port = _free_port()
            base = f"http://127.0.0.1:{self._port}/v1"
        else:
            self._port = _port_of(base)
        self.base = base.rstrip("/")
        """The URL below which it answers."""
        self._words = [
            word.replace("{port}", str(self._port)).replace("{model}", model) for word in words
        ]
        self._wait_s = wait_s
        self._variables: dict[str, str] = {}
        self._guard: asyncio.subprocess.Process | None = None
        self._log: ServerLog | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def set_variable(self, name: str, value: str) -> None:
        """Set an environment variable of the server, before it is started."""
        self._variables[name] = value

    async def start(self, log: ServerLog) -> None:
        """Start it and wait until it answers; its output goes to `log`.

        Raises `ConfigurationError` if it cannot be started, ends, or does not answer in time.
        """
        if _answers(self._port):
            raise ConfigurationError(
                f"serve: something answers at port {self._port} already: end it, or write {{port}} "
                "in the command, without --api-base, for a free one"
            )
        self._log = log
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done once the server has ended; says how."""
        status, theirs = os.pipe()
        try:
            self._guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_GUARD), str(theirs), str(GRACE_S), *self._words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,
                env={**os.environ, **self._variables},
            )
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        self._tasks = [
            asyncio.create_task(self._read(self._guard)),
            asyncio.create_task(self._wait(self._guard, status)),
        ]
        try:
            await self._until_it_answers()
        except BaseException:
            await self.aclose()
            raise
        log.asked()

    async def aclose(self) -> None:
        """End it: SIGTERM to its group, SIGKILL after a while."""
        guard, self._guard = self._guard, None
        if guard is None or self._log is None:
            return
        if guard.stdin is not None:
            guard.stdin.close()
        try:
            await asyncio.wait({self.ended}, timeout=GRACE_S + 2.0)
        finally:
            _kill_group(guard.pid)
            # Its last output may still be in the pipe; a process that left the group may keep the
            # pipe open.
            await asyncio.wait(self._tasks, timeout=1.0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._log.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await guard.wait()  # reaped

    def failure(self) -> FatalProviderError:
        """Why no request can succeed, once it has ended."""
        error = FatalProviderError(f"the server of --serve ended: {self.ended.result()}")
        if self._log is not None and self._log.path is not None:
            error.add_note(f"its log: {printable(self._log.path, 400)}")
        return error

    async def _read(self, guard: asyncio.subprocess.Process) -> None:
        assert self._log is not None
        assert guard.stdout is not None
        while chunk := await guard.stdout.read(2**16):
            self._log.take(chunk)

    async def _wait(self, guard: asyncio.subprocess.Process, status: int) -> None:
        """Wait for its end, which the guard reports on `status`; if the guard dies, that closes."""
        assert self._log is not None
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        loop.add_reader(status, told.set)
        try:
            await told.wait()
            said = os.read(status, 100).decode()
        finally:
            loop.remove_reader(status)
            os.close(status)
        _kill_group(guard.pid)  # it may have been killed before its server
        await asyncio.wait({self._tasks[0]}, timeout=0.5)
        how = _how(said, self._words[0])
        if self._log.last is not None and not said.startswith("not started"):
            how += f", and last said: {self._log.last}"
        self.ended.set_result(how)

    async def _until_it_answers(self) -> None:
        import aiohttp  # here, because it is slow to import and only --serve needs it

        began = time.monotonic()
        told, pause = False, _POLL_S
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=5.0), cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                if not self.ended.done() and await self._is_ready(session):
                    # Make sure that no other program answered, having taken the port meanwhile.
                    await asyncio.wait({self.ended}, timeout=0.05)
                    if not self.ended.done():
                        return
                if self.ended.done():
                    raise ConfigurationError(
                        f"the server of --serve ended before it answered: {self.ended.result()}"
                    )
                waited = time.monotonic() - began
                if waited >= self._wait_s:
                    last = self._log.last if self._log is not None else None
                    said = f", and last said: {last}" if last else ""
                    raise ConfigurationError(
                        f"the server of --serve did not answer within {self._wait_s:g} s at "
                        f"{self.base}{said}; --serve-wait waits longer"
                    )
                if waited >= _SLOW_S and not told:
                    told = True
                    _LOG.warning(
                        "the server of --serve does not answer yet; waiting up to %g s",
                        self._wait_s,
                    )
                await asyncio.wait({self.ended}, timeout=min(pause, self._wait_s - waited))
                pause = min(pause * 1.3, _MAX_POLL_S)

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        """Whether it reports that it is ready: by /health, or by /models if it has no /health.

        /models alone would be too early: llama.cpp's server answers it while it loads.
        """
        import aiohttp

        root = urlsplit(self.base)
        try:
            health = f"{root.scheme}://{root.netloc}/health"
            async with session.get(health, allow_redirects=False) as answer:
                if answer.status not in (404, 405, 501):
                    return _is_up(answer.status)
            async with session.get(f"{self.base}/models", allow_redirects=False) as answer:
                return _is_up(answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _is_up(status: int) -> bool:
    # 401 and 403: it is up, and wants the key that the requests will carry.
    return 200 <= status < 300 or status in (401, 403)


def _how(said: str, program: str) -> str:
    """How a server ended, in words, from the guard's report."""
    word, _, number = said.rpartition(" ")
    if word == "not started":
        why = os.strerror(int(number)) if number != "0" else "it could not be started"
        if int(number) in (2, 13):
            why += ": install it, or give its path"
        return f"{printable(program)}: {why}"
    if word != "ended":
        return "it was killed together with what watches it"
    code = int(number)
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _free_port() -> int:
    # Below the ephemeral ports, so that no connection takes it before the server starts.
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("serve: no free port was found on this machine")


def _port_of(base: str) -> int:
    parts = urlsplit(base)
    if not is_loopback(base) or parts.port is None:
        raise ConfigurationError(
            f"serve starts a server on this machine, and --api-base {printable(base)} is not one: "
            "write http://127.0.0.1:PORT/v1, or leave it out and write {port} in the command"
        )
    return parts.port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
