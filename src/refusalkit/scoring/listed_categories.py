"""Which categories have figures of their own, in a run of very many.

A figure takes milliseconds. A set has some dozens of categories; with 100,000 a report would take
minutes, and nobody would read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from refusalkit.runs.manifest import CategoryEntry, Manifest

MAX_CATEGORIES = 1000
"""The most categories, and the most hard lines of an audit, with figures of their own."""

MAX_LANGUAGES = 100
"""The most languages with figures of their own."""

MAX_TAGS = 1000
"""The most tags with figures of their own."""


def listed(entries: Sequence[CategoryEntry], leaking: Collection[str] = ()) -> list[CategoryEntry]:
    """Ordinary categories, then hard lines, in the set's order.

    Of more than `MAX_CATEGORIES`, those that leak are kept first, then hard lines, then those with
    the most units.
    """
    chosen = list(entries)
    if len(chosen) > MAX_CATEGORIES:
        places = {id(entry): place for place, entry in enumerate(entries)}
        wanted = frozenset(leaking)
        chosen.sort(key=lambda one: (one.slug not in wanted, not one.hard_line, -one.n_units))
        chosen = sorted(chosen[:MAX_CATEGORIES], key=lambda one: places[id(one)])
    return sorted(chosen, key=lambda one: one.hard_line)


def listed_note(manifest: Manifest) -> str | None:
    """A note where some categories or languages have no figures of their own, else None."""
    counts = {
        "categories": (len(manifest.prompt_set.categories), MAX_CATEGORIES),
        "languages": (len(set(manifest.prompt_set.languages.values())), MAX_LANGUAGES),
    }
    said = [
        f"of {n:,} {what} the {most:,} largest have figures of their own"
        for what, (n, most) in counts.items()
        if n > most
    ]
    return f"There are very many: {', '.join(said)}; all other figures cover all" if said else None
