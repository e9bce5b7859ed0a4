"""A sweep over checkpoints is known by its runs' names, and drawn as lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.reporting.document.sweep import places
from refusalkit.runs.folder import Run


@pytest.mark.parametrize(
    ("names", "title", "numbers"),
    [
        (["step-1000", "step-500", "step-2000"], "step-\u2026", [1000, 500, 2000]),
        (["a/q3-8b/1k", "a/q3-8b/2k", "a/q3-8b/10k"], "a/q3-8b/\u2026k", [1, 2, 10]),
        (["m (lr 0.1)", "m (lr 0.5)", "m (lr 1)"], "m (lr \u2026)", [0.1, 0.5, 1.0]),
    ],
)
def test_names_that_differ_in_one_number(
    names: list[str], title: str, numbers: list[float]
) -> None:
    assert places(names) == (title, numbers)


@pytest.mark.parametrize(
    "names",
    [
        ["step-1", "step-2"],  # a comparison
        ["step-1", "step-2", "final"],
        ["step-1", "step-2", "stop-3"],
        ["gpt-4-1", "gpt-4-2", "gpt-5-3"],
        ["step-1", "step-01", "step-2"],  # the same place twice
        ["openai/gpt-6-luna", "anthropic/claude-sonnet-5-5", "demo/mixed"],
    ],
)
def test_runs_with_other_names_are_not_a_sweep(names: list[str]) -> None:
    assert places(names) is None


@given(
    st.lists(st.integers(0, 10**14), min_size=3, unique=True),
    st.text(st.characters(exclude_categories=["Nd"]), max_size=20),
    st.text(st.characters(exclude_categories=["Nd"]), max_size=20).filter(
        lambda text: not text.startswith(".")
    ),
)
def test_any_numbers_are_found_in_any_words(numbers: list[int], before: str, after: str) -> None:
    found = places([f"{before}{number}{after}" for number in numbers])
    assert found is not None
    assert found[1] == numbers


def checkpoints(tmp_path: Path, **options: int) -> list[Run]:
    demos = {"200": "demo/open", "50": "demo/cautious", "1000": "demo/leaky"}
    done = rk.benchmark_many(
        [{"id": model, "folder": f"step-{step}"} for step, model in demos.items()],
        "starter",
        trials=1,
        out=tmp_path / "runs",
        **options,  # type: ignore[arg-type]
    )
    found = []
    for one in done:
        assert one.run is not None
        # One model in several states.
        manifest = one.path / "manifest.json"
        text = manifest.read_text()
        manifest.write_text(text.replace(f'"{one.run.manifest.config["model"]}"', '"local/one"'))
        found.append(rk.load_run(one.path))
    return found


@pytest.mark.slow
def test_a_page_of_checkpoints_has_lines_in_their_order(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    rk.report(checkpoints(tmp_path), page)
    html = page.read_text("utf-8")
    (section,) = re.findall(r'<section id="sweep".*?</section>', html, re.DOTALL)
    assert "Over the sweep" in section
    assert re.findall(r"step-(\d+)\)</th>", section) == ["50", "200", "1000"]
    # Wide and narrow, a line for willingness and one for the hold rate.
    assert section.count('role="img"') == 2
    assert section.count('stroke-width="1.5"') == 4
    assert "The largest step of willingness: +" in section


def test_runs_that_are_not_a_sweep_have_no_such_section(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    rk.report(checkpoints(tmp_path)[:2], page)
    assert "Over the sweep" not in page.read_text("utf-8")
