"""Runs a server for as long as somebody holds the other end of standard input.

A process of its own between refusalkit and a server, started by path with nothing imported but the
standard library: ``python -I guard.py STATUS GRACE COMMAND...``. When standard input ends, because
refusalkit closed it or was killed, the whole process group gets SIGTERM and after GRACE seconds
SIGKILL. When the server ends by itself the descriptor STATUS is told how, and what it left running
in the group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Start the command, and wait for its end or for ours."""
    status, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    # Handlers, as what is ignored stays ignored in the server: the group's signals are for it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the user's own
    except OSError as error:
        os.write(status, f"not started {error.errno or 0}".encode())
        return
    ended = threading.Event()

    def end_when_alone() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGTERM)
        if not ended.wait(grace):
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_when_alone, daemon=True).start()
    code = server.wait()
    ended.set()
    os.write(status, f"ended {code}".encode())
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
