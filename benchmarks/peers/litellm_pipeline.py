"""The same with litellm's `acompletion`.

python litellm_pipeline.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm
from pipeline import run


async def main(base: str, prompts: int, trials: int, concurrency: int, out: Path) -> None:
    """Ask and judge everything."""

    async def ask(model: str, text: str, **more: object) -> str:
        messages = [{"role": "user", "content": text}]
        done = await litellm.acompletion(
            model=f"openai/{model}", messages=messages, api_base=base, api_key="none", **more
        )
        return str(done.choices[0].message.content)

    await run(ask, prompts, trials, concurrency, out)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])))
