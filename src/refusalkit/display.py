"""How objects show themselves: one line at a prompt, one small table in a notebook.

No repr shows the text of a prompt or an answer: a cell that ends in a prompt set or a completion
must not print what should be refused. Where there is such a text its length is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Any, TypeVar

from refusalkit.untrusted import printable

_T = TypeVar("_T")

# Colours are the notebook's own, dark or light: nothing here sets one.
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def shows(*names: str, **computed: Callable[[Any], object]) -> Callable[[type[_T]], type[_T]]:
    """Gives a class a one-line repr and a small table in notebooks.

    They show the attributes in `names`, then what is `computed` from the object; what is None,
    empty or False is left out. A collection is shown by its length, a frame by its height. A
    class that has a `_repr_html_` keeps it.
    """

    def facts(shown: Any) -> Iterator[tuple[str, object]]:
        for name in names:
            yield name, getattr(shown, name)
        for name, compute in computed.items():
            yield name, compute(shown)

    def one_line(self: Any) -> str:
        parts = []
        for name, value in facts(self):
            if not _is_nothing(value):
                # str(): a member of an enum is shown as its value.
                quoted = isinstance(value, str)
                parts.append(
                    f"{name}={printable(repr(str(value)), 120) if quoted else _text_of(value)}"
                )
        return f"{type(self).__name__}({', '.join(parts)})"

    def table(self: Any) -> str:
        rows = [
            (name.replace("_", " "), _text_of(value))
            for name, value in facts(self)
            if not _is_nothing(value)
        ]
        return notebook_table(type(self).__name__, ("", ""), rows)

    def add(shown: type[_T]) -> type[_T]:
        shown.__repr__ = one_line  # type: ignore[method-assign]
        if not hasattr(shown, "_repr_html_"):
            shown._repr_html_ = table  # type: ignore[attr-defined]
        return shown

    return add


def _is_nothing(value: object) -> bool:
    return (
        value is None
        or value is False
        or (isinstance(value, str) and not value)
        or _size(value) == 0
    )


def _size(value: object) -> int | None:
    """The length of a collection or the height of a frame; None of anything else."""
    height = getattr(value, "height", None)
    if isinstance(height, int):
        return height
    return len(value) if isinstance(value, tuple | list | dict | set | frozenset) else None


def _text_of(value: object) -> str:
    size = _size(value)
    if size is not None:
        return str(size)
    if isinstance(value, float):
        return f"{value:g}"
    return printable(value, 160)


def notebook_table(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    """An HTML table for a `_repr_html_`: words to the left, figures to the right, notes below.

    The text is untrusted: hidden characters are shown as escapes, markup as text. The HTML loads
    nothing from elsewhere.
    """
    head = "".join(_cell(text, "th", "col", index) for index, text in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(
            _cell(text, "td" if index else "th", "" if index else "row", index)
            for index, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    below = "".join(f"<div>{_text(note, 400)}</div>" for note in notes)
    return (
        f'<div><table style="{_STYLE}"><caption style="text-align:left;font-weight:600">'
        f"{_text(title, 200)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<div style="font-size:90%">{below}</div></div>'
    )


def _cell(text: str, tag: str, scope: str, index: int) -> str:
    scoped = f' scope="{scope}"' if scope else ""
    side = "left" if index == 0 else "right"
    weight = ";font-weight:400" if scope == "row" else ""
    return f'<{tag}{scoped} style="text-align:{side}{weight}">{_text(text, 200)}</{tag}>'


def _text(text: str, limit: int) -> str:
    return escape(printable(text, limit))
