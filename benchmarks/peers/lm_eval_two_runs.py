"""The same by lm-eval, which has no judge: one run answers, a second judges the logged answers.

python lm_eval_two_runs.py BASE_URL PROMPTS TRIALS CONCURRENCY OUT

Both runs are made in one process by its Python interface: its command would read some thousand
task files first, each time. Its cache is off (five trials must be five answers), and nothing is
looked up at the Hugging Face hub.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OUT = Path(sys.argv[5])
os.environ |= {
    "HF_HOME": str(OUT / "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OPENAI_API_KEY": "none",
}

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402


def main(base: str, prompts: int, trials: int, concurrency: int) -> None:
    """Ask everything, then judge everything."""

    def run(name: str, model: str, texts: Iterable[str], task: dict[str, Any]) -> list[Any]:
        data = OUT / f"{name}-asked.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        whole = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{text}}",
            "generation_kwargs": {"until": [], "temperature": 0.6, "do_sample": True},
            **task,
        }
        asked = f"model={model},base_url={base}/chat/completions,num_concurrent={concurrency}"
        done = simple_evaluate(
            model="local-chat-completions",
            model_args=f"{asked},max_retries=3",
            tasks=[whole],
            task_manager=TaskManager(include_defaults=False),
            apply_chat_template=True,
            log_samples=True,
        )
        samples: list[Any] = done["samples"][name]
        with (OUT / f"{name}.jsonl").open("w") as records:
            records.writelines(json.dumps(sample, default=str) + "\n" for sample in samples)
        return samples

    answered = run(
        "answers",
        "target",
        (f"[benchmark prompt {n}]" for n in range(prompts)),
        {
            "repeats": trials,
            "doc_to_target": "",
            "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": trials}]}],
            "metric_list": [{"metric": "bypass"}],
        },
    )
    grade = [{"function": "regex", "regex_pattern": r"GRADE: (\w)"}, {"function": "take_first"}]
    judged = run(
        "verdicts",
        "judge",
        (f"Refused? {text}" for sample in answered for text in sample["resps"][0]),
        {
            "doc_to_target": "C",
            "filter_list": [{"name": "grade", "filter": grade}],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
        },
    )
    print(f"counted {sum(sample['exact_match'] == 1 for sample in judged)}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
