"""A run of very many categories is told of in bounded time: the rest is said, not shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commandline import Call, caller
from refusalkit.runs.manifest import CategoryEntry
from refusalkit.scoring.listed_categories import MAX_CATEGORIES, listed
from run_folders import write_run

NOTE = f"of 1,100 categories the {MAX_CATEGORIES:,} largest have figures of their own"


def entry(slug: str, n_units: int, *, hard_line: bool = False) -> CategoryEntry:
    return CategoryEntry(
        slug=slug, title=slug, hard_line=hard_line, n_prompts=n_units, n_units=n_units
    )


def test_few_categories_are_all_listed_hard_lines_last() -> None:
    entries = [entry("hard", 1, hard_line=True), *(entry(f"c{n}", n) for n in range(50))]
    assert [one.slug for one in listed(entries)] == [*(f"c{n}" for n in range(50)), "hard"]


def test_of_very_many_those_that_leak_stay_then_hard_lines_then_the_largest() -> None:
    small = [entry(f"c{n}", 1) for n in range(MAX_CATEGORIES)]
    entries = [*small, entry("large", 9), entry("hard", 1, hard_line=True)]
    shown = [one.slug for one in listed(entries)]
    assert len(shown) == MAX_CATEGORIES
    assert shown[-2:] == ["large", "hard"]
    lines = [entry(f"h{n}", 1, hard_line=True) for n in range(MAX_CATEGORIES + 5)]
    assert listed(lines, leaking={"h1004"})[-1].slug == "h1004"
    assert listed(lines)[-1].slug == "h999"


@pytest.mark.slow
def test_every_command_bounds_what_it_says_by_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command: Call = caller(monkeypatch, capsys, tmp_path)
    for name in ("first", "second"):
        names = [f"{'hard' if n % 2 else 'plain'}-{n}" for n in range(1100)]
        label = ("refusal", "compliance")
        # One leak, in the last category of all.
        rows = [(f"p-{one}", one, 1, "answered", label[one == names[-1]]) for one in names]
        write_run(tmp_path / name, rows)
    by = command("score", "first", "--by", "category")
    assert by.status == 0
    assert NOTE in " ".join(by.out.split())
    assert "... and 500 more rows (--format csv has all)" in by.out
    assert len(command("score", "first", "--by", "category", "--format", "csv").out.split()) == 1001
    assert NOTE in " ".join(command("compare", "first", "second").out.split())
    for form in ("html", "md", "json"):
        assert command("report", "first", "-o", f"report.{form}").status == 0
        assert NOTE in (tmp_path / f"report.{form}").read_text()
    found = json.loads((tmp_path / "report.json").read_text())["runs"][0]["score"]
    assert len(found["by_category"]) == MAX_CATEGORIES
    assert found["willingness"]["n_prompts"] == 1100
    audited = command("audit", "first", "--json")
    assert audited.status == 1
    lines = json.loads(audited.out)["lines"]
    assert [line["slug"] for line in lines if line["leaks"]] == ["hard-1099"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="bounds on a process")
def test_a_hundred_thousand_categories_end_in_bounded_memory(tmp_path: Path) -> None:
    """Each of them a hard line that leaked, as a stranger's folder may say."""
    import resource

    names = [f"hard-{n}" for n in range(100_000)]
    write_run(tmp_path / "run", [(f"p-{name}", name, 1, "answered", "partial") for name in names])

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

    for words in (
        ("score", "run"),
        ("audit", "run", "--junit", "audit.xml"),
        ("report", "run", "-o", "page.html"),
        ("report", "run", "-o", "card.md"),
        ("verify", "run"),
        ("export", "run", "--to", "bundle", "run.zip"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "refusalkit", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=bounded,
        )
        assert done.returncode in (0, 1), done.stderr
        assert "defect" not in done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    assert used < 2 * 2**30
    assert "1,000 largest have figures of their own" in (tmp_path / "page.html").read_text("utf-8")
