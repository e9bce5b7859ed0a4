"""A log of Inspect as recorded answers."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from refusalkit.errors import RecordError, UsageError
from refusalkit.files import MAX_WHOLE, open_file
from refusalkit.runs.imported.answers import (
    DANGER_WORDS,
    LABEL_WORDS,
    AnswerCollector,
    RecordedAnswers,
)
from refusalkit.types import Judgement, Message
from refusalkit.untrusted import printable

INSPECT_SUFFIXES = (".eval", ".json")

# Inspect's JSON logs say early on what was evaluated.
_HEAD = 4096
# Bytes that an archive may unpack to: half a megabyte can be gigabytes, and all of it is read.
_MAX_UNPACKED = 2**30
_PIECE = 2**20
_ZSTANDARD = 93


def is_inspect_json(path: Path) -> bool:
    """Whether a .json file begins like an Inspect log, or cannot be read."""
    try:
        with open_file(path) as file:
            return b'"eval"' in file.read(_HEAD)
    except OSError:
        return True


def read_inspect_log(path: Path) -> RecordedAnswers:
    """The answers of an Inspect log, and its scores if their values are words for our labels.

    A sample's id and epoch are prompt and trial; `category`, `hard_line`, `danger` and `lang` are
    taken from its metadata. Samples that failed or have no answer are counted as left out. For
    withheld answers only the scores are there.

    Raises `UsageError` if the extra `inspect` is not installed, `RecordError` at a broken log.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise UsageError(
            f"{printable(path)} is an Inspect log: install the extra that reads it, from a clone "
            "pip install '.[inspect]'"
        ) from error
    try:
        with _bounded(path) as plain:
            log = read_eval_log(str(plain))
    except Exception as error:  # whatever inspect_ai raises at a broken file
        what = printable(error, 120) or type(error).__name__
        raise RecordError(f"{printable(path)} cannot be read as an Inspect log: {what}") from error
    found = AnswerCollector()
    for number, sample in enumerate(log.samples or [], 1):
        place = f"{printable(path)}: sample {number}"
        if sample.error is not None:
            found.left_out["error"] += 1
            continue
        if not sample.output.choices:
            found.left_out["no answer"] += 1
            continue
        system, messages = _turns(sample.input)
        if not messages or messages[-1].role != "user":
            found.left_out["no prompt"] += 1
            continue
        facts = sample.metadata or {}
        category, lang = facts.get("category"), facts.get("lang")
        unit = found.add(
            place,
            str(sample.id),
            messages[-1].content,
            sample.output.completion,
            category=category if isinstance(category, str) else None,
            hard_line=facts.get("hard_line") is True,
            danger=DANGER_WORDS.get(str(facts.get("danger"))),
            lang=lang if isinstance(lang, str) else "en",
            trial=sample.epoch,
            system=system,
            messages=messages if len(messages) > 1 else (),
        )
        if sample.output.stop_reason:
            found.finish_reasons[unit] = str(sample.output.stop_reason)
        for scorer, score in (sample.scores or {}).items():
            label = LABEL_WORDS.get(str(score.value).strip().casefold())
            if label is not None:
                found.judged(scorer, unit, Judgement(label))
            if (score.metadata or {}).get("withheld") is True:
                found.withheld.add(unit)
    return found.finish(path)


@contextlib.contextmanager
def _bounded(path: Path) -> Iterator[Path]:
    """The log, if it is not too large to be read; of an archive a copy that is not packed.

    inspect_ai unpacks a file to its end at once, whatever size the archive gives it.
    Raises `ValueError`, and what zipfile raises.
    """
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > MAX_WHOLE:
            raise ValueError(f"it is larger than {MAX_WHOLE / 1e6:.0f} MB")
        yield path
        return
    n_bytes = 0
    with tempfile.TemporaryDirectory(prefix="refusalkit-") as folder:
        plain = Path(folder, "log.eval")
        with (
            open_file(path) as file,
            zipfile.ZipFile(file) as log,
            zipfile.ZipFile(plain, "w") as to,
        ):
            for entry in {each.filename: each for each in log.infolist()}.values():
                with _unpacked(log, entry) as packed, to.open(entry.filename, "w") as out:
                    while piece := packed.read(_PIECE):
                        n_bytes += len(piece)
                        if n_bytes > _MAX_UNPACKED:
                            what = f"it unpacks to more than {_MAX_UNPACKED / 1e6:.0f} MB"
                            raise ValueError(what)
                        out.write(piece)
        yield plain


def _unpacked(log: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """A file of an archive, unpacked as it is read."""
    if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return log.open(entry)
    if entry.compress_type != _ZSTANDARD:
        raise ValueError("it is not packed as Inspect packs its logs")
    import zstandard

    # zipfile would unpack all that a piece holds, be it gigabytes.
    packed = copy.copy(entry)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, packed.compress_size
    del packed.CRC  # of what it unpacks to
    unpacking: IO[bytes] = zstandard.ZstdDecompressor().stream_reader(
        log.open(packed), read_across_frames=True
    )
    return unpacking


def _turns(given: Any) -> tuple[str | None, tuple[Message, ...]]:
    """(system message, conversation) of a sample's input, a text or a list of messages."""
    if isinstance(given, str):
        return None, (Message("user", given),)
    system: str | None = None
    turns: list[Message] = []
    for message in given:
        if message.role == "system":
            system = message.text if system is None else f"{system}\n\n{message.text}"
        elif message.role == "user":
            turns.append(Message("user", message.text))
        elif message.role == "assistant":
            turns.append(Message("assistant", message.text))
        else:
            return system, ()  # a tool's turn: not a conversation that can be judged
    return system, tuple(turns)
