"""The journal of a run's batches: what was planned, created and collected.

Each step is on disk before the next one is taken. A batch that was planned, and not confirmed, may
exist at the provider: its units are not requested again until that is known. The journal holds no
address, no key, and no text of a prompt or an answer.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, cast

from refusalkit.clock import now
from refusalkit.display import shows
from refusalkit.errors import ConfigurationError, FolderNotTrusted, RecordError
from refusalkit.models.batches import custom_id, is_provider_id
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import SCHEMA
from refusalkit.runs.records import RecordWriter, read_records
from refusalkit.runs.seal import code_of, has_code
from refusalkit.untrusted import printable

Kind = Literal["model", "judge"]
_LABEL = re.compile(r"rk-[0-9a-f]{24}")


@shows("label", "kind", "units", "id", "collected", "void")
@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a run, as the journal has it.

    Times are UTC, ISO 8601.
    """

    label: str
    """Our own name for it, ``rk-`` and 24 hex digits."""
    kind: Kind
    """Whether its requests go to the model or to a judge."""
    asked: str
    """Id of that model or judge."""
    units: tuple[str, ...]
    """The units whose requests it holds."""
    planned_at: str
    """When it was planned."""
    file: str | None = None
    """The provider's id of the uploaded requests; None if none were uploaded."""
    id: str | None = None
    """The provider's id; None as long as it is unknown whether the provider has the batch."""
    expires_at: str | None = None
    """When the provider gives up on it; None if it did not say."""
    doubted_at: str | None = None
    """When it was first looked for in the provider's list; None if never."""
    collected: bool = False
    """Whether its results are in the run's records."""
    void: bool = False
    """Whether it turned out that it was never created."""
    is_own: bool = False
    """Whether a code proves that this user created it, for this run."""

    @property
    def is_open(self) -> bool:
        """Whether it is neither collected nor void."""
        return not (self.collected or self.void)

    @property
    def planned(self) -> float:
        """When it was planned, in seconds since 1970."""
        return datetime.fromisoformat(self.planned_at).timestamp()

    @property
    def doubted(self) -> float:
        """When it was first looked for, in seconds since 1970; infinite if never."""
        if self.doubted_at is None:
            return math.inf
        return datetime.fromisoformat(self.doubted_at).timestamp()

    def custom_ids(self, run_id: str) -> dict[str, str]:
        """Its units by the ids of their requests."""
        return {custom_id(run_id, self.label, self.kind, unit): unit for unit in self.units}


class BatchJournal:
    """The batches of a run that is held for writing, oldest first."""

    def __init__(self, run: Run, writer: RecordWriter) -> None:
        self._writer = writer
        self._run_id = run.manifest.id
        self._batches = {batch.label: batch for batch in read_batches(run)}

    def __repr__(self) -> str:
        return f"BatchJournal({len(self._batches)} batches, {len(self.open)} open)"

    @property
    def batches(self) -> list[Batch]:
        """All batches, oldest first."""
        return list(self._batches.values())

    @property
    def open(self) -> list[Batch]:
        """Batches that are neither collected nor void."""
        return [batch for batch in self._batches.values() if batch.is_open]

    def waiting(self, kind: Kind) -> set[str]:
        """Units whose requests are in an open batch."""
        return {unit for batch in self.open if batch.kind == kind for unit in batch.units}

    def plan(self, kind: Kind, asked: str, label: str, units: Sequence[str]) -> Batch:
        """Record a batch before it is sent."""
        batch = Batch(label, kind, asked, tuple(units), now())
        self._write(
            label, "planned", kind=kind, asked=asked, units=list(units), at=batch.planned_at
        )
        self._batches[label] = batch
        return batch

    def uploaded(self, batch: Batch, file: str) -> None:
        """Record the file that holds its requests."""
        self._write(batch.label, "uploaded", file=file)
        self._change(batch, file=file)

    def created(self, batch: Batch, batch_id: str, expires_at: str | None) -> None:
        """Record that the provider has it."""
        code = code_of(_sealed_part(self._run_id, batch.label, batch_id))
        self._write(batch.label, "created", batch=batch_id, expires_at=expires_at, seal=code)
        self._change(batch, id=batch_id, expires_at=expires_at, is_own=code is not None)

    def doubted(self, batch: Batch) -> None:
        """Record that from now on it is looked for in the provider's list."""
        at = now()
        self._write(batch.label, "doubted", at=at)
        self._change(batch, doubted_at=at)

    def collected(self, batch: Batch, counts: Mapping[str, int]) -> None:
        """Sync the records to disk, then record that its results are in them."""
        self._writer.sync()
        self._write(batch.label, "collected", counts=dict(counts))
        self._change(batch, collected=True)

    def void(self, batch: Batch, why: str) -> None:
        """Record that it was never created."""
        self._write(batch.label, "void", why=why)
        self._change(batch, void=True)

    def _write(self, label: str, event: str, **more: Any) -> None:
        self._writer.batch({"schema": SCHEMA, "event": event, "label": label, "at": now(), **more})

    def _change(self, batch: Batch, **changes: Any) -> None:
        self._batches[batch.label] = replace(self._batches[batch.label], **changes)


def new_label() -> str:
    """A new random label for a batch."""
    return f"rk-{secrets.token_hex(12)}"


def read_batches(run: Run) -> list[Batch]:
    """The batches of a run, oldest first. Raises `RecordError` at a malformed line."""
    if not run.batches.exists():
        return []
    found: dict[str, Batch] = {}
    for place, record in read_records(run.batches):
        label, event = record.get("label"), record.get("event")
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise RecordError(f"{place}: label is missing or of the wrong form")
        if event == "planned":
            found[label] = _planned(label, record, place)
        elif label not in found:
            raise RecordError(f"{place}: {printable(event)} before it was planned")
        else:
            changes = _changes(record, place)
            if "id" in changes:
                what = _sealed_part(run.manifest.id, label, changes["id"])
                changes["is_own"] = has_code(what, record.get("seal"))
            found[label] = replace(found[label], **changes)
    return list(found.values())


def check_none_open(run: Run, judge: str, *, of_model: bool) -> None:
    """Raise `ConfigurationError` if a batch is open: sending its units again would pay twice.

    Checks the batches of this judge and, with `of_model`, those of the run's model.
    """
    asked = {"model"} if of_model else set()
    if any(
        batch.is_open and (batch.kind in asked or (batch.kind, batch.asked) == ("judge", judge))
        for batch in read_batches(run)
    ):
        raise ConfigurationError(
            f"{printable(run.path)} has batches that are not collected yet: go on with --batch"
        )


def check_trusted(run: Run, *, trust_folder: bool) -> None:
    """Raise `FolderNotTrusted` if somebody else's folder names batches in the user's account."""
    if trust_folder or not run.batches.exists():
        return
    # Even in the user's own folder the journal may have been changed, so that a command would
    # cancel other batches of the account.
    if run.is_own and all(one.is_own for one in read_batches(run) if one.is_open and one.id):
        return
    raise FolderNotTrusted(
        f"{printable(run.path)} was not written by you on this machine, or was changed, and it "
        "names batches at a provider: add --trust-folder if they are yours"
    )


def _sealed_part(run_id: str, label: str, batch_id: str) -> bytes:
    """What the code of a batch covers: it differs for another run, label or id."""
    return repr(("batch", run_id, label, batch_id)).encode("ascii", "backslashreplace")


def _planned(label: str, record: Mapping[str, Any], place: str) -> Batch:
    kind, asked, units, at = (record.get(name) for name in ("kind", "asked", "units", "at"))
    whole = isinstance(units, list) and all(isinstance(unit, str) for unit in units)
    if kind not in ("model", "judge") or not isinstance(asked, str) or not whole:
        raise RecordError(f"{place}: kind, asked or units is missing or of the wrong type")
    names = tuple(cast("list[str]", units))
    return Batch(label, cast("Kind", kind), asked, names, _time(at, place))


def _changes(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    match record.get("event"):
        case "uploaded":
            return {"file": _id(record.get("file"), "file", place)}
        case "created":
            expires = record.get("expires_at")
            return {
                "id": _id(record.get("batch"), "batch", place),
                "expires_at": expires if isinstance(expires, str) else None,
            }
        case "doubted":
            return {"doubted_at": _time(record.get("at"), place)}
        case "collected":
            return {"collected": True}
        case "void":
            return {"void": True}
    raise RecordError(f"{place}: the event {printable(record.get('event'))} is not known")


def _time(value: object, place: str) -> str:
    try:
        if datetime.fromisoformat(str(value)).tzinfo is None:
            raise ValueError
    except ValueError as error:
        raise RecordError(f"{place}: at is not a time") from error
    return str(value)


def _id(value: object, name: str, place: str) -> str:
    if not is_provider_id(value):
        raise RecordError(f"{place}: {name} is not a provider's id")
    return str(value)
