"""Merges the shards of a run: several run folders, each with a share of the prompts, become one.

Shards with different configurations, prompts or judges are refused, and so are records that do not
belong to their shard. The merged folder appears whole or not at all: if it lacked records, they
would be paid for again.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusalkit.config.resolve import check_unchanged
from refusalkit.display import shows
from refusalkit.errors import ConfigurationChanged, RecordError, RunFolderError, StorageError
from refusalkit.prompts.prompt_set import shard_of
from refusalkit.runs.batch_journal import read_batches
from refusalkit.runs.folder import (
    Run,
    create_run,
    holds_run,
    open_run,
    refuse_link,
)
from refusalkit.runs.manifest import JudgeEntry, Manifest, ParameterEntry, ShardEntry
from refusalkit.runs.prompt_choice import marked_hard_lines
from refusalkit.runs.records import read_records
from refusalkit.runs.withheld import withheld_by
from refusalkit.types import unit_parts
from refusalkit.untrusted import printable


@shows("run", shards=lambda merged: f"{merged.n_shards - len(merged.missing)} of {merged.n_shards}")
@dataclass(frozen=True, slots=True)
class Merged:
    """A merged run, and which shards it lacks."""

    run: Run
    """The merged run."""
    n_shards: int
    """How many shares the prompts were split into."""
    missing: tuple[int, ...]
    """Numbers of the shards that were not given, from 1; their units are still to be done."""
    running: tuple[Path, ...]
    """Paths of shards whose last session had not ended when they were read."""


def merge_shards(paths: Sequence[Path], out: Path) -> Merged:
    """Merge the shards at `paths` into a new run folder at `out`.

    Sessions, costs and the verdicts of all judges are kept. Units that a shard has not done, and
    all units of missing shards, are still to be done in the merged run. Its score is exactly that
    of a run that was never split.

    Args:
        paths: the shards' run folders, in any order.
        out: the new run folder; it must not exist, or be empty.

    Raises:
        RunFolderError: `out` holds something, a path is not a shard, or one is given twice.
        ConfigurationChanged: the shards are not of one run.
        RecordError: a record is broken, or of a prompt that is not in its shard.
        StorageError: a write fails; no folder is left behind.
    """
    if not paths:
        raise RunFolderError("name the shards to merge")
    shards = [open_run(path) for path in paths]
    entries = [_shard_entry(shard) for shard in shards]
    first = shards[0]
    seen: dict[int, Path] = {}
    for shard, entry in zip(shards, entries, strict=True):
        _check_same(first, entries[0], shard, entry)
        if entry.number in seen:
            raise RunFolderError(
                f"{printable(shard.path)} is shard {entry.number}/{entry.of}, and so is "
                f"{printable(seen[entry.number])}: give each share once"
            )
        seen[entry.number] = shard.path
        if any(batch.is_open for batch in read_batches(shard)):
            raise RunFolderError(
                f"{printable(shard.path)} has batches that are not collected yet: "
                f"`refusalkit resume {printable(shard.path)}` first"
            )
    if holds_run(out) or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise RunFolderError(f"{printable(out)} exists and is not empty: choose another --out")
    refuse_link(out)
    run = _written(shards, entries, _merged_manifest(shards, entries), out)
    sessions = [shard.manifest.sessions for shard in shards]
    return Merged(
        run,
        entries[0].of,
        tuple(n for n in range(1, entries[0].of + 1) if n not in seen),
        tuple(
            shard.path
            for shard, its in zip(shards, sessions, strict=True)
            if its and its[-1].ended_at is None
        ),
    )


def _shard_entry(run: Run) -> ShardEntry:
    if run.manifest.shard is None:
        raise RunFolderError(
            f"{printable(run.path)} is a whole run, not a shard: only runs made with --shard can "
            "be merged"
        )
    return run.manifest.shard


def _check_same(first: Run, whole: ShardEntry, shard: Run, entry: ShardEntry) -> None:
    """Raise `ConfigurationChanged` unless two shards belong to the same run."""
    where = printable(shard.path)
    ours, theirs = first.manifest, shard.manifest

    def differ(what: str) -> ConfigurationChanged:
        return ConfigurationChanged(
            f"{where} is not of the same run as {printable(first.path)}: {what}"
        )

    if entry.of != whole.of:
        raise differ(f"one is a share of {whole.of}, the other of {entry.of}")
    same = {"shard": None}
    try:
        check_unchanged(
            ours.run_config.model_copy(update=same), theirs.run_config.model_copy(update=same)
        )
    except ConfigurationChanged as error:
        raise differ(str(error)) from error
    if (entry.prompt_set, entry.n_units) != (whole.prompt_set, whole.n_units):
        raise differ("their prompts are not the same")
    if (ours.kind, ours.judge, ours.trials) != (theirs.kind, theirs.judge, theirs.trials):
        raise differ("their judges of record are not the same")
    if ours.hard_line_text != theirs.hard_line_text:
        raise differ("one keeps hard-line answers and the other does not")
    for judge, said in theirs.judges.items():
        if ours.judges.get(judge, said) != said:
            raise differ(f"the judge {printable(judge)} is not the same")


def _merged_manifest(shards: Sequence[Run], entries: Sequence[ShardEntry]) -> Manifest:
    first, whole = shards[0].manifest, entries[0]
    config = first.run_config.model_copy(update={"shard": None})
    judges: dict[str, JudgeEntry] = {}
    parameters: dict[str, ParameterEntry] = {}
    for shard in shards:
        judges |= shard.manifest.judges
        for part, said in shard.manifest.parameters.items():
            before = parameters.get(part, ParameterEntry())
            parameters[part] = said.model_copy(
                update={
                    "sent": {**before.sent, **said.sent},
                    "dropped": {**before.dropped, **said.dropped},
                }
            )
    sessions = [session for shard in shards for session in shard.manifest.sessions]
    return first.model_copy(
        update={
            "id": f"{first.id.rpartition('-')[0]}-{secrets.token_hex(2)}",
            "config": config.model_dump(mode="json"),
            "config_digest": config.digest,
            "prompt_set": whole.prompt_set,
            "n_units": whole.n_units,
            "languages": whole.languages,
            "shard": None,
            "judges": judges,
            "parameters": parameters,
            "sessions": tuple(sorted(sessions, key=lambda session: session.started_at)),
        }
    )


def _written(
    shards: Sequence[Run], entries: Sequence[ShardEntry], manifest: Manifest, out: Path
) -> Run:
    """The merged run, written to a temporary folder that is then renamed to `out`."""
    beside = out.absolute().parent / f".{out.name}.merging-{secrets.token_hex(4)}"
    # With a stranger's shard, endpoints and keys in the manifest may not be the user's choice.
    own = all(shard.is_own for shard in shards)
    try:
        run = create_run(beside, manifest)
        withheld = withheld_by(manifest)
        if manifest.hard_line_text == "withheld":
            withheld = withheld.union(*map(marked_hard_lines, shards))
        with run.writing(withheld=withheld) as writer:
            for shard, entry in zip(shards, entries, strict=True):
                for name, record in _records(shard, entry):
                    writer.copy(name, record)
        run.with_manifest(manifest, own=own)
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    except OSError as error:
        raise StorageError(
            f"cannot write {printable(out)}: {error.strerror or error}; nothing was merged"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_run(out)


def _records(shard: Run, entry: ShardEntry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each whole record of a shard with the name of its file; a torn last line is left out."""
    roots = _roots(shard.manifest)
    for path in (shard.completions, shard.verdicts, shard.pressure):
        if path == shard.pressure and not path.exists():  # without pressure, or not yet
            continue
        for place, record in read_records(path):
            unit = record.get("unit")
            if not isinstance(unit, str):
                raise RecordError(f"{printable(shard.path)}/{place}: unit is missing")
            prompt_id = unit_parts(unit)[0]
            number = shard_of(roots.get(prompt_id, prompt_id), entry.of)
            if number != entry.number:
                raise RecordError(
                    f"{printable(shard.path)}/{place}: {printable(prompt_id)} is of shard "
                    f"{number}/{entry.of}, not of {entry.number}/{entry.of}"
                )
            yield path.name, record
    if shard.canaries.exists():
        for _, record in read_records(shard.canaries):
            yield shard.canaries.name, record


def _roots(manifest: Manifest) -> dict[str, str]:
    """The prompt that each contrast, framed and translated prompt belongs to, by id."""
    entry = manifest.prompt_set
    framed = {name: one.frame_of for name, one in entry.framed.items()}
    return {**entry.translations, **framed, **entry.twins}
