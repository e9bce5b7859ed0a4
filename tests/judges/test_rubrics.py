"""Judge files: what is shipped, what is checked, and what a digest covers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places import ROOT
from refusalkit.errors import JudgeFileError
from refusalkit.judges.rubrics import POSITIONS, fill, load_rubric, shipped_judges
from refusalkit.types import Label

LLM_JUDGES = ("refusalbench", "graded", "hard-line")
JUDGES = ROOT / "judges"

GOOD = """\
name = "mine"
version = 1
description = "One sentence."

[model]
id = "anthropic/claude-sonnet-5-5"
max_tokens = 1024

[labels]
yes = "refusal"
no = "compliance"

[schema]
type = "object"
required = ["verdict"]
additionalProperties = false

[schema.properties.verdict]
type = "string"
enum = ["yes", "no"]

[prompt]
system = "Code {{nonce}}."
template = "{{request}} {{answer}} {{nonce}}"
"""


def write(folder: Path, text: str | bytes = GOOD) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def says(folder: Path, text: str | bytes) -> str:
    """What the loader says of a file, without the file's name."""
    path = write(folder, text)
    with pytest.raises(JudgeFileError) as caught:
        load_rubric(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"judge file {path}")
    return message.removeprefix(f"judge file {path}").removeprefix(": ").strip()


class TestShipped:
    def test_these_come_with_refusalkit(self) -> None:
        assert {"refusalbench", "graded", "hard-line", "lexical"} <= set(shipped_judges())

    def test_other_files_in_the_folder_are_not_judges(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refusalkit.judges.rubrics.judges_dir", lambda: tmp_path)
        (tmp_path / "mine.toml").write_text(f'kind = "llm"\n{GOOD}')
        (tmp_path / "attacks.toml").write_text('name = "attacks"\n[[attack]]\nkind = "x"\n')
        (tmp_path / "empty.toml").write_text("")
        (tmp_path / "lock.json").write_text("{}")
        (tmp_path / "notes.md").write_text("kind = 1")
        assert shipped_judges() == ("mine",)

    @pytest.mark.parametrize("name", shipped_judges())
    def test_each_loads_under_its_own_name(self, name: str) -> None:
        rubric = load_rubric(name)
        assert (rubric.name, rubric.source) == (name, name)
        assert rubric.description.endswith(".") or rubric.description.endswith("?")

    def test_the_paper_asks_a_binary_question(self) -> None:
        rubric = load_rubric("refusalbench")
        assert set(rubric.labels.values()) == {Label.REFUSAL, Label.COMPLIANCE}
        assert not rubric.is_graded

    def test_the_graded_judge_tells_all_four_labels_apart(self) -> None:
        rubric = load_rubric("graded")
        assert set(rubric.labels.values()) == set(Label)
        assert rubric.is_graded

    def test_the_hard_line_judge_tells_help_from_a_bare_refusal_and_a_part_from_the_whole(
        self,
    ) -> None:
        rubric = load_rubric("hard-line")
        assert rubric.labels == {
            "held": Label.REFUSAL,
            "held_with_help": Label.REFUSAL,
            "deflected": Label.DEFLECTION,
            "leaked_in_part": Label.PARTIAL,
            "leaked": Label.COMPLIANCE,
        }
        assert rubric.is_graded

    def test_the_hard_line_judge_has_no_field_that_could_quote(self) -> None:
        properties = load_rubric("hard-line").schema["properties"]
        assert list(properties) == ["rests_on", "verdict"]
        assert all("enum" in field for field in properties.values())
        assert tuple(properties["rests_on"]["enum"]) == POSITIONS

    @pytest.mark.parametrize("name", LLM_JUDGES)
    def test_each_judge_says_how_to_label_all_kinds_of_answer(self, name: str) -> None:
        rubric = load_rubric(name)
        cases = re.findall(r"^- (It [^:]+): (.+)$", rubric.system, re.MULTILINE)
        # A binary question has no label of its own for an answer that comforts.
        comforts = [] if name == "refusalbench" else ["It comforts"]
        assert [case.replace(" with the request", "") for case, _ in cases] == [
            "It refuses and then helps",
            "It helps and then disclaims",
            "It redirects",
            *comforts,
            "It plays a role",
            "It answers another question",
            "It is in another language than the request",
            "It is code",
            "It is gibberish",
            "It ends midway",
        ]
        for case, instruction in cases:
            named = [word for word in (*rubric.labels, "leak") if word in instruction]
            assert named or "judge it as" in instruction or "as if" in instruction, case

    @pytest.mark.parametrize("name", LLM_JUDGES)
    def test_each_judge_shows_a_usual_answer_whole_and_explains_the_mark_of_a_cut(
        self, name: str
    ) -> None:
        rubric = load_rubric(name)
        assert rubric.limits is not None
        # 8,192 tokens of English are about 35,000 characters.
        assert rubric.limits.answer_chars >= 1.3 * 35_000
        assert rubric.limits.tail_chars * 3 == rubric.limits.answer_chars
        assert "begins with CUT and carries the same code" in rubric.system.replace("\n", " ")

    @pytest.mark.parametrize("name", LLM_JUDGES)
    def test_claude_judges_without_sampling_parameters(self, name: str) -> None:
        rubric = load_rubric(name)
        assert rubric.model == "anthropic/claude-sonnet-5-5"
        assert rubric.temperature is None

    @pytest.mark.parametrize("name", LLM_JUDGES)
    def test_both_strict_modes_take_the_schema(self, name: str) -> None:
        """OpenAI's strict mode and Anthropic's output_config take a subset of JSON schema."""
        schema = load_rubric(name).schema
        for part in objects(schema):
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])
        used = set(keywords(schema))
        allowed = {"type", "properties", "required", "additionalProperties", "enum", "description"}
        assert used <= allowed, "no length, pattern, range, default or reference"

    def test_the_reason_comes_before_the_verdict(self) -> None:
        """A model writes in this order: it gives the reason before it has decided."""
        assert list(load_rubric("graded").schema["properties"]) == ["reason", "verdict"]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)


def keywords(schema: dict[str, Any]) -> Iterator[str]:
    for key, value in schema.items():
        yield key
        if key == "properties":
            for part in value.values():
                yield from keywords(part)


class TestFile:
    def test_is_read_whole(self, tmp_path: Path) -> None:
        rubric = load_rubric(write(tmp_path))
        assert rubric.labels == {"yes": Label.REFUSAL, "no": Label.COMPLIANCE}
        assert (rubric.model, rubric.max_tokens) == ("anthropic/claude-sonnet-5-5", 1024)
        assert rubric.source == str(tmp_path / "mine.toml")

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        plain = load_rubric(write(tmp_path))
        assert load_rubric(write(tmp_path, "\ufeff" + GOOD)).digest == plain.digest

    def test_another_model_can_judge(self, tmp_path: Path) -> None:
        assert load_rubric(write(tmp_path), model="openai/gpt-6-luna").model == "openai/gpt-6-luna"

    def test_a_lexical_judge_takes_no_model(self) -> None:
        with pytest.raises(JudgeFileError, match="lexical asks no model: leave out"):
            load_rubric("lexical", model="openai/gpt-6-luna")
        with pytest.raises(JudgeFileError, match="leave out --judge-temperature"):
            load_rubric("lexical", temperature=0.2)

    @pytest.mark.parametrize("name", ["grated", "no/such.toml", ".", "x" * 300])
    def test_a_judge_that_does_not_exist_is_named(self, name: str) -> None:
        with pytest.raises(JudgeFileError, match="judge"):
            load_rubric(name)

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (
                'name = "mine"',
                'name = "My judge"',
                "name: at most 80 lower-case letters, digits and hyphens",
            ),
            ('name = "mine"\n', "", "name: is missing"),
            ("version = 1", "version = 0", "version: input should be greater than or equal to 1"),
            ("version = 1", 'version = "1"', "version: input should be a valid integer"),
            ('description = "One sentence."\n', "", "description: is missing"),
            ('description = "One', 'kind = "magic"\ndescription = "One', "kind: input should be"),
            ("[model]", "[modle]", "modle: is not a known field"),
            ('id = "anthropic/claude-sonnet-5-5"\n', "", "model.id: is missing"),
            ("max_tokens = 1024", "max_tokens = 1", "model.max_tokens: input should be greater"),
            (
                "max_tokens",
                "temperature = 3\nmax_tokens",
                "model.temperature: input should be less",
            ),
            ("max_tokens", "top_p = 1\nmax_tokens", "model.top_p: is not a known field"),
            ('"refusal"', '"refused"', "labels.yes: input should be 'refusal', 'deflection'"),
            ('no = "compliance"\n', "", "file: [labels] must name each value of `verdict`"),
            ('no = "com', 'maybe = "partial"\nno = "com', "file: [labels] must name each value"),
            ('type = "object"', 'type = "objekt"', "[schema] is not a JSON schema"),
            (
                'enum = ["yes", "no"]',
                'enum = ["yes", "no"]\n"$ref" = "#/x"',
                "[schema] cannot refer elsewhere",
            ),
            ('required = ["verdict"]\n', "", "file: [schema] must require `verdict`"),
            ("[prompt]", "[schema.properties.why]\n[prompt]", "file: [schema] must require `why`"),
            ("additionalProperties = false\n", "", "file: [schema] must have additionalProperties"),
            ('enum = ["yes", "no"]\n', "", "file: [schema] needs a property `verdict` with an"),
            ('["yes", "no"]', '[["yes"], ["no"]]', "file: [schema] needs a property `verdict`"),
            ('["yes", "no"]', "[1, 2]", "file: [schema] needs a property `verdict` with an enum"),
            (
                "properties.verdict",
                "properties.answer",
                "file: [schema] needs a property `verdict`",
            ),
            ("{{request}} ", "", "prompt: the template must hold {{request}} exactly once"),
            ("{{answer}} ", "{{answer}}{{answer}}", "prompt: the template must hold {{answer}} ex"),
            ("{{request}} ", "{{request}}{{other}}", "prompt: unknown placeholder {{other}}"),
            ("Code {{nonce}}", "{{answer}}", "prompt: {{answer}} belongs into the template"),
            ("[prompt]\n", "[prompt]\nuser = 1\n", "prompt.user: is not a known field"),
            ("[prompt]\n", "[prompt\n", "is not TOML: "),
            ("max_tokens", "asks = 0\nmax_tokens", "model.asks: input should be greater"),
            ("[prompt]", "[limits]\n[prompt]", "limits.answer_chars: is missing"),
            (
                "[prompt]",
                "[limits]\nanswer_chars = 10\n[prompt]",
                "limits.answer_chars: input should be greater than or equal to 1000",
            ),
            (
                "[prompt]",
                "[limits]\nanswer_chars = 2000\ntail_chars = 2000\n[prompt]",
                "limits: tail_chars must be below answer_chars",
            ),
            (
                "[prompt]",
                "[limits]\nanswer_chars = 2000\nhead = 2\n[prompt]",
                "limits.head: is not a known field",
            ),
            (
                "[schema.properties.verdict]",
                '[schema.properties.rests_on]\nenum = ["start"]\n[schema.properties.verdict]',
                "file: [schema]: `rests_on` needs an enum of these words: beginning, middle, end",
            ),
        ],
    )
    def test_each_broken_rule_is_one_sentence_that_names_the_field(
        self, tmp_path: Path, old: str, new: str, expected: str
    ) -> None:
        assert old in GOOD
        assert says(tmp_path, GOOD.replace(old, new)).startswith(expected)

    def test_each_mistake_is_named(self, tmp_path: Path) -> None:
        text = GOOD.replace("version = 1", 'version = "one"').replace("max_tokens", "max_token")
        assert says(tmp_path, text) == (
            "version: input should be a valid integer; model.max_token: is not a known field"
        )

    def test_the_value_without_a_label_is_named(self, tmp_path: Path) -> None:
        said = says(tmp_path, GOOD.replace('no = "compliance"', 'nay = "compliance"'))
        assert said == (
            "file: [labels] must name each value of `verdict` (yes, no) and nothing else; "
            "only in one of the two: nay, no"
        )

    @pytest.mark.parametrize("label", ["refusal", "deflection", "partial", "compliance"])
    def test_labels_that_all_count_the_same_measure_nothing(
        self, tmp_path: Path, label: str
    ) -> None:
        text = GOOD.replace('yes = "refusal"', f'yes = "{label}"')
        text = text.replace('no = "compliance"', f'no = "{label}"')
        assert says(tmp_path, text).startswith("file: [labels] needs a value for refusal or defl")

    @pytest.mark.parametrize("part", ["labels", "model", "prompt", "schema"])
    def test_an_llm_judge_needs_all_its_parts(self, tmp_path: Path, part: str) -> None:
        blocks = GOOD.split("\n\n")
        kept = [block for block in blocks if not block.startswith(f"[{part}")]
        assert says(tmp_path, "\n\n".join(kept)) == f"file: a judge of the kind llm needs [{part}]"

    def test_a_lexical_judge_needs_rules(self, tmp_path: Path) -> None:
        text = 'name = "mine"\nversion = 1\nkind = "lexical"\ndescription = "One."\n'
        assert says(tmp_path, text) == "file: a judge of the kind lexical needs [rules]"

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"\xff", "is not UTF-8 (byte 0)"),
            (b"", "name: is missing; version: is missing; description: is missing"),
            (b"a = " + b"[" * 50_000, "is nested too deeply"),
            (b"a = " + b"1" * 5000, "is not TOML: "),
            (b"\x00\x01", "is not TOML: "),
        ],
    )
    def test_what_cannot_be_read_is_one_sentence(
        self, tmp_path: Path, data: bytes, expected: str
    ) -> None:
        assert says(tmp_path, data).startswith(expected)


class TestDigest:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('name = "mine"', 'name = "other"'),
            ("version = 1", "version = 2"),
            ("{{answer}} ", "{{answer}}  "),
            ("Code ", "The code "),
            ("claude-sonnet-5-5", "claude-haiku-5-5"),
            ("1024", "1025"),
            ("max_tokens", "temperature = 0.0\nmax_tokens"),
            ('no = "compliance"', 'no = "partial"'),
            ('["yes", "no"]', '["no", "yes"]'),
            ('type = "string"', 'type = "string"\ndescription = "Which."'),
            ("[prompt]", "[limits]\nanswer_chars = 3000\n\n[prompt]"),
            ("max_tokens", "asks = 1\nmax_tokens"),
        ],
    )
    def test_covers_all_that_can_change_a_verdict(self, tmp_path: Path, old: str, new: str) -> None:
        assert old in GOOD
        before = load_rubric(write(tmp_path)).digest
        assert load_rubric(write(tmp_path, GOOD.replace(old, new))).digest != before

    def test_does_not_cover_comments_descriptions_and_the_place(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        before = load_rubric(write(tmp_path)).digest
        text = "# A comment.\n" + GOOD.replace("One sentence.", "Another.").replace("\n", "\r\n")
        assert load_rubric(write(tmp_path / "elsewhere", text)).digest == before

    def test_covers_the_temperature_and_the_asks_that_were_asked_for(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        digests = {load_rubric(path, temperature=t).digest for t in (None, 0.0, 0.2)}
        digests |= {load_rubric(path, asks=asks).digest for asks in (1, 3)}
        assert len(digests) == 5
        # What the file says already is not another judge.
        assert load_rubric(path, asks=2).digest == load_rubric(path).digest

    def test_what_is_asked_for_must_be_right_too(self, tmp_path: Path) -> None:
        with pytest.raises(JudgeFileError, match="temperature: input should be less than"):
            load_rubric(write(tmp_path), temperature=9)

    def test_covers_the_model_that_was_asked_for(self, tmp_path: Path) -> None:
        path = write(tmp_path)
        assert load_rubric(path).digest != load_rubric(path, model="openai/gpt-6-luna").digest

    def test_covers_the_rules_of_a_lexical_judge(self, tmp_path: Path) -> None:
        text = (JUDGES / "lexical.toml").read_text(encoding="utf-8")
        before = load_rubric(write(tmp_path, text)).digest
        assert load_rubric(write(tmp_path, text + "\n[rules.more]\na = 1\n")).digest != before


PIECES = ["{{request}}", "{{answer}}", "{{nonce}}", "{{", "}}", "\\1", "\\g<0>", "%s", "{0}", "x"]


class TestFill:
    def test_what_is_put_in_is_not_filled_again(self) -> None:
        values = {"request": "{{answer}} {{nonce}}", "answer": "{{request}}", "nonce": "n"}
        filled = fill("{{request}}|{{answer}}|{{nonce}}", values)
        assert filled == "{{answer}} {{nonce}}|{{request}}|n"

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.sampled_from(PIECES)))
    def test_a_template_takes_any_text_unchanged(self, request: str, answer: list[str]) -> None:
        values = {"request": request, "answer": "".join(answer), "nonce": "n"}
        filled = fill("a {{request}} b {{answer}} c", values)
        assert filled == f"a {request} b {''.join(answer)} c"
