"""Whether an error is about a request's form: how it asks for JSON, or its system message."""

from __future__ import annotations

import re
from functools import cache

from refusalkit.models.dialects.rows import any_of, table


@cache
def _words(key: str) -> re.Pattern[str]:
    return any_of(table("forms")[key])


def refuses_reply_form(complaint: str, parameter: str | None) -> bool:
    """Whether an error refuses the way in which JSON was asked for.

    `parameter` is the request's parameter that the error refuses, where that is known.
    """
    if parameter is not None:
        return parameter in table("forms")["parameters"]
    return _words("format").search(complaint) is not None


def refuses_system_role(complaint: str) -> bool:
    """Whether the endpoint says that it takes no system message."""
    return _words("system").search(complaint) is not None
