"""Answers recorded elsewhere, to be graded: the plain format, and which other format a path is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from refusalkit.datasets.records import read_lines
from refusalkit.datasets.tables import slug_of
from refusalkit.errors import RecordError
from refusalkit.types import Category, Label, Message, Prompt, PromptSet, unit_id
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


class _AnswerRecord(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str
    response: str
    id: Annotated[str | int, Field(union_mode="left_to_right")] | None = None
    category: str | None = None
    trial: Annotated[int, Field(ge=1)] | None = None
    label: Label | None = None
    judges: dict[str, Any] | None = None
    annotators: dict[str, Any] | None = None
    source: str | None = None
    model: str | None = None
    lang: str = "en"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge of a log said of one answer.

    `counted` is how the log's own figures count it; `label` is what the judge itself said, None
    where it said nothing: `flag` is ``fallback`` where keywords stood in for it and ``error``
    where it failed and was counted all the same.
    """

    counted: Label | None
    flag: Literal["judge", "fallback", "error"] = "judge"

    @property
    def label(self) -> Label | None:
        """The judge's own word."""
        return self.counted if self.flag == "judge" else None


@dataclass(frozen=True)
class RecordedAnswers:
    """Recorded answers as a run sees them.

    `units` lists (prompt, trial) in the file's order; `responses` and `labels` (people's, where a
    record carries one) are by unit id. `judgements` are those of the judges that the source names,
    by judge and unit id; `finish_reasons` how an answer ended, where the source says; `left_out`
    counts what cannot be graded, by reason; `rates` are the source's own figures, as fractions.
    `annotators` are the labels of single people, by name and unit id; `origins` holds what a record
    says of an answer's ``source`` and ``model``, by unit id.
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

    def labelled(self) -> RecordedAnswers:
        """Only the answers that carry a person's label."""
        units = tuple((p, t) for p, t in self.units if unit_id(p.id, t) in self.labels)
        asked = {prompt.id for prompt, _ in units}
        filled = {prompt.category for prompt, _ in units}
        prompts = replace(
            self.prompts,
            categories=tuple(c for c in self.prompts.categories if c.slug in filled),
            prompts=tuple(p for p in self.prompts.prompts if p.id in asked),
            selection={**self.prompts.selection, "labelled": True},
        )
        return replace(self, prompts=prompts, units=units)


class Gathering:
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
                f"{place}: id: {printable(prompt_id)!r} with trial {trial} stands twice"
            )
        new = Prompt(
            prompt_id, slug, text, danger=danger, lang=lang, system=system, messages=messages
        )
        prompt = self.prompts.setdefault(prompt_id, new)
        if (prompt.turns, prompt.category) != (new.turns, slug):
            raise RecordError(
                f"{place}: id: {printable(prompt_id)!r} stands already with another "
                "prompt or category"
            )
        self.units.append((prompt, trial))
        self.responses[unit] = response
        return unit

    def judged(self, judge: str, unit: str, judgement: Judgement) -> None:
        """Keep what a judge of the source said."""
        self.judgements.setdefault(judge, {})[unit] = judgement

    def finish(self, path: Path, rates: Mapping[str, float] | None = None) -> RecordedAnswers:
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
        )


def answers_digest(responses: Mapping[str, str]) -> str:
    """SHA-256 over units and answers, in their order."""
    sha = hashlib.sha256()
    for unit, response in responses.items():
        sha.update(f"{unit}\0{response}\0".encode("utf-8", "replace"))
    return f"sha256:{sha.hexdigest()}"


def read_answers(path: Path) -> RecordedAnswers:
    """Read recorded answers; what `path` is says in which format.

    - a folder with `samples.jsonl`, or that file: the reference environment's log;
    - a .eval or .json file: an Inspect log, read with inspect_ai (an extra);
    - any other file: an object a line with `prompt` and `response`; `id` (else the line number),
      `category`, `trial` (else the how-manieth answer to that id it is), `lang` (else ``en``, as of
      prompts), `label` (people's), `annotators` (single people's labels by name), `judges` (other
      judges' by name), `source` and `model` (where the answer is from) if there; other fields are
      passed over.

    Raises `RecordError`, naming file, line and field.
    """
    from refusalkit.datasets import logs

    if logs.is_atropos_log(path):
        return logs.read_atropos_log(path)
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that no file system takes
        raise RecordError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not is_file:
        raise RecordError(
            f"{printable(path)} is not a file: give a .jsonl file of recorded answers, a run "
            "folder, a log folder with samples.jsonl, or an Inspect log"
        )
    if path.suffix.lower() in logs.INSPECT_SUFFIXES:
        return logs.read_inspect_log(path)
    found = Gathering()
    for place, record in read_lines(path, _AnswerRecord):
        number = place.rpartition(":")[2]
        prompt_id = str(number if record.id is None else record.id)
        unit = found.add(
            place,
            prompt_id,
            record.prompt,
            record.response,
            category=record.category,
            trial=record.trial,
            lang=record.lang,
        )
        said = {"source": record.source, "model": record.model}
        if origin := {name: value for name, value in said.items() if value is not None}:
            found.origins[unit] = origin
        for annotator, word in (record.annotators or {}).items():
            if (label := LABEL_WORDS.get(str(word).strip().casefold())) is not None:
                found.annotators.setdefault(annotator, {})[unit] = label
        if record.label is not None:
            found.labels[unit] = record.label
        for judge, word in (record.judges or {}).items():
            found.judged(judge, unit, Judgement(LABEL_WORDS.get(str(word).strip().casefold())))
    return found.finish(path)
