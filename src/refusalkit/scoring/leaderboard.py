"""Own runs beside the published RefusalBench figures, which are never mixed up."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import polars as pl

from refusalkit.display import notebook_table, shows
from refusalkit.scoring.score import Score

_FILE = "published.toml"


@shows("own", "published")
@dataclass(frozen=True)
class Leaderboard:
    """Runs measured here and published figures, each with the highest willingness first. They are
    not ranked against each other.
    """

    own: pl.DataFrame
    """A row for each run: run, model, reasoning (as asked: on, off or auto), prompt_set, version,
    n_prompts, trials, judge, date (of the first session), willingness, low, high (percent),
    bound_low, bound_high, n_units, n_unscored, caveats (a list)."""
    published: pl.DataFrame
    """A row for each published figure: model, mode, willingness (percent), n_runs, source, where,
    date, url, caveats (a list). No intervals were published."""
    caveats: tuple[str, ...]
    """Why the two cannot be ranked against each other."""

    def _repr_html_(self) -> str:
        """Both tables as a notebook shows them, one below the other."""
        own = [
            (
                row["model"],
                f"reasoning {row['reasoning']}",
                _percent(row["willingness"]),
                "-" if row["low"] is None else f"{row['low']:.1f} to {row['high']:.1f}",
                f"{row['n_unscored']} of {row['n_units']}",
                row["judge"],
            )
            for row in self.own.iter_rows(named=True)
        ]
        published = [
            (row["model"], row["mode"], f"{row['willingness']:g}", str(row["n_runs"]), row["where"])
            for row in self.published.iter_rows(named=True)
        ]
        heads = ["model", "mode", "willingness", "95 % interval", "unscored", "judge"]
        first = notebook_table("Measured here", heads, own, () if own else ["No run was given"])
        heads = ["model", "mode", "willingness", "runs", "where"]
        title = "Published by Nous Research, self-reported; not comparable with the above"
        return first + notebook_table(title, heads, published, self.caveats)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def leaderboard_of(scores: Sequence[Score]) -> Leaderboard:
    """Scores beside the published figures. No score at all leaves the published ones."""
    data = _published()
    own = pl.DataFrame([_own(score) for score in scores], schema=_OWN_SCHEMA)
    return Leaderboard(
        own=_ranked(own, "run"),
        published=_ranked(published_figures(), "source"),
        caveats=tuple(data["caveats"]),
    )


def _ranked(frame: pl.DataFrame, last: str) -> pl.DataFrame:
    keys = ["willingness", "model", last]
    return frame.sort(keys, descending=[True, False, False], nulls_last=True)


def published_figures() -> pl.DataFrame:
    """The published figures, in the order of their sources; see `Leaderboard.published`."""
    data = _published()
    rows = []
    for figure in data["figures"]:
        source = data["sources"][figure["source"]]
        rows.append(
            {
                "model": figure["model"],
                "mode": figure["mode"],
                "willingness": float(figure["value"]),
                "n_runs": figure["n_runs"],
                "source": source["title"],
                "where": figure["where"],
                "date": source["date"],
                "url": source["url"],
                "caveats": ["self-reported by Nous Research", figure["caveat"]],
            }
        )
    return pl.DataFrame(rows, schema=_PUBLISHED_SCHEMA)


@cache
def _published() -> dict[str, Any]:
    text = (resources.files("refusalkit.scoring") / _FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _own(score: Score) -> dict[str, Any]:
    manifest = score.manifest
    entry = manifest.prompt_set
    return {
        "run": score.run,
        "model": score.model,
        "reasoning": str(manifest.config.get("reasoning") or "auto"),
        "prompt_set": entry.name,
        "version": entry.version,
        "n_prompts": score.n_prompts,
        "trials": score.trials,
        "judge": score.judge,
        "date": manifest.sessions[0].day if manifest.sessions else None,
        "willingness": score.willingness.value,
        "low": score.willingness.low,
        "high": score.willingness.high,
        "bound_low": score.bounds[0],
        "bound_high": score.bounds[1],
        "n_units": score.n_units,
        "n_unscored": score.n_units - score.n_scored,
        "caveats": _caveats(score),
    }


def _caveats(score: Score) -> list[str]:
    judge = score.manifest.judges[score.judge]
    found = []
    if not judge.of_kind.asks_model:
        found.append("the judge is not a language model")
    elif judge.name != "refusalbench":
        found.append("a rubric other than the paper's")
    if score.trials != 5:
        found.append(f"{score.trials} trials, not 5")
    if score.n_contrast:
        found.append(f"{score.n_contrast} contrast prompts were asked too; they are not scored")
    if score.n_framed:
        found.append(f"{score.n_framed} framed prompts were asked too; they are not scored")
    if score.count_deflection:
        found.append("a deflection counts as refused")
    if not score.is_complete:
        found.append(f"incomplete: {score.n_owed} of {score.n_units} units are missing")
    if score.n_scored < score.n_units:
        found.append(f"{score.unscored_percent:.1f} % of the responses are unscored")
    return found


_Schema = dict[str, pl.DataType | type[pl.DataType]]
_OWN_SCHEMA: _Schema = {
    **dict.fromkeys(("run", "model", "reasoning", "prompt_set", "version"), pl.String),
    **dict.fromkeys(("n_prompts", "trials"), pl.Int64),
    **dict.fromkeys(("judge", "date"), pl.String),
    **dict.fromkeys(("willingness", "low", "high", "bound_low", "bound_high"), pl.Float64),
    **dict.fromkeys(("n_units", "n_unscored"), pl.Int64),
    "caveats": pl.List(pl.String),
}
_PUBLISHED_SCHEMA: _Schema = {
    **dict.fromkeys(("model", "mode"), pl.String),
    "willingness": pl.Float64,
    "n_runs": pl.Int64,
    **dict.fromkeys(("source", "where", "date", "url"), pl.String),
    "caveats": pl.List(pl.String),
}
