"""A report as one HTML page that needs nothing from outside and runs nothing but its own script."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from refusalkit.reporting.document.cautions import alarms, cautions, cautions_between
from refusalkit.reporting.document.differences import differences, in_a_sentence
from refusalkit.reporting.document.facts import Facts
from refusalkit.reporting.document.parts import Section, number, percent, printable_lines
from refusalkit.reporting.document.sections import SECTIONS, headline
from refusalkit.reporting.document.units import MAX_ROWS, TEXT_CHARS, UnitsTable, units_table


def render_page(facts: Facts, *, show_text: bool = False) -> str:
    """The page. Everything that somebody else wrote stands in it as text."""
    environment, runs = _environment(), facts.runs
    sections = [section for build in SECTIONS if (section := build(runs)) is not None]
    if (compared := differences(facts)) is not None:
        sections.insert(0, compared)
    # Before the configuration, which is for reference.
    sections.insert(-1, _units(units_table(runs, show_text=show_text), show_text, len(runs) > 1))
    style, script = _source(environment, "report.css"), _source(environment, "report.js")
    return environment.get_template("report.html.j2").render(
        runs=[headline(run) for run in runs],
        alarms=alarms(facts),
        difference=in_a_sentence(facts),
        cautions=_all_cautions(facts),
        sections=sections,
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
        version=runs[0].manifest.refusalkit,
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("refusalkit.reporting", "templates/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    # Hidden characters are shown as escapes, whatever field they stand in.
    environment.finalize = _visible
    return environment


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


def _units(table: UnitsTable, show_text: bool, several: bool) -> Section:
    data: dict[str, Any] = {
        "rows": table.rows.to_dicts(),
        "n_units": table.n_units,
        "n_shown": len(table.rows),
        "left_out": table.left_out,
        "n_texts_left_out": table.n_texts_left_out,
        "show_text": show_text,
        "text_chars": TEXT_CHARS,
        "most": MAX_ROWS,
        "several": several,
        "words": bool(table.rows["word"].drop_nulls().len()),
        "marks": sorted(set(table.rows["notable"].drop_nulls().to_list())),
    }
    return Section("units", "Units", "units.html.j2", data)


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0]
    # A browser reads line ends as \n, and the hash is of what it reads.
    return text.replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _visible(value: Any) -> Any:
    return (
        printable_lines(value)
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )
