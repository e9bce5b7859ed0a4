"""Small run folders written from a table, through the store's own functions.

    run = write_run(folder, [("p1", "ordinary", 1, "answered", "refusal"), ...])

A row is (prompt, category, trial, outcome, word): `word` is a label, or why there is none, or None
where no verdict was written (yet). Categories whose name begins with ``hard`` are hard lines.
Rows are written in their order, so a later row of a unit is a later attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from refusalkit.runs.folder import Run, create_run
from refusalkit.runs.frames import REPORTED, RunRecords
from refusalkit.runs.manifest import Manifest
from refusalkit.types import Completion, Label, Outcome, Unscored, Verdict

Row = tuple[str, str, int, str, str | None]

JUDGE = "graded:test/judge"
TEXT = "[demo answer]"
FROM_PROVIDER = frozenset({Outcome.BLOCKED, Outcome.EMPTY, Outcome.NO_ANSWER, Outcome.ERROR})


def write_run(
    folder: Path,
    rows: Iterable[Row],
    *,
    prompts: Mapping[str, str] | None = None,
    trials: int | None = None,
    kind: str = "run",
    graded: bool = True,
    config: Mapping[str, Any] | None = None,
    twins: Mapping[str, str] | None = None,
    framed: Mapping[str, tuple[str, str]] | None = None,
    selection: Mapping[str, Any] | None = None,
    cut: Collection[str] = (),
) -> Run:
    """A run folder with the records of `rows`.

    `twins` names the contrast prompts among them, each with its prompt; `framed`
    the framed ones, each with its framing and the prompt it frames. `cut` names prompts of whose
    answers the judge was not shown the middle.

    `prompts` maps each prompt that was asked to its category, and `trials` says how often; both
    are read off the rows where they are not given. Of a ``grade`` run the rows are the plan.
    """
    rows = list(rows)
    asked = dict(prompts) if prompts is not None else {row[0]: row[1] for row in rows}
    planned = trials if trials is not None else max((row[2] for row in rows), default=1)
    manifest = _manifest(
        asked, planned, rows, kind, graded, config or {}, twins or {}, framed or {}
    )
    if selection is not None:
        entry = manifest.prompt_set.model_copy(update={"selection": dict(selection)})
        manifest = manifest.model_copy(update={"prompt_set": entry})
    run = create_run(folder, manifest)
    with run.writing() as writer:
        for prompt, category, trial, outcome, word in rows:
            writer.completion(
                Completion(prompt, category, trial, "test/model", Outcome(outcome), text=TEXT)
            )
            if word is not None:
                verdict = _verdict(prompt, category, trial, Outcome(outcome), word)
                writer.verdict(replace(verdict, cut_chars=500 if prompt in cut else 0))
    return run


def spent_usd(run: Run, judges: Collection[str] | None = None) -> float | None:
    """What the requests of a run cost, by its records."""
    return RunRecords(run, REPORTED).spent_usd(judges)


def shuffle_records(run: Run, order: Any) -> None:
    """Write a run's records back in another order; `order` is a `random.Random`."""
    for path in (run.completions, run.verdicts):
        lines = path.read_bytes().splitlines(keepends=True)
        order.shuffle(lines)
        path.write_bytes(b"".join(lines))


def _verdict(prompt: str, category: str, trial: int, outcome: Outcome, word: str) -> Verdict:
    label = Label(word) if word in list(Label) else None
    return Verdict(
        prompt_id=prompt,
        category=category,
        trial=trial,
        judge=JUDGE,
        label=label,
        unscored=None if label else Unscored(word),
        source="provider" if outcome in FROM_PROVIDER else "judge",
        cost_usd=0.0,
    )


def _manifest(
    asked: Mapping[str, str],
    trials: int,
    rows: list[Row],
    kind: str,
    graded: bool,
    config: Mapping[str, Any],
    twins: Mapping[str, str],
    framed: Mapping[str, tuple[str, str]],
) -> Manifest:
    plain = {prompt: category for prompt, category in asked.items() if prompt not in framed}
    in_category = Counter(category for prompt, category in plain.items() if prompt not in twins)
    contrast = Counter(category for prompt, category in asked.items() if prompt in twins)
    units = Counter({category: count * trials for category, count in in_category.items()})
    if kind == "grade":
        units = Counter(category for _, category, _ in {row[:3] for row in rows})
    categories = [
        {
            "slug": slug,
            "title": slug.title(),
            "hard_line": slug.startswith("hard"),
            "n_prompts": in_category[slug],
            "n_units": units[slug],
            "n_contrast": contrast[slug],
            "n_framed": sum(asked[prompt] == slug for prompt in framed),
        }
        for slug in dict.fromkeys(asked.values())
    ]
    return Manifest.model_validate(
        {
            "schema_version": 1,
            "kind": kind,
            "id": "test-run",
            "refusalkit": "0",
            "python": "3",
            "packages": {},
            "config": {"model": "test/model", **config},
            "config_digest": "sha256:0",
            "prompt_set": {
                "name": "test-set",
                "version": "1",
                "digest": "sha256:0",
                "licence": "",
                "source": None,
                "selection": {},
                "n_prompts": len(asked),
                "categories": categories,
                "twins": dict(twins),
                "framed": {
                    prompt: {
                        "framing": framing,
                        "frame_of": bare,
                        "category": asked[prompt],
                        "n_units": trials,
                    }
                    for prompt, (framing, bare) in framed.items()
                },
            },
            "trials": trials,
            "n_units": sum(units.values()) + (sum(contrast.values()) + len(framed)) * trials,
            "judge": JUDGE,
            "judges": {JUDGE: {"name": "graded", "kind": "llm", "graded": graded}},
            "hard_line_text": "withheld",
        }
    )
