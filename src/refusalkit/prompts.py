"""Load, list and filter prompt sets."""

from __future__ import annotations

import difflib
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from refusalkit import resources
from refusalkit.datasets.combine import combine
from refusalkit.datasets.folder import MANIFEST, read_folder
from refusalkit.datasets.public import public_sets, read_public, requested
from refusalkit.datasets.tables import read_table, require_table, slug_of
from refusalkit.errors import PromptSetError, UsageError
from refusalkit.types import Prompt, PromptSet
from refusalkit.untrusted import printable


def shipped_sets() -> tuple[str, ...]:
    """Names of the prompt sets that come with refusalkit."""
    return tuple(sorted(p.parent.name for p in resources.prompts_dir().glob(f"*/{MANIFEST}")))


def load_prompts(
    source: str | Path,
    *,
    hard_lines: Sequence[str] = (),
    inversion: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> PromptSet:
    """Load a prompt set.

    Args:
        source: the name of a shipped set; of a public one (``xstest``, ``xstest@REVISION``, or
            ``xstest:FILE`` for a copy of yours); a folder with a `set.toml`; or a .jsonl, .csv,
            .tsv, .parquet or .xlsx file with a `prompt` (or `text`) and a `category` column.
            Several of them, separated by commas, are combined into one set (see `combine`).
        hard_lines: categories (slug or title) that are scored inversely. Given, they replace
            what the set itself says, and `inversion`.
        inversion: which of a public set's lists of hard lines: ``paper``, ``atropos``, ``none``.
            Default: the set's first.
        columns: what a single file calls our columns (``{"prompt": "Question"}``).

    Raises:
        PromptSetError: the set has mistakes; all are listed with file, line and field.
        UsageError: a hard line is not a category of the set, or an inversion matches none.
        DownloadError: a public set is gated, moved, or out of reach.
    """
    parts = [source] if isinstance(source, Path) else _parts(source)
    # Named hard lines take the place of a list, whether that list fits or not.
    chosen = "none" if hard_lines else inversion
    sets = [_load_one(part, chosen, columns) for part in parts]
    loaded = sets[0] if len(sets) == 1 else _combined(sets)
    _check_options([str(part) for part in parts if not isinstance(part, Path)], inversion, columns)
    return with_hard_lines(loaded, hard_lines) if hard_lines else loaded


def select(
    prompts: PromptSet,
    *,
    categories: Collection[str] = (),
    tags: Collection[str] = (),
    danger: Collection[int] = (),
    limit: int | None = None,
    seed: int = 0,
) -> PromptSet:
    """The part of a set that passes every filter given.

    `tags` keeps a prompt that has any of them. `limit` draws at random with `seed`, taking from
    each category in turn, so that the counts of two categories differ by one at most (unless one
    runs out); framed prompts go with the prompt they frame and do not count. Order is kept.

    Where a filter drops prompts, `selection` says which, and under ``hard_lines`` how many prompts
    of its own each hard line had before. Raises `UsageError` where nothing is left.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}: it must be 1 or more")
    wanted = {_find_category(prompts, name) for name in categories}
    chosen = [
        prompt
        for prompt in prompts.prompts
        if (not wanted or prompt.category in wanted)
        and (not tags or not set(tags).isdisjoint(prompt.tags))
        and (not danger or prompt.danger in danger)
    ]
    if not chosen:
        raise UsageError(
            f"no prompt of {printable(prompts.name)} passes the filters (category, tag, danger)"
        )
    if limit is not None:
        drawn = _balanced([p for p in chosen if p.framing is None], limit, seed)
        kept_ids = {prompt.id for prompt in drawn}
        chosen = [p for p in chosen if p.id in kept_ids or p.frame_of in kept_ids]
    if len(chosen) == len(prompts.prompts):
        return prompts
    selection = {
        **prompts.selection,
        "categories": sorted(wanted),
        "tags": sorted(tags),
        "danger": sorted(danger),
        "limit": limit,
        "seed": seed,
    }
    if prompts.hard_lines:
        selection.setdefault("hard_lines", _hard_line_counts(prompts))
    kept = {prompt.category for prompt in chosen}
    return replace(
        prompts,
        categories=tuple(c for c in prompts.categories if c.slug in kept),
        prompts=tuple(chosen),
        selection=selection,
    )


def _hard_line_counts(prompts: PromptSet) -> dict[str, int]:
    counts = dict.fromkeys(sorted(prompts.hard_lines), 0)
    for prompt in prompts.prompts:
        if prompt.category in counts and prompt.twin is None and prompt.framing is None:
            counts[prompt.category] += 1
    return counts


def _balanced(prompts: Iterable[Prompt], limit: int, seed: int) -> list[Prompt]:
    rng = random.Random(seed)
    piles: dict[str, list[Prompt]] = {}
    ordered = list(prompts)
    for prompt in ordered:
        piles.setdefault(prompt.category, []).append(prompt)
    for pile in piles.values():
        rng.shuffle(pile)
    order = list(piles)
    rng.shuffle(order)
    taken: set[str] = set()
    while len(taken) < limit and any(piles.values()):
        for slug in order:
            if piles[slug] and len(taken) < limit:
                taken.add(piles[slug].pop().id)
    return [prompt for prompt in ordered if prompt.id in taken]


def _parts(source: str) -> list[str]:
    """The sets that a source names: a comma separates them, unless it belongs to a path."""
    parts = [part.strip() for part in source.split(",")]
    request = requested(source)
    named = source if request is None or request.file is None else str(request.file)
    if len(parts) == 1 or _is_there(named):
        return [source]
    if "" in parts or len(set(parts)) < len(parts):
        raise UsageError(
            f"{printable(source)} names an empty set, or one twice: separate different sets by "
            "single commas"
        )
    return parts


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _load_one(
    source: str | Path, inversion: str | None, columns: Mapping[str, str] | None
) -> PromptSet:
    if not isinstance(source, Path):
        if source in shipped_sets():
            return read_folder(resources.prompts_dir() / source, source)
        if (request := requested(source)) is not None:
            return read_public(request, inversion)
    return _read_path(Path(source), columns)


def _combined(sets: Sequence[PromptSet]) -> PromptSet:
    """Several sets as one; what is known of the public ones among them is kept."""
    known = {one.name: dict(one.selection) for one in sets if one.selection}
    inverted = [s["inversion"] for s in known.values() if "inversion" in s]
    selection = {"sets": known} if known else {}
    if inverted:
        selection["inversion"] = inverted[0]
    return replace(combine(sets), selection=selection)


def _check_options(
    parts: Sequence[str], inversion: str | None, columns: Mapping[str, str] | None
) -> None:
    public = [request.facts for part in parts if (request := requested(part)) is not None]
    if inversion is not None and not public:
        named = ", ".join(name for name, known in public_sets().items() if known.inversions)
        raise UsageError(
            f"--inversion {printable(inversion)} is for {named}: name the hard lines of another "
            "set with --hard-line"
        )
    if public and columns:
        raise UsageError(f"the columns of {public[0].name} are known: leave --column out")


def _read_path(path: Path, columns: Mapping[str, str] | None = None) -> PromptSet:
    try:
        if path.is_dir():
            return read_folder(path, str(path.resolve()))
        if path.exists():
            require_table(path)
            return read_table(path, str(path.resolve()), columns=columns)
    except OSError as error:
        raise PromptSetError(
            f"the prompt set {printable(path)} cannot be read: {error.strerror or error}"
        ) from error
    known = ", ".join((*shipped_sets(), *public_sets()))
    raise PromptSetError(
        f"no prompt set {printable(path)}: neither a file or folder nor one of {known}"
    )


def with_hard_lines(prompts: PromptSet, names: Sequence[str]) -> PromptSet:
    """The set with these categories (slugs or titles) as its hard lines, and no others."""
    slugs = {_find_category(prompts, name) for name in names}
    categories = tuple(replace(c, hard_line=c.slug in slugs) for c in prompts.categories)
    selection = {name: value for name, value in prompts.selection.items() if name != "inversion"}
    return replace(prompts, categories=categories, selection=selection)


def _find_category(prompts: PromptSet, name: str) -> str:
    """The slug of a category given by slug or title."""
    slugs = [category.slug for category in prompts.categories]
    slug = slug_of(name)
    if name in slugs:
        return name
    if slug in slugs:
        return slug
    for category in prompts.categories:
        if category.title.casefold() == name.casefold():
            return category.slug
    near = difflib.get_close_matches(slug, slugs, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(slugs[:40])}"
    raise UsageError(f"{printable(prompts.name)} has no category {printable(name)}; {hint}")
