"""An estimate on a terminal, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from refusalkit.reporting.terminal.table_layout import build_table
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from refusalkit.engine.estimate import RunEstimate
    from refusalkit.engine.lengths import Span


def estimates_view(estimates: Sequence[RunEstimate]) -> RenderableType:
    """Each model, then their total, then the notes common to all."""
    from refusalkit.engine.estimate import sum_usd

    common = [
        note
        for note in (estimates[0].notes if estimates else ())
        if all(note in estimate.notes for estimate in estimates)
    ]
    table = build_table("", "requests", "USD low", "expected", "high")
    for estimate in estimates:
        cells = (f"{estimate.requests:,}", *_usd(estimate.cost_usd))
        name = estimate.model if estimate.n_answers is None else estimate.prompt_set
        table.add_row(Text(printable(name)), *cells)
    table.add_section()
    requests = sum(estimate.requests for estimate in estimates)
    total = sum_usd(estimate.cost_usd for estimate in estimates)
    table.add_row("all", f"{requests:,}", *_usd(total))
    batched = sum_usd(estimate.batch_cost_usd for estimate in estimates)
    if batched is not None and batched != total:
        table.add_row("in batches", "", *_usd(batched))
    views: list[RenderableType] = []
    for estimate in estimates:
        views += [estimate_view(estimate, without=common), Text("")]
    return Group(*views, table, *(Text(f"Note: {note}.") for note in common))


def estimate_view(estimate: RunEstimate, *, without: Collection[str] = ()) -> RenderableType:
    """Requests, tokens and USD by part, then where the figures come from.

    Notes that are shown elsewhere are left `without`.
    """
    trials = "trial" if estimate.trials == 1 else "trials"
    if estimate.n_answers is None:
        of = f"{printable(estimate.model)} on {printable(estimate.prompt_set)}"
        units = f"{estimate.n_prompts} prompts x {estimate.trials} {trials}"
    else:
        of, units = printable(estimate.prompt_set), f"{estimate.n_answers:,} answers"
    head = f"{of}: {units}, {estimate.requests:,} requests{_at_most(estimate)}"
    table = build_table("", "requests", "tokens in", "tokens out", "USD low", "expected", "high")
    for share in estimate.shares:
        table.add_row(
            f"{share.part}, pressure" if share.insisting else share.part,
            f"{share.requests:,}",
            _tokens(share.input_tokens),
            _tokens(share.output_tokens),
            *_usd(share.cost_usd),
        )
    table.add_section()
    table.add_row("all", f"{estimate.requests:,}", "", "", *_usd(estimate.cost_usd))
    if (batched := estimate.batch_cost_usd) is not None and batched != estimate.cost_usd:
        table.add_row("in batches", "", "", "", *_usd(batched))
    lines = [
        f"{share.part}: {printable(share.name)}; lengths: {share.basis}."
        for share in estimate.shares
    ]
    lines.append(f"Prompts counted by {estimate.tokeniser}; other tokenisers differ by a fifth.")
    lines += [f"Note: {note}." for note in estimate.notes if note not in without]
    return Group(Text(head), table, *map(Text, lines))


def _at_most(estimate: RunEstimate) -> str:
    more = estimate.most_requests > estimate.requests
    return f" (at most {estimate.most_requests:,})" if more else ""


def _tokens(span: Span) -> str:
    return f"{span.expected:,.0f}"


def _usd(span: Span | None) -> list[str]:
    if span is None:
        return ["unknown"] * 3
    return [f"{value:,.2f}" for value in (span.low, span.expected, span.high)]
