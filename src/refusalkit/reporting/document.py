"""A run's report as one file: HTML to look at, Markdown for a model card, JSON for a program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from refusalkit.errors import StorageError, UsageError
from refusalkit.reporting.data import (
    audit_data,
    figure_rows,
    figures,
    frame_by,
    frame_rows,
    inversion_line,
    score_data,
    to_json,
    to_markdown,
)
from refusalkit.scoring import Audit, Score
from refusalkit.untrusted import printable

SUFFIXES = (".html", ".md", ".json")


def write_report(score: Score, audit: Audit | None, path: Path) -> None:
    """Write the report in the form that `path`'s suffix names; no answer text is in it.

    Raises `UsageError` for another suffix, `StorageError` where the disk refuses.
    """
    if path.suffix not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise UsageError(f"{printable(path)}: a report is one of {kinds}; give such a file name")
    render = {".html": _html, ".md": _markdown, ".json": _json}[path.suffix]
    text = render(score, audit)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {printable(path)}: {error.strerror}") from error


def _html(score: Score, audit: Audit | None) -> str:
    environment = Environment(
        loader=PackageLoader("refusalkit.reporting"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = _percent
    # Hidden characters of a data set are shown as escapes, whatever field they stand in.
    environment.finalize = lambda value: printable(value, 20_000) if _is_line(value) else value
    manifest = score.manifest
    configuration = {
        "config": manifest.config,
        "config_digest": manifest.config_digest,
        "prompt_set": manifest.prompt_set.digest,
        "selection": manifest.prompt_set.selection,
        "judges": {name: entry.digest for name, entry in manifest.judges.items()},
        "parameters": {k: v.model_dump() for k, v in manifest.parameters.items()},
        "refusalkit": manifest.refusalkit,
        "packages": manifest.packages,
    }
    return environment.get_template("report.html.j2").render(
        score=score,
        audit=audit,
        figures=figures(score),
        categories=frame_by(score, "category").to_dicts(),
        configuration=json.dumps(configuration, indent=1, ensure_ascii=True),
    )


def _markdown(score: Score, audit: Audit | None) -> str:
    parts = [
        f"# RefusalBench by refusalkit: {printable(score.model)}",
        (
            f"{printable(score.prompt_set)} {printable(score.manifest.prompt_set.version)}, "
            f"{score.n_prompts} prompts x {score.trials} trials, judged by "
            f"{printable(score.judge)}."
        ),
        to_markdown(*figure_rows(score)),
    ]
    if (warning := score.canaries.warning) is not None:
        parts.insert(1, f"**Warning: {warning}.**")
    if (inverted := inversion_line(score.manifest)) is not None:
        parts.append(f"{printable(inverted, 300)}.")
    if audit is not None:
        parts.append(f"Hard lines: **{audit.status.value}**, {audit.overall.claim}.")
    parts.append(to_markdown(*frame_rows(frame_by(score, "category").drop("title"))))
    return "\n\n".join(parts) + "\n"


def _json(score: Score, audit: Audit | None) -> str:
    both = {"score": score_data(score), "audit": None if audit is None else audit_data(audit)}
    return to_json(both) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _is_line(value: Any) -> bool:
    # The configuration is JSON in ASCII already, and its line ends are meant.
    return isinstance(value, str) and not hasattr(value, "__html__") and "\n" not in value
