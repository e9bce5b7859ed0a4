"""Everything a run can be asked for: `RunConfig`, one field for each option.

A field's type, default, help text and place on the command line are written here, once:
`refusalkit.cli.options` makes the options of the commands from them, and the first sentence below a
field is its help. `RunOptions` and `JudgeOptions` are the same fields as keyword arguments.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from refusalkit.config.no_secrets import checked_base, checked_body, checked_variable
from refusalkit.display import notebook_table
from refusalkit.types import GenerationConfig, Reasoning, Via

Preset = Literal["paper", "atropos", "modern"]
Inversion = Literal["paper", "atropos", "none"]
CouncilRule = Literal["majority", "unanimous", "any"]
StopWhen = Literal["crossed", "held"]

DEFAULT_PROMPTS = "refusalkit-166"
AUDIT_PROMPTS = "hard-lines-180"
"""The prompt set of a run with a stop rule (``stop_when``), unless another is named."""

Batched = Literal["model", "judge", "both"]
Group = Literal["measured", "judge", "operational", "batch", "placement"]

ASKED = "What is asked"
HOW = "How the model is asked"
WHERE = "Where the model runs"
JUDGE = "The judge"
LIMITS = "Limits"
OUTPUT = "Output"
CONFIGURATION = "Configuration"
SECTIONS = (ASKED, HOW, WHERE, JUDGE, LIMITS, OUTPUT, CONFIGURATION)
"""The headings of a help page, in their order."""


@dataclass(frozen=True, slots=True)
class Cli:
    """How the command line offers a field.

    `group` decides which commands have it: ``measured`` and ``judge`` options can change a result;
    ``operational`` ones say how fast, where or with which key, and may differ when a run is
    resumed. So may those of ``batch``, which only commands that record a run's requests have. Those
    of ``placement`` are the fields of `refusalkit.config.placement.Placement`. `section` is the
    heading below which help pages list it, `metavar` the word for its value. `default` is the text
    to show where the field's own default does not say it, `flag` makes an option without a value,
    `name` is its name if that is not the field's, `bare` its value if it is given without one.

    `steers`: it says where requests go, which variable holds a key, which command is run or which
    texts are kept, so it is never taken from a file that is merely found in a folder.
    """

    group: Group
    section: str
    metavar: str | None = None
    default: str | None = None
    flag: bool = False
    name: str | None = None
    bare: str | None = None
    steers: bool = False


class Shard(NamedTuple):
    """One of `of` shares of a run's prompts: the `number`-th, from 1. As text: ``2/8``."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``. Raises `ValueError`."""
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise ValueError("must be K/N, the K-th of N shares, such as 2/8")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class RunConfig(BaseModel):
    """Everything a run was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1)]
    """The model under test, ``provider/name``."""
    preset: Annotated[Preset | None, Cli("measured", ASKED)] = None
    """Defaults that belong together; see `refusalkit presets`."""

    prompts: Annotated[str, Cli("measured", ASKED, metavar="SET")] = DEFAULT_PROMPTS
    """A set, public set, folder or file; separate several by commas."""
    hard_line: Annotated[tuple[str, ...], Cli("measured", ASKED, metavar="CATEGORY")] = ()
    """Score this category inversely (repeatable); all: every category."""
    inversion: Annotated[Inversion | None, Cli("measured", ASKED, default="paper")] = None
    """Whose list of hard lines to use for the set refusalbench."""
    lang: Annotated[str | None, Cli("measured", ASKED, metavar="TAG")] = None
    """Only prompts in this language, such as fr; public sets are read in this language."""
    category: Annotated[tuple[str, ...], Cli("measured", ASKED, metavar="SLUG")] = ()
    """Only this category (repeatable)."""
    tag: Annotated[tuple[str, ...], Cli("measured", ASKED)] = ()
    """Only prompts with this tag (repeatable)."""
    danger: Annotated[tuple[Annotated[int, Field(ge=1, le=3)], ...], Cli("measured", ASKED)] = ()
    """Only prompts of this danger level (repeatable)."""
    limit: Annotated[int | None, Field(ge=1), Cli("measured", ASKED)] = None
    """Draw this many prompts, balanced over categories."""
    limit_seed: Annotated[int, Cli("measured", ASKED)] = 0
    """Seed of the draw that --limit makes."""
    shard: Annotated[str | None, Cli("measured", ASKED, metavar="K/N")] = None
    """Only the K-th of N shares of the prompts, for `refusalkit merge`."""
    framings: Annotated[tuple[str, ...], Cli("measured", ASKED, flag=True)] = ()
    """Ask hard-line requests in four plain framings as well, for the audit."""
    order_seed: Annotated[int | None, Cli("measured", ASKED, default="the set's order")] = None
    """Ask the prompts in an order drawn with this seed, each with all its trials."""
    stop_when: Annotated[StopWhen | None, Cli("measured", ASKED)] = None
    """Ask hard lines only, until the audit is settled; --prompts defaults to hard-lines-180."""
    bound: Annotated[
        float | None, Field(gt=0, lt=100), Cli("measured", ASKED, metavar="PERCENT")
    ] = None
    """With --stop-when: the leak rate to stay below."""
    max_leaks: Annotated[int | None, Field(ge=0), Cli("measured", ASKED, default="0")] = None
    """With --stop-when: leaking responses allowed."""
    pressure: Annotated[int, Field(ge=0, le=8), Cli("measured", ASKED, metavar="N")] = 0
    """After a refusal, insist up to N times, in plain words; 8 at most."""
    trials: Annotated[int, Field(ge=1, le=1000), Cli("measured", ASKED)] = 5
    """Independent answers to each prompt."""

    temperature: Annotated[float | None, Field(ge=0, le=2), Cli("measured", HOW)] = 0.6
    """Sampling temperature."""
    top_p: Annotated[float | None, Field(gt=0, le=1), Cli("measured", HOW)] = 0.95
    """Nucleus sampling."""
    top_k: Annotated[int | None, Field(ge=1), Cli("measured", HOW)] = 20
    """Top-k sampling, where the model takes it."""
    no_temperature: Annotated[bool, Cli("measured", HOW)] = False
    """Send no temperature: the endpoint's own default applies."""
    no_top_p: Annotated[bool, Cli("measured", HOW)] = False
    """Send no top-p."""
    no_top_k: Annotated[bool, Cli("measured", HOW)] = False
    """Send no top-k."""
    max_tokens: Annotated[int, Field(ge=1), Cli("measured", HOW)] = 8192
    """Maximum tokens of an answer."""
    seed: Annotated[int | None, Cli("measured", HOW)] = None
    """Seed of trial 1; trial n sends seed + n - 1."""
    system: Annotated[str | None, Cli("measured", HOW, metavar="TEXT")] = None
    """A system prompt."""
    reasoning: Annotated[Reasoning, Cli("measured", HOW)] = "auto"
    """Whether to ask the model to reason; auto: its own default."""
    extra_body: Annotated[dict[str, Any], Cli("measured", HOW, metavar="JSON", steers=True)] = (
        Field(default_factory=dict)
    )
    """More fields for the model's request."""
    via: Annotated[Via | None, Cli("measured", HOW)] = None
    """Send the model's requests through this library."""
    api_base: Annotated[str | None, Cli("operational", HOW, metavar="URL", steers=True)] = None
    """Endpoint of the model (OpenAI protocol; for anthropic/... Anthropic's)."""
    api_key_env: Annotated[str | None, Cli("operational", HOW, metavar="NAME", steers=True)] = None
    """Environment variable with the model's key."""

    judge: Annotated[
        str | None,
        Cli("measured", JUDGE, metavar="NAME", default="graded; lexical for demo models"),
    ] = None
    """A judge or a judge file; several, separated by commas, make a council."""
    judge_model: Annotated[str | None, Cli("judge", JUDGE, metavar="ID", default="its file's")] = (
        None
    )
    """Another model for the judge, provider/name."""
    judge_temperature: Annotated[
        float | None, Field(ge=0, le=2), Cli("judge", JUDGE, default="its file's")
    ] = None
    """The judge's temperature."""
    judge_asks: Annotated[
        int | None, Field(ge=1, le=5), Cli("judge", JUDGE, default="its file's, 2")
    ] = None
    """How many times in all to ask a judge whose reply cannot be read."""
    judge_via: Annotated[Via | None, Cli("judge", JUDGE)] = None
    """Send the judge's requests through this library."""
    judge_api_base: Annotated[str | None, Cli("operational", JUDGE, metavar="URL", steers=True)] = (
        None
    )
    """Endpoint of the judge."""
    judge_api_key_env: Annotated[
        str | None, Cli("operational", JUDGE, metavar="NAME", steers=True)
    ] = None
    """Environment variable with the judge's key."""
    council: Annotated[CouncilRule | None, Cli("judge", JUDGE, default="majority")] = None
    """How several judges decide."""
    judge_fallback: Annotated[str | None, Cli("judge", JUDGE, metavar="NAME")] = None
    """A judge that labels what the judge was blocked on."""
    hard_line_judge: Annotated[str | None, Cli("judge", JUDGE, metavar="NAME")] = None
    """A judge that labels answers to hard-line prompts."""

    count_deflection: Annotated[bool, Cli("measured", JUDGE)] = False
    """Count a deflection as refused."""
    keep_hard_line_text: Annotated[bool, Cli("measured", OUTPUT, steers=True)] = False
    """Write hard-line answers to disk; they are withheld by default."""

    concurrency: Annotated[int, Field(ge=1, le=65536), Cli("operational", LIMITS)] = 32
    """Units worked on at once."""
    rpm: Annotated[float | None, Field(gt=0), Cli("operational", LIMITS)] = None
    """Maximum requests per minute to the model."""
    judge_rpm: Annotated[float | None, Field(gt=0), Cli("operational", LIMITS)] = None
    """Maximum requests per minute to the judge."""
    tpm: Annotated[float | None, Field(gt=0), Cli("operational", LIMITS)] = None
    """Maximum tokens per minute to and from the model."""
    judge_tpm: Annotated[float | None, Field(gt=0), Cli("operational", LIMITS)] = None
    """Maximum tokens per minute to and from the judge."""
    judge_concurrency: Annotated[
        int | None, Field(ge=1, le=65536), Cli("operational", LIMITS, default="--concurrency")
    ] = None
    """Maximum requests to the judge at once."""
    timeout_s: Annotated[
        float, Field(gt=0, le=86400), Cli("operational", LIMITS, name="--timeout")
    ] = 600.0
    """Seconds that one request may take."""
    max_retries: Annotated[int, Field(ge=0, le=50), Cli("operational", LIMITS)] = 5
    """Retries of one request after a fault."""
    max_wait_s: Annotated[
        float, Field(gt=0, le=86400), Cli("operational", LIMITS, name="--max-wait")
    ] = 600.0
    """Seconds that a rate limit may hold the run back at a stretch."""
    finish_word: Annotated[tuple[str, ...], Cli("operational", HOW, metavar="WORD=OUTCOME")] = ()
    """What an unknown finish word means (repeatable): answered, truncated, blocked, no_answer."""
    # Strict: a limit on money is not converted from a string or a boolean.
    max_cost: Annotated[
        float | None, Field(gt=0, strict=True), Cli("operational", LIMITS, metavar="USD")
    ] = None
    """Stop before the run costs more than this."""
    canaries: Annotated[int, Field(ge=0, le=1000), Cli("operational", JUDGE)] = 8
    """Answers with known labels that the judge is checked with."""
    batch: Annotated[
        Batched | None, Cli("batch", LIMITS, metavar="[model|judge|both]", bare="both")
    ] = None
    """Send requests in batches, at half the price and within a day: of both unless one is named."""
    wait: Annotated[bool, Cli("batch", LIMITS)] = False
    """With --batch: stay until every batch is collected."""

    @field_validator("framings", mode="before")
    @classmethod
    def _framings_by_name(cls, value: Any) -> Any:
        if not value:
            return ()
        from refusalkit.prompts.framings import shipped_framings

        known = [framing.name for framing in shipped_framings().framings]
        if value is True:
            return tuple(known)
        if isinstance(value, list | tuple):
            for name in value:
                if name not in known:
                    raise ValueError(f"{name!r} is not a framing: there are {', '.join(known)}")
            return tuple(name for name in known if name in value)
        return value

    @field_validator("finish_word")
    @classmethod
    def _finish_words_are_new(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from refusalkit.models.dialects.finish import parse_finish_word

        for word in value:
            parse_finish_word(word)
        return value

    @field_validator("api_base", "judge_api_base")
    @classmethod
    def _no_credentials_in_url(cls, value: str | None) -> str | None:
        return None if value is None else checked_base(value)

    @field_validator("api_key_env", "judge_api_key_env")
    @classmethod
    def _no_key_for_its_name(cls, value: str | None) -> str | None:
        return None if value is None else checked_variable(value)

    @field_validator("extra_body")
    @classmethod
    def _no_secret_in_body(cls, value: dict[str, Any]) -> dict[str, Any]:
        checked_body(value)
        if reserved := {"model", "messages", "stream"} & value.keys():
            raise ValueError(f"{', '.join(sorted(reserved))} cannot be set this way")
        return value

    @model_validator(mode="before")
    @classmethod
    def _set_to_audit(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("stop_when") is not None:
            return {"prompts": AUDIT_PROMPTS, **data}
        return data

    @model_validator(mode="after")
    def _stopping_makes_sense(self) -> RunConfig:
        if self.stop_when is None and (self.bound, self.max_leaks) != (None, None):
            raise ValueError(
                "bound and max_leaks say when a run may stop: give stop_when too (a finished run "
                "is compared with a bound by `refusalkit audit --bound`)"
            )
        if self.stop_when == "held" and self.bound is None:
            raise ValueError("stop_when held needs a bound: the leak rate to be shown, in percent")
        if self.stop_when is not None and self.shard is not None:
            raise ValueError("a shard cannot know what the others found: leave stop_when out")
        return self

    @field_validator("shard")
    @classmethod
    def _shard_is_one(cls, value: str | None) -> str | None:
        return value if value is None else str(Shard.parse(value))

    @property
    def order(self) -> int | None:
        """The seed of the order in which prompts are asked; None: as they are in the set."""
        return 0 if self.order_seed is None and self.stop_when is not None else self.order_seed

    @property
    def judge_name(self) -> str:
        """The judge to use: a scripted model needs no key, so its default judge needs none."""
        return self.judge or ("lexical" if self.model.startswith("demo/") else "graded")

    @property
    def generation(self) -> GenerationConfig:
        """How the model under test is asked."""
        return GenerationConfig(
            temperature=None if self.no_temperature else self.temperature,
            top_p=None if self.no_top_p else self.top_p,
            top_k=None if self.no_top_k else self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed,
            system=self.system,
            reasoning=self.reasoning,
            extra_body=self.extra_body,
            timeout_s=self.timeout_s,
        )

    @property
    def measured(self) -> dict[str, Any]:
        """The fields that can change a result, as JSON values."""
        fields = self.model_dump(mode="json", exclude=set(OPERATIONAL))
        # Options that came later are left out unless given, so that older runs keep their digest.
        late = ("inversion", "lang", "judge_temperature", "judge_asks", "council", "judge_fallback")
        for name in (
            *late,
            "hard_line_judge",
            "order_seed",
            "stop_when",
            "bound",
            "max_leaks",
            "shard",
        ):
            if fields[name] is None:
                del fields[name]
        for name in ("framings", "pressure", "no_temperature", "no_top_p", "no_top_k"):
            if not fields[name]:
                del fields[name]
        return fields

    @property
    def digest(self) -> str:
        """SHA-256 over `measured`."""
        text = json.dumps(self.measured, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Only what differs from the defaults; of system prompt and extra body only the length."""
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            if value is None or value == type(self).model_fields[name].default:
                continue
            if name in ("system", "extra_body"):
                yield f"{name}_chars", len(value if name == "system" else json.dumps(value))
            else:
                yield name, value

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), str(value)) for name, value in self.__repr_args__()]
        return notebook_table("RunConfig", ("", ""), rows)


def options_in(*groups: Group) -> dict[str, Cli]:
    """The fields of these groups, in their order, with their place on the command line."""
    return {name: place for name, place in places_of(RunConfig).items() if place.group in groups}


def places_of(model: type[BaseModel]) -> dict[str, Cli]:
    """The place of each field on the command line, for those that have one."""
    found = {}
    for name, field in model.model_fields.items():
        for place in field.metadata:
            if isinstance(place, Cli):
                found[name] = place
    return found


ENDPOINT_FIELDS = ("api_base", "api_key_env", "judge_api_base", "judge_api_key_env")
"""The fields that say where requests go and which variable holds the key."""

EVERY_GROUP: tuple[Group, ...] = ("measured", "judge", "operational", "batch")

OPTION_NAMES = {
    field: place.name or f"--{field.replace('_', '-')}"
    for field, place in options_in(*EVERY_GROUP).items()
}
"""How the command line spells each field, with its dashes."""

OPERATIONAL = frozenset(options_in("operational", "batch"))
"""Fields that say how fast, where, in batches or with which key: they may differ when a run is
resumed."""


class JudgeOptions(TypedDict, total=False):
    """Keyword arguments that choose a judge and say how to ask it: fields of `RunConfig`.

    Those of the model (`api_base`, `api_key_env`, `rpm`, `tpm`) change nothing where only a judge
    is asked.
    """

    api_base: str | None
    api_key_env: str | None
    judge_model: str | None
    judge_temperature: float | None
    judge_asks: int | None
    judge_via: Via | None
    judge_api_base: str | None
    judge_api_key_env: str | None
    council: CouncilRule | None
    judge_fallback: str | None
    hard_line_judge: str | None
    concurrency: int
    rpm: float | None
    judge_rpm: float | None
    tpm: float | None
    judge_tpm: float | None
    judge_concurrency: int | None
    timeout_s: float
    max_retries: int
    max_wait_s: float
    finish_word: Sequence[str]
    max_cost: float | None
    canaries: int


class BatchOptions(JudgeOptions, total=False):
    """`JudgeOptions`, and whether to send requests in batches: fields of `RunConfig`."""

    batch: Batched | None
    wait: bool


class RunOptions(BatchOptions, total=False):
    """Keyword arguments of a run: every field of `RunConfig` but model, prompts and judge."""

    preset: Preset | None
    hard_line: Sequence[str]
    inversion: Inversion | None
    lang: str | None
    category: Sequence[str]
    tag: Sequence[str]
    danger: Sequence[int]
    limit: int | None
    limit_seed: int
    shard: str | None
    framings: bool | Sequence[str]
    pressure: int
    order_seed: int | None
    stop_when: StopWhen | None
    bound: float | None
    max_leaks: int | None
    trials: int
    temperature: float | None
    top_p: float | None
    top_k: int | None
    no_temperature: bool
    no_top_p: bool
    no_top_k: bool
    max_tokens: int
    seed: int | None
    system: str | None
    reasoning: Reasoning
    extra_body: dict[str, Any]
    via: Via | None
    count_deflection: bool
    keep_hard_line_text: bool
