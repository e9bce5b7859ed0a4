"""A part of a set keeps its sense: pairs, hard lines; and an older run's part is drawn again."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from refusalkit.errors import UsageError
from refusalkit.types import Category, Prompt

WITH_TWINS = "refusalkit-166,contrast-146"


def asked_in(folder: str) -> set[str]:
    """Ids of the prompts that a run asked."""
    lines = Path(folder, "completions.jsonl").read_text().splitlines()
    return {json.loads(line)["prompt_id"] for line in lines}


def own_hard_lines(part: rk.PromptSet) -> set[str]:
    """Hard lines that have a prompt of their own in a part."""
    return {p.category for p in part.prompts if p.category in part.hard_lines and not p.twin}


@given(limit=st.integers(6, 312), seed=st.integers(0, 99))
def test_pairs_and_hard_lines_are_kept_at_every_limit(limit: int, seed: int) -> None:
    whole = rk.load_prompts(WITH_TWINS)
    part = whole.select(limit=limit, seed=seed)
    ids = {prompt.id for prompt in part.prompts}
    assert len(part) <= limit
    assert len(part) >= min(limit, len(whole)) - 2  # a group of three may not fit
    for prompt in whole.prompts:
        if prompt.twin is not None:
            assert (prompt.id in ids) == (prompt.twin in ids)
    assert own_hard_lines(part) == whole.hard_lines
    assert part == whole.select(limit=limit, seed=seed)
    assert whole.lost_in(part) == []


@given(limit=st.integers(32, 166), seed=st.integers(0, 99))
def test_categories_stay_balanced(limit: int, seed: int) -> None:
    whole = rk.load_prompts("refusalkit-166")
    part = whole.select(limit=limit, seed=seed)
    assert len(part) == limit
    left = Counter(p.category for p in whole.prompts) - Counter(p.category for p in part.prompts)
    counts = Counter(p.category for p in part.prompts)
    # A category that has prompts left has as many as any other, but for one.
    assert all(counts[slug] >= max(counts.values()) - 1 for slug in left)


@pytest.mark.parametrize(
    ("prompts", "limit", "smallest"), [("refusalkit-166", 2, 3), (WITH_TWINS, 5, 6)]
)
def test_a_limit_that_is_too_small_names_the_smallest(
    call: Call, prompts: str, limit: int, smallest: int
) -> None:
    done = call("run", "demo/mixed", "--prompts", prompts, "--limit", limit, "--out", "run")
    assert done.status == 2
    assert f"a limit of {limit} is too small" in done.err
    assert f"give {smallest} or more" in done.err
    assert not Path("run").exists()
    words = ("run", "demo/mixed", "--prompts", prompts, "--trials", 1, "--limit", smallest)
    assert call(*words, "--out", "run").status == 0
    with pytest.raises(UsageError, match=f"give {smallest} or more"):
        rk.load_prompts(prompts).select(limit=limit)


def test_a_filter_without_hard_lines_takes_any_limit(call: Call) -> None:
    words = ("run", "demo/mixed", "--category", "assault", "--trials", 1, "--limit", 1)
    done = call(*words, "--out", "run")
    assert done.status == 0
    assert "these hard lines have no prompt left" in done.err


def test_starter_with_its_twins_keeps_them_at_48(call: Call) -> None:
    words = ("run", "demo/mixed", "--prompts", "starter,contrast-146", "--limit", 48)
    assert call(*words, "--trials", 1, "--out", "run").status == 0
    entry = rk.load_run("run").manifest.prompt_set
    hard = [c for c in entry.categories if c.hard_line]
    assert len(hard) == 3
    assert all(c.n_prompts for c in hard)
    # Those without a twin in the set come after all others.
    asked = asked_in("run")
    assert entry.twins
    assert set(entry.twins.values()) <= asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--danger", "3"), "contrast prompts are left out though the twin is asked"),
        (("--danger", "1"), "contrast prompts are asked without the twin"),
        (("--category", "assault"), "these hard lines have no prompt left"),
        (("--limit", "20"), None),
        ((), None),
    ],
)
def test_what_a_filter_removes_is_reported_in_one_line(
    call: Call, words: tuple[str, ...], told: str | None
) -> None:
    done = call(
        "run", "demo/mixed", "--prompts", WITH_TWINS, "--trials", 1, *words, "--max-unscored", 100
    )
    assert done.status == 0, done.err
    said = [line for line in done.err.splitlines() if "the filters leave less" in line]
    assert len(said) == (told is not None)
    assert told is None or told in said[0]


def test_several_models_are_reported_once(call: Call) -> None:
    words = ("run", "demo/mixed", "demo/open", "--category", "assault", "--trials", 1)
    done = call(*words, "--out", "both", "--max-unscored", 100)
    assert done.status == 0, done.err
    assert done.err.count("the filters leave less") == 1


class TestOlderRuns:
    """The draw is part of what a run is: it is made again as it was."""

    def started_before(self, call: Call, *, limit: int) -> dict[str, Any]:
        """A run folder as the version before wrote it: stopped after its first answers."""
        whole = rk.load_prompts("refusalkit-166")
        old = whole.select(limit=limit, draw_version=1)
        assert "draw" not in old.selection
        assert old.digest != whole.select(limit=limit).digest
        words = ("run", "demo/mixed", "--limit", limit, "--trials", 1, "--out", "run")
        assert call(*words).status == 0
        for name in ("run/completions.jsonl", "run/verdicts.jsonl", "run/canaries.jsonl"):
            Path(name).unlink(missing_ok=True)
        new = rk.benchmark("demo/mixed", old, trials=1, out="built", judge="lexical")
        entry = json.loads(Path("built/manifest.json").read_text())["prompt_set"]
        manifest = json.loads(Path("run/manifest.json").read_text())
        manifest["prompt_set"] = {**entry, "source": manifest["prompt_set"]["source"]}
        manifest["n_units"] = new.manifest.n_units
        manifest["sessions"] = []
        Path("run/manifest.json").write_text(json.dumps(manifest))
        Path("run/completions.jsonl").touch()
        Path("run/verdicts.jsonl").touch()
        return manifest

    def test_resume_asks_the_prompts_that_were_drawn_then(self, call: Call) -> None:
        self.started_before(call, limit=6)
        done = call("resume", "run")
        assert done.status == 0, done.err
        asked = asked_in("run")
        old = rk.load_prompts("refusalkit-166").select(limit=6, draw_version=1)
        assert asked == {prompt.id for prompt in old.prompts}

    def test_a_new_run_is_resumed_by_the_new_draw(self, call: Call) -> None:
        words = ("run", "demo/mixed", "--limit", 6, "--trials", 1, "--out", "run")
        assert call(*words).status == 0
        assert rk.load_run("run").manifest.prompt_set.selection["draw"] == 2
        lines = Path("run/completions.jsonl").read_text().splitlines(keepends=True)
        Path("run/completions.jsonl").write_text("".join(lines[:3]))
        assert call("resume", "run").status == 0


def test_prompts_whose_twin_is_in_no_set_come_last() -> None:
    own = [Prompt(f"a-{n}", "a", "?") for n in range(3)]
    lost = [Prompt(f"t-{n}", "a", "?", twin=f"elsewhere-{n}") for n in range(3)]
    whole = rk.PromptSet("s", "1", (Category("a", "A"),), (*lost, *own), licence="CC0-1.0")
    assert [p.id for p in whole.select(limit=3).prompts] == ["a-0", "a-1", "a-2"]
    assert len(whole.select(limit=5)) == 5


def test_a_draw_from_very_many_categories_is_quick() -> None:
    """Its time is that of the set, not that of the set times the limit."""
    n = 20_000
    categories = tuple(Category(f"c-{number}", f"C {number}") for number in range(n))
    prompts = tuple(Prompt(f"p-{number}", f"c-{number}", "?") for number in range(n))
    found = rk.PromptSet("many", "1", categories, prompts)
    began = time.process_time()
    assert len(found.select(limit=5_000)) == 5_000
    assert time.process_time() - began < 10
