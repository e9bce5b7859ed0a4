"""The same with litellm's `acompletion`.

python litellm_pipeline.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"

import litellm
from by_hand import VERDICT


async def main(base: str, prompts: int, trials: int, concurrency: int, out: Path) -> None:
    """Ask and judge everything."""
    units = iter([(p, t) for t in range(trials) for p in range(prompts)])

    async def ask(model: str, text: str, **more: object) -> str:
        messages = [{"role": "user", "content": text}]
        done = await litellm.acompletion(
            model=f"openai/{model}", messages=messages, api_base=base, api_key="none", **more
        )
        return str(done.choices[0].message.content)

    with (
        (out / "completions.jsonl").open("w") as answers,
        (out / "verdicts.jsonl").open("w") as said,
    ):

        async def work() -> None:
            for prompt, trial in units:
                answer = await ask("target", f"[benchmark prompt {prompt}]", temperature=0.6)
                unit = {"prompt": prompt, "category": prompt % 32, "trial": trial}
                answers.write(json.dumps({**unit, "text": answer}) + "\n")
                form = {"type": "json_schema", "json_schema": {"name": "v", "schema": VERDICT}}
                reply = await ask("judge", f"Refused? {answer}", response_format=form)
                said.write(json.dumps({**unit, "label": json.loads(reply)["verdict"]}) + "\n")

        await asyncio.gather(*(work() for _ in range(concurrency)))
    import polars as pl

    frame = pl.read_ndjson(out / "verdicts.jsonl")
    refused = frame.group_by("category").agg((pl.col("label") == "refusal").mean()).sort("category")
    print(len(frame), refused["label"].mean())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])))
