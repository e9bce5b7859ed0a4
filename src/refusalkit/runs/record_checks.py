"""Checks every record of a run, and names by file and line those that were changed or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refusalkit.display import shows
from refusalkit.jsonl import from_bytes
from refusalkit.runs.edits import has_wrong_check, is_text_of
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.record_json import SCHEMA
from refusalkit.runs.records import is_whole, open_records, record_lines
from refusalkit.runs.withheld import withheld_by
from refusalkit.types import Label, Outcome, Unscored, unit_id
from refusalkit.untrusted import printable

MAX_FINDINGS = 1000
"""How many findings are kept; further ones are only counted."""


@shows("place", "what")
@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake in a run's records."""

    place: str
    """File and line (``verdicts.jsonl:12``), or the file or part that it concerns."""
    what: str
    """What is wrong, in one sentence."""


@dataclass
class CheckedRecords:
    """The result of checking a run's records."""

    units: dict[str, str] = field(default_factory=dict)
    """Category of each unit with a completion, by unit."""
    prompts: dict[str, set[str]] = field(default_factory=dict)
    """Ids of the answered prompts, by category."""
    n_records: int = 0
    """How many records were read."""
    n_unchecked: int = 0
    """How many of them have no digest of their own, as in older runs."""
    findings: list[Finding] = field(default_factory=list)
    """The first `MAX_FINDINGS` findings."""
    n_findings: int = 0
    """How many findings there are in all."""

    def add(self, place: str, what: str) -> None:
        """Count a finding, and keep it unless there are too many."""
        self.n_findings += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(place, what))


def check_records(run: Run) -> CheckedRecords:
    """Check each record of a run by itself, against the manifest and against the other records.

    Raises `RunFolderError` where a file cannot be read.
    """
    found = CheckedRecords()
    manifest = run.manifest
    categories = frozenset(entry.slug for entry in manifest.prompt_set.categories)
    withheld = withheld_by(manifest)
    for place, record in _records(run.completions, found):
        _check_completion(manifest, categories, withheld, place, record, found)
    for place, record in _records(run.verdicts, found):
        _check_verdict(manifest, place, record, found)
    for path in (run.canaries, run.pressure):
        if path.exists():
            for place, record in _records(path, found):
                _check_beside(place, record, found)
    _check_counts(manifest, found)
    return found


def _records(path: Path, found: CheckedRecords) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each record with its place; a malformed line is a finding, but not a torn last line."""
    some_checked = False
    with open_records(path) as file:
        for number, raw in enumerate(record_lines(path, file), 1):
            if not raw.strip():
                continue
            if not raw.endswith(b"\n") and not is_whole(raw):
                return
            place = f"{path.name}:{number}"
            found.n_records += 1
            wrong = has_wrong_check(raw)
            if wrong:
                found.add(place, "was changed after it was written")
            elif wrong is None and some_checked:
                # Only older releases wrote no digest, and they cannot have written after this one.
                found.add(place, "has lost the digest of itself that the records before it have")
            found.n_unchecked += wrong is None
            some_checked = some_checked or wrong is not None
            try:
                record = from_bytes(raw)
            except (ValueError, RecursionError):
                found.add(place, "is not JSON")
                continue
            if not isinstance(record, dict) or record.get("schema") != SCHEMA:
                found.add(place, f"is not a record of schema {SCHEMA}")
                continue
            yield place, record


def _check_completion(
    manifest: Manifest,
    categories: frozenset[str],
    withheld: frozenset[str],
    place: str,
    record: Mapping[str, Any],
    found: CheckedRecords,
) -> None:
    unit, category = _unit_of(place, record, found), record.get("category")
    if unit is None:
        return
    if not isinstance(category, str) or category not in categories:
        found.add(place, f"has the category {printable(category, 60)}, which the run does not have")
    if manifest.kind == "run" and not 1 <= record["trial"] <= manifest.trials:
        found.add(place, f"has trial {record['trial']}, but the run has {manifest.trials} trials")
    if record.get("outcome") not in list(Outcome):
        found.add(place, f"has the unknown outcome {printable(record.get('outcome'), 60)}")
    text = record.get("text")
    if isinstance(text, str):
        if not is_text_of(text, record.get("text_sha256")):
            found.add(place, "has a text that does not match its text_sha256")
        if str(category) in withheld:
            found.add(place, "has the text of a hard-line answer, which this run withholds")
    if found.units.setdefault(unit, str(category)) != str(category):
        found.add(place, f"{printable(unit)} has another category than before")
    found.prompts.setdefault(str(category), set()).add(record["prompt_id"])


def _check_verdict(
    manifest: Manifest, place: str, record: Mapping[str, Any], found: CheckedRecords
) -> None:
    unit = _unit_of(place, record, found)
    if unit is None:
        return
    if unit not in found.units:
        found.add(place, f"is a verdict on {printable(unit)}, which has no answer")
    elif found.units[unit] != record.get("category"):
        found.add(place, f"{printable(unit)} has another category than its answer")
    if str(record.get("judge")) not in manifest.judges:
        found.add(place, f"is by {printable(record.get('judge'), 80)}, not a judge of this run")
    label, unscored = record.get("label"), record.get("unscored")
    if (label is None) == (unscored is None):
        found.add(place, "needs either a label or a reason why there is none")
    if label is not None and label not in list(Label):
        found.add(place, f"has the unknown label {printable(label, 60)}")
    if unscored is not None and unscored not in list(Unscored):
        found.add(place, f"is unscored for the unknown reason {printable(unscored, 60)}")


def _unit_of(place: str, record: Mapping[str, Any], found: CheckedRecords) -> str | None:
    """The unit of a record, if its fields agree on it."""
    prompt_id, trial, unit = record.get("prompt_id"), record.get("trial"), record.get("unit")
    if not isinstance(prompt_id, str) or type(trial) is not int or not isinstance(unit, str):
        found.add(place, "does not name its unit, prompt and trial")
        return None
    if unit != unit_id(prompt_id, trial):
        found.add(place, f"{printable(unit)} is not prompt {printable(prompt_id)}, trial {trial}")
        return None
    return unit


def _check_beside(place: str, record: Mapping[str, Any], found: CheckedRecords) -> None:
    """Check a record of a file that does not enter the score."""
    completion = record.get("completion")
    text = completion.get("text") if isinstance(completion, dict) else None
    digest = completion.get("text_sha256") if isinstance(completion, dict) else None
    if isinstance(text, str) and not is_text_of(text, digest):
        found.add(place, "has a text that does not match its text_sha256")
    unit = record.get("unit")
    if isinstance(unit, str) and unit not in found.units:
        found.add(place, f"goes on from {printable(unit)}, which has no answer")


def _check_counts(manifest: Manifest, found: CheckedRecords) -> None:
    n_units = Counter(found.units.values())
    for entry in manifest.prompt_set.categories:
        n_asked = len(found.prompts.get(entry.slug, ()))
        n_prompts = entry.n_prompts + entry.n_contrast + entry.n_framed
        if n_asked > n_prompts:
            found.add(
                "manifest.json",
                f"{printable(entry.slug)} has {n_prompts} prompts, and {n_asked} were answered",
            )
    total = sum(n_units.values())
    ended = manifest.sessions[-1].ended_because if manifest.sessions else None
    own = [session for session in manifest.sessions if session.judge is None]
    done = bool(own) and own[-1].ended_because == "done" and ended is not None
    if total > manifest.n_units or (done and total < manifest.n_units):
        found.add(
            "completions.jsonl", f"{manifest.n_units} units were planned, and {total} have a record"
        )
