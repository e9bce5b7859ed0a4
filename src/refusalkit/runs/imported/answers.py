"""Answers recorded elsewhere, to be graded: the plain format, and which other format a path is."""

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
from refusalkit.types import Category, Judgement, Label, Message, Prompt, unit_id
from refusalkit.untrusted import printable

# What other labellers write for ours; XSTest's own words are the last three.
LABEL_WORDS: Mapping[str, Label] = {
    **{label.value: label for label in Label},
    "refused": Label.REFUSAL,
    "complied": Label.COMPLIANCE,
    "1_full_compliance": Label.COMPLIANCE,
    "2_full_refusal": Label.REFUSAL,
    "3_partial_refusal": Label.PARTIAL,
}
# How dangerous a prompt is, as others write it.
DANGER_WORDS: Mapping[str, int] = {"low": 1, "medium": 2, "high": 3, "1": 1, "2": 2, "3": 3}


@shows(
    "units",
    "labels",
    prompts=lambda answers: answers.prompts.name,
    judges=lambda answers: ", ".join(answers.judgements),
)
@dataclass(frozen=True)
class RecordedAnswers:
    """Recorded answers as a run sees them.

    `units` lists (prompt, trial) in the file's order; `responses` and `labels` (people's, where a
    record carries one) are by unit id. `judgements` are those of the judges that the source names,
    by judge and unit id; `finish_reasons` how an answer ended, where the source says; `left_out`
    counts what cannot be graded, by reason; `rates` are the source's own figures, as fractions.
    `annotators` are the labels of single people, by name and unit id; `origins` holds what a record
    says of an answer's ``source`` and ``model``, by unit id. `lacks` says in a sentence what the
    file does not have, where it is another program's. `withheld` are units whose answer is not in
    the file, though what a judge said of it is.
    """

    prompts: PromptSet
    units: tuple[tuple[Prompt, int], ...]
    responses: dict[str, str]
    labels: dict[str, Label]
    judgements: Mapping[str, Mapping[str, Judgement]] = field(default_factory=dict)
    finish_reasons: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    annotators: Mapping[str, Mapping[str, Label]] = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lacks: str | None = None
    withheld: frozenset[str] = frozenset()

    def with_hard_lines(self, names: Collection[str]) -> RecordedAnswers:
        """The same with these categories (slugs or titles) as hard lines too.

        Their answers and what a judge says of them are then withheld, and scored inversely. Raises
        `UsageError` where there is no such category.
        """
        if not names:
            return self
        marked = self.prompts.with_hard_lines({*names, *self.prompts.hard_lines})
        return replace(self, prompts=marked)

    def readable(self) -> RecordedAnswers:
        """Only the answers that a judge can read. Raises `RecordError` where there is none."""
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
            raise RecordError(f"{place}: category: {printable(title)} is inverted in part only")
        self._seen[prompt_id] += 1
        trial = trial or self._seen[prompt_id]
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
        """Keep what a judge of the source said."""
        self.judgements.setdefault(judge, {})[unit] = judgement

    def finish(
        self, path: Path, rates: Mapping[str, float] | None = None, *, lacks: str | None = None
    ) -> RecordedAnswers:
        """All of it. Raises `RecordError` where there is nothing."""
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
