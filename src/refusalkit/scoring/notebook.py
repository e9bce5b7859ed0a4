"""Results as a notebook shows them: one small table, self-contained and escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from refusalkit.types import Estimate
from refusalkit.untrusted import printable

ESTIMATE_HEADS = ("value", "95 % interval", "prompts", "responses", "unscored")

# Colours are the notebook's own, dark or light: nothing here sets one.
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


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


def estimate_cells(estimate: Estimate) -> tuple[str, str, str, str, str]:
    """An estimate as the cells below `ESTIMATE_HEADS`."""
    known = estimate.value is not None
    interval = known and estimate.low is not None and estimate.high is not None
    return (
        f"{estimate.value:.1f}" if known else "-",
        f"{estimate.low:.1f} to {estimate.high:.1f}" if interval else "-",
        str(estimate.n_prompts),
        str(estimate.n_responses),
        str(estimate.n_unscored),
    )


def _cell(text: str, tag: str, scope: str, index: int) -> str:
    scoped = f' scope="{scope}"' if scope else ""
    side = "left" if index == 0 else "right"
    weight = ";font-weight:400" if scope == "row" else ""
    return f'<{tag}{scoped} style="text-align:{side}{weight}">{_text(text, 200)}</{tag}>'


def _text(text: str, limit: int) -> str:
    return escape(printable(text, limit))
