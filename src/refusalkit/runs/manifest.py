"""What a run is: the models behind its manifest.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from refusalkit.config.run_config import RunConfig
from refusalkit.errors import RunFolderError
from refusalkit.judges.kinds import JudgeKind, kind_named
from refusalkit.untrusted import printable

MANIFEST = "manifest.json"


# No run holds more: a number beyond is a mistake, or somebody's trap.
_MAX_COUNT = 10**9
_MAX_TRIALS = 1000
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CategoryEntry(_Model):
    """One category as the run saw it.

    `n_prompts` and `n_units` count what willingness rests on; `n_contrast` prompts with a twin and
    `n_framed` prompts in a framing come on top, each with every trial.
    """

    slug: str
    title: str
    hard_line: bool
    n_prompts: Count
    n_units: Count
    n_contrast: Count = 0
    n_framed: Count = 0


class FramedEntry(_Model):
    """A framed prompt: its framing, the prompt whose request it is, and its planned units."""

    framing: str
    frame_of: str
    category: str
    n_units: Count


class PartEntry(_Model):
    """One of the sets that were combined, before any filter."""

    name: str
    version: str
    digest: str
    n_prompts: Count


class PromptSetEntry(_Model):
    """Which prompts were asked. `source` None: the set was built in Python.

    `twins` names the contrast prompts among them: each one's id, and the id of the prompt that it
    stands beside, which need not have been asked. `framed` has the framed prompts by id.
    `parts` are the sets that were combined, if any. `danger` holds the danger (1 to 3) of each
    prompt that has one, by id; runs from before it was recorded have none. `languages` holds the
    language of each prompt where there are several; `translations` names the translations among
    them: the id of each, and that of the prompt it translates.
    """

    name: str
    version: str
    digest: str
    licence: str
    source: str | None
    selection: dict[str, Any]
    n_prompts: Count
    categories: tuple[CategoryEntry, ...]
    twins: dict[str, str] = {}
    framed: dict[str, FramedEntry] = {}
    parts: tuple[PartEntry, ...] = ()
    danger: dict[str, int] = {}
    languages: dict[str, str] = {}
    translations: dict[str, str] = {}


class PressureEntry(_Model):
    """The script of insistence and how many of its turns a refusal is answered with."""

    script: str
    version: str
    digest: str
    turns: int


class _JudgeFile(_Model):
    name: str
    source: str | None = None
    version: int | None = None
    digest: str | None = None
    kind: str
    model: str | None = None
    graded: bool = True

    @property
    def of_kind(self) -> JudgeKind:
        """What its kind is like."""
        return kind_named(self.kind)


class JudgePart(_JudgeFile):
    """A judge that answers under another one's id: a fallback, the judge of the hard lines."""

    id: str


class JudgeEntry(_JudgeFile):
    """A judge that worked on the run. `graded`: whether it tells a deflection from a leak.

    `source` is the shipped name or the path of its file, None for a judge given as an object.
    `members` are the ids of a council's judges, which have entries of their own; `rule` says how
    they decide. `fallback` answers where the judge was blocked, `hard_line_judge` answers for the
    hard lines; where there is one of these, `digest` covers all of them.
    """

    members: tuple[str, ...] = ()
    rule: str | None = None
    fallback: JudgePart | None = None
    hard_line_judge: JudgePart | None = None


class ShardEntry(_Model):
    """Which share of a run's prompts a run folder holds, and what the whole run is.

    `number` counts from 1, `of` shares; `prompt_set`, `n_units` and `languages` are the whole's.
    """

    number: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]
    prompt_set: PromptSetEntry
    n_units: Count
    languages: dict[str, Count] = {}


class ParameterEntry(_Model):
    """The parameters really sent, and what was left out and why.

    `reply_form` says how a judge was asked for JSON of its schema: ``json_schema``, ``json_object``
    or ``text``; None in older runs, and where no judge was asked. `system_role` is False where the
    endpoint takes no system message, so that its text was in the user's turn.
    """

    sent: dict[str, Any] = {}
    dropped: dict[str, str] = {}
    reply_form: str | None = None
    system_role: bool = True


class Session(_Model):
    """One stretch of work on a run, from start or resume to its end.

    `judge` is the id of the judge that judged the run again, None where the run's own was at work.
    """

    started_at: str
    ended_at: str | None = None
    ended_because: str | None = None
    operational: dict[str, Any] = {}
    judge: str | None = None


class Manifest(_Model):
    """What a run is. `kind`: ``run`` asked a model, ``grade`` judged recorded answers."""

    schema_version: Literal[1]
    kind: Literal["run", "grade"]
    id: str
    refusalkit: str
    python: str
    packages: dict[str, str]
    config: dict[str, Any]
    config_digest: str
    prompt_set: PromptSetEntry
    trials: Annotated[int, Field(ge=1, le=_MAX_TRIALS)]
    n_units: Count
    judge: str
    judges: dict[str, JudgeEntry]
    hard_line_text: Literal["withheld", "kept"]
    # Prompts by language (BCP 47). Empty in older runs.
    languages: dict[str, Count] = {}
    # None: refusals were taken as they came.
    pressure: PressureEntry | None = None
    # Of a share of a run; None of a whole run.
    shard: ShardEntry | None = None
    parameters: dict[str, ParameterEntry] = {}
    sessions: tuple[Session, ...] = ()

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
        """The configuration, checked. Raises `RunFolderError` if it is no longer one."""
        try:
            return RunConfig.model_validate(self.config)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(
                f"{MANIFEST}: config.{printable(field)}: {printable(first['msg'])}"
            ) from error
