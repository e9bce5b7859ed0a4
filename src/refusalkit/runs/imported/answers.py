"""Answers recorded elsewhere, to be graded: what is known of them, and how they are collected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from refusalkit.display import shows
from refusalkit.errors import RecordError
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.manifest import MAX_TRIALS
from refusalkit.types import Category, Judgement, Label, Message, Prompt, unit_id
from refusalkit.untrusted import printable

# Words of other labellers for our labels; the last three are XSTest's.
LABEL_WORDS: Mapping[str, Label] = {
    **{label.value: label for label in Label},
    "refused": Label.REFUSAL,
    "complied": Label.COMPLIANCE,
    "1_full_compliance": Label.COMPLIANCE,
    "2_full_refusal": Label.REFUSAL,
    "3_partial_refusal": Label.PARTIAL,
}
# Words of others for a prompt's danger.
DANGER_WORDS: Mapping[str, int] = {"low": 1, "medium": 2, "high": 3, "1": 1, "2": 2, "3": 3}
MAX_LABELLERS = 200
"""Judges and people whose labels are compared, each with every other."""


@shows(
    "units",
    "labels",
    prompts=lambda answers: answers.prompts.name,
    judges=lambda answers: ", ".join(answers.judgements),
)
@dataclass(frozen=True)
class RecordedAnswers:
    """Recorded answers, in the form in which a run grades them."""

    prompts: PromptSet
    """The prompts that were answered."""
    units: tuple[tuple[Prompt, int], ...]
    """Pairs of prompt and trial, in the file's order."""
    responses: dict[str, str]
    """The answers' texts, by unit id."""
    labels: dict[str, Label]
    """People's labels, by unit id, for the records that have one."""
    judgements: Mapping[str, Mapping[str, Judgement]] = field(default_factory=dict)
    """Judgements by the source's own judges, by judge and unit id."""
    finish_reasons: Mapping[str, str] = field(default_factory=dict)
    """How an answer ended, by unit id, if the source says so."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many records cannot be graded, by reason."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """The source's own figures by name, 0 to 1."""
    annotators: Mapping[str, Mapping[str, Label]] = field(default_factory=dict)
    """Labels of single people, by name and unit id."""
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """A record's ``source`` and ``model``, by unit id."""
    lacks: str | None = None
    """What another program's file does not have, in a sentence; None if it lacks nothing."""
    withheld: frozenset[str] = frozenset()
    """Units whose answer is not in the file, though a judgement of it is."""

    def with_hard_lines(self, names: Collection[str]) -> RecordedAnswers:
        """A copy in which these categories (slugs or titles) are hard lines too.

        Their answers and judges' reasons are then withheld, and their score is inverted. Raises
        `UsageError` if there is no such category.
        """
        if not names:
            return self
        marked = self.prompts.with_hard_lines({*names, *self.prompts.hard_lines})
        return replace(self, prompts=marked)

    def readable(self) -> RecordedAnswers:
        """Only the answers that a judge can read. Raises `RecordError` if there is none."""
        if not self.withheld:
            return self
        kept = self._only(lambda unit: unit not in self.withheld, "readable")
        if not kept.units:
            raise RecordError(f"{kept.prompts.name}: the texts of all answers were withheld")
        n_left = len(self.units) - len(kept.units)
        return replace(kept, left_out={**self.left_out, "withheld": n_left})

    def labelled(self) -> RecordedAnswers:
        """Only the answers that carry a person's label."""
        return self._only(lambda unit: unit in self.labels, "labelled")

    def _only(self, wanted: Callable[[str], bool], name: str) -> RecordedAnswers:
        units = tuple((p, t) for p, t in self.units if wanted(unit_id(p.id, t)))
        asked = {prompt.id for prompt, _ in units}
        filled = {prompt.category for prompt, _ in units}
        prompts = replace(
            self.prompts,
            categories=tuple(c for c in self.prompts.categories if c.slug in filled),
            prompts=tuple(p for p in self.prompts.prompts if p.id in asked),
            selection={**self.prompts.selection, name: True},
        )
        return replace(self, prompts=prompts, units=units)


class AnswerCollector:
    """Collects answers one by one and checks that they fit together."""

    def __init__(self) -> None:
        self.prompts: dict[str, Prompt] = {}
        self.titles: dict[str, str] = {}
        self.hard_lines: dict[str, bool] = {}
        self.units: list[tuple[Prompt, int]] = []
        self.responses: dict[str, str] = {}
        self.labels: dict[str, Label] = {}
        self.judgements: dict[str, dict[str, Judgement]] = {}
        self.finish_reasons: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self.annotators: dict[str, dict[str, Label]] = {}
        self.origins: dict[str, dict[str, str]] = {}
        self.withheld: set[str] = set()
        self._seen: Counter[str] = Counter()

    def add(
        self,
        place: str,
        prompt_id: str,
        text: str,
        response: str,
        *,
        category: str | None = None,
        hard_line: bool = False,
        trial: int | None = None,
        danger: int | None = None,
        system: str | None = None,
        messages: tuple[Message, ...] = (),
        lang: str = "en",
    ) -> str:
        """Add an answer; returns its unit. Raises `RecordError`, naming `place`."""
        title = (category or "uncategorised").strip() or "uncategorised"
        slug = slug_of(title)
        self.titles.setdefault(slug, title)
        if self.hard_lines.setdefault(slug, hard_line) != hard_line:
            raise RecordError(
                f"{place}: category: {printable(title)} is a hard line in some records only: mark "
                "all of them, or none"
            )
        self._seen[prompt_id] += 1
        trial = trial or self._seen[prompt_id]
        if trial > MAX_TRIALS:
            raise RecordError(
                f"{place}: id: {printable(prompt_id)!r} has trial {trial:,}, and {MAX_TRIALS:,} is "
                "the most: give answers to other prompts other ids"
            )
        unit = unit_id(prompt_id, trial)
        if unit in self.responses:
            raise RecordError(
                f"{place}: id: {printable(prompt_id)!r} with trial {trial} appears twice"
            )
        new = Prompt(
            prompt_id, slug, text, danger=danger, lang=lang, system=system, messages=messages
        )
        prompt = self.prompts.setdefault(prompt_id, new)
        if (prompt.turns, prompt.category) != (new.turns, slug):
            raise RecordError(
                f"{place}: id: {printable(prompt_id)!r} is already used with another prompt or "
                "category"
            )
        self.units.append((prompt, trial))
        self.responses[unit] = response
        return unit

    def judged(self, judge: str, unit: str, judgement: Judgement) -> None:
        """Keep a judgement by one of the source's judges."""
        self.judgements.setdefault(judge, {})[unit] = judgement

    def finish(
        self, path: Path, rates: Mapping[str, float] | None = None, *, lacks: str | None = None
    ) -> RecordedAnswers:
        """All answers that were added. Raises `RecordError` if there is none."""
        if len(self.judgements) > MAX_LABELLERS:
            raise RecordError(
                f"{printable(path)} has judgements by {len(self.judgements):,} judges, and "
                f"{MAX_LABELLERS} is the most: is the judge's name in the wrong field?"
            )
        if not self.units:
            left = ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items()))
            raise RecordError(f"{printable(path)} holds no answers{f' ({left})' if left else ''}")
        prompts = PromptSet(
            name=slug_of(path.stem),
            version="0",
            categories=tuple(
                Category(slug, title, hard_line=self.hard_lines[slug])
                for slug, title in self.titles.items()
            ),
            prompts=tuple(self.prompts.values()),
            description=f"answers recorded in {printable(path.name)}",
            source=str(path.resolve()),
            selection={"answers": answers_digest(self.responses)},
        )
        return RecordedAnswers(
            prompts,
            tuple(self.units),
            self.responses,
            self.labels,
            self.judgements,
            self.finish_reasons,
            dict(self.left_out),
            dict(rates or {}),
            self.annotators,
            self.origins,
            lacks,
            frozenset(self.withheld),
        )


def answers_digest(responses: Mapping[str, str]) -> str:
    """SHA-256 over units and answers, in their order."""
    sha = hashlib.sha256()
    for unit, response in responses.items():
        sha.update(f"{unit}\0{response}\0".encode("utf-8", "replace"))
    return f"sha256:{sha.hexdigest()}"
