"""Runs a server until standard input is closed.

A separate process between refusalkit and the server, run as a script with only the standard
library: ``python -I guard.py STATUS GRACE COMMAND...``. When standard input ends, because
refusalkit closed it or was killed, the whole process group gets SIGTERM and after GRACE seconds
SIGKILL. If the server ends by itself, how it ended is written to the file descriptor STATUS, and
the rest of its process group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Start the command, and wait until it ends or standard input does."""
    status, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    # Handlers, not SIG_IGN: a child inherits ignored signals, and the server must react to them.
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
