"""What a good engineer writes in an hour: aiohttp by hand, records written, polars at the end.

python by_hand.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
from pipeline import run


async def main(base: str, prompts: int, trials: int, concurrency: int, out: Path) -> None:
    """Ask and judge everything."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(model: str, text: str, **more: object) -> str:
            body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
            async with session.post(f"{base}/chat/completions", json=body) as response:
                return str((await response.json())["choices"][0]["message"]["content"])

        await run(ask, prompts, trials, concurrency, out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])))
