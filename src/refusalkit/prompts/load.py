"""Load prompt sets, and list the shipped ones."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from refusalkit.errors import PromptSetError, UsageError
from refusalkit.files import mode_of
from refusalkit.prompts.combine import combine
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.public import in_language, read_public, requested
from refusalkit.prompts.public_facts import public_sets
from refusalkit.prompts.set_folder import MANIFEST, read_folder
from refusalkit.prompts.tables import read_table, require_table
from refusalkit.prompts.told_apart import told_apart
from refusalkit.shipped import prompts_dir
from refusalkit.untrusted import printable


def shipped_sets() -> tuple[str, ...]:
    """Names of the prompt sets that come with refusalkit.

    Examples:
        >>> import refusalkit as rk
        >>> "refusalkit-166" in rk.shipped_sets()
        True
    """
    return tuple(sorted(p.parent.name for p in prompts_dir().glob(f"*/{MANIFEST}")))


def load_prompts(
    source: str | Path,
    *,
    hard_lines: Sequence[str] = (),
    inversion: str | None = None,
    lang: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> PromptSet:
    """Load a prompt set.

    Args:
        source: the name of a shipped set; of a public one (``xstest``, ``xstest@REVISION``, or
            ``xstest:FILE`` for a copy of yours); a folder with a `set.toml`; or a .jsonl, .csv,
            .tsv, .parquet or .xlsx file with a `prompt` (or `text`) and a `category` column.
            Several of them, separated by commas, are combined into one set (see `combine`);
            where they share ids or categories, the set's name is put before them.
        hard_lines: categories (slug or title) that are scored inversely, or ``all``. Given, they
            replace what the set itself says, and `inversion`.
        inversion: which of a public set's lists of hard lines: ``paper``, ``atropos``, ``none``.
            Default: the set's first.
        lang: a BCP 47 tag. A public set that is published in several languages is read in this
            one; of other sets the prompts in it are kept.
        columns: our columns' names in a single file, where they differ
            (``{"prompt": "Question"}``).

    Raises:
        PromptSetError: the set has mistakes; all are listed with file, line and field.
        UsageError: a hard line is not a category of the set, an inversion matches none, the set
            has nothing in that language, or an option does not apply to it.
        DownloadError: a public set is gated, moved, or out of reach.

    Examples:
        >>> import refusalkit as rk
        >>> len(rk.load_prompts("refusalkit-166"))
        166
    """
    parts = [source] if isinstance(source, Path) else _parts(source)
    # Named hard lines take the place of a list, whether that list fits or not.
    chosen = "none" if hard_lines else inversion
    sets = [_load_one(part, chosen, lang, columns) for part in parts]
    loaded = sets[0] if len(sets) == 1 else _combined(sets)
    _check_options([str(part) for part in parts if not isinstance(part, Path)], inversion, columns)
    return loaded.with_hard_lines(hard_lines) if hard_lines else loaded


def _parts(source: str) -> list[str]:
    """The sets that a source names: a comma separates them, unless it belongs to a path."""
    parts = [part.strip() for part in source.split(",")]
    if len(parts) == 1:
        return [source]
    request = requested(source)
    named = source if request is None or request.file is None else str(request.file)
    if _is_there(named):
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
    source: str | Path,
    inversion: str | None,
    lang: str | None,
    columns: Mapping[str, str] | None,
) -> PromptSet:
    if isinstance(source, Path):
        return _in_language(_read_path(source, columns), lang)
    if source in shipped_sets():
        return _in_language(read_folder(prompts_dir() / source, source), lang)
    request = requested(source)
    if request is None:
        return _in_language(_read_path(Path(source), columns), lang)
    return read_public(request if lang is None else in_language(request, lang), inversion)


def _in_language(prompts: PromptSet, lang: str | None) -> PromptSet:
    """The prompts of a set in one language, regional forms of it included."""
    if lang is None:
        return prompts
    asked = lang.casefold()
    kept = tuple(p for p in prompts if f"{p.lang}-".casefold().startswith(f"{asked}-"))
    if not kept:
        spoken = ", ".join(sorted({p.lang for p in prompts}))
        raise UsageError(
            f"{printable(prompts.name)} has no prompt in {printable(lang)}: it has {spoken}"
        )
    if len(kept) == len(prompts):
        return prompts
    filled = {prompt.category for prompt in kept}
    return replace(
        prompts,
        categories=tuple(c for c in prompts.categories if c.slug in filled),
        prompts=kept,
        selection={**prompts.selection, "lang": lang},
    )


def _combined(sets: Sequence[PromptSet]) -> PromptSet:
    """Several sets as one; what is known of the public ones among them is kept."""
    sets = told_apart(sets)
    known: dict[str, Any] = {}
    for one in sets:
        if one.selection:
            facts = dict(one.selection)
            if isinstance(dataset := facts.get("dataset"), Mapping):
                facts["dataset"] = {**dataset, "prompts": len(one)}
            known[one.name] = facts
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
        mode = mode_of(path)
        if stat.S_ISDIR(mode):
            return read_folder(path, str(path.resolve()))
        if mode:
            require_table(path)
            return read_table(path, str(path.resolve()), columns=columns)
    except OSError as error:
        raise PromptSetError(
            f"the prompt set {printable(path)} cannot be read: {error.strerror or error}"
        ) from error
    shipped = shipped_sets()
    near = difflib.get_close_matches(str(path).lower(), (*shipped, *public_sets()), n=2)
    raise PromptSetError(
        f"no prompt set {printable(path)}: neither a file or folder nor one of "
        f"{', '.join(shipped)} or a public set, such as xstest"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )
