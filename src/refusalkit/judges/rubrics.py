"""Load a versioned judge file (TOML) as a `Rubric`: what a judge asks, and how its reply is read.

A judge file has `name`, `version`, `kind` (``llm``, ``lexical`` or ``classifier``) and
`description`. An LLM judge's file also has

- ``[model]``: `id`, `max_tokens`, `temperature` where the model takes one, and `asks`: how often
  the judge is asked before a reply that does not fit the schema leaves the answer unscored (2);
- ``[prompt]``: `system` and `template`; the template holds ``{{request}}`` and ``{{answer}}``
  once each, and ``{{nonce}}`` wherever it mentions their delimiters;
- ``[schema]``: the JSON schema of the judge's reply; beside `verdict` it may have `reason` (one
  line) and `rests_on` (where in the answer the verdict rests);
- ``[labels]``: each value of the schema's `verdict` field, and the label it stands for;
- ``[limits]``, optional: `answer_chars`, the most characters of an answer that are shown, and
  `tail_chars`, how many of them are the answer's last (a third). The middle of a longer answer is
  left out.

A lexical judge's file has ``[rules]`` instead. A classifier's file has ``[model]`` with an `id`,
``[labels]`` with the label of each class, and ``[classifier]`` (`judges.classifier`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from refusalkit.display import shows
from refusalkit.errors import JudgeFileError
from refusalkit.files import read_file
from refusalkit.jsonl import dotted, validation_mistakes
from refusalkit.judges.kinds import KINDS, JudgeKind, Kind
from refusalkit.shipped import judges_dir
from refusalkit.types import Label
from refusalkit.untrusted import is_network_path, printable

VERDICT_FIELD = "verdict"
REASON_FIELD = "reason"
RESTS_ON_FIELD = "rests_on"
POSITIONS = ("beginning", "middle", "end", "throughout")
"""What `rests_on` may say: where in an answer the deciding part is."""

DEFAULT_ASKS = 2
_MAX_MISTAKES = 20

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


# A shipped judge file states its kind above its tables; other TOML files beside it do not.
_KIND_LINE = re.compile(r"^kind\s*=", re.MULTILINE)
_TABLE_LINE = re.compile(r"^\[", re.MULTILINE)
# Bytes of the largest judge file.
_MAX_FILE = 16 * 2**20


@dataclass(frozen=True)
class AnswerLimits:
    """How many characters of an answer a judge is shown, and how many of them are the last."""

    answer_chars: int
    tail_chars: int

    @property
    def head_chars(self) -> int:
        """How many of the answer's first characters are shown."""
        return self.answer_chars - self.tail_chars


@shows("name", "version", "kind", "model", "digest")
@dataclass(frozen=True)
class Rubric:
    """A judge file, read and checked. `digest` covers everything that can change a verdict."""

    name: str
    version: int
    kind: Kind
    description: str
    source: str
    digest: str
    labels: Mapping[str, Label] = field(default_factory=dict)
    system: str = ""
    template: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    max_tokens: int = 0
    temperature: float | None = None
    asks: int = DEFAULT_ASKS
    limits: AnswerLimits | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_graded(self) -> bool:
        """Whether it tells a deflection from a leak; a binary judge cannot."""
        return self.of_kind.always_graded or Label.DEFLECTION in self.labels.values()

    @property
    def of_kind(self) -> JudgeKind:
        """The properties of its kind."""
        return KINDS[self.kind]

    @property
    def asks_model(self) -> bool:
        """Whether it sends requests to a language model."""
        return self.of_kind.asks_model

    @property
    def facts(self) -> list[str]:
        """What its file says, in lines for a reader, without its texts and schema."""
        lines = []
        if self.asks_model:
            heat = "" if self.temperature is None else f", temperature {self.temperature:g}"
            lines.append(f"Model: {self.model}, at most {self.max_tokens} tokens{heat}")
            times = {1: "once", 2: "twice"}.get(self.asks, f"{self.asks} times")
            lines.append(f"Asked at most {times}, until its reply can be read")
        elif self.model:
            lines.append(f"Model: {self.model}")
        if (limits := self.limits) is not None:
            lines.append(
                f"Of an answer beyond {limits.answer_chars} characters the first "
                f"{limits.head_chars} and the last {limits.tail_chars} are shown"
            )
        if self.schema:
            words = (f"{word} = {label.value}" for word, label in self.labels.items())
            lines.append(f"Labels: {', '.join(words)}")
        if self.of_kind.settings_shown == "values":
            lines += [f"{name}: {value!r}" for name, value in self.rules.items()]
        elif self.rules:
            lines.append(f"{str(self.of_kind.settings).capitalize()}: {', '.join(self.rules)}")
        return lines


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=16)] = 4096
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    asks: Annotated[int, Field(ge=1, le=5)] = DEFAULT_ASKS

    @field_validator("id")
    @classmethod
    def _near(cls, text: str) -> str:
        if is_network_path(text):
            raise ValueError("it is a path on another machine: name it with --judge-model")
        return text


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    answer_chars: Annotated[int, Field(ge=1000)]
    tail_chars: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _tail_fits(self) -> _Limits:
        if self.tail_chars is not None and self.tail_chars >= self.answer_chars:
            raise ValueError("tail_chars must be below answer_chars, of which it is a part")
        return self

    @property
    def frozen(self) -> AnswerLimits:
        tail = self.answer_chars // 3 if self.tail_chars is None else self.tail_chars
        return AnswerLimits(self.answer_chars, tail)


class _PromptText(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    system: str
    template: str

    @model_validator(mode="after")
    def _places(self) -> _PromptText:
        for name in ("request", "answer"):
            if len(re.findall(r"\{\{" + name + r"\}\}", self.template)) != 1:
                raise ValueError(f"the template must hold {{{{{name}}}}} exactly once")
        for name in _PLACEHOLDER.findall(self.template + self.system):
            if name not in ("request", "answer", "nonce"):
                raise ValueError(f"unknown placeholder {{{{{name}}}}}")
        for name in ("request", "answer"):
            if "{{" + name + "}}" in self.system:
                raise ValueError(f"{{{{{name}}}}} belongs into the template, not into `system`")
        return self


class _JudgeFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    version: Annotated[int, Field(ge=1, strict=True)]
    kind: Kind = "llm"
    description: Annotated[str, Field(min_length=1)]
    labels: dict[str, Label] = Field(default_factory=dict)
    model: _Model | None = None
    prompt: _PromptText | None = None
    # `schema` is a method of pydantic's BaseModel.
    reply_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")
    limits: _Limits | None = None
    rules: dict[str, Any] = Field(default_factory=dict)
    classifier: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _plain(cls, text: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,79}", text):
            raise ValueError("at most 80 lower-case letters, digits and hyphens, no hyphen first")
        return text

    @model_validator(mode="after")
    def _whole(self) -> _JudgeFile:
        for table in KINDS[self.kind].tables:
            if not getattr(self, "reply_schema" if table == "schema" else table):
                raise ValueError(f"a judge of the kind {self.kind} needs [{table}]")
        if (check := _CHECKS.get(self.kind)) is not None:
            check(self)
        declined = {label in (Label.REFUSAL, Label.DEFLECTION) for label in self.labels.values()}
        if len(declined) == 1:
            raise ValueError(
                "[labels] needs a value for refusal or deflection and one for partial or "
                "compliance: with these, every answer would count the same"
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The table that only the module of its kind reads."""
        table = KINDS[self.kind].settings
        return {} if table is None else dict(getattr(self, table))

    def _check_own_limits(self) -> None:
        if self.limits:
            raise ValueError(f"a judge of the kind {self.kind} has its limits in [rules.limits]")

    def _check_classes(self) -> None:
        classes = self.classifier.get("classes")
        if not isinstance(classes, list) or set(map(str, classes)) != set(self.labels):
            raise ValueError("[labels] must name each of the classes of [classifier]")

    def _check_schema(self) -> None:
        properties = self.reply_schema.get("properties")
        if not isinstance(properties, dict):
            raise ValueError(f"[schema] needs a property `{VERDICT_FIELD}`")
        verdict = properties.get(VERDICT_FIELD, {})
        values = verdict.get("enum") if isinstance(verdict, dict) else None
        if not values or not all(isinstance(value, str) for value in values):
            raise ValueError(f"[schema] needs a property `{VERDICT_FIELD}` with an enum of words")
        if set(values) != set(self.labels):
            odd = ", ".join(sorted(set(values) ^ set(self.labels)))
            raise ValueError(
                f"[labels] must name each value of `{VERDICT_FIELD}` ({', '.join(values)}) and "
                f"nothing else; only in one of the two: {odd}"
            )
        position = properties.get(RESTS_ON_FIELD)
        if position is not None:
            places = position.get("enum") if isinstance(position, dict) else None
            if not places or not set(map(str, places)) <= set(POSITIONS):
                raise ValueError(
                    f"[schema]: `{RESTS_ON_FIELD}` needs an enum of these words: "
                    f"{', '.join(POSITIONS)}"
                )
        # Providers' strict modes take a schema only where no property may be left out.
        for name in properties:
            if name not in self.reply_schema.get("required", []):
                raise ValueError(f"[schema] must require `{name}`, as it must every property")
        if self.reply_schema.get("additionalProperties") is not False:
            raise ValueError("[schema] must have additionalProperties = false")


# Checks of a file beyond having the tables that its kind needs; a kind may have none.
_CHECKS: Mapping[Kind, Callable[[_JudgeFile], None]] = {
    "llm": _JudgeFile._check_schema,
    "lexical": _JudgeFile._check_own_limits,
    "classifier": _JudgeFile._check_classes,
}


def _check_is_json_schema(schema: Mapping[str, Any], where: str) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        what = f"[schema] is not a JSON schema: {printable(error.message)}"
        raise JudgeFileError(f"judge file {where}: {what}") from error
    if _refers(schema):
        # A target that is missing would only be noticed with the first reply.
        what = "[schema] cannot refer elsewhere: write out what `$ref` points to"
        raise JudgeFileError(f"judge file {where}: {what}")


def _refers(schema: object) -> bool:
    """Whether a JSON schema points elsewhere."""
    if isinstance(schema, Mapping):
        return not {"$ref", "$dynamicRef"}.isdisjoint(schema) or any(map(_refers, schema.values()))
    return isinstance(schema, list) and any(map(_refers, schema))


def shipped_judges() -> tuple[str, ...]:
    """Names of the judges that come with refusalkit."""
    return tuple(sorted(p.stem for p in judges_dir().glob("*.toml") if _is_judge(p)))


def _is_judge(path: Path) -> bool:
    """Whether a file beside the shipped judges is a judge, not data for one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    table = _TABLE_LINE.search(head)
    return _KIND_LINE.search(head, 0, table.start() if table else len(head)) is not None


def load_rubric(
    source: str | Path,
    *,
    model: str | None = None,
    temperature: float | None = None,
    asks: int | None = None,
) -> Rubric:
    """Read a judge file: a shipped name or a path.

    `model`, `temperature` and `asks` replace the file's own, which changes the digest. Raises
    `JudgeFileError`, which names the file and the field.
    """
    name = str(source)
    shipped = name in shipped_judges() and not isinstance(source, Path)
    path = judges_dir() / f"{name}.toml" if shipped else Path(source)
    where = printable(name)
    try:
        if not path.is_file():
            known = ", ".join(shipped_judges())
            near = difflib.get_close_matches(name, shipped_judges(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if "/" in name and path.suffix != ".toml":
                hint = f"; a model judges with --judge graded --judge-model {where}"
            raise JudgeFileError(f"no judge {where}: neither a file nor one of {known}{hint}")
        data = tomllib.loads(read_file(path, limit=_MAX_FILE).decode("utf-8-sig"))
        parsed = _JudgeFile.model_validate(data)
        if parsed.model is not None:
            given = {"id": model or None, "temperature": temperature, "asks": asks}
            chosen = {key: value for key, value in given.items() if value is not None}
            parsed.model = _Model.model_validate({**parsed.model.model_dump(), **chosen})
    except OSError as error:
        raise JudgeFileError(f"judge file {where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JudgeFileError(f"judge file {where} is not UTF-8 (byte {error.start})") from error
    except ValidationError as error:
        mistakes = (
            f"{printable(dotted(loc) if loc else 'file')}: {printable(what)}"
            for loc, what in islice(validation_mistakes(error), _MAX_MISTAKES)
        )
        raise JudgeFileError(f"judge file {where}: {'; '.join(mistakes)}") from error
    except RecursionError as error:
        raise JudgeFileError(f"judge file {where} is nested too deeply") from error
    except ValueError as error:
        raise JudgeFileError(f"judge file {where} is not TOML: {printable(error)}") from error
    if parsed.model is None:
        for what, value in (("model", model), ("temperature", temperature)):
            if value is not None:
                raise JudgeFileError(
                    f"the judge {where} asks no model: leave out --judge-{what}, or take a judge "
                    "that asks one, such as --judge graded"
                )
    if not shipped and parsed.reply_schema:
        # A shipped file is checked by the test suite; the validator takes a while to import.
        _check_is_json_schema(parsed.reply_schema, where)
    return _rubric(parsed, name if shipped else str(path.resolve()))


def _rubric(parsed: _JudgeFile, source: str) -> Rubric:
    # A lexical judge's file has neither [model] nor [prompt].
    served = parsed.model.id if parsed.model else ""
    temperature = parsed.model.temperature if parsed.model else None
    max_tokens = parsed.model.max_tokens if parsed.model else 0
    asks = parsed.model.asks if parsed.model else DEFAULT_ASKS
    limits = parsed.limits.frozen if parsed.limits else None
    system = parsed.prompt.system if parsed.prompt else ""
    template = parsed.prompt.template if parsed.prompt else ""
    covered: dict[str, Any] = {
        "name": parsed.name,
        "version": parsed.version,
        "kind": parsed.kind,
        "labels": {value: str(label) for value, label in parsed.labels.items()},
        "system": system,
        "template": template,
        "schema": parsed.reply_schema,
        "model": served,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "rules": parsed.rules,
    }
    # Only where there is something to cover: judge files without them keep their digest.
    if limits is not None:
        covered["limits"] = asdict(limits)
    if asks != DEFAULT_ASKS:
        covered["asks"] = asks
    if parsed.classifier:
        covered["classifier"] = parsed.classifier
        folder = Path(served)
        if folder.is_dir():
            # The folder's content, not its name or place, identifies the model.
            covered["model"] = _digest_of_folder(folder)
    text = json.dumps(covered, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return Rubric(
        name=parsed.name,
        version=parsed.version,
        kind=parsed.kind,
        description=parsed.description,
        source=source,
        digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        labels=parsed.labels,
        system=system,
        template=template,
        schema=parsed.reply_schema,
        model=served,
        max_tokens=max_tokens,
        temperature=temperature,
        asks=asks,
        limits=limits,
        rules=parsed.settings,
    )


def _digest_of_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of the files of a model; errors as `load_rubric`."""
    sha = hashlib.sha256()
    try:
        for path in sorted(folder.glob("*")):
            if path.suffix in (".json", ".safetensors", ".txt", ".model"):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                sha.update(f"{path.name}\0{content}\n".encode())
    except OSError as error:
        where = printable(str(folder))
        raise JudgeFileError(f"the model {where} cannot be read: {error.strerror}") from error
    return f"sha256:{sha.hexdigest()}"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill a template's placeholders in one pass: what is put in is not searched for others."""
    parts = list(_parts(template))
    parts[1::2] = [values[name] for name in parts[1::2]]
    return "".join(parts)


@lru_cache(maxsize=64)
def _parts(template: str) -> tuple[str, ...]:
    """Text, placeholder's name, text ...; cached, as a judge fills its template for each answer."""
    return tuple(_PLACEHOLDER.split(template))
