"""JSON as text and back, and JSONL files line by line.

pydantic's reader and writer are several times faster than the standard library's, and a run reads
and writes six texts per unit. Lone surrogates and deep nesting are left to the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import jsonlines
import pydantic_core
from pydantic import BaseModel, ValidationError

from refusalkit.errors import RecordError
from refusalkit.files import lines_of, open_file
from refusalkit.untrusted import printable, well_formed


def to_bytes(value: Any) -> bytes:
    """Compact JSON as UTF-8. Lone surrogates, which UTF-8 cannot hold, are escaped."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def to_well_formed(value: Any) -> bytes:
    """Compact JSON as UTF-8 that any reader accepts.

    Lone surrogates are replaced, and NaN and the infinities, which JSON does not know, are null.
    """
    try:
        return pydantic_core.to_json(value, inf_nan_mode="null")
    except ValueError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
            text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
        return well_formed(text).encode()


def to_ascii(value: Any, *, indent: int | None = None) -> str:
    """JSON in ASCII only, which a file or terminal of any encoding can hold."""
    return to_ascii_bytes(value, indent=indent).decode("ascii")


def to_ascii_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """`to_ascii` as bytes. A polars frame becomes the list of its rows.

    Rows are made one at a time, so that they are never all in memory as Python objects.
    """
    try:
        return pydantic_core.to_json(value, indent=indent, ensure_ascii=True, fallback=_rows)
    except ValueError:
        return json.dumps(
            value, indent=indent, ensure_ascii=True, default=lambda frame: list(_rows(frame))
        ).encode("ascii")


def _rows(frame: Any) -> Iterator[dict[str, Any]]:
    if not hasattr(frame, "iter_rows"):
        raise TypeError(f"{type(frame).__name__} cannot be written as JSON")
    rows: Iterator[dict[str, Any]] = frame.iter_rows(named=True)
    return rows


def from_bytes(data: bytes) -> Any:
    """The value of a JSON text. Raises `ValueError` or `RecursionError` where it is not JSON."""
    try:
        return pydantic_core.from_json(data)
    except ValueError:
        return json.loads(data)


_M = TypeVar("_M", bound=BaseModel)


Location = tuple[int | str, ...]
"""Where in a record a mistake is: field names and list indexes, from the outside in."""


def validation_mistakes(error: ValidationError) -> Iterable[tuple[Location, str]]:
    """Each mistake of a pydantic error: its location, and what is wrong in plain words."""
    for item in error.errors(include_url=False):
        kind, message = item["type"], item["msg"]
        if kind == "extra_forbidden":
            message = "is not a known field"
        elif kind == "missing":
            message = "is missing"
        elif kind == "value_error":
            message = message.removeprefix("Value error, ")
        else:
            message = message[:1].lower() + message[1:]
        yield item["loc"], message


def dotted(loc: Location) -> str:
    """A location as people write it: ``messages.0.role``."""
    return ".".join(str(part) for part in loc) or "record"


def read_lines(path: Path, kind: type[_M]) -> Iterator[tuple[str, _M]]:
    """Each line of a JSONL file as a `kind`, with its place (``file:line``), without blank ones.

    Raises `RecordError` at the first line that is not such a record, naming file, line and field.
    """
    where = printable(path)
    try:
        handle = open_file(path)
    except OSError as error:
        raise RecordError(f"{where} cannot be read: {error.strerror}") from error
    with handle:
        for number, raw in enumerate(_bounded(handle, where), 1):
            if not raw.strip():
                continue
            place = f"{where}:{number}"
            try:
                yield place, kind.model_validate(jsonlines.Reader([raw]).read(type=dict))
            except jsonlines.InvalidLineError as error:
                raise RecordError(f"{place}: {printable(why_invalid(error))}") from error
            except RecursionError as error:
                raise RecordError(f"{place}: is nested too deeply") from error
            except ValidationError as error:
                loc, what = next(iter(validation_mistakes(error)))
                text = f"{place}: {printable(dotted(loc))}: {printable(what)}"
                raise RecordError(text) from error


def _bounded(handle: BinaryIO, where: str) -> Iterator[bytes]:
    try:
        yield from lines_of(handle)
    except OSError as error:
        raise RecordError(f"{where} cannot be read: {error.strerror}") from error


def why_invalid(error: jsonlines.InvalidLineError) -> str:
    """Why a line is not a JSON object, in plain words."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return f"is not UTF-8 (byte {cause.start})"
    if cause is not None:
        return f"is not JSON: {cause}"
    return "is not a JSON object"
