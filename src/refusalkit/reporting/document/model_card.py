"""A report as Markdown for a model card: a badge line, tables, citations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from refusalkit.reporting.data import (
    comparison_markdown,
    figure_rows,
    frame_by,
    frame_rows,
    set_lines,
    spent_words,
    to_markdown,
)
from refusalkit.reporting.data.formats import markdown_text
from refusalkit.reporting.document.cautions import alarms, cautions, cautions_between
from refusalkit.reporting.document.facts import Facts, RunFacts
from refusalkit.reporting.document.parts import in_words
from refusalkit.reporting.document.provenance import canary_line, preset_of
from refusalkit.scoring.hard_line import HardLine
from refusalkit.untrusted import printable


def render_model_card(facts: Facts) -> str:
    """The Markdown of one or several runs. It refers to no badge server."""
    runs = facts.runs
    warnings = [f"> **Warning.** {_plain(warning, 1000)}." for warning in alarms(facts)]
    if len(runs) == 1:
        heading, *rest = _run(runs[0], level=1)
        parts = [heading, *warnings, *rest]
    else:
        parts = ["# RefusalBench by refusalkit", *warnings, _side_by_side(runs)]
        parts += [_quote(cautions_between(facts))] if facts.obstacles else []
        for run in runs:
            parts += _run(run, level=2)
        if facts.comparison is not None:
            # Its warnings are at the top already.
            compared = replace(facts.comparison, warnings=())
            parts += ["## Differences", comparison_markdown(compared)]
    parts += ["## How to cite", _citations(runs)]
    return "\n\n".join(parts) + "\n"


def _run(facts: RunFacts, *, level: int) -> list[str]:
    score, entry = facts.score, facts.manifest.prompt_set
    head = "#" * level
    title = _plain(score.model if level == 1 else facts.name)
    found = [
        f"{head} RefusalBench by refusalkit: {title}" if level == 1 else f"{head} {title}",
        _badge(facts),
        (
            f"{_plain(entry.name)} {_plain(entry.version)}, {score.n_prompts} prompts x "
            f"{score.trials} trials, judged by {_plain(score.judge)}, {facts.date or 'no date'}. "
            "Willingness is the average credit in percent: an ordinary request earns it by being "
            "answered, a hard-line one by being refused. It does not say whether an answer is "
            "correct or safe."
        ),
    ]
    if said := cautions(facts):
        found.append(_quote(said))
    found.append(to_markdown(*figure_rows(score)))
    found += _about(facts)
    found += [f"{_plain(line)}." for line in set_lines(facts.manifest)]
    if facts.audit is not None:
        audit = facts.audit
        found.append(f"Hard lines: **{audit.status.value}**, {_plain(audit.overall.claim)}.")
        found.append(_lines("hard line", (*audit.lines, audit.overall)))
        if audit.framings:
            found.append(_lines("framing", audit.framings))
        if audit.over_blocking:
            over = [[one.title, one.n_contrast, str(one.refused)] for one in audit.over_blocking]
            found.append(to_markdown(["safe twins of", "twins", "refused"], over))
    by_category = to_markdown(*frame_rows(frame_by(score, "category").drop("title")))
    summary = "<details><summary>By category</summary>"
    found.append(f"{summary}\n\n{by_category}\n\n</details>")
    again = facts.reproduction
    if again.command:
        found.append(f"To reproduce:\n\n```sh\n{_fenced(again.command)}\n```")
    return found


def _lines(head: str, lines: Sequence[HardLine]) -> str:
    heads = [head, "answer", "prompts", "leaks", "unscored", "leak rate"]
    rows = [
        [
            line.title,
            line.status.value,
            line.n_prompts,
            line.leaks,
            line.n_unscored,
            line.rate,
        ]
        for line in lines
    ]
    return to_markdown(heads, rows)


def _about(facts: RunFacts) -> list[str]:
    """Background of the figures: variance, votes, canaries, preset, cost."""
    score = facts.score
    said = list(score.variance.sentences)
    if (unscored := score.unscored_sentence) is not None:
        said.append(f"{unscored}.")
    if score.n_framed:
        said.append(
            f"{score.n_framed} prompts are framed hard-line requests, which no rate counts."
        )
    votes = score.council
    if votes is not None and votes.unanimous_percent is not None:
        said.append(
            f"Council of {len(votes.members)}, {votes.rule}: all agree on "
            f"{votes.unanimous_percent:.1f} % of {votes.n_answers} answers."
        )
    if score.n_cut:
        said.append(f"Long answers shortened for the judge: {score.n_cut}.")
    if score.fallback_answers:
        said.append(f"Labelled by the fallback of a blocked judge: {score.fallback_answers}.")
    if score.canaries.asked:
        said.append(f"Canaries: {canary_line(score.canaries)}.")
    preset = preset_of(facts.manifest)
    if preset is not None:
        left = f", except for {', '.join(preset['otherwise'])}" if preset["otherwise"] else ""
        said.append(f"Preset {preset['name']}: {preset['description']}{left}.")
    if (spent := facts.spending.cost_usd) != 0:
        said.append(f"Cost of all requests: {spent_words(spent)}.")
    return [" ".join(_plain(sentence) for sentence in said)] if said else []


def _badge(facts: RunFacts) -> str:
    """One line for the top of a card."""
    score = facts.score
    said = [f"**RefusalBench willingness {score.willingness}**"]
    said.append(
        "no hard lines in the set"
        if facts.audit is None
        else f"hard lines **{facts.audit.status.value}**"
    )
    if not facts.is_complete:
        said.append(f"**incomplete**, {score.n_owed} of {score.n_units} units missing")
    said.append(f"{score.unscored_percent:.1f} % unscored")
    return " \u00b7 ".join(said)


def _side_by_side(runs: Sequence[RunFacts]) -> str:
    heads = ["run", "willingness, percent", "hard lines", "unscored"]
    rows = [
        [
            facts.name + ("" if facts.is_complete else " (incomplete)"),
            in_words(facts.score.willingness),
            facts.audit.status.value if facts.audit else "none",
            f"{facts.n_unscored} of {facts.score.n_units}",
        ]
        for facts in runs
    ]
    return to_markdown(heads, rows)


def _citations(runs: Sequence[RunFacts]) -> str:
    entries = [_report_entry(facts) for facts in runs]
    versions = sorted({facts.manifest.refusalkit for facts in runs})
    entries.append(
        _entry(
            "software",
            "refusalkit",
            author="{The refusalkit maintainers}",
            title="refusalkit",
            version=_tex(", ".join(versions)),
            note="Measures how often a language model refuses and whether its hard lines hold",
        )
    )
    entries.append(
        _entry(
            "techreport",
            "hermes4",
            author=(
                "Teknium, Ryan and Jin, Roger and Suphavadeeprasit, Jai and Mahan, Dakota and "
                "Quesnelle, Jeffrey and Li, Joe and Guang, Chen and Sands, Shannon and "
                "Malhotra, Karan"
            ),
            title="Hermes 4 Technical Report",
            institution="Nous Research",
            year="2025",
            eprint="2508.18255",
            archiveprefix="arXiv",
            note="RefusalBench: section 4.5.1",
        )
    )
    return "```bibtex\n" + "\n\n".join(entries) + "\n```"


def _report_entry(facts: RunFacts) -> str:
    manifest, entry = facts.manifest, facts.manifest.prompt_set
    title = (
        f"RefusalBench by refusalkit: {facts.score.model} on {entry.name} {entry.version}, "
        f"judged by {facts.score.judge}"
    )
    note = (
        f"Willingness {facts.score.willingness}; prompt set {entry.digest}; "
        f"judge file {facts.judging.entry.digest or 'none'}; "
        f"configuration {manifest.config_digest}"
    )
    key = re.sub(r"[^a-z0-9]+", "-", f"refusalbench-{manifest.id}".lower()).strip("-")
    year = {"year": facts.date[:4]} if facts.date else {}
    return _entry("misc", key, title=f"{{{_tex(title)}}}", note=_tex(note), **year)


def _entry(kind: str, key: str, **fields: str) -> str:
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {special: f"\\{special}" for special in "{}%$#&_"}


def _tex(text: str) -> str:
    # A backtick could close the surrounding fence.
    shown = printable(text, 600).replace("`", "'")
    return "".join(_TEX.get(char, char) for char in shown)


def _plain(text: str, limit: int = 400) -> str:
    """Text with everything escaped that Markdown could interpret."""
    return markdown_text(text, limit)


def _fenced(text: str) -> str:
    # A single line cannot close the fence.
    return printable(text, 4000)


def _quote(lines: Sequence[str]) -> str:
    return "\n".join(f"> - {_plain(line)}." for line in lines)
