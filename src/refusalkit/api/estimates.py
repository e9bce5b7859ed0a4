"""Say what a run would take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusalkit.api.results import load_run
from refusalkit.api.sync import RUNS
from refusalkit.config import DEFAULT_PROMPTS, resolve_config
from refusalkit.errors import RefusalkitError
from refusalkit.judges.choice import check_hard_line_judge, choose_judge, load_named
from refusalkit.session import choose_prompts
from refusalkit.store import Run
from refusalkit.types import PromptSet

if TYPE_CHECKING:
    from refusalkit.estimates import RunEstimate


def estimate(
    model: str,
    prompts: str | Path | PromptSet = DEFAULT_PROMPTS,
    *,
    judge: str | None = None,
    earlier: Iterable[Run | str | Path] | None = None,
    **options: Any,
) -> RunEstimate:
    """Requests, tokens and USD of a run before anything is asked; see `RunEstimate`.

    Takes what `benchmark` takes. `earlier` are runs whose answers say how long answers are;
    default: every run in ``runs/`` that can be read. Nothing is sent and no key is needed. Raises
    what `benchmark` raises before its first request.
    """
    from refusalkit.estimates import estimate_run

    name = prompts.name if isinstance(prompts, PromptSet) else str(prompts)
    given = {**options, "model": model, "prompts": name}
    if judge is not None:
        given["judge"] = judge
    config = resolve_config(given)
    chosen = choose_prompts(config, prompts if isinstance(prompts, PromptSet) else None)
    choice = choose_judge(config)
    check_hard_line_judge(choice, chosen.hard_lines)
    rubrics = [load_named(named, config) for named in choice.members]
    fallback, hard_line_judge = (
        None if one is None else load_named(one, config)
        for one in (choice.fallback, choice.hard_line_judge)
    )
    return estimate_run(
        config,
        chosen,
        rubrics,
        _all_runs() if earlier is None else [load_run(run) for run in earlier],
        fallback=fallback,
        hard_line_judge=hard_line_judge,
        named=earlier is not None,
    )


def _all_runs() -> list[Run]:
    """The runs in the usual place that can be read."""
    found = []
    for manifest in sorted(RUNS.glob("*/manifest.json")):
        try:
            found.append(load_run(manifest.parent))
        except RefusalkitError:
            continue  # not asked for by name, so no reason to fail
    return found
