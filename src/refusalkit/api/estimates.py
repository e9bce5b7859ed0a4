"""Estimate the requests, tokens and cost of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, as_list, check_options, load_run, path_of
from refusalkit.api.grading import recorded_answers
from refusalkit.config.placement import split_placement
from refusalkit.config.run_config import BatchOptions, RunOptions
from refusalkit.engine.opening import config_of_call
from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.judges.choice import check_hard_line_judge, choose_judge, load_named
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.naming import RUNS
from refusalkit.runs.prompt_choice import choose_prompts
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.estimate import RunEstimate


def estimate(
    model: str,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | None = None,
    earlier: Iterable[RunLike] | None = None,
    **options: Unpack[RunOptions],
) -> RunEstimate:
    """Estimate requests, tokens and USD of a run. Nothing is sent, and no key is needed.

    Args:
        model: the model's id.
        prompts: as for `benchmark`.
        judge: as for `benchmark`, but by name.
        earlier: runs that tell how long answers are; default: every run in ``runs/`` that can be
            read.
        **options: `RunOptions`.

    Raises:
        TypeError, UsageError, ConfigurationError: what `benchmark` raises before its first request.
        RecordError: a run that was named in `earlier` cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> rk.estimate("demo/mixed", "starter", trials=2, earlier=[]).requests
        70
    """
    check_options(estimate, options, RunOptions)
    given = {"judge": judge, "prompts": prompts, **options, "model": model}
    return _estimate(given, *_earlier_runs(earlier))


def estimate_judging(
    answers: RunLike | Sequence[RunLike],
    judge: str | None = None,
    *,
    labelled_only: bool = False,
    hard_line: Collection[str] = (),
    earlier: Iterable[RunLike] | None = None,
    **options: Unpack[BatchOptions],
) -> list[RunEstimate]:
    """Estimate requests, tokens and USD of `grade`, `regrade` or `calibrate`. Nothing is sent.

    Args:
        answers: what is judged, one or several: recorded answers as for `grade`, or a run, whose
            kept answers are counted.
        judge: as for `grade`, but by name.
        labelled_only: count only answers that carry a person's label, as `calibrate` does.
        hard_line: as for `grade`.
        earlier: runs that tell how long verdicts are; default: every run in ``runs/`` that can be
            read.
        **options: `BatchOptions`.

    Returns:
        An estimate for each of `answers`, in their order. Verdicts that exist already are not
        subtracted.

    Raises:
        RecordError: a record is wrong; file, line and field are named.
        TypeError, UsageError, ConfigurationError: what `grade` raises before its first request.

    Examples:
        >>> import refusalkit as rk
        >>> [found] = rk.estimate_judging("labelled.jsonl", "graded", canaries=0, earlier=[])
        >>> found.requests
        4
    """
    check_options(estimate_judging, options, BatchOptions)
    from refusalkit.engine.estimate_judging import estimate_judging as estimate_answers

    runs, named = _earlier_runs(earlier)
    found = []
    for one in as_list(answers):
        recorded = recorded_answers(path_of(one)).with_hard_lines(hard_line)
        if labelled_only:
            recorded = recorded.labelled()
            if not recorded.units:
                raise UsageError(f"{printable(path_of(one))} holds no answer with a label")
        given: dict[str, Any] = {name: v for name, v in options.items() if v is not None}
        given["trials"] = max(trial for _, trial in recorded.units)
        config = config_of_call(
            given, model=f"recorded/{recorded.prompts.name}", judge=judge or "graded"
        )
        choice = choose_judge(config)
        check_hard_line_judge(choice, recorded.prompts.hard_lines)
        fallback, hard_line_judge = (
            None if part is None else load_named(part, config)
            for part in (choice.fallback, choice.hard_line_judge)
        )
        found.append(
            estimate_answers(
                config,
                recorded,
                [load_named(part, config) for part in choice.members],
                runs,
                fallback=fallback,
                hard_line_judge=hard_line_judge,
                named=named,
            )
        )
    return found


def estimate_many(
    models: Sequence[str | Mapping[str, Any]],
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | None = None,
    earlier: Iterable[RunLike] | None = None,
    **options: Unpack[RunOptions],
) -> list[RunEstimate]:
    """`estimate` for several models.

    Args:
        models: ids, or mappings as for `benchmark_many`.
        prompts: as for `benchmark`.
        judge: as for `benchmark`, but by name.
        earlier: runs that tell how long answers are; default: every run in ``runs/`` that can be
            read.
        **options: `RunOptions`, for all.

    Returns:
        An estimate for each, in the order of `models`.

    Raises:
        Exception: what `estimate` raises.

    Examples:
        >>> import refusalkit as rk
        >>> [e.model for e in rk.estimate_many(["demo/open", "demo/mixed"], "starter", earlier=[])]
        ['demo/open', 'demo/mixed']
    """
    check_options(estimate_many, options, RunOptions)
    asked = []
    for model in models:
        own = dict(model) if isinstance(model, Mapping) else {"id": model}
        own.pop("folder", None)
        asked.append({"judge": judge, "prompts": prompts, **options, "model": own.pop("id"), **own})
    runs, named = _earlier_runs(earlier)
    beside = {given["model"] for given in asked}
    return [_estimate(given, runs, named, beside) for given in asked]


def _estimate(
    options: Mapping[str, Any], earlier: Sequence[Run], named: bool, beside: Collection[str] = ()
) -> RunEstimate:
    from refusalkit.engine.estimate import estimate_run

    given = {name: value for name, value in options.items() if value is not None}
    _, given = split_placement(given)
    prompts = given.pop("prompts", None)
    config = config_of_call(given, model=given["model"], prompts=prompts)
    chosen = choose_prompts(config, prompts if isinstance(prompts, PromptSet) else None)
    choice = choose_judge(config)
    check_hard_line_judge(choice, chosen.hard_lines)
    rubrics = [load_named(one, config) for one in choice.members]
    fallback, hard_line_judge = (
        None if one is None else load_named(one, config)
        for one in (choice.fallback, choice.hard_line_judge)
    )
    return estimate_run(
        config,
        chosen,
        rubrics,
        earlier,
        fallback=fallback,
        hard_line_judge=hard_line_judge,
        named=named,
        beside=beside,
    )


def _earlier_runs(earlier: Iterable[RunLike] | None) -> tuple[list[Run], bool]:
    """The runs from which lengths are taken, and whether the caller named them."""
    return (_all_runs(), False) if earlier is None else ([load_run(run) for run in earlier], True)


def _all_runs() -> list[Run]:
    """The runs in the usual place that can be read."""
    found = []
    for manifest in sorted(RUNS.glob("*/manifest.json")):
        try:
            found.append(load_run(manifest.parent))
        except RefusalkitError:
            continue  # not asked for by name, so no reason to fail
    return found
