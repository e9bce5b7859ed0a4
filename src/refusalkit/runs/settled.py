"""A compact set of settled units, with one bit for each, for runs of a million units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING

from refusalkit.types import Prompt, unit_id, unit_parts

if TYPE_CHECKING:
    import polars as pl

# The trial comes after the last `#`; an id of recorded answers may hold others.
UNIT = r"(?s)^(?<prompt>.*)#(?<trial>[0-9]{1,18})$"
# How many trials share one 64-bit number.
_TRIALS = 63


class Settled(Set[str]):
    """The ids of settled units, held as a bit for each trial of a prompt.

    As text, a set of a million ids would take 100 MB, and as long to build as the files to read.
    """

    def __init__(self, bits: pl.DataFrame | None = None) -> None:
        """`bits` is a table as `settled_bits` makes it."""
        self._bits: dict[int, dict[str, int]] = {}
        self._n = 0
        if bits is None:
            return
        self._n = int(bits["bits"].bitwise_count_ones().sum())
        for (block,), part in bits.partition_by("block", as_dict=True).items():
            prompts, trials = part["prompt"].to_list(), part["bits"].to_list()
            self._bits[int(block)] = dict(zip(prompts, trials, strict=True))

    def leave(self, plan: Iterable[tuple[int, Sequence[Prompt]]]) -> Iterator[tuple[Prompt, int]]:
        """The units of a plan that are not settled, as (prompt, trial), in the plan's order.

        The plan yields pairs of a trial and its prompts.
        """
        known: Sequence[Prompt] | None = None
        known_block, bits = -1, list[int]()
        for trial, prompts in plan:
            block, place = divmod(trial, _TRIALS)
            # Trials usually share their prompts, so each prompt is looked up once.
            if prompts is not known or block != known_block:
                known, known_block = prompts, block
                of_prompt = self._bits.get(block, {})
                bits = [of_prompt.get(prompt.id, 0) for prompt in prompts]
            mask = 1 << place
            for prompt, settled in zip(prompts, bits, strict=True):
                if not settled & mask:
                    yield prompt, trial

    def __contains__(self, unit: object) -> bool:
        prompt_id, trial = unit_parts(str(unit))
        block, place = divmod(trial, _TRIALS)
        return self._bits.get(block, {}).get(prompt_id, 0) >> place & 1 == 1

    def __iter__(self) -> Iterator[str]:
        for block, prompts in self._bits.items():
            for prompt_id, bits in prompts.items():
                for place in range(bits.bit_length()):
                    if bits >> place & 1:
                        yield unit_id(prompt_id, block * _TRIALS + place)

    def __len__(self) -> int:
        return self._n


def settled_bits(units: pl.Series, before: pl.DataFrame | None = None) -> pl.DataFrame:
    """Units as a table: block (of trials), prompt, and bits, one for each trial of the block.

    Strings that are not unit ids are left out; the units of the table `before` are included.
    """
    import polars as pl

    trial = pl.col("trial").cast(pl.Int64)
    rows = (
        units.str.extract_groups(UNIT)
        .struct.unnest()
        .drop_nulls()
        .select(trial // _TRIALS, "prompt", bits=pl.lit(2, pl.UInt64).pow(trial % _TRIALS))
        .rename({"trial": "block"})
    )
    if before is not None and rows.is_empty():
        return before
    parts = rows if before is None else pl.concat([before, rows])
    return parts.group_by("block", "prompt").agg(pl.col("bits").bitwise_or())


def have_in_common(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two tables share a unit."""
    import polars as pl

    both = first.join(second, on=["block", "prompt"], suffix="_2")
    return not both.filter(pl.col("bits") & pl.col("bits_2") != 0).is_empty()


def has_more(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether the first table has a unit that the second one lacks."""
    import polars as pl

    both = first.join(second, on=["block", "prompt"], how="left", suffix="_2")
    missing = pl.col("bits") & ~pl.col("bits_2").fill_null(0)
    return not both.filter(missing != 0).is_empty()
