"""Any set becomes a folder that loads again to the same prompts, or nothing is left behind."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_public_sets import A_FEW, sample

import refusalkit as rk
import strategies
from commandline import Call
from refusalkit.errors import PromptSetError, StorageError, UsageError
from refusalkit.prompts.convert import write_folder
from refusalkit.prompts.prompt_record import ID_PATTERN, SLUG_PATTERN
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.public_facts import public_sets
from refusalkit.types import Category, Prompt


def unique(prompts: list[Prompt]) -> list[Prompt]:
    return list({prompt.id: prompt for prompt in prompts}.values())


@st.composite
def sets(draw: st.DrawFn, *, safe: bool) -> PromptSet:
    prompts = unique(draw(st.lists(strategies.prompts(), min_size=1, max_size=6)))
    slugs = list(dict.fromkeys(prompt.category for prompt in prompts))
    if not safe:
        wild = draw(
            st.lists(strategies.texts(), min_size=len(slugs), max_size=len(slugs), unique=True)
        )
        renamed = dict(zip(slugs, wild, strict=True))
        ids = draw(
            st.lists(strategies.texts(), min_size=len(prompts), max_size=len(prompts), unique=True)
        )
        prompts = [
            Prompt(name, renamed[p.category], p.text, system=p.system, messages=p.messages)
            for name, p in zip(ids, prompts, strict=True)
        ]
        slugs = wild
    titles = draw(st.lists(strategies.texts(), min_size=len(slugs), max_size=len(slugs)))
    hard = draw(st.lists(st.booleans(), min_size=len(slugs), max_size=len(slugs)))
    return PromptSet(
        name=draw(strategies.texts() if not safe else strategies.slugs()),
        version=draw(st.sampled_from(["1.0.0", "local", "0"])),
        categories=tuple(
            Category(slug, title, title, line)
            for slug, title, line in zip(slugs, titles, hard, strict=True)
        ),
        prompts=tuple(prompts),
        licence=draw(strategies.texts()),
        description=draw(strategies.texts()),
    )


def converted(prompts: PromptSet) -> PromptSet:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "made"
        write_folder(prompts, folder)
        assert [path.name for path in Path(scratch).iterdir()] == ["made"]
        return rk.load_prompts(folder)


@settings(max_examples=20, deadline=None)
@given(sets(safe=True))
@pytest.mark.slow
def test_a_set_with_safe_names_comes_back_as_it_was(prompts: PromptSet) -> None:
    back = converted(prompts)
    assert back.digest == prompts.digest
    assert sorted(back.prompts, key=lambda p: p.id) == sorted(prompts.prompts, key=lambda p: p.id)
    assert back.hard_lines == prompts.hard_lines
    assert back.name == prompts.name
    assert [c.description for c in back.categories] == [c.description for c in prompts.categories]


@settings(max_examples=20, deadline=None)
@given(sets(safe=False))
@pytest.mark.slow
def test_any_names_are_made_safe_and_the_rest_is_kept(prompts: PromptSet) -> None:
    back = converted(prompts)
    assert len(back) == len(prompts)
    assert sorted(p.turns[-1].content for p in back.prompts) == sorted(
        p.turns[-1].content for p in prompts.prompts
    )
    assert all(re.fullmatch(SLUG_PATTERN, c.slug) for c in back.categories)
    assert all(re.fullmatch(ID_PATTERN, p.id) for p in back.prompts)
    assert len({p.id for p in back.prompts}) == len(prompts)
    assert sum(c.hard_line for c in back.categories) == sum(c.hard_line for c in prompts.categories)
    assert converted(back).digest == back.digest


@pytest.mark.parametrize("name", A_FEW)
def test_each_public_set_converts(name: str, tmp_path: Path, call: Call) -> None:
    source = f"{name}:{sample(name, tmp_path)}"
    done = call("prompts", "convert", source, "made")
    assert done.status == 0, done.err
    loaded, back = rk.load_prompts(source), rk.load_prompts(tmp_path / "made")
    assert back.digest == loaded.digest
    assert back.licence == loaded.licence == public_sets()[name].licence
    assert back.name == name
    assert "Converted from" in back.description
    assert call("prompts", "validate", "made").status == 0


TABLE = """\
Question\tTopic
"[placeholder, one]"\tFraud & Scams
[two]\tÄÖ ﬁ
[three]\t日本語
[four]\tfraud_scams
"""


def test_a_spreadsheet_with_columns_of_its_own(tmp_path: Path, call: Call) -> None:
    (tmp_path / "questions.tsv").write_text(TABLE, encoding="utf-8")
    words = ["--column", "prompt=Question", "--column", "category=Topic", "--licence", "CC0-1.0"]
    words += ["--hard-line", "日本語", "--name", "mine"]
    done = call("prompts", "convert", "questions.tsv", "sets/mine", *words)
    assert done.status == 0, done.err
    back = rk.load_prompts(tmp_path / "sets" / "mine")
    assert {c.slug: c.title for c in back.categories} == {
        "fraud-scams": "Fraud & Scams",
        "ao-fi": "ÄÖ ﬁ",
        "category": "日本語",
        "fraud-scams-2": "fraud_scams",
    }
    assert back.hard_lines == {"category"}
    assert (back.name, back.licence, back.version) == ("mine", "CC0-1.0", "0")
    refused = call("prompts", "convert", "questions.tsv", "other")
    assert refused.status == 2
    assert "this one has: Question, Topic" in refused.err
    assert not (tmp_path / "other").exists()
    assert call("prompts", "convert", "questions.tsv", "x", "--column", "prompt").status == 2


@pytest.mark.skipif(importlib.util.find_spec("fastexcel") is not None, reason="it is installed")
def test_an_excel_file_names_what_reads_it(tmp_path: Path, call: Call) -> None:
    (tmp_path / "questions.xlsx").write_bytes(b"PK\x03\x04")
    done = call("prompts", "convert", "questions.xlsx", "made")
    assert done.status == 2
    assert "fastexcel" in done.err
    assert ".csv" in done.err


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    prompts = rk.load_prompts("starter")
    (tmp_path / "empty").mkdir()
    assert len(write_folder(prompts, tmp_path / "empty")) == len(prompts)
    (tmp_path / "file").write_text("mine")
    for there in ("empty", "file"):
        with pytest.raises(UsageError, match="is there already"):
            write_folder(prompts, tmp_path / there)
    with pytest.raises(UsageError, match="is not a name for a set"):
        write_folder(prompts, tmp_path / "new", name="No Name")
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = rk.load_prompts("starter")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("refusalkit.prompts.convert._write_prompts", full)
    with pytest.raises(StorageError, match="No space left"):
        write_folder(prompts, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_text_is_a_mistake_unless_the_set_says_so(tmp_path: Path) -> None:
    twice = PromptSet(
        "twice",
        "1.0.0",
        (Category("one", "One"),),
        (Prompt("a", "one", "[same]"), Prompt("b", "one", "[Same]")),
    )
    folder = tmp_path / "made"
    write_folder(twice, folder)
    manifest = folder / "set.toml"
    assert "repeats = true" in manifest.read_text()
    manifest.write_text(manifest.read_text().replace("repeats = true\n", ""))
    with pytest.raises(PromptSetError, match="the same text is already"):
        rk.load_prompts(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("record", ['{"id": "a\\n", %s}', '{"id": "a b", %s}', '{"id": "", %s}'])
def test_an_id_that_no_record_can_hold_is_a_mistake(record: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(record % '"prompt": "[a]", "category": "One"')
    with pytest.raises(PromptSetError, match=r"t\.jsonl:1: id: "):
        rk.load_prompts(tmp_path / "t.jsonl")


def test_rows_with_more_to_them_and_rows_without(tmp_path: Path) -> None:
    rows = [
        '{"prompt": "[a]", "category": "One"}',
        '{"text": "[b]", "category": " One ", "id": 7}',
        '{"prompt": "[c]", "category": "Two", "danger": "2", "tags": "form:question; x"}',
        '{"messages": [{"role": "user", "content": "[d]"}], "category": "Two", "id": "d"}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n\n")
    loaded = rk.load_prompts(tmp_path / "t.jsonl")
    assert [(p.id, p.text, p.danger, p.tags) for p in loaded.prompts] == [
        ("one-001", "[a]", None, ()),
        ("7", "[b]", None, ()),
        ("two-001", "[c]", 2, ("form:question", "x")),
        ("d", "[d]", None, ()),
    ]


def test_many_mistakes_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    rows = ['{"prompt": "[a]", "category": "One"}', *['{"prompt": ""}'] * 300, "{", "[]", "\u00ff"]
    (tmp_path / "t.jsonl").write_text("\n".join(rows), encoding="latin-1")
    with pytest.raises(PromptSetError, match="has 303 mistakes") as stopped:
        rk.load_prompts(tmp_path / "t.jsonl")
    assert len(stopped.value.mistakes) == 101
    assert stopped.value.mistakes[0] == "t.jsonl:2: category: is missing or empty"
    twice = ['{"prompt": "[a]", "category": "One", "id": "x"}'] * 2
    (tmp_path / "t.jsonl").write_text("\n".join(twice))
    with pytest.raises(PromptSetError) as stopped:
        rk.load_prompts(tmp_path / "t.jsonl")
    assert stopped.value.mistakes == (
        "t.jsonl:2: id: 'x' is already at t.jsonl:1",
        "t.jsonl:2: text: the same text is already at t.jsonl:1",
    )
