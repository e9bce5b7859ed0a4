"""A report as one self-contained HTML page that runs no script but its own."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Collection
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refusalkit.reporting.document.cautions import alarms, cautions, cautions_between
from refusalkit.reporting.document.differences import in_a_sentence
from refusalkit.reporting.document.facts import Facts
from refusalkit.reporting.document.parts import breakable, number, percent, printable_lines
from refusalkit.reporting.document.sections import headline, page_sections


def render_page(facts: Facts) -> str:
    """The page as HTML, with all untrusted text escaped."""
    environment = _environment()
    style, script = report_style(), _source("report.js")
    return environment.get_template("report.html.j2").render(
        **page_parts(facts),
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
        version=facts.runs[0].manifest.refusalkit,
    )


def page_parts(facts: Facts, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The data for a page's templates, `without` the sections with these ids."""
    return {
        "runs": [headline(run) for run in facts.runs],
        "alarms": alarms(facts),
        "difference": in_a_sentence(facts),
        "cautions": _all_cautions(facts),
        "sections": page_sections(facts, without=without),
    }


def report_style() -> str:
    """The style sheet of the page."""
    return _source("report.css")


REPORT_TEMPLATES = PackageLoader("refusalkit.reporting", "templates/report")


def make_environment(loader: BaseLoader) -> Environment:
    """An environment for templates of untrusted text: markup and hidden characters are escaped."""
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    environment.filters["breakable"] = breakable
    # Show hidden characters as escapes, whichever field they are in.
    environment.finalize = _visible
    return environment


@functools.cache
def _environment() -> Environment:
    return make_environment(REPORT_TEMPLATES)


def _all_cautions(facts: Facts) -> list[str]:
    if len(facts.runs) == 1:
        return cautions(facts.runs[0])
    said: dict[str, list[str]] = {}
    for run in facts.runs:
        for caution in cautions(run):
            said.setdefault(caution, []).append(run.name)
    each = [
        caution if len(names) == len(facts.runs) else f"{', '.join(names)}: {caution}"
        for caution, names in said.items()
    ]
    return [*cautions_between(facts), *each]


def _source(name: str) -> str:
    text = REPORT_TEMPLATES.get_source(_environment(), name)[0]
    # The hash must be of what the browser parses, which has \n as line ends.
    return text.replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _visible(value: Any) -> Any:
    return (
        printable_lines(value)
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )
