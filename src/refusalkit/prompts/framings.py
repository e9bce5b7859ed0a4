"""Hard-line requests asked in other ways: a prompt set derived from another.

A *framed* prompt is the request of a bare prompt with a neutral sentence around it, or insisted on
after a first refusal (`framings.toml`). It accompanies the bare prompt as a contrast prompt does:
it enters no score, and the audit shows each framing by itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from refusalkit.display import shows
from refusalkit.errors import PromptSetError, UsageError
from refusalkit.prompts.prompt_set import PromptSet, SetPart
from refusalkit.types import Message, Prompt
from refusalkit.untrusted import printable

_FILE = Path(__file__).with_name("framings.toml")


@shows("name")
@dataclass(frozen=True, slots=True)
class Framing:
    """One way of asking: a sentence before the request, or a refusal and the user's insistence."""

    name: str
    title: str
    before: str | None = None
    refusal: str | None = None
    insists: str | None = None

    def turns(self, turns: Sequence[Message]) -> tuple[Message, ...]:
        """A conversation in this framing; its last turn is the user's, as it was."""
        *earlier, last = turns
        if self.before is not None:
            last = Message("user", f"{self.before}\n\n{last.content}")
        after: tuple[Message, ...] = ()
        if self.refusal is not None and self.insists is not None:
            after = (Message("assistant", self.refusal), Message("user", self.insists))
        return (*earlier, last, *after)


@dataclass(frozen=True, slots=True)
class Framings:
    """The framings that come with refusalkit, versioned together."""

    name: str
    version: str
    framings: tuple[Framing, ...]

    def named(self, names: Collection[str] | None) -> tuple[Framing, ...]:
        """The framings with these names, all where None. Raises `UsageError` for another name."""
        known = {framing.name: framing for framing in self.framings}
        for name in names or ():
            if name not in known:
                raise UsageError(f"no framing {printable(name)}: there are {', '.join(known)}")
        return (
            self.framings if names is None else tuple(f for f in self.framings if f.name in names)
        )


@cache
def shipped_framings() -> Framings:
    """The framings of `framings.toml`."""
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return Framings(
        data["name"], data["version"], tuple(Framing(**entry) for entry in data["framings"])
    )


def framed_id(prompt_id: str, framing: str) -> str:
    """The id of a framed prompt: ``<id>+<framing>``."""
    return f"{prompt_id}+{framing}"


def with_framings(prompts: PromptSet, names: Collection[str] | None = None) -> PromptSet:
    """A set with its hard-line requests in each framing beside the bare ones.

    The id of a framed prompt is ``<id>+<framing>``; category, system message, danger, tags and
    language are the bare prompt's (the sentences of a framing are English). Contrast prompts are
    not framed, nor is a prompt in a framing that it names as `unframed`: some requests may be
    answered in a class, or in a story. A filter takes framed prompts along with the prompt they
    frame.

    Args:
        prompts: the set.
        names: only these framings: ``fiction``, ``professional``, ``class``, ``insistence``.

    Returns:
        A set with a name, version and digest of its own, whose `parts` are what it was made from.

    Raises:
        UsageError: there is nothing to frame, the set has framings already, or a framing is
            unknown.
        PromptSetError: an `unframed` names an unknown framing, or a prompt has an id that a framing
            would take.

    Examples:
        >>> import refusalkit as rk
        >>> prompts = rk.load_prompts("starter")
        >>> len(rk.with_framings(prompts, ["fiction"])) > len(prompts)
        True
    """
    known = shipped_framings()
    chosen = known.named(names)
    if prompts.framed:
        raise UsageError(f"{printable(prompts.name)} has framings already")
    bare = [p for p in prompts.prompts if p.twin is None and p.category in prompts.hard_lines]
    for prompt in bare:
        if (wrong := unknown_framing(prompt)) is not None:
            raise PromptSetError(f"{printable(prompt.id)}: unframed: {wrong}")
    framed = tuple(
        _framed(prompt, framing)
        for framing in chosen
        for prompt in bare
        if framing.name not in prompt.unframed
    )
    if not framed:
        raise UsageError(
            f"{printable(prompts.name)} has no hard-line prompt to frame: name its hard lines with "
            "--hard-line, or leave --framings out"
        )
    taken = {prompt.id for prompt in prompts.prompts}
    if clash := next((prompt.id for prompt in framed if prompt.id in taken), None):
        raise PromptSetError(
            f"{printable(prompts.name)} has a prompt {printable(clash)}, which is the id that a "
            "framing would take: rename it"
        )
    derived = replace(
        prompts,
        name=known.name,
        version=known.version,
        categories=tuple(c for c in prompts.categories if c.hard_line),
        prompts=framed,
        parts=(),
    )
    # They have no file: a run that is resumed derives them again from `source` and `framings`.
    return replace(
        prompts,
        name=f"{prompts.name}+{known.name}",
        version=f"{prompts.version}+{known.version}",
        prompts=(*prompts.prompts, *framed),
        source=None,
        selection={**prompts.selection, "framings": [framing.name for framing in chosen]},
        parts=(*(prompts.parts or (part_of(prompts),)), part_of(derived)),
    )


def part_of(prompts: PromptSet) -> SetPart:
    """A set as the part of another."""
    return SetPart(prompts.name, prompts.version, prompts.digest, len(prompts))


def unknown_framing(prompt: Prompt) -> str | None:
    """What is wrong with the framings in which a prompt is not asked, None where nothing is."""
    known = [framing.name for framing in shipped_framings().framings]
    wrong = next((name for name in prompt.unframed if name not in known), None)
    return None if wrong is None else f"no framing {wrong!r}: there are {', '.join(known)}"


def wrong_frame(prompt: Prompt, bare: Prompt | None) -> str | None:
    """What is wrong between a framed prompt and the prompt it names, None where nothing is."""
    if bare is None:
        return None
    if bare.framing is not None or bare.twin is not None:
        return f"{printable(bare.id)!r} is itself a framed or a contrast prompt"
    if bare.category != prompt.category:
        return f"{printable(bare.id)!r} is of another category, {printable(bare.category)}"
    return None


def _framed(prompt: Prompt, framing: Framing) -> Prompt:
    turns = framing.turns(prompt.turns)
    return replace(
        prompt,
        id=framed_id(prompt.id, framing.name),
        text=turns[-1].content,
        messages=turns if len(turns) > 1 else (),
        framing=framing.name,
        frame_of=prompt.id,
        unframed=(),
    )
