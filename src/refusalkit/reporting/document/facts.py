"""The facts that a report states about its runs, gathered once for all formats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from refusalkit.errors import UsageError
from refusalkit.reporting.document.reproduce import Reproduction, reproduction
from refusalkit.runs.folder import Run
from refusalkit.runs.frames import REPORTED, RunRecords
from refusalkit.runs.manifest import JudgeEntry, Manifest
from refusalkit.scoring.agreement.judge_pairs import JudgeAgreements, judge_agreements
from refusalkit.scoring.audit import Audit, audit_run
from refusalkit.scoring.compare.comparable import all_obstacles
from refusalkit.scoring.compare.compare_runs import compare_scores
from refusalkit.scoring.compare.result import Comparison
from refusalkit.scoring.hard_line import AuditStatus
from refusalkit.scoring.judge_quality.calibration import Calibration
from refusalkit.scoring.judge_quality.correction import Correction, correct_score, languages_of
from refusalkit.scoring.score import Score, score_run
from refusalkit.scoring.trials import TrialAgreement, trial_agreement
from refusalkit.types import Label, Unscored

_BY_JUDGE = (
    Unscored.UNPARSABLE,
    Unscored.JUDGE_BLOCKED,
    Unscored.JUDGE_ERROR,
    Unscored.NO_MAJORITY,
    Unscored.MISSING_VOTE,
)


@dataclass(frozen=True, slots=True)
class RunCosts:
    """What a run cost. Amounts are None if a price is unknown, seconds None if not recorded.

    `cost_usd` and `tokens` (see `RunRecords.tokens`) cover all requests, including retries.
    `latency_s` maps ``median``, ``90 %``, ``99 %`` and ``slowest`` to seconds, including retries
    and waiting. `worked_s` is the total duration of the run's sessions.
    """

    cost_usd: float | None
    cost_per_scored_usd: float | None
    tokens: dict[str, dict[str, int]]
    latency_s: dict[str, float] | None
    worked_s: float | None


@dataclass(frozen=True)
class Judging:
    """The work of the judge behind the figures, and of the run's other judges.

    `unscored` counts the units that the judge left without a label, by reason. `others` has the
    score by each other judge, members of a council excepted; `agreements` compares all judges in
    pairs and is None if there is only one.
    """

    id: str
    entry: JudgeEntry
    n_judged: int
    n_by_provider: int
    unscored: dict[str, int]
    answered_by: dict[str, int]
    others: dict[str, Score]
    agreements: JudgeAgreements | None


@dataclass(frozen=True)
class RunFacts:
    """The facts of one run. `name` distinguishes it from the other runs of the report."""

    name: str
    records: RunRecords
    score: Score
    audit: Audit | None
    trials: TrialAgreement
    judging: Judging
    spending: RunCosts
    reproduction: Reproduction
    correction: Correction | None = None

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.records.run.manifest

    @property
    def units(self) -> pl.DataFrame:
        """All units that came back, including contrast prompts and framed requests."""
        return self.records.responses(self.score.judge)

    @property
    def date(self) -> str | None:
        """The day the run was started (UTC), ``YYYY-MM-DD``."""
        sessions = self.manifest.sessions
        return sessions[0].day if sessions else None

    @property
    def n_unscored(self) -> int:
        """Planned units without a label."""
        return self.score.n_units - self.score.n_scored

    @property
    def is_complete(self) -> bool:
        """Whether the last session finished its work and no unit is owed."""
        ended = self.manifest.sessions[-1].ended_because if self.manifest.sessions else "done"
        return ended == "done" and self.score.is_complete


@dataclass(frozen=True)
class Facts:
    """Everything that a report states.

    `comparison` compares several runs. It is None for a single run and for runs that cannot be
    compared; `obstacles` then gives the reasons. `show_text` shows kept answers with their prompts.
    """

    runs: tuple[RunFacts, ...]
    comparison: Comparison | None = None
    obstacles: tuple[str, ...] = ()
    show_text: bool = False

    @property
    def is_crossed(self) -> bool:
        """Whether the audit of any run found a line crossed."""
        return any(
            run.audit is not None and run.audit.status is AuditStatus.CROSSED for run in self.runs
        )


def gather(
    runs: Sequence[Run],
    *,
    judge: str | None = None,
    anyway: bool = False,
    calibration: Calibration | None = None,
    show_text: bool = False,
) -> Facts:
    """Read and score the runs, and compare several.

    A `calibration` corrects each run's figures for its judge's errors, or says why it cannot.
    `anyway` compares runs in spite of obstacles, which then become warnings. Raises
    `RunFolderError`, `RecordError`.
    """
    named = zip(runs, _names(runs), strict=True)
    found = tuple(_facts(run, name, judge, calibration) for run, name in named)
    comparison, obstacles = _compared(found, anyway) if len(found) > 1 else (None, ())
    return Facts(found, comparison, obstacles, show_text)


def _compared(runs: Sequence[RunFacts], anyway: bool) -> tuple[Comparison | None, tuple[str, ...]]:
    scores = [facts.score for facts in runs]
    obstacles = tuple(all_obstacles(scores))
    if obstacles and not anyway:
        return None, obstacles
    try:
        return compare_scores(scores), ()
    except UsageError as error:  # nothing came back in two of them
        return None, (str(error),)


def _facts(run: Run, name: str, judge: str | None, calibration: Calibration | None) -> RunFacts:
    # Read once, shared by everything below.
    records = RunRecords(run, REPORTED, count_odd=True)
    score = score_run(run, judge=judge, records=records)
    hard_lines = run.manifest.hard_lines
    return RunFacts(
        name=name,
        records=records,
        score=score,
        audit=audit_run(run, judge=judge, records=records) if hard_lines else None,
        trials=trial_agreement(score),
        judging=_judging(records, score),
        spending=_spending(records, score),
        reproduction=reproduction(run.manifest),
        correction=(
            None
            if calibration is None
            else correct_score(score, calibration, languages=languages_of(run))
        ),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """The models' names, with what differs in brackets where two runs share a model."""
    models = [str(run.manifest.config.get("model", "")) for run in runs]
    names = []
    for run, model in zip(runs, models, strict=True):
        alike = [other for other, name in zip(runs, models, strict=True) if name == model]
        if len(alike) == 1:
            names.append(model)
            continue
        for tell in (_reasoning, _folder, _identity):
            if len({tell(other) for other in alike}) == len(alike):
                break
        names.append(f"{model} ({tell(run)})")
    # The same run given twice.
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[index] = f"{name} [{seen[name]}]"
    return names


def _reasoning(run: Run) -> str:
    return f"reasoning {run.manifest.config.get('reasoning')}"


def _folder(run: Run) -> str:
    """The folder's name; of a generated one the last part, which is unique."""
    name = run.path.resolve().name
    return name.rpartition("-")[2] if name == run.manifest.id else name


def _identity(run: Run) -> str:
    return run.manifest.id


def _judging(records: RunRecords, score: Score) -> Judging:
    manifest = records.run.manifest
    labelled = records.responses(score.judge).filter(pl.col("label").is_not_null())
    by_judge = labelled.filter(pl.col("source") == "judge")
    provider = labelled.filter(pl.col("source") != "judge")
    entry = manifest.judges[score.judge]
    known = [name for name in manifest.judges if name not in (score.judge, *entry.members)]
    said = {name: records.labels(name) for name in (score.judge, *known)} if known else {}
    listed = {name: labels for name, labels in said.items() if labels}
    return Judging(
        id=score.judge,
        entry=entry,
        n_judged=len(by_judge),
        n_by_provider=len(provider),
        unscored={why.value: n for why in _BY_JUDGE if (n := score.unscored.get(why.value, 0))},
        answered_by=_counts(by_judge["answered_by"]),
        others={name: score_run(records.run, judge=name, records=records) for name in known},
        agreements=judge_agreements(listed) if len(listed) > 1 else None,
    )


def _counts(column: pl.Series) -> dict[str, int]:
    found = dict(column.drop_nulls().value_counts().iter_rows())
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


_QUANTILES = (("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("slowest", 1.0))


def _spending(records: RunRecords, score: Score) -> RunCosts:
    cost = records.spent_usd()
    seconds = records.responses(score.judge)["latency_s"].drop_nulls()
    found = None
    if len(seconds):
        found = {name: float(seconds.quantile(q, "higher") or 0) for name, q in _QUANTILES}
    return RunCosts(
        cost_usd=cost,
        cost_per_scored_usd=cost / score.n_scored if cost is not None and score.n_scored else None,
        tokens=records.tokens(),
        latency_s=found,
        worked_s=_worked(records.run.manifest),
    )


def _worked(manifest: Manifest) -> float | None:
    seconds = 0.0
    for session in manifest.sessions:
        if session.ended_at is None:
            return None
        try:
            started = datetime.fromisoformat(session.started_at)
            seconds += (datetime.fromisoformat(session.ended_at) - started).total_seconds()
        except ValueError:
            return None
    return seconds if manifest.sessions else None


def disagreeing(facts: RunFacts) -> frozenset[str]:
    """Units on which two judges of the run disagree about a refusal."""
    found = facts.judging.agreements
    council = facts.score.council
    pairs = (*(found.pairs if found else ()), *(council.pairs if council else ()))
    return frozenset(itertools.chain.from_iterable(pair.differ for pair in pairs))


def labels_of(score: Score) -> dict[str, dict[str, int]]:
    """Counts by label: ordinary, hard lines, safe twins, framed requests; empty parts left out."""
    parts = {
        "ordinary": score.responses.filter(~pl.col("hard_line")),
        "hard lines": score.responses.filter("hard_line"),
        "safe twins": score.contrast,
        "framed requests": score.framed,
    }
    found = {}
    for name, part in parts.items():
        if len(part):
            said = dict(part["label"].value_counts().iter_rows())
            found[name] = {label.value: int(said.get(label.value, 0)) for label in Label}
            found[name]["unscored"] = part["label"].null_count()
    return found
