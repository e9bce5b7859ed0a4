"""Judge answers that were recorded, and compare judges over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, as_list, check_options, path_of
from refusalkit.config.run_config import BatchOptions, JudgeOptions
from refusalkit.engine.batch_checks import judged_in_batches
from refusalkit.engine.opening import config_of_call, open_configured_judge, ready_config
from refusalkit.engine.session import work_session
from refusalkit.errors import ConfigurationChanged, RunFolderError, UsageError
from refusalkit.runs.batch_journal import check_trusted
from refusalkit.runs.folder import Run, holds_run, open_run
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.runs.new import continued_run, new_manifest
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.runs.trust import check_sources, followed_judge
from refusalkit.types import Label, unit_id
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.engine.plan import OnProgress
    from refusalkit.judges.protocol import Judge
    from refusalkit.judges.recorded_verdicts import RecordedJudge
    from refusalkit.prompts.prompt_set import PromptSet
    from refusalkit.runs.imported.answers import RecordedAnswers
    from refusalkit.scoring.agreement.judge_pairs import JudgeAgreements
    from refusalkit.scoring.judge_quality.grades import Grades


from refusalkit.api.sync import sync
from refusalkit.runs.naming import RUNS

_LOG = logging.getLogger("refusalkit")

WHERE_JUDGED = ("judge_api_base", "judge_api_key_env")


def grade(
    records: RunLike,
    judge: str | Judge = "graded",
    *,
    out: str | Path | None = None,
    hard_line: Collection[str] = (),
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[BatchOptions],
) -> Grades:
    """Judge answers that were recorded elsewhere.

    Args:
        records: a JSONL file of objects with `prompt` and `response`, and `id`, `category`, `trial`
            and `label` where there are any; a run; a log folder of the reference environment; or
            what lm-evaluation-harness, promptfoo, garak, PyRIT, SpeechMap or Inspect wrote.
        judge: as for `benchmark`. ``imported`` repeats the judgements in the records, as they were
            counted there; ``imported-strict`` leaves keyword fallbacks and failures unscored.
        hard_line: categories (slugs or titles; ``all``) that are hard lines in addition to those
            marked in the records: their score is inverted, their answers and the judge's reasons
            are withheld.
        out: keep the verdicts in this run folder; repeating the call continues where an earlier one
            stopped. Verdicts of a judge that costs something are always kept, below ``runs``.
        trust_folder: follow the judge's endpoint in a folder that is not this user's own; see
            `resume`.
        on_progress: called after each step with a `Progress`.
        **options: `BatchOptions`. With ``batch`` the judge's requests are submitted as a batch:
            `out` must be given, and repeating the call collects the verdicts, unless ``wait`` is
            set.

    Returns:
        Counts of the labels, and their agreement with labels in the records.

    Raises:
        RecordError: a record is wrong; file, line and field are named.
        Exception: what `benchmark` raises.

    Examples:
        >>> import refusalkit as rk
        >>> rk.grade("runs/example", "lexical", out="runs/graded").n_judged
        55
    """
    check_options(grade, options, BatchOptions)
    return sync(
        lambda stop: grade_async(
            records,
            judge,
            out=out,
            hard_line=hard_line,
            trust_folder=trust_folder,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
    )


async def grade_async(
    records: RunLike,
    judge: str | Judge = "graded",
    *,
    out: str | Path | None = None,
    hard_line: Collection[str] = (),
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[BatchOptions],
) -> Grades:
    """`grade` for async code."""
    check_options(grade_async, options, BatchOptions)
    from refusalkit.scoring.judge_quality.grades import grade_run

    async with judged_records(
        records,
        judge,
        out=out,
        hard_line=hard_line,
        trust_folder=trust_folder,
        on_progress=on_progress,
        stop=stop,
        **options,
    ) as (done, answers, kept):
        return grade_run(done, answers.labels, kept=kept, answers=answers)


@contextlib.asynccontextmanager
async def judged_records(
    records: RunLike,
    judge: str | Judge,
    *,
    labelled_only: bool = False,
    out: str | Path | None = None,
    kept_by: str = "out",
    hard_line: Collection[str] = (),
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[BatchOptions],
) -> AsyncIterator[tuple[Run, RecordedAnswers, bool]]:
    """Judge recorded answers: (the run that holds the verdicts, the answers, whether it is kept).

    With `labelled_only` only answers with a person's label are judged. A run that is not kept is
    deleted at the end of the context. `kept_by` is the name of the caller's option for the folder
    to keep.
    """
    from refusalkit.engine.plan import plan_units
    from refusalkit.models.recorded_answers import RecordedModel

    answers = await asyncio.to_thread(recorded_answers, path_of(records))
    # Before any is left out: a category is known by all of the records.
    answers = answers.with_hard_lines(hard_line)
    if labelled_only:
        answers = answers.labelled()
    imported = imported_judge(judge, answers)
    if imported is None:
        answers = answers.readable()
    named = isinstance(judge, str)
    before = where_judged_before(out, options, trust_folder=trust_folder) if named else {}
    config = config_of_call(
        {
            **before,
            **options,
            "hard_line": tuple(hard_line),
            "trials": max(trial for _, trial in answers.units),
        },
        model=f"recorded/{answers.prompts.name}",
        prompts=answers.prompts.source,
        judge=judge,
    )
    if imported is not None and (config.council or config.judge_fallback or config.hard_line_judge):
        raise UsageError(
            "judgements that came with the answers stand alone: leave out council, judge_fallback "
            "and hard_line_judge"
        )
    grader: Judge
    if imported is not None:
        grader = imported
        # It only repeats recorded judgements, so it cannot judge canaries.
        config = config.model_copy(update={"canaries": 0})
    else:
        grader = open_configured_judge(config, judge, hard_lines=answers.prompts.hard_lines)
    config = ready_config(config, grader, asks_model=False, named_judge=named)
    config = judged_in_batches(config, grader, kept_by=None if out is not None else kept_by)
    manifest = new_manifest(config, answers.prompts, grader, kind="grade", units=answers)
    model = RecordedModel(
        config.model, answers.responses, answers.finish_reasons, judged=imported is not None
    )
    # Verdicts of a model cost money or time, so they are kept even without `out`.
    rubrics = rubrics_of(grader)
    costly = imported is None and (
        not rubrics or any(rubric.of_kind.is_costly for rubric in rubrics)
    )
    keep = out is not None or costly
    with tempfile.TemporaryDirectory(prefix="refusalkit-") as scratch:
        default = RUNS / manifest.id if keep else Path(scratch) / "run"
        run = continued_run(Path(out) if out is not None else default, manifest)
        if config.batch is not None:
            check_trusted(run, trust_folder=trust_folder)
        plan = plan_units(answers.units)
        done = await work_session(
            run,
            plan,
            model,
            grader,
            config,
            on_progress,
            stop,
            hard_lines=answers.prompts.hard_lines,
            keep_hard_line_text=config.keep_hard_line_text,
        )
        yield done, answers, keep


def where_judged_before(
    out: str | Path | None, options: Mapping[str, Any], *, trust_folder: bool = False
) -> Mapping[str, str | None]:
    """The judge's endpoint recorded in the grade run in `out`, unless `options` name one.

    The endpoint and the name of its key go together: neither is taken without the other.
    """
    if out is None or not holds_run(Path(out)) or any(map(options.get, WHERE_JUDGED)):
        return {}
    run = open_run(Path(out))
    manifest = run.manifest
    if manifest.kind != "grade":
        return {}
    named = {name: getattr(manifest.run_config, name) for name in WHERE_JUDGED}
    return followed_judge(run, named, manifest.judge, options, trust_folder=trust_folder)


def judge_agreement(
    paths: RunLike | Sequence[RunLike],
    judge: str | Judge | None = None,
    **options: Unpack[JudgeOptions],
) -> JudgeAgreements:
    """How the judges of recorded answers agree with one another, and with people.

    For a run, all judges in its verdicts are compared; for other records (see `grade`), the
    judgements in them and people's labels, including those of single annotators.

    Args:
        paths: runs, files of recorded answers, or label files of `open_labelling`, one or several.
            Give a label file's run as well for the judges of the run.
        judge: judge the answers with this one too, and compare it.
        **options: `JudgeOptions`.

    Returns:
        For each pair the share of equal labels and Cohen's kappa; over all of them Krippendorff's
        alpha (nominal).

    Raises:
        UsageError: there are fewer than two judges to compare.
        Exception: what `grade` raises.

    Examples:
        >>> import refusalkit as rk
        >>> rk.judge_agreement("labelled.jsonl", "lexical")
        JudgeAgreements(judges='people, lexical', pairs=1, alpha=...)
    """
    check_options(judge_agreement, options, JudgeOptions)
    return sync(lambda stop: judge_agreement_async(paths, judge, stop=stop, **options))


async def judge_agreement_async(
    paths: RunLike | Sequence[RunLike],
    judge: str | Judge | None = None,
    *,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[JudgeOptions],
) -> JudgeAgreements:
    """`judge_agreement` for async code."""
    check_options(judge_agreement_async, options, JudgeOptions)
    from refusalkit.runs.imported.person_labels import is_label_file, read_person_labels
    from refusalkit.scoring.agreement.judge_pairs import judge_agreements

    said: dict[str, dict[str, Label]] = {}
    categories: dict[str, str] = {}
    given = [path_of(path) for path in as_list(paths)]
    files = [read_person_labels(path) for path in given if is_label_file(path)]
    sources = [path for path in given if not is_label_file(path)]
    several = len(sources) > 1 or len({file.sample.run for file in files}) > 1
    runs = {open_run(path).manifest.id: path for path in sources if holds_run(path)}
    for path in sources:
        by_judge, category_of = await asyncio.to_thread(_labels_of, path)
        if judge is not None:
            grades = await grade_async(path, judge, on_progress=on_progress, stop=stop, **options)
            by_judge = {**by_judge, grades.judge: grades.said}
        here = f"{path}:" if several else ""
        categories.update({here + unit: slug for unit, slug in category_of.items()})
        for name, labels in by_judge.items():
            said.setdefault(name, {}).update({here + unit: v for unit, v in labels.items()})
    for file in files:
        here = f"{runs.get(file.sample.run, file.sample.run)}:" if several else ""
        of_person = said.setdefault(f"annotator {file.annotator}", {})
        of_person.update({here + unit: label for unit, label in file.labels.items()})
        categories.update({here + unit: slug for unit, slug in file.categories.items()})
    if len(said) < 2:
        found = f"only {', '.join(map(printable, said))}" if said else "none"
        raise UsageError(
            f"two judges are needed, and there is {found}: add one with --judge, or give records "
            "that carry a judgement or people's labels"
        )
    return judge_agreements(said, categories)


def answer_texts(paths: Sequence[RunLike], units: Collection[str]) -> dict[str, tuple[str, str]]:
    """Prompt and answer by the unit names of `judge_agreement`, without those of hard lines."""
    from refusalkit.runs.imported.person_labels import is_label_file

    sources = [path for path in map(path_of, paths) if not is_label_file(path)]
    found: dict[str, tuple[str, str]] = {}
    for path in sources:
        answers = recorded_answers(path)
        here = f"{path}:" if len(sources) > 1 else ""
        for prompt, trial in answers.units:
            unit = unit_id(prompt.id, trial)
            if here + unit in units and prompt.category not in answers.prompts.hard_lines:
                found[here + unit] = (prompt.text, answers.responses[unit])
    return found


def recorded_answers(path: Path, seen: frozenset[Path] = frozenset()) -> RecordedAnswers:
    """Recorded answers of any kind.

    `seen` has the runs of graded answers that were followed to get here, to detect a loop.
    """
    from refusalkit.runs.imported.own_run import answers_of_run
    from refusalkit.runs.imported.read import read_answers

    if not holds_run(path):
        return read_answers(path)
    run = open_run(path)
    return answers_of_run(run, asked_prompts(run, seen))


def asked_prompts(run: Run, seen: frozenset[Path] = frozenset()) -> PromptSet:
    """The prompts of a run, or of the recorded answers that it judged.

    Raises `ConfigurationChanged` if they have changed.
    """
    manifest = run.manifest
    if run.path.resolve() in seen:
        raise RunFolderError(f"{printable(run.path)} says that it was graded from itself")
    check_sources(run, prompts=True)
    if manifest.kind == "run":
        beside = run.path.absolute().parent
        return same_prompts(manifest, manifest.run_config, None, beside=beside)
    return graded_records(run, seen | {run.path.resolve()}).prompts


def graded_records(run: Run, seen: frozenset[Path] = frozenset()) -> RecordedAnswers:
    """The recorded answers that a grade run judged.

    Raises `ConfigurationChanged` if they have changed.
    """
    check_sources(run, prompts=True)
    manifest = run.manifest
    recorded = recorded_answers(Path(str(manifest.prompt_set.source)), seen)
    recorded = recorded.with_hard_lines(manifest.run_config.hard_line)
    if recorded.labels and recorded.labelled().prompts.digest == manifest.prompt_set.digest:
        recorded = recorded.labelled()  # a calibration's: only what a person labelled was judged
    if recorded.prompts.digest != manifest.prompt_set.digest:
        raise ConfigurationChanged(
            f"the records that {printable(run.path)} was graded from have changed since"
        )
    return recorded


def _labels_of(path: Path) -> tuple[dict[str, dict[str, Label]], dict[str, str]]:
    """Labels by judge (people are one) and unit, and categories by unit, of a run or of records."""
    from refusalkit.runs.columns import COMPLETION, read_columns
    from refusalkit.runs.imported.own_run import labels_by_judge

    said: dict[str, dict[str, Label]] = {}
    answers: RecordedAnswers | None = None
    run = open_run(path) if holds_run(path) else None
    if run is not None:
        said = labels_by_judge(run)
        check_sources(run, prompts=run.manifest.kind == "grade")
        source = Path(str(run.manifest.prompt_set.source))
        if run.manifest.kind == "grade" and source.exists():
            try:
                answers = graded_records(run, frozenset({path.resolve()}))
            except ConfigurationChanged as error:
                # The folder's own verdicts are compared all the same.
                _LOG.warning("%s: what people said of them is left out", error)
    else:
        answers = recorded_answers(path)
    if answers is None:
        assert run is not None
        rows = read_columns(run.completions, COMPLETION, ["unit", "category"])
        return said, dict(rows.select("unit", "category").sort("unit").iter_rows())
    for name, judgements in answers.judgements.items():
        own = {unit: j.label for unit, j in judgements.items() if j.label is not None}
        said.setdefault(name, own)
        if any(j.flag != "judge" for j in judgements.values()):
            counted = {unit: j.counted for unit, j in judgements.items() if j.counted is not None}
            said.setdefault(f"{name}, as counted", counted)
    if answers.labels:
        said.setdefault("people", answers.labels)
    if len(answers.annotators) > 1:
        for name, of_person in answers.annotators.items():
            said.setdefault(f"annotator {name}", dict(of_person))
    return said, {unit_id(p.id, trial): p.category for p, trial in answers.units}


def labelled_strata(run: Run, judge: str) -> dict[str, list[str]]:
    """The units of a run that a person can be shown, by stratum (`sampling.strata_of`)."""
    from refusalkit.scoring.judge_quality.sampling import strata_of

    return strata_of(labelled_rows(run, judge).filter("has_text"))


def labelled_rows(run: Run, judge: str) -> pl.DataFrame:
    """The responses of a run with a judge's labels, as `frames.RunRecords` has them; no text."""
    from refusalkit.runs.frames import RunRecords

    name = run.manifest.judge_id(judge)
    return RunRecords(run, {"text", "source"}, judges=[name], verify=False).responses(name)


def imported_judge(judge: str | Judge, answers: RecordedAnswers) -> RecordedJudge | None:
    """The judge that repeats the judgements in the records; None if `judge` is another one."""
    from refusalkit.judges.recorded_verdicts import RecordedJudge

    asked = re.fullmatch(r"imported(-strict)?(?::(.+))?", judge) if isinstance(judge, str) else None
    if asked is None:
        return None
    strict, name = asked[1] is not None, asked[2]
    known = list(answers.judgements)
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        which = f"; it has: {', '.join(map(printable, known))}" if known else ": it has none"
        raise UsageError(
            f"the judge {printable(judge)} needs one judgement with each record, "
            f"imported:NAME{which}"
        )
    judge_id = f"imported{'-strict' if strict else ''}:{name}"
    return RecordedJudge(judge_id, answers.judgements[name], strict=strict)
