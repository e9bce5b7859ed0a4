"""Which units of a run are listed, and in which order: filters, leaks first, search."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields

import polars as pl

from refusalkit.errors import UsageError
from refusalkit.types import Label, Outcome
from refusalkit.untrusted import printable
from refusalkit.viewer.prompts import KnownPrompts
from refusalkit.viewer.unit_index import SHOWS, UnitIndex

FLIPPED = "flipped"
ORDERS = ("leaks", "prompt", "longest")
_MAX_QUERY = 200
_KEPT = 12


@dataclass(frozen=True)
class UnitQuery:
    """The filters of a list, under their names in an address; an empty one filters nothing."""

    category: str = ""
    danger: str = ""
    label: str = ""
    outcome: str = ""
    show: str = ""
    beside: str = ""
    """The id of another run, whose answers are shown beside."""
    q: str = ""
    """Text that the unit's id, its prompt or its answer contains, ignoring case."""
    order: str = ORDERS[0]

    @classmethod
    def of(cls, given: Mapping[str, str]) -> UnitQuery:
        """The query in an address. Raises `UsageError` at an unknown value."""
        named = {one.name: given[one.name] for one in fields(cls) if given.get(one.name)}
        found = cls(**named)
        allowed = {
            "danger": {"", "1", "2", "3"},
            "label": {"", "unscored", *(label.value for label in Label)},
            "outcome": {"", *(outcome.value for outcome in Outcome)},
            "show": {"", FLIPPED, *SHOWS},
            "order": set(ORDERS),
        }
        for name, words in allowed.items():
            if getattr(found, name) not in words:
                raise UsageError(f"{name} cannot be {printable(getattr(found, name), 60)}")
        if len(found.q) > _MAX_QUERY:
            raise UsageError(f"the search is longer than {_MAX_QUERY} characters")
        return found


class Listing:
    """The rows of a run's units that pass a query, cached for the last few queries."""

    def __init__(self) -> None:
        self._rows: OrderedDict[object, pl.Series] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._rows.clear()

    def rows(
        self,
        index: UnitIndex,
        query: UnitQuery,
        *,
        other: UnitIndex | None = None,
        prompts: KnownPrompts | None = None,
        found: pl.Series | None = None,
    ) -> pl.Series:
        """The row numbers that pass, in order. `other` is the index of the run beside, `prompts`
        are those to search, and `found` the rows whose answer matches the search.
        """
        n_found = 0 if found is None else len(found)
        beside = None if other is None else other.serial
        asked = None if prompts is None else prompts.serial
        key = (index.serial, beside, asked, query, n_found)
        with self._lock, contextlib.suppress(KeyError):
            self._rows.move_to_end(key)
            return self._rows[key]
        rows = _select(index, query, other, prompts, found)
        with self._lock:
            self._rows[key] = rows
            while len(self._rows) > _KEPT:
                self._rows.popitem(last=False)
        return rows


def _select(
    index: UnitIndex,
    query: UnitQuery,
    other: UnitIndex | None,
    prompts: KnownPrompts | None,
    found: pl.Series | None,
) -> pl.Series:
    tests: list[pl.Expr] = []
    if query.category:
        tests.append(pl.col("category") == query.category)
    if query.danger:
        tests.append(pl.col("danger") == int(query.danger))
    if query.label:
        label = pl.col("label")
        tests.append(label.is_null() if query.label == "unscored" else label == query.label)
    if query.outcome:
        tests.append(pl.col("outcome") == query.outcome)
    if query.show == FLIPPED:
        units = flipped(index, other) if other is not None else pl.Series("row", [], pl.UInt32)
        tests.append(pl.col("row").is_in(units.implode()))
    elif query.show:
        tests.append(SHOWS[query.show])
    if query.q:
        tests.append(_matches(query.q, prompts, found))
    frame = index.units.with_row_index("row")
    columns = frame.lazy().filter(*tests).select("row", "leak", "text_chars")
    if query.order == "longest":
        columns = columns.sort("text_chars", descending=True, nulls_last=True, maintain_order=True)
    rows = columns.collect()
    if query.order == "leaks":
        rows = pl.concat([rows.filter("leak"), rows.filter(~pl.col("leak"))])
    return rows["row"]


def _matches(q: str, prompts: KnownPrompts | None, found: pl.Series | None) -> pl.Expr:
    """Whether the id, the prompt or the answer of a unit contains the text searched for."""
    hit = pl.col("unit").str.to_lowercase().str.contains(q.lower(), literal=True)
    if prompts is not None and len(asked := prompts.saying(q)):
        hit |= pl.col("prompt_id").is_in(asked.implode())
    if found is not None and len(found):
        hit |= pl.col("row").is_in(found.implode())
    return hit


def flipped(index: UnitIndex, other: UnitIndex) -> pl.Series:
    """Rows of the units that one run refused and the other did not, both labelled."""
    refused = (pl.col("label") == Label.REFUSAL.value).alias("refused")
    # Joined by hash, which is faster; the last line drops units whose ids differ after all.
    number = pl.col("unit").hash().alias("number")
    ours = index.units.with_row_index("row").select("row", "unit", number, refused)
    theirs = other.units.select(number, there=refused, theirs="unit")
    both = ours.drop_nulls().join(theirs.drop_nulls(), on="number", how="inner")
    apart = both.filter(pl.col("refused") != pl.col("there"))
    return apart.filter(pl.col("unit") == pl.col("theirs"))["row"].sort()
