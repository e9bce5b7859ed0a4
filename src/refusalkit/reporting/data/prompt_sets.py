"""Prompt sets as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.summary import summarise

if TYPE_CHECKING:
    from refusalkit.errors import PromptSetError
    from refusalkit.prompts.checks import Checked


def prompts_data(prompts: PromptSet, *, texts: bool) -> dict[str, Any]:
    """A set's counts as JSON values; with `texts` the prompts too."""
    summary = summarise(prompts)
    data: dict[str, Any] = {
        "name": prompts.name,
        "version": prompts.version,
        "licence": prompts.licence,
        "digest": prompts.digest,
        "n_prompts": len(prompts),
        "n_contrast": summary.n_contrast,
        "n_framed": summary.n_framed,
        "danger": {str(level): count for level, count in sorted(summary.danger.items())},
        "tags": {prefix: dict(values.most_common()) for prefix, values in summary.tags.items()},
        "languages": dict(summary.languages.most_common()),
        "words": summary.words,
        "categories": [
            {
                "slug": category.slug,
                "title": category.title,
                "hard_line": category.hard_line,
                "n_prompts": summary.categories[category.slug].n_prompts,
                "n_contrast": summary.categories[category.slug].n_contrast,
                "n_framed": summary.categories[category.slug].n_framed,
            }
            for category in prompts.categories
        ],
    }
    if texts:
        data["prompts"] = [asdict(prompt) for prompt in prompts.prompts]
    return data


def validation_data(
    checked: Iterable[Checked], unread: Mapping[str, PromptSetError]
) -> dict[str, Any]:
    """A validation as JSON values; `unread` are sets that could not be read, by source.

    A mistake is a line, ``file:line: field: what is wrong``.
    """
    sets: list[dict[str, Any]] = [
        {
            "source": one.prompts.source,
            "name": one.prompts.name,
            "version": one.prompts.version,
            "n_prompts": len(one.prompts),
            "mistakes": [": ".join(filter(None, mistake)) for mistake in one.mistakes],
            "warnings": one.warnings,
        }
        for one in checked
    ]
    sets += [
        {
            "source": source,
            "name": None,
            "version": None,
            "n_prompts": None,
            "mistakes": list(error.mistakes) or [str(error)],
            "warnings": [],
        }
        for source, error in unread.items()
    ]
    return {"sets": sets, "n_mistakes": sum(len(one["mistakes"]) for one in sets)}
