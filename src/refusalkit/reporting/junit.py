"""An audit as JUnit XML, for the test view of a CI system.

A run is a `testsuite`; each hard line, each framing and the overall answer is a `testcase`.
*crossed* is a `failure`. *inconclusive* is an `error`: nearly every CI system shows a skipped test
as green, and a line that was not shown to hold must not look green.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from refusalkit.errors import StorageError
from refusalkit.files import write_file
from refusalkit.scoring.audit import Audit
from refusalkit.scoring.hard_line import AuditStatus, HardLine
from refusalkit.scoring.over_blocking import OverBlocking
from refusalkit.untrusted import printable

# Characters not allowed in XML 1.0 (section 2.2, Char). `printable` escapes most of them.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_FIGURES = (
    "n_prompts",
    "n_units",
    "n_unscored",
    "n_unread",
    "n_tested",
    "n_open",
    "n_blocked",
    "n_truncated",
    "leaks",
    "leaking_prompts",
    "upper_percent",
    "lower_percent",
)
_MAX_CHARS = 1000


def write_junit(audit: Audit, path: Path) -> None:
    """Write `audit` to `path`, whole or not at all. Raises `StorageError`."""
    data = junit_xml(audit)
    try:
        write_file(path, data)
    except OSError as error:
        raise StorageError(f"cannot write {printable(path)}: {error.strerror or error}") from error


def junit_xml(audit: Audit) -> bytes:
    """The JUnit XML of an audit, UTF-8. No answer text is in it."""
    counts = {"tests": "0", "failures": "0", "errors": "0", "skipped": "0", "time": "0"}
    root = ET.Element("testsuites", {"name": "refusalkit audit", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _clean(audit.run), **counts})
    entry = audit.manifest.prompt_set
    judge = audit.manifest.judges[audit.judge]
    _properties(
        suite,
        {
            "model": audit.model,
            "prompt_set": f"{entry.name} {entry.version}",
            "prompt_set_digest": entry.digest,
            "trials": audit.manifest.trials,
            "judge": audit.judge,
            "judge_digest": judge.digest or "",
            "status": audit.status.value,
            "max_leaks": audit.max_leaks,
            "bound_percent": "" if audit.bound_percent is None else audit.bound_percent,
            "refusalkit": audit.manifest.refusalkit,
        },
    )
    over_blocking = {one.slug: one for one in audit.over_blocking}
    leaks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in audit.leaks.iter_rows(named=True):
        said = f"leak: {row['prompt_id']}, trial {row['trial']}: {row['label']}, by {row['judge']}"
        leaks["hard-line", row["category"]].append(said)
        leaks["framing", row["framing"] or "bare"].append(said)
        leaks["overall", audit.overall.slug].append(said)
    parts = {"hard-line": audit.lines, "framing": audit.framings, "overall": (audit.overall,)}
    for kind, lines in parts.items():
        for line in lines:
            twins = None if kind == "framing" else over_blocking.get(line.slug)
            case = _testcase(suite, line, kind, twins)
            if line.status is not AuditStatus.HELD:
                notes = audit.notes if kind == "overall" else ()
                _add_why(case, line, [*leaks[kind, line.slug], *_missing(line), *notes])
    cases = suite.findall("testcase")
    for element in (root, suite):
        element.set("tests", str(len(cases)))
        element.set("failures", str(len(suite.findall("testcase/failure"))))
        element.set("errors", str(len(suite.findall("testcase/error"))))
    if audit.notes:
        ET.SubElement(suite, "system-out").text = _clean("\n".join(audit.notes), lines=True)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _testcase(
    suite: ET.Element, line: HardLine, kind: str, twins: OverBlocking | None
) -> ET.Element:
    case = ET.SubElement(
        suite,
        "testcase",
        {"classname": f"refusalkit.{kind}", "name": _clean(line.slug), "time": "0"},
    )
    figures = {name: getattr(line, name) for name in _LINE_FIGURES}
    if twins is not None and twins.refused.value is not None:
        figures["twins_refused_percent"] = twins.refused.value
        figures["twins_refused_low"] = twins.refused.low
        figures["twins_refused_high"] = twins.refused.high
    _properties(case, {"status": line.status.value, **figures})
    return case


def _add_why(case: ET.Element, line: HardLine, evidence: Iterable[str]) -> None:
    """Add the status of a line that was not held, and the evidence against it."""
    name = "failure" if line.status is AuditStatus.CROSSED else "error"
    message = f"{line.title}: {line.status.value}: {line.claim}"
    found = ET.SubElement(case, name, {"type": line.status.value, "message": _clean(message)})
    found.text = _clean("\n".join(evidence), lines=True)


def _missing(line: HardLine) -> Iterator[str]:
    """What, other than leaks, keeps a line from being held."""
    if line.n_unscored:
        yield f"unscored responses: {line.n_unscored} of {line.n_units}"
    if line.n_unread:
        yield f"answers that no judge read to their end: {line.n_unread}"
    if not line.n_prompts:
        yield "no prompt of it was asked"


def _properties(parent: ET.Element, values: dict[str, object]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in values.items():
        value = f"{value:.4f}" if isinstance(value, float) else value
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})


def _clean(value: object, *, lines: bool = False) -> str:
    """Text as valid XML: hidden characters escaped, invalid ones dropped."""
    if lines:
        return "\n".join(_clean(line) for line in str(value).split("\n"))
    return _NOT_XML.sub("", printable(value, _MAX_CHARS))
