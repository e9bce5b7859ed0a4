"""SHA-256 digests of prompts and prompt sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii
from operator import attrgetter

from refusalkit.types import Category, Prompt

# Made once: a digest may cover a million prompts.
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256 of a prompt, ``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(_prompt_line(prompt)).hexdigest()}"


def set_digest(categories: Iterable[Category], prompts: Iterable[Prompt]) -> str:
    """SHA-256 of every prompt and of which categories are hard lines, in order of slug and id."""
    sha = hashlib.sha256()
    for category in sorted(categories, key=attrgetter("slug")):
        sha.update(_canonical([category.slug, category.hard_line]))
    for prompt in sorted(prompts, key=attrgetter("id")):
        sha.update(_prompt_line(prompt))
    return f"sha256:{sha.hexdigest()}"


def _prompt_line(prompt: Prompt) -> bytes:
    """What a digest covers of a prompt, as a line of JSON.

    A twin, a framing or the source of a translation is included only where there is one, so that
    older digests still hold.
    """
    rare = prompt.system is not None or prompt.twin or prompt.framing or prompt.translation_of
    if not (rare or prompt.messages or prompt.tags):
        # Most prompts of a large set: the same bytes without encoding nested lists.
        quoted = encode_basestring_ascii
        danger = "null" if prompt.danger is None else prompt.danger
        return (
            f"[{quoted(prompt.id)},{quoted(prompt.category)},null,"
            f'[["user",{quoted(prompt.text)}]],{danger},[],{quoted(prompt.lang)}]\n'
        ).encode()
    turns = [[m.role, m.content] for m in prompt.messages] or [["user", prompt.text]]
    twin: tuple[object, ...] = () if prompt.twin is None else (prompt.twin,)
    if prompt.framing is not None:
        twin = (*twin, {"framing": prompt.framing, "frame_of": prompt.frame_of})
    if prompt.translation_of is not None:
        twin = (*twin, {"translation_of": prompt.translation_of})
    return _canonical(
        [
            prompt.id,
            prompt.category,
            prompt.system,
            turns,
            prompt.danger,
            sorted(prompt.tags),
            prompt.lang,
            *twin,
        ]
    )


def _canonical(value: object) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"
