"""Categories by slug or title."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from refusalkit.errors import UsageError
from refusalkit.types import Category
from refusalkit.untrusted import printable


def slug_of(title: str) -> str:
    """A category's slug: ``Privacy & Data`` becomes ``privacy-data``."""
    plain = unicodedata.normalize("NFKC", title).casefold()
    slug = re.sub(r"[^\w]+", "-", plain).strip("-_")[:80]
    return slug or "unnamed"


def find_category(categories: Sequence[Category], name: str, set_name: str) -> str:
    """The slug of the category that `name` gives by slug or title.

    Raises `UsageError`, which lists the categories of `set_name`, where there is none.
    """
    slugs = [category.slug for category in categories]
    slug = slug_of(name)
    if name in slugs:
        return name
    if slug in slugs:
        return slug
    for category in categories:
        if category.title.casefold() == name.casefold():
            return category.slug
    near = difflib.get_close_matches(slug, slugs, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(slugs[:40])}"
    raise UsageError(f"{printable(set_name)} has no category {printable(name)}; {hint}")
