"""The kinds of judges, and what sets each apart.

Code looks at a kind's properties, never at its name. A new kind is a row here, its name in `Kind`,
and a module with an ``open_rubric``. Only a kind whose file needs a check or a table of its own
changes `judges.rubrics`; any kind may have the table ``[rules]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["llm", "lexical", "classifier"]
"""The kinds that a judge file may name: those below with a module."""


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """What sets judges of one kind apart."""

    name: str
    """Its name in judge files and manifests."""
    title: str
    """What reports call it."""
    module: str | None = None
    """The module that opens a judge file of this kind; None: there are no such files."""
    tables: tuple[str, ...] = ()
    """The tables that its file must have."""
    settings: str | None = None
    """The table of its file that only its own module reads."""
    settings_shown: Literal["names", "values"] = "names"
    """What `judges show` prints of that table."""
    asks_model: bool = False
    """Whether it sends requests to a language model, which has a price, an address and a pace."""
    is_costly: bool = True
    """Whether its verdicts cost money or time, so that they are worth keeping."""
    reads_words: bool = False
    """Whether it matches words instead of understanding meaning."""
    always_graded: bool = False
    """Whether it tells a deflection from a leak, whatever labels its file names."""
    is_object: bool = False
    """Whether it was built in Python, so that no file says what it does."""


_KINDS = (
    JudgeKind(
        "llm",
        "a model with a rubric",
        module="refusalkit.judges.llm",
        tables=("labels", "model", "prompt", "schema"),
        asks_model=True,
    ),
    JudgeKind(
        "lexical",
        "a set of rules",
        module="refusalkit.judges.lexical",
        tables=("rules",),
        settings="rules",
        is_costly=False,
        reads_words=True,
        always_graded=True,
    ),
    JudgeKind(
        "classifier",
        "a classifier that runs here",
        module="refusalkit.judges.classifier",
        tables=("labels", "model", "classifier"),
        settings="classifier",
        settings_shown="values",
    ),
    JudgeKind("council", "a vote of several judges", asks_model=True),
    JudgeKind("custom", "a Python object", is_object=True),
    JudgeKind("recorded", "labels recorded with the answers", is_costly=False),
)
KINDS: Mapping[str, JudgeKind] = {kind.name: kind for kind in _KINDS}


def kind_named(name: str) -> JudgeKind:
    """The kind of that name. Of one from a later version of refusalkit only the name is known."""
    return KINDS.get(name) or JudgeKind(name, name)
