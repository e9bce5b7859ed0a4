"""How objects show themselves: one line at a prompt, one small table in a notebook.

No repr shows the text of a prompt or an answer: a cell that ends in a prompt set or a completion
must not print what should be refused. Where there is such a text its length is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from refusalkit.untrusted import printable

# Colours are the notebook's own, dark or light: nothing here sets one.
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def one_line(shown: object, /, *facts: object, **named: object) -> str:
    """A repr of one line: ``Name(fact, name=value)``, without what is None or empty.

    `facts` are shown as text, `named` values as their repr; hidden characters are escaped.
    """
    parts = [printable(fact, 120) for fact in facts]
    parts += [
        f"{name}={_value(value)}" for name, value in named.items() if value not in (None, "", ())
    ]
    return f"{type(shown).__name__}({', '.join(parts)})"


def _value(value: object) -> str:
    # An enum's member as its value: 'refusal', not <Label.REFUSAL: 'refusal'>.
    return printable(repr(str(value) if isinstance(value, str) else value), 120)


def notebook_table(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    """An HTML table for a `_repr_html_`: words to the left, figures to the right, notes below.

    Text may be anybody's: hidden characters are shown as escapes, markup as text. Nothing outside
    is referred to.
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
