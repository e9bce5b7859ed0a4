"""Estimate the requests, tokens and cost of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, check_options, load_run
from refusalkit.config.placement import split_placement
from refusalkit.config.run_config import RunOptions
from refusalkit.engine.opening import config_of_call
from refusalkit.errors import RefusalkitError
from refusalkit.judges.choice import check_hard_line_judge, choose_judge, load_named
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run
from refusalkit.runs.naming import RUNS
from refusalkit.runs.prompt_choice import choose_prompts

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
    """Requests, tokens and USD of a run, before anything is asked. Nothing is sent, no key is
    needed.

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
    """The runs that say how long answers are, and whether somebody named them."""
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
