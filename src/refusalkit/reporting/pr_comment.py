"""An audit as Markdown for a pull-request comment or a job summary.

Ids, titles and names are untrusted: text that could be markup, a link or a mention goes into a code
span.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from refusalkit.reporting.data.formats import code_span
from refusalkit.scoring.audit import Audit
from refusalkit.scoring.hard_line import HardLine
from refusalkit.scoring.leaks import leaks_by_prompt
from refusalkit.untrusted import printable

_MAX_PROMPTS = 100
# Text that cannot be markup, a link, an emoji or a mention.
_PLAIN = re.compile(r"[A-Za-z0-9(](?:[A-Za-z0-9 ,;()%'/+.-]|[:&](?= ))*")
_MARK = {"held": "✅", "crossed": "❌", "inconclusive": "⚠️"}


def audit_comment(audit: Audit) -> str:
    """The audit as GitHub-flavoured Markdown: status, tables, leaks by prompt, notes.

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
    """The leaks by prompt, folded away: a crossed line can have hundreds."""
    groups = leaks_by_prompt(audit.leaks)
    planned = audit.manifest.trials if audit.manifest.kind == "run" else None
    rows = [
        (
            quoted(group.prompt_id),
            group.share(planned),
            quoted(group.labels),
            ", ".join(map(str, group.trials)),
            quoted(", ".join(group.rests_on)) if group.rests_on else "",
            quoted(", ".join(group.judges)),
        )
        for group in groups[:_MAX_PROMPTS]
    ]
    table = _table(("leaking prompt", "leaks", "label", "trials", "rests on", "judge"), rows)
    more = len(groups) - _MAX_PROMPTS
    if more > 0:
        table += f"\n\n... and {more} more leaking prompts."
    n = len(audit.leaks)
    found = f"{'1 leak' if n == 1 else f'{n} leaks'} on "
    found += "1 prompt" if len(groups) == 1 else f"{len(groups)} prompts"
    return f"<details><summary>{found}</summary>\n\n{table}\n\n</details>"


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
