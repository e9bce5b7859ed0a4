"""Run folders written by hand, so that what a command prints of them is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from refusalkit.config.run_config import RunConfig
from refusalkit.runs.folder import Run, create_run
from refusalkit.runs.manifest import CategoryEntry, JudgeEntry, Manifest, PromptSetEntry
from refusalkit.scoring.judge_quality.calibration import Calibration
from refusalkit.types import Completion, Label, Outcome, Unscored, Verdict

JUDGE = "graded:anthropic/claude-sonnet-5-5"
AT = "2026-11-23T10:15:00.000Z"
HARD_LINES = ("suicide-and-self-harm", "minor-specific-harm")

# A letter for each trial: what became of it. `-`: it never came back.
_LABELS = {letter: Label(name) for letter, name in zip("rdpc", map(str, Label), strict=True)}

HELD = {
    "fraud-and-scams-01": "rrr",
    "fraud-and-scams-02": "rcc",
    "fraud-and-scams-03": "cpd",
    "weapons-01": "ccc",
    "weapons-02": "rdc",
    "suicide-and-self-harm-01": "rrr",
    "suicide-and-self-harm-02": "rdr",
    "minor-specific-harm-01": "rbr",
    "minor-specific-harm-02": "rrr",
}
CROSSED = {**HELD, "suicide-and-self-harm-02": "rpc"}
UNFINISHED = {**HELD, "weapons-02": "ue-", "minor-specific-harm-02": "rr-"}


def write_run(
    folder: Path,
    answers: Mapping[str, str] = HELD,
    *,
    hard_lines: tuple[str, ...] = HARD_LINES,
    titles: Mapping[str, str] | None = None,
    run_id: str = "handmade",
) -> Run:
    """A run whose prompts are the keys of `answers`, filed under the id without its number."""
    trials = max(map(len, answers.values()))
    config = RunConfig(model="openai/gpt-6-luna", prompts="handmade", trials=trials)
    slugs = list(dict.fromkeys(name.rpartition("-")[0] for name in answers))
    counts = {slug: sum(n.rpartition("-")[0] == slug for n in answers) for slug in slugs}
    manifest = Manifest(
        schema_version=1,
        kind="run",
        id=run_id,
        refusalkit="0.1.0",
        python="3.11.0",
        packages={},
        config=config.model_dump(mode="json"),
        config_digest=config.digest,
        prompt_set=PromptSetEntry(
            name="handmade",
            version="1.0.0",
            digest="sha256:" + "0" * 64,
            licence="CC-BY-4.0",
            source=None,
            selection={},
            n_prompts=len(answers),
            categories=tuple(
                CategoryEntry(
                    slug=slug,
                    title=(titles or {}).get(slug, slug.replace("-", " ").capitalize()),
                    hard_line=slug in hard_lines,
                    n_prompts=counts[slug],
                    n_units=counts[slug] * trials,
                )
                for slug in slugs
            ),
        ),
        trials=trials,
        n_units=len(answers) * trials,
        judge=JUDGE,
        judges={
            JUDGE: JudgeEntry(
                name="graded",
                source="graded",
                version=1,
                digest="sha256:" + "1" * 64,
                kind="llm",
                model="anthropic/claude-sonnet-5-5",
            )
        },
        hard_line_text="withheld",
    )
    run = create_run(folder, manifest)
    with run.writing() as writer:
        for prompt_id, letters in answers.items():
            for trial, letter in enumerate(letters, 1):
                if letter != "-":
                    completion, verdict = _unit(prompt_id, trial, letter)
                    writer.completion(completion)
                    if verdict is not None:
                        writer.verdict(verdict)
    return run


def write_calibration(path: Path) -> None:
    """A calibration of the judge of these runs: sensitivity 0.9, specificity 0.8 for a refusal."""
    r, p, c = Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE
    cells = {r: {r: 90, c: 10}, p: {r: 10, c: 10}, c: {r: 10, c: 70}}
    judge = {"id": JUDGE, "name": "graded", "version": 1, "digest": "sha256:" + "1" * 64}
    calibration = Calibration.model_validate(
        {
            "refusalkit": "0.1.0",
            "made_at": AT,
            "judge": {**judge, "kind": "llm", "model": "anthropic/claude-sonnet-5-5"},
            "labels": [{"name": "l.jsonl", "sha256": "0", "n_records": 200, "n_labelled": 200}],
            "languages": {"en": 200},
            "n_labelled": 200,
            "n_scored": 200,
            "unscored": {},
            "cells": cells,
            "prompts": [
                {"times": n, "cells": {truth: {said: 1}}}
                for truth, row in cells.items()
                for said, n in row.items()
            ],
        }
    )
    path.write_text(calibration.model_dump_json(by_alias=True), encoding="utf-8")


def _unit(prompt_id: str, trial: int, letter: str) -> tuple[Completion, Verdict | None]:
    category = prompt_id.rpartition("-")[0]
    outcome = {"b": Outcome.BLOCKED, "e": Outcome.ERROR}.get(letter, Outcome.ANSWERED)
    completion = Completion(
        prompt_id=prompt_id,
        category=category,
        trial=trial,
        model="openai/gpt-6-luna",
        outcome=outcome,
        finish_reason="stop",
        text="" if letter in "be" else "[placeholder]",
        cost_usd=0.001,
        at=AT,
    )
    if letter == "e":
        return completion, None
    label = Label.REFUSAL if letter == "b" else _LABELS.get(letter)
    verdict = Verdict(
        prompt_id=prompt_id,
        category=category,
        trial=trial,
        judge=JUDGE,
        label=label,
        unscored=Unscored.UNPARSABLE if label is None else None,
        source="provider" if letter == "b" else "judge",
        cost_usd=0.001,
        at=AT,
    )
    return completion, verdict
