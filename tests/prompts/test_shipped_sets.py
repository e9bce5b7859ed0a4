"""The shipped sets as they are published, sets combined, the lock, and what validation finds."""

from __future__ import annotations

import difflib
import json
import random
import re
import runpy
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from places import ROOT
from refusalkit.config.run_config import DEFAULT_PROMPTS
from refusalkit.errors import PromptSetError, UsageError
from refusalkit.prompts import near
from refusalkit.prompts.balance import imbalances
from refusalkit.prompts.checks import TAGS, check_sets
from refusalkit.prompts.cues import MIN_KEPT, kept_share, lost_cues
from refusalkit.prompts.digests import prompt_digest
from refusalkit.prompts.lock import changes, entry_key, lock_entry, read_lock, write_lock
from refusalkit.prompts.summary import summarise, words_of
from refusalkit.scoring.statistics.proportions import exact_upper

MAIN, CONTRAST, STARTER, HARD, LANGUAGES = SETS = tuple(
    map(
        rk.load_prompts,
        ("refusalkit-166", "contrast-146", "starter", "hard-lines-180", "languages-300"),
    )
)
GOOD = ["form:question", "pretext:none", "register:neutral"]
HARD_LINES = {"minor-specific-harm", "exploitation-and-trafficking", "suicide-and-self-harm"}

# What was published under these versions. A change of a set is a new version and a new line here.
PUBLISHED = {
    "contrast-146 2.0.0": (
        "sha256:6af706c417a55675dc6ea357016d4302869c10057840f109b82b226e99dbfb0e"
    ),
    "hard-lines-180 2.0.0": (
        "sha256:7ebfa36831e4bb63af5c7e0f74138d804910c81d83523ae3043451d9ed86e5b3"
    ),
    "languages-300 2.0.0": (
        "sha256:2e42b31f8e623cc5a7920b10f71999d05a39b5ad1a77c47b484192135aa7a29f"
    ),
    "refusalkit-166 2.0.0": (
        "sha256:f8c336137f89ab862ca06d5a068d44358afaf0bb941472df5356a6577c492807"
    ),
    "starter 2.0.0": "sha256:f3c614ff496115bd29c01f9d818d9d918868a3428d8d45f12a3a7e201b9e46b7",
}


class TestRefusalkit166:
    def test_has_166_prompts_in_the_32_categories_of_the_starter_set(self) -> None:
        assert (len(MAIN), len(MAIN.categories)) == (166, 32)
        assert set(MAIN.by_slug) == set(STARTER.by_slug)
        assert MAIN.hard_lines == STARTER.hard_lines == HARD_LINES
        counts = Counter(prompt.category for prompt in MAIN.prompts)
        assert counts == {slug: 7 if slug in HARD_LINES else 5 for slug in MAIN.by_slug}

    def test_refusalkit_166_is_the_default_set(self) -> None:
        assert rk.RunConfig(model="demo/mixed").prompts == DEFAULT_PROMPTS == "refusalkit-166"
        assert "--prompts refusalkit-166" in (ROOT / "Makefile").read_text()

    def test_has_each_danger_in_each_ordinary_category(self) -> None:
        for slug in MAIN.by_slug:
            found = {p.danger for p in MAIN.prompts if p.category == slug}
            assert found == ({3} if slug in HARD_LINES else {1, 2, 3})

    def test_says_form_pretext_and_register_of_each_prompt(self) -> None:
        for prompt in (prompt for one in SETS for prompt in one):
            tags = dict(tag.split(":") for tag in prompt.tags if tag.split(":")[0] in TAGS)
            assert set(tags) == set(TAGS)
            assert all(value in TAGS[prefix] for prefix, value in tags.items())

    def test_has_a_fifth_of_its_ordinary_prompts_at_danger_1(self) -> None:
        """Answering only what is harmless, and holding every line, is not a good score."""
        ordinary = [p for p in MAIN if p.category not in HARD_LINES]
        assert Counter(p.danger for p in ordinary)[1] * 5 <= len(ordinary)

    def test_neither_tag_nor_spelling_nor_id_tells_the_danger(self) -> None:
        assert list(imbalances(MAIN.prompts, MAIN.hard_lines, tuple(TAGS))) == []
        for slug in MAIN.by_slug.keys() - HARD_LINES:
            dangers = [p.danger or 0 for p in MAIN if p.category == slug]
            assert dangers != sorted(dangers)

    def test_varies(self) -> None:
        """Not 166 times the same opening, form or length."""
        summary = summarise(MAIN)
        openings = Counter(tuple(words_of(prompt)[:2]) for prompt in MAIN.prompts)
        assert max(openings.values()) <= 12
        assert set(summary.tags["form"]) == TAGS["form"]
        assert set(summary.tags["register"]) == TAGS["register"]
        assert set(summary.tags["pretext"]) == TAGS["pretext"]
        assert summary.tags["form"]["question"] < len(MAIN) / 2
        assert summary.words["longest"] >= 2 * summary.words["median"]

    def test_holds_no_address_link_or_quantity(self) -> None:
        for prompt in (prompt for one in SETS for prompt in one):
            assert not re.search(r"https?:|www\.|@\w|\d+\s?(mg|ml|g|kg|grams?)\b", prompt.text)

    def test_its_readme_says_how_little_the_tags_tell_of_danger(self) -> None:
        said = " ".join(readme("refusalkit-166").split())
        ordinary = [p for p in MAIN if p.category not in HARD_LINES]
        danger = Counter(p.danger for p in ordinary)
        assert f"| {' / '.join(str(danger[d]) for d in (1, 2, 3))} |" in said
        found = (
            f"{prefix} {association([tag_of(p, prefix) for p in ordinary], ordinary):.2f}"
            for prefix in ("form", "pretext", "register", "spelling")
        )
        assert f"bias-corrected, is: {', '.join(found)} (" in said
        assert all(f"`{slug}`" in said for slug in MAIN.by_slug)


def readme(name: str) -> str:
    return (ROOT / "prompts" / name / "README.md").read_text(encoding="utf-8")


def tag_of(prompt: rk.Prompt, prefix: str) -> str:
    return next(tag.split(":")[1] for tag in prompt.tags if tag.startswith(f"{prefix}:"))


def association(values: list[str], prompts: list[rk.Prompt]) -> float:
    """Cramér's V with danger, corrected for its bias (Bergsma 2013), written out."""
    n, cells = len(prompts), Counter(zip(values, (p.danger for p in prompts), strict=True))
    rows, columns = Counter(values), Counter(p.danger for p in prompts)
    phi2 = sum(cells[r, c] ** 2 / (rows[r] * columns[c]) for r in rows for c in columns) - 1
    r, c = len(rows), len(columns)
    above = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    sides = (size - (size - 1) ** 2 / (n - 1) for size in (r, c))
    return (above / (min(sides) - 1)) ** 0.5


@pytest.mark.parametrize("shipped", SETS, ids=lambda one: one.name)
def test_the_readme_of_a_set_gives_its_counts(shipped: rk.PromptSet) -> None:
    """Every row of its table that counts what `prompts show` counts."""
    said, summary = readme(shipped.name), summarise(shipped)
    words = summary.words
    assert f"{words['shortest']} to {words['longest']}, median {words['median']}" in said
    if ", nine in ten up to " in said:
        assert f", nine in ten up to {words['90 %']} |" in said
    counted = {
        prefix: " / ".join(f"{value} {n}" for value, n in counts.most_common())
        for prefix, counts in summary.tags.items()
    }
    rows = {prefix: f"| {prefix} | {counts} |" for prefix, counts in counted.items()}
    given = [prefix for prefix in rows if f"\n| {prefix} | " in said]
    assert all(rows[prefix] in said for prefix in given)
    assert shipped is STARTER or len(given) >= 2


class TestContrast146:
    def test_has_four_twins_for_each_category_and_ten_for_a_hard_line(self) -> None:
        assert len(CONTRAST) == len(CONTRAST.twins) == 146
        assert not CONTRAST.hard_lines
        counts = Counter(prompt.category for prompt in CONTRAST.prompts)
        assert counts == {slug: 10 if slug in HARD_LINES else 4 for slug in MAIN.by_slug}
        assert {prompt.danger for prompt in CONTRAST.prompts} == {1}

    def test_each_twin_is_a_prompt_of_the_same_category_and_not_harmless_itself(self) -> None:
        used = Counter(CONTRAST.twins.values())
        for name, times in used.items():
            assert (MAIN[name].danger or 0) > 1
            assert times <= (2 if MAIN[name].category in HARD_LINES else 1)
        assert all(MAIN[p.twin or ""].category == p.category for p in CONTRAST)
        assert {p.id for p in MAIN if p.category in HARD_LINES} <= set(used)

    def test_each_keeps_the_words_that_sound_dangerous(self) -> None:
        for prompt in CONTRAST:
            source = MAIN[prompt.twin or ""]
            assert any(tag.startswith("cue:") for tag in prompt.tags)
            assert lost_cues(source, prompt) == []
            assert kept_share(source, prompt) >= MIN_KEPT

    def test_each_is_nearer_to_its_twin_than_to_any_other_prompt(self) -> None:
        for prompt in CONTRAST.prompts:
            nearness = {other.id: nearness_of(prompt, other) for other in MAIN.prompts}
            assert max(nearness, key=lambda name: nearness[name]) == prompt.twin


class TestHardLines180:
    def test_has_60_prompts_to_a_line_enough_for_a_bound_below_5_percent(self) -> None:
        assert HARD.hard_lines == set(HARD.by_slug) == HARD_LINES
        assert Counter(p.category for p in HARD) == dict.fromkeys(HARD_LINES, 60)
        assert 100 * exact_upper(0, 60) < 5 <= 100 * exact_upper(0, 58)

    def test_holds_the_hard_lines_of_the_main_set(self) -> None:
        assert {p.id for p in HARD} >= {p.id for p in MAIN if p.category in HARD_LINES}
        for prompt in (p for p in MAIN if p.category in HARD_LINES):
            assert HARD[prompt.id].text == prompt.text

    def test_fills_its_grid_of_act_and_stage(self) -> None:
        for slug in HARD_LINES:
            cells: Counter[tuple[str, str]] = Counter()
            actors: dict[tuple[str, str], set[str]] = {}
            for prompt in (p for p in HARD if p.category == slug):
                tags = dict(tag.split(":") for tag in prompt.tags)
                cell = tags["act"], tags["stage"]
                cells[cell] += 1
                actors.setdefault(cell, set()).add(tags["actor"])
            acts, stages = ({cell[side] for cell in cells} for side in (0, 1))
            assert len(cells) == len(acts) * len(stages)
            assert len(set(cells.values())) == 1
            assert all(len(actors[cell]) == cells[cell] for cell in cells)


class TestLanguages300:
    def test_has_the_same_50_requests_in_six_languages(self) -> None:
        assert Counter(p.lang for p in LANGUAGES) == dict.fromkeys(
            ("en", "es", "de", "zh", "ar", "hi"), 50
        )
        assert {p.danger for p in LANGUAGES} == {3}
        sources = Counter(p.translation_of for p in LANGUAGES if p.lang != "en")
        assert sources == {p.id: 5 for p in LANGUAGES if p.lang == "en"}
        for prompt in LANGUAGES:
            source = LANGUAGES[prompt.translation_of or prompt.id]
            assert (source.lang, source.category) == ("en", prompt.category)
            assert set(source.tags) == set(prompt.tags)

    def test_takes_one_request_of_each_ordinary_category_and_seven_of_a_line(self) -> None:
        english = Counter(p.category for p in LANGUAGES if p.lang == "en")
        assert english == {slug: 7 if slug in HARD_LINES else 1 for slug in MAIN.by_slug}


def nearness_of(a: rk.Prompt, b: rk.Prompt) -> float:
    return difflib.SequenceMatcher(None, words_of(b), words_of(a), autojunk=False).ratio()


class TestTwin:
    PROMPT = MAIN.prompts[0]

    def test_only_a_prompt_with_a_twin_has_another_digest(self) -> None:
        made = [replace(self.PROMPT, twin=twin) for twin in (None, "x-01", "x-02")]
        assert prompt_digest(made[0]) == prompt_digest(self.PROMPT)
        assert len(set(map(prompt_digest, made))) == 3

    @pytest.mark.parametrize(
        ("twin", "what"),
        [
            ('"a-01"', "`twin` must name another prompt"),
            ('"two words"', "twin: string should match pattern"),
            ("7", "twin: input should be a valid string"),
        ],
    )
    def test_a_wrong_one_is_a_mistake(self, tmp_path: Path, twin: str, what: str) -> None:
        line = f'{{"id": "a-01", "text": "[placeholder]", "twin": {twin}}}\n'
        with pytest.raises(PromptSetError, match=what):
            rk.load_prompts(make(tmp_path / "mine", {"tea": line}))

    def test_may_be_a_column_of_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("id,prompt,category,twin\na,[one],Tea,\nb,[two],Tea,a\n")
        assert rk.load_prompts(path).twins == {"b": "a"}


def make(
    folder: Path, files: Mapping[str, str], *, hard: tuple[str, ...] = (), name: str = ""
) -> Path:
    """A set folder with a category for each file."""
    folder.mkdir()
    head = f'name = "{name or folder.name}"\nversion = "1.0.0"\nlicence = "CC-BY-4.0"\n'
    for slug, text in files.items():
        line = "hard_line = true\n" if slug in hard else ""
        head += f'\n[[categories]]\nslug = "{slug}"\ntitle = "{slug.title()}"\n{line}'
        (folder / f"{slug}.jsonl").write_text(text, encoding="utf-8")
    (folder / "set.toml").write_text(head, encoding="utf-8")
    return folder


def line(prompt_id: str, text: str = "", **fields: object) -> str:
    row = {"id": prompt_id, "text": text or f"Tell me about {prompt_id} please", **fields}
    return json.dumps(row) + "\n"


class TestCombining:
    def test_two_sets_become_one(self) -> None:
        both = rk.load_prompts("refusalkit-166,contrast-146")
        assert (both.name, both.version) == ("refusalkit-166+contrast-146", "2.0.0+2.0.0")
        assert both.prompts == (*MAIN.prompts, *CONTRAST.prompts)
        assert (both.source, both.licence) == ("refusalkit-166,contrast-146", "CC-BY-4.0")
        assert [(part.name, part.n_prompts) for part in both.parts] == [
            ("refusalkit-166", 166),
            ("contrast-146", 146),
        ]
        assert both.digest not in {MAIN.digest, CONTRAST.digest}

    def test_order_changes_neither_digest_nor_hard_lines_nor_titles(self) -> None:
        both = rk.load_prompts("refusalkit-166,contrast-146")
        other = rk.load_prompts("contrast-146, refusalkit-166")
        assert other.digest == both.digest
        assert other.hard_lines == both.hard_lines == HARD_LINES
        assert other.by_slug == both.by_slug == MAIN.by_slug

    def test_a_prompt_must_not_stand_in_two_sets(self) -> None:
        with pytest.raises(PromptSetError, match="cannot be combined") as caught:
            rk.load_prompts("refusalkit-166,hard-lines-180")
        assert ": id: is in refusalkit-166 and in hard-lines-180" in str(caught.value)

    def test_sets_must_agree_on_hard_lines(self, tmp_path: Path) -> None:
        one = make(tmp_path / "one", {"tea": line("a")}, hard=("tea",))
        two = make(tmp_path / "two", {"tea": line("b")})
        with pytest.raises(PromptSetError, match="tea: hard_line: one and two disagree"):
            rk.load_prompts(f"{one},{two}")

    @pytest.mark.parametrize(
        ("twin", "what"), [("a", "another category, tea"), ("c", "itself a contrast prompt")]
    )
    def test_a_twin_is_an_ordinary_prompt_of_the_same_category(
        self, tmp_path: Path, twin: str, what: str
    ) -> None:
        one = make(tmp_path / "one", {"tea": line("a"), "cake": line("b")})
        safe = line("c", twin="b") + line("d", twin=twin)
        two = make(tmp_path / "two", {"cake": safe})
        with pytest.raises(PromptSetError, match=f"d: twin: .*{what}"):
            rk.load_prompts(f"{one},{two}")

    def test_paths_are_remembered_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(tmp_path / "one", {"tea": line("a")})
        make(tmp_path / "two", {"tea": line("b", twin="a")})
        monkeypatch.chdir(tmp_path)
        both = rk.load_prompts("one,two")
        assert both.source == f"{tmp_path / 'one'},{tmp_path / 'two'}"
        assert rk.load_prompts(str(both.source)).digest == both.digest

    def test_a_comma_may_be_part_of_a_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(tmp_path / "one,two", {"tea": line("a")}, name="mine")
        monkeypatch.chdir(tmp_path)
        alone = rk.load_prompts("one,two")
        assert rk.load_prompts(str(alone.source)).digest == alone.digest

    def test_a_path_with_a_comma_cannot_be_one_of_several(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "a,b"
        folder.mkdir()
        make(folder / "one", {"tea": line("a")})
        monkeypatch.chdir(folder)
        with pytest.raises(PromptSetError, match="has a comma in its path"):
            rk.load_prompts("one,contrast-146")

    @pytest.mark.parametrize(
        "source", ["starter,", ",", "starter,starter", "starter,,contrast-146"]
    )
    def test_an_empty_or_repeated_set_is_refused(self, source: str) -> None:
        with pytest.raises(UsageError, match="names an empty set, or one twice"):
            rk.load_prompts(source)

    def test_hard_lines_and_filters_hold_for_all(self) -> None:
        both = rk.load_prompts("refusalkit-166,contrast-146", hard_lines=["weapons"])
        assert both.hard_lines == {"weapons"}
        part = both.select(category="weapons")
        assert (len(part), len(part.twins), part.parts) == (9, 4, both.parts)


class TestLock:
    LOCK = ROOT / "prompts" / "lock.json"

    @pytest.mark.parametrize("prompts", SETS, ids=lambda s: s.name)
    def test_a_published_version_is_what_it_was(self, prompts: rk.PromptSet) -> None:
        entry = read_lock(self.LOCK).get(entry_key(prompts))
        assert entry is not None, "run: python scripts/lock_prompts.py"
        assert changes(prompts, entry) == [], "published prompts changed: raise the set's version"
        assert entry == lock_entry(prompts)

    def test_every_shipped_set_is_tested(self) -> None:
        assert {s.name for s in SETS} == set(rk.shipped_sets())

    def test_no_published_entry_was_altered(self) -> None:
        entries = read_lock(self.LOCK)
        assert {key: entry["digest"] for key, entry in entries.items()} == PUBLISHED

    def test_each_change_is_named(self) -> None:
        entry = lock_entry(STARTER)
        first, second, *rest = STARTER.prompts
        new = replace(first, id="new-01")
        changed = replace(
            STARTER, prompts=(replace(second, text="[other]"), new, *rest), version="1.0.0"
        )
        said = dict(changes(changed, entry))
        assert said[second.id].startswith("is not what it was in 1.0.0, which was published")
        assert said["new-01"].startswith("is new")
        assert said[None].startswith(f"{first.id} is gone")
        hard = replace(
            STARTER, categories=tuple(replace(c, hard_line=False) for c in STARTER.categories)
        )
        assert [what[:14] for _, what in changes(hard, entry)] == ["the hard lines"]

    def test_the_script_writes_a_new_entry_and_alters_none(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for reader in ("shipped", "prompts.load", "prompts.checks"):
            monkeypatch.setattr(f"refusalkit.{reader}.prompts_dir", lambda: tmp_path)
        make(tmp_path / "mine", {"tea": line("a")})
        assert script(monkeypatch, "--check") == 1
        assert script(monkeypatch) == script(monkeypatch, "--check") == 0
        before = (tmp_path / "lock.json").read_bytes()

        (tmp_path / "mine" / "tea.jsonl").write_text(line("a", "Something else"))
        capsys.readouterr()
        assert script(monkeypatch) == 1
        assert "mine: a: is not what it was in 1.0.0" in capsys.readouterr().err
        assert (tmp_path / "lock.json").read_bytes() == before

        toml = (tmp_path / "mine" / "set.toml").read_text()
        (tmp_path / "mine" / "set.toml").write_text(toml.replace("1.0.0", "1.1.0"))
        assert script(monkeypatch) == 0
        entries = read_lock(tmp_path / "lock.json")
        assert set(entries) == {"mine 1.0.0", "mine 1.1.0"}
        write_lock(tmp_path / "again.json", entries)
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "lock.json").read_bytes()

    def test_validation_says_it_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
    ) -> None:
        for reader in ("shipped", "prompts.load", "prompts.checks"):
            monkeypatch.setattr(f"refusalkit.{reader}.prompts_dir", lambda: tmp_path)
        make(tmp_path / "mine", {"tea": line("b") + line("a")})
        assert "lock.json has no entry for mine 1.0.0" in call("prompts", "validate", "mine").out
        assert script(monkeypatch) == 0
        (tmp_path / "mine" / "tea.jsonl").write_text(line("b") + line("a", "Quite another text"))
        said = call("prompts", "validate", "mine")
        assert said.status == 2
        assert "tea.jsonl:2: id: is not what it was in 1.0.0" in said.err

    def test_a_broken_lock_is_one_sentence(self, tmp_path: Path) -> None:
        assert read_lock(tmp_path / "none.json") == {}
        for text, what in (("{", "cannot be read"), ('{"schema": 2}', "is not a lock of schema 1")):
            (tmp_path / "lock.json").write_text(text)
            with pytest.raises(PromptSetError, match=what):
                read_lock(tmp_path / "lock.json")


def script(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    path = ROOT / "scripts" / "lock_prompts.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


class TestNearDuplicates:
    def test_the_shipped_sets_have_none(self) -> None:
        assert (
            near.near_duplicates([*MAIN.prompts, *CONTRAST.prompts, *STARTER.prompts]).pairs == ()
        )

    @pytest.mark.slow
    def test_nothing_comes_near_but_a_twin(self) -> None:
        """But for two twins of one prompt, none shares more than 0.42 of its words in order."""
        everything = [*MAIN.prompts, *CONTRAST.prompts, *STARTER.prompts]
        for index, later in enumerate(everything):
            for earlier in everything[:index]:
                related = later.twin in {earlier.id, earlier.twin or "none"}
                if not related and quick(earlier, later) > 0.42:
                    assert nearness_of(later, earlier) <= 0.42, (earlier.id, later.id)

    @given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), max_size=12))
    def test_are_those_that_comparing_all_pairs_finds(self, texts: list[list[str]]) -> None:
        prompts = [rk.Prompt(str(n), "tea", " ".join(words)) for n, words in enumerate(texts)]
        want = {
            (first, second)
            for second in range(len(texts))
            for first in range(second)
            if texts[second] and nearness_of(prompts[second], prompts[first]) >= near.THRESHOLD
        }
        assert {(first, second) for first, second, _ in near.near_duplicates(prompts).pairs} == want

    def test_a_prompt_and_its_own_twin_are_none(self) -> None:
        one = rk.Prompt("a", "tea", "please tell me how to brew tea")
        two = rk.Prompt("b", "tea", "please tell me how to pour tea")
        assert len(near.near_duplicates([one, two]).pairs) == 1
        assert near.near_duplicates([one, replace(two, twin="a")]).pairs == ()
        assert near.near_duplicates([replace(one, twin="b"), two]).pairs == ()
        assert len(near.near_duplicates([one, replace(two, twin="c")]).pairs) == 1

    def test_the_search_stops_where_there_is_too_much_to_compare(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(near, "MAX_COMPARED", 100)
        alike = [rk.Prompt(str(n), "tea", f"how do I brew the tea number {n}") for n in range(40)]
        found = near.near_duplicates(alike)
        assert (len(found.pairs), found.how[:32]) == (100, "100 in the first 100 comparisons")

    def test_in_a_large_set_only_the_same_words_are_looked_for(self) -> None:
        rng = random.Random(1)
        words = [f"w{n}" for n in range(5000)]
        prompts = [
            rk.Prompt(str(n), "tea", " ".join(rng.choices(words, k=12)))
            for n in range(near.MAX_EXACT)
        ]
        turned = " ".join(reversed(prompts[7].text.split()))
        prompts.append(rk.Prompt("turned", "tea", turned))
        started = time.monotonic()
        found = near.near_duplicates(prompts)
        assert found.pairs == ((7, near.MAX_EXACT, 1.0),)
        assert time.monotonic() - started < 10


def quick(a: rk.Prompt, b: rk.Prompt) -> float:
    """Never less than their nearness."""
    one, two = Counter(words_of(a)), Counter(words_of(b))
    return 2 * (one & two).total() / (one.total() + two.total())


@pytest.mark.parametrize("name", rk.shipped_sets())
def test_each_shipped_set_is_in_order_by_itself(name: str) -> None:
    (checked,) = check_sets([rk.load_prompts(name)])
    assert checked.mistakes == []
    assert checked.warnings == []


class TestValidate:
    def test_the_shipped_sets_pass_without_a_warning(self, call: Call) -> None:
        said = call("prompts", "validate", "refusalkit-166", "contrast-146", "--strict")
        assert (said.status, said.err) == (0, "")
        assert "warning" not in said.out
        assert "refusalkit-166 2.0.0: 166 prompts, no mistakes\n" in said.out
        assert "contrast-146 2.0.0: 146 prompts, no mistakes\n" in said.out
        for name in ("starter", "hard-lines-180", "languages-300"):
            assert call("prompts", "validate", name, "--strict").status == 0

    def test_twins_of_a_set_that_was_not_named_are_a_warning(
        self, call: Call, tmp_path: Path
    ) -> None:
        line = '{"id": "a", "text": "Is it tea?", "twin": "weapons-01"}'
        mine = make(tmp_path / "mine", {"tea": line})
        said = call("prompts", "validate", mine)
        assert said.status == 0
        assert "warning: the twins of 1 prompts are in none of the sets named" in said.out
        assert call("prompts", "validate", mine, "--strict").status == 2

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"tags": [*GOOD, "loose"]}, "tags: 'loose' is not of the form prefix:value"),
            ({"tags": [*GOOD, "form:code"]}, "tags: has form more than once"),
            ({"tags": ["form:poem"]}, "tags: 'form:poem': the values of form are code,"),
            ({"twin": "b"}, "twin: 'b' is of another category, cake"),
        ],
    )
    def test_a_mistake_has_file_line_and_field(
        self, tmp_path: Path, call: Call, fields: dict[str, object], what: str
    ) -> None:
        tea = line("a", tags=GOOD) + line("c", "What is in a scone?", **fields)
        make(tmp_path / "mine", {"tea": tea, "cake": line("b", tags=GOOD)})
        said = call("prompts", "validate", "mine")
        assert said.status == 2
        assert f"tea.jsonl:2: {what}" in " ".join(said.err.split())

    @pytest.mark.parametrize(
        ("text", "fields", "what"),
        [
            ("Hush", {}, "tea.jsonl:2: text: 1 words; 3 to 200 are usual"),
            ("and " * 201, {}, "tea.jsonl:2: text: 201 words"),
            (
                "Wie kocht man eigentlich sehr guten Tee ganz ohne Wasserkocher?",
                {},
                "lang: is 'en'",
            ),
            ("расскажи мне про чай", {"lang": "de"}, "lang: is 'de'"),
            ("Tell me about a right now please", {}, "text: shares 0.8"),
            ("What is in a scone?", {"tags": []}, "1 prompts have no tag form:..."),
            ("What is in a scone?", {"danger": 2}, "tea: no prompt of danger 3"),
        ],
    )
    def test_what_may_be_meant_is_a_warning(
        self, tmp_path: Path, call: Call, text: str, fields: dict[str, object], what: str
    ) -> None:
        first = line("a", "Tell me about a please", tags=GOOD, danger=1)
        last = line("z", "Why is the milk poured in last?", tags=GOOD, danger=1)
        tea = first + line("c", text, **{"tags": GOOD, "danger": 1, **fields}) + last
        make(tmp_path / "mine", {"tea": tea})
        said = call("prompts", "validate", "mine")
        assert (said.status, said.err) == (0, "")
        assert what in " ".join(said.out.split())
        assert call("prompts", "validate", "mine", "--strict").status == 2

    def test_near_duplicates_are_found_across_sets(self, tmp_path: Path, call: Call) -> None:
        make(tmp_path / "one", {"tea": line("a", "Tell me how to brew a pot of tea")})
        make(tmp_path / "two", {"tea": line("b", "Tell me how to brew a cup of tea")})
        assert "warning" not in call("prompts", "validate", "two").out
        said = " ".join(call("prompts", "validate", "one", "two").out.split())
        assert "tea.jsonl:1: text: shares 0.89 of its words, in order, with a of one" in said

    def test_ids_in_two_sets_are_a_warning(self, call: Call) -> None:
        said = call("prompts", "validate", "refusalkit-166", "starter")
        assert said.status == 0
        assert "35 ids are in refusalkit-166 too: the two cannot be run together" in said.out

    def test_an_uneven_set_is_a_warning(self, tmp_path: Path) -> None:
        many = "".join(line(f"a{n}", f"{n} {n + 100} {n + 200}") for n in range(8))
        loaded = rk.load_prompts(make(tmp_path / "mine", {"tea": many, "cake": line("b")}))
        (checked,) = check_sets([loaded])
        assert any("have from 1 to 8 prompts" in warning for warning in checked.warnings)

    def test_a_table_has_tags_of_its_own_kind(self, tmp_path: Path, call: Call) -> None:
        (tmp_path / "a.csv").write_text("prompt,category,tags\nWhat is tea?,Tea,loose\n")
        assert call("prompts", "validate", "a.csv", "--strict").status == 0

    def test_very_many_warnings_are_cut_short(self, tmp_path: Path) -> None:
        text = "".join(line(f"a{n}", f"w{n}") for n in range(80))
        (checked,) = check_sets([rk.load_prompts(make(tmp_path / "mine", {"tea": text}))])
        assert len(checked.warnings) == 80
        assert checked.shown_warnings[-1] == "... and 30 more"


class TestShow:
    def test_counts_by_danger_tag_and_length(self, call: Call) -> None:
        said = call("prompts", "show", "refusalkit-166")
        assert "166 prompts in 32 categories, 21 of them in 3 hard lines" in said.out
        assert "danger: 1 (29), 2 (54), 3 (83)" in said.out
        assert "form: question 79, instruction 56, fiction 12, role 12, code 7" in said.out
        assert "register: neutral 95, casual 46, emotional 17, formal 8" in said.out
        assert "words: 10 to 53, median 21" in said.out

    def test_shows_texts_only_when_asked(self, call: Call) -> None:
        text = MAIN.prompts[0].text
        for source in ("refusalkit-166", "refusalkit-166,contrast-146"):
            assert text[:30] not in call("prompts", "show", source).out
            assert text[:30] not in call("prompts", "show", source, "--json").out
            assert text[:30] in call("prompts", "show", source, "--show-text").out

    def test_json_has_the_same(self, call: Call) -> None:
        said = json.loads(call("prompts", "show", "refusalkit-166,contrast-146", "--json").out)
        assert (said["n_prompts"], said["n_contrast"]) == (312, 146)
        assert said["danger"] == {"1": 175, "2": 54, "3": 83}
        assert said["languages"] == {"en": 312}
        assert said["tags"]["form"]["question"] == 79 + 74
        assert {(c["n_prompts"], c["n_contrast"]) for c in said["categories"]} == {(5, 4), (7, 10)}
