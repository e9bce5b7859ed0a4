"""Judge answers that were recorded, and compare judges over them."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusalkit.config import (
    resolve_config,
)
from refusalkit.errors import (
    ConfigurationChanged,
    UsageError,
)
from refusalkit.session import (
    check_budget,
    continued_run,
    new_manifest,
    open_configured_judge,
    same_prompts,
    work_session,
)
from refusalkit.store import (
    holds_run,
    open_run,
)
from refusalkit.types import Label
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.datasets.answers import RecordedAnswers
    from refusalkit.judges import Judge
    from refusalkit.judges.recorded import RecordedJudge
    from refusalkit.runner import OnProgress
    from refusalkit.scoring import Grades, JudgeAgreements


from refusalkit.api.sync import RUNS, sync


def grade(
    records: str | Path,
    judge: str | Judge = "graded",
    *,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Grades:
    """Judge answers that were recorded elsewhere.

    `records` is a JSONL file of objects with `prompt` and `response`, and `id`, `category`, `trial`
    and `label` where there are any; a run folder; a log folder of the reference environment; or an
    Inspect log. The judge ``imported`` repeats the judgement that came with the answers, as it was
    counted there; ``imported-strict`` leaves keyword fallbacks and failures unscored.

    With `out` the verdicts are kept in a run folder, and the same call goes on where an earlier one
    stopped. Raises `RecordError` and what `benchmark` raises.
    """
    return sync(grade_async(records, judge, out=out, on_progress=on_progress, **options))


async def grade_async(
    records: str | Path,
    judge: str | Judge = "graded",
    *,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Any,
) -> Grades:
    """`grade` for async code."""
    from refusalkit.models.recorded import RecordedModel
    from refusalkit.scoring import grade_run

    answers = await asyncio.to_thread(_recorded, Path(records))
    judge_name = judge if isinstance(judge, str) else judge.id
    given = {
        **options,
        "model": f"recorded/{answers.prompts.name}",
        "judge": judge_name,
        "prompts": answers.prompts.source,
        "trials": max(trial for _, trial in answers.units),
    }
    config = resolve_config(given)
    imported = _imported_judge(judge, answers)
    rubric, grader = open_configured_judge(config, judge) if imported is None else (None, imported)
    check_budget(config, False, rubric)
    manifest = new_manifest(config, answers.prompts, grader, rubric, kind="grade", units=answers)
    model = RecordedModel(
        config.model, answers.responses, answers.finish_reasons, judged=imported is not None
    )
    # Verdicts of a model cost money or time: they are kept even where nobody said where.
    costly = imported is None and (rubric is None or rubric.kind != "lexical")
    keep = out is not None or costly
    with tempfile.TemporaryDirectory(prefix="refusalkit-") as scratch:
        default = RUNS / manifest.id if keep else Path(scratch) / "run"
        run = continued_run(Path(out) if out is not None else default, manifest)
        plan = lambda: answers.units  # noqa: E731
        done = await work_session(run, plan, model, grader, config, on_progress, stop)
        return grade_run(done, answers.labels, kept=keep, answers=answers)


def judge_agreement(
    paths: Sequence[str | Path], judge: str | Judge | None = None, **options: Any
) -> JudgeAgreements:
    """How the judges of recorded answers agree with one another, and with people.

    Of a run folder all judges in its verdicts are compared; of other records (see `grade`) the
    judgements that came with them and people's labels. With `judge` its labels are made and
    compared too. Raises `UsageError` where there are not two to compare.
    """
    return sync(judge_agreement_async(paths, judge, **options))


async def judge_agreement_async(
    paths: Sequence[str | Path],
    judge: str | Judge | None = None,
    *,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Any,
) -> JudgeAgreements:
    """`judge_agreement` for async code."""
    from refusalkit.scoring import judge_agreements

    said: dict[str, dict[str, Label]] = {}
    for path in map(Path, paths):
        by_judge = await asyncio.to_thread(_labels_of, path)
        if judge is not None:
            grades = await grade_async(path, judge, on_progress=on_progress, stop=stop, **options)
            by_judge = {**by_judge, grades.judge: grades.said}
        for name, labels in by_judge.items():
            here = f"{path}:" if len(paths) > 1 else ""
            said.setdefault(name, {}).update({here + unit: v for unit, v in labels.items()})
    if len(said) < 2:
        found = f"only {', '.join(map(printable, said))}" if said else "none"
        raise UsageError(
            f"two judges are needed, and there is {found}: add one with --judge, or give records "
            "that carry a judgement or people's labels"
        )
    return judge_agreements(said)


def _recorded(path: Path) -> RecordedAnswers:
    """Recorded answers of any kind."""
    from refusalkit.datasets.answers import read_answers
    from refusalkit.recorded import answers_of_run

    if not holds_run(path):
        return read_answers(path)
    run = open_run(path)
    manifest = run.manifest
    if manifest.kind == "run":
        return answers_of_run(run, same_prompts(manifest, manifest.run_config, None))
    source = _recorded(Path(str(manifest.prompt_set.source)))
    if source.prompts.digest != manifest.prompt_set.digest:
        raise ConfigurationChanged(
            f"the records that {printable(path)} was graded from have changed since"
        )
    return answers_of_run(run, source.prompts)


def _labels_of(path: Path) -> dict[str, dict[str, Label]]:
    """Labels by judge (people are one) and unit, of a run folder or of recorded answers."""
    from refusalkit.recorded import labels_by_judge

    said: dict[str, dict[str, Label]] = {}
    answers: RecordedAnswers | None = None
    if holds_run(path):
        run = open_run(path)
        said = labels_by_judge(run)
        source = Path(str(run.manifest.prompt_set.source))
        if run.manifest.kind == "grade" and source.exists():
            answers = _recorded(source)
    else:
        answers = _recorded(path)
    if answers is None:
        return said
    for name, judgements in answers.judgements.items():
        own = {unit: j.label for unit, j in judgements.items() if j.label is not None}
        said.setdefault(name, own)
        if any(j.flag != "judge" for j in judgements.values()):
            counted = {unit: j.counted for unit, j in judgements.items() if j.counted is not None}
            said.setdefault(f"{name}, as counted", counted)
    if answers.labels:
        said.setdefault("people", answers.labels)
    return said


def _imported_judge(judge: str | Judge, answers: RecordedAnswers) -> RecordedJudge | None:
    """The judge that repeats the judgements of the records, where `judge` asks for it."""
    from refusalkit.judges.recorded import RecordedJudge

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
