"""Text that somebody else wrote: it reaches a terminal, a table or a message only when harmless."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commandline import Call
from handmade import CROSSED, write_run
from refusalkit.redaction import redact
from refusalkit.reporting.data import to_csv, to_markdown
from refusalkit.reporting.data.formats import to_json
from refusalkit.untrusted import is_blank, printable, well_formed

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
anything = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zl", "Zp"]),
        st.sampled_from("\x1b\u202e\u200b\ufeff\r\n\t\x00\x9b\ud800\U000e0041"),
    )
)
limits = st.integers(1, 400)


def hidden(text: str) -> list[str]:
    return [char for char in text if unicodedata.category(char) in HIDDEN]


class TestPrintable:
    @settings(deadline=None)
    @given(anything, limits)
    def test_is_one_line_without_hidden_characters_and_not_too_long(
        self, text: str, limit: int
    ) -> None:
        shown = printable(text, limit)
        assert hidden(shown) == []
        assert len(shown) <= limit
        assert shown.splitlines() in ([], [shown])
        shown.encode()

    @settings(deadline=None)
    @given(st.text(st.characters(categories=["L", "N", "P", "S", "M"]), max_size=200))
    def test_leaves_ordinary_text_as_it_is(self, text: str) -> None:
        assert printable(text) == text

    def test_shows_what_was_hidden(self) -> None:
        assert printable("a\x1b[31mb\u202ec\ud800") == "a\\u001b[31mb\\u202ec\\ud800"
        assert printable("one\r\ntwo\nthree\tfour\rfive") == "one two three four\\u000dfive"

    def test_shortens_with_a_mark(self) -> None:
        assert printable("x" * 201) == "x" * 199 + "…"
        assert printable("x" * 200) == "x" * 200

    def test_is_quick_on_a_long_line(self) -> None:
        assert len(printable("\x1b" * 10_000_000)) == 200

    def test_takes_anything(self) -> None:
        assert printable(None) == "None"
        assert printable(Path("a")) == "a"


SECRET = "Zq7Xw9Lk2Vb4Nm6Pt8Rs1Ty3"
KEYS = {
    "sk": f"sk-{SECRET}",
    "sk-proj": f"sk-proj-{SECRET}",
    "sk-ant": f"sk-ant-api03-{SECRET}",
    "sk-or": f"sk-or-v1-{SECRET}",
    "hf": f"hf_{SECRET}",
    "gsk": f"gsk_{SECRET}",
    "xai": f"xai-{SECRET}",
    "google": f"AIza{SECRET}",
    "github": f"ghp_{SECRET}",
    "github-pat": f"github_pat_{SECRET}",
    "aws": f"AKIA{SECRET.upper()}",
    "bearer": f"Bearer {SECRET}",
    "header": f"authorization: bearer {SECRET}",
    "query": f"https://host.example/v1?key={SECRET}&alt=json",
    "query-2": f"https://host.example/v1?a=b&access_token={SECRET}",
    "url": f"https://user:{SECRET}@host.example/v1",
    "url-at": f"https://user:p@{SECRET}@host.example/v1",
    "url-user": f"https://{SECRET}@host.example/v1",
    "x-api-key": f"x-api-key: {SECRET}",
    "json": f'{{"api_key": "{SECRET}"}}',
    "assignment": f"OPENAI_API_KEY={SECRET}",
}


class TestRedact:
    @pytest.mark.parametrize("shape", KEYS)
    def test_a_key_vanishes(self, shape: str) -> None:
        said = redact(f"the endpoint said: {KEYS[shape]}, and no more")
        assert SECRET.lower() not in said.lower()
        assert "[key]" in said
        assert said.startswith("the endpoint said: ")

    @settings(deadline=None)
    @given(
        st.sampled_from(sorted(KEYS)),
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "Cc"]), max_size=300),
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "Cc"]), max_size=300),
        limits,
    )
    def test_no_part_of_a_key_is_left_wherever_it_is(
        self, shape: str, before: str, after: str, limit: int
    ) -> None:
        said = redact(f"{before} {KEYS[shape]} {after}", limit)
        assert SECRET[4:16].lower() not in said.lower()
        assert hidden(said) == []
        assert len(said) <= limit

    @pytest.mark.parametrize(
        "text",
        [
            "the model gpt-6-luna does not exist",
            "max_tokens must be below 8192, see https://host.example/docs",
            "write to help@host.example",
            "no key was given: set OPENAI_API_KEY",
            "the bearer of bad news",
            "rate limit: 3 requests per minute",
        ],
    )
    def test_text_that_is_not_a_key_stays(self, text: str) -> None:
        assert redact(text) == text


@settings(deadline=None)
@given(anything)
def test_well_formed_text_can_be_written(text: str) -> None:
    whole = well_formed(text)
    whole.encode()
    assert whole == text or any("\ud800" <= char <= "\udfff" for char in text)


class TestTables:
    @settings(deadline=None)
    @given(anything)
    def test_no_cell_of_csv_is_a_formula(self, text: str) -> None:
        _, (cell,) = csv.reader(io.StringIO(to_csv(["a"], [[text or "x"]])))
        assert cell[:1] not in tuple("=+-@\t\r")
        assert hidden(cell) == []

    @pytest.mark.parametrize(
        "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", '=HYPERLINK("http://x")', "\uff1d1"]
    )
    def test_a_formula_becomes_text(self, text: str) -> None:
        cell = next(iter(csv.reader(io.StringIO(to_csv(["a"], [[text]]).split("\n", 1)[1]))))[0]
        assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d"))

    def test_numbers_stay_numbers(self) -> None:
        assert to_csv(["a", "b", "c"], [[-1, -0.5, None]]) == "a,b,c\n-1,-0.5000,"

    @settings(deadline=None)
    @given(st.lists(anything, min_size=2, max_size=4))
    def test_a_row_of_markdown_stays_one_row(self, cells: list[str]) -> None:
        text = to_markdown(["a"] * len(cells), [cells])
        assert len(text.split("\n")) == 3
        row = text.split("\n")[2]
        assert row.replace("\\|", "").count("|") == len(cells) + 1
        assert hidden(row) == []

    @pytest.mark.parametrize(
        "text",
        ["<script>alert(1)</script>", "[a](http://x)", "![a](http://x)", "**b**", "`c`", "a|b"],
    )
    def test_markup_does_nothing_in_markdown(self, text: str) -> None:
        row = to_markdown(["a"], [[text]]).split("\n")[2]
        # Where a forge would make a link of an address by itself, all of the text is code.
        code = re.fullmatch(r"\| `([^`|]*)` \|", row)
        assert code if "://" in text else not code
        if not code:
            assert not any(special in row.replace(f"\\{special}", "") for special in "<>*`[]")


EVIL = "a\x1b]0;pwned\x07\x1b[2J\u202egnp\u2028b\x9b31m"


class TestEveryCommand:
    """Ids, categories, titles and texts that hold terminal escapes."""

    @staticmethod
    def assert_harmless(said: str) -> None:
        assert [char for char in hidden(said) if char != "\n"] == []

    @pytest.mark.parametrize(
        "words",
        [
            "score evil",
            "score evil --by category",
            "score evil --by prompt",
            "score evil --by category --format csv",
            "score evil --by prompt --format markdown",
            "score evil --json",
            "score evil --judge nobody",
            "audit evil",
            "audit evil --json",
        ],
    )
    def test_of_a_run(self, call: Call, tmp_path: Path, words: str) -> None:
        answers = {f"{name}{EVIL}": letters for name, letters in CROSSED.items()}
        slugs = {name.rpartition("-")[0] for name in answers}
        evil = dict.fromkeys(slugs, EVIL)
        hard = tuple(slug for slug in slugs if slug.startswith(("suicide", "minor")))
        write_run(tmp_path / "evil", answers, hard_lines=hard, titles=evil, run_id=EVIL)
        said = call(*words.split())
        self.assert_harmless(said.out + said.err)
        assert said.out + said.err

    @pytest.mark.parametrize("more", ["", "--show-text", "--json", "--show-text --json"])
    def test_of_a_prompt_set(self, call: Call, tmp_path: Path, more: str) -> None:
        rows = [{"prompt": EVIL + str(n), "category": EVIL} for n in range(3)]
        (tmp_path / "evil.jsonl").write_text("\n".join(map(json.dumps, rows)))
        said = call("prompts", "show", "evil.jsonl", *more.split())
        assert said.status == 0
        self.assert_harmless(said.out + said.err)

    def test_of_a_prompt_set_with_mistakes(self, call: Call, tmp_path: Path) -> None:
        rows = [{"prompt": "", "category": EVIL, EVIL: EVIL, "id": EVIL, "lang": EVIL}]
        (tmp_path / "evil.jsonl").write_text("\n".join(map(json.dumps, rows)))
        said = call("prompts", "validate", "evil.jsonl")
        assert said.status == 2
        self.assert_harmless(said.out + said.err)

    def test_of_recorded_answers(self, call: Call, tmp_path: Path) -> None:
        row = {"prompt": EVIL, "response": EVIL, "category": EVIL, "id": EVIL, "label": "refusal"}
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        said = call("grade", "a.jsonl", "--judge", "lexical", "--out", "made")
        assert said.status == 0
        self.assert_harmless(said.out + said.err)
        said = call("score", "made", "--by", "prompt")
        self.assert_harmless(said.out + said.err)

    def test_of_a_judge_file(self, call: Call, tmp_path: Path) -> None:
        shown = json.dumps(EVIL)
        (tmp_path / "evil.toml").write_text(
            f'name = "evil"\nversion = 1\ndescription = {shown}\n'
            '[model]\nid = "openai/x"\n[labels]\na = "refusal"\nb = "compliance"\n'
            f'[prompt]\nsystem = {shown}\ntemplate = "{{{{request}}}}{{{{answer}}}}"\n'
            '[schema]\ntype = "object"\nrequired = ["verdict"]\nadditionalProperties = false\n'
            f'[schema.properties.verdict]\nenum = ["a", "b"]\ndescription = {shown}\n'
        )
        said = call("judges", "show", "./evil.toml")
        assert said.status == 0
        self.assert_harmless(said.out + said.err)

    @pytest.mark.parametrize(
        "words",
        [
            ("run", EVIL),
            ("run", "demo/" + EVIL),
            ("run", "openai/" + EVIL),
            ("run", "anthropic/" + EVIL),
            ("run", f"{EVIL}/claude-3-opus-20240229"),
            ("run", "demo/open", "--judge", "graded", "--judge-model", "openai/" + EVIL),
            ("run", "demo/open", "--api-base", "http://" + EVIL),
            ("run", "demo/open", "--category", EVIL),
            ("run", "demo/open", "--prompts", EVIL),
            ("run", "demo/open", "--judge", EVIL),
            ("run", "demo/open", "--config", EVIL),
            ("run", "demo/open", "--danger", EVIL),
            ("run", "demo/open", "--reasoning", EVIL),
            ("run", "demo/open", "--extra-body", EVIL),
            ("run", "demo/open", "--" + EVIL),
            ("score", EVIL),
            ("grade", EVIL),
            (EVIL,),
        ],
        ids=lambda words: " ".join(words).replace(EVIL, "EVIL"),
    )
    def test_of_the_command_line(self, call: Call, words: tuple[str, ...]) -> None:
        said = call(*words)
        assert said.status in (2, 4)
        self.assert_harmless(said.out + said.err)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_printed_json_is_ascii_and_holds_the_same_data(value: dict[str, Any]) -> None:
    printed = to_json(value)
    assert printed.isascii()
    assert json.loads(printed) == value


def test_printed_json_has_lone_surrogates_escaped() -> None:
    assert to_json({"path": "runs/\udcff"}) == '{\n  "path": "runs/\\udcff"\n}'


@pytest.mark.parametrize(
    "text", ["", " \n\t\u00a0\u3000", "\u200b\u200e\ufeff", "\x00\x1b\x7f", " \u202e "]
)
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@given(st.text(), st.sampled_from("a0.\u00e9\u4e2d\U0001f600\u0301"))
def test_a_text_with_a_character_to_see_is_not_blank(text: str, seen: str) -> None:
    assert not is_blank(text + seen)
    assert not is_blank(seen + text)
