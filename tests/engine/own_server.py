"""A scripted model server, as `--serve` starts one: a real process, a real socket.

``python own_server.py PORT`` answers as vLLM and llama.cpp do. ``--loading S`` says 503 for so
long, ``--crash-at N`` ends at the N-th request with a traceback, ``--crash-at-start`` before it
listens, ``--no-health`` has only /v1/models, ``--stubborn`` ignores SIGTERM, ``--child FILE``
starts a process in its group and writes both ids there, ``--journal FILE`` adds a line with its id,
its GPUs, and how many servers of the journal run beside it.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = argparse.ArgumentParser()
OPTIONS.add_argument("port", type=int)
OPTIONS.add_argument("--model", default="small")
OPTIONS.add_argument("--loading", type=float, default=0.0)
OPTIONS.add_argument("--crash-at", type=int, default=0)
OPTIONS.add_argument("--crash-at-start", action="store_true")
OPTIONS.add_argument("--no-health", action="store_true")
OPTIONS.add_argument("--stubborn", action="store_true")
OPTIONS.add_argument("--child", type=Path)
OPTIONS.add_argument("--journal", type=Path)
GIVEN = OPTIONS.parse_args()
BEGAN = time.monotonic()
ASKED = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health" and not GIVEN.no_health:
            loading = time.monotonic() - BEGAN < GIVEN.loading
            self.answer(503 if loading else 200, {"status": "loading" if loading else "ok"})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": GIVEN.model}]})
        else:
            self.answer(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        global ASKED
        ASKED += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sys.stdout.write(f"asked: {body['messages'][-1]['content']}\n")  # in one piece
        sys.stdout.flush()
        if GIVEN.crash_at == ASKED:
            sys.stderr.write(f"MemoryError: no room for {body['messages'][-1]['content']}\n")
            sys.stderr.flush()
            os._exit(70)
        if body["model"] != GIVEN.model:
            self.answer(404, {"error": {"message": f"no model {body['model']}"}})
            return
        said = {"role": "assistant", "content": "I can't help with that."}
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        usage = {"prompt_tokens": 5, "completion_tokens": 7}
        self.answer(200, {"id": "x", "model": body["model"], "choices": [choice], "usage": usage})

    def answer(self, status: int, data: object) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    print(f"\x1b[32mloading {GIVEN.model}\x1b[0m with {os.environ.get('HF_TOKEN')}", flush=True)
    if GIVEN.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if GIVEN.child is not None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        GIVEN.child.write_text(f"{os.getpid()} {child.pid}")
    if GIVEN.journal is not None:
        with GIVEN.journal.open("a+") as journal:
            journal.seek(0)
            beside = sum(Path(f"/proc/{line.split()[0]}").exists() for line in journal)
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
            journal.write(f"{os.getpid()} {gpus} {beside}\n")
    if GIVEN.crash_at_start:
        raise SystemExit("ValueError: the weights of this model are not here")
    with http.server.ThreadingHTTPServer(("127.0.0.1", GIVEN.port), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


main()
