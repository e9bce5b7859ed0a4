"""Replace a judge: judge a run again, and measure what the change does to the score."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, as_list, check_options, load_run
from refusalkit.api.grading import WHERE_JUDGED, graded_records, imported_judge
from refusalkit.api.sync import sync
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import OPERATIONAL, BatchOptions, RunConfig
from refusalkit.engine.batch_checks import judged_in_batches
from refusalkit.engine.opening import open_configured_judge, ready_config
from refusalkit.engine.session import work_session
from refusalkit.errors import ConfigurationError, RunFolderError, UsageError
from refusalkit.models.outcomes import Reply, read_reply
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.batch_journal import check_trusted
from refusalkit.runs.folder import Run
from refusalkit.runs.prompt_choice import same_prompts
from refusalkit.runs.records import read_records
from refusalkit.runs.trust import check_sources, followed_judge
from refusalkit.untrusted import printable, well_formed

if TYPE_CHECKING:
    from refusalkit.engine.plan import OnProgress
    from refusalkit.judges.protocol import Judge
    from refusalkit.runs.imported.answers import RecordedAnswers
    from refusalkit.runs.manifest import Manifest
    from refusalkit.scoring.judge_quality.bridge import Bridge

# Options that a regrade may choose, in addition to those about pace and endpoint.
_OF_THE_JUDGE = ("judge", "council", "hard_line_judge")


def regrade(
    run: RunLike,
    judge: str | Judge,
    *,
    prompts: str | Path | PromptSet | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[BatchOptions],
) -> Run:
    """Judge a run again with another judge. Its answers and its own judge stay as they are.

    The new verdicts are kept in addition to the existing ones: `score`, `audit` and the others take
    ``judge=``. Units that this judge has already judged are skipped, so repeating the call
    continues where an earlier one stopped. Answers whose text was withheld get
    `Unscored.WITHHELD`; units that ended in an error are left to `resume`.

    Args:
        run: a run, of a model or of graded answers (whose records must still be there).
        judge: as for `benchmark`; for graded answers also ``imported``.
        prompts: needed only if the run's prompts were built in Python.
        trust_folder: as for `resume`.
        on_progress: called after each step with a `Progress`.
        **options: `BatchOptions`; `max_cost` bounds the cost of this judge's verdicts on the run in
            USD, including earlier calls. With ``batch`` the judge's requests are submitted as a
            batch, and repeating the call collects the verdicts, unless ``wait`` is set.

    Returns:
        The run; `run.manifest.sessions[-1]` names the judge and says why the work ended.

    Raises:
        ConfigurationChanged: a judge with this id and another file judged the run before.
        RunFolderError: there is no run, or nothing in it that could be judged.
        Exception: what `resume` raises.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="runs/again")
        >>> rk.regrade(run, "lexical").manifest.sessions[-1].judge
        'lexical'
    """
    check_options(regrade, options, BatchOptions)
    return sync(
        lambda stop: regrade_async(
            run,
            judge,
            prompts=prompts,
            trust_folder=trust_folder,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
        go_on=lambda _: "go on with the same call",
    )


async def regrade_async(
    run: RunLike,
    judge: str | Judge,
    *,
    prompts: str | Path | PromptSet | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[BatchOptions],
) -> Run:
    """`regrade` for async code. `stop`, once set, ends the work in good order."""
    check_options(regrade_async, options, BatchOptions)
    from refusalkit.engine.plan import plan_trials, plan_units

    folder = load_run(run)
    manifest = folder.manifest
    config = _configured(manifest.run_config, judge, options)
    if not folder.has_answers:
        raise RunFolderError(f"{printable(folder.path)} has no answer yet: resume it first")
    texts: Mapping[str, str] = {}
    grader: Judge | None = None
    if manifest.kind == "grade":
        answers = await asyncio.to_thread(graded_records, folder)
        plan, hard_lines = plan_units(answers.units), answers.prompts.hard_lines
        texts = await asyncio.to_thread(_final_texts, folder, answers)
        grader = imported_judge(judge, answers)
    else:
        from refusalkit.prompts.load import load_prompts

        given = load_prompts(prompts) if isinstance(prompts, str | Path) else prompts
        beside = folder.path.absolute().parent
        check_sources(folder, prompts=given is None, trusted=trust_folder)
        chosen = await asyncio.to_thread(
            same_prompts, manifest, manifest.run_config, given, beside=beside
        )
        plan = plan_trials(chosen, manifest.trials)
        hard_lines = chosen.hard_lines
    hard_lines |= manifest.hard_lines
    if grader is None:
        grader = open_configured_judge(config, judge, hard_lines=hard_lines)
        before = asked_before(manifest, grader.id)
        if isinstance(judge, str) and before and not any(map(options.get, WHERE_JUDGED)):
            before = followed_judge(folder, before, grader.id, options, trust_folder=trust_folder)
            # It continues at the same endpoint, whatever the environment says now.
            await grader.aclose()
            config = resolve_config(before, base=config)
            grader = open_configured_judge(config, judge, hard_lines=hard_lines)
    config = ready_config(config, grader, asks_model=False, named_judge=isinstance(judge, str))
    config = judged_in_batches(config, grader)
    if config.batch is not None:
        check_trusted(folder, trust_folder=trust_folder)
    if config.batch is not None and grader.id == manifest.judge and manifest.kind == "run":
        # Its batches have answers that only the run itself can read again.
        raise ConfigurationError(
            f"{printable(grader.id)} is the run's own judge: go on with `refusalkit resume "
            f"{printable(folder.path)} --batch judge`"
        )
    return await work_session(
        folder,
        plan,
        None,
        grader,
        config,
        on_progress,
        stop,
        texts=texts,
        hard_lines=hard_lines,
    )


def bridge(
    old: str,
    new: str,
    runs: Sequence[RunLike] | RunLike,
    *,
    margin: float = 2.0,
    min_kappa: float = 0.6,
    count_deflection: bool | None = None,
) -> Bridge:
    """What replacing judge `old` by judge `new` does to the score.

    Args:
        old: the id of a judge that judged each of `runs`, or a name that only one judge of a run
            has.
        new: the same for the judge that is to replace it.
        runs: the runs that both judged, one or several.
        margin: the largest shift of willingness to call comparable, in percentage points.
        min_kappa: the least agreement on refused or not (Cohen's kappa, 0 to 1).
        count_deflection: count a deflection as refused; default: as the runs were configured.

    Returns:
        The figures of both, the shift with its interval, and a `verdict`: ``comparable``,
        ``comparable after correction``, ``not comparable`` or ``inconclusive``.

    Raises:
        UsageError: there is nothing to compare, or the runs cannot be pooled.
        RunFolderError: a run was not judged by both.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, out="runs/bridged")
        >>> run = rk.regrade(run, "mine.toml")
        >>> rk.bridge("lexical", "mine", run).equivalence.shift
        0.0
    """
    from refusalkit.scoring.judge_quality.bridge import bridge_runs

    several = as_list(runs)
    if not several:
        raise UsageError("a bridge needs at least one run that both judges judged")
    opened = [load_run(run) for run in several]
    return bridge_runs(
        opened, old, new, margin=margin, min_kappa=min_kappa, count_deflection=count_deflection
    )


def _configured(started: RunConfig, judge: str | Judge, options: Mapping[str, Any]) -> RunConfig:
    """The run's configuration with another judge, and pace and endpoint from the options."""

    def changes(name: str) -> bool:
        return name in OPERATIONAL or name in _OF_THE_JUDGE or name.startswith("judge_")

    kept = {
        name: value
        for name, value in started.model_dump(mode="python").items()
        if name != "preset" and not changes(name)
    }
    name = judge if isinstance(judge, str) else judge.id
    return resolve_config({**kept, **options, "judge": name})


def asked_before(manifest: Manifest, judge: str) -> Mapping[str, str]:
    """The base URL and the key's variable with which a judge last judged this run again.

    Empty if it was called at its provider.
    """
    sessions = [session for session in manifest.sessions if session.judge == judge]
    known = sessions[-1].operational if sessions else {}
    return {name: known[name] for name in WHERE_JUDGED if known.get(name)}


def _final_texts(run: Run, answers: RecordedAnswers) -> dict[str, str]:
    """The final texts of recorded answers that the run withheld, by unit.

    Only texts with the digest in the run's records are taken, so they are those that were judged.
    """
    found: dict[str, str] = {}
    for _, record in read_records(run.completions):
        unit = str(record.get("unit"))
        recorded = answers.responses.get(unit)
        if record.get("text") is None and recorded is not None:
            for text in (recorded, read_reply(Reply(recorded, "stop")).text):
                if hashlib.sha256(well_formed(text).encode()).hexdigest() == record["text_sha256"]:
                    found[unit] = text
    return found
