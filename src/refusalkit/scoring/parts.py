"""A score by category, trial, danger, tag and language.

All rows of a table come from a few queries over the whole run: a query for each row would take
longer than the work, with some 30 categories of five prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.danger import danger_of, tags_of
from refusalkit.scoring.languages import PAIRED_SCHEMA, by_request, paired_differences
from refusalkit.scoring.listed_categories import MAX_LANGUAGES, MAX_TAGS, listed
from refusalkit.scoring.rates import EARNED, alike_by, count_prompts, estimates_of
from refusalkit.types import Label

_HEAD_SCHEMA = {"category": pl.String, "title": pl.String, "hard_line": pl.Boolean}
_SUMMARY_SCHEMA = {
    **dict.fromkeys(("n_prompts", "n_units", "n_scored", "n_unscored"), pl.Int64),
    **dict.fromkeys((label.value for label in Label), pl.Int64),
    **dict.fromkeys(("willingness", "low", "high", "held"), pl.Float64),
}

_Row = dict[str, int | float | None]


def category_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_category`; `counts` are those of `rates.count_prompts`."""
    entries = listed(manifest.prompt_set.categories)
    planned = {entry.slug: (entry.n_prompts, entry.n_units) for entry in entries}
    rows = _summaries(by_request(counts, manifest), "category", planned)
    heads = (
        {"category": entry.slug, "title": entry.title, "hard_line": entry.hard_line}
        for entry in entries
    )
    return pl.DataFrame(
        [{**head, **rows[head["category"]]} for head in heads],
        schema={**_HEAD_SCHEMA, **_SUMMARY_SCHEMA},
    )


@dataclass(frozen=True)
class TrialCounts:
    """Responses counted by trial: all that a score says of its trials.

    `sizes` has trial and len, `labels` trial and a count for each label; `credit` and `held` are
    those of `rates.alike_by`.
    """

    sizes: pl.DataFrame
    labels: pl.DataFrame
    credit: pl.DataFrame
    held: pl.DataFrame

    @classmethod
    def together(cls, parts: Sequence[TrialCounts]) -> TrialCounts:
        """Those of all parts of the prompts."""
        return cls(
            sizes=_added([one.sizes for one in parts], ["len"]),
            labels=_added([one.labels for one in parts], [label.value for label in Label]),
            credit=_added([one.credit for one in parts], ["times"]),
            held=_added([one.held for one in parts], ["times"]),
        )


def _added(parts: Sequence[pl.DataFrame], counts: Sequence[str]) -> pl.DataFrame:
    """Rows that agree on everything but `counts` as one, with the sums of those, in order."""
    rows = pl.concat(parts)
    keys = [name for name in rows.columns if name not in counts]
    return rows.group_by(keys).agg(pl.col(counts).sum()).sort(keys).select(rows.columns)


def count_trials(responses: pl.DataFrame) -> TrialCounts:
    """Count responses of a score by trial."""
    columns = responses.select("prompt_id", "category", "hard_line", "trial", "label", *EARNED)
    counts = count_prompts(columns.sort("trial", maintain_order=True), "trial")
    return TrialCounts(
        sizes=responses.group_by("trial").len(),
        labels=_labels_by(counts, "trial"),
        credit=alike_by(counts, "credit", "trial"),
        held=alike_by(counts.filter("hard_line"), "held", "trial"),
    )


def trial_frame(manifest: Manifest, counts: TrialCounts) -> pl.DataFrame:
    """`Score.by_trial`; `counts` are of its responses."""
    planned = {
        trial: (n_units, n_units)
        for trial, n_units in sorted(_planned_by_trial(manifest, counts.sizes).items())
    }
    rows = _rows(counts.labels, counts.credit, counts.held, planned)
    return pl.DataFrame(
        [{"trial": trial, **row} for trial, row in rows.items()],
        schema={"trial": pl.Int64, **_SUMMARY_SCHEMA},
    )


def danger_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_danger`; `counts` are those of `rates.count_prompts`."""
    ordinary = counts.filter(~pl.col("hard_line"))
    levels = {name: (level,) for name, level in danger_of(manifest).items()}
    rows = _of_those_seen(manifest, ordinary, "danger", levels)
    return pl.DataFrame(
        [{"danger": danger, **rows[danger]} for danger in sorted(rows)],
        schema={"danger": pl.Int64, **_SUMMARY_SCHEMA},
    )


def tag_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_tag`; `counts` are those of `rates.count_prompts`."""
    tags = tags_of(manifest)
    most = Counter(tag for of_prompt in tags.values() for tag in of_prompt).most_common(MAX_TAGS)
    shown = {tag for tag, _ in most}
    kinds = {name: [tag for tag in given if tag in shown] for name, given in tags.items()}
    found = _of_those_seen(manifest, counts, "tag", kinds)
    rows = sorted(found.items(), key=lambda row: (-int(row[1]["n_prompts"] or 0), row[0]))
    return pl.DataFrame(
        [{"tag": tag, **row} for tag, row in rows], schema={"tag": pl.String, **_SUMMARY_SCHEMA}
    )


def language_frame(manifest: Manifest, counts: pl.DataFrame) -> pl.DataFrame:
    """`Score.by_language`; `counts` are those of `rates.count_prompts`."""
    languages, sources = manifest.prompt_set.languages, manifest.prompt_set.translations
    if not languages:  # all of one
        only = next(iter(manifest.languages), "en")
        languages = dict.fromkeys(counts["prompt_id"], only)
    translated: dict[str, dict[str, str]] = {}
    for name, source in sources.items():
        translated.setdefault(languages.get(name, ""), {})[name] = source
    spoken = {name: (language,) for name, language in languages.items()}
    largest = dict(Counter(languages.values()).most_common(MAX_LANGUAGES))
    spoken = {name: kinds for name, kinds in spoken.items() if kinds[0] in largest}
    rows = [
        {
            "language": language,
            **row,
            **paired_differences(counts, translated.get(language, {})),
        }
        for language, row in _of_those_seen(manifest, counts, "language", spoken).items()
    ]
    rows.sort(key=lambda row: -int(row["n_prompts"] or 0))
    schema = {"language": pl.String, **_SUMMARY_SCHEMA, **PAIRED_SCHEMA}
    return pl.DataFrame(rows, schema=schema)


def planned_units(manifest: Manifest) -> int:
    """How many units were planned for willingness: without contrast and framed prompts."""
    return sum(category.n_units for category in manifest.prompt_set.categories)


def _planned_by_trial(manifest: Manifest, sizes: pl.DataFrame) -> dict[int, int]:
    """How many units each trial has. Recorded answers need not form whole trials."""
    if manifest.kind == "run":
        planned = sum(category.n_prompts for category in manifest.prompt_set.categories)
        return dict.fromkeys(range(1, manifest.trials + 1), planned)
    counts = {int(trial): int(count) for trial, count in sizes.sort("trial").iter_rows()}
    missing = planned_units(manifest) - sum(counts.values())
    counts[1] = counts.get(1, 0) + missing
    return counts


def _of_those_seen(
    manifest: Manifest, counts: pl.DataFrame, name: str, kinds: Mapping[str, Sequence[Any]]
) -> dict[Any, _Row]:
    """A row for each kind of which a prompt came back, in the order of `kinds`.

    `kinds` has the kinds of each prompt (its danger, tags or language), by id.
    """
    of_prompts = [
        (prompt, kind) for prompt, found in kinds.items() for kind in dict.fromkeys(found)
    ]
    if not of_prompts:
        return {}
    pairs = pl.DataFrame(of_prompts, schema=["prompt_id", name], orient="row")
    part = counts.join(pairs, on="prompt_id").sort(name, "prompt_id", "category", "hard_line")
    seen = part.group_by(name).agg(pl.col("prompt_id").n_unique(), pl.col("n_units").sum())
    whole = manifest.kind == "run"
    came = {
        kind: (n_prompts, n_prompts * manifest.trials if whole else n_units)
        for kind, n_prompts, n_units in seen.iter_rows()
    }
    order = dict.fromkeys(kind for _, kind in of_prompts)
    return _summaries(part, name, {kind: came[kind] for kind in order if kind in came})


def _labels_by(counts: pl.DataFrame, by: str) -> pl.DataFrame:
    """How often each label was given, for each value of a column."""
    return counts.group_by(by).agg(pl.col([label.value for label in Label]).sum())


def _summaries(
    counts: pl.DataFrame, by: str, planned: Mapping[Any, tuple[int, int]]
) -> dict[Any, _Row]:
    """A row for each value of a column: its planned prompts and units, and their figures.

    `planned` says how many prompts and units each value has, and the order of rows.
    """
    credit = alike_by(counts, "credit", by)
    held = alike_by(counts.filter("hard_line"), "held", by)
    return _rows(_labels_by(counts, by), credit, held, planned)


def _rows(
    labels: pl.DataFrame,
    credit: pl.DataFrame,
    held: pl.DataFrame,
    planned: Mapping[Any, tuple[int, int]],
) -> dict[Any, _Row]:
    """The rows of `_summaries`, from counts."""
    names = [label.value for label in Label]
    sums = {key: given for key, *given in labels.iter_rows()}
    units: dict[Hashable, int] = {key: n_units for key, (_, n_units) in planned.items()}
    willing = estimates_of(credit, units)
    holding = estimates_of(held, dict.fromkeys(planned, 0))
    return {
        key: {
            "n_prompts": n_prompts,
            "n_units": n_units,
            "n_scored": willing[key].n_responses,
            "n_unscored": n_units - willing[key].n_responses,
            **dict(zip(names, sums.get(key, [0] * len(names)), strict=True)),
            "willingness": willing[key].value,
            "low": willing[key].low,
            "high": willing[key].high,
            "held": holding[key].value,
        }
        for key, (n_prompts, n_units) in planned.items()
    }
