"""The sections of the page, built from the facts of its runs.

To add a section, write a builder here, list it in `SECTIONS` and add its template. A builder
returns None to leave its section out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from refusalkit.reporting.data import figures, frame_by
from refusalkit.reporting.document.differences import differences
from refusalkit.reporting.document.facts import Facts, RunFacts, labels_of
from refusalkit.reporting.document.hard_lines import hard_lines
from refusalkit.reporting.document.overview import overview
from refusalkit.reporting.document.parts import (
    NOTHING,
    Cell,
    Figure,
    Section,
    Table,
    interval,
    number,
    one_or,
    percent,
    share,
    stacked,
    stacked_point,
)
from refusalkit.reporting.document.plots import (
    MAX_COLOURS,
    MAX_ROWS,
    MAX_RUNS,
    DotRow,
    Point,
    bars_plot,
    columns_plot,
    dot_plot,
    labels_of_runs,
)
from refusalkit.reporting.document.provenance import configuration, cost, judge
from refusalkit.reporting.document.sweep import sweep
from refusalkit.reporting.document.units import units_section
from refusalkit.types import Estimate, Label, Outcome, Unscored

Runs = Sequence[RunFacts]

_OUTCOMES = {
    Outcome.ANSWERED: "answered",
    Outcome.TRUNCATED: "answered, cut off at the length limit",
    Outcome.BLOCKED: "blocked by the provider's filter (counts as a refusal)",
    Outcome.NO_ANSWER: "reasoning only, no final text",
    Outcome.EMPTY: "empty",
    Outcome.ERROR: "failed after all retries",
}
_UNSCORED = {
    Unscored.NO_ANSWER: "reasoning only, no final text",
    Unscored.EMPTY: "empty answer",
    Unscored.ERROR: "the request failed",
    Unscored.UNPARSABLE: "the judge's reply could not be parsed",
    Unscored.JUDGE_BLOCKED: "the judge's provider blocked it",
    Unscored.JUDGE_ERROR: "the judge failed",
    Unscored.NO_MAJORITY: "the judges reached no decision",
    Unscored.MISSING_VOTE: "a judge's vote is missing",
    Unscored.WITHHELD: "the text was not kept for this judge",
    Unscored.OWED: "not asked or not judged yet",
}


def rates(report: Facts) -> Section:
    """The headline figures with their intervals."""
    runs = report.runs
    if len(runs) == 1:
        rows: list[list[str | Cell]] = [
            [
                name[0].upper() + name[1:],
                percent(e.value),
                interval(e.low, e.high),
                interval(*(e.asked_again or (None, None))),
                *map(number, (e.n_prompts, e.n_responses, e.n_unscored)),
            ]
            for name, e in figures(runs[0].score)
        ]
        targets = ["prompts like these", "these prompts, asked again"]
        heads = ["rate", "percent", *targets, "prompts", "responses", "unscored"]
        table = Table("Each rate with its two 95\u00a0% intervals", heads, rows)
    else:
        names = list(dict.fromkeys(name for facts in runs for name, _ in figures(facts.score)))
        found = [dict(figures(facts.score)) for facts in runs]
        rows = [
            [facts.name, *(stacked(of[name]) if name in of else NOTHING for name in names)]
            for facts, of in zip(runs, found, strict=True)
        ]
        table = Table("Rates in percent, each with its 95\u00a0% interval", ["run", *names], rows)
    data = {
        "table": table,
        "twins": any(facts.score.n_contrast for facts in runs),
        "variance": [
            (facts.name, facts.score.variance.sentences)
            for facts in runs
            if facts.score.variance.sentences
        ],
        "several": len(runs) > 1,
    }
    return Section("rates", "Rates", "rates.html.j2", data)


def categories(report: Facts) -> Section:
    """Willingness by category as a dot plot, hard lines apart, and as a table."""
    runs = report.runs
    drawn = runs[:MAX_RUNS]
    by_run = [
        {row["category"]: row for row in facts.score.by_category.to_dicts()} for facts in runs
    ]
    known: dict[str, dict[str, Any]] = {}
    for rows in by_run:
        for slug, row in rows.items():
            known.setdefault(slug, row)
    groups: dict[bool, list[tuple[float, DotRow]]] = {False: [], True: []}
    for slug, row in known.items():
        points = [_point(rows.get(slug)) for rows in by_run[: len(drawn)]]
        values = [point[0] for point in points if point is not None]
        height = sum(values) / len(values) if values else -1.0
        groups[bool(row["hard_line"])].append((height, DotRow(str(row["title"]), points)))
    ordered = [
        (heading, [row for _, row in sorted(groups[hard], key=_by_height)[:MAX_ROWS]])
        for hard, heading in ((False, ""), (True, "Hard lines, where a refusal is right"))
    ]
    what = (
        f"Willingness by category, {len(known)} categories, {len(drawn)} runs, with 95 % "
        "intervals; the table below has the figures"
    )
    figure = Figure(
        *(
            dot_plot(
                ordered,
                name=f"categories-{'narrow' if narrow else 'wide'}",
                description=what,
                narrow=narrow,
                runs=[facts.name for facts in drawn],
            )
            for narrow in (False, True)
        )
    )
    data = {
        "figure": figure,
        "table": _category_table(runs, known, by_run),
        "legend": _legend(runs),
        "not_drawn": len(runs) - len(drawn),
        "rows_not_drawn": len(known) - sum(len(rows) for _, rows in ordered),
    }
    return Section("categories", "Categories", "categories.html.j2", data)


def _by_height(row: tuple[float, DotRow]) -> tuple[float, str]:
    return -row[0], row[1].label


def _category_table(
    runs: Runs, known: dict[str, dict[str, Any]], by_run: list[dict[str, dict[str, Any]]]
) -> Table:
    def name(row: dict[str, Any]) -> str:
        return f"{row['title']} (hard line)" if row["hard_line"] else str(row["title"])

    if len(runs) > 1:
        found: list[list[str | Cell]] = [
            [name(row), *(_shown(_point(rows.get(slug))) for rows in by_run)]
            for slug, row in known.items()
        ]
        heads = ["category", *(facts.name for facts in runs)]
        return Table("Willingness in percent, with its 95\u00a0% interval", heads, found)
    score = runs[0].score
    heads = ["category", *(label.value for label in Label), "unscored", "willingness", "held"]
    if score.n_contrast:
        heads += ["over-refusal", "Youden's J"]
    rows = []
    for row in frame_by(score, "category").to_dicts():
        counts = (str(row[label.value]) for label in Label)
        cells: list[str | Cell] = [name(row), *counts, str(row["n_unscored"]), _shown(_point(row))]
        cells.append(percent(row["held"]) if row["hard_line"] else "")
        if score.n_contrast:
            j = (row["youden_j"], row["youden_low"], row["youden_high"])
            cells += [percent(row["over_refusal"]), stacked_point(*j)]
        rows.append(cells)
    caption = "Responses by label, and rates in percent with their 95\u00a0% intervals"
    return Table(caption, heads, rows)


def danger(report: Facts) -> Section | None:
    """Refusals of ordinary prompts by danger level."""
    runs = report.runs
    by_run = [{row["danger"]: row for row in facts.score.by_danger.to_dicts()} for facts in runs]
    levels = sorted({level for rows in by_run for level in rows})
    if not levels:
        return None
    series = [[_refused_point(rows.get(level)) for level in levels] for rows in by_run[:MAX_RUNS]]
    what = "Share of the responses to ordinary prompts refused, by danger"
    figure = Figure(
        columns_plot(
            [str(level) for level in levels],
            series,
            name="danger",
            description=f"{what}; the table beside it has the figures",
            x_title="danger, as stated by the prompt set",
            runs=[facts.name for facts in runs],
        )
    )
    if len(runs) == 1:
        heads = ["danger", "refused, percent", "prompts", "responses"]
        rows: list[list[str | Cell]] = [
            [
                str(level),
                _shown(_refused_point(row)),
                number(row["n_prompts"]),
                number(row["n_scored"]),
            ]
            for level, row in sorted(by_run[0].items())
        ]
    else:
        heads = ["run", *(f"danger {level}" for level in levels)]
        rows = [
            [facts.name, *(_shown(_refused_point(found.get(level))) for level in levels)]
            for facts, found in zip(runs, by_run, strict=True)
        ]
    data = {"figure": figure, "table": Table(what, heads, rows), "legend": _legend(runs)}
    return Section("danger", "Refusals by danger", "danger.html.j2", data)


def languages(report: Facts) -> Section | None:
    """Willingness by language, each translation compared with the request it translates."""
    runs = report.runs
    heads = ["language", "willingness", "prompts", "difference", "pairs"]
    heads = heads if len(runs) == 1 else ["run", *heads]
    rows: list[list[str | Cell]] = []
    for facts in runs:
        found = facts.score.by_language.to_dicts()
        for row in found if len(found) > 1 else []:
            apart = (row["difference"], row["difference_low"], row["difference_high"])
            cells: list[str | Cell] = [
                row["language"],
                _shown(_point(row)),
                number(row["n_prompts"]),
                stacked_point(*apart) if row["n_pairs"] else "",
                number(row["n_pairs"]),
            ]
            rows.append(cells if len(runs) == 1 else [facts.name, *cells])
    if not rows:
        return None
    caption = (
        "Willingness by language, in percent, and its difference to the same requests in the "
        "language they were translated from, in points and paired by prompt"
    )
    return Section(
        "languages", "Languages", "languages.html.j2", {"table": Table(caption, heads, rows)}
    )


def outcomes(report: Facts) -> Section:
    """Outcomes and labels of the responses."""
    runs = report.runs
    names = [facts.name for facts in runs]
    came = [sum(facts.score.outcomes.values()) for facts in runs]
    rows = [
        [words, *(_of(f.score.outcomes.get(o, 0), n) for f, n in zip(runs, came, strict=True))]
        for o, words in _OUTCOMES.items()
        if any(facts.score.outcomes.get(o, 0) for facts in runs)
    ]
    heads = one_or(names, "responses")
    unscored = [
        [words, *(_of(facts.score.unscored.get(why, 0), facts.score.n_units) for facts in runs)]
        for why, words in _UNSCORED.items()
        if any(facts.score.unscored.get(why, 0) for facts in runs)
    ]
    filters = [_filters(facts) for facts in runs]
    named = sorted({name for found in filters for name in found})[:20]
    tables = [Table("What came back", ["outcome", *heads], rows)]
    if unscored:
        planned = one_or(names, "units")
        tables.append(Table("Units without a label", ["why", *planned], unscored))
    if named:
        found = [[name, *(number(of.get(name, 0)) for of in filters)] for name in named]
        caption = "What the provider's filter named"
        tables.append(Table(caption, ["category of the filter", *heads], found))
    data = {
        "tables": tables,
        "stacks": [{"name": facts.name, "parts": _stacks(facts)} for facts in runs],
        "labels": [*(label.value for label in Label), "unscored"],
        "several": len(runs) > 1,
    }
    return Section("outcomes", "Outcomes and labels", "outcomes.html.j2", data)


def trials(report: Facts) -> Section | None:
    """Agreement between the trials of a prompt."""
    runs = report.runs
    several = [facts for facts in runs if facts.trials.trials > 1 and facts.trials.n_prompts]
    if not several:
        return None
    rows = [
        [
            facts.name,
            number(facts.trials.n_prompts),
            percent(facts.trials.unanimous_percent),
            NOTHING if facts.trials.kappa is None else f"{facts.trials.kappa:.2f}",
        ]
        for facts in several
    ]
    table = Table(
        "Agreement of trials on refused or not, prompts with two or more scored trials",
        ["run", "prompts", "all trials agree, percent", "Fleiss' kappa"],
        rows,
    )
    counted = {facts.trials.trials for facts in several}
    figure = None
    few = len(several) <= MAX_COLOURS  # bars are told apart by colour alone
    if few and len(counted) == 1 and next(iter(counted)) <= _MAX_COLUMNS:
        heads = [str(k) for k in range(next(iter(counted)) + 1)]
        series = [
            [share(n, facts.trials.n_whole) for n in facts.trials.spread] for facts in several
        ]
        figure = Figure(
            bars_plot(
                heads,
                series,
                name="trials",
                description="Share of the prompts by how many of their trials were refused",
                x_title="trials refused",
                runs=[facts.name for facts in several],
            )
        )
    data = {"table": table, "figure": figure, "legend": _legend(several)}
    return Section("trials", "Agreement of trials", "trials.html.j2", data)


_MAX_COLUMNS = 12


SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    overview,
    differences,
    rates,
    sweep,
    categories,
    hard_lines,
    danger,
    languages,
    outcomes,
    trials,
    judge,
    cost,
    units_section,
    configuration,
)


def page_sections(report: Facts, *, without: Collection[str] = ()) -> list[Section]:
    """The sections of a page in order. Hard lines lead if one was crossed.

    Those whose id is in `without` are left out; the units' section is then not even built.
    """
    builders = [build for build in SECTIONS if build is not units_section or "units" not in without]
    found = [section for build in builders if (section := build(report)) is not None]
    built = [section for section in found if section.id not in without]
    if report.is_crossed:
        built.sort(key=lambda section: section.id != "hard-lines")
    return built


def _legend(runs: Runs) -> list[dict[str, Any]]:
    return labels_of_runs([facts.name for facts in runs]) if len(runs) > 1 else []


def _point(row: dict[str, Any] | None) -> Point | None:
    if row is None or row["willingness"] is None:
        return None
    return row["willingness"], row["low"], row["high"]


def _refused_point(row: dict[str, Any] | None) -> Point | None:
    point = _point(row)
    return None if point is None else (100 - point[0], 100 - point[2], 100 - point[1])


def _shown(point: Point | None) -> Cell:
    return Cell(NOTHING) if point is None else stacked_point(*point)


def _of(count: int, whole: int) -> str:
    return f"{number(count)} ({share(count, whole):.1f}\u00a0%)" if count else "0"


def _filters(facts: RunFacts) -> dict[str, int]:
    return dict(facts.units["filter_category"].drop_nulls().value_counts().iter_rows())


def _stacks(facts: RunFacts) -> list[dict[str, Any]]:
    """Stacked bars of labels: name, number of responses, and the extent of each label."""
    stacks = []
    for name, counts in labels_of(facts.score).items():
        n, start, bars = sum(counts.values()), 0.0, []
        for label, count in counts.items():
            wide = share(count, n)
            bars.append({"label": label, "x": start, "width": wide, "count": count})
            start += wide
        stacks.append({"name": name, "n": n, "bars": bars})
    return stacks


def headline(facts: RunFacts) -> dict[str, Any]:
    """A run's data for the first screen."""
    score, entry, judge_entry = facts.score, facts.manifest.prompt_set, facts.judging.entry
    by = f"{judge_entry.name} ({judge_entry.model})" if judge_entry.model else judge_entry.name
    willing = score.willingness.value
    is_crossed = facts.audit is not None and facts.audit.status == "crossed"
    if judge_entry.members:
        by = f"a council of {len(judge_entry.members)} ({judge_entry.rule})"
    return {
        "name": facts.name,
        # Runs are listed by value, those that crossed a line first.
        "rank": (is_crossed, -1.0 if willing is None else willing),
        "model": score.model,
        "set": f"{entry.name} {entry.version}",
        "n_prompts": score.n_prompts,
        "n_contrast": score.n_contrast,
        "n_framed": score.n_framed,
        "trials": score.trials,
        "judge": by,
        "date": facts.date or "date unknown",
        "complete": facts.is_complete,
        "n_owed": score.n_owed,
        "willingness": score.willingness,
        "corrected": _corrected(facts),
        "macro": score.macro_willingness,
        "bar": _bar(score.willingness),
        "audit": facts.audit,
        "n_unscored": facts.n_unscored,
        "n_units": score.n_units,
        "unscored_percent": score.unscored_percent,
        "bounds": score.bounds,
        "recorded": facts.manifest.kind == "grade",
    }


def _corrected(facts: RunFacts) -> Estimate | None:
    """Willingness corrected for the judge's errors, if a calibration allowed it."""
    figures = () if facts.correction is None else facts.correction.figures
    return next((f.corrected for f in figures if f.name == "willingness"), None)


def _bar(estimate: Estimate) -> dict[str, float] | None:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    wide = estimate.high - estimate.low
    return {"low": estimate.low, "width": wide, "value": estimate.value}
