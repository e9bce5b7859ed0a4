"""Sections on where the figures come from: the judge, the cost, the configuration.

The quality of a judge is described in blocks of the judge's section: functions in `JUDGE_BLOCKS`
that return sentences and tables for judge_block.html.j2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from refusalkit.config.presets import PRESETS
from refusalkit.config.resolve import resolve_config
from refusalkit.errors import RefusalkitError
from refusalkit.reporting.data import DESCRIPTIONS, preset_rows, set_lines
from refusalkit.reporting.document.configuration import configuration_of
from refusalkit.reporting.document.facts import Facts, RunFacts
from refusalkit.reporting.document.parts import (
    ALL,
    NOTHING,
    Section,
    Table,
    dollars,
    in_words,
    number,
    one_or,
    percent,
    printable_lines,
    time,
)
from refusalkit.runs.canaries import CanaryCheck
from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.agreement.judge_pairs import JudgePair
from refusalkit.types import Unscored


def judge(report: Facts) -> Section:
    """The judge, what it left unscored, and what is known about its quality."""
    runs = report.runs
    judged = []
    for facts in runs:
        blocks = [block for build in JUDGE_BLOCKS if (block := build(facts)) is not None]
        judged.append({"name": facts.name, "facts": _judge_rows(facts), "blocks": blocks})
    data = {"judged": judged, "several": len(runs) > 1}
    return Section("judge", "Judge", "judge.html.j2", data)


def _judge_rows(facts: RunFacts) -> list[tuple[str, str]]:
    judging, entry, score = facts.judging, facts.judging.entry, facts.score
    version = f" version {entry.version}" if entry.version is not None else ""
    rows = [("judge", f"{entry.name}{version}, {entry.of_kind.title}")]
    if entry.model:
        rows.append(("model", entry.model))
    if entry.digest:
        rows.append(("digest of the judge file", entry.digest))
    asks = "four labels" if entry.graded else "a binary question: refused or not"
    rows.append(("asks", asks))
    rows.append(("labelled by the judge", number(judging.n_judged)))
    if judging.n_by_provider:
        rows.append(("blocked by the provider's filter", number(judging.n_by_provider)))
    if judging.unscored:
        said = ", ".join(f"{why.replace('_', ' ')} {n}" for why, n in judging.unscored.items())
        rows.append(("left unscored by the judge", said))
    if withheld := score.unscored.get(Unscored.WITHHELD.value, 0):
        rows.append(("answers withheld from it", number(withheld)))
    if score.n_cut:
        rows.append(("long answers shortened to head and tail", number(score.n_cut)))
    for title, counts in (
        ("the judge's own words", score.judge_words),
        ("verdicts based on", score.rests_on),
        ("judge asked", judging.answered_by),
    ):
        if counts:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            more = "" if len(ordered) <= 12 else f", and {len(ordered) - 12} more"
            rows.append((title, ", ".join(f"{name} {n}" for name, n in ordered[:12]) + more))
    if entry.hard_line_judge is not None:
        rows.append(("judge of the hard lines", entry.hard_line_judge.id))
    if entry.fallback is not None:
        labelled = f"{entry.fallback.id}, labelled {number(score.fallback_answers)}"
        rows.append(("fallback if the judge is blocked", labelled))
    if (beside := score.keyword_fallback) is not None and beside.n_units:
        rate = "" if beside.refusal_rate is None else f"; refusal rate {beside.refusal_rate:.1f} %"
        unread = f", {beside.n_withheld} withheld" if beside.n_withheld else ""
        said = f"of {beside.n_units} answers without a label {beside.refusals} refused"
        title = "reference environment's keywords (not in the score)"
        rows.append((title, f"{said}, {beside.others} not{unread}{rate}"))
    if score.canaries.asked:
        rows.append(("canaries (answers with known labels)", canary_line(score.canaries)))
    return rows


def canary_line(found: CanaryCheck) -> str:
    """How many canaries were judged correctly, and which were not."""
    said = f"{found.right} of {found.asked} judged right"
    for what, names in (("wrong", found.wrong), ("no label", found.unscored)):
        if names:
            said += f"; {what}: {', '.join(names)}"
    return said


def other_judges(facts: RunFacts) -> Section | None:
    """Willingness by the run's other judges, and agreement between all of them."""
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
        tables.append(_pairs_table(judging.agreements.pairs))
    return _block("other-judges", "Other judges of this run", tables)


def council(facts: RunFacts) -> Section | None:
    """The votes of a council's members and how far they agree."""
    votes = facts.score.council
    if votes is None:
        return None
    said = f"{len(votes.members)} judges, rule: {votes.rule}."
    if votes.unanimous_percent is not None:
        said += (
            f" All votes agree on {percent(votes.unanimous_percent)}\u00a0% of the "
            f"{number(votes.n_answers)} answers with at least two votes."
        )
    if votes.n_owed:
        said += f" {number(votes.n_owed)} decisions are pending because a vote failed."
    rows = [[name, number(votes.labelled.get(name, 0))] for name in votes.members]
    tables = [Table("Labels by each member", ["member", "labels"], rows)]
    if votes.pairs:
        tables.append(_pairs_table(votes.pairs))
    return _block("council", "Council", tables, said)


def _pairs_table(pairs: Sequence[JudgePair]) -> Table:
    rows = []
    for pair in pairs:
        usual, refusal = pair.agreements[:2]
        values = (usual.accuracy, usual.kappa, refusal.kappa)
        cells = [NOTHING if value is None else f"{value:.2f}" for value in values]
        names = f"{pair.first} / {pair.second}"
        rows.append([names, number(pair.n), *cells, number(len(pair.differ))])
    heads = ["judges", "both labelled", "agree", "kappa", "kappa (refusal)", "differ on"]
    caption = "Agreement in pairs: compliance or not; (refusal): refusal or not"
    return Table(caption, heads, rows)


def _block(name: str, title: str, tables: Sequence[Table], *sentences: str) -> Section:
    data = {"sentences": sentences, "tables": tables}
    return Section(name, title, "judge_block.html.j2", data)


def corrected(facts: RunFacts) -> Section | None:
    """The figures corrected for the judge's errors, beside those as judged."""
    found = facts.correction
    if found is None:
        return None
    if found.refused:
        return _block(
            "corrected", "Corrected for judge error", (), f"Not corrected: {found.refused}."
        )
    rows = []
    for figure in found.figures:
        if figure.uncorrected.value is None:
            continue
        shown = "not corrected" if figure.corrected is None else in_words(figure.corrected)
        mark = " (clipped)" if figure.clipped else ""
        rows.append([figure.name, in_words(figure.uncorrected), shown + mark])
    said = [f"Corrected by {found.by}, measured on answers labelled by people."]
    said += ["The score itself is unchanged."]
    said += [
        f"The {figure.name} is not corrected: {figure.why_not}."
        for figure in found.figures
        if figure.corrected is None and figure.why_not and figure.uncorrected.value is not None
    ]
    if any(figure.clipped for figure in found.figures):
        said.append("Clipped: the calibration may not describe this judge on these answers.")
    said += [f"{note}." for note in found.notes]
    heads = ["figure", "as judged", "corrected"]
    table = Table("In percent, with 95 % intervals", heads, rows)
    return _block("corrected", "Corrected for judge error", [table], *said)


JUDGE_BLOCKS: tuple[Callable[[RunFacts], Section | None], ...] = (corrected, council, other_judges)


def cost(report: Facts) -> Section:
    """Cost, tokens and time."""
    runs = report.runs
    spent = [facts.spending for facts in runs]
    rows = [
        ["cost of all requests", *(dollars(s.cost_usd) for s in spent)],
        ["cost per scored unit", *(dollars(s.cost_per_scored_usd) for s in spent)],
    ]
    for part in ("model", "judge"):
        if any(s.tokens[part]["n_said"] for s in spent):
            for kind, words in (
                ("input", "read"),
                ("cache_read", "read from the prompt cache"),
                ("cache_write", "written to the prompt cache"),
                ("output", "written"),
                ("reasoning", "of reasoning"),
            ):
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
    rows.append(["total time", *(time(s.worked_s) for s in spent)])
    caption = "All requests, including retries; latency includes retries and waiting"
    table = Table(caption, ["", *one_or([f.name for f in runs], "this run")], rows)
    return Section("cost", "Cost, tokens, time", "tables.html.j2", {"tables": [table]})


def preset_of(manifest: Manifest) -> dict[str, Any] | None:
    """The preset of a run beside what it reproduces; None without a preset.

    ``name``, ``description``, ``otherwise`` (settings that the run changed) and ``table``.
    """
    name = str(manifest.config.get("preset"))
    if name not in PRESETS:
        return None
    rows = [
        [row.aspect, row.report or "not stated", row.presets[name], row.environment]
        for row in preset_rows()
    ]
    heads = ["", "Hermes 4 report", f"preset {name}", "reference environment"]
    caption = "The Hermes 4 report, the preset and the reference environment"
    try:
        config = manifest.run_config
        preset = resolve_config({"model": config.model, "preset": name})
        otherwise = [
            field.replace("_", " ")
            for field in config.measured
            if field != "model" and getattr(config, field) != getattr(preset, field)
        ]
    except RefusalkitError:  # a configuration of another version
        otherwise = []
    return {
        "name": name,
        "description": DESCRIPTIONS[name],
        "otherwise": otherwise,
        "table": Table(caption, heads, rows, words=ALL, prose=True),
    }


def configuration(report: Facts) -> Section:
    """The configuration, its digests, and the command that reproduces the run."""
    runs = report.runs
    shown = []
    for facts in runs:
        manifest = facts.manifest
        notes = [*manifest.dropped(), *set_lines(manifest)]
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
                "preset": preset_of(manifest),
                "json": json.dumps(configuration_of(manifest), indent=1, ensure_ascii=True),
            }
        )
    data = {"shown": shown, "several": len(runs) > 1}
    return Section("configuration", "Configuration", "configuration.html.j2", data)
