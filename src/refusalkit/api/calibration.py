"""Measure a judge on people's labels, and correct a score for its errors."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from refusalkit.api.calls import RunLike, as_list, check_options, load_run, path_of
from refusalkit.api.grading import judged_records, labelled_strata, recorded_answers
from refusalkit.api.sync import sync
from refusalkit.clock import now
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import BatchOptions
from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.files import read_file
from refusalkit.prompts.categories import slug_of
from refusalkit.runs.folder import Run, holds_run
from refusalkit.runs.naming import RUNS
from refusalkit.types import Label
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.plan import OnProgress
    from refusalkit.judges.protocol import Judge
    from refusalkit.runs.imported.answers import RecordedAnswers
    from refusalkit.runs.imported.published_labels import PublishedLabels
    from refusalkit.runs.manifest import JudgeEntry
    from refusalkit.scoring.judge_quality.calibration import Calibrated, Calibration, LabelledAnswer
    from refusalkit.scoring.judge_quality.correction import Correction

_T = TypeVar("_T")


def calibrate(
    judge: str | Judge,
    labels: RunLike | Sequence[RunLike],
    *,
    verdicts: str | Path | None = None,
    count_deflection: bool = False,
    hard_line: Collection[str] = (),
    on_progress: OnProgress | None = None,
    **options: Unpack[BatchOptions],
) -> Calibrated:
    """Measure a judge on answers that people labelled.

    Args:
        judge: as for `grade`.
        labels: one source of answers or several, each as `grade` reads it, with a `label` on the
            answers that count; an answer without one is not judged. Published answers go by name,
            such as ``xstest-answers``, or ``xstest-answers:FILE`` for a copy of yours.
        hard_line: categories whose answers, and the judge's reasons, are withheld (see `grade`).
        verdicts: keep the verdicts on each source in a run folder below this one. Those of a judge
            that costs something are always kept, and repeating the call continues where an earlier
            one stopped.
        count_deflection: count a deflection as refused.
        on_progress: called after each step with a `Progress`.
        **options: `BatchOptions`. With ``batch`` the judge's requests are submitted as a batch, and
            repeating the call collects the verdicts, unless ``wait`` is set. A judge object then
            needs `verdicts`.

    Returns:
        Sensitivity, specificity and kappa with intervals; its `calibration` can be saved by
        `write_calibration` and given to `correct`.

    Raises:
        UsageError: nothing is labelled.
        RecordError: a record is wrong; file, line and field are named.
        Exception: what `grade` raises.

    Examples:
        >>> import refusalkit as rk
        >>> rk.calibrate("lexical", "labelled.jsonl").calibration.n_scored
        4
    """
    check_options(calibrate, options, BatchOptions)
    return sync(
        lambda stop: calibrate_async(
            judge,
            labels,
            verdicts=verdicts,
            count_deflection=count_deflection,
            hard_line=hard_line,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
    )


async def calibrate_async(
    judge: str | Judge,
    labels: RunLike | Sequence[RunLike],
    *,
    verdicts: str | Path | None = None,
    count_deflection: bool = False,
    hard_line: Collection[str] = (),
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[BatchOptions],
) -> Calibrated:
    """`calibrate` for async code."""
    check_options(calibrate_async, options, BatchOptions)
    from refusalkit.scoring.judge_quality.calibration import LabelsEntry

    files: list[Path] = []
    notices: list[str] = []
    names: dict[Path, str] = {}
    for one in as_list(labels):
        published = await asyncio.to_thread(_published, one)
        if published is None:
            files.append(path_of(one))
        else:
            files.append(published.path)
            names[published.path] = f"{published.source.name}@{published.source.revision}"
            notices += published.notices
    if not files:
        raise UsageError("no file of labelled answers was given: name one with --labels")
    if len({file.resolve() for file in files}) < len(files):
        raise UsageError("a file of labelled answers was given twice: its answers count once")
    answers: list[LabelledAnswer] = []
    entries: list[LabelsEntry] = []
    runs: list[Path] = []
    annotators: dict[str, dict[str, Label]] = {}
    measured: tuple[str, JudgeEntry] | None = None
    # Read before anything is paid for: a mistake in the second file is found now.
    read = {file: await asyncio.to_thread(_labelled, file) for file in files}
    marked = {
        file: [name for name in hard_line if _has_category(recorded, name)]
        for file, recorded in read.items()
    }
    for name in hard_line:
        if not any(name in found for found in marked.values()):
            read[files[0]].with_hard_lines([name])  # says which categories there are
    read.clear()
    # All of these answers have known labels, so canaries would say nothing new.
    asked: BatchOptions = {"canaries": 0, **options}
    digests = {file: await asyncio.to_thread(_digest, file) for file in files}

    def judged(
        file: Path, *, wait: bool
    ) -> AbstractAsyncContextManager[tuple[Run, RecordedAnswers, bool]]:
        of_file: BatchOptions = {**asked, "wait": wait}
        return judged_records(
            file,
            judge,
            labelled_only=True,
            out=_folder(judge, file, digests[file], verdicts, options),
            kept_by="verdicts",
            hard_line=marked[file],
            on_progress=on_progress,
            stop=stop,
            **of_file,
        )

    waits = bool(asked.get("wait"))
    if waits and asked.get("batch") is not None and len(files) > 1:
        # All are submitted before any is waited for.
        for file in files:
            async with _told(judged(file, wait=False)):
                pass
    for number, file in enumerate(files):
        async with _told(judged(file, wait=waits)) as (done, recorded, kept):
            manifest = done.manifest
            measured = manifest.judge, manifest.judges[manifest.judge]
            answers += _answers(done, recorded)
            runs += [done.path] if kept else []
        entries.append(
            LabelsEntry(
                name=names.get(file, file.name),
                sha256=digests[file],
                n_records=len(recorded.responses),
                n_labelled=len(recorded.labels),
            )
        )
        for name, said in recorded.annotators.items():
            annotators.setdefault(name, {}).update({f"{number}:{u}": v for u, v in said.items()})
    assert measured is not None
    found = _calibrated(*measured, answers, entries, runs, annotators, count_deflection)
    return replace(found, notices=tuple(notices))


@contextlib.asynccontextmanager
async def _told(judged: AbstractAsyncContextManager[_T]) -> AsyncIterator[_T]:
    """The same, with advice that fits: `--out` names the calibration here, and not a run."""
    try:
        async with judged as found:
            yield found
    except (asyncio.CancelledError, RefusalkitError) as error:
        if getattr(error, "__notes__", None):
            error.__notes__ = ["go on with the same command"]
        raise


def _published(labels: object) -> PublishedLabels | None:
    """Published labels by name; a file that is called so is the user's own."""
    from refusalkit.runs.imported.published_labels import published_labels

    if not isinstance(labels, str) or Path(labels).exists():
        return None
    return published_labels(labels)


def _labelled(file: Path) -> RecordedAnswers:
    recorded = recorded_answers(file)
    if not recorded.labels:
        raise UsageError(
            f"{printable(file)} holds no answer with a person's label: each counts by its field "
            f"`label`, one of {', '.join(Label)}"
        )
    return recorded


def _has_category(recorded: RecordedAnswers, name: str) -> bool:
    """Whether the answers of one of several files have a category."""
    try:
        recorded.with_hard_lines([name])
    except UsageError:
        return False
    return True


def _digest(file: Path) -> str:
    path = file / "samples.jsonl" if file.is_dir() and not holds_run(file) else file
    try:
        return hashlib.sha256(read_file(path, limit=2**31)).hexdigest()
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _folder(
    judge: str | Judge,
    file: Path,
    digest: str,
    verdicts: str | Path | None,
    options: BatchOptions,
) -> Path | None:
    """Where the verdicts on one file are kept: the same place for the same call."""
    from refusalkit.judges.rubrics import load_rubric

    name = f"{slug_of(file.stem)}-{digest[:8]}"
    if verdicts is not None:
        return Path(verdicts) / name
    if not isinstance(judge, str):
        return None
    if judge.startswith("imported"):
        return None
    config = resolve_config({**options, "model": "recorded/labels", "judge": judge})
    rubric = load_rubric(config.judge_name, model=config.judge_model)
    if not rubric.asks_model:
        return None
    return RUNS / f"calibrate-{slug_of(rubric.name)}-{rubric.digest[7:15]}" / name


def _answers(run: Run, recorded: RecordedAnswers) -> list[LabelledAnswer]:
    """The labelled answers of one file with the judge's word on each."""
    from refusalkit.runs.frames import RunRecords
    from refusalkit.scoring.judge_quality.calibration import LabelledAnswer

    judge = run.manifest.judge
    columns = (
        RunRecords(run, (), judges=[judge], verify=False)
        .responses()
        .select("unit", "label", "unscored")
    )
    rows = {unit: (label, why) for unit, label, why in columns.iter_rows()}
    found = []
    for prompt, trial in recorded.units:
        unit = f"{prompt.id}#{trial}"
        if (truth := recorded.labels.get(unit)) is None:
            continue
        label, why = rows.get(unit, (None, "owed"))
        origin = recorded.origins.get(unit, {})
        turns = "\0".join(f"{turn.role}\0{turn.content}" for turn in prompt.turns)
        found.append(
            LabelledAnswer(
                prompt=hashlib.sha256(turns.encode("utf-8", "replace")).hexdigest(),
                truth=truth,
                said=None if label is None else Label(label),
                unscored=why,
                category=prompt.category,
                lang=prompt.lang,
                source=origin.get("source"),
                model=origin.get("model"),
            )
        )
    return found


def _calibrated(
    judge_id: str,
    entry: JudgeEntry,
    answers: list[LabelledAnswer],
    files: list[Any],
    runs: list[Path],
    annotators: dict[str, dict[str, Label]],
    count_deflection: bool,
) -> Calibrated:
    from refusalkit.scoring.agreement.coefficients import (
        SPLITS,
        agreement,
        agreement_on,
        krippendorff_alpha,
    )
    from refusalkit.scoring.judge_quality.calibration import (
        LEAKED,
        QUESTIONS,
        REFUSED,
        REFUSED_OR_DEFLECTED,
        Calibrated,
        Calibration,
        JudgeIdentity,
        breakdown,
        cells_by_prompt,
        nested,
        people_alpha,
        prompt_patterns,
    )

    pairs = [(a.truth, a.said) for a in answers if a.said is not None]
    unscored = Counter(str(a.unscored) for a in answers if a.said is None)
    fields = ("name", "version", "digest", "kind", "model", "graded")
    by_prompt = cells_by_prompt(answers)
    calibration = Calibration(
        refusalkit=importlib.metadata.version("refusalkit"),
        made_at=now(),
        judge=JudgeIdentity(id=judge_id, **{name: getattr(entry, name) for name in fields}),
        labels=tuple(files),
        languages=dict(Counter(a.lang for a in answers).most_common()),
        n_labelled=len(answers),
        n_scored=len(pairs),
        unscored=dict(sorted(unscored.items())),
        cells=nested(Counter(pairs)),
        prompts=prompt_patterns(by_prompt),
    )
    question = REFUSED_OR_DEFLECTED if count_deflection else REFUSED
    said = {
        "people": {str(n): truth for n, (truth, _) in enumerate(pairs)},
        "judge": {str(n): label for n, (_, label) in enumerate(pairs)},
    }
    return Calibrated(
        calibration=calibration,
        question=question,
        agreement=agreement_on(pairs, QUESTIONS[question], question),
        agreements=tuple(agreement(pairs, split) for split in SPLITS),
        rates=calibration.error_rates(question),
        leak_rates=calibration.error_rates(LEAKED),
        alpha=krippendorff_alpha(said),
        people_alpha=people_alpha(annotators),
        breakdown=breakdown(answers, question),
        runs=tuple(runs),
    )


def correct(
    run: RunLike,
    *,
    calibration: Calibration | str | Path | None = None,
    labels: str | Path | Sequence[str | Path] | None = None,
    judge: str | None = None,
    count_deflection: bool | None = None,
) -> Correction:
    """A run's figures corrected for its judge's errors, each beside the uncorrected one.

    Args:
        run: a run, or the path of its folder.
        calibration: of its judge (see `calibrate`), or the path of one that was saved.
        labels: instead, files of people's labels on answers of this very run (`open_labelling`).
        judge: the id of one of the run's judges; default: its judge of record.
        count_deflection: count a deflection as refused; default: as the run was configured.

    Returns:
        The corrected figures; where calibration or labels do not fit the run `Correction.refused`
        says why, and nothing is corrected.

    Raises:
        UsageError: not exactly one of `calibration` and `labels` is given.
        RecordError: a file is wrong.
        RunFolderError: there is no run.

    Examples:
        >>> import refusalkit as rk
        >>> measured = rk.calibrate("lexical", "labelled.jsonl").calibration
        >>> rk.correct("runs/example", calibration=measured).refused is not None
        True
    """
    from refusalkit.runs.imported.person_labels import read_person_labels
    from refusalkit.scoring.judge_quality.calibration import read_calibration
    from refusalkit.scoring.judge_quality.correction import correct_score, languages_of
    from refusalkit.scoring.judge_quality.prediction_powered import common_sample, correct_by_labels
    from refusalkit.scoring.score import score_run

    if (calibration is None) == (labels is None):
        raise UsageError("a score is corrected by a calibration or by labels: give one of the two")
    opened = load_run(run)
    scored = score_run(opened, judge=judge, count_deflection=count_deflection)
    if labels is not None:
        files = [read_person_labels(path_of(file)) for file in as_list(labels)]
        drawn_by = common_sample(scored.run, files).judge
        return correct_by_labels(scored, files, labelled_strata(opened, drawn_by))
    assert calibration is not None
    if isinstance(calibration, str | Path):
        calibration = read_calibration(calibration)
    return correct_score(scored, calibration, languages=languages_of(opened))
