"""The estimate command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from refusalkit.cli.given import given
from refusalkit.cli.many import asked_models, name_models
from refusalkit.cli.options import (
    RUN,
    ConfiguredCommand,
    arg,
    json_option,
    opt,
    run_options,
)

if TYPE_CHECKING:
    from refusalkit.engine.estimate import RunEstimate


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit estimate openai/gpt-6-luna --trials 5"
)
@arg("models", metavar="MODEL...", nargs=-1)
@run_options
@opt(
    "--answers",
    section="What is asked",
    multiple=True,
    metavar="PATH",
    type=RUN,
    help="No MODEL: what grade takes for these recorded answers, or regrade for this run "
    "(repeatable).",
)
@opt(
    "--labels",
    section="What is asked",
    multiple=True,
    metavar="FILE",
    help="No MODEL: what judges calibrate takes for these answers (repeatable).",
)
@opt(
    "--from",
    "earlier",
    section="What is asked",
    multiple=True,
    metavar="RUN",
    type=RUN,
    help="Take answers' lengths from this run (repeatable).  [default: all in runs/]",
)
@json_option()
def estimate(
    models: tuple[str, ...],
    plan: str | None,
    out: str | None,
    report: str | None,
    max_unscored: float,
    answers: tuple[str, ...],
    labels: tuple[str, ...],
    earlier: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Estimate requests, tokens and USD for a run of MODEL. Nothing is sent.

    Takes the options of run: only replace the word `run` by `estimate`. For several models there is
    a section for each, and a table of sums. With --answers or --labels it estimates only the
    judging, as by `grade`, `regrade` and `judges calibrate`.
    """
    import refusalkit
    from refusalkit.config.layers import Layer
    from refusalkit.config.resolve import resolve_config

    del out, report, max_unscored  # a run's, and harmless here
    chosen = given(options)
    if answers or labels:
        if models or plan is not None or (answers and labels):
            raise click.UsageError("give one of MODEL, --plan, --answers and --labels")
        found = _of_judging(answers, labels, chosen.all.values, earlier)
        _show(found, as_json, several=len(found) > 1)
        return
    name_models(models, plan)
    if plan is not None or len(models) > 1:
        asked, _ = asked_models(models, chosen, plan=plan)
        _show(refusalkit.estimate_many(asked, earlier=earlier or None), as_json, several=True)
        return
    (model,) = models
    config = resolve_config(Layer({"model": model}).under(chosen.all))
    asked_for = config.model_dump(exclude_unset=True)
    one = refusalkit.estimate(asked_for.pop("model"), earlier=earlier or None, **asked_for)
    _show([one], as_json, several=False)


def _of_judging(
    answers: Sequence[str],
    labels: Sequence[str],
    chosen: Mapping[str, Any],
    earlier: Sequence[str],
) -> list[RunEstimate]:
    """Estimates of judging recorded answers, or only those with labels."""
    import refusalkit
    from refusalkit.config.run_config import BatchOptions

    options: Any = {n: v for n, v in chosen.items() if n in BatchOptions.__optional_keys__}
    if labels:
        # A calibration asks none: all its answers are of known labels.
        options.setdefault("canaries", 0)
    return refusalkit.estimate_judging(
        [*answers, *labels],
        chosen.get("judge"),
        labelled_only=bool(labels),
        hard_line=chosen.get("hard_line", ()),
        earlier=earlier or None,
        **options,
    )


def _show(found: Sequence[RunEstimate], as_json: bool, *, several: bool) -> None:
    """Print one estimate, or `several` with their sum."""
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    if several and as_json:
        click.echo(data.to_json(data.estimates_data(found)))
    elif several:
        show(terminal.estimates_view(found))
    elif as_json:
        click.echo(data.to_json(data.estimate_data(found[0])))
    else:
        show(terminal.estimate_view(found[0]))
