"""What each field of the configuration means, for help pages: the docstring below it.

Read from the source when a help page is made. pydantic can do so for every model when it is
imported, which costs each start 60 ms.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel

from refusalkit.config.placement import Placement
from refusalkit.config.run_config import RunConfig


@cache
def field_descriptions() -> Mapping[str, str]:
    """The docstring of each field of `RunConfig` and `Placement`, by the field's name.

    Empty where the source code is not installed.
    """
    return {**_described(RunConfig), **_described(Placement)}


def _described(model: type[BaseModel]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except OSError:
        return {}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found
