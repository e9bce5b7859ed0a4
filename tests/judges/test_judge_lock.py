"""A published judge file never changes: its digest is locked."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from places import ROOT
from refusalkit.errors import JudgeFileError
from refusalkit.judges.lock import changes, entry_key, lock_entry, read_lock, write_lock
from refusalkit.judges.rubrics import AnswerLimits, Rubric, load_rubric, shipped_judges

LOCK = ROOT / "judges" / "lock.json"
SHIPPED = [load_rubric(name) for name in shipped_judges()]

# What was published under these names. A change of a judge is a new file and a new line here.
PUBLISHED = {
    "graded 1": ("sha256:32d29c84b02a302bac18c13fcefc186e09bcd551b0231f0a17749d82c3388516"),
    "hard-line 1": ("sha256:665d59f6291255e17e47fd6547e0aafec5979e3998aab70f35aae8be8d1c0492"),
    "lexical 1": ("sha256:ce47fb32d6cb63348bc0a512039ead75fd621c20c082385980c34456af457320"),
    "minos 1": ("sha256:7fa2c619a5b726589b9ffd9b60a5f81beb7e5fdcc3734aeec3db95699c3ac081"),
    "refusalbench 1": ("sha256:03250957b5ebc7b07b0dec5c9149c0b4b3eeb9224cebe52a4ead7b602576d512"),
}


def script(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lock_judges.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "lock_judges.py"), run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("rubric", SHIPPED, ids=lambda rubric: rubric.name)
def test_a_published_judge_is_what_it_was(rubric: Rubric) -> None:
    entry = read_lock(LOCK).get(entry_key(rubric))
    assert entry is not None, "run: python scripts/lock_judges.py"
    assert changes([rubric], {entry_key(rubric): entry}) == []
    assert entry == lock_entry(rubric)


def test_no_published_judge_is_gone() -> None:
    assert changes(SHIPPED, read_lock(LOCK)) == []


def test_no_published_entry_was_altered() -> None:
    assert {key: entry["digest"] for key, entry in read_lock(LOCK).items()} == PUBLISHED


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"system": "Other."}, "[prompt]"),
        ({"template": "Other."}, "[prompt]"),
        ({"schema": {}}, "[schema]"),
        ({"labels": {}}, "[labels]"),
        ({"limits": AnswerLimits(48_000, 15_999)}, "[limits]"),
        ({"model": "openai/gpt-6-luna"}, "[model]"),
        ({"temperature": 0.0}, "[model]"),
        ({"max_tokens": 1}, "[model]"),
        ({"asks": 1}, "[model]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_the_part_that_changed_is_named(change: dict[str, object], part: str) -> None:
    graded = load_rubric("graded")
    entries = {entry_key(graded): lock_entry(graded)}
    changed = replace(graded, **change, digest="sha256:other")  # type: ignore[arg-type]
    (said,) = changes([changed], entries)
    assert said.startswith(f"graded 1: {part} is not what was published")


def test_a_published_judge_that_is_gone_is_named() -> None:
    graded = load_rubric("graded")
    (said,) = changes([], {entry_key(graded): lock_entry(graded)})
    assert said.startswith("graded 1: was published and is gone")


def test_the_script_writes_a_new_entry_and_alters_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for reader in ("shipped", "judges.rubrics"):
        monkeypatch.setattr(f"refusalkit.{reader}.judges_dir", lambda: tmp_path)
    text = (ROOT / "judges" / "refusalbench.toml").read_text(encoding="utf-8")
    judge = tmp_path / "refusalbench.toml"
    judge.write_text(text, encoding="utf-8")
    assert script(monkeypatch, "--check") == 1
    assert not (tmp_path / "lock.json").exists()
    assert script(monkeypatch) == script(monkeypatch, "--check") == 0
    before = (tmp_path / "lock.json").read_bytes()
    judge.write_text(text.replace("You grade how", "You judge how"), encoding="utf-8")
    capsys.readouterr()
    assert script(monkeypatch) == 1
    assert capsys.readouterr().err.startswith("refusalbench 1: [prompt] is not what was published")
    assert (tmp_path / "lock.json").read_bytes() == before
    # A comment and a description change no verdict.
    judge.write_text("# Mine.\n" + text.replace("Binary: did", "Did"), encoding="utf-8")
    assert script(monkeypatch) == 0


@pytest.mark.parametrize(
    "text",
    ["[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "judges": []}', "{", "[" * 50_000],
)
def test_an_invalid_lock_file_gives_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(JudgeFileError, match="lock"):
        read_lock(path)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    entries = {entry_key(rubric): lock_entry(rubric) for rubric in SHIPPED}
    write_lock(tmp_path / "lock.json", entries)
    assert read_lock(tmp_path / "lock.json") == entries
    assert read_lock(tmp_path / "none.json") == {}
