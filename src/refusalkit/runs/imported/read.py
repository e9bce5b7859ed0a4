"""Reads recorded answers, whatever their format."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from refusalkit.errors import RecordError
from refusalkit.files import mode_of
from refusalkit.jsonl import read_lines
from refusalkit.runs.imported.answers import LABEL_WORDS, AnswerCollector, RecordedAnswers
from refusalkit.runs.imported.atropos_log import is_atropos_log, read_atropos_log
from refusalkit.runs.imported.inspect_log import (
    INSPECT_SUFFIXES,
    is_inspect_json,
    read_inspect_log,
)
from refusalkit.runs.imported.log_formats import log_format_of, read_log
from refusalkit.types import Judgement, Label
from refusalkit.untrusted import printable


class _AnswerRecord(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    prompt: Annotated[str, Field(repr=False)]
    response: Annotated[str, Field(repr=False)]
    id: Annotated[str | int, Field(union_mode="left_to_right")] | None = None
    category: str | None = None
    trial: Annotated[int, Field(ge=1)] | None = None
    label: Label | None = None
    judges: dict[str, Any] | None = None
    annotators: dict[str, Any] | None = None
    source: str | None = None
    model: str | None = None
    lang: str = "en"


def read_answers(path: Path) -> RecordedAnswers:
    """Read recorded answers; what `path` is says in which format.

    - a folder with `samples.jsonl`, or that file: the reference environment's log;
    - a .eval file: an Inspect log, read with inspect_ai (an extra);
    - a .json or .jsonl file that another program wrote: lm-evaluation-harness, promptfoo, garak,
      PyRIT, SpeechMap, chat messages; Inspect's .json logs (log_formats.toml lists them);
    - any other file: an object a line with `prompt` and `response`; `id` (else the line number),
      `category`, `trial` (else the how-manieth answer to that id it is), `lang` (else ``en``, as of
      prompts), `label` (people's), `annotators` (single people's labels by name), `judges` (other
      judges' by name), `source` and `model` (where the answer is from) if there; other fields are
      passed over.

    Raises `RecordError`, naming file, line and field.
    """
    if is_atropos_log(path):
        return read_atropos_log(path)
    try:
        is_file = stat.S_ISREG(mode_of(path))
    except OSError as error:  # a name that no file system takes
        raise RecordError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not is_file:
        raise RecordError(
            f"{printable(path)} is not a file: give a .jsonl file of recorded answers, a run "
            "folder, a log folder with samples.jsonl, or an Inspect log"
        )
    log = log_format_of(path)
    if log is not None:
        return read_log(path, log)
    if path.suffix.lower() == ".json" and not is_inspect_json(path):
        raise RecordError(
            f"{printable(path)} is JSON of no known kind: give JSONL of objects with prompt and "
            "response, or what promptfoo, PyRIT or Inspect wrote"
        )
    if path.suffix.lower() in INSPECT_SUFFIXES:
        return read_inspect_log(path)
    found = AnswerCollector()
    for place, record in read_lines(path, _AnswerRecord):
        number = place.rpartition(":")[2]
        prompt_id = str(number if record.id is None else record.id)
        unit = found.add(
            place,
            prompt_id,
            record.prompt,
            record.response,
            category=record.category,
            trial=record.trial,
            lang=record.lang,
        )
        said = {"source": record.source, "model": record.model}
        if origin := {name: value for name, value in said.items() if value is not None}:
            found.origins[unit] = origin
        for annotator, word in (record.annotators or {}).items():
            if (label := LABEL_WORDS.get(str(word).strip().casefold())) is not None:
                found.annotators.setdefault(annotator, {})[unit] = label
        if record.label is not None:
            found.labels[unit] = record.label
        for judge, word in (record.judges or {}).items():
            found.judged(judge, unit, Judgement(LABEL_WORDS.get(str(word).strip().casefold())))
    return found.finish(path)
