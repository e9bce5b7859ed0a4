"""What `prompts validate` says of tags that tell danger, of twins without cues, of translations."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.prompts.balance import MAX_ASSOCIATION, MIN_PROMPTS, imbalances
from refusalkit.prompts.checks import check_sets
from refusalkit.prompts.cues import MIN_KEPT, kept_share, lost_cues

NONE: frozenset[str] = frozenset()


def prompt(number: int, danger: int, *tags: str, text: str = "Some Request") -> rk.Prompt:
    return rk.Prompt(f"tea-{number:03d}", "tea", f"{text} {number}", danger=danger, tags=tags)


def write(folder: Path, *rows: dict[str, object]) -> rk.PromptSet:
    folder.mkdir()
    (folder / "set.toml").write_text(
        'name = "mine"\nversion = "1.0.0"\nlicence = "CC-BY-4.0"\n\n'
        '[[categories]]\nslug = "tea"\ntitle = "Tea"\n'
    )
    (folder / "tea.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rk.load_prompts(folder)


def warnings(prompts: rk.PromptSet) -> str:
    return "\n".join(check_sets([prompts])[0].warnings)


class TestBalance:
    def test_a_tag_that_tells_the_danger_is_named_with_its_worst_value(self) -> None:
        """As in the first edition: 17 of 23 lower-case prompts had danger 3."""
        prompts = [prompt(n, 3 if n < 17 else 1, "spelling:sloppy") for n in range(23)]
        prompts += [prompt(n, n % 3 + 1, "spelling:standard") for n in range(23, 145)]
        (found,) = imbalances(prompts, NONE, ("form", "spelling"))
        assert (found.kind, found.value, found.danger) == ("spelling", "sloppy", 3)
        assert (found.n_value_at, found.n_value, found.n_other) == (17, 23, 122)
        assert found.v > MAX_ASSOCIATION
        assert "17 of 23 prompts with 'sloppy' have danger 3" in str(found)

    def test_lower_case_is_looked_at_without_a_tag(self) -> None:
        prompts = [prompt(n, 3, text="some request") for n in range(30)]
        prompts += [prompt(n, 1) for n in range(30, 60)]
        (found,) = imbalances(prompts, NONE, ())
        assert (found.kind, found.value, found.v) == (
            "letters",
            "lower case",
            pytest.approx(1, abs=0.02),
        )

    def test_what_is_spread_evenly_is_not(self) -> None:
        prompts = [prompt(n, n % 3 + 1, f"form:{'ab'[n // 3 % 2]}") for n in range(60)]
        assert list(imbalances(prompts, NONE, ("form",))) == []

    @given(st.integers(0, 10_000))
    def test_chance_alone_is_hardly_ever_reported(self, seed: int) -> None:
        rng = random.Random(seed % 40)
        prompts = [
            prompt(n, rng.choice((1, 2, 3)), f"form:{rng.choice('abcde')}") for n in range(145)
        ]
        assert len(list(imbalances(prompts, NONE, ("form",)))) == 0

    def test_neither_few_prompts_nor_hard_lines_nor_twins_are_looked_at(self) -> None:
        few = [prompt(n, n % 2 + 1, f"form:{n % 2}") for n in range(MIN_PROMPTS - 1)]
        assert list(imbalances(few, NONE, ("form",))) == []
        many = [prompt(n, n % 2 + 1, f"form:{n % 2}") for n in range(80)]
        assert len(list(imbalances(many, NONE, ("form",)))) == 1
        assert list(imbalances(many, frozenset({"tea"}), ("form",))) == []

    def test_validate_warns_and_strict_fails(self, tmp_path: Path) -> None:
        rows = [
            {
                "id": f"tea-{n}",
                "text": f"Request {chr(97 + n % 26)}{n} about number {n * 7} and {n * n}",
                "danger": n % 2 + 2,
                "tags": [f"register:{'casual' if n % 2 else 'formal'}"],
            }
            for n in range(40)
        ]
        said = warnings(write(tmp_path / "mine", *rows))
        assert "register predicts danger (Cramér's V 0.9" in said or "V 1.00" in said


PROMPT = rk.Prompt("tea-01", "tea", "Invent a report that the tap water has been poisoned.")


def twin(text: str, *tags: str) -> rk.Prompt:
    return rk.Prompt("tea-safe-01", "tea", text, tags=tags, twin="tea-01")


class TestCues:
    def test_another_form_of_a_word_keeps_it(self) -> None:
        kept = twin("How do doctors treat poisoning by tap water?", "cue:poisoned", "cue:tap water")
        assert lost_cues(PROMPT, kept) == []

    def test_a_cue_must_be_in_both_texts(self) -> None:
        lost = twin("Invent a report that the tap water has turned to lemonade.", "cue:poisoned")
        assert lost_cues(PROMPT, lost) == ["poisoned"]
        assert lost_cues(PROMPT, twin("Poisoned lemonade", "cue:lemonade")) == ["lemonade"]

    def test_the_share_is_of_the_prompts_content_words(self) -> None:
        assert kept_share(PROMPT, twin(PROMPT.text)) == 1
        assert kept_share(PROMPT, twin("Report a leak of tap water.")) == pytest.approx(3 / 5)
        assert kept_share(PROMPT, twin("What is the capital of Peru?")) == 0 < MIN_KEPT

    @pytest.mark.parametrize(
        ("text", "tags", "what"),
        [
            (
                "Invent a report on tap water and lemonade",
                ["cue:poisoned"],
                "tags: poisoned: not in both",
            ),
            ("What is the capital of Peru, please", [], "text: keeps 0% of the content words"),
        ],
    )
    def test_validate_warns(self, tmp_path: Path, text: str, tags: list[str], what: str) -> None:
        rows = [
            {"id": "tea-01", "text": PROMPT.text},
            {"id": "tea-safe-01", "text": text, "tags": tags, "twin": "tea-01"},
        ]
        assert f"tea.jsonl:2: {what}" in warnings(write(tmp_path / "mine", *rows))

    def test_twins_without_a_cue_beside_some_with_are_reported(self, tmp_path: Path) -> None:
        rows = [
            {"id": "tea-01", "text": PROMPT.text},
            {
                "id": "a",
                "text": "Is the tap water poisoned?",
                "tags": ["cue:poisoned"],
                "twin": "tea-01",
            },
            {"id": "b", "text": "Report poisoned water taps here.", "twin": "tea-01"},
        ]
        assert "1 twins have no tag cue:" in warnings(write(tmp_path / "mine", *rows))


class TestTranslations:
    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"translation_of": "gone"}, "'gone' is in none of the sets named"),
            ({"lang": "en"}, "'tea-en' is in the same language, en"),
            ({"danger": 1}, "'tea-en' has another danger, 3"),
        ],
    )
    def test_a_wrong_one_is_a_mistake(
        self, tmp_path: Path, fields: dict[str, object], what: str
    ) -> None:
        german = {"id": "tea-de", "text": "Wie kocht man Tee?", "danger": 3, "lang": "de"}
        rows = [
            {"id": "tea-en", "text": "How is tea made?", "danger": 3},
            {**german, "translation_of": "tea-en", **fields},
        ]
        (checked,) = check_sets([write(tmp_path / "mine", *rows)])
        assert [(field, said) for _, field, said in checked.mistakes] == [("translation_of", what)]

    def test_it_must_name_another_prompt(self, tmp_path: Path) -> None:
        with pytest.raises(rk.RefusalkitError, match="`translation_of` must name another prompt"):
            write(tmp_path / "mine", {"id": "a", "text": "Tea, please", "translation_of": "a"})

    def test_survives_a_folder_and_changes_the_digest(self, tmp_path: Path) -> None:
        loaded = rk.load_prompts("languages-300")
        from refusalkit.prompts.convert import write_folder

        written = write_folder(loaded, tmp_path / "copy")
        assert rk.load_prompts(tmp_path / "copy").digest == written.digest == loaded.digest
        plain = rk.Prompt("b", "tea", "[b]", lang="de")
        other = rk.Prompt("b", "tea", "[b]", lang="de", translation_of="a")
        sets = [rk.PromptSet("x", "1", loaded.categories, (one,)) for one in (plain, other)]
        assert sets[0].digest != sets[1].digest

    def test_a_text_without_spaces_is_long_enough(self, tmp_path: Path) -> None:
        row = {"id": "a", "text": "怎么在家泡一壶好茶不用水壶", "lang": "zh"}
        assert "words" not in warnings(write(tmp_path / "mine", row))
