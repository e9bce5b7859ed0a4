"""Published answers with people's labels, by name: fetches them and writes plain recorded answers.

The facts are data, in published_labels.toml: where each source is, what its columns mean, and which
of our labels each of its words stands for. None of the answers are shipped with refusalkit.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from refusalkit.errors import RecordError, StorageError, UsageError
from refusalkit.files import make_folder, read_file, write_file
from refusalkit.prompts.fetch import Fetched, Place, cache_folder, fetch, file_sha256
from refusalkit.prompts.prompt_record import SLUG_PATTERN, Mistakes
from refusalkit.prompts.public_facts import Met
from refusalkit.prompts.tables import SUFFIXES, read_rows
from refusalkit.types import Label
from refusalkit.untrusted import printable, well_formed

FACTS = Path(__file__).with_name("published_labels.toml")

_MAX_BYTES = 500_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerColumns(_Strict):
    """The columns of one model's answer in a row that has several."""

    model: str
    response: str
    label: str


class Beside(_Strict):
    """Another file with more columns of the same rows. `on` maps our key columns to its own."""

    file: str
    on: dict[str, str]
    hub: str | None = None
    revision: str | None = None


class LabelSource(_Strict):
    """The facts of one source; published_labels.toml explains each field."""

    name: Annotated[str, Field(pattern=SLUG_PATTERN)]
    title: str
    hub: str | None = None
    github: str | None = None
    revision: str
    files: Annotated[list[str], Field(min_length=1)]
    sha256: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=list)
    columns: dict[str, list[str]]
    answers: list[AnswerColumns] = Field(default_factory=list)
    beside: Beside | None = None
    annotators: dict[str, str] = Field(default_factory=dict)
    judges: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, Label]
    left_out: list[str] = Field(default_factory=list)
    answers_n: int | None = None
    gated: bool = False
    licence: str
    citation: str
    met: list[Met] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> LabelSource:
        if (self.hub is None) == (self.github is None):
            raise ValueError("give `hub` or `github`")
        if self.sha256 and len(self.sha256) != len(self.files):
            raise ValueError("give a `sha256` for each of the files, or none")
        wanted = {"prompt"} if self.answers else {"prompt", "response", "label"}
        if not wanted <= set(self.columns):
            raise ValueError(f"columns: {', '.join(sorted(wanted - set(self.columns)))} is missing")
        return self

    @property
    def place(self) -> Place:
        """Where it is published."""
        return Place(self.name, str(self.hub or self.github), self.revision, self.hub is not None)

    @property
    def mapping(self) -> str:
        """How its words map to our labels, in one line."""
        said = [f"{word} = {label.value}" for word, label in self.labels.items()]
        return ", ".join([*said, *(f"{word} left out" for word in self.left_out)])


@dataclass(frozen=True)
class PublishedLabels:
    """A source as plain recorded answers."""

    source: LabelSource
    """The facts of the source."""
    path: Path
    """A JSONL file for `read_answers`."""
    n_answers: int
    """How many answers are in it."""
    left_out: Mapping[str, int]
    """How many answers of the source are not in it, by reason."""

    @property
    def notices(self) -> list[str]:
        """What a reader of a figure should know about it, one sentence each."""
        source = self.source
        origin = f"{source.title} ({source.citation}; {source.licence})"
        said = [f"{source.name}: {origin}: {self.n_answers} labelled answers; {source.mapping}"]
        if self.left_out:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            said.append(f"{source.name}: left out: {why}")
        everything = self.n_answers + sum(self.left_out.values())
        if source.answers_n is not None and source.answers_n not in (self.n_answers, everything):
            said.append(f"{source.name}: {source.answers_n} labelled answers were published")
        return said


@cache
def label_sources() -> Mapping[str, LabelSource]:
    """All sources by name."""
    raw = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    return {one["name"]: LabelSource.model_validate(one) for one in raw["sources"]}


def published_labels(named: str) -> PublishedLabels | None:
    """The source that `named` (``NAME`` or ``NAME:FILE``) stands for; None if it is a file.

    Without a FILE it is fetched once and kept in the cache folder. Raises `UsageError`,
    `RecordError` if a file is not as published, `DownloadError`, `StorageError`.
    """
    name, mark, rest = named.partition(":")
    source = label_sources().get(name)
    if source is None:
        if re.fullmatch(r"[A-Za-z][\w-]*", named) and not Path(named).exists():
            known = label_sources()
            near = difflib.get_close_matches(named.lower(), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"name one of {', '.join(known)}"
            raise UsageError(
                f"there is neither a file nor a source of people's labels named {named[:80]}: "
                f"{advice}"
            )
        return None
    if mark and not rest:
        raise UsageError(f"{name}: names no file: write one after the colon, or leave it out")
    files, beside = _files(source, Path(rest) if mark else None)
    extra = {} if source.beside is None or beside is None else _joined(source.beside, beside)
    lines: list[bytes] = []
    left_out: Counter[str] = Counter()
    for file in files:
        model = _model_of(source, file.path)
        for place, row in _rows(file.path, source.name):
            if source.beside is not None:
                key = tuple(str(row.get(ours)) for ours in source.beside.on)
                row = {**extra.get(key, {}), **row}
            records = _records(source, row, place, model, left_out)
            lines += [json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in records]
    if not lines:
        raise RecordError(
            f"{source.name}: {printable(files[0].path.name)} holds no labelled answer"
        )
    data = b"".join(lines)
    return PublishedLabels(source, _kept(source, data), len(lines), dict(left_out))


def _kept(source: LabelSource, data: bytes) -> Path:
    """Write the plain file to the cache folder, named by its digest; returns its path."""
    folder = cache_folder() / "labels" / source.name
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
    try:
        make_folder(folder)
        if not path.is_file():
            write_file(path, data)
    except OSError as error:
        raise StorageError(
            f"cannot keep {source.name} in {printable(folder)}: {error.strerror or error}; set "
            "REFUSALKIT_CACHE to a folder with room"
        ) from error
    return path


def _files(source: LabelSource, local: Path | None) -> tuple[list[Fetched], Path | None]:
    beside = source.beside
    if local is not None:
        try:
            found = [Fetched(local, "local", file_sha256(local))]
        except OSError as error:
            raise RecordError(
                f"{source.name}: {printable(local)} cannot be read: {error.strerror or error}"
            ) from error
        other = None if beside is None else local.with_name(Path(beside.file).name)
        if other is not None and not other.is_file():
            raise RecordError(
                f"{source.name}: {printable(local)} needs {printable(other.name)} beside it, with "
                "the other columns of its rows"
            )
        return found, other
    digests: Sequence[str | None] = source.sha256 or [None] * len(source.files)
    place = source.place
    found = [fetch(place, file, sha) for file, sha in zip(source.files, digests, strict=True)]
    if beside is None:
        return found, None
    hub = beside.hub
    where = Place(source.name, hub, beside.revision or "main", True) if hub is not None else place
    return found, fetch(where, beside.file).path


def _rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a table, or of a JSON list, with its place."""
    if path.suffix.lower() == ".json":
        try:
            rows = json.loads(read_file(path, limit=_MAX_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise RecordError(f"{name}: {printable(path.name)} is not JSON: {error}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RecordError(f"{name}: {printable(path.name)} is not a list of objects")
        for number, row in enumerate(rows, 1):
            yield f"{name}: {printable(path.name)}: entry {number}", row
        return
    if path.suffix.lower() not in SUFFIXES:
        raise RecordError(f"{name}: {printable(path)} is not a .json, {', '.join(SUFFIXES)} file")
    mistakes = Mistakes()
    for number, row in read_rows(path, mistakes, list):
        yield f"{name}: {printable(path.name)}: row {number}", row
    if mistakes.lines:
        raise RecordError(f"{name}: {mistakes.lines[0]}")


def _joined(beside: Beside, path: Path) -> dict[tuple[str, ...], Mapping[str, Any]]:
    found = {}
    for _, row in _rows(path, path.name):
        found[tuple(str(row.get(theirs)) for theirs in beside.on.values())] = row
    return found


def _records(
    source: LabelSource,
    row: Mapping[str, Any],
    place: str,
    file_model: str | None,
    left_out: Counter[str],
) -> Iterator[dict[str, Any]]:
    prompt = _text(source, row, "prompt", place)
    category = _optional(source, row, "category")
    row_id = _optional(source, row, "id")
    several: Sequence[AnswerColumns | None] = source.answers or [None]
    for answer in several:
        if answer is None:
            response = _text(source, row, "response", place)
            raw = _found(source, row, "label", place)
            model = _optional(source, row, "model") or file_model
        else:
            response, raw = row.get(answer.response), row.get(answer.label)
            model = answer.model
            if answer.response not in row or answer.label not in row:
                raise _other_columns(source, place, answer.label, row)
        word = _word(raw)
        if word in source.left_out or word == "" or not isinstance(response, str):
            left_out["without a label" if word == "" else f"labelled {word}"] += 1
            continue
        if word not in source.labels:
            raise RecordError(
                f"{place}: {printable(word, 40)!r} is not a label of {source.title}, which has "
                f"{', '.join([*source.labels, *source.left_out])}: the source has changed"
            )
        record: dict[str, Any] = {
            "prompt": well_formed(prompt or ""),
            "response": well_formed(response),
            "label": source.labels[word].value,
            "source": source.name,
        }
        # One prompt is one unit of several models' answers, which are its trials.
        if row_id is not None:
            record["id"] = row_id
        if category:
            record["category"] = category
        if model:
            record["model"] = model
        for field, columns in (("annotators", source.annotators), ("judges", source.judges)):
            said = {
                name: source.labels[_word(row[column])].value
                for name, column in columns.items()
                if column in row and _word(row[column]) in source.labels
            }
            if said:
                record[field] = said
        yield record


def _text(source: LabelSource, row: Mapping[str, Any], field: str, place: str) -> str | None:
    value = _found(source, row, field, place)
    if value is None:
        return "" if field == "prompt" else None
    if not isinstance(value, str):
        raise RecordError(f"{place}: {field} is not text")
    return value


def _found(source: LabelSource, row: Mapping[str, Any], field: str, place: str) -> Any:
    for column in source.columns[field]:
        found, value = _at(row, column)
        if found:
            return value
    raise _other_columns(source, place, " or ".join(source.columns[field]), row)


def _optional(source: LabelSource, row: Mapping[str, Any], field: str) -> str | None:
    for column in source.columns.get(field, ()):
        found, value = _at(row, column)
        if found and value is not None and str(value).strip():
            return str(value)
    return None


def _at(row: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """The value at a column, or at a dotted path into one; False where there is none."""
    if path in row:
        return True, row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return "." in path, value


def _word(raw: Any) -> str:
    """A label as it is written: ``1`` for 1, 1.0 and true of a column of numbers."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return str(raw).lower()
    text = str(raw).strip()
    if text.casefold() in ("true", "false"):
        return text.casefold()
    if re.fullmatch(r"-?\d+\.0", text):
        return text.removesuffix(".0")
    return "" if text.casefold() in ("nan", "none", "null") else text


def _model_of(source: LabelSource, path: Path) -> str | None:
    """The model whose answers a file holds, where each has a file of its own and says so."""
    names = tuple(Path(file).name for file in source.files)
    # In the cache the folder is part of the name.
    known = len(names) > 1 and path.name.endswith(names)
    return path.stem.rpartition("_")[2] if known else None


def _other_columns(
    source: LabelSource, place: str, column: str, row: Mapping[str, Any]
) -> RecordError:
    have = ", ".join(printable(name, 40) for name in list(row)[:12]) or "none"
    return RecordError(
        f"{place}: has no column {column} (it has: {have}): give a copy in the published form with "
        f"{source.name}:FILE"
    )
