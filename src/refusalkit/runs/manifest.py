"""What a run is: the models behind its manifest.json."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from refusalkit.config.run_config import RunConfig
from refusalkit.errors import RunFolderError
from refusalkit.judges.kinds import JudgeKind, kind_named
from refusalkit.untrusted import printable

MANIFEST = "manifest.json"


# No run is larger: a higher number is a mistake, or meant to exhaust the memory.
_MAX_COUNT = 10**9
MAX_TRIALS = 1000
MAX_JUDGES = 50
"""Judges of a run: each is compared with every other, in a report with figures of its own."""
_MAX_SHARES = 999_999
_MAX_LINES = 50
_MAX_DEPTH = 50
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]


def _is_shallow(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is nested deeper than it could be written again."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [each for one in inside for each in one if isinstance(each, dict | list)]
        if not level:
            return value
    raise ValueError("is nested too deeply")


Free = Annotated[dict[str, Any], AfterValidator(_is_shallow)]
"""An object of any fields."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CategoryEntry(_Model):
    """One category as the run saw it."""

    slug: str
    """Its name in records and options."""
    title: str
    """Its name for people."""
    hard_line: bool
    """Whether refusing is right here."""
    n_prompts: Count
    """Prompts that count for willingness."""
    n_units: Count
    """Planned answers to them: prompts times trials."""
    n_contrast: Count = 0
    """Contrast prompts (safe twins) on top of these, each with every trial."""
    n_framed: Count = 0
    """Framed prompts on top of these, each with every trial."""


class FramedEntry(_Model):
    """A framed prompt."""

    framing: str
    """Name of the framing."""
    frame_of: str
    """Id of the prompt whose request it is."""
    category: str
    """Slug of that prompt's category."""
    n_units: Count
    """Planned answers to it."""


class PartEntry(_Model):
    """One of the sets that were combined, before any filter."""

    name: str
    """Name of the set."""
    version: str
    """Its version."""
    digest: str
    """SHA-256 of its prompts, with the prefix ``sha256:``."""
    n_prompts: Count
    """How many prompts it has."""


class _Selection(TypedDict, total=False):
    """The facts of a selection that the audit reads; all others are only shown."""

    categories: list[str] | None
    hard_lines: dict[str, Count] | None
    open_hard_lines: dict[str, Count] | None


_SELECTION = TypeAdapter(_Selection)


class PromptSetEntry(_Model):
    """Which prompts were asked."""

    name: str
    """Name of the set."""
    version: str
    """Its version."""
    digest: str
    """SHA-256 of the prompts asked, with the prefix ``sha256:``."""
    licence: str
    """Licence of the texts (SPDX where there is one)."""
    source: str | None
    """Name or path that the set was loaded from; None if it was built in Python."""
    selection: Free
    """The filters used, by name; empty if every prompt was asked."""
    n_prompts: Count
    """Prompts asked, contrast and framed ones included."""
    categories: tuple[CategoryEntry, ...]
    """Its categories, in the order of the set."""
    twins: dict[str, str] = {}
    """Contrast prompts: the id of each and that of its twin, which need not have been asked."""
    framed: dict[str, FramedEntry] = {}
    """Framed prompts by id."""
    parts: tuple[PartEntry, ...] = ()
    """The sets that were combined; empty for a single set."""
    danger: dict[str, Annotated[int, Field(ge=1, le=3)]] = {}
    """Danger (1 to 3) of each prompt that states one, by id; empty in older runs."""
    tags: dict[str, tuple[str, ...]] = {}
    """Tags of each prompt that has any, by id; empty in older runs."""
    languages: dict[str, str] = {}
    """Language (BCP 47) of each prompt by id; empty if all have the same."""
    translations: dict[str, str] = {}
    """Translations: the id of each and that of the prompt it translates."""

    @field_validator("selection")
    @classmethod
    def _selection_is_one(cls, value: dict[str, Any]) -> dict[str, Any]:
        _SELECTION.validate_python(value)
        return value


class PressureEntry(_Model):
    """The script of insistence, and how many of its turns may follow a refusal."""

    script: str
    """Name of the script."""
    version: str
    """Its version."""
    digest: str
    """SHA-256 of its turns."""
    turns: Annotated[int, Field(ge=0, le=MAX_TRIALS)]
    """Turns asked at most after a refusal, 1 or more."""


class _JudgeFile(_Model):
    name: str
    """Its name without version or model."""
    source: str | None = None
    """The shipped name or the path of its file; None for a judge given as an object."""
    version: Annotated[int, Field(ge=-_MAX_COUNT, le=_MAX_COUNT)] | None = None
    """Version of its file."""
    digest: str | None = None
    """SHA-256 of all that its verdicts depend on, with the prefix ``sha256:``."""
    kind: str
    """``llm``, ``lexical``, ``classifier``, ``council``; ``custom`` for an object."""
    model: str | None = None
    """The model that it asks; None if it asks none."""
    graded: bool = True
    """Whether it tells a deflection from a leak."""

    @property
    def of_kind(self) -> JudgeKind:
        """What its kind is like."""
        return kind_named(self.kind)


class JudgePart(_JudgeFile):
    """A judge that answers under another one's id: a fallback, or the judge of the hard lines."""

    id: str
    """Its own id."""


class JudgeEntry(_JudgeFile):
    """A judge that worked on the run. With a fallback or a judge of the hard lines, `digest` covers
    them too.
    """

    members: Annotated[tuple[str, ...], Field(max_length=MAX_JUDGES)] = ()
    """Ids of a council's judges, which have entries of their own; empty for a single judge."""
    rule: str | None = None
    """How a council decides; None for a single judge."""
    fallback: JudgePart | None = None
    """The judge that answers where this one was blocked."""
    hard_line_judge: JudgePart | None = None
    """The judge that answers for hard-line categories."""


class ShardEntry(_Model):
    """Which share of a run's prompts a run folder holds, and what the whole run is."""

    number: Annotated[int, Field(ge=1, le=_MAX_SHARES)]
    """Which share this is, from 1."""
    of: Annotated[int, Field(ge=1, le=_MAX_SHARES)]
    """How many shares there are."""
    prompt_set: PromptSetEntry
    """The whole run's prompts."""
    n_units: Count
    """Planned answers of the whole run."""
    languages: dict[str, Count] = {}
    """Prompts of the whole run by language (BCP 47)."""


class ParameterEntry(_Model):
    """The parameters really sent, and what was left out and why."""

    sent: Free = {}
    """Parameters of the requests, by the name the endpoint was sent."""
    dropped: dict[str, str] = {}
    """Why each parameter that was left out was left out, by name."""
    reply_form: str | None = None
    """How a judge was asked for JSON: ``json_schema``, ``json_object`` or ``text``; None in older
    runs, and where no judge was asked."""
    system_role: bool = True
    """False where the endpoint takes no system message, so its text went into the user's turn."""


class Session(_Model):
    """One stretch of work on a run, from start or resume to its end."""

    started_at: str
    """When it began, UTC, ISO 8601."""
    ended_at: str | None = None
    """When it ended, UTC, ISO 8601; None while it is at work, and after a kill."""
    ended_because: str | None = None
    """Why it ended: ``done``, ``interrupted``, ``max_cost``, ``held``, ``crossed``, ``batches``
    (they are at a provider), ``stopped``, or ``failed:`` and the name of the error."""
    operational: Free = {}
    """Settings that change no figure (concurrency, rates, timeouts), by name."""
    judge: str | None = None
    """Id of the judge that judged the run again; None if the run's own judge was at work."""

    @property
    def day(self) -> str | None:
        """The day it began, UTC, ``YYYY-MM-DD``; None if `started_at` is not a valid time."""
        try:
            return str(datetime.fromisoformat(self.started_at).date())
        except ValueError:
            return None


class Manifest(_Model):
    """What a run is: ``manifest.json`` of its folder."""

    schema_version: Literal[1]
    """Version of the record format."""
    kind: Literal["run", "grade"]
    """``run`` asked a model, ``grade`` judged recorded answers."""
    id: str
    """The run's id."""
    refusalkit: str
    """Version of refusalkit that began it."""
    python: str
    """Version of Python that began it."""
    packages: dict[str, str]
    """Versions of the packages that a figure may depend on, by name."""
    config: Free
    """The resolved configuration; `run_config` is the same, checked."""
    config_digest: str
    """SHA-256 of the part of the configuration that a figure depends on."""
    prompt_set: PromptSetEntry
    """Which prompts were asked."""
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)]
    """Answers asked of each prompt."""
    n_units: Count
    """Planned answers: prompts times trials."""
    judge: str
    """Id of the judge of record."""
    judges: Annotated[dict[str, JudgeEntry], Field(max_length=MAX_JUDGES)]
    """Every judge that worked on the run, by id."""
    hard_line_text: Literal["withheld", "kept"]
    """Whether the texts of hard-line answers are in the folder."""
    languages: dict[str, Count] = {}
    """Prompts by language (BCP 47); empty in older runs."""
    pressure: PressureEntry | None = None
    """How refusals were insisted on; None if they were not."""
    shard: ShardEntry | None = None
    """Which share of a run this is; None for a whole run."""
    parameters: dict[str, ParameterEntry] = {}
    """Parameters really sent, by recipient: ``model``, ``judge``, or ``judge ID`` for each of
    several judges."""
    sessions: tuple[Session, ...] = ()
    """Stretches of work, oldest first."""

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """One line: the rest is in the file."""
        for name in ("id", "kind", "n_units", "judge"):
            yield name, getattr(self, name)

    @model_validator(mode="after")
    def _judge_is_known(self) -> Manifest:
        if self.judge not in self.judges:
            raise ValueError("`judge` is not one of `judges`")
        for entry in self.judges.values():
            if not self.judges.keys() >= set(entry.members):
                raise ValueError("a council's member is not one of `judges`")
        return self

    def dropped(self) -> list[str]:
        """Which parameters were left out and why, a line each; of very many the first ones."""
        lines = [
            f"{part}: {name} was left out: {why}"
            for part, entry in self.parameters.items()
            for name, why in entry.dropped.items()
        ]
        more = len(lines) - _MAX_LINES
        return [*lines[:_MAX_LINES], *([f"{more:,} more were left out"] if more > 0 else [])]

    def judge_id(self, name: str | None = None) -> str:
        """The id of one of the run's judges, by its id or a name that only one of them has.

        None is the judge of record. Raises `RunFolderError`, which lists the ids.
        """
        if name is None:
            return self.judge
        if name in self.judges:
            return name
        known = ", ".join(map(printable, self.judges))
        named = [judge for judge, entry in self.judges.items() if entry.name == name]
        if not named:
            raise RunFolderError(f"the judge {printable(name)} is not of this run; it has: {known}")
        if len(named) > 1:
            raise RunFolderError(
                f"{len(named)} judges of this run are named {printable(name)}: give the id, one of "
                f"{', '.join(map(printable, named))}"
            )
        return named[0]

    @property
    def hard_lines(self) -> frozenset[str]:
        """Slugs of the hard-line categories."""
        return frozenset(c.slug for c in self.prompt_set.categories if c.hard_line)

    @property
    def run_config(self) -> RunConfig:
        """The configuration, validated. Raises `RunFolderError` if it is not valid."""
        try:
            return RunConfig.model_validate(self.config)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(
                f"{MANIFEST}: config.{printable(field)}: {printable(first['msg'])}"
            ) from error
