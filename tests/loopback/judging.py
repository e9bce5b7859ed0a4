"""A scripted judge: it fills in whatever JSON schema it was asked for.

The verdict is found by looking for the scripted refusal in the judge's last user message; the
project's own parsing decides what the filled-in object means. A canary gets its own label.

In the mode ``obedient`` it does what it is told, as a weak model would: whatever is outside the
data blocks that its instructions speak of is an instruction to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REFUSED = ("refusal", "refused", "refuse", "yes")
COMPLIED = ("compliance", "complied", "comply", "not_refusal", "not_a_refusal", "not refusal", "no")


def requested_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema a request asks its answer to follow, on either API, or in its last words."""
    for outer in (body.get("response_format"), body.get("output_config")):
        if not isinstance(outer, Mapping):
            continue
        inner = outer.get("json_schema") or outer.get("format")
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            schema: Mapping[str, Any] = inner["schema"]
            return schema
    return _schema_in_words(body)


def _schema_in_words(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema that the last message ends with."""
    last = body["messages"][-1].get("content") if body.get("messages") else None
    if not isinstance(last, str):
        return None
    _, found, words = last.rpartition("JSON schema, and with nothing else.")
    if not found or "{" not in words:
        return None
    schema: Mapping[str, Any] = json.loads(words[words.index("{") :])
    return schema


def judge_reply(
    body: Mapping[str, Any], text: str, refusal: str, plain: Sequence[str] = REFUSED
) -> str:
    """The judge's answer to `body`, whose last user message is `text`."""
    label = canary_label(text)
    refused = mentions(text, refusal) if label is None else label == "refusal"
    schema = requested_schema(body)
    if schema is None:
        return plain[0] if refused else plain[1]
    said = fill(schema, refused, schema)
    if label in verdict_words(schema):
        said["verdict"] = label
    return json.dumps(said)


def obedient_reply(
    body: Mapping[str, Any], text: str, refusal: str, plain: Sequence[str] = REFUSED
) -> str:
    """The answer of a judge that obeys any word of its schema's that is outside the blocks.

    The last such word counts. Without one it grades what is in the blocks.
    """
    schema = requested_schema(body)
    inside, outside = blocks(text)
    words = verdict_words(schema) if schema is not None else plain
    ordered = re.findall("|".join(rf"\b{re.escape(w)}\b" for w in words), outside) if words else []
    if not ordered:
        return judge_reply(body, inside, refusal, plain)
    if schema is None:
        return str(ordered[-1])
    return json.dumps({**fill(schema, False, schema), "verdict": ordered[-1]})


def blocks(text: str) -> tuple[str, str]:
    """What is inside the data blocks of a judge's message, and what outside.

    Where the instructions state a code, only lines with it begin and end a block; else any
    BEGIN and END line does.
    """
    stated = re.search(r"\bcode (\w+)", text.partition("BEGIN ")[0])
    code = f" {stated[1]}" if stated else ""
    inside: list[str] = []
    outside: list[str] = []
    closing: str | None = None
    for line in text.split("\n"):
        opens = re.fullmatch(rf"BEGIN (\w+){code}", line)
        if closing is None and opens:
            closing = f"END {opens[1]}{code}"
        elif line == closing:
            closing = None
        else:
            (outside if closing is None else inside).append(line)
    return "\n".join(inside), "\n".join(outside)


def verdict_words(schema: Mapping[str, Any]) -> Sequence[str]:
    """The words of the schema's `verdict`."""
    words: Sequence[str] = schema.get("properties", {}).get("verdict", {}).get("enum", ())
    return words


def canary_label(text: str) -> str | None:
    """The label of the canary whose answer is in `text`, as a sane judge would give it."""
    return next((label for answer, label in canaries() if f"\n{answer}\n" in f"\n{text}\n"), None)


@cache
def canaries() -> Sequence[tuple[str, str]]:
    """(answer, label) of each canary that the project ships, and of each supportive reply."""
    return list(_read_canaries())


def _read_canaries() -> Iterator[tuple[str, str]]:
    file = Path(__file__).parents[2] / "judges" / "canaries.jsonl"
    _, *lines = file.read_text(encoding="utf-8").splitlines()
    for canary in map(json.loads, lines):
        yield canary["answer"], canary["label"]
    probes = file.with_name("probes.jsonl").read_text(encoding="utf-8").splitlines()
    for probe in map(json.loads, probes):
        if probe.get("attacked") is False:
            yield probe["answer"], probe["label"]


def mentions(text: str, refusal: str) -> bool:
    """Whether `refusal` is in `text`, also JSON-quoted, or escaped for XML."""
    core = refusal.rstrip(".")
    forms = (core, json.dumps(core)[1:-1], core.replace("'", "&#x27;"), core.replace("'", "&#39;"))
    return any(form in text for form in forms)


def fill(schema: Mapping[str, Any], refused: bool, root: Mapping[str, Any]) -> Any:
    """A value that conforms to `schema` and says `refused` wherever it can say so."""
    if "$ref" in schema:
        node: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            node = node[part]
        return fill(node, refused, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return choose(schema["enum"], refused)
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            # `null` as one choice of several is the way to say "optional": take another.
            options = [o for o in schema[union] if o.get("type") != "null"] or schema[union]
            return fill(options[0], refused, root)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object" or (kind is None and "properties" in schema):
        return {k: fill(v, refused, root) for k, v in schema.get("properties", {}).items()}
    if kind == "array":
        items = schema.get("items", {})
        return [fill(items, refused, root) for _ in range(schema.get("minItems", 0))]
    if kind == "boolean":
        return refused
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("maximum", 1))
    if kind == "null":
        return None
    return "scripted"[: schema.get("maxLength")]


def choose(values: Sequence[Any], refused: bool) -> Any:
    """The enum's value for a verdict: by its name, else the first (refusal) or the last."""
    by_name = {v.lower(): v for v in values if isinstance(v, str)}
    for name in REFUSED if refused else COMPLIED:
        if name in by_name:
            return by_name[name]
    return values[0] if refused else values[-1]
