"""Comparisons and leaderboards as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refusalkit.reporting.data.formats import markdown_text, to_markdown
from refusalkit.scoring.figures import figure_title
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.scoring.compare.gate import Gate
    from refusalkit.scoring.compare.result import Comparison, Difference, Pair
    from refusalkit.scoring.leaderboard import Leaderboard


def comparison_data(found: Comparison) -> dict[str, Any]:
    """A comparison as JSON values; percent and points throughout (docs/compare.md)."""
    return {
        "schema": 1,
        "warnings": list(found.warnings),
        "notes": list(found.notes),
        "runs": found.runs.to_dicts(),
        "pairs": [_pair(found, pair) for pair in found.pairs],
        "gate": None if found.gate is None else _gate(found.gate),
        "in_order": None
        if found.in_order is None
        else {**asdict(found.in_order), "claim": found.in_order.claim},
    }


def _pair(found: Comparison, pair: Pair) -> dict[str, Any]:
    return {
        "first": found.names[pair.first],
        "second": found.names[pair.second],
        "paired": pair.paired,
        "n_common": pair.n_common,
        "n_only_first": pair.n_only_first,
        "n_only_second": pair.n_only_second,
        "p_holm": pair.p_holm,
        **{name: _difference(item) for name, item in pair.figures.items()},
        "by_category": pair.by_category.to_dicts(),
        "flipped": pair.flipped.to_dicts(),
    }


def _difference(item: Difference) -> dict[str, Any]:
    return {
        "first": item.first,
        "second": item.second,
        "difference": asdict(item.estimate),
        "p": item.p,
        "p_asked_again": item.p_asked_again,
        "corrected": None if item.corrected is None else asdict(item.corrected),
        "bounds": {"low": item.bounds[0], "high": item.bounds[1]},
    }


def _gate(gate: Gate) -> dict[str, Any]:
    return {**asdict(gate), "status": gate.status.value, "claim": gate.claim}


def comparison_markdown(found: Comparison) -> str:
    """A comparison as Markdown for a pull-request comment, warnings first."""
    parts = []
    if found.gate is not None:
        claim = markdown_text(found.gate.claim, 1000)
        parts.append(f"Gate: **{found.gate.status.value}**, {claim}.")
    if found.in_order is not None:
        parts.append(f"{markdown_text(found.in_order.claim, 1000)}.")
    parts += [f"> **Warning:** {markdown_text(warning, 1000)}" for warning in found.warnings]
    runs = found.runs.select(
        "name", "model", "run", "judge", "trials", "n_prompts", "n_unscored", "willingness", "low",
        "high", "group",
    )  # fmt: skip
    parts.append(to_markdown(runs.columns, [list(row) for row in runs.iter_rows()]))
    rows = [
        [
            f"{row['first']} - {row['second']}",
            figure_title(row["figure"]),
            row["first_value"],
            row["second_value"],
            row["difference"],
            interval_text(row["low"], row["high"]),
            p_text(row["p"]),
            interval_text(row["again_low"], row["again_high"]),
            p_text(row["p_again"]),
            p_text(row["p_holm"]),
        ]
        for row in found.differences.iter_rows(named=True)
    ]
    heads = ["pair", "figure", "first", "second", "difference", "95 % interval", "p"]
    heads += ["asked again", "p, asked again", "p (Holm)"]
    parts.append(to_markdown(heads, rows))
    if len(found.scores) == 2 and len(found.pair.flipped):
        flipped = found.pair.flipped
        heads = ["flipped prompt", "category", *found.names]
        parts.append(
            to_markdown(
                heads,
                flipped.select("prompt_id", "category", "first", "second").head(50).rows(),
            )
        )
        if len(flipped) > 50:
            parts.append(f"... and {len(flipped) - 50} more flipped prompts")
    parts += [f"Note: {markdown_text(note, 1000)}." for note in found.notes]
    return "\n\n".join(parts)


def p_text(value: float | None) -> str:
    """A p value to three decimals, or ``< 0.001``."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of a difference, in points."""
    return "-" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"


def leaderboard_data(found: Leaderboard) -> dict[str, Any]:
    """A leaderboard as JSON values, with own and published figures in separate lists."""
    return {
        "schema": 1,
        "caveats": list(found.caveats),
        "own": found.own.to_dicts(),
        "published": found.published.to_dicts(),
    }


_COLUMNS = (
    "kind",
    "model",
    "mode",
    "willingness",
    "low",
    "high",
    "n_prompts",
    "trials",
    "n_unscored",
    "prompt_set",
    "judge",
    "date",
    "source",
    "caveats",
)


def leaderboard_rows(found: Leaderboard) -> tuple[list[str], list[list[Any]]]:
    """Both tables as one, own figures first; `kind` and `source` tell them apart."""
    rows: list[list[Any]] = []
    for row in found.own.iter_rows(named=True):
        marked = {
            **row,
            "kind": "measured here",
            "mode": f"reasoning {row['reasoning']}",
            "source": row["run"],
            "prompt_set": f"{row['prompt_set']} {row['version']}",
            "caveats": "; ".join(row["caveats"]),
        }
        rows.append([marked.get(name) for name in _COLUMNS])
    for row in found.published.iter_rows(named=True):
        marked = {
            **row,
            "kind": "published, self-reported",
            "trials": row["n_runs"],
            "source": f"{row['source']}, {row['where']}",
            "caveats": "; ".join(row["caveats"]),
        }
        rows.append([marked.get(name) for name in _COLUMNS])
    return list(_COLUMNS), rows


def leaderboard_markdown(found: Leaderboard) -> str:
    """Two tables under headings of their own, with the caveats between them."""
    columns, rows = leaderboard_rows(found)
    own = [row for row in rows if row[0] == "measured here"]
    published = [row for row in rows if row[0] != "measured here"]
    parts = ["## Measured here"]
    parts.append(to_markdown(columns, own) if own else "No run was given.")
    parts += [
        "## Published by Nous Research, self-reported",
        "Not comparable with the figures above:",
        "\n".join(f"- {printable(caveat, 300)}" for caveat in found.caveats),
    ]
    # Show as many digits as were published.
    at = columns.index("willingness")
    published = [[*row[:at], f"{row[at]:g}", *row[at + 1 :]] for row in published]
    left_out = {"low", "high", "n_prompts", "n_unscored", "prompt_set", "judge"}
    kept = [n for n, name in enumerate(columns) if name not in left_out]
    parts.append(
        to_markdown([columns[n] for n in kept], [[row[n] for n in kept] for row in published])
    )
    return "\n\n".join(parts)
