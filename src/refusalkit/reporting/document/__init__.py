"""Reports as one file: an HTML page, Markdown for a model card, or data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from refusalkit.errors import StorageError, UsageError
from refusalkit.files import write_file
from refusalkit.reporting.data import to_json
from refusalkit.reporting.document.facts import Facts, gather
from refusalkit.reporting.document.record import report_data
from refusalkit.reporting.document.record_types import report_schema
from refusalkit.reporting.document.units import units_csv, units_frame
from refusalkit.reporting.target import SUFFIXES, check_replaced, check_suffix
from refusalkit.runs.folder import Run
from refusalkit.runs.frames import REPORTED, RunRecords
from refusalkit.scoring.judge_quality.calibration import Calibration
from refusalkit.untrusted import printable

__all__ = ["SUFFIXES", "report_data", "report_schema", "units_frame", "write_report"]


def write_report(
    runs: Sequence[Run],
    path: Path,
    *,
    judge: str | None = None,
    show_text: bool = False,
    anyway: bool = False,
    calibration: Calibration | None = None,
    force: bool = False,
) -> None:
    """Write the report of one or several runs in the form that `path`'s suffix names.

    .html, .md and .json describe the runs, .csv and .parquet hold their units. The file appears
    whole or not at all. `show_text` adds kept answers to the page and to the units, never those
    of hard lines. Several runs are compared if they are comparable, with `anyway` in any case, with
    a warning. With a `calibration` of the judge corrected figures stand beside the uncorrected
    ones. A file that is not a report of refusalkit is replaced only with `force`.

    Raises `UsageError` for another suffix, no run, or a judge that is not of a run; `StorageError`
    where the disk refuses.
    """
    check_suffix(path)
    if not force:
        check_replaced(path)
    if not runs:
        raise UsageError("a report needs at least one run")
    made = _render(runs, path.suffix, judge, show_text, anyway, calibration)
    try:
        # A report with answers is private to the user, as the run folder is.
        write_file(path, made, private=show_text)
    except OSError as error:
        raise StorageError(f"cannot write {printable(path)}: {error.strerror}") from error


def _render(
    runs: Sequence[Run],
    suffix: str,
    judge: str | None,
    show_text: bool,
    anyway: bool,
    calibration: Calibration | None,
) -> bytes:
    if suffix in (".csv", ".parquet"):
        records = [RunRecords(run, REPORTED) for run in runs]
        for one in records:
            _ = one.edits  # logs contradictions, as a table has no place for them
        frame = pl.concat([units_frame(one, judge, show_text=show_text) for one in records])
        if suffix == ".csv":
            return units_csv(frame).encode("utf-8", "replace")
        out = io.BytesIO()
        frame.write_parquet(out)
        return out.getvalue()
    facts = gather(runs, judge=judge, anyway=anyway, calibration=calibration, show_text=show_text)
    return _text(facts, suffix).encode("utf-8", "replace")


def _text(facts: Facts, suffix: str) -> str:
    # Imported when needed: JSON needs no plots.
    if suffix == ".html":
        from refusalkit.reporting.document.page import render_page

        return render_page(facts)
    if suffix == ".md":
        from refusalkit.reporting.document.model_card import render_model_card

        return render_model_card(facts)
    return to_json(report_data(facts)) + "\n"
