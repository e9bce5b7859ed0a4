"""What a hostile vendor does to a run folder and to the files beside it, drawn at random."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

MARKER = "[withheld marker 5209]"
STEERING = "\x1b]0;owned\x07\u202e\n```\n=1+1 <script>alert(1)</script> $(touch owned) @all"
KEYS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-key-0123456789",
    "HF_TOKEN": "planted-hub-key-0123456789",
    "GROQ_API_KEY": "planted-groq-key-0123456789",
    "OPENAI_API_KEY": "planted-openai-key-0123456789",
}
RECORDS = (
    *("completions.jsonl", "verdicts.jsonl", "canaries.jsonl"),
    *("checkpoint.jsonl", "pressure.jsonl", "batches.jsonl", "labels/me.jsonl"),
)
FILES = ("manifest.json", *RECORDS)

_FAR = ["/etc/passwd", "../../home/.bashrc", "//host/share/set", "", "demo", "\0", "/dev/zero"]
_NAMES = ["kept", "withheld", "openai/x", "groq/x", "demo/open", "grade", "judge", "1/2", "9/9"]
values = st.one_of(
    st.sampled_from([*KEYS, *_NAMES, *_FAR, "@last", "2026-01-01T00:00:00+00:00", "nan"]),
    st.sampled_from([10**30, -1, 0, 1, 2**63, 1e308, float("nan"), True, False, None]),
    st.sampled_from([[], {}, [[]], {"a": {"b": 1}}, ["a", 1], "\ud800", "a" * 5000, [0] * 5000]),
    st.sampled_from([["graded:openai/judge-x"], {"suicide-and-self-harm-01": "x"}, "=1+1"]),
    st.just(STEERING),
)
"""What stands where something else stood."""

# The fields that decide most are drawn more often than the rest.
_TRUSTED: tuple[tuple[Any, ...], ...] = (
    *(("config", name) for name in ("api_base", "api_key_env", "judge_api_base", "model", "via")),
    *(("config", name) for name in ("judge_api_key_env", "extra_body", "keep_hard_line_text")),
    *(("config", name) for name in ("prompts", "judge", "max_cost", "trials", "batch", "shard")),
    *(("config", name) for name in ("pressure", "order_seed", "max_leaks", "stop_when", "bound")),
    *((name,) for name in ("hard_line_text", "kind", "trials", "n_units", "judge", "seal", "id")),
    *(("prompt_set", name) for name in ("source", "digest", "selection", "twins", "framed")),
    *(("prompt_set", name) for name in ("languages", "translations", "tags", "danger", "parts")),
    *(("prompt_set", "categories", 0, name) for name in ("hard_line", "n_units", "slug", "title")),
    *(("prompt_set", "selection", name) for name in ("hard_lines", "categories", "inversion")),
    *(("shard", name) for name in ("number", "of", "n_units")),
    ("sessions", 0, "operational"),
    ("sessions", 0, "judge"),
)


@dataclass(frozen=True)
class Change:
    """A value put into a file of JSON: at one of `_TRUSTED`, or anywhere in it."""

    place: int
    anywhere: bool
    value: Any

    def apply(self, data: Any) -> None:
        every = list(_places(data)) if self.anywhere else list(_TRUSTED)
        *way, last = every[self.place % len(every)]
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for step in way:
                data = data[step]
            # A copy: a list put into itself would have no end.
            data[last] = copy.deepcopy(self.value)


changes = st.lists(st.builds(Change, st.integers(0, 10**6), st.booleans(), values), max_size=4)
"""Of a manifest, a calibration."""

links = st.lists(
    st.tuples(
        st.sampled_from([*FILES, ".lock", ".manifest.json.new", "labels", "report.html"]),
        st.sampled_from(["link", "hard link", "pipe", "folder", "device", "loop", "gone"]),
    ),
    max_size=2,
)
"""What is put where a file should be."""

damage = st.lists(
    st.tuples(
        st.sampled_from(RECORDS),
        st.one_of(
            st.sampled_from(["cut", "garbage", "twice", "text", "unit", "category", "deep"]),
            st.sampled_from(["huge", "long", "order"]),
            st.tuples(st.integers(0, 10**6), values),
        ),
    ),
    max_size=2,
)
"""What becomes of records."""


def _places(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a file of JSON, the inner ones too."""
    if way:
        yield way
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in inner:
        if isinstance(value, dict | list):
            yield from _places(value, (*way, name))
        else:
            yield (*way, name)


def hurt(path: Path, how: str | tuple[int, Any]) -> None:
    """Damage a file of records."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    records: list[dict[str, Any]] = [{}]
    with contextlib.suppress(IndexError, ValueError, RecursionError):  # damaged before
        records = [json.loads(lines[0])]
    forged: dict[str, Any] = {
        "text": {"text": MARKER[::-1], "answer": MARKER[::-1]},
        "unit": {"unit": "../../x#1", "prompt_id": "../../x"},
        "category": {"category": STEERING},
        "huge": {"trial": 10**30, "cost_usd": 1e308, "text_chars": -(10**18)},
    }
    if isinstance(how, tuple):
        place, value = how
        with contextlib.suppress(IndexError, ValueError, RecursionError, ZeroDivisionError):
            number = place % len(lines)
            record = json.loads(lines[number])
            Change(place // 7, True, value).apply(record)
            lines[number] = json.dumps(record).encode() + b"\n"
    elif how in forged:
        lines.append(json.dumps(records[0] | forged[how]).encode() + b"\n")
    elif how == "cut":
        lines = [*lines[:-1], b'{"schema": 1, "unit"']
    elif how == "garbage":
        lines.append(b"\xff\xfe\x00{]\n")
    elif how == "twice":
        lines += lines
    elif how == "order":
        lines.reverse()
    elif how == "long":
        lines.append(b'{"schema": 1, "unit": "' + b"x" * 3_000_000 + b'"}\n')
    else:
        lines.append(b"[" * 100_000 + b"\n")
    if path.parent.is_dir() and not path.is_dir():
        path.write_bytes(b"".join(lines))


def plant(path: Path, what: str, outside: Path) -> None:
    """Put something else where a file should be; `outside` is a file of the user's."""
    if not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to(outside)
    elif what == "hard link":
        path.hardlink_to(outside)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "loop":
        path.symlink_to(path.name)
