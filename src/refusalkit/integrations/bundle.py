"""A run as one archive without texts, which anyone can verify and score.

Left out are the texts of all answers, judges' reasons on hard lines, providers' own words on
errors, addresses of endpoints, names of key variables, and the folders of prompt sets and judge
files. The options that the score depends on stay, the system prompt and ``prompts`` as they were
given among them. The same run always gives the same bytes (with one release of zlib); a bundle's
digest is that of its list of files, and does not depend on the compression.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from refusalkit import jsonl
from refusalkit.api.results import score
from refusalkit.config.run_config import ENDPOINT_FIELDS
from refusalkit.errors import RunFolderError, StorageError
from refusalkit.files import check_replaceable, read_json_file, write_file
from refusalkit.runs.edits import with_check
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import MANIFEST
from refusalkit.runs.prompt_choice import marked_hard_lines
from refusalkit.runs.record_json import FIELDS
from refusalkit.runs.records import CANARIES, COMPLETIONS, PRESSURE, VERDICTS, read_records
from refusalkit.untrusted import identifier, printable

BUNDLE = "bundle"
_CONTENTS = "bundle.json"
_FORMAT = 1
_RECORD_FILES = (COMPLETIONS, VERDICTS, CANARIES, PRESSURE)
_FILES = (MANIFEST, *_RECORD_FILES, _CONTENTS)
# The earliest date that a zip archive can hold; any fixed date would do.
_DATE = (1980, 1, 1, 0, 0, 0)
# A bundle may come from a stranger: it may unpack to the bytes of _MAX_UNPACKED in all, and to
# _MAX_RATIO times its own size (a small one: to _SMALL).
_MAX_UNPACKED = 4 * 2**30
_MAX_RATIO = 200
_SMALL = 64 * 2**20
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Claims:
    """What a bundle states about its own contents.

    `digest` is that of its list of files, ``sha256:...``; `changed` names the files whose digest
    differs from the list's; `willingness` is in percent, None where nothing was scored.
    """

    digest: str
    changed: tuple[str, ...]
    willingness: float | None


def is_bundle(path: Path) -> bool:
    """Whether a path is a zip archive, so that it can only be a bundle."""
    try:
        return path.is_file() and zipfile.is_zipfile(path)
    except OSError:
        return False


def write_bundle(run: Run, out: Path) -> str:
    """Write a run's bundle; returns its digest. The file appears whole or not at all.

    Raises `RecordError` at a broken record, `StorageError` where the file cannot be written.
    """
    found = score(run)
    try:
        check_replaceable(out)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            digests = {}
            for name, lines in _contents(run):
                digests[name] = _write_lines(folder / name, lines)
            listed = {
                "bundle": _FORMAT,
                "run": run.manifest.id,
                "files": digests,
                "willingness": found.willingness.value if found.n_scored else None,
                "n_units": found.n_units,
                "n_scored": found.n_scored,
            }
            contents = json.dumps(listed, indent=2, sort_keys=True).encode() + b"\n"
            (folder / _CONTENTS).write_bytes(contents)
            archive = folder / "archive.zip"
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
                for name in sorted((*digests, _CONTENTS)):
                    _add(made, folder / name)
            write_file(out, archive.read_bytes(), private=False)
    except OSError as error:
        raise StorageError(f"cannot write {printable(out)}: {error.strerror or error}") from error
    return _digest(contents)


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The run folder in a bundle, unpacked into a temporary folder for the context.

    Any file that a run does not have is refused, and so is more data than a bundle of that size
    can hold.
    Raises `RunFolderError`.
    """
    where = printable(path)
    most = min(_MAX_UNPACKED, max(_SMALL, path.stat().st_size * _MAX_RATIO))
    with tempfile.TemporaryDirectory(prefix="refusalkit-") as scratch:
        folder = Path(scratch)
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                odd = [name for name in names if name not in _FILES]
                if odd or len(set(names)) < len(names) or not {*_FILES[:3], _CONTENTS} <= {*names}:
                    what = (
                        f"it holds {printable(odd[0])}" if odd else "files are missing or doubled"
                    )
                    raise RunFolderError(f"{where} is not a bundle of a run: {what}")
                for entry in archive.infolist():
                    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise RunFolderError(f"{where} is not packed as a bundle is")
                    with archive.open(entry) as packed:
                        most -= _copy(packed, folder / entry.filename, most)
                        if most < 0:
                            raise RunFolderError(f"{where} unpacks to more than a bundle can hold")
        except (
            OSError,
            RuntimeError,
            ValueError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise RunFolderError(f"{where} cannot be unpacked: {printable(error)}") from error
        yield folder


def read_claims(folder: Path) -> Claims:
    """What an unpacked bundle states about its own contents. Raises `RunFolderError`."""
    try:
        contents = read_json_file(folder / _CONTENTS)
        listed = json.loads(contents)
        files, figure = listed["files"], listed["willingness"]
        if listed["bundle"] != _FORMAT or not isinstance(files, dict):
            raise ValueError("of another version")
        willingness = None if figure is None else float(figure)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RunFolderError(f"{_CONTENTS} cannot be read: {printable(error)}") from error
    there = {path.name for path in folder.iterdir()} - {_CONTENTS}
    changed = {name for name in there if _file_digest(folder / name) != files.get(name)}
    changed |= {printable(name, 60) for name in files.keys() - there}
    return Claims(_digest(contents), tuple(sorted(changed)), willingness)


def _contents(run: Run) -> Iterator[tuple[str, Iterator[bytes]]]:
    yield MANIFEST, iter([_manifest(run)])
    hard_lines = marked_hard_lines(run)
    for path in (run.completions, run.verdicts, run.canaries, run.pressure):
        if path.exists():
            yield path.name, _records(path, hard_lines)


def _manifest(run: Run) -> bytes:
    """The manifest without the addresses of endpoints, key variables, and files' folders."""
    data = run.manifest.model_dump(mode="json")
    data["config"] |= {name: None for name in ENDPOINT_FIELDS if name in data["config"]}
    for session in data["sessions"]:
        kept = session["operational"].items()
        session["operational"] = {key: value for key, value in kept if key not in ENDPOINT_FIELDS}
    data["prompt_set"]["source"] = _without_folder(data["prompt_set"]["source"])
    for judge in data["judges"].values():
        for entry in (judge, judge.get("fallback"), judge.get("hard_line_judge")):
            if entry:
                entry["source"] = _without_folder(entry["source"])
    return json.dumps(data, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _without_folder(source: str | None) -> str | None:
    return (
        PurePath(source).name if source is not None and PurePath(source).is_absolute() else source
    )


def _records(path: Path, hard_lines: frozenset[str]) -> Iterator[bytes]:
    for _, record in read_records(path):
        shown = without_texts(record, hard_lines)
        yield with_check(jsonl.to_well_formed(shown) + b"\n")


def without_texts(record: Mapping[str, Any], hard_lines: frozenset[str]) -> dict[str, Any]:
    """A record, and the records in it, without what may repeat an answer.

    On hard lines that includes the judge's reason, and of a provider's fields all but identifiers.
    """
    made: dict[str, Any] = {
        name: without_texts(value, hard_lines) if isinstance(value, dict) else value
        for name, value in record.items()
        if name in FIELDS
    }
    made |= {field: None for field in ("text", "error_detail") if field in made}
    if str(record.get("category")) in hard_lines:
        made |= {field: None for field in ("reason", "error") if field in made}
        for field in ("finish_reason", "request_id", "filter_category", "served_model"):
            if isinstance(made.get(field), str):
                made[field] = identifier(made[field], 96, parts=16)
        if isinstance(made.get("unknown_mark"), str):
            made["unknown_mark"] = f"<{identifier(made['unknown_mark'].strip('</>'), 40)}>"
    return made


def _write_lines(path: Path, lines: Iterator[bytes]) -> str:
    sha = hashlib.sha256()
    with path.open("wb") as file:
        for line in lines:
            sha.update(line)
            file.write(line)
    return f"sha256:{sha.hexdigest()}"


def _add(archive: zipfile.ZipFile, path: Path) -> None:
    entry = zipfile.ZipInfo(path.name, date_time=_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    entry.file_size = path.stat().st_size
    with path.open("rb") as file, archive.open(entry, "w") as packed:
        while piece := file.read(_PIECE):
            packed.write(piece)


def _copy(packed: Any, path: Path, most: int) -> int:
    """Unpack a file, stopping within a piece after `most` bytes; returns the bytes written."""
    n_bytes = 0
    with path.open("wb") as file:
        while n_bytes <= most and (piece := packed.read(_PIECE)):
            file.write(piece)
            n_bytes += len(piece)
    return n_bytes


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
