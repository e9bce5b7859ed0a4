"""Willingness by language, paired with the source of each translation; danger 2-3 by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import refusalkit as rk
from refusalkit.reporting import data, terminal
from refusalkit.reporting.console import show
from refusalkit.types import Category, Label


def a_set(n: int = 10, *, hard_line: bool = False) -> rk.PromptSet:
    """`n` requests in English and German."""
    prompts = []
    for number in range(n):
        english = f"tea-{number:02d}-en"
        prompts.append(rk.Prompt(english, "tea", f"[request {number}]", danger=3))
        german = rk.Prompt(
            f"tea-{number:02d}-de", "tea", f"[Frage {number}]", danger=3, lang="de",
            translation_of=english,
        )  # fmt: skip
        prompts.append(german)
    categories = (Category("tea", "Tea", hard_line=hard_line),)
    return rk.PromptSet("teas", "1.0.0", categories, tuple(prompts))


class Answering:
    """Answers as told: refuses German, or English, or neither."""

    def __init__(self, refuses: str) -> None:
        self.id = self.name = "answering"
        self._refuses = refuses

    async def complete(
        self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
    ) -> rk.Completion:
        text = "I can't help with that." if prompt.lang == self._refuses else "Sure. [placeholder]"
        return rk.Completion(
            prompt.id, prompt.category, trial, self.id, rk.Outcome.ANSWERED, text=text
        )

    async def aclose(self) -> None:
        """Nothing to close."""


def run_of(prompts: rk.PromptSet, refuses: str, out: Path, trials: int = 2) -> rk.Run:
    return rk.benchmark(Answering(refuses), prompts, judge="lexical", trials=trials, out=out)


def test_a_translation_is_compared_with_its_own_source(tmp_path: Path) -> None:
    score = rk.score(run_of(a_set(), "de", tmp_path / "run"))
    english, german = score.by_language.sort("language", descending=True).to_dicts()
    assert (english["language"], english["willingness"], english["n_pairs"]) == ("en", 100, 0)
    assert english["difference"] is None
    assert (german["language"], german["willingness"], german["n_pairs"]) == ("de", 0, 10)
    assert german["difference"] == -100
    assert german["difference_low"] == -100
    assert german["difference_high"] < 0


def test_a_model_that_is_alike_in_both_has_no_difference(tmp_path: Path) -> None:
    score = rk.score(run_of(a_set(), "neither", tmp_path / "run"))
    german = score.by_language.filter(language="de").to_dicts()[0]
    assert german["difference"] == 0
    assert german["difference_low"] < 0 < german["difference_high"]


def test_intervals_count_a_request_once_in_however_many_languages(tmp_path: Path) -> None:
    score = rk.score(run_of(a_set(), "neither", tmp_path / "run"))
    assert (score.n_prompts, score.willingness.n_prompts) == (20, 10)
    assert score.willingness.n_responses == 40
    twice = rk.score(run_of(a_set(20), "neither", tmp_path / "twice"))
    assert (twice.willingness.low or 0) > (score.willingness.low or 0)


def test_the_audit_bounds_requests_and_not_wordings(tmp_path: Path) -> None:
    prompts = a_set(hard_line=True)
    leaky = rk.audit(run_of(prompts, "en", tmp_path / "leaky"))
    assert (leaky.overall.leaks, leaky.overall.leaking_prompts) == (20, 10)
    held = rk.audit(run_of(prompts, "de", tmp_path / "other"))
    assert held.overall.n_tested == 10


def test_the_terminal_and_json_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = rk.score(run_of(a_set(), "de", tmp_path / "run"))
    show(terminal.frame_view(data.frame_by(score, "language"), "language"))
    shown = capsys.readouterr().out
    assert "-100.0" in shown
    assert "the same requests in their first language" in " ".join(shown.split())
    assert [row["language"] for row in data.score_data(score)["by_language"]] == ["en", "de"]


def test_a_run_in_one_language_has_one_row(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", "starter", trials=1, out=tmp_path / "run")
    assert rk.score(run).by_language["language"].to_list() == ["en"]


class TestDanger2And3:
    def test_only_answering_what_is_harmless_does_not_raise_it(self, tmp_path: Path) -> None:
        asked = tuple(
            rk.Prompt(f"tea-{n}", "tea", f"[{n}]", danger=n % 3 + 1, lang="de" if n % 3 else "en")
            for n in range(9)
        )
        prompts = rk.PromptSet("dangers", "1.0.0", (Category("tea", "Tea"),), asked)
        score = rk.score(run_of(prompts, "de", tmp_path / "run", trials=1))
        assert score.answer_rate.value == pytest.approx(100 / 3)
        assert score.dangerous_answer_rate.value == 0
        assert score.dangerous_answer_rate.n_prompts == 6
        assert "answers, danger 2-3" in dict(data.figures(score))

    def test_is_left_out_where_the_set_states_no_danger_or_only_one(self, tmp_path: Path) -> None:
        score = rk.score(run_of(a_set(), "neither", tmp_path / "run"))
        assert "answers, danger 2-3" not in dict(data.figures(score))
        assert Label.REFUSAL.value in score.by_language.columns
