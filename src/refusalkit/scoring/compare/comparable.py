"""What prevents setting two runs side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.score import Score
from refusalkit.untrusted import printable

# Settings that change a figure and may be what is being compared.
_MAY_DIFFER = (
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "reasoning",
    "system",
    "extra_body",
    "trials",
)


def obstacles(first: Score, second: Score) -> Iterator[str]:
    """Each reason why the difference of two scores would not be one between the models."""
    ours, theirs = first.manifest, second.manifest
    if ours.hard_lines != theirs.hard_lines:
        odd = sorted(ours.hard_lines ^ theirs.hard_lines)
        yield f"the hard lines differ ({_some(odd)} in one run only)"
    if ours.prompt_set.digest != theirs.prompt_set.digest:
        yield f"the prompts differ ({_set_name(ours)} and {_set_name(theirs)})"
    if judge_of(first) != judge_of(second):
        yield (
            f"the judges differ ({_judge_name(first)} and {_judge_name(second)}): judge one run "
            "again with the other's judge, or name one that judged both with --judge"
        )
    presets = [manifest.config.get("preset") for manifest in (ours, theirs)]
    if presets[0] != presets[1]:
        yield f"the presets differ ({' and '.join(printable(p or 'none') for p in presets)})"
    if first.count_deflection != second.count_deflection:
        yield "a deflection counts as refused in one run only (--count-deflection: in both)"


def all_obstacles(scores: Sequence[Score]) -> list[str]:
    """The obstacles between any two of several scores, each once."""
    pairs = itertools.combinations(scores, 2)
    return list(dict.fromkeys(reason for a, b in pairs for reason in obstacles(a, b)))


def judge_of(score: Score) -> tuple[object, ...]:
    """What makes a judge the same: its file's digest, and the model that it asks."""
    entry = score.manifest.judges[score.judge]
    return (entry.kind, entry.digest or entry.name, entry.model)


def configuration_notes(scores: Sequence[Score]) -> list[str]:
    """How the runs' settings differ, a sentence for each."""
    notes = []
    for name in _MAY_DIFFER:
        values = [
            score.trials if name == "trials" else score.manifest.config.get(name)
            for score in scores
        ]
        if any(value != values[0] for value in values):
            # Texts are not shown.
            shown = name in ("system", "extra_body")
            detail = "" if shown else f": {', '.join(printable(v) for v in values)}"
            notes.append(f"the runs differ in {name.replace('_', ' ')}{detail}")
    if len({score.manifest.kind for score in scores}) > 1:
        notes.append("some of these are recorded answers that were graded, others are runs")
    return notes


def _set_name(manifest: Manifest) -> str:
    entry = manifest.prompt_set
    short = printable(entry.digest.removeprefix("sha256:")[:8])
    return f"{printable(entry.name)} {printable(entry.version)}, {entry.n_prompts}, {short}"


def _judge_name(score: Score) -> str:
    digest = (score.manifest.judges[score.judge].digest or "").removeprefix("sha256:")[:8]
    return printable(score.judge) + (f", {printable(digest)}" if digest else "")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
