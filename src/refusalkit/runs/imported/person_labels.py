"""Label files: one person's labels for answers drawn from a run, appended one by one.

The first line says how the answers were drawn; each further line is about one answer. The last line
about an answer counts: a label is undone by writing another line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonlines
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refusalkit.errors import RecordError
from refusalkit.files import open_file, read_file
from refusalkit.jsonl import dotted, validation_mistakes, why_invalid
from refusalkit.types import Label
from refusalkit.untrusted import printable


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1

    def as_line(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class Stratum(BaseModel):
    """Answers of one kind: how many the run has, and how many of them were drawn."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    """Kind of prompt and label by the judge."""
    units: Annotated[int, Field(ge=1)]
    """Answers of the run in this stratum."""
    drawn: Annotated[int, Field(ge=0)]
    """How many of them were drawn."""


class SampleRecord(_Record):
    """How the answers were drawn: with equal chances within each stratum, by `seed`.

    A stratum is the kind of prompt (``ordinary`` or ``hard-line``) and the label by `judge`.
    `not_kept` counts judged answers whose text was not kept, so it cannot be shown.
    """

    kind: Literal["sample"] = "sample"
    run: str
    judge: str
    annotator: str
    seed: int
    n: Annotated[int, Field(ge=1)]
    strata: tuple[Stratum, ...]
    not_kept: int = 0
    at: str


class LabelRecord(_Record):
    """One answer was labelled or `skipped`; if neither, an earlier label was undone."""

    kind: Literal["label"] = "label"
    unit: str
    prompt_id: str
    category: str
    trial: int
    stratum: str
    annotator: str
    label: Label | None
    skipped: bool = False
    text_sha256: str
    at: str


@dataclass(frozen=True)
class PersonLabels:
    """The content of a label file, without labels that were undone."""

    path: Path
    """The file."""
    sample: SampleRecord
    """How the answers were drawn."""
    labels: Mapping[str, Label]
    """The labels, by unit."""
    skipped: frozenset[str]
    """Units that the person skipped."""
    digests: Mapping[str, str]
    """SHA-256 (hex) of each answer's text, by unit."""
    categories: Mapping[str, str]
    """Category slugs, by unit."""

    @property
    def annotator(self) -> str:
        """Name of the person who labelled."""
        return self.sample.annotator


def is_label_file(path: Path) -> bool:
    """Whether a file begins like a label file."""
    try:
        with open_file(path) as file:
            first = file.readline(65536)
        record = jsonlines.Reader([first]).read(type=dict)
    except (OSError, jsonlines.Error, RecursionError):
        return False
    return record.get("kind") == "sample"


def read_person_labels(path: Path) -> PersonLabels:
    """Read a label file; a torn last line is skipped. Raises `RecordError`."""
    sample: SampleRecord | None = None
    last: dict[str, LabelRecord] = {}
    for place, data in _lines(path):
        try:
            if sample is None:
                sample = SampleRecord.model_validate(data)
                continue
            record = LabelRecord.model_validate(data)
        except ValidationError as error:
            if sample is None and data.get("kind") != "sample":
                raise RecordError(
                    f"{place}: is not a label file: give one that `refusalkit judges label` wrote"
                ) from error
            loc, what = next(iter(validation_mistakes(error)))
            raise RecordError(f"{place}: {printable(dotted(loc))}: {printable(what)}") from error
        if record.annotator != sample.annotator:
            raise RecordError(f"{place}: annotator: differs from the first line")
        last[record.unit] = record
    if sample is None:
        raise RecordError(f"{printable(path)} is empty: delete it and start again")
    return PersonLabels(
        path,
        sample,
        {unit: r.label for unit, r in last.items() if r.label is not None},
        frozenset(unit for unit, r in last.items() if r.skipped),
        {unit: r.text_sha256 for unit, r in last.items()},
        {unit: r.category for unit, r in last.items()},
    )


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    where = printable(path)
    try:
        raw = read_file(path)
    except OSError as error:
        raise RecordError(f"{where} cannot be read: {error.strerror}") from error
    lines = raw.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            yield place, jsonlines.Reader([line]).read(type=dict)
        except jsonlines.InvalidLineError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                return
            raise RecordError(f"{place}: {printable(why_invalid(error))}") from error
        except RecursionError as error:
            raise RecordError(f"{place}: is nested too deeply") from error
