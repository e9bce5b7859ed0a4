"""The same as an Inspect task: generate, then a model-graded score.

python inspect_task.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT
"""

from __future__ import annotations

import os
import sys

from inspect_ai import Epochs, Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import model_graded_qa
from inspect_ai.solver import generate


def main(base: str, prompts: int, trials: int, concurrency: int, out: str) -> None:
    """Ask and judge everything."""
    os.environ["OPENAI_API_KEY"] = "none"
    config = GenerateConfig(max_connections=concurrency, temperature=0.6)
    target = get_model("openai/target", base_url=base, config=config, responses_api=False)
    judge = get_model("openai/judge", base_url=base, config=config, responses_api=False)
    samples = [
        Sample(input=f"[benchmark prompt {n}]", target="It answers.", id=n) for n in range(prompts)
    ]
    task = Task(
        dataset=MemoryDataset(samples),
        solver=generate(),
        scorer=model_graded_qa(model=judge),
        epochs=Epochs(trials, "mean"),
    )
    logs = eval(
        task,
        model=target,
        log_dir=out,
        max_samples=concurrency,
        max_connections=concurrency,
        display="none",
    )
    print(logs[0].status, logs[0].results.completed_samples)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
