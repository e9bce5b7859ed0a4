"""One session of work on a run, recorded in its manifest."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from refusalkit.clock import now
from refusalkit.config.run_config import OPERATIONAL, RunConfig
from refusalkit.engine.destinations import destinations
from refusalkit.errors import RefusalkitError, RunFolderError, StorageError
from refusalkit.models.batch_files import is_in_files
from refusalkit.runs.batch_journal import check_none_open, read_batches
from refusalkit.runs.canaries import owed_canaries
from refusalkit.runs.folder import Run, open_run
from refusalkit.runs.judge_entries import joined_judges
from refusalkit.runs.manifest import (
    ParameterEntry,
    Session,
)
from refusalkit.runs.new import is_untouched
from refusalkit.runs.trust import adopted, with_hard_lines
from refusalkit.runs.withheld import withheld_categories
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.batching import BatchWork
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.serving.workplace import Workplace
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model
    from refusalkit.runs.canaries import Canary
    from refusalkit.runs.checkpoint import Checkpoint
from refusalkit.engine.plan import JudgeLater, OnProgress, Plan, StopRule

_LOG = logging.getLogger("refusalkit")


def how_to_resume(run: Run) -> str:
    """The command that continues a run."""
    path = printable(run.path, 400)
    quoted = shlex.quote(path)
    if run.manifest.kind == "grade":
        return f"the same command with --out {quoted}"
    again = ' --serve "COMMAND"' if was_served(run) else ""
    if any(batch.is_open and is_in_files(batch.id) for batch in read_batches(run)):
        again += " --batch-to DIR"
    return f"refusalkit resume {quoted}{again}"


def was_served(run: Run) -> bool:
    """Whether the run's model was last asked at a server that a command had started."""
    own = [session for session in run.manifest.sessions if session.judge is None]
    return bool(own) and own[-1].operational.get("serve") is True


async def work_session(
    run: Run,
    plan: Plan,
    model: Model | None,
    judge: Judge,
    config: RunConfig,
    on_progress: OnProgress | None,
    stop: asyncio.Event | None,
    *,
    texts: Mapping[str, str] | None = None,
    budget: Budget | None = None,
    close_judge: bool = True,
    kept: Checkpoint | None = None,
    stop_rule: StopRule | None = None,
    hard_lines: Collection[str] = (),
    withheld: Collection[str] = (),
    keep_hard_line_text: bool = False,
    workplace: Workplace | None = None,
) -> Run:
    """Work on a run, and record the session in its manifest however it ends.

    Without a `model` the run is judged again: `judge` joins the run's judges, and `texts` has, by
    unit, answers that the run withheld and the caller knows from elsewhere. `budget` is shared with
    other runs; with `close_judge` False so is the judge. `kept` is a checkpoint loaded beforehand.
    `stop_rule` ends the work once it is met. A `workplace` runs the model for this session only.

    `hard_lines` are the categories marked by the prompt set and the command, `withheld` are further
    categories whose answers are not written, and `keep_hard_line_text` is the command's option. The
    manifest of a folder that somebody else wrote can mark further hard lines, but cannot have their
    answers kept. It was checked before the call (`refusalkit.runs.trust`), so `RunFolderError` is
    raised if it has changed since.
    """
    from refusalkit.engine.plan import Ended
    from refusalkit.engine.runner import Runner
    from refusalkit.engine.serving.workplace import unless

    because = "stopped"
    again = model is None
    if (sent := destinations(config, model, judge)) is not None:
        _LOG.info(sent)
    unwritten = withheld_categories(
        run.manifest, hard_lines, keep=keep_hard_line_text, is_own=run.is_own
    ).union(withheld)
    with run.writing(withheld=unwritten) as writer:
        # Read again under the lock: another process may have finished meanwhile.
        checked, run = run, open_run(run.path)
        if not run.is_own and run.written != checked.written:
            raise RunFolderError(
                f"{printable(run.path)} was changed by somebody while it was opened: look at its "
                "manifest.json, then repeat the command"
            )
        manifest = with_hard_lines(run.manifest, hard_lines)
        # A regrade does not adopt the folder: only `resume` decides where its model is asked.
        own = run.is_own or not again
        if own and not run.is_own:
            manifest = adopted(manifest, config, hard_lines, keep=keep_hard_line_text)
        operational = {name: getattr(config, name) for name in sorted(OPERATIONAL)}
        if workplace is not None:
            operational |= workplace.placement.on_record
        session = Session(
            started_at=now(), operational=operational, judge=judge.id if again else None
        )
        earlier = manifest.sessions
        begun: dict[str, Any] = {"sessions": (*earlier, session)}
        if again:
            begun["judges"] = joined_judges(run, judge)
        run = run.with_manifest(manifest.model_copy(update=begun), own=own)
        canaries = owed_canaries(run, judge, config.canaries)
        go_on = "the same command" if again else how_to_resume(run)

        def alone(
            plan: Plan,
            model: Model | None,
            *,
            texts: Mapping[str, str] | None = None,
            canaries: Sequence[Canary] = (),
            judge_later: JudgeLater = "none",
        ) -> Runner:
            return Runner(
                run,
                plan,
                model,
                judge,
                config.generation,
                concurrency=config.concurrency,
                max_cost=config.max_cost,
                on_progress=on_progress,
                stop=stop,
                texts=texts,
                canaries=canaries,
                budget=budget,
                ceiling_usd=_ceiling(model, plan, config, budget),
                kept=kept,
                stop_rule=stop_rule,
                pressure=config.pressure,
                judge_later=judge_later,
            )

        work: Runner | BatchWork
        if config.batch is not None:
            from refusalkit.engine.batching import BatchWork

            work = BatchWork(
                run,
                plan,
                model,
                judge,
                config,
                alone,
                texts=texts,
                canaries=canaries,
                on_progress=on_progress,
                stop=stop,
            )
        else:
            check_none_open(run, judge.id, of_model=model is not None)
            asked = model
            if workplace is not None and model is not None:
                asked = workplace.watched(model)
            work = alone(plan, asked, texts=texts, canaries=canaries)
        failure: BaseException | None = None
        try:
            if workplace is None or await unless(
                stop, workplace.start(run.path, keeps_all=not unwritten)
            ):
                because = await work.work(writer)
            else:
                because = Ended.INTERRUPTED
        except BaseException as error:
            failure = error
            if isinstance(error, asyncio.CancelledError):
                because = Ended.INTERRUPTED
                error.add_note(f"go on with: {go_on}")
            elif isinstance(error, RefusalkitError):
                because = f"failed: {type(error).__name__}"
                if workplace is not None or not is_untouched(run):
                    error.add_note(f"go on with: {go_on}")
            raise
        finally:
            if model is not None:
                await model.aclose()
            if workplace is not None:
                await workplace.aclose()
            if close_judge:
                await judge.aclose()
            ended = session.model_copy(update={"ended_at": now(), "ended_because": str(because)})
            parameters = _with_earlier(run.manifest.parameters, _all_parameters(model, judge))
            update = {"sessions": (*earlier, ended), "parameters": parameters}
            try:
                run = run.with_manifest(run.manifest.model_copy(update=update), own=own)
            except StorageError as error:
                # On a full disk this fails as well; the first error says more, so it is kept.
                if failure is None:
                    error.add_note(f"go on with: {go_on}")
                    raise
    return run


def _ceiling(
    model: Model | None, plan: Plan, config: RunConfig, budget: Budget | None
) -> float | None:
    """Upper bound on the cost of one answer, where there is a budget and the model knows it."""
    if config.max_cost is None and budget is None:
        return None
    of = getattr(model, "ceiling_usd", None)
    if of is None:
        return None
    prompts = [prompt for trial, part in plan() if trial == 1 for prompt in part]
    return cast("float | None", of(prompts, config.generation))


def _all_parameters(model: Model | None, judge: Judge) -> dict[str, ParameterEntry]:
    """Parameters sent, by recipient: ``model``, ``judge``, or ``judge <id>`` for several judges."""
    from refusalkit.judges.routed import asked_judges

    asked = asked_judges(judge)
    if model is not None and asked == (judge,):
        return {"model": _parameters(model), "judge": _parameters(judge)}
    found = {} if model is None else {"model": _parameters(model)}
    return {**found, **{f"judge {part.id}": _parameters(part) for part in asked}}


def _with_earlier(
    earlier: Mapping[str, ParameterEntry], now: Mapping[str, ParameterEntry]
) -> dict[str, ParameterEntry]:
    """The parameters of all sessions together; a session that sent nothing changes nothing."""
    joined = dict(earlier)
    for name, entry in now.items():
        before = earlier.get(name)
        if before is None:
            joined[name] = entry
        elif entry.sent or entry.dropped:
            joined[name] = entry.model_copy(
                update={
                    "sent": {**before.sent, **entry.sent},
                    "dropped": {**before.dropped, **entry.dropped},
                    "reply_form": entry.reply_form or before.reply_form,
                }
            )
    return joined


def _parameters(part: Any) -> ParameterEntry:
    log = getattr(part, "parameters", None)
    if log is None:
        return ParameterEntry()
    # What was sent is the provider's JSON already; a schema is covered by the judge's digest.
    left = ("response_format", "output_config")
    sent = {name: value for name, value in log.sent.items() if name not in left}
    return ParameterEntry(
        sent=json.loads(json.dumps(sent, default=str)),
        dropped=dict(log.dropped),
        reply_form=log.reply_form,
        system_role=log.system_role,
    )
