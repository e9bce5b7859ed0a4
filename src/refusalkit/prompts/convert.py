"""Any prompt set as a set folder: set.toml and one JSONL file per category."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from refusalkit.errors import StorageError, UsageError
from refusalkit.files import make_folder, write_file
from refusalkit.prompts.prompt_record import ID_PATTERN, SLUG_PATTERN
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.public_rows import safe_slug
from refusalkit.prompts.set_folder import MANIFEST, read_folder
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable, well_formed

_VERSION = r"\d+(\.\d+){0,2}"


def write_folder(
    prompts: PromptSet, folder: Path, *, name: str | None = None, licence: str | None = None
) -> PromptSet:
    """Write `prompts` as the set folder `folder`; returns the set as read back from it.

    Slugs and ids that a file system or a record could not hold are replaced by safe ones. The
    folder appears whole or not at all. Raises `UsageError` where something is there already or
    `name` is not a set's name, `StorageError` where the disk refuses.
    """
    if name is not None and not re.fullmatch(SLUG_PATTERN, name):
        raise UsageError(f"{printable(name)} is not a name for a set: use lower-case letters and -")
    safe = _made_safe(prompts)
    title = name or (
        safe.name if re.fullmatch(SLUG_PATTERN, safe.name) else safe_slug(safe.name, {})
    )
    where = printable(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{where} is there already: choose another folder")
        if not folder.parent.exists():
            make_folder(folder.parent)
        scratch = folder.parent / f".{folder.name[:100]}.new-{secrets.token_hex(4)}"
        make_folder(scratch)
        try:
            write_file(scratch / MANIFEST, _manifest(safe, title, licence).encode())
            _write_prompts(safe, scratch)
            # The folder is put in place only once it reads back as the same set.
            written = read_folder(scratch, str(folder.resolve()))
            if written.digest != safe.digest:
                raise AssertionError("the folder does not hold the prompts that it was made from")
            if folder.exists():
                folder.rmdir()
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write {where}: {error.strerror or error}") from error
    return written


def _made_safe(prompts: PromptSet) -> PromptSet:
    """The set with slugs and ids that a folder can hold; those that are safe stay as they are."""
    filled = {prompt.category for prompt in prompts.prompts}
    kept = [category for category in prompts.categories if category.slug in filled]
    slugs = {c.slug: c.slug for c in kept if re.fullmatch(SLUG_PATTERN, c.slug)}
    taken = dict.fromkeys(slugs.values())
    for category in kept:
        if category.slug not in slugs:
            slug = safe_slug(category.slug or category.title, taken)
            slugs[category.slug] = slug
            taken[slug] = None
    ids = {prompt.id for prompt in prompts.prompts if re.fullmatch(ID_PATTERN, prompt.id)}
    changed = [
        replace(prompt, id=_safe_id(prompt, ids), category=slugs[prompt.category])
        if prompt.id not in ids or slugs[prompt.category] != prompt.category
        else prompt
        for prompt in prompts.prompts
    ]
    categories = tuple(replace(c, slug=slugs[c.slug]) for c in kept)
    return replace(prompts, categories=categories, prompts=tuple(changed))


def _safe_id(prompt: Prompt, taken: set[str]) -> str:
    if prompt.id in taken:
        return prompt.id
    stem = re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", prompt.id).strip("._:/@+-")[:150] or "prompt"
    wanted, number = stem, 2
    while wanted in taken:
        wanted, number = f"{stem}-{number}", number + 1
    taken.add(wanted)
    return wanted


def _manifest(prompts: PromptSet, name: str, licence: str | None) -> str:
    version = prompts.version if re.fullmatch(_VERSION, prompts.version) else "0"
    lines = [
        f"name = {_quoted(name)}",
        f"version = {_quoted(version)}",
        f"licence = {_quoted(licence or prompts.licence or 'not stated')}",
        f"description = {_quoted(_description(prompts))}",
    ]
    if _repeats(prompts):
        lines.append("repeats = true")
    for category in prompts.categories:
        lines += ["", "[[categories]]", *_category_lines(category)]
    return "\n".join(lines) + "\n"


def _category_lines(category: Category) -> list[str]:
    lines = [
        f"slug = {_quoted(category.slug)}",
        f"title = {_quoted(category.title or category.slug)}",
    ]
    if category.description:
        lines.append(f"description = {_quoted(category.description)}")
    if category.hard_line:
        lines.append("hard_line = true")
    return lines


def _description(prompts: PromptSet) -> str:
    dataset = prompts.selection.get("dataset")
    if not isinstance(dataset, Mapping):
        return prompts.description
    at = f"Converted from {dataset['repository']}, revision {dataset['revision']}."
    return f"{prompts.description} {at}"


def _repeats(prompts: PromptSet) -> bool:
    """Whether a text appears twice, compared as `read_folder` compares texts."""
    seen = set()
    for prompt in prompts.prompts:
        turns = ((m.role, " ".join(m.content.casefold().split())) for m in prompt.turns)
        seen.add(hash((prompt.system, tuple(turns))))
    return len(seen) < len(prompts.prompts)


def _write_prompts(prompts: PromptSet, folder: Path) -> None:
    files: dict[str, list[Prompt]] = {category.slug: [] for category in prompts.categories}
    for prompt in prompts.prompts:
        files[prompt.category].append(prompt)
    for slug, members in files.items():
        lines = "".join(map(_line, members)).encode()
        write_file(folder / f"{slug}.jsonl", lines, durable=False)


def _line(prompt: Prompt) -> str:
    record: dict[str, Any] = {"id": prompt.id}
    if prompt.messages:
        turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
        record["messages"] = turns
    else:
        record["text"] = prompt.text
    if prompt.danger is not None:
        record["danger"] = prompt.danger
    if prompt.tags:
        record["tags"] = list(prompt.tags)
    record["lang"] = prompt.lang
    if prompt.system is not None:
        record["system"] = prompt.system
    if prompt.twin is not None:
        record["twin"] = prompt.twin
    if prompt.framing is not None:
        record["framing"] = prompt.framing
        record["frame_of"] = prompt.frame_of
    if prompt.translation_of is not None:
        record["translation_of"] = prompt.translation_of
    if prompt.unframed:
        record["unframed"] = list(prompt.unframed)
    text = json.dumps(record, ensure_ascii=False)
    # A lone surrogate has no UTF-8: then everything is escaped.
    return (text if well_formed(text) == text else json.dumps(record)) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string. JSON escapes the same characters except DEL."""
    return json.dumps(well_formed(text), ensure_ascii=False).replace("\x7f", "\\u007f")
