"""A judge's reply: the one JSON object in it, and whether that fits the judge file's JSON schema.

Nearly every judge asks for one flat object of strings, some of them from a list of words. A reply
that plainly is one is recognised here, at a hundredth of the cost; jsonschema checks every other
reply and schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

# Keywords of a schema that do not constrain a reply.
_NOTES = frozenset({"title", "description"})
_OF_OBJECTS = frozenset({"type", "properties", "required", "additionalProperties"}) | _NOTES
_OF_STRINGS = frozenset({"type", "enum"}) | _NOTES


def json_object(text: str) -> Any:
    """The JSON object that a text consists of, perhaps in one code fence; None for anything else.

    An object with prose around it, or beside a second object, may be quoted from the answer. An
    object with a duplicate key is refused, as parsers differ in which of the two counts.
    """
    try:
        data = _STRICT.decode(_unfenced(text.strip(_BLANK)))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def what_instead(text: str) -> str:
    """What was sent in place of a JSON object, without quoting it."""
    if "{" not in text:
        return "has no JSON object"
    return "has a JSON object that is malformed, or not alone"


def _unfenced(text: str) -> str:
    """The content of the code fence that a text consists of; any other text as it is."""
    if not (len(text) > 6 and text.startswith("```") and text.endswith("```")):
        return text
    inside = text[3:-3]
    if inside[:4].lower() == "json":
        inside = inside[4:]
    return inside.strip(_BLANK)


# White space, and characters that show nothing: byte-order marks and zero-width characters.
_BLANK = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key appears twice")
    return data


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# A line break within a string is no JSON, and clear.
_STRICT = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_refuse_constant)


class ReplySchema:
    """A JSON schema (draft 2020-12) that has been checked to be one."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._fields = flat_fields(schema)

    def takes(self, reply: Any) -> bool:
        """Whether a reply is valid."""
        return self._takes_plainly(reply) or self._validator.is_valid(reply)

    def _takes_plainly(self, reply: Any) -> bool:
        fields = self._fields
        if fields is None or not isinstance(reply, dict) or reply.keys() != fields.keys():
            return False
        for name, value in reply.items():
            words = fields[name]
            if not isinstance(value, str) or (words is not None and value not in words):
                return False
        return True

    @cached_property
    def _validator(self) -> Validator:
        # Imported only for a reply that is not plainly valid.
        from jsonschema import Draft202012Validator

        return Draft202012Validator(dict(self._schema))


def flat_fields(schema: Mapping[str, Any]) -> Mapping[str, frozenset[str] | None] | None:
    """The fields of a flat object of strings, each with its words (None: any string).

    An object with exactly these fields is valid. None where the schema has, or may have, another
    form.
    """
    properties, required = schema.get("properties"), schema.get("required", [])
    if not schema.keys() <= _OF_OBJECTS or schema.get("type") != "object":
        return None
    if not isinstance(properties, Mapping) or not set(required) <= properties.keys():
        return None
    fields: dict[str, frozenset[str] | None] = {}
    for name, wanted in properties.items():
        if not isinstance(wanted, Mapping) or not wanted.keys() <= _OF_STRINGS:
            return None
        if wanted.get("type", "string") != "string":
            return None
        words = wanted.get("enum")
        fields[name] = None if words is None else frozenset(w for w in words if isinstance(w, str))
    return fields
