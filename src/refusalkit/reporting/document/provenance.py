"""Sections on where figures come from: who judged, what it took, how to make them again.

What says how good a judge is (a calibration, canaries) is a block of the judge's section: a
function in `JUDGE_BLOCKS`, and a template for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from refusalkit.reporting.data import inversion_line
from refusalkit.reporting.document.configuration import configuration_of
from refusalkit.reporting.document.facts import RunFacts
from refusalkit.reporting.document.parts import (
    NOTHING,
    Section,
    Table,
    dollars,
    in_words,
    number,
    one_or,
    printable_lines,
    time,
)

Runs = Sequence[RunFacts]


def judge(runs: Runs) -> Section:
    """Who judged, what was left unscored, and what is known of how well."""
    judged = []
    for facts in runs:
        blocks = [block for build in JUDGE_BLOCKS if (block := build(facts)) is not None]
        judged.append({"name": facts.name, "facts": _judge_rows(facts), "blocks": blocks})
    data = {"judged": judged, "several": len(runs) > 1}
    return Section("judge", "Judge", "judge.html.j2", data)


def _judge_rows(facts: RunFacts) -> list[tuple[str, str]]:
    judging, entry = facts.judging, facts.judging.entry
    version = f" version {entry.version}" if entry.version is not None else ""
    rows = [("judge", f"{entry.name}{version}, {_kind(entry.kind)}")]
    if entry.model:
        rows.append(("model", entry.model))
    if entry.digest:
        rows.append(("digest of the judge file", entry.digest))
    asks = "four labels" if entry.graded else "a binary question: refused or not"
    rows.append(("asks", asks))
    rows.append(("labelled by the judge", number(judging.n_judged)))
    if judging.n_by_provider:
        rows.append(("settled by the provider's filter", number(judging.n_by_provider)))
    if judging.unscored:
        said = ", ".join(f"{why.replace('_', ' ')} {n}" for why, n in judging.unscored.items())
        rows.append(("left unscored by the judge", said))
    if judging.n_cut:
        rows.append(("answers of which it saw only a part", number(judging.n_cut)))
    for title, counts in (
        ("its own words", judging.words),
        ("really asked", judging.answered_by),
    ):
        if counts:
            shown = list(counts.items())[:12]
            more = "" if len(counts) <= 12 else f", and {len(counts) - 12} more"
            rows.append((title, ", ".join(f"{name} {n}" for name, n in shown) + more))
    return rows


def _kind(kind: str) -> str:
    words = {
        "llm": "a model with a rubric",
        "lexical": "a list of rules",
        "custom": "built in Python",
        "recorded": "the judgement that came with the answers",
    }
    return words.get(kind, kind)


def other_judges(facts: RunFacts) -> Section | None:
    """What the other judges of the run say, and how far all of them agree."""
    judging = facts.judging
    if not judging.others:
        return None
    rows = [[judging.id, in_words(facts.score.willingness), number(facts.score.n_scored)]]
    rows += [
        [name, in_words(score.willingness), number(score.n_scored)]
        for name, score in judging.others.items()
    ]
    heads = ["judge", "willingness", "scored"]
    tables = [Table("Willingness by each judge of the run, in percent", heads, rows)]
    if judging.agreements is not None:
        pairs = []
        for pair in judging.agreements.pairs:
            usual, refusal = pair.agreements[:2]
            values = (usual.accuracy, usual.kappa, refusal.kappa)
            cells = [NOTHING if value is None else f"{value:.2f}" for value in values]
            names = f"{pair.first} / {pair.second}"
            pairs.append([names, number(pair.n), *cells, number(len(pair.differ))])
        heads = ["judges", "both labelled", "agree", "kappa", "kappa (refusal)", "differ on"]
        caption = "Agreement of two judges: compliance against the rest; (refusal) against the rest"
        tables.append(Table(caption, heads, pairs))
    return Section("other-judges", "Other judges of this run", "tables.html.j2", {"tables": tables})


JUDGE_BLOCKS: tuple[Callable[[RunFacts], Section | None], ...] = (other_judges,)


def cost(runs: Runs) -> Section:
    """Dollars, tokens and seconds."""
    spent = [facts.spending for facts in runs]
    rows = [
        ["cost of all requests", *(dollars(s.cost_usd) for s in spent)],
        ["cost per scored unit", *(dollars(s.cost_per_scored_usd) for s in spent)],
    ]
    for part in ("model", "judge"):
        if any(s.tokens[part]["n_said"] for s in spent):
            for kind, words in (("input", "read"), ("output", "written"), ("reasoning", "thought")):
                name = f"{kind}_tokens"
                if any(s.tokens[part][name] for s in spent):
                    cells = [
                        number(s.tokens[part][name]) if s.tokens[part]["n_said"] else "unknown"
                        for s in spent
                    ]
                    rows.append([f"tokens {words} by the {part}", *cells])
    names = dict.fromkeys(name for s in spent for name in (s.latency_s or ()))
    for name in names:
        cells = [number(s.latency_s[name], "s") if s.latency_s else "unknown" for s in spent]
        titles = {"median": "latency, median", "slowest": "latency, slowest"}
        rows.append([titles.get(name, f"latency, {name} within"), *cells])
    rows.append(["time worked", *(time(s.worked_s) for s in spent)])
    caption = "All requests are counted, repeated ones too; latency includes retries and waiting"
    table = Table(caption, ["", *one_or([f.name for f in runs], "this run")], rows)
    return Section("cost", "Cost, tokens, time", "tables.html.j2", {"tables": [table]})


def configuration(runs: Runs) -> Section:
    """Everything a run was asked for, its digests, and the command that makes it again."""
    shown = []
    for facts in runs:
        manifest = facts.manifest
        notes = [
            f"{part}: {name} was left out: {why}"
            for part, entry in manifest.parameters.items()
            for name, why in entry.dropped.items()
        ]
        if (inverted := inversion_line(manifest)) is not None:
            notes.append(inverted)
        shown.append(
            {
                "name": facts.name,
                "command": printable_lines(facts.reproduction.command_lines),
                "obstacles": facts.reproduction.obstacles,
                "digests": [
                    ("run", manifest.id),
                    ("configuration", manifest.config_digest),
                    ("prompt set", manifest.prompt_set.digest),
                    ("judge file", facts.judging.entry.digest or "none"),
                    ("refusalkit", manifest.refusalkit),
                ],
                "notes": notes,
                "json": json.dumps(configuration_of(manifest), indent=1, ensure_ascii=True),
            }
        )
    data = {"shown": shown, "several": len(runs) > 1}
    return Section("configuration", "Configuration", "configuration.html.j2", data)
