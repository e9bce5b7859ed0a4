"""Checks whether a run is as it was written: digests, records, counts, and the score."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refusalkit.api.calls import RunLike, load_run
from refusalkit.api.results import score as score_of
from refusalkit.display import shows
from refusalkit.errors import RefusalkitError, RunFolderError
from refusalkit.integrations.bundle import BUNDLE, Claims, is_bundle, read_claims, unpacked
from refusalkit.judges.rubrics import load_rubric, shipped_judges
from refusalkit.prompts.load import shipped_sets
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.checkpoint import checkpoint_fits
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import JudgeEntry, JudgePart
from refusalkit.runs.prompt_choice import choose_prompts, draw_of
from refusalkit.runs.record_checks import CheckedRecords, Finding, check_records
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.scoring.score import Score

CheckStatus = Literal["ok", "changed", "not checked"]


@shows("name", "status", "what")
@dataclass(frozen=True, slots=True)
class Check:
    """One part of a run, and whether it is as it was written."""

    name: str
    """The part: ``configuration``, ``prompt set``, ``judge`` with its id, ``records``,
    ``checkpoint``, ``manifest``, ``score``, ``bundle``."""
    status: CheckStatus
    """``ok``; ``changed``: it differs from what the run states; ``not checked``: what the check
    needs is missing here."""
    what: str
    """What was found (a digest, a count), what differs, or why it was not checked."""


@shows(
    "intact",
    "n_records",
    "n_findings",
    checks=lambda found: ", ".join(f"{check.name} {check.status}" for check in found.checks),
)
@dataclass(frozen=True)
class Verification:
    """What `verify` found in a run."""

    path: Path
    """The run folder or bundle."""
    checks: tuple[Check, ...]
    """The checked parts of the run."""
    findings: tuple[Finding, ...]
    """What is wrong with records, with file and line; at most 1,000."""
    n_findings: int
    """Number of findings, those beyond the 1,000 included."""
    n_records: int
    """Number of records read."""
    n_unchecked: int
    """Number of records without a digest of their own, from an older version."""
    score: Score | None = field(repr=False)
    """The score, computed from the records; None where it cannot be computed."""

    @property
    def intact(self) -> bool:
        """Whether there are no findings and no part has changed; parts not checked do not count."""
        return not self.n_findings and all(check.status != "changed" for check in self.checks)


def verify(run: RunLike, *, prompts: str | Path | PromptSet | None = None) -> Verification:
    """Check that a run, or a bundle of one, is as it was written, and compute its score again.

    It checks the digests of configuration, prompt set and judges, each record's own digest and
    that of its text, that every verdict has its answer, the counts, the checkpoint, and whether you
    wrote the manifest on this machine. Digests find accidents and careless edits, but whoever
    forges a run can compute them anew. To know that a bundle (`refusalkit export --to bundle`) is
    the published one, compare its digest with the published digest.

    Args:
        run: a run, the path of its folder, or the path of a bundle.
        prompts: the prompt set that was asked; needed if it is neither shipped nor at the path in
            a run of your own.

    Returns:
        The checked parts, and what is wrong by file and line; `Verification.intact` sums it up.

    Raises:
        RunFolderError: there is no run, or the bundle cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="runs/kept")
        >>> rk.verify(run).intact
        True
    """
    path = run.path if isinstance(run, Run) else Path(run)
    if not is_bundle(path):
        return _verified(load_run(run), path, prompts, None)
    with unpacked(path) as folder:
        return _verified(load_run(folder), path, prompts, read_claims(folder))


def _verified(
    run: Run, path: Path, prompts: str | Path | PromptSet | None, claims: Claims | None
) -> Verification:
    records = check_records(run)
    score = _recomputed(run, records)
    checks = [
        _configuration(run),
        _prompt_set(run, prompts, records),
        *_judges(run),
        _records(records),
        _checkpoint(run, records),
        _manifest(run),
        *([] if claims is None else [_bundle(claims, score)]),
        _score(score),
    ]
    return Verification(
        path,
        tuple(checks),
        tuple(records.findings),
        records.n_findings,
        records.n_records,
        records.n_unchecked,
        score,
    )


def _recomputed(run: Run, records: CheckedRecords) -> Score | None:
    try:
        return score_of(run)
    except RefusalkitError as error:
        records.add("score", f"cannot be computed: {error}")
        return None


def _score(score: Score | None) -> Check:
    if score is None:
        return Check("score", "changed", "cannot be computed from these records")
    return Check("score", "ok", f"willingness {score.willingness}, computed from the records")


def _configuration(run: Run) -> Check:
    said = run.manifest.config_digest
    try:
        found = run.manifest.run_config.digest
    except RunFolderError as error:
        return Check("configuration", "changed", str(error))
    if found != said:
        return Check("configuration", "changed", f"has the digest {found}, not {printable(said)}")
    return Check("configuration", "ok", said)


def _prompt_set(run: Run, given: str | Path | PromptSet | None, records: CheckedRecords) -> Check:
    """Whether the set is the one that was asked; a path in a stranger's run is not opened."""
    entry, name = run.manifest.prompt_set, "prompt set"
    if run.manifest.kind == "grade":
        return Check(name, "not checked", "recorded answers were graded: their file is not kept")
    source = given if given is not None else entry.source
    shipped = source in shipped_sets()
    if source is None:
        return Check(name, "not checked", "it was built in Python: give it with --prompts")
    if given is None and not shipped and not (run.is_own and Path(str(source)).exists()):
        return Check(name, "not checked", f"{printable(source)} is not shipped: use --prompts")
    try:
        config = run.manifest.run_config
        version = draw_of(run.manifest)
        if isinstance(source, PromptSet):
            chosen = choose_prompts(config, source, draw_version=version)
        else:
            chosen = choose_prompts(config, source=str(source), draw_version=version)
    except RefusalkitError as error:
        return Check(name, "changed", str(error))
    if chosen.digest != entry.digest:
        what = f"{printable(entry.name)} has the digest {chosen.digest}, not {entry.digest}"
        return Check(name, "changed", what)
    known = {(prompt.id, prompt.category) for prompt in chosen.prompts}
    for category, ids in records.prompts.items():
        for prompt_id in sorted(ids):
            if (prompt_id, category) not in known:
                what = f"{printable(prompt_id)} in {printable(category)} is not in the prompt set"
                records.add("completions.jsonl", what)
    return Check(name, "ok", f"{printable(entry.name)} {printable(entry.version)}, {entry.digest}")


def _judges(run: Run) -> list[Check]:
    found = []
    for judge, entry in run.manifest.judges.items():
        of_record = judge == run.manifest.judge
        found.append(_judge(run, judge, entry, of_record=of_record))
        parts = (entry.fallback, entry.hard_line_judge)
        found.extend(_judge(run, part.id, part, of_record=False) for part in parts if part)
    return found


def _judge(run: Run, judge: str, entry: JudgeEntry | JudgePart, *, of_record: bool) -> Check:
    name = f"judge {printable(judge, 80)}"
    if isinstance(entry, JudgeEntry) and entry.members:
        return Check(name, "not checked", "a council: see its members")
    if isinstance(entry, JudgeEntry) and (entry.fallback or entry.hard_line_judge):
        return Check(name, "not checked", "its digest covers other judges too: see those")
    source = entry.source
    own_file = run.is_own and source is not None and Path(source).is_file()
    if source is None or not (source in shipped_judges() or own_file):
        return Check(name, "not checked", "its judge file is not shipped")
    try:
        config = run.manifest.run_config
        changes = (config.judge_temperature, config.judge_asks) if of_record else (None, None)
        rubric = load_rubric(source, model=entry.model, temperature=changes[0], asks=changes[1])
    except RefusalkitError as error:
        return Check(name, "changed", str(error))
    if rubric.digest == entry.digest:
        return Check(name, "ok", f"{printable(entry.name)} {rubric.version}, {rubric.digest}")
    if not of_record:
        return Check(name, "not checked", "how it was asked is not in the manifest")
    return Check(name, "changed", f"has the digest {rubric.digest}, not {printable(entry.digest)}")


def _records(records: CheckedRecords) -> Check:
    if records.n_findings:
        return Check("records", "changed", f"{records.n_findings} of them, see below")
    what = f"{records.n_records} records, {len(records.units)} units"
    if records.n_unchecked:
        what += f"; {records.n_unchecked} are of an older run and have no digest of their own"
    return Check("records", "ok", what)


def _checkpoint(run: Run, records: CheckedRecords) -> Check:
    import polars as pl

    if not run.checkpoint.exists():
        return Check("checkpoint", "not checked", "there is none")
    units = pl.Series("unit", list(records.units), dtype=pl.String)
    if checkpoint_fits(run, lambda: units):
        return Check("checkpoint", "ok", "is of these records")
    return Check("checkpoint", "changed", "is of other records")


def _manifest(run: Run) -> Check:
    if run.is_own:
        return Check("manifest", "ok", "is as you wrote it on this machine")
    return Check(
        "manifest", "not checked", "was not written by you on this machine, or was changed"
    )


def _bundle(claims: Claims, score: Score | None) -> Check:
    if claims.changed:
        return Check(BUNDLE, "changed", f"{', '.join(claims.changed)}: not what was bundled")
    figure = None if score is None else score.willingness.value
    if not _same(figure, claims.willingness):
        what = f"it says a willingness of {claims.willingness}, its records give {figure}"
        return Check(BUNDLE, "changed", what)
    return Check(BUNDLE, "ok", claims.digest)


def _same(figure: float | None, said: float | None) -> bool:
    if figure is None or said is None:
        return figure is said
    return math.isclose(figure, said, rel_tol=0, abs_tol=1e-9)
