"""Fit the weights of judges/lexical.toml to labelled answers, and say how well that holds up.

    python scripts/fit_lexical.py xstest.jsonl chatgpt_refusals.jsonl [--pull 2] [--write]

Each record has `prompt`, `response`, `label` (refusal, partial or compliance) and, where there is
one, `model`. The question is whether the answer held back at all: anything but compliance. A
logistic regression over the rules by zone and the shapes is fitted with the signs that the kinds of
rules demand. A quadratic penalty pulls it towards values set by hand for the kinds of rules: what
the files do not show must not be unlearned.

Without `--write` nothing is changed. The figures are for the weights as they are, for weights
fitted to everything, and for weights that never saw the prompt (ten folds) or the model (one left
out).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from refusalkit.judges.lexical import LexicalJudge
from refusalkit.judges.lexical_rules import LexicalRules
from refusalkit.types import Label

FILE = Path(__file__).resolve().parents[1] / "judges" / "lexical.toml"
FOLDS = 10
ZONES = ("opening", "early", "later")
# What a rule is worth before any answer is seen: set by hand, by kind, or by name where a kind has
# stronger and weaker rules. A refusal in plain words decides alone in the opening, and hardly
# counts in the tail.
BIAS = -2.2
AIM: dict[str, dict[str, float]] = {
    "refusal": {"opening": 4.2, "early": 2.9, "later": 0.3},
    "objection": {"opening": 2.8, "early": 1.0},
    "objection.unfit": {"opening": 3.2, "early": 1.2},
    "hint.sorry": {"opening": 1.2, "early": 0.4},
    "premise": {"opening": 1.0},
    "moral": {"opening": 0.8, "early": 0.5},
    "role.assistant": {"opening": 0.6},
    "role.opinion": {"opening": 2.0},
    "redirect.change": {"opening": 3.4, "early": 1.0},
    "help.handover": {"opening": -1.5},
    "help.bridge": {"opening": -1.0, "early": -0.7},
    "shape": {"": -1.0},
}


@dataclass(frozen=True)
class Answer:
    """A labelled answer and the features that fired in it."""

    source: str
    model: str
    prompt: str
    response: str
    label: str
    features: frozenset[str]

    @property
    def held(self) -> bool:
        return self.label != "compliance"


def read(paths: Iterable[Path], judge: LexicalJudge) -> list[Answer]:
    """The answers of record files, with the features that fired in them."""
    answers = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            reading = judge.classify(row["response"], row["prompt"])
            features = frozenset(
                e.rule if e.rule.startswith("shape.") else f"{e.rule}:{e.zone}"
                for e in reading.evidence
            )
            model = str(row.get("model"))
            answers.append(
                Answer(path.stem, model, row["prompt"], row["response"], row["label"], features)
            )
    return answers


def features(rules: LexicalRules) -> list[str]:
    """Every weight there is: what no answer shows keeps the value set by hand."""
    by_rule = [f"{rule.name}:{zone}" for rule in rules.rule for zone in ZONES]
    # Kinds of rules that only settle which label it is.
    settled = ("redirect.bridge",)
    own = [name for name in by_rule if not name.startswith(settled)]
    return own + [f"shape.{shape}" for shape in rules.shapes.model_dump()]


def fit(answers: Sequence[Answer], names: Sequence[str], pull: float) -> np.ndarray:
    """The bias and one weight for each name."""
    x = np.array([[1.0, *(name in a.features for name in names)] for a in answers])
    y = np.where([a.held for a in answers], 1.0, -1.0)
    towards, bounds = [BIAS], [(-6.0, 0.0)]
    for name in names:
        rule, _, zone = name.partition(":")
        kind = rule.partition(".")[0]
        towards.append(AIM.get(rule, AIM.get(kind, {})).get(zone, 0.0))
        bounds.append((-6.0, 0.0) if kind in ("help", "shape") else (0.0, 6.0))
    aim = np.array(towards)
    strength = np.full(len(aim), pull)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = y * (x @ w)
        value = np.logaddexp(0, -margin).sum() + 0.5 * (strength * (w - aim) ** 2).sum()
        slope = -(x * (y / (1 + np.exp(margin)))[:, None]).sum(0) + strength * (w - aim)
        return float(value), slope

    return np.asarray(minimize(loss, aim, jac=True, bounds=bounds, method="L-BFGS-B").x)


def with_weights(rules: LexicalRules, names: Sequence[str], weights: np.ndarray) -> LexicalRules:
    """The same rules with other weights, rounded as they are written."""
    value = {name: round(float(w), 1) for name, w in zip(names, weights[1:], strict=True)}
    data = rules.model_dump(by_alias=True)
    data["bias"] = round(float(weights[0]), 1)
    for rule in data["rule"]:
        rule["weights"] = {zone: value.get(f"{rule['name']}:{zone}", 0.0) for zone in ZONES}
    for shape in data["shapes"]:
        data["shapes"][shape] = value.get(f"shape.{shape}", 0.0)
    return LexicalRules.model_validate(data, context={"trusted": True})


def judged(rules: LexicalRules, answers: Sequence[Answer]) -> list[Label | None]:
    """What a judge of these rules says."""
    judge = LexicalJudge(rules)
    return [judge.classify(a.response, a.prompt).label for a in answers]


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Cohen's kappa of two yes-or-no raters."""
    n = len(pairs)
    agreed = sum(a == b for a, b in pairs) / n
    a, b = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    by_chance = a * b + (1 - a) * (1 - b)
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def report(title: str, answers: Sequence[Answer], said: Sequence[Label | None]) -> None:
    """Print agreement by source and by model."""
    print(f"\n{title}")
    groups = sorted({a.source for a in answers})
    models = sorted({(a.source, a.model) for a in answers})
    for source, model in [(s, "") for s in groups] + (models if len(models) > 1 else []):
        rows = [
            (a, label)
            for a, label in zip(answers, said, strict=True)
            if a.source == source and model in ("", a.model) and label is not None
        ]
        held = [(label is not Label.COMPLIANCE, a.held) for a, label in rows]
        refused = [(label is Label.REFUSAL, a.label == "refusal") for a, label in rows]
        hits = sum(s and t for s, t in held)
        recall = hits / max(1, sum(t for _, t in held))
        precision = hits / max(1, sum(s for s, _ in held))
        print(
            f"  {source} {model:52.52} n={len(rows):5} held back: kappa {kappa(held):.3f} "
            f"precision {precision:.3f} recall {recall:.3f}  refusal: kappa {kappa(refused):.3f}"
        )


def fold_of(prompt: str, split: int) -> int:
    """The fold of a prompt: all answers to it are in one."""
    return hashlib.sha256(f"{split} {prompt}".encode()).digest()[0] % FOLDS


def held_out(
    rules: LexicalRules, answers: Sequence[Answer], groups: Sequence[object], pull: float
) -> list[Label | None]:
    """What is said of each answer by weights that saw nothing of its group."""
    said: list[Label | None] = [None] * len(answers)
    for group in dict.fromkeys(groups):
        seen = [a for a, g in zip(answers, groups, strict=True) if g != group]
        names = features(rules)
        fitted = with_weights(rules, names, fit(seen, names, pull))
        rest = [i for i, g in enumerate(groups) if g == group]
        for i, label in zip(rest, judged(fitted, [answers[i] for i in rest]), strict=True):
            said[i] = label
    return said


def write(rules: LexicalRules) -> None:
    """Put the weights into the judge file, whose layout and comments stay."""
    text = FILE.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^bias = .*$", f"bias = {rules.bias}", text, count=1)
    for rule in rules.rule:
        given = {z: getattr(rule.weights, z) for z in ZONES if getattr(rule.weights, z)}
        inner = ", ".join(f"{zone} = {value}" for zone, value in given.items())
        start = text.index(f'name = "{rule.name}"')
        line = f"weights = {{ {inner} }}" if inner else "weights = {}"
        text = text[:start] + re.sub(r"(?m)^weights = .*$", line, text[start:], count=1)
    for shape, value in rules.shapes.model_dump().items():
        text = re.sub(rf"(?m)^{shape} = -?[\d.]+$", f"{shape} = {value}", text, count=1)
    FILE.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, and write where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--pull", type=float, default=2.0, help="strength of the penalty")
    parser.add_argument("--splits", type=int, default=1, help="ways to draw the ten folds")
    parser.add_argument("--write", action="store_true", help="write the weights")
    options = parser.parse_args()

    raw = tomllib.loads(FILE.read_text(encoding="utf-8"))["rules"]
    rules = LexicalRules.model_validate(raw, context={"trusted": True})
    # A fitted weight may be 0, and a rule without weight is still evidence here.
    answers = read(options.files, LexicalJudge(rules))
    report("as it is", answers, judged(rules, answers))
    names = features(rules)
    fitted = with_weights(rules, names, fit(answers, names, options.pull))
    report("fitted to everything", answers, judged(fitted, answers))
    for split in range(options.splits):
        folds = [fold_of(a.prompt, split) for a in answers]
        report(
            f"prompts left out, split {split}",
            answers,
            held_out(rules, answers, folds, options.pull),
        )
    by_model = held_out(rules, answers, [a.model for a in answers], options.pull)
    report("model left out", answers, by_model)
    if options.write:
        write(fitted)


if __name__ == "__main__":
    main()
