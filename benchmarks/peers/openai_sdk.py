"""The same with the openai SDK on its aiohttp transport.

python openai_sdk.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from openai import AsyncOpenAI, DefaultAioHttpClient
from pipeline import run


async def main(base: str, prompts: int, trials: int, concurrency: int, out: Path) -> None:
    """Ask and judge everything."""
    http = DefaultAioHttpClient()
    async with AsyncOpenAI(base_url=base, api_key="none", http_client=http) as client:

        async def ask(model: str, text: str, **more: object) -> str:
            messages = [{"role": "user", "content": text}]
            done = await client.chat.completions.create(model=model, messages=messages, **more)
            return str(done.choices[0].message.content)

        await run(ask, prompts, trials, concurrency, out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])))
