"""The plots of a report, as SVG for use inside a page.

The output of matplotlib is adapted to the page: colours become CSS variables (for light and dark),
style attributes become presentation attributes (the content security policy forbids the former),
ids get the figure's prefix, and fonts are inherited. Coordinates are CSS pixels at natural width.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLOURS = 6
"""Colours of the page's style sheet; more runs are told apart by marker."""

MAX_RUNS = 36
"""Runs in one plot: the combinations of colour and marker."""

MAX_ROWS = 100
"""Rows in one group of a dot plot."""

# Placeholders, replaced by variables of the page's style sheet.
_INK, _SOFT, _LINE = "#000001", "#000002", "#000003"
_SERIES = tuple(f"#0000{number:02x}" for number in range(16, 16 + MAX_COLOURS))
_VARIABLES = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)"} | {
    colour: f"var(--run-{number})" for number, colour in enumerate(_SERIES, 1)
}
# Runs must not differ by colour alone.
_MARKERS = ("o", "s", "D", "^", "v", "P")

_SETTINGS: Any = {
    "svg.fonttype": "none",  # keep text as text, in the page's font
    "svg.hashsalt": "refusalkit",  # the same figure gives the same bytes
    "text.parse_math": False,  # `$` in a title is not a formula
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"

Point = tuple[float, float, float]
"""A value and its interval, in percent."""


@dataclass(frozen=True)
class DotRow:
    """One row of a dot plot: a point for each run, or None."""

    label: str
    points: Sequence[Point | None]


class Hover(NamedTuple):
    """An area of a plot, in pixels from its top left, and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    says: str


def told(point: Point) -> str:
    """A value and its interval, for a tooltip."""
    value, low, high = point
    return f"{value:.1f}\u00a0% ({low:.1f} to {high:.1f})"


def dot_plot(
    groups: Sequence[tuple[str, Sequence[DotRow]]],
    *,
    name: str,
    description: str,
    narrow: bool,
    runs: Sequence[str] = (),
) -> Markup:
    """Rows of points with intervals on a scale of 0 to 100, in groups.

    `groups` are (heading, rows); a heading may be empty. `narrow` puts labels above their rows, for
    phones. `runs` are the names of several runs, for the tooltips.
    """
    groups = [(heading, rows) for heading, rows in groups if rows]
    n_runs = max((len(row.points) for _, rows in groups for row in rows), default=1)
    width = 340 if narrow else 760
    left, right = (14, 20) if narrow else (_label_width(groups), 22)
    step = max(22.0, 9.0 * n_runs + 8) + (15 if narrow else 0)
    head, foot, gap = 24.0, 26.0, 14.0
    peak = 22.0  # room for tick labels at the top
    heights = [(head if heading else 6.0) + step * len(rows) for heading, rows in groups]
    height = peak + sum(heights) + gap * max(0, len(groups) - 1) + foot
    hovers: list[Hover] = []
    with _figure(width, height) as figure:
        top = height - peak
        for (heading, rows), used in zip(groups, heights, strict=True):
            panel = step * len(rows)
            bottom = top - used
            axes = figure.add_axes(
                (left / width, bottom / height, (width - left - right) / width, panel / height)
            )
            _scale(axes, first=rows is groups[0][1], last=rows is groups[-1][1])
            axes.set_ylim(len(rows), 0)
            if heading:
                x = -left if not narrow else -left + 1
                _text(axes, heading, x, 7, _INK, at=(0, 1), size=12, bold=True)
            middles = [index + 0.5 + (7.5 / step if narrow else 0) for index in range(len(rows))]
            # One run: a rail through each row. Several: lines between the rows.
            rails = middles if n_runs == 1 else list(range(1, len(rows)))
            axes.hlines(rails, 0, 100, color=_LINE, linewidth=1, clip_on=False)
            for index, row in enumerate(rows):
                _label(axes, row.label, index, narrow=narrow, label_at=left)
            for number in range(n_runs):
                offset = (number - (n_runs - 1) / 2) * 9 / step
                marks = [
                    (middle + offset, row.points[number])
                    for middle, row in zip(middles, rows, strict=True)
                ]
                _draw(axes, number, marks, upright=False)
                whose = f", {runs[number]}" if len(runs) > 1 else ""
                tall = min(22.0, step) if n_runs == 1 else 9.0
                for (place, point), row in zip(marks, rows, strict=True):
                    if point is not None:
                        y = height - bottom - panel + place * step - tall / 2
                        across = (left, width - left - right)
                        says = f"{row.label}{whose}: {told(point)}"
                        hovers.append(_across(point, across, y, tall, says))
            top = bottom - gap
    return _inline(figure, name, description, hovers)


def columns_plot(
    heads: Sequence[str],
    series: Sequence[Sequence[Point | None]],
    *,
    name: str,
    description: str,
    x_title: str,
    runs: Sequence[str] = (),
) -> Markup:
    """Points with vertical intervals on a scale of 0 to 100 %, one column for each of `heads`."""
    width, height = 340, 210
    hovers: list[Hover] = []
    with _figure(width, height) as figure:
        axes = figure.add_axes((36 / width, 40 / height, 292 / width, 156 / height))
        axes.set_xlim(-0.5, len(heads) - 0.5)
        axes.set_ylim(0, 100)
        _bare(axes)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.yaxis.grid(visible=True, color=_LINE, linewidth=1)
        axes.set_xticks(range(len(heads)), heads)
        axes.set_xlabel(x_title, color=_SOFT, fontsize=11)
        for number, points in enumerate(series):
            offset = (number - (len(series) - 1) / 2) * min(0.14, 0.6 / max(1, len(series)))
            marks = [(column + offset, point) for column, point in enumerate(points)]
            _draw(axes, number, marks, upright=True)
            whose = f", {runs[number]}" if len(runs) > 1 else ""
            for (place, point), head in zip(marks, heads, strict=True):
                if point is not None:
                    x = 36 + (place + 0.5) / len(heads) * 292 - 5
                    y, tall = 14 + (1 - point[2] / 100) * 156, (point[2] - point[1]) / 100 * 156
                    says = f"{head}{whose}: {told(point)}"
                    hovers.append(Hover(x, min(y, 14 + 156 - 10), 10, max(tall, 10), says))
    return _inline(figure, name, description, hovers)


def scatter_plot(
    points: Sequence[tuple[int, str, Point, Point]],
    *,
    name: str,
    description: str,
    x_title: str,
    y_title: str,
) -> Markup:
    """Runs as points with their intervals both ways, on scales of 0 to 100 %.

    `points` are (number of the run, its name, across, upright).
    """
    width, height = 340, 330
    plot = (44.0, 12.0, 280.0, 276.0)  # left, top, width, height
    hovers: list[Hover] = []
    with _figure(width, height) as figure:
        left, top, wide, tall = plot
        bottom = height - top - tall
        axes = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        _bare(axes)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.grid(visible=True, color=_LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel(x_title, color=_SOFT, fontsize=11)
        axes.set_ylabel(y_title, color=_SOFT, fontsize=11)
        for number, run, across, upright in points:
            colour = _look(number)[0]
            low, high = upright[1:]
            soft: Any = {"color": colour, "alpha": 0.35, "linewidth": 2, "clip_on": False}
            axes.vlines([across[0]], [low], [high], **soft)
            _draw(axes, number, [(upright[0], across)], upright=False)
            x, y = left + across[0] / 100 * wide, top + (1 - upright[0] / 100) * tall
            says = f"{run}: {y_title} {told(upright)}, {x_title} {told(across)}"
            hovers.append(Hover(x - 9, y - 9, 18, 18, says))
    return _inline(figure, name, description, hovers)


def lines_plot(
    places: Sequence[float],
    series: Sequence[Sequence[Point | None]],
    *,
    name: str,
    description: str,
    x_title: str,
    narrow: bool,
) -> Markup:
    """Lines through points with vertical intervals on a scale of 0 to 100 %, at numbers in order.

    A point that is None interrupts its line.
    """
    width, height = (340, 230) if narrow else (760, 300)
    with _figure(width, height) as figure:
        axes = figure.add_axes(
            (36 / width, 44 / height, (width - 56) / width, (height - 60) / height)
        )
        reach = (places[-1] - places[0]) or 1.0
        axes.set_xlim(places[0] - 0.03 * reach, places[-1] + 0.03 * reach)
        axes.set_ylim(0, 100)
        _bare(axes)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.yaxis.grid(visible=True, color=_LINE, linewidth=1)
        axes.locator_params(axis="x", nbins=4 if narrow else 9)
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.set_xlabel(printable(x_title, 40 if narrow else 80), color=_SOFT, fontsize=11)
        for number, points in enumerate(series):
            values = [math.nan if point is None else point[0] for point in points]
            colour, _ = _look(number)
            axes.plot(places, values, color=colour, linewidth=1.5, clip_on=False)
            _draw(axes, number, list(zip(places, points, strict=True)), upright=True)
    return _inline(figure, name, description)


def bars_plot(
    heads: Sequence[str],
    series: Sequence[Sequence[float]],
    *,
    name: str,
    description: str,
    x_title: str,
    runs: Sequence[str] = (),
) -> Markup:
    """Vertical bars of shares in percent, side by side for each run."""
    width, height = 340, 210
    most = max((value for values in series for value in values), default=0.0) or 1.0
    hovers: list[Hover] = []
    with _figure(width, height) as figure:
        axes = figure.add_axes((36 / width, 40 / height, 292 / width, 156 / height))
        axes.set_xlim(-0.5, len(heads) - 0.5)
        axes.set_ylim(0, most * 1.08)
        _bare(axes)
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.grid(visible=True, color=_LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xticks(range(len(heads)), heads)
        axes.set_xlabel(x_title, color=_SOFT, fontsize=11)
        breadth = 0.72 / max(1, len(series))
        for number, values in enumerate(series):
            offset = (number - (len(series) - 1) / 2) * breadth
            places = [column + offset for column in range(len(values))]
            colour = _SERIES[number]
            axes.bar(places, values, width=breadth * 0.92, color=colour, linewidth=0)
            whose = f", {runs[number]}" if len(runs) > 1 else ""
            per = 292 / len(heads)
            for place, value, head in zip(places, values, heads, strict=True):
                tall = max(value / (most * 1.08) * 156, 6)
                x = 36 + (place + 0.5 - breadth / 2) * per
                says = f"{x_title} {head}{whose}: {value:.1f}\u00a0%"
                hovers.append(Hover(x, 14 + 156 - tall, breadth * per, tall, says))
    return _inline(figure, name, description, hovers)


def _across(point: Point, span: tuple[float, float], y: float, tall: float, says: str) -> Hover:
    """The area of a horizontal interval; `span` is where the scale begins, and its width."""
    start, wide = span
    low, high = (start + at / 100 * wide for at in point[1:])
    # At least as wide as a fingertip, however narrow the interval is.
    spare = max(0.0, 16 - (high - low)) / 2
    return Hover(low - spare, y, high - low + 2 * spare, tall, says)


def _label_width(groups: Sequence[tuple[str, Sequence[DotRow]]]) -> float:
    longest = max((len(row.label) for _, rows in groups for row in rows), default=0)
    return min(340.0, 16 + 6.4 * min(longest, 56))


def _label(axes: Axes, text: str, index: int, *, narrow: bool, label_at: float) -> None:
    if narrow:
        _text(axes, text, 0, -12, _INK, at=(0, index), size=11, on_data=True)
    else:
        _text(axes, text, -label_at, -4, _INK, at=(0, index + 0.5), size=12, on_data=True)


def _draw(
    axes: Axes, number: int, marks: Sequence[tuple[float, Point | None]], *, upright: bool
) -> None:
    """The points of one run with their intervals."""
    places = [place for place, point in marks if point is not None]
    points = [point for _, point in marks if point is not None]
    values = [value for value, _, _ in points]
    lows, highs = [low for _, low, _ in points], [high for _, _, high in points]
    colour, marker = _look(number)
    lines = axes.vlines if upright else axes.hlines
    lines(
        places, lows, highs, color=colour, alpha=0.45, linewidth=2, capstyle="round", clip_on=False
    )
    x, y = (places, values) if upright else (values, places)
    axes.plot(
        x,
        y,
        linestyle="none",
        marker=marker,
        color=colour,
        markersize=8 if marker == "P" else 6.5,
        markeredgewidth=0,
        clip_on=False,
    )


def _scale(axes: Axes, *, first: bool, last: bool) -> None:
    axes.set_xlim(0, 100)
    _bare(axes)
    axes.set_yticks([])
    ticks = [0, 25, 50, 75, 100]
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.tick_params(labeltop=first, labelbottom=last)
    axes.xaxis.grid(visible=True, color=_LINE, linewidth=1)


def _bare(axes: Axes) -> None:
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize=11, labelcolor=_SOFT, pad=5)


def _text(
    axes: Axes,
    text: str,
    x: float,
    y: float,
    colour: str,
    *,
    at: tuple[float, float],
    size: float,
    bold: bool = False,
    on_data: bool = False,
) -> None:
    """Text at an offset of `x`, `y` pixels from a point of the axes."""
    axes.annotate(
        # Control characters are not valid XML.
        printable(text, 56),
        at,
        xycoords=("axes fraction", "data" if on_data else "axes fraction"),
        xytext=(x, y),
        textcoords="offset points",
        color=colour,
        fontsize=size,
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    # Slow to import, and only pages need it.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # 72 dpi: one point of the figure is one pixel of the page.
    with mpl.rc_context(_SETTINGS):
        yield Figure(figsize=(width / 72, height / 72), facecolor="none")


def _inline(figure: Figure, name: str, description: str, hovers: Sequence[Hover] = ()) -> Markup:
    """The figure as an `<svg>` element for a page, with its tooltips."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # matplotlib's own font lacks some scripts; the page's fonts have them.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(out.getvalue())  # noqa: S314 - written by matplotlib above
    _strip(root)
    used = {value[1:] for node in root.iter() for value in _references(node)}
    for node in root.iter():
        _make_fit(node, name, used)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.attrib.pop("version", None)
    box = root.get("viewBox", "0 0 1 1").split()
    root.set("width", box[2])
    root.set("height", box[3])
    root.set("role", "img")
    root.set("aria-label", description)
    for hover in hovers:
        places = {key: f"{getattr(hover, key):.1f}" for key in ("x", "y", "width", "height")}
        area = ElementTree.SubElement(root, f"{_SVG}rect", {"class": "hover", **places})
        ElementTree.SubElement(area, f"{_SVG}title").text = printable(hover.says, 200)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    # Inline SVG in HTML takes no namespace prefixes.
    text = re.sub(r"(</?)ns\d+:", r"\1", text)
    text = re.sub(r'\sxmlns:ns\d+="[^"]*"', "", text)
    return Markup(re.sub(r"\n\s*", "", text))  # noqa: S704 - ElementTree escapes text


def _strip(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style") or callable(child.tag):
                parent.remove(child)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}defs" and not len(child):
                parent.remove(child)


def _references(node: ElementTree.Element) -> Iterator[str]:
    for value in (node.get(_HREF), node.get("href")):
        if value:
            yield value
    for name in ("clip-path", "style"):
        yield from re.findall(r"url\((#[^)]+)\)", node.get(name, ""))


def _make_fit(node: ElementTree.Element, prefix: str, used: set[str]) -> None:
    identity = node.attrib.pop("id", None)
    if identity in used:
        node.set("id", f"{prefix}-{identity}")
    href = node.attrib.pop(_HREF, None)
    if href is not None:
        node.set("href", f"#{prefix}-{href[1:]}")
    if "clip-path" in node.attrib:
        node.set("clip-path", node.attrib["clip-path"].replace("url(#", f"url(#{prefix}-"))
    if node.get("transform", "").startswith("rotate(-0 "):
        del node.attrib["transform"]
    for declaration in node.attrib.pop("style", "").split(";"):
        key, _, value = declaration.partition(":")
        _present(node, key.strip(), value.strip())


def _present(node: ElementTree.Element, key: str, value: str) -> None:
    """One style declaration as a presentation attribute."""
    if not key:
        return
    if key == "font":
        size = re.search(r"([\d.]+)px", value)
        node.set("font-size", size[1] if size else "11")
        if "bold" in value.split() or "700" in value.split():
            node.set("font-weight", "600")
    elif key in ("font-family", "stroke-linejoin"):
        return
    elif key == "font-weight":
        node.set(key, "600")
    elif value in _VARIABLES:
        node.set(key, _VARIABLES[value])
    else:
        node.set(key, value)


def labels_of_runs(
    names: Sequence[str], order: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The entries of a legend: name, number of the colour (1 to `MAX_COLOURS`) and marker.

    `order` has the numbers of the runs to list, in their order.
    """
    return [
        {"name": names[number], "colour": number % MAX_COLOURS + 1, "marker": _look(number)[1]}
        for number in (range(len(names[:MAX_RUNS])) if order is None else order)
    ]


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of a run: no two of the first `MAX_RUNS` share both."""
    return _SERIES[number % MAX_COLOURS], _MARKERS[(number + number // MAX_COLOURS) % len(_MARKERS)]
