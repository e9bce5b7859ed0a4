"""JSON that is written and read quickly is what the standard library writes and reads."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refusalkit import jsonl
from refusalkit.untrusted import well_formed

# With lone surrogates, which JSON can carry.
TEXTS = st.text(st.characters(categories=["Cs", "Cc", "L", "So"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_what_is_read(value: object) -> None:
    assert json.loads(jsonl.to_bytes(value)) == value
    assert jsonl.to_ascii(value).isascii()
    assert jsonl.from_bytes(jsonl.to_ascii(value).encode()) == value
    assert jsonl.to_ascii(value, indent=2).count("\n") == json.dumps(value, indent=2).count("\n")


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(allow_nan=False)), max_size=5), TEXTS)
def test_a_frame_is_written_as_its_rows(rows: list[tuple[int, float]], text: str) -> None:
    frame = pl.DataFrame(rows, schema={"n": pl.Int64, "x": pl.Float64}, orient="row")
    told = {"rows": frame, "text": text}  # a lone surrogate takes the other writer
    listed = {"rows": frame.to_dicts(), "text": text}
    assert jsonl.to_ascii_bytes(told, indent=2) == jsonl.to_ascii_bytes(listed, indent=2)
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        jsonl.to_ascii_bytes({"odd": object(), "text": text})


@given(VALUES)
@example(math.inf)
def test_what_goes_into_a_file_is_utf_8_without_lone_surrogates(value: object) -> None:
    text = jsonl.to_well_formed(value).decode()
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    finite = json.loads(well_formed(plain), parse_constant=lambda _: None)
    assert json.loads(text, parse_constant=pytest.fail) == finite


@given(st.sampled_from([math.nan, math.inf, -math.inf]), TEXTS)
def test_what_goes_into_a_file_holds_null_for_a_number_that_json_does_not_know(
    figure: float, text: str
) -> None:
    written = jsonl.to_well_formed({"figures": [figure, 1.5], "text": text})
    assert json.loads(written, parse_constant=pytest.fail)["figures"] == [None, 1.5]


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()[:-1]))
def test_json_is_read_or_refused_as_by_the_standard_library(data: bytes) -> None:
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(ValueError):
            jsonl.from_bytes(data)
    else:
        found = jsonl.from_bytes(data)
        assert found == expected or (isinstance(found, float) and math.isnan(found))


def test_nesting_without_end_is_an_error_in_either_way() -> None:
    with pytest.raises((ValueError, RecursionError)):
        jsonl.from_bytes(b"[" * 200_000)
