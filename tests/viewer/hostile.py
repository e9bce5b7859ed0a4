"""A run folder in which every field that a page shows holds a script."""

from __future__ import annotations

import json
from pathlib import Path

import refusalkit as rk
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import JudgeEntry
from refusalkit.types import Completion, Label, Outcome, Verdict

SCRIPT = "</script><script>document.title='owned';window.owned=1</script>"
IMAGE = '<img src=x onerror="window.owned=1">'
HOSTILE = f"{SCRIPT}{IMAGE}'\"javascript:window.owned=1"
UNIT = f"{HOSTILE}#1"


def write_hostile(folder: Path) -> Run:
    """Prompts, tags, system prompt, answer, reason, ids, category, model and judge, all hostile."""
    rows = [
        {
            "id": "one",
            "prompt": f"[demo] {HOSTILE}",
            "category": f"Plain {HOSTILE}"[:100],
            "tags": [f"t:{HOSTILE}"],
            "system": f"[demo] {HOSTILE}",
        },
        {"id": "two", "prompt": "[demo] two", "category": "other"},
    ]
    folder.mkdir(parents=True)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("\n".join(map(json.dumps, rows)))
    run = rk.benchmark("demo/mixed", prompts, trials=1, out=folder / HOSTILE.replace("/", "_"))
    manifest = run.manifest
    entry = manifest.prompt_set
    categories = tuple(c.model_copy(update={"title": HOSTILE}) for c in entry.categories)
    judge = JudgeEntry(name=HOSTILE, kind="llm", model=HOSTILE)
    run = run.with_manifest(
        manifest.model_copy(
            update={
                "id": HOSTILE,
                "config": {**manifest.config, "model": HOSTILE, "system": HOSTILE},
                "prompt_set": entry.model_copy(
                    update={"categories": categories, "version": HOSTILE}
                ),
                "judge": HOSTILE,
                "judges": {**manifest.judges, HOSTILE: judge},
            }
        )
    )
    category = entry.categories[0].slug
    with run.writing() as writer:
        for prompt_id, kind in (("one", category), (HOSTILE, HOSTILE)):
            writer.completion(
                Completion(
                    prompt_id,
                    kind,
                    1,
                    HOSTILE,
                    Outcome.ANSWERED,
                    text=f"[demo answer] {HOSTILE}\n{SCRIPT}",
                    finish_reason=HOSTILE,
                    served_model=HOSTILE,
                    filter_category=HOSTILE,
                    error_detail=HOSTILE,
                )
            )
            writer.verdict(
                Verdict(
                    prompt_id,
                    kind,
                    1,
                    HOSTILE,
                    label=Label.COMPLIANCE,
                    reason=HOSTILE,
                    word=HOSTILE,
                    rests_on=HOSTILE,
                    answered_by=HOSTILE,
                )
            )
    return run
