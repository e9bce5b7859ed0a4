"""Several prompt sets as one, such as a set and its safe twins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refusalkit.errors import PromptSetError
from refusalkit.prompts.prompt_set import PromptSet, SetPart
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable

_MAX_SHOWN = 20


def combine(sets: Sequence[PromptSet]) -> PromptSet:
    """All prompts of several sets as one set, in their order.

    Categories with the same slug become one. Its title, and whether it is a hard line, come from
    the first set that has prompts of its own in it: contrast and framed prompts do not count.

    Raises `PromptSetError` where an id is in two sets, two sets disagree on a hard line, a twin is
    itself a contrast prompt or of another category, or a set's path has a comma.
    """
    name = "+".join(one.name for one in sets)
    mistakes = [*_clashes(sets), *_wrong_twins(sets)]
    categories: dict[str, Category] = {}
    decided: dict[str, PromptSet] = {}
    for one in sets:
        speaking = {p.category for p in one.prompts if p.twin is None and p.framing is None}
        for category in one.categories:
            slug = category.slug
            if slug not in categories or (slug in speaking and slug not in decided):
                categories[slug] = category
            elif slug in speaking and categories[slug].hard_line != category.hard_line:
                mistakes.append(
                    f"{printable(slug)}: hard_line: {printable(decided[slug].name)} and "
                    f"{printable(one.name)} disagree; name the hard lines yourself"
                )
            if slug in speaking:
                decided.setdefault(slug, one)
    if mistakes:
        shown = mistakes[:_MAX_SHOWN]
        if len(mistakes) > len(shown):
            shown.append(f"... and {len(mistakes) - len(shown)} more")
        raise PromptSetError(f"the sets {printable(name)} cannot be combined:", shown)
    sources = [one.source for one in sets]
    for source in sources:
        if source is not None and "," in source:
            raise PromptSetError(
                f"{printable(source)} has a comma in its path, so it cannot be combined with "
                "another set: rename the file or folder"
            )
    return PromptSet(
        name=name,
        version="+".join(one.version for one in sets),
        categories=tuple(categories.values()),
        prompts=tuple(prompt for one in sets for prompt in one.prompts),
        licence=" AND ".join(dict.fromkeys(one.licence for one in sets if one.licence)),
        description=f"{len(sets)} sets, combined",
        source=None if None in sources else ",".join(map(str, sources)),
        parts=tuple(SetPart(one.name, one.version, one.digest, len(one)) for one in sets),
    )


def _clashes(sets: Sequence[PromptSet]) -> Iterable[str]:
    where: dict[str, PromptSet] = {}
    for one in sets:
        for prompt in one.prompts:
            first = where.setdefault(prompt.id, one)
            if first is not one:
                yield (
                    f"{printable(prompt.id)}: id: is in {printable(first.name)} and in "
                    f"{printable(one.name)}"
                )


def _wrong_twins(sets: Sequence[PromptSet]) -> Iterable[str]:
    prompts = {prompt.id: prompt for one in sets for prompt in one.prompts}
    for prompt in prompts.values():
        what = wrong_twin(prompt, prompts.get(prompt.twin or ""))
        if what is not None:
            yield f"{printable(prompt.id)}: twin: {what}"


def wrong_twin(prompt: Prompt, twin: Prompt | None) -> str | None:
    """What is wrong between a contrast prompt and the prompt it names, None where nothing is."""
    if twin is None:
        return None
    if twin.twin is not None:
        return f"{printable(twin.id)!r} is itself a contrast prompt"
    if twin.category != prompt.category:
        return f"{printable(twin.id)!r} is of another category, {printable(twin.category)}"
    return None
