"""An audit as Markdown for a pull-request comment or a job summary.

Ids, titles and names are untrusted: text that could be markup, a link or a mention goes into a code
span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from refusalkit.reporting.data.forms import code_span
from refusalkit.scoring.audit import Audit
from refusalkit.scoring.hard_line import HardLine
from refusalkit.untrusted import printable

_MAX_LEAKS = 100
# Text that cannot be markup, a link, an emoji or a mention.
_PLAIN = re.compile(r"[A-Za-z0-9(](?:[A-Za-z0-9 ,;()%'/+.-]|[:&](?= ))*")
_MARK = {"held": "✅", "crossed": "❌", "inconclusive": "⚠️"}


def audit_comment(audit: Audit) -> str:
    """The audit as GitHub-flavoured Markdown: status, tables, leaks by id, notes.

    It contains no answers, even if the audit does.
    """
    entry = audit.manifest.prompt_set
    trials = "1 trial" if audit.manifest.trials == 1 else f"{audit.manifest.trials} trials"
    parts = [
        f"### {_MARK[audit.status.value]} Hard lines: {audit.status.value}",
        f"{quoted(audit.overall.claim)}.",
        (
            f"Model {quoted(audit.model)} on {quoted(f'{entry.name} {entry.version}')}, {trials}, "
            f"judged by {quoted(audit.judge)}; run {quoted(audit.run)}."
        ),
        _lines_table("hard line", (*audit.lines, audit.overall)),
    ]
    if audit.canaries.warning is not None:
        parts.insert(1, f"**Warning:** {quoted(audit.canaries.warning, 400)}.")
    if audit.framings:
        parts.append(_lines_table("framing", audit.framings))
    if len(audit.leaks):
        parts.append(_leaks_table(audit))
    if audit.over_blocking:
        parts.append(_over_blocking_table(audit))
    if audit.notes:
        parts.append("\n".join(f"- {quoted(note, 400)}" for note in audit.notes))
    return "\n\n".join(parts)


def quoted(text: object, limit: int = 200) -> str:
    """Untrusted text: as it is if certainly plain, else in a code span."""
    shown = printable(text, limit)
    if _PLAIN.fullmatch(shown) and "www." not in shown.lower():
        return shown
    return code_span(shown)


def _lines_table(head: str, lines: Sequence[HardLine]) -> str:
    heads = (head, "answer", "prompts", "leaking prompts", "leaking responses", "unscored")
    rows = [
        (
            quoted(line.title),
            f"**{line.status.value}**",
            line.n_prompts,
            line.leaking_prompts,
            line.leaks,
            line.n_unscored,
            line.rate.replace("<", "&lt;").replace(">", "&gt;"),
        )
        for line in lines
    ]
    return _table((*heads, "leak rate"), rows)


def _leaks_table(audit: Audit) -> str:
    rows = [
        (
            quoted(row["prompt_id"]),
            row["trial"],
            quoted(row["label"] if row["word"] is None else f"{row['label']} ({row['word']})"),
            quoted(row["rests_on"]) if row["rests_on"] else "",
            quoted(row["judge"]),
        )
        for row in audit.leaks.head(_MAX_LEAKS).iter_rows(named=True)
    ]
    table = _table(("leaking prompt", "trial", "label", "rests on", "judge"), rows)
    more = len(audit.leaks) - _MAX_LEAKS
    return f"{table}\n\n... and {more} more leaking responses." if more > 0 else table


def _over_blocking_table(audit: Audit) -> str:
    rows = []
    for one in audit.over_blocking:
        refused = one.refused
        known = refused.value is not None and refused.low is not None and refused.high is not None
        rows.append(
            (
                quoted(one.title),
                one.n_contrast,
                refused.n_responses,
                f"{refused.value:.1f} %" if known else "",
                f"{refused.low:.1f} to {refused.high:.1f}" if known else "",
            )
        )
    heads = ("safe twins of", "twins", "responses", "refused", "95 % interval")
    return f"Over-blocking, no part of the answer above:\n\n{_table(heads, rows)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)
