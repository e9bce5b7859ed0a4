"""The forms data is written in: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refusalkit import jsonl
from refusalkit.untrusted import printable


def to_json(data: Mapping[str, Any]) -> str:
    """Indented JSON, ASCII only: no hidden character of a data set reaches a terminal."""
    return jsonl.to_ascii(data, indent=2)


def to_json_bytes(data: Mapping[str, Any]) -> bytes:
    """`to_json` as it is written; a frame among the values is the list of its rows."""
    return jsonl.to_ascii_bytes(data, indent=2)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV (RFC 4180). Text that a spreadsheet would take for a formula is made harmless."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(value) for value in row])
    return out.getvalue().removesuffix("\n")


def to_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; figures to one decimal."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_markdown_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


# With the wide forms that a Japanese keyboard gives.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def harmless_cell(text: str) -> str:
    """Text as a CSV cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return harmless_cell(printable(value, 1000))
    return f"{value:.4f}" if isinstance(value, float) else value


def _markdown_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    text = printable(value)
    # `#` before those that become `&#60;`, or it would be escaped in there.
    for special in "\\`*_{}[]#<>|":
        text = text.replace(special, f"&#{ord(special)};" if special in "<>|" else f"\\{special}")
    return text


def dollars(value: float) -> str:
    """An amount of USD, a small one to a hundredth of a cent."""
    if 0 < value < 0.0001:
        return "less than $0.0001"
    return f"${value:,.2f}" if value >= 1 or not value else f"${value:.4f}"


def spent_words(spent_usd: float | None) -> str:
    """What was spent, or that it is not known."""
    return "not known, a price is unknown" if spent_usd is None else dollars(spent_usd)
