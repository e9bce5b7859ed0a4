"""A prompt set is a collection."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

import refusalkit as rk
from refusalkit.errors import UsageError
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Category, Prompt

SET = PromptSet(
    name="made",
    version="2",
    categories=(Category("tea", "Tea"), Category("harm", "Harm & so on", hard_line=True)),
    prompts=(
        Prompt("tea-01", "tea", "[a]", danger=1, tags=("form:question",)),
        Prompt("tea-02", "tea", "[b]", danger=2, lang="de"),
        Prompt("harm-01", "harm", "[c]", danger=3, tags=("form:question", "x")),
        Prompt("harm-safe-01", "harm", "[d]", twin="harm-01"),
    ),
)


def test_it_iterates_over_its_prompts_in_order() -> None:
    assert [prompt.id for prompt in SET] == ["tea-01", "tea-02", "harm-01", "harm-safe-01"]
    assert len(SET) == len(list(SET)) == 4
    shipped = rk.load_prompts("refusalkit-166")
    assert len(list(shipped)) == 166


def test_a_prompt_is_found_by_its_id() -> None:
    assert SET["harm-01"].danger == 3
    assert "harm-01" in SET
    assert SET["harm-01"] in SET
    assert replace(SET["harm-01"], text="[other]") not in SET
    assert "harm-1" not in SET
    assert 3 not in SET


def test_an_unknown_id_is_a_key_error_that_names_similar_ones() -> None:
    with pytest.raises(KeyError, match=r"made has no prompt tea-1; did you mean tea-0[12], tea-0"):
        SET["tea-1"]
    with pytest.raises(KeyError, match=r"made has no prompt zzz'?$"):
        SET["zzz"]
    with pytest.raises(KeyError, match=r"no prompt \\\\u202etea"):
        SET["\u202etea"]


def test_a_position_is_a_type_error_that_says_how_to_get_one() -> None:
    with pytest.raises(TypeError, match=r"by id, .* not by int; prompts\.prompts is the tuple"):
        SET[0]  # type: ignore[index]


def test_selecting_takes_one_value_or_several() -> None:
    assert [p.id for p in SET.select(category="Tea")] == ["tea-01", "tea-02"]
    assert SET.select(category=["tea"]) == SET.select(category="tea")
    assert [p.id for p in SET.select(tag="x")] == ["harm-01"]
    assert [p.id for p in SET.select(danger=3)] == ["harm-01"]
    assert [p.id for p in SET.select(danger={1, 3}, tag="form:question")] == ["tea-01", "harm-01"]
    with pytest.raises(UsageError, match="made has no category teas; did you mean tea"):
        SET.select(category="teas")


def test_its_frame_has_a_row_for_each_prompt_and_text_only_when_asked() -> None:
    frame = SET.frame()
    assert frame.columns == ["id", "category", "hard_line", "danger", "tags", "lang"]
    assert frame.schema["tags"] == pl.List(pl.String)
    assert frame["id"].to_list() == [p.id for p in SET]
    # A contrast prompt is to be answered, whatever its category.
    assert frame["hard_line"].to_list() == [False, False, True, False]
    assert frame["danger"].to_list() == [1, 2, 3, None]
    assert frame["tags"].to_list() == [["form:question"], [], ["form:question", "x"], []]
    assert SET.frame(text=True)["text"].to_list() == ["[a]", "[b]", "[c]", "[d]"]


def test_an_empty_set_has_an_empty_frame_of_the_same_columns() -> None:
    empty = replace(SET, prompts=())
    assert empty.frame().schema == SET.frame().schema
    assert empty.frame().is_empty()


def test_it_shows_itself_in_one_line_and_as_a_table() -> None:
    assert repr(SET) == "PromptSet(made 2, 4 prompts, 2 categories, 1 hard line)"
    html = SET._repr_html_()
    assert "Harm &amp; so on" in html
    assert "hard line" in html
    assert SET.digest in html
