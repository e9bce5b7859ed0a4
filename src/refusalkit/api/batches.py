"""Look at the batches of a run, cancel them, give them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Unpack

from refusalkit.api.calls import RunLike, load_run
from refusalkit.api.grading import WHERE_JUDGED
from refusalkit.api.rejudging import asked_before
from refusalkit.api.sync import sync
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import RunOptions
from refusalkit.engine.opening import open_configured_judge, open_configured_model
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.batch_files import is_in_files
from refusalkit.models.batches import BatchEndpoint
from refusalkit.models.chat import ChatModel
from refusalkit.runs.batch_journal import (
    Batch,
    BatchJournal,
    Kind,
    check_trusted,
    read_batches,
)
from refusalkit.runs.folder import Run
from refusalkit.runs.trust import followed_config, followed_judge


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch of a run, and its state."""

    id: str | None
    """The provider's id; None while it is unknown whether the provider has the batch."""
    kind: Kind
    """``model`` or ``judge``."""
    asked: str
    """The id of the model or the judge."""
    n_units: int
    """Its requests."""
    status: str
    """``collected``, ``void`` (never made), ``doubtful``, or the provider's word."""
    is_open: bool
    """Whether it is neither collected nor void."""
    planned_at: str
    """When it was made, UTC, ISO 8601."""
    expires_at: str | None
    """When the provider ends it, UTC, ISO 8601."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Requests by how they ended, in the provider's words."""

    def as_data(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def recorded_batches(run: Run) -> list[BatchReport]:
    """The batches of a run by its journal; no provider is asked."""
    return [_report(batch) for batch in read_batches(run)]


def list_batches(
    run: RunLike,
    *,
    cancel: bool = False,
    trust_folder: bool = False,
    **options: Unpack[RunOptions],
) -> list[BatchReport]:
    """The batches of a run; for open ones the provider is asked for their state.

    With `cancel` it is asked to stop them. Raises the errors of `resume`.
    """
    folder = load_run(run)
    check_trusted(folder, trust_folder=trust_folder)
    found = read_batches(folder)
    if not any(batch.is_open and batch.id is not None for batch in found):
        return [_report(batch) for batch in found]
    return sync(lambda _: _list(folder, found, dict(options), cancel, trust_folder))


def forget_batches(run: RunLike, *, trust_folder: bool = False) -> int:
    """Give up the open batches of a run; `resume` requests their units again. Returns how many."""
    folder = load_run(run)
    check_trusted(folder, trust_folder=trust_folder)
    if not folder.batches.exists():
        return 0
    with folder.writing() as writer:
        journal = BatchJournal(folder, writer)
        given_up = journal.open
        for batch in given_up:
            journal.void(batch, "given up by the user")
    return len(given_up)


async def _list(
    run: Run, found: list[Batch], options: dict[str, Any], cancel: bool, trust_folder: bool
) -> list[BatchReport]:
    asked = {
        (batch.kind, batch.asked)
        for batch in found
        if batch.is_open and batch.id is not None and not is_in_files(batch.id)
    }
    own = run.manifest.judge
    followed = followed_config(
        run,
        options,
        trust_folder=trust_folder,
        asks_model=any(kind == "model" for kind, _ in asked),
        asks_judge=("judge", own) in asked,
    )
    # Opened with batches on, because that decides how some providers are reached.
    config = resolve_config({**options, "batch": "both"}, base=followed)
    endpoints: dict[tuple[Kind, str], BatchEndpoint] = {}
    opened: list[ChatModel | LLMJudge] = []
    reports = []
    try:
        for kind, name in sorted(asked):
            if kind == "model":
                model = open_configured_model(config)
                if isinstance(model, ChatModel) and model.id == name:
                    opened.append(model)
                    endpoints[kind, name] = model.batches()
                continue
            where = config
            if name != own:
                # The judge of a regrade is called at the endpoint that its session used.
                before = asked_before(run.manifest, name)
                before = followed_judge(run, before, name, options, trust_folder=trust_folder)
                where = resolve_config(
                    {**dict.fromkeys(WHERE_JUDGED), **before, **options}, base=config
                )
            judge = open_configured_judge(where, None, recorded=run.manifest, recorded_judge=name)
            if isinstance(judge, LLMJudge) and judge.id == name:
                opened.append(judge)
                endpoints[kind, name] = judge.batches()
        for batch in found:
            if batch.is_open and is_in_files(batch.id):
                reports.append(_report(batch, "in a file"))
                continue
            endpoint = endpoints.get((batch.kind, batch.asked))
            if not batch.is_open or batch.id is None or endpoint is None:
                reports.append(_report(batch))
                continue
            state = await endpoint.state(batch.id)
            if cancel and not state.ended:
                state = await endpoint.cancel(batch.id)
            reports.append(_report(batch, state.status, state.counts))
    finally:
        for one in opened:
            await one.aclose()
    return reports


def _report(
    batch: Batch, status: str | None = None, counts: Mapping[str, int] | None = None
) -> BatchReport:
    if batch.collected:
        status = "collected"
    elif batch.void:
        status = "void"
    elif batch.id is None:
        status = "doubtful"
    return BatchReport(
        batch.id,
        batch.kind,
        batch.asked,
        len(batch.units),
        status or "open",
        batch.is_open,
        batch.planned_at,
        batch.expires_at,
        counts or {},
    )
