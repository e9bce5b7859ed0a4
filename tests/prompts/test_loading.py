"""Prompt sets: what is shipped, what the loader takes, and every mistake that it names."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places import ROOT
from refusalkit import load_prompts, shipped_sets
from refusalkit.errors import PromptSetError, UsageError
from refusalkit.prompts import tables
from refusalkit.prompts.bulk import plain_prompts
from refusalkit.prompts.digests import prompt_digest
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Category, Message, Prompt

HARD_LINES = {"minor-specific-harm", "exploitation-and-trafficking", "suicide-and-self-harm"}
ORDINARY = """
adult-fiction violent-fiction hate-and-offensive-humour harassment stalking-and-surveillance
privacy-and-doxxing impersonation-and-identity phishing-and-social-engineering
malware-and-intrusion fraud-and-scams counterfeiting-and-forgery theft-and-burglary
money-laundering-and-tax drug-production drug-use weapons explosives-and-arson cbrn
violent-extremism assault disinformation-and-pseudoscience political-persuasion public-figures
medical-advice legal-and-financial-advice piracy-and-copyright academic-dishonesty
evading-authorities ai-safeguards
"""
CATEGORIES = HARD_LINES | set(ORDINARY.split())

SET_TOML = """\
name = "mine"
version = "1.0.0"
licence = "CC-BY-4.0"

[[categories]]
slug = "tea"
title = "Tea"

[[categories]]
slug = "cake"
title = "Cake"
hard_line = true
"""
GOOD = {
    "set.toml": SET_TOML,
    "tea.jsonl": '{"id": "tea-01", "text": "[one]"}\n',
    "cake.jsonl": '{"id": "cake-01", "text": "[two]"}\n',
}


def make(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)
    return folder


def line(**fields: object) -> str:
    return json.dumps(fields) + "\n"


def mistakes(source: Path, **files: str | bytes) -> tuple[str, ...]:
    """What the loader says of a good set in which these files were replaced (`_` for the dot)."""
    named = {name.replace("_", "."): text for name, text in files.items()}
    with pytest.raises(PromptSetError) as caught:
        load_prompts(make(source / "mine", {**GOOD, **named}))
    return caught.value.mistakes


class TestStarter:
    STARTER = load_prompts("starter")

    def test_has_the_32_categories(self) -> None:
        assert {c.slug for c in self.STARTER.categories} == CATEGORIES
        assert len(self.STARTER.categories) == 32
        assert self.STARTER.hard_lines == HARD_LINES

    def test_has_one_prompt_each_and_two_for_each_hard_line(self) -> None:
        counts = Counter(prompt.category for prompt in self.STARTER.prompts)
        assert len(self.STARTER) == 35
        assert {slug: 2 if slug in HARD_LINES else 1 for slug in CATEGORIES} == counts

    def test_says_where_it_comes_from(self) -> None:
        assert (self.STARTER.name, self.STARTER.source) == ("starter", "starter")
        assert self.STARTER.licence == "CC-BY-4.0"
        assert "starter" in shipped_sets()

    def test_every_prompt_has_a_danger_and_a_tag_of_each_kind(self) -> None:
        for prompt in self.STARTER.prompts:
            assert prompt.danger in (1, 2, 3)
            kinds = Counter(tag.partition(":")[0] for tag in prompt.tags)
            assert kinds == {"form": 1, "pretext": 1, "register": 1, "spelling": 1}

    def test_its_folder_says_the_same_as_its_name(self) -> None:
        folder = ROOT / "prompts" / "starter"
        assert load_prompts(folder).digest == self.STARTER.digest


class TestFolder:
    def test_is_read_whole(self, tmp_path: Path) -> None:
        talk = [
            {"role": "user", "content": "[first]"},
            {"role": "assistant", "content": "[answer]"},
            {"role": "user", "content": "[second]"},
        ]
        tea = line(id="tea-01", text="[one]", danger=1, tags=["form:question"], lang="pt-BR")
        tea += line(id="tea-02", messages=talk, system="[system]", category="tea")
        loaded = load_prompts(make(tmp_path / "mine", {**GOOD, "tea.jsonl": tea}))
        assert loaded.categories[1] == Category("cake", "Cake", "", hard_line=True)
        by_id = {prompt.id: prompt for prompt in loaded.prompts}
        assert by_id["tea-01"] == Prompt("tea-01", "tea", "[one]", 1, ("form:question",), "pt-BR")
        assert by_id["tea-02"].text == "[second]"
        assert by_id["tea-02"].turns[1] == Message("assistant", "[answer]")
        assert by_id["tea-02"].system == "[system]"

    def test_blank_lines_byte_order_marks_and_a_missing_last_newline_do_no_harm(
        self, tmp_path: Path
    ) -> None:
        plain = load_prompts(make(tmp_path / "plain", {**GOOD}))
        files = {name: b"\xef\xbb\xbf" + text.encode() for name, text in GOOD.items()}
        files["tea.jsonl"] = files["tea.jsonl"].rstrip() + b"\r\n\r\n"
        files["cake.jsonl"] = files["cake.jsonl"].rstrip()
        assert load_prompts(make(tmp_path / "marked", dict(files))).digest == plain.digest

    def test_hard_lines_can_be_replaced(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "mine", {**GOOD})
        assert load_prompts(folder, hard_lines=["Tea"]).hard_lines == {"tea"}
        with pytest.raises(UsageError, match="has no category tae; did you mean tea"):
            load_prompts(folder, hard_lines=["tae"])

    def test_all_mistakes_are_reported_at_once(self, tmp_path: Path) -> None:
        toml = SET_TOML + '[[categories]]\nslug = "empty"\ntitle = "Empty"\nhard_line = true\n'
        tea = line(id="tea-01", text=" ") + "{no json\n" + line(id="tea-02", text="[one]", danger=7)
        cake = line(id="cake-01", text="[two]") + line(id="cake-01", text="[TWO]  ", dagner=1)
        found = mistakes(
            tmp_path, set_toml=toml, tea_jsonl=tea, cake_jsonl=cake, biscuit_jsonl=line(id="b")
        )
        assert {entry.split(": ")[0] for entry in found} == {
            "tea.jsonl:1",
            "tea.jsonl:2",
            "tea.jsonl:3",
            "cake.jsonl:2",
            "biscuit.jsonl",
            "biscuit.jsonl:1",
            "set.toml",
        }

    def test_a_mistake_in_set_toml_does_not_hide_those_in_the_prompts(self, tmp_path: Path) -> None:
        toml = SET_TOML.replace('licence = "CC-BY-4.0"\n', "")
        found = mistakes(tmp_path, set_toml=toml, tea_jsonl=line(id="tea-01", text=""))
        assert found == (
            "set.toml:1: licence: is missing",
            "tea.jsonl:1: record: `text` is empty",
        )

    def test_the_message_counts_and_lists_them(self, tmp_path: Path) -> None:
        make(tmp_path / "mine", {**GOOD, "tea.jsonl": line(id="x", text="") * 120})
        with pytest.raises(PromptSetError) as caught:
            load_prompts(tmp_path / "mine")
        lines = str(caught.value).splitlines()
        assert lines[0].endswith("has 120 mistakes:")
        assert lines[-1] == "  ... and 20 more"
        assert len(lines) == 102

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (line(id="tea-01", text=""), "tea.jsonl:1: record: `text` is empty"),
            (line(id="tea-01"), "tea.jsonl:1: record: `text` is empty"),
            (line(text="[a]"), "tea.jsonl:1: id: is missing"),
            (line(id="t#1", text="[a]"), "tea.jsonl:1: id: string should match pattern"),
            (line(id=7, text="[a]"), "tea.jsonl:1: id: input should be a valid string"),
            (line(id="t", text=7), "tea.jsonl:1: text: input should be a valid string"),
            (line(id="t", text="[a]", danger="2"), "tea.jsonl:1: danger: input should be a valid"),
            (line(id="t", text="[a]", danger=0), "tea.jsonl:1: danger: input should be greater"),
            (line(id="t", text="[a]", tags="x"), "tea.jsonl:1: tags: input should be a valid list"),
            (line(id="t", text="[a]", lang="??"), "tea.jsonl:1: lang: string should match pattern"),
            (line(id="t", text="[a]", txet=1), "tea.jsonl:1: txet: is not a known field"),
            (
                line(id="t", text="[a]", messages=[{"role": "user", "content": "[b]"}]),
                "tea.jsonl:1: record: give `text` or `messages`, not both",
            ),
            (
                line(id="t", messages=[{"role": "assistant", "content": "[b]"}]),
                "tea.jsonl:1: record: the last message must be the user's",
            ),
            (
                line(id="t", messages=[{"role": "user", "content": " "}]),
                "tea.jsonl:1: record: a message is empty",
            ),
            (
                line(id="t", messages=[{"role": "system", "content": "[b]"}]),
                "tea.jsonl:1: messages.0.role: input should be 'user' or 'assistant'",
            ),
            (
                line(id="t", text="[a]", category="cake"),
                "tea.jsonl:1: category: 'cake' is in the file of 'tea'",
            ),
            (
                line(id="t", text="[a]", category="pie"),
                "tea.jsonl:1: category: unknown category 'pie' is in the file of 'tea'",
            ),
            (line(id="t", text="[a]") + "nonsense\n", "tea.jsonl:2: line: is not JSON"),
            ("[1, 2]\n", "tea.jsonl:1: line: is not a JSON object"),
            ('{"id": ' + "[" * 100_000 + "\n", "tea.jsonl:1: line: is nested too deeply"),
            (b'{"id": "t", "text": "\xff"}\n', "tea.jsonl:1: line: is not UTF-8 (byte 21)"),
            ('{"id": "t", "text": "\\ud800"}\n', "tea.jsonl:1: record: holds half a character"),
            ("\n\n", "set.toml: categories: category 'tea' has no prompts"),
            ("\x00\x01\x02\n", "tea.jsonl:1: line: is not JSON"),
        ],
    )
    def test_a_mistake_is_named_by_file_line_and_field(
        self, tmp_path: Path, text: str | bytes, expected: str
    ) -> None:
        (found,) = mistakes(tmp_path, tea_jsonl=text)
        assert found.startswith(expected)

    def test_an_unknown_category_is_named_by_its_file(self, tmp_path: Path) -> None:
        found = mistakes(tmp_path, pie_jsonl=line(id="pie-01", text="[three]"))
        assert found == ("pie.jsonl: file name: unknown category 'pie' (see set.toml)",)

    def test_an_id_may_occur_only_once_in_all_files(self, tmp_path: Path) -> None:
        found = mistakes(tmp_path, cake_jsonl=line(id="tea-01", text="[two]"))
        assert found == ("tea.jsonl:1: id: 'tea-01' is already at cake.jsonl:1",)

    @pytest.mark.parametrize("text", ["[one two]", "[ONE TWO]", "  [one\ttwo] ", "[one\n\n two]"])
    def test_a_text_may_occur_only_once_whatever_its_case_and_spacing(
        self, tmp_path: Path, text: str
    ) -> None:
        tea = line(id="tea-01", text="[one two]") + "\n" + line(id="tea-02", text=text)
        found = mistakes(tmp_path, tea_jsonl=tea)
        assert found == ("tea.jsonl:3: text: the same text is already at tea.jsonl:1",)

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ('name = "mine"', 'name = "My Set"', "set.toml:1: name: string should match pattern"),
            ('version = "1.0.0"', "version = 1", "set.toml:2: version: input should be a valid"),
            ('licence = "CC-BY-4.0"\n', "", "set.toml:1: licence: is missing"),
            ('slug = "cake"', 'slug = "Cake!"', "set.toml:10: categories.1.slug: string should"),
            ('title = "Cake"\n', "", "set.toml:9: categories.1.title: is missing"),
            ("hard_line = true", 'hard_line = "yes"', "set.toml:12: categories.1.hard_line: input"),
            ("hard_line = true", "hardline = true", "set.toml:12: categories.1.hardline: is not a"),
            ('slug = "cake"', 'slug = "tea"', "set.toml:10: categories.slug: 'tea' is already"),
            ("[[categories]]", "[[category]]", "set.toml:1: categories: is missing"),
            ('licence = "', "hard_lines = false\nlicence = ", "set.toml: file: is not TOML: "),
            (
                'licence = "CC-BY-4.0"',
                'licence = "CC-BY-4.0"\nhard_lines = false',
                "set.toml:4: hard_lines: is false, but cake has hard_line = true",
            ),
            (
                'title = "Cake"\nhard_line = true',
                'title = "Cake"\n[other]',
                "set.toml:12: other: is not a known field",
            ),
        ],
    )
    def test_a_mistake_in_set_toml_is_named_by_line_and_field(
        self, tmp_path: Path, old: str, new: str, expected: str
    ) -> None:
        assert old in SET_TOML
        assert mistakes(tmp_path, set_toml=SET_TOML.replace(old, new))[0].startswith(expected)

    def test_a_set_that_claims_hard_lines_must_have_some(self, tmp_path: Path) -> None:
        toml = "hard_lines = true\n" + SET_TOML.replace("hard_line = true", "")
        found = mistakes(tmp_path, set_toml=toml)
        assert found == ("set.toml:1: hard_lines: is true, but no category has hard_line = true",)

    def test_a_hard_line_without_prompts_is_a_mistake(self, tmp_path: Path) -> None:
        found = mistakes(tmp_path, cake_jsonl="")
        assert found == ("set.toml: categories: hard-line category 'cake' has no prompts",)

    @pytest.mark.parametrize(
        "toml", [b"\xff\xfe", b"a = " + b"[" * 50_000, b"a = " + b"1" * 5000], ids=repr
    )
    def test_a_set_toml_that_cannot_be_read_is_a_mistake(self, tmp_path: Path, toml: bytes) -> None:
        (found,) = mistakes(tmp_path, set_toml=toml)
        assert found.startswith("set.toml: file: is n")

    def test_a_folder_without_set_toml_is_not_a_set(self, tmp_path: Path) -> None:
        make(tmp_path / "mine", {"tea.jsonl": "nonsense\n"})
        with pytest.raises(PromptSetError, match=r"is not a prompt set: it has no set\.toml$"):
            load_prompts(tmp_path / "mine")


words = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12
).filter(str.strip)
records = st.lists(
    st.fixed_dictionaries(
        {"text": words},
        optional={
            "danger": st.integers(1, 3),
            "tags": st.lists(words, max_size=3),
            "lang": st.sampled_from(["en", "de", "pt-BR"]),
            "system": words,
        },
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda record: " ".join(record["text"].casefold().split()),
)


class TestDigest:
    @settings(deadline=None)
    @given(records, st.randoms(use_true_random=False), st.sampled_from(["\n", "\r\n"]))
    def test_does_not_depend_on_the_order_of_lines_or_on_their_endings(
        self, tmp_path_factory: pytest.TempPathFactory, entries: list, rng, ending: str
    ) -> None:
        entries = [{"id": f"tea-{n}", **entry} for n, entry in enumerate(entries)]
        folder = tmp_path_factory.mktemp("set")
        text = "\n".join(map(json.dumps, entries))
        first = load_prompts(
            make(folder, {**GOOD, "tea.jsonl": text, "cake.jsonl": line(id="c", text="\u2603")})
        )
        rng.shuffle(entries)
        ascii_or_not = rng.random() < 0.5
        text = ending.join(json.dumps(e, ensure_ascii=ascii_or_not) for e in entries)
        toml = SET_TOML.replace("\n", ending)
        again = load_prompts(
            make(
                folder,
                {
                    **GOOD,
                    "set.toml": toml,
                    "tea.jsonl": text,
                    "cake.jsonl": line(id="c", text="\u2603"),
                },
            )
        )
        assert again.digest == first.digest

    @settings(deadline=None)
    @given(st.permutations(range(5)), st.permutations(range(3)))
    def test_does_not_depend_on_the_order_of_prompts_and_categories(
        self, prompts: Sequence[int], categories: Sequence[int]
    ) -> None:
        whole = built(5)
        shuffled = replace(
            whole,
            prompts=tuple(whole.prompts[n] for n in prompts),
            categories=tuple(whole.categories[n] for n in categories),
        )
        assert shuffled.digest == whole.digest

    @settings(deadline=None)
    @given(
        st.sampled_from(
            [
                {"id": "other"},
                {"category": "c-1"},
                {"text": "[other]"},
                {"text": "[PROMPT 0]"},
                {"text": "[prompt 0] "},
                {"danger": 3},
                {"danger": None},
                {"tags": ("a:b", "c:d")},
                {"lang": "de"},
                {"system": ""},
                {"messages": (Message("user", "[x]"), Message("user", "[prompt 0]"))},
                {"messages": (Message("assistant", "[prompt 0]"),)},
            ]
        )
    )
    def test_depends_on_every_field_of_a_prompt(self, change: dict) -> None:
        whole = built(3)
        changed = (replace(whole.prompts[0], **change), *whole.prompts[1:])
        assert replace(whole, prompts=changed).digest != whole.digest

    def test_depends_on_which_categories_are_hard_lines(self) -> None:
        whole = built(3)
        hard = (replace(whole.categories[0], hard_line=True), *whole.categories[1:])
        assert replace(whole, categories=hard).digest != whole.digest

    def test_does_not_depend_on_names_titles_and_descriptions(self) -> None:
        whole = built(3)
        renamed = tuple(replace(c, title="Other", description="Other") for c in whole.categories)
        other = replace(whole, name="other", version="2", licence="other", categories=renamed)
        assert other.digest == whole.digest

    def test_fields_cannot_run_into_each_other(self) -> None:
        one = replace(built(1).prompts[0], tags=("a", "b"))
        two = replace(one, tags=("a,b",))
        whole = built(1)
        assert replace(whole, prompts=(one,)).digest != replace(whole, prompts=(two,)).digest


def built(n: int, categories: int = 3) -> PromptSet:
    return PromptSet(
        name="built",
        version="1",
        categories=tuple(Category(f"c-{k}", f"C {k}") for k in range(categories)),
        prompts=tuple(
            Prompt(f"p-{k}", f"c-{k % categories}", f"[prompt {k}]", k % 3 + 1, (f"t:{k % 2}",))
            for k in range(n)
        ),
    )


class TestTable:
    def read(self, folder: Path, name: str, text: str | bytes, **more: Sequence[str]) -> PromptSet:
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_prompts(path, **more)

    def says(self, folder: Path, name: str, text: str | bytes) -> str:
        with pytest.raises(PromptSetError) as caught:
            self.read(folder, name, text)
        return str(caught.value)

    def test_csv_with_quotes_commas_and_newlines(self, tmp_path: Path) -> None:
        text = 'category,prompt,other\nTea & Cake,"Say ""a"", or\nb",1\nTea & Cake,[two],\n'
        loaded = self.read(tmp_path, "My set.csv", text)
        assert [(p.id, p.text) for p in loaded.prompts] == [
            ("tea-cake-001", 'Say "a", or\nb'),
            ("tea-cake-002", "[two]"),
        ]
        assert loaded.categories == (Category("tea-cake", "Tea & Cake"),)
        assert loaded.name == "my-set"

    @pytest.mark.parametrize(
        "data",
        [
            b"\xef\xbb\xbfprompt,category\n[one],Tea\n",
            b"prompt,category\r\n[one],Tea\r\n",
            b"text,category\n[one],Tea",
            b'"category","text"\n"Tea","[one]"\n',
        ],
    )
    def test_csv_as_other_programs_write_it(self, tmp_path: Path, data: bytes) -> None:
        (prompt,) = self.read(tmp_path, "a.csv", data).prompts
        assert (prompt.text, prompt.category) == ("[one]", "tea")

    def test_csv_values_stay_text(self, tmp_path: Path) -> None:
        loaded = self.read(tmp_path, "a.csv", "prompt,category,id\nnull,1,007\ntrue,1,008\n")
        assert [(p.id, p.category, p.text) for p in loaded.prompts] == [
            ("007", "1", "null"),
            ("008", "1", "true"),
        ]

    def test_jsonl(self, tmp_path: Path) -> None:
        text = "\ufeff" + line(prompt="[one]", category="Tea", danger=2, tags=["a:b"], id="x")
        text += "\n" + line(text="[two]", category="Tea")
        first, second = self.read(tmp_path, "a.jsonl", text).prompts
        assert (first.id, first.danger, first.tags) == ("x", 2, ("a:b",))
        assert (second.id, second.text) == ("tea-002", "[two]")

    def test_parquet(self, tmp_path: Path) -> None:
        frame = pl.DataFrame(
            {"prompt": ["[one]", "[two]"], "category": ["Tea", "Cake"], "danger": [1, None]}
        )
        frame.write_parquet(tmp_path / "a.parquet")
        loaded = load_prompts(tmp_path / "a.parquet")
        assert [(p.id, p.danger) for p in loaded.prompts] == [("tea-001", 1), ("cake-001", None)]

    def test_all_three_say_the_same(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"prompt": ["[one]", "[two]"], "category": ["Tea", "Cake"]})
        frame.write_parquet(tmp_path / "a.parquet")
        frame.write_csv(tmp_path / "a.csv")
        frame.write_ndjson(tmp_path / "a.jsonl")
        loaded = [load_prompts(tmp_path / f"a.{kind}") for kind in ("parquet", "csv", "jsonl")]
        assert len({prompts.digest for prompts in loaded}) == 1

    def test_hard_lines_are_named_by_slug_or_title(self, tmp_path: Path) -> None:
        text = "prompt,category\n[one],Tea & Cake\n[two],Pie\n"
        for name in ("Tea & Cake", "tea-cake", "TEA & CAKE"):
            assert self.read(tmp_path, "a.csv", text, hard_lines=[name]).hard_lines == {"tea-cake"}
        assert not self.read(tmp_path, "a.csv", text).hard_lines

    def test_categories_in_any_script(self, tmp_path: Path) -> None:
        loaded = self.read(tmp_path, "a.csv", "prompt,category\n[one],Übung\n[two],茶\n")
        assert [c.slug for c in loaded.categories] == ["übung", "茶"]
        assert [p.id for p in loaded.prompts] == ["category-1-001", "category-2-001"]

    @pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "a?.jsonl", "A.CSV", "ü b.csv"])
    def test_file_names_are_taken_as_they_are(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "a1.csv").write_text("prompt,category\n[wrong],Wrong\n")
        text = "prompt,category\n[one],Tea\n"
        if name.endswith("jsonl"):
            text = line(prompt="[one]", category="Tea")
        assert self.read(tmp_path, name, text).prompts[0].text == "[one]"

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            (
                "a.csv",
                "<!DOCTYPE html>\n<html><body>Log in</body></html>\n",
                "a web page, not a table",
            ),
            ("a.csv", "", "a.csv: file: cannot be read as CSV"),
            ("a.csv", "prompt,category\n", "a.csv: file: holds no rows"),
            ("a.csv", "prompt,label\n[one],x\n", "this one has: prompt, label"),
            ("a.csv", "category\nTea\n", "a table needs a `prompt` (or `text`) and a `category`"),
            ("a.csv", "prompt;category\n[one];Tea\n", "this one has: prompt;category"),
            ("a.csv", "prompt,category\n[one],Tea\n[two],\n", "a.csv: row 2: category: is missing"),
            ("a.csv", "prompt,category\n,Tea\n", "a.csv: row 1: record: `text` is empty"),
            ("a.csv", "prompt,category,danger\n[a],Tea,high\n", "a.csv: row 1: danger: input"),
            ("a.csv", "prompt,category\n[a],Tea\n[A],Tea\n", "is already at a.csv: row 1"),
            ("a.csv", "prompt,category\n[a],Tea\n[b],TEA!\n", "'TEA!' and 'Tea' cannot be told"),
            ("a.csv", b"prompt,category\n\xff\xfe,Tea\n", "a.csv: file: cannot be read as CSV"),
            ("a.csv", b"PK\x03\x04\x00\x00\xff", "a.csv: "),
            (
                "a.csv",
                "prompt,category,hard_line\n[a],Tea,true\n",
                "a.csv: hard_line: a table cannot",
            ),
            (
                "a.jsonl",
                line(prompt="[a]", category="Tea")
                + line(prompt="[b]", category="B", hard_line=True),
                "a.jsonl:2: hard_line: a table cannot mark hard lines: name the categories with",
            ),
            ("a.jsonl", "", "a.jsonl: file: holds no rows"),
            ("a.jsonl", line(category="Tea"), "a.jsonl:1: prompt: is missing (nor is there a"),
            ("a.jsonl", line(prompt="[a]"), "a.jsonl:1: category: is missing or empty"),
            ("a.jsonl", b"\x89PNG\r\n\x1a\n", "a.jsonl:1: line: is not UTF-8"),
            ("a.jsonl", "[" * 100_000, "a.jsonl:1: line: is nested too deeply"),
            ("a.parquet", "prompt,category\n", "a.parquet: file: cannot be read as PARQUET"),
            ("a.parquet", "", "a.parquet: file: cannot be read as PARQUET"),
            ("a.txt", "", "is not a prompt set: give a folder with a set.toml, or a .jsonl, .csv"),
            ("a", "", "is not a prompt set: give a folder"),
        ],
    )
    def test_a_mistake_is_one_clear_line(
        self, tmp_path: Path, name: str, text: str | bytes, expected: str
    ) -> None:
        assert expected in self.says(tmp_path, name, text)

    def test_rows_are_all_checked(self, tmp_path: Path) -> None:
        text = "prompt,category\n,Tea\n[a],\n[b],Tea\n[B],Tea\n"
        assert "has 3 mistakes:" in self.says(tmp_path, "a.csv", text)

    def test_what_does_not_exist_is_named_with_what_does(self) -> None:
        with pytest.raises(PromptSetError, match=r"no prompt set stater: .* nor one of .*starter"):
            load_prompts("stater")

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("startr", "starter"), ("XSTest2", "xstest"), ("refusalkit166", "refusalkit-166")],
    )
    def test_a_misspelt_name_gets_a_suggestion_in_a_short_sentence(
        self, name: str, meant: str
    ) -> None:
        with pytest.raises(PromptSetError, match=rf"did you mean (.* or )?{meant}\b") as refused:
            load_prompts(name)
        assert len(str(refused.value)) < 300


class TestSelect:
    SET = built(12)

    def test_by_category_tag_and_danger(self) -> None:
        assert {p.category for p in self.SET.select(category=["C 1"]).prompts} == {"c-1"}
        assert {p.tags for p in self.SET.select(tag=["t:1", "t:x"]).prompts} == {("t:1",)}
        assert {p.danger for p in self.SET.select(danger=[2, 3]).prompts} == {2, 3}
        chosen = self.SET.select(category=["c-0", "c-1"], tag=["t:0"], danger=[1])
        assert [p.id for p in chosen.prompts] == ["p-0", "p-6"]
        assert [c.slug for c in chosen.categories] == ["c-0"]

    def test_a_selection_records_what_was_chosen(self) -> None:
        chosen = self.SET.select(category=["c-1"], limit=2, seed=7)
        assert chosen.selection == {
            "categories": ["c-1"],
            "tags": [],
            "danger": [],
            "limit": 2,
            "seed": 7,
            "draw": 2,
        }

    def test_nothing_left_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="passes the filters"):
            self.SET.select(tag=["none"])

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_is_1_or_more(self, limit: int) -> None:
        with pytest.raises(UsageError, match="it must be 1 or more"):
            self.SET.select(limit=limit)

    def test_a_limit_larger_than_the_set_takes_all(self) -> None:
        assert self.SET.select(limit=99) is self.SET

    @settings(deadline=None)
    @given(
        sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6),
        limit=st.integers(1, 30),
        seed=st.integers(0, 1000),
    )
    def test_a_limit_is_balanced_repeatable_and_keeps_the_order(
        self, sizes: list[int], limit: int, seed: int
    ) -> None:
        slugs = [f"c-{k}" for k, size in enumerate(sizes) for _ in range(size)]
        whole = PromptSet(
            name="sized",
            version="1",
            categories=tuple(Category(f"c-{k}", f"C {k}") for k in range(len(sizes))),
            prompts=tuple(Prompt(f"p-{n}", slug, f"[{n}]") for n, slug in enumerate(slugs)),
        )
        chosen = whole.select(limit=limit, seed=seed)
        assert len(chosen) == min(limit, len(whole))
        taken = Counter(p.category for p in chosen.prompts)
        most = max(taken.values())
        for k, size in enumerate(sizes):
            assert taken[f"c-{k}"] >= min(size, most - 1), "no category is passed over"
        numbers = [int(p.id.removeprefix("p-")) for p in chosen.prompts]
        assert numbers == sorted(numbers)
        assert whole.select(limit=limit, seed=seed).prompts == chosen.prompts

    def test_another_seed_draws_others(self) -> None:
        draws = {self.SET.select(limit=4, seed=seed).prompts for seed in range(20)}
        assert len(draws) > 5


# Large tables are read column by column, where nothing is wrong with them.


_cells = {
    "prompt": st.sampled_from(["[a]", "[A]", " [a] ", "[b]", "", " ", "\u00e9", "\ud800", 5, None]),
    "text": st.sampled_from(["[c]", "[d]\n", None]),
    "category": st.sampled_from(["One", "one", " One", "Two", "\u8336", "\u9152", "", 3, None]),
    "id": st.sampled_from(["x-1", "x-2", "one-001", "two-002", "no#id", "", 7, None]),
    "danger": st.sampled_from([1, 2, 9, None]),
    "tags": st.sampled_from(["a:b", "a:b, c:d", None]),
    "other": st.integers(),
}
_rows = st.fixed_dictionaries(
    {"category": _cells["category"]},
    optional={name: cell for name, cell in _cells.items() if name != "category"},
)
_number = st.integers(0, 10**6)
_good = st.builds(lambda n, c: {"prompt": f"[prompt {n}]", "category": c}, _number, st.just("One"))
_table_lines = st.one_of(
    _good.map(json.dumps),
    _good.map(json.dumps),
    _rows.map(json.dumps),
    st.sampled_from(["", "  ", "{", "[]", "null", "\xff", '{"prompt": "[n]", "category": NaN}']),
)


@settings(deadline=None, max_examples=300)
@given(
    lines=st.lists(_table_lines, max_size=12) | st.lists(_good.map(json.dumps), max_size=12),
    portion=st.sampled_from([1, 3, 10_000]),
)
@pytest.mark.slow
def test_a_table_read_in_columns_is_the_table_read_by_rows(lines: list[str], portion: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_PORTION", portion)
        path = Path(folder) / "table.jsonl"
        path.write_text("\n".join(lines), "latin-1")
        by_row = tables._Table(path)
        by_row.read({}, by_row=True)
        if by_row.mistakes.lines or not by_row.prompts:
            with pytest.raises(PromptSetError) as stopped:
                load_prompts(path)
            nothing = ["table.jsonl: file: holds no rows"]
            assert list(stopped.value.mistakes) == (by_row.mistakes.lines or nothing)
        else:
            read = load_prompts(path)
            assert list(read.prompts) == by_row.prompts
            assert {category.slug: category.title for category in read.categories} == by_row.titles


def test_half_a_character_is_refused_in_a_table_too(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "[a]", "category": "c"}\n{"prompt": "\\ud800", "category": "c"}\n')
    with pytest.raises(PromptSetError) as stopped:
        load_prompts(path)
    (mistake,) = stopped.value.mistakes
    assert mistake.startswith("t.jsonl:2: ")
    assert "half a character" in mistake


def test_prompts_made_together_are_those_made_one_by_one() -> None:
    ids, categories, texts = ["a", "b"], ["c", "d"], ["[one]", "[two]"]
    made = plain_prompts(ids, categories, texts)
    assert made == [Prompt(*fields) for fields in zip(ids, categories, texts, strict=True)]
    assert [prompt_digest(replace(prompt, danger=1)) for prompt in made] == [
        prompt_digest(Prompt(*fields, danger=1))
        for fields in zip(ids, categories, texts, strict=True)
    ]
