"""A prompt set as one table: JSONL, CSV, TSV, Parquet or a spreadsheet, with named columns."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import jsonlines
import pydantic_core
from pydantic import ValidationError

from refusalkit.errors import PromptSetError
from refusalkit.files import MAX_LINE, lines_of, open_file
from refusalkit.jsonl import why_invalid
from refusalkit.prompts.bulk import plain_prompts
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.fetch import is_web_page
from refusalkit.prompts.prompt_record import (
    ID_PATTERN,
    DuplicateCheck,
    Mistakes,
    PromptRecord,
)
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.unpack import (
    MAX_UNPACKED,
    UnreadableTableError,
    check_cells,
    unpacked,
)
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable, well_formed

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".xlsx")

_TEXT_COLUMNS = ("prompt", "text")
_RARE = ("danger", "tags", "lang", "system", "messages", "twin", "translation_of")
_OPTIONAL = ("id", *_RARE)
_COLUMNS = (*_TEXT_COLUMNS, "category", *_OPTIONAL)
_NO_HARD_LINE = (
    "a table cannot mark hard lines: name the categories with --hard-line, and leave it out"
)
_ID = re.compile(ID_PATTERN)
# Rows that are in memory as rows at once.
_PORTION = 10_000

_Row = Mapping[str, Any]
_Portion = tuple[Sequence[int], Sequence[_Row]]
_Pick = Callable[[Sequence[str]], Sequence[str] | None]


def read_table(path: Path, source: str, *, columns: Mapping[str, str] | None = None) -> PromptSet:
    """The prompt set in one file. Its categories have no hard lines until the caller names them.

    Columns: `prompt` (or `text`) and `category`; `id`, `danger`, `tags`, `lang`, `system`,
    `messages`, `twin` and `translation_of` if there; any other is ignored, but `hard_line` is a
    mistake. `columns` says what
    they are called in the file, where it has names of its own. Rows without an id are numbered
    within their category.

    Raises `PromptSetError` listing every mistake with its row.
    """
    try:
        table = _Table(path)
        table.read(columns or {})
    except _Repeated:
        # Which one it is, and where it stood first, is seen row by row.
        table = _Table(path)
        table.read(columns or {}, by_row=True)
    mistakes = table.mistakes
    if not table.prompts and not mistakes.lines:
        mistakes.add(path.name, "file", "holds no rows")
    mistakes.raise_if_any(source)
    return PromptSet(
        name=slug_of(path.stem),
        version="0",
        categories=tuple(Category(slug, title) for slug, title in table.titles.items()),
        prompts=tuple(table.prompts),
        description=f"read from {printable(path.name)}",
        source=source,
    )


class _Repeated(Exception):
    """A prompt appears twice in a table."""


class _Table:
    """What was read of a table: its prompts, and its categories' titles by slug."""

    def __init__(self, path: Path) -> None:
        self.mistakes = Mistakes()
        self.prompts: list[Prompt] = []
        self.titles: dict[str, str] = {}
        self._path = path
        self._seen = DuplicateCheck(self.mistakes, place_of=lambda number: row_place(path, number))
        self._slugs: dict[str, str] = {}
        self._stems: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def read(self, renamed: Mapping[str, str], *, by_row: bool = False) -> None:
        """Read all of it; raises `_Repeated` where it must be read again, `by_row`."""
        for numbers, rows in _portions(self._path, self.mistakes, renamed):
            if by_row or not self._add_plain(numbers, rows):
                for number, row in zip(numbers, rows, strict=True):
                    self._add(number, row)

    def _add(self, number: int, row: _Row) -> None:
        """Add a row, whatever it holds; a mistake is noted."""
        place = row_place(self._path, number)
        if "hard_line" in row:
            self.mistakes.add(place, "hard_line", _NO_HARD_LINE)
            return
        if not any(name in row for name in (*_TEXT_COLUMNS, "messages")):
            self.mistakes.add(place, "prompt", "is missing (nor is there a `text`)")
            return
        title = row.get("category")
        if not isinstance(title, str) or not title.strip():
            self.mistakes.add(place, "category", "is missing or empty")
            return
        slug = self._slug_of(title)
        if slug is None:
            what = f"{title!r} and {self.titles[slug_of(title)]!r} cannot be told apart"
            self.mistakes.add(place, "category", what)
            return
        record = _record(row, self._next_id(slug), place, self.mistakes)
        if record is not None:
            prompt = record.to_prompt(slug)
            if self._seen.see(prompt, number):
                self.prompts.append(prompt)

    def _add_plain(self, numbers: Sequence[int], rows: Sequence[_Row]) -> bool:
        """Add rows that have only texts, and perhaps ids: most of a large table.

        False, with none of them added, where one has another field or a mistake.
        """
        have = set().union(*rows)
        column: dict[str, list[Any]] = {
            name: [row.get(name) for row in rows] for name in _COLUMNS if name in have
        }
        nothing = [None] * len(rows)
        if "hard_line" in have or any(column.get(name, nothing) != nothing for name in _RARE):
            return False
        titles, ids = column.get("category", nothing), column.get("id", nothing)
        texts, others = (column.get(name, nothing) for name in _TEXT_COLUMNS)
        if None in texts:
            texts = [b if a is None else a for a, b in zip(texts, others, strict=True)]
        if not _are_texts(titles) or not _are_texts(texts):
            return False
        if None in map(self._slug_of, dict.fromkeys(titles)):
            return False
        given = [id for id in ids if id is not None]
        if given and not (_are_texts(given) and all(map(_ID.fullmatch, given))):
            return False
        slugs = [self._slugs[title] for title in titles]
        numbered = [self._next_id(slug) for slug in slugs]
        if given:
            ids = [b if a is None else a for a, b in zip(ids, numbered, strict=True)]
        else:
            ids = numbered
        if not self._seen.see_all(ids, texts, numbers):
            raise _Repeated
        self.prompts += plain_prompts(ids, slugs, texts)
        return True

    def _next_id(self, slug: str) -> str:
        """The id of a category's next row, where the row itself says none."""
        number = self._counts[slug] = self._counts[slug] + 1
        return f"{self._stems[slug]}-{number:03}"

    def _slug_of(self, title: str) -> str | None:
        """A category's slug; None where it is that of another one."""
        slug = self._slugs.get(title)
        if slug is None:
            slug = slug_of(title)
            if self.titles.setdefault(slug, title.strip()) != title.strip():
                return None
            self._slugs[title] = slug
            # Ids are ASCII; a category's name may be in any script.
            stem = slug if slug.isascii() else f"category-{len(self.titles)}"
            self._stems.setdefault(slug, stem)
            self._counts.setdefault(slug, 0)
        return slug


def _are_texts(values: Sequence[Any]) -> bool:
    """Whether all are texts that say something and can be sent."""
    if set(map(type, values)) != {str} or not all(values) or any(map(str.isspace, values)):
        return False
    joined = "".join(values)
    return joined.isascii() or well_formed(joined) == joined


def row_place(path: Path, number: int) -> str:
    """Where a row is, for a person: ``file:line``, or ``file: row N`` of a binary table."""
    return f"{path.name}:{number}" if _is_jsonl(path) else f"{path.name}: row {number}"


def _kind(path: Path) -> str:
    return path.suffix[1:].upper()


def _is_jsonl(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def _record(
    row: Mapping[str, Any], default_id: str, place: str, mistakes: Mistakes
) -> PromptRecord | None:
    column = next((name for name in _TEXT_COLUMNS if row.get(name) is not None), None)
    data: dict[str, Any] = {name: row[name] for name in _OPTIONAL if row.get(name) is not None}
    if not data.get("messages"):
        data["text"] = row[column] if column else None
    data["id"] = str(data["id"]) if isinstance(data.get("id"), str | int) else default_id
    if isinstance(data.get("tags"), str):
        data["tags"] = [tag.strip() for tag in re.split(r"[,;]", data["tags"]) if tag.strip()]
    if isinstance(data.get("danger"), str) and data["danger"].strip().isdecimal():
        data["danger"] = int(data["danger"])
    try:
        return PromptRecord.model_validate(data)
    except ValidationError as error:
        mistakes.add_validation(place, error)
        return None


def _portions(path: Path, mistakes: Mistakes, renamed: Mapping[str, str]) -> Iterator[_Portion]:
    """The rows with our own names for their columns; `renamed` is our name = the file's."""

    def pick(have: Sequence[str]) -> Sequence[str] | None:
        ours = _wanted(have, renamed)
        if not any(name in ours for name in _TEXT_COLUMNS) or "category" not in ours:
            listed = ", ".join(printable(name, 40) for name in have[:12])
            what = "a table needs a `prompt` (or `text`) and a `category` column; this one has: "
            how = (
                ""
                if renamed
                else " (`refusalkit prompts convert --column prompt=THEIRS` reads others)"
            )
            mistakes.add(path.name, "columns", what + listed + how)
            return None
        if "hard_line" in have:
            mistakes.add(path.name, "hard_line", _NO_HARD_LINE)
            return None
        return list(ours.values())

    for numbers, rows in read_portions(path, mistakes, pick):
        if renamed:
            rows = [
                {name: row[column] for name, column in _wanted(row, renamed).items()}
                for row in rows
            ]
        yield numbers, rows


def _wanted(have: Sequence[str] | Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, str]:
    pairs = ((name, renamed.get(name, name)) for name in _COLUMNS)
    return {name: column for name, column in pairs if column in have}


def read_rows(path: Path, mistakes: Mistakes, pick: _Pick) -> Iterator[tuple[int, _Row]]:
    """Each row of a table with its number; arguments as of `read_portions`."""
    for numbers, rows in read_portions(path, mistakes, pick):
        yield from zip(numbers, rows, strict=True)


def read_portions(path: Path, mistakes: Mistakes, pick: _Pick) -> Iterator[_Portion]:
    """The rows of a table, some at a time with their numbers (`row_place`).

    What cannot be read is a mistake. `pick` is given the columns of a file that has a header and
    returns those to read, or None to stop. Lines of JSON have no header; they come as they are.
    """
    try:
        with open_file(path) as file:
            start = file.read(1024)
    except OSError as error:
        mistakes.add(path.name, "file", f"cannot be read ({error.strerror})")
        return
    if not start and not _is_jsonl(path):
        mistakes.add(path.name, "file", f"cannot be read as {_kind(path)}: it is empty")
    elif is_web_page(start):
        mistakes.add(path.name, "file", "is a web page, not a table: download the file itself")
    elif _is_jsonl(path):
        yield from _jsonl_portions(path, mistakes)
    else:
        yield from _frame_portions(path, mistakes, pick)


def _jsonl_portions(path: Path, mistakes: Mistakes) -> Iterator[_Portion]:
    try:
        with open_file(path) as handle:
            _check_size(handle)
            first = 1
            lines_left = lines_of(handle)
            while read := _some(lines_left):
                lines = {number: raw for number, raw in enumerate(read, first) if not raw.isspace()}
                try:
                    rows = list(map(pydantic_core.from_json, lines.values()))
                except ValueError:
                    rows = [None]
                if set(map(type, rows)) <= {dict}:
                    yield list(lines), rows
                else:
                    yield from _jsonl_rows(path, lines, mistakes)
                first += len(read)
    except OSError as error:
        mistakes.add(path.name, "file", f"cannot be read: {error.strerror or error}")


def _some(lines: Iterator[bytes]) -> list[bytes]:
    """The next lines, as many as are in memory at once."""
    found: list[bytes] = []
    size = 0
    for line in itertools.islice(lines, _PORTION):
        found.append(line)
        size += len(line)
        if size > MAX_LINE:
            break
    return found


def _jsonl_rows(path: Path, lines: Mapping[int, bytes], mistakes: Mistakes) -> Iterator[_Portion]:
    """The rows, one by one, among lines that are not all rows."""
    for number, raw in lines.items():
        try:
            yield [number], [jsonlines.Reader([raw]).read(type=dict)]
        except jsonlines.InvalidLineError as error:
            mistakes.add(row_place(path, number), "line", why_invalid(error))
        except RecursionError:
            mistakes.add(row_place(path, number), "line", "is nested too deeply")


def _frame_portions(path: Path, mistakes: Mistakes, pick: _Pick) -> Iterator[_Portion]:
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            frame = _separated(path, pick)
        else:
            frame = unpacked(path, pick)
        check_cells(frame)
    except UnreadableTableError as error:
        mistakes.add(path.name, "file", f"cannot be read as {_kind(path)}: {error}")
        return
    for start in range(0, len(frame), _PORTION):
        rows = frame.slice(start, _PORTION).to_dicts()
        yield range(start + 1, start + 1 + len(rows)), rows


def _separated(path: Path, pick: _Pick) -> pl.DataFrame:
    """A CSV or TSV file. Every column of it is text: `1` and `null` stay that."""
    import polars as pl

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open_file(path) as file:
            _check_size(file)
            for _ in lines_of(file) if os.fstat(file.fileno()).st_size > MAX_LINE else ():
                pass
        table = pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
        wanted = pick(table.collect_schema().names())
        return pl.DataFrame() if wanted is None else table.select(wanted).collect()
    except OSError as error:
        raise UnreadableTableError(str(error.strerror or error)) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        text = str(error).strip()
        raise UnreadableTableError(text.splitlines()[0] if text else "no reason given") from error


def _check_size(file: BinaryIO) -> None:
    """Raise `OSError` where an opened table is larger than any may be."""
    if os.fstat(file.fileno()).st_size > MAX_UNPACKED:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_UNPACKED / 1e6:.0f} MB")


def require_table(path: Path) -> None:
    """Refuse a file that is not a table, before it is opened."""
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise PromptSetError(
            f"{printable(path)} is not a prompt set: give a folder with a set.toml, or a {kinds} "
            "file"
        )
