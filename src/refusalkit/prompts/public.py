"""Loads public prompt sets by name: fetches or opens their files and marks their hard lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refusalkit.errors import PromptSetError, UsageError
from refusalkit.prompts.fetch import Fetched, NotThere, fetch, file_sha256, matching_files
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.public_facts import Inverted, Layout, PublicSet, public_sets
from refusalkit.prompts.public_rows import Reading, read_file, same_name
from refusalkit.prompts.tables import SUFFIXES
from refusalkit.types import Category
from refusalkit.untrusted import printable


@dataclass(frozen=True, slots=True)
class Request:
    """A public set as a user named it: ``NAME``, ``NAME@REVISION`` or ``NAME:FILE``."""

    facts: PublicSet
    revision: str | None = None
    file: Path | None = None


def requested(source: str) -> Request | None:
    """The public set that `source` names, None if it names none."""
    name, mark, rest = re.fullmatch(r"([a-z0-9-]*)([@:]?)(.*)", source, re.DOTALL).groups()  # type: ignore[union-attr]
    if not name or (rest and not mark):
        return None  # a path, as a rule: the list of public sets need not be read
    known = public_sets().get(name)
    if known is None:
        return None
    if mark and not rest:
        raise UsageError(f"{name}{mark} names no {'revision' if mark == '@' else 'file'}")
    if mark == "@" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", rest):
        raise UsageError(f"{printable(rest)} is not a revision: give a branch, a tag or a commit")
    return Request(known, rest if mark == "@" else None, Path(rest) if mark == ":" else None)


def in_language(request: Request, lang: str) -> Request:
    """The request for the set's prompts in another language (BCP 47, such as ``fr``).

    Raises `UsageError` where the set is not published in it.
    """
    of = request.facts.variant_of or request.facts.name
    spoken = {one.lang: one for one in public_sets().values() if of in (one.name, one.variant_of)}
    if request.facts.lang == lang:
        return request
    if lang not in spoken:
        raise UsageError(
            f"{of} is not published in {printable(lang)}: it has {', '.join(sorted(spoken))}"
        )
    return replace(request, facts=spoken[lang])


def read_public(request: Request, inversion: str | None = None) -> PromptSet:
    """The prompts of a public set, with its hard lines by `inversion` (None: the set's default).

    `selection` says which files they are, at which revision, and what was left out. Raises
    `PromptSetError` where the files are not as published, `DownloadError`, `StorageError`.
    """
    facts = request.facts
    layout, files = _files(request)
    reading = Reading(facts.name, facts.title, layout)
    for file in files.values():
        read_file(file.path, reading, tuple(facts.layouts_for(request.revision)), layout)
    if request.file is not None:
        layout = reading.layout
    first = next(iter(files.values()))
    if not reading.prompts:
        raise PromptSetError(f"{facts.name}: {printable(first.path.name)} holds no prompts")
    dataset: dict[str, Any] = {
        "set": facts.name,
        "repository": f"{'hub' if layout.hub else 'github'}:{layout.repository}",
        "revision": "local" if request.file is not None else first.commit,
        "files": {name: f"sha256:{file.sha256}" for name, file in files.items()},
    }
    if layout.prompts is not None and layout.prompts != len(reading.prompts):
        dataset["expected_prompts"] = layout.prompts
        dataset["prompts_read"] = len(reading.prompts)
    if facts.refuse_all:
        dataset["refuse_all"] = True
    if reading.left_out:
        dataset["left_out"] = dict(reading.left_out)
    at = f":{request.file.resolve()}" if request.file is not None else f"@{first.commit}"
    prompts = PromptSet(
        name=facts.name,
        version="local" if request.file is not None else first.commit[:12],
        categories=tuple(Category(slug, title) for slug, title in reading.titles.items()),
        prompts=tuple(reading.prompts),
        licence=facts.licence,
        description=f"{facts.title}: {facts.description} {facts.citation}.",
        source=facts.name + at,
        selection={"dataset": dataset},
    )
    return invert(prompts, facts, inversion)


def notices(selection: Mapping[str, Any], n_prompts: int, *, has_hard_lines: bool) -> list[str]:
    """What a reader should know of the public sets in a prompt set, a sentence each.

    `selection` is that of the `PromptSet`, or of a run's manifest; `n_prompts` how many it has.
    """
    found = []
    parts = selection.get("sets")
    one_of_many = isinstance(parts, Mapping)
    for part in parts.values() if isinstance(parts, Mapping) else [selection]:
        dataset = part.get("dataset") if isinstance(part, Mapping) else None
        if not isinstance(dataset, Mapping):
            continue
        name = printable(dataset.get("set"))
        read = dataset.get("prompts") if one_of_many else dataset.get("prompts_read", n_prompts)
        expected = dataset.get("expected_prompts")
        if isinstance(expected, int) and isinstance(read, int) and read != expected:
            few = "fewer" if read < expected else "more"
            found.append(
                f"{name}: this copy has {read} prompts, {few} than the {expected} published"
            )
        if dataset.get("refuse_all") is True and not has_hard_lines:
            found.append(
                f"{name}: every request of this set should be refused, so willingness is the share "
                "of harmful requests that were answered; --hard-line all scores refusals as right"
            )
        inverted = part.get("inversion")
        if isinstance(inverted, Mapping) and inverted.get("none_there") is True:
            found.append(f"{name}: this copy has none of the set's hard-line categories")
    return found


def invert(prompts: PromptSet, facts: PublicSet, inversion: str | None) -> PromptSet:
    """The set with the hard lines of one of its inversion lists.

    None takes the first list, or the set's own hard lines; ``none`` takes no hard lines. Raises
    `UsageError` where the list is unknown, or where none of its categories is in the set and the
    set's own categories are not known well enough to say that this is a part of it.
    """
    lists = dict(facts.inversions)
    if facts.hard_lines:
        lists["default"] = [
            Inverted(name=name, also=[facts.titles[name]] if name in facts.titles else [])
            for name in facts.hard_lines
        ]
    by_default = inversion is None
    if inversion is None:
        inversion = next(iter(lists), "none")
    if inversion == "none":
        wanted: list[Inverted] = []
    elif inversion in lists:
        wanted = lists[inversion]
    else:
        known = ", ".join(name for name in (*lists, "none") if name != "default")
        raise UsageError(
            f"{facts.name} has no inversion list {printable(inversion)}; it has: {known}; "
            "--hard-line CATEGORY names a hard line of any set"
        )
    by_key = {same_name(category.title): category.slug for category in prompts.categories}
    found: set[str] = set()
    missing: list[str] = []
    for entry in wanted:
        names = (entry.name, *entry.also)
        slugs = {by_key[key] for name in names if (key := same_name(name)) in by_key}
        found |= slugs
        if not slugs:
            missing.append(entry.name)
    entry_of: dict[str, Any] = {"list": inversion}
    if missing:
        entry_of["not_found"] = missing
    if wanted and not found:
        # Where all categories of a set are known, this copy has only the others: the safe half of
        # XSTest, say. Where they are not known, the list may be out of date.
        if not (by_default and facts.categories and facts.hard_lines):
            names_ = "; ".join(entry.name for entry in wanted)
            have = "; ".join(printable(c.title, 60) for c in prompts.categories[:60])
            raise UsageError(
                f"the inversion list {inversion} of {facts.name} ({names_}) matches no category: "
                f"name the hard lines with --hard-line, or take --inversion none; the categories "
                f"are: {have}"
            )
        entry_of["none_there"] = True
    selection = dict(prompts.selection)
    if lists:
        selection["inversion"] = entry_of
    categories = tuple(replace(c, hard_line=c.slug in found) for c in prompts.categories)
    return replace(prompts, categories=categories, selection=selection)


def _files(request: Request) -> tuple[Layout, dict[str, Fetched]]:
    """The files of the set by name, and the layout they are expected to have."""
    facts = request.facts
    if request.file is None:
        gone: NotThere | None = None
        # At the set's own revision its own layout is there, or the set has moved.
        every = facts.layouts_for(request.revision) if request.revision is not None else [facts]
        for layout in every:
            try:
                return layout, _fetched(facts, layout, request.revision)
            except NotThere as error:
                # Another layout has other paths; the error of the first one is reported.
                gone = gone or error
        assert gone is not None
        raise gone
    path = request.file
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise PromptSetError(f"{facts.name}: {printable(path)} is not a {kinds} file")
    try:
        return facts, {path.name: Fetched(path, "local", file_sha256(path))}
    except OSError as error:
        raise PromptSetError(
            f"{facts.name}: {printable(path)} cannot be read: {error.strerror or error}"
        ) from error


def _fetched(facts: PublicSet, layout: Layout, revision: str | None) -> dict[str, Fetched]:
    place = layout.place(facts.name, layout.whole(revision))
    # Another revision has other digests.
    known = layout.sha256 if place.revision == layout.revision else []
    digests: Sequence[str | None] = known or [None] * len(layout.files)
    found: dict[str, Fetched] = {}
    for pattern, sha in zip(layout.files, digests, strict=True):
        paths = matching_files(place, pattern) if "*" in pattern else [pattern]
        found |= {path: fetch(place, path, sha) for path in paths}
    return found
