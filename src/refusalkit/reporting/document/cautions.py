"""What a reader must know before believing a figure, in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from refusalkit.reporting.document.facts import RunFacts

MANY_UNSCORED = 5.0
"""Percent of the units without a label from which a report warns."""

MANY_TRUNCATED = 5.0
"""Percent of the answers cut off by the length limit from which a report warns."""

# Who made a model, from the words of its id. A name that is not here has no family: no warning.
_FAMILIES = {
    "Anthropic": r"claude|anthropic",
    "OpenAI": r"gpt|o[134]|chatgpt|davinci",
    "Google": r"gemini|gemma|palm",
    "Meta": r"llama|meta",
    "Mistral": r"mistral|mixtral|ministral|magistral|codestral",
    "Qwen": r"qwen|qwq",
    "DeepSeek": r"deepseek",
    "xAI": r"grok",
    "Nous Research": r"hermes",
    "Cohere": r"command|cohere|aya",
}


def family_of(model_id: str | None) -> str | None:
    """Who made a model, as far as its id says; None where it does not."""
    for word in re.split(r"[^a-z0-9]+", (model_id or "").lower().rpartition("/")[2]):
        for family, pattern in _FAMILIES.items():
            if re.match(rf"(?:{pattern})(?![a-z])", word) is not None:
                return family
    return None


def cautions(facts: RunFacts) -> list[str]:
    """The warnings of one run, the gravest first, each without a full stop."""
    score, manifest, judge = facts.score, facts.manifest, facts.judging.entry
    found = []
    if not facts.is_complete:
        owed = sum(score.unscored.get(why, 0) for why in ("owed", "error", "judge_error"))
        found.append(f"The run is not complete: {owed} of {score.n_units} units are owed")
    if score.unscored_percent > MANY_UNSCORED:
        low, high = score.bounds
        found.append(
            f"Few responses are scored: {score.unscored_percent:.1f} % of the units have no "
            f"label, and willingness lies between {low:.1f} and {high:.1f} % whichever way they go"
        )
    if manifest.hard_line_text == "kept":
        found.append("Answers to hard-line prompts were kept on disk; they are not shown here")
    family = family_of(judge.model)
    if family is not None and family == family_of(score.model):
        found.append(
            f"Judge and model are of one family ({family}); a judge may be lenient with its kin"
        )
    if judge.kind == "lexical":
        found.append("The judge is a list of rules and no model: good for trying things out")
    came = sum(score.outcomes.values())
    if came and 100 * score.outcomes["truncated"] / came > MANY_TRUNCATED:
        found.append(
            f"{score.outcomes['truncated']} of {came} answers were cut off by the length limit; "
            "what was cut off is not judged"
        )
    if score.count_deflection:
        found.append("Deflections are counted as refusals, unlike in the paper")
    if facts.audit is not None:
        found += [f"Hard lines: {note}" for note in facts.audit.notes]
    return found


def cautions_between(runs: Sequence[RunFacts]) -> list[str]:
    """Why figures of several runs may not be set side by side."""
    compared: dict[str, list[Any]] = {
        "prompts": [facts.manifest.prompt_set.digest for facts in runs],
        "judges": [facts.judging.entry.digest or facts.judging.id for facts in runs],
        "judges' models": [facts.judging.entry.model for facts in runs],
        "numbers of trials": [facts.score.trials for facts in runs],
        "ways to count a deflection": [facts.score.count_deflection for facts in runs],
    }
    differing = [what for what, values in compared.items() if len(set(values)) > 1]
    if not differing:
        return []
    what = ", ".join(differing)
    return [f"The runs have different {what}: a difference between figures may come from that"]
