"""Answers are hostile text: from a provider's socket through run, terminal and report.

Each answer is a placeholder with something in it that would act if anything took it for more than
text: markup, an SVG with a script, marks that reorder a line, a megabyte in one line, NULs,
terminal escapes, a formula, the end of a fence.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import refusalkit as rk
from browser import Visit
from commandline import Call, caller
from loopback import Asked, LoopbackServer, Script

pytestmark = pytest.mark.xdist_group("chromium")

CALL_HOME = "https://attacker.invalid/"
ANSWERS = (
    "[demo answer] <script>document.title='taken'</script><img src=x onerror=alert('taken')>",
    f"[demo answer] <svg onload=\"document.title='taken'\"><image href='{CALL_HOME}'/></svg>",
    f"[demo answer] </pre></table></main><style>*{{display:none}}</style><link href={CALL_HOME}>",
    "[demo answer] \u202etxet desrever\u202c \u2066isolated\u2069 \u200b\ufeff",
    "[demo answer] \x1b[31mred\x1b[0m \x1b]0;taken\x07 \x9b2J \x08\x7f",
    "[demo answer] \x00 NUL \x00\x00 \ud800 lone",
    "[demo answer] " + "<b>x" * 250_000,
    '=HYPERLINK("https://attacker.invalid/") [demo answer]\r\n```\n# Heading\n\n| a | b |',
    "{{ 7 * 7 }} {% raw %} [demo answer]\n@misc{taken,\n}\n\u2028next\u2029",
)


def hostile(asked: Asked) -> str:
    return ANSWERS[(int(asked.key[:8], 16) + asked.ask) % len(ANSWERS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A run whose provider says nothing else; some prompts are a hard line."""
    folder = tmp_path_factory.mktemp("answers")
    rows = [
        {"prompt": f"[placeholder {n}]", "category": "Ordinary" if n % 4 else "A hard line"}
        for n in range(16)
    ]
    prompts = folder / "set.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with LoopbackServer(Script(target_reply=hostile)) as server, pytest.MonkeyPatch.context() as m:
        m.setenv("OPENAI_API_KEY", "placeholder")
        return rk.benchmark(
            "openai/m",
            prompts,
            hard_line=["A hard line"],
            judge="lexical",
            trials=2,
            api_base=server.openai_base,
            out=folder / "run",
        )


def hidden(text: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return {char for char in text if unicodedata.category(char) in kinds} - {"\n"}


def test_every_answer_was_given_and_kept(run: rk.Run) -> None:
    frame = rk.units(run, show_text=True)
    texts = set(frame["text"].drop_nulls().to_list())
    assert len(texts) == len(ANSWERS)
    assert max(map(len, texts)) > 1_000_000 - 20
    assert frame.filter("hard_line")["text"].null_count() == 8


def test_the_terminal_shows_nothing_of_it(
    run: rk.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call: Call = caller(monkeypatch, capsys, tmp_path)
    for words in ("score", "score --by prompt", "score --json", "audit", "report -o r.html"):
        command, *options = words.split()
        said = call(command, run.path, *options)
        assert hidden(said.out + said.err) == set(), words
        assert "demo answer" not in said.out + said.err


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".csv"])
def test_no_form_holds_hidden_characters_or_live_markup(
    run: rk.Run, tmp_path: Path, suffix: str
) -> None:
    path = rk.report(run, tmp_path / f"report{suffix}", show_text=True)
    text = path.read_text(encoding="utf-8")
    assert hidden(text) == set()
    if suffix == ".html":
        assert len(re.findall(r"<(?:script|style|svg[^>]*onload|img|image|link)\b", text)) == 2
        assert "&lt;script&gt;" in text
        assert "<pre>{{ 7 * 7 }} {% raw %}" in text
    if suffix == ".csv":
        cells = pl.read_csv(path)["text"].drop_nulls().to_list()
        assert not any(cell.startswith("=") for cell in cells)
        assert any(cell.startswith("'=HYPERLINK") for cell in cells)


def test_the_page_stays_small_and_says_that_an_answer_is_cut(run: rk.Run, tmp_path: Path) -> None:
    path = rk.report(run, tmp_path / "report.html", show_text=True)
    assert path.stat().st_size < 300_000
    assert "up to 4\u2009000 characters" in path.read_text(encoding="utf-8")


def test_a_browser_takes_it_for_text(browser: Any, run: rk.Run, tmp_path: Path) -> None:
    path = rk.report(run, tmp_path / "report.html", show_text=True)
    with Visit(browser, path, width=360) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert "taken" not in visit.page.title()
        assert visit.console == []
        assert visit.requests == []
        assert visit.page.locator("#units-table pre *").count() == 0
        assert visit.page.locator("#configuration").is_visible()
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
