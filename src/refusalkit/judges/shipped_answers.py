"""Answers that come with refusalkit as data: the attacks of the self-test, the canaries.

A set is one JSONL file in ``judges/``: a first line with its name, version and licence, then one
record a line. A published set never changes; ``judges/answers.lock.json`` holds the digest of each
version, and the test suite compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonlines

from refusalkit.shipped import judges_dir

LOCK = "answers.lock.json"
SETS = ("canaries", "probes")


@dataclass(frozen=True)
class AnswerSet:
    """A set of shipped answers as it is in its file.

    `digest` is SHA-256 over version and records, ``sha256:`` and 64 hex digits; it does not depend
    on line ends or on the order of a record's fields.
    """

    name: str
    version: int
    digest: str
    records: tuple[Mapping[str, Any], ...]


def read_answer_set(name: str) -> AnswerSet:
    """One of `SETS`."""
    with jsonlines.open(judges_dir() / f"{name}.jsonl") as reader:
        head, *records = reader.iter(type=dict)
    covered = [head["version"], *records]
    text = json.dumps(covered, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return AnswerSet(name, head["version"], digest, tuple(records))
