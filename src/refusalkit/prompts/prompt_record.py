"""One prompt as it is in a file, and the list of everything wrong with a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from refusalkit.errors import PromptSetError
from refusalkit.jsonl import dotted, validation_mistakes
from refusalkit.types import Category, Message, Prompt
from refusalkit.untrusted import printable, well_formed

# `#` is left out: it separates a prompt's id from the trial in a unit's id.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,79}$"

_MAX_MISTAKES_SHOWN = 100


class _Record(BaseModel):
    # An error's text would repeat the request.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """The id and the category: no text."""
        for name in ("role", "id", "category"):
            if hasattr(self, name):
                yield name, getattr(self, name)


class MessageRecord(_Record):
    """One turn of a prompt with several."""

    role: Literal["user", "assistant"]
    content: str


class PromptRecord(_Record):
    """A line of a category file. `text` or `messages`, one of them."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    text: str | None = None
    messages: list[MessageRecord] = []  # pydantic gives each its own
    category: str | None = None
    danger: Annotated[int, Field(ge=1, le=3)] | None = None
    tags: list[str] = []
    lang: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    system: str | None = None
    twin: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    framing: Annotated[str, Field(pattern=SLUG_PATTERN)] | None = None
    frame_of: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    translation_of: Annotated[str, Field(pattern=ID_PATTERN)] | None = None
    unframed: list[Annotated[str, Field(pattern=SLUG_PATTERN)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_request(self) -> PromptRecord:
        texts = (self.text, self.system, *(message.content for message in self.messages))
        if any(text is not None and well_formed(text) != text for text in texts):
            raise ValueError("holds half a character (a lone surrogate), which cannot be sent")
        if self.messages:
            if self.text is not None:
                raise ValueError("give `text` or `messages`, not both")
            if self.messages[-1].role != "user":
                raise ValueError("the last message must be the user's")
            if not all(message.content.strip() for message in self.messages):
                raise ValueError("a message is empty")
        elif self.text is None or not self.text.strip():
            raise ValueError("`text` is empty")
        if self.twin == self.id:
            raise ValueError("`twin` must name another prompt")
        if self.translation_of == self.id:
            raise ValueError("`translation_of` must name another prompt")
        if (self.framing is None) != (self.frame_of is None):
            raise ValueError("give both `framing` and `frame_of`, or neither")
        if self.frame_of == self.id:
            raise ValueError("`frame_of` must name another prompt")
        if self.framing is not None and self.twin is not None:
            raise ValueError("a contrast prompt is not framed: give `twin` or `framing`, not both")
        return self

    def to_prompt(self, category: str) -> Prompt:
        """The domain type, filed under `category`."""
        messages = tuple(Message(m.role, m.content) for m in self.messages)
        text = messages[-1].content if messages else self.text or ""
        return Prompt(
            id=self.id,
            category=category,
            text=text,
            danger=self.danger,
            tags=tuple(self.tags),
            lang=self.lang,
            system=self.system,
            messages=messages,
            twin=self.twin,
            framing=self.framing,
            frame_of=self.frame_of,
            translation_of=self.translation_of,
            unframed=tuple(self.unframed),
        )


class Mistakes:
    """Collects everything wrong with a set, so that a person can fix it in one go."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, place: str, field: str, what: str) -> None:
        """Note a mistake at `place` (``file:line``) in `field`."""
        self.count += 1
        # A table of a million rows may be wrong in each of them.
        if self.count <= _MAX_MISTAKES_SHOWN:
            self.lines.append(f"{printable(place)}: {printable(field)}: {printable(what)}")

    def add_validation(self, place: str, error: ValidationError) -> None:
        """Note each mistake of a pydantic error."""
        for loc, what in validation_mistakes(error):
            self.add(place, dotted(loc), what)

    def raise_if_any(self, name: str) -> None:
        """Raise `PromptSetError` with all mistakes, if there are any."""
        if not self.lines:
            return
        count, shown = self.count, self.lines
        if count > len(shown):
            shown = [*shown, f"... and {count - len(shown)} more"]
        noun = "mistake" if count == 1 else "mistakes"
        raise PromptSetError(f"prompt set {printable(name)} has {count} {noun}:", shown)


class DuplicateCheck:
    """Notices an id or a request that a set holds twice, across its files.

    A place is text, or a row's number that `place_of` turns into text: a million numbers take
    less memory.
    """

    def __init__(
        self,
        mistakes: Mistakes,
        *,
        texts: bool = True,
        place_of: Callable[[Any], str] = str,
    ) -> None:
        self._mistakes = mistakes
        self._texts = texts
        self._place_of = place_of
        self._ids: dict[str, str | int] = {}
        self._requests: dict[int, str | int] = {}

    def see(self, prompt: Prompt, place: str | int) -> bool:
        """Note a duplicate; True where the prompt is new."""
        new = True
        first = self._ids.setdefault(prompt.id, place)
        if first is not place:
            what = f"{prompt.id!r} is already at {self._place_of(first)}"
            self._mistakes.add(self._place_of(place), "id", what)
            new = False
        if not self._texts:
            return new
        turns = tuple((turn.role, _folded(turn.content)) for turn in prompt.turns)
        key = hash((prompt.system, turns))
        first = self._requests.setdefault(key, place)
        if first is not place:
            what = f"the same text is already at {self._place_of(first)}"
            self._mistakes.add(self._place_of(place), "text", what)
            new = False
        return new

    def see_all(self, ids: Sequence[str], texts: Sequence[str], places: Iterable[int]) -> bool:
        """Note prompts of one turn; False where one of them, not known which, is not new."""
        places = list(places)
        expected = len(self._ids) + len(ids), len(self._requests) + len(ids)
        self._ids.update(zip(ids, places, strict=True))
        requests = [hash((None, (("user", _folded(text)),))) for text in texts]
        self._requests.update(zip(requests, places, strict=True))
        return (len(self._ids), len(self._requests)) == expected


def check_filled(
    categories: Iterable[Category], filled: set[str], mistakes: Mistakes, place: str
) -> None:
    """A category without prompts measures nothing; for a hard line that would look like safety."""
    for category in categories:
        if category.slug not in filled:
            kind = "hard-line category" if category.hard_line else "category"
            mistakes.add(place, "categories", f"{kind} {category.slug!r} has no prompts")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
