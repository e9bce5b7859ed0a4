"""Output formats: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refusalkit import jsonl
from refusalkit.untrusted import printable


def to_json(data: Mapping[str, Any]) -> str:
    """Indented JSON in ASCII, so that no hidden character reaches a terminal."""
    return jsonl.to_ascii(data, indent=2)


def to_json_bytes(data: Mapping[str, Any]) -> bytes:
    """`to_json` as bytes; a frame becomes the list of its rows."""
    return jsonl.to_ascii_bytes(data, indent=2)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV (RFC 4180), with text that looks like a spreadsheet formula disarmed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(value, name) for name, value in zip(columns, row, strict=True)])
    return out.getvalue().removesuffix("\n")


def to_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; figures to one decimal."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_markdown_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


# Including the full-width forms.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def harmless_cell(text: str) -> str:
    """Text as a CSV cell that no spreadsheet evaluates as a formula."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _csv_cell(value: Any, column: str) -> Any:
    if isinstance(value, str):
        return harmless_cell(printable(value, 1000))
    if isinstance(value, bool):
        return "true" if value else "false"  # as in JSON, and in units.csv
    if not isinstance(value, float):
        return value
    # To four decimals a small p value would be 0.
    return f"{value:.4g}" if column == "p" or column.startswith("p_") else f"{value:.4f}"


def _markdown_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return markdown_text(value)


# What a forge turns into a mention or a link by itself, with all that it hangs together with.
_ACTIVE = re.compile(r"\S*(?:@|://|\bwww\.|\b(?:mailto|xmpp):)\S*", re.IGNORECASE)
# `#` comes before those whose replacements contain it.
_SPECIAL = "\\`*_{}[]#<>|"


def markdown_text(text: object, limit: int = 200) -> str:
    """Untrusted text as Markdown that shows it and does nothing.

    Markup is escaped; ``@names`` and bare addresses, which a forge would notify or link, are code.
    """
    shown = printable(text, limit)
    parts: list[str] = []
    at = 0
    for found in _ACTIVE.finditer(shown):
        parts += [_escaped(shown[at : found.start()]), code_span(found[0])]
        at = found.end()
    return "".join([*parts, _escaped(shown[at:])])


def code_span(text: str) -> str:
    """A code span whose fence is longer than any in `text` (CommonMark 6.1), safe in a table.

    `text` is one line without hidden characters.
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # A bar ends a table cell even inside code; the renderer removes the backslash.
    inner = text.replace("|", "\\|")
    pad = " " if inner[:1] in ("`", " ", "") or inner[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{inner or ' '}{pad}{fence}"


def _escaped(text: str) -> str:
    for special in _SPECIAL:
        text = text.replace(special, f"&#{ord(special)};" if special in "<>|" else f"\\{special}")
    return text


def dollars(value: float) -> str:
    """An amount of USD; below 1 to a hundredth of a cent."""
    if 0 < value < 0.0001:
        return "less than $0.0001"
    return f"${value:,.2f}" if value >= 1 or not value else f"${value:.4f}"


def spent_words(spent_usd: float | None) -> str:
    """The amount spent, or that it is unknown."""
    return "not known, a price is unknown" if spent_usd is None else dollars(spent_usd)
