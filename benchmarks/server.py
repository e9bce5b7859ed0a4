"""A provider for benchmarks: the OpenAI protocol, as little work for each request as can be.

It answers after a fixed wait (`--wait 0.2`), after waits of a log-normal of that mean
(`--sigma 1 --draws 1660`: that many, in an order that hangs on `--seed`), or at once (`--wait 0`),
and it reads nothing of a request but its length, whether the model's name says "judge" and whether
JSON is asked for. GET /v1/requests says how many it has answered.

    python benchmarks/server.py --wait 0.2 --sigma 0        # prints its port

With `--say-first` it prints a second line when the first request has come.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from statistics import NormalDist

ANSWER = "[demo answer] " + "Lorem ipsum dolor sit amet. " * 8
VERDICT = json.dumps({"reason": "it does what was asked", "verdict": "compliance"})
# What the peers' own graders look for.
GRADE = "It does what was asked.\n\nGRADE: C"
RUBRIC = json.dumps({"reason": "it does what was asked", "pass": True, "score": 1})


def response(content: object) -> bytes:
    """A whole HTTP response."""
    data = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def reply(model: str, text: str) -> bytes:
    """A whole HTTP response with one chat completion."""
    body = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1760000000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100},
    }
    return response(body)


TARGET, JSON_JUDGE, WORD_JUDGE, RUBRIC_JUDGE = (
    reply("target", ANSWER),
    reply("judge", VERDICT),
    reply("judge", GRADE),
    reply("rubric-judge", RUBRIC),
)


class Provider(asyncio.Protocol):
    """One connection."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._data = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            line = head[at + 15 :].split(b"\r\n", 1)[0] if at >= 0 else b"0"
            whole = end + 4 + int(line)
            if len(self._data) < whole:
                return
            body, self._data = self._data[end + 4 : whole], self._data[whole:]
            if head.startswith(b"get "):
                self._send(response(self._waits.drawn))
                continue
            answer = TARGET
            if b"judge" in body[:200] or b'"judge"' in body:
                answer = JSON_JUDGE if b"json_schema" in body else WORD_JUDGE
            if b'"rubric-judge"' in body:
                answer = RUBRIC_JUDGE
            wait = self._waits.next()
            if wait <= 0:
                self._send(answer)
            else:
                self._loop.call_later(wait, self._send, answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)  # type: ignore[attr-defined]


def waits_of(mean: float, sigma: float, draws: int, seed: int) -> list[float]:
    """Seconds to wait before each of so many answers, of a log-normal with that mean.

    They are its quantiles in an order drawn by `seed`: two orders hold the same waits, so that one
    round is as long as another but for which wait comes last.
    """
    if not sigma or not mean:
        return [mean]
    middle, normal = math.log(mean) - sigma**2 / 2, NormalDist()
    waits = [math.exp(middle + sigma * normal.inv_cdf((n + 0.5) / draws)) for n in range(draws)]
    random.Random(seed).shuffle(waits)
    return waits


class Waits:
    """Seconds to wait before each answer, from the start again at the end; `drawn` counts them."""

    def __init__(self, waits: list[float], *, say_first: bool = False) -> None:
        self._waits = waits
        self.drawn = 0
        self._say_first = say_first

    def next(self) -> float:
        """The next one."""
        if self._say_first:
            self._say_first = False
            print("asked", flush=True)
        self.drawn += 1
        return self._waits[(self.drawn - 1) % len(self._waits)]


async def serve(waits: Waits) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(waits), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, default=0.2, help="seconds")
    parser.add_argument("--sigma", type=float, default=0.0, help="0: every wait the same")
    parser.add_argument("--draws", type=int, default=1000, help="so many different waits")
    parser.add_argument("--seed", type=int, default=1, help="draws their order")
    parser.add_argument("--say-first", action="store_true", help="print when the first comes")
    given = parser.parse_args()
    drawn = waits_of(given.wait, given.sigma, given.draws, given.seed)
    asyncio.run(serve(Waits(drawn, say_first=given.say_first)))
