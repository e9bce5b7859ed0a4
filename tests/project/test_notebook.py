"""Notebooks: results have an HTML view, and the example runs."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from handmade import CROSSED, HELD, write_run
from places import ROOT

NOTEBOOKS = ROOT / "docs" / "notebooks"
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"


class Nesting(HTMLParser):
    """Fails on wrongly nested tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("what", ["score", "audit"])
def test_the_html_view_of_a_result_is_self_contained_and_escaped(tmp_path: Path, what: str) -> None:
    titles = {"suicide-and-self-harm": HOSTILE}
    made = write_run(tmp_path / "made", CROSSED, titles=titles, run_id=HOSTILE)
    manifest = made.manifest
    hostile = manifest.model_copy(
        update={"prompt_set": manifest.prompt_set.model_copy(update={"name": HOSTILE})}
    )
    result = getattr(rk, what)(made.with_manifest(hostile))
    html = result._repr_html_()
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "style", "img"}
    assert "&lt;script&gt;" in html
    assert not re.search(r"[\x00-\x1f\u202e]", html)
    assert not re.search(r"https?:|url\(", html)
    if what == "score":
        assert f'<td style="text-align:right">{result.willingness.value:.1f}</td>' in html
    else:
        assert "crossed" in html
        assert "leak: suicide-and-self-harm-02, 2 of 3 trials, 1 partial, 1 compliance" in html


def hostile_run(folder: Path, answers: dict[str, str]) -> rk.Run:
    made = write_run(folder, answers, run_id=HOSTILE)
    entry = made.manifest.judges[made.manifest.judge]
    config = {**made.manifest.config, "model": HOSTILE}
    manifest = made.manifest.model_copy(update={"config": config, "trials": 3})
    assert entry.kind == "llm"
    made.path.joinpath("manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return rk.load_run(made.path)


@pytest.mark.parametrize("what", ["compare", "leaderboard"])
def test_results_of_several_runs_have_an_html_view(tmp_path: Path, what: str) -> None:
    runs = [hostile_run(tmp_path / name, found) for name, found in (("a", CROSSED), ("b", HELD))]
    result = getattr(rk, what)(*runs)
    html = result._repr_html_()
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "style", "img"}
    assert "&lt;script&gt;" in html
    assert not re.search(r"[\x00-\x1f\u202e]", html)
    assert not re.search(r"https?:|url\(", html)
    if what == "compare":
        assert f">{result.willingness.estimate.value:+.1f}</td>" in html
        assert html.count("A - B") == len(result.pair.figures)
    else:
        assert html.index("Measured here") < html.index("self-reported; not comparable")
        assert ">57.1</td>" in html


def test_a_comparison_of_many_runs_is_against_the_first(tmp_path: Path) -> None:
    made = [write_run(tmp_path / name, HELD) for name in "abc"]
    html = rk.compare(*made)._repr_html_()
    assert "A - B" in html
    assert "A - C" in html
    assert "B - C" not in html


def executed(name: str, folder: Path) -> Any:
    """A notebook after all its cells have run, in a folder of its own."""
    # These libraries raise deprecation warnings about one another on import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbclient
        import nbformat

        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
        client = nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return notebook


def shown(notebook: Any) -> list[dict[str, str]]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if "data" in output]


def test_there_are_notebooks_for_three_tasks() -> None:
    names = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert names == {"first-benchmark", "comparing-two-models", "measuring-a-judge"}


@pytest.mark.slow
def test_the_notebook_of_a_first_benchmark_runs_with_a_bar(tmp_path: Path) -> None:
    notebook = executed("first-benchmark", tmp_path)
    data = shown(notebook)
    assert any("willingness" in each.get("text/html", "") for each in data)
    assert any("hard lines" in each.get("text/html", "") for each in data)
    assert (tmp_path / "report.html").exists()
    assert any("application/vnd.jupyter.widget-view+json" in each for each in data)
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    models = [one["state"] for one in states.values()]
    (bar,) = (one for one in models if one.get("_model_name") == "IntProgressModel")
    assert bar["value"] == bar["max"] == rk.load_run(tmp_path / "leaky").manifest.n_units
    (words,) = (one for one in models if one.get("_model_name") == "LabelModel")
    assert words["value"].startswith(f"{bar['max']}/{bar['max']} answered")


@pytest.mark.slow
def test_the_notebook_that_compares_two_models_runs(tmp_path: Path) -> None:
    data = shown(executed("comparing-two-models", tmp_path))
    assert any("A - B" in each.get("text/html", "") for each in data)
    assert (tmp_path / "both.html").exists()


@pytest.mark.slow
def test_the_notebook_that_measures_a_judge_runs(tmp_path: Path) -> None:
    data = shown(executed("measuring-a-judge", tmp_path))
    plain = [each.get("text/plain", "") for each in data]
    assert any("sensitivity" in text or "kappa" in text for text in plain)
    assert any("ProbeStatus.FOOLED" in text for text in plain)
    assert (tmp_path / "judged" / "manifest.json").exists()


def test_without_a_kernel_progress_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rk.benchmark(
        "demo/open", "starter", trials=1, out=tmp_path / "run", on_progress=rk.NotebookProgress()
    )
    assert "judged, " in capsys.readouterr().out.splitlines()[-1]
