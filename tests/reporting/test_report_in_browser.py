"""The report in a real Chromium: no network, no errors, accessible, readable on every medium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from browser import Visit
from handmade import CROSSED, HELD, UNFINISHED, write_run
from reported import everything

pytestmark = pytest.mark.xdist_group("chromium")

PHONE, DESKTOP = 360, 1280
SETTINGS = {"resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run, one with answers, one with everything a report can show, and several runs."""
    folder = tmp_path_factory.mktemp("reports")
    whole = "refusalkit-166,contrast-146"
    one = rk.benchmark("demo/mixed", whole, trials=2, out=folder / "one")
    leaky = rk.benchmark(
        "demo/leaky",
        "starter",
        category=["minor-specific-harm", "suicide-and-self-harm", "weapons", "cbrn"],
        out=folder / "leaky",
    )
    small = write_run(folder / "small", CROSSED)
    alike = write_run(folder / "alike", HELD)
    unfinished = write_run(folder / "unfinished", UNFINISHED)
    told = everything(folder / "told")
    return {
        "one": rk.report(one),
        "texts": rk.report(leaky, folder / "texts.html", show_text=True),
        "whole": rk.report([one, one, one], folder / "whole.html"),
        "several": rk.report([small, alike, unfinished], folder / "several.html"),
        "told": rk.report(told),
        "crossed": rk.report(small),
    }


def widths(visit: Visit) -> tuple[int, int]:
    wide, window = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return wide, window


def unfold(visit: Visit) -> None:
    visit.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")


@pytest.fixture(scope="module")
def desk(browser: Any, pages: dict[str, Path]) -> Iterator[Visit]:
    """The page of a complete run at desktop width."""
    with Visit(browser, pages["one"], width=DESKTOP) as visit:
        yield visit


@pytest.fixture(scope="module")
def phone(browser: Any, pages: dict[str, Path]) -> Iterator[Visit]:
    """The page of a complete run at phone width."""
    with Visit(browser, pages["one"], width=PHONE) as visit:
        yield visit


@pytest.mark.parametrize("screen", [pytest.param("desk", marks=pytest.mark.slow), "phone"])
def test_a_complete_run_fits_without_errors_or_requests(
    request: pytest.FixtureRequest, screen: str
) -> None:
    visit: Visit = request.getfixturevalue(screen)
    wide, window = widths(visit)
    assert wide <= window
    unfold(visit)
    assert widths(visit)[0] <= window
    assert visit.console == []
    assert visit.requests == []


@pytest.mark.parametrize(
    ("name", "look"), [("several", "light"), ("texts", "dark phone"), ("told", "phone")]
)
@pytest.mark.slow
def test_axe_finds_no_violation(browser: Any, pages: dict[str, Path], name: str, look: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    width = PHONE if "phone" in look else DESKTOP
    with Visit(browser, pages[name], width=width, dark="dark" in look) as visit:
        unfold(visit)
        found = Axe().run(visit.page, options=SETTINGS)
        assert [rule["id"] for rule in found.response["violations"]] == [], found.generate_report()
        assert widths(visit)[0] <= width
        assert visit.console == []
        assert visit.requests == []


def test_the_first_screen_has_the_main_results(desk: Visit) -> None:
    for selector in ("h1", ".measured", ".headline .first", ".headline .held", ".cautions"):
        box = desk.page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900, selector


def test_page_and_plots_follow_the_dark_setting(desk: Visit) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    dot = "getComputedStyle(document.querySelector('figure svg use')).fill"
    assert desk.page.evaluate(paper) == "rgb(255, 255, 255)"
    assert desk.page.evaluate(dot) == "rgb(43, 87, 208)"
    desk.page.emulate_media(color_scheme="dark")
    assert desk.page.evaluate(paper) == "rgb(20, 22, 28)"
    assert desk.page.evaluate(dot) == "rgb(145, 176, 255)"  # plots follow
    desk.page.emulate_media(color_scheme="light")


@pytest.mark.parametrize(
    ("screen", "shown", "away"), [("phone", ".narrow", ".wide"), ("desk", ".wide", ".narrow")]
)
def test_plots_are_legible_at_every_width(
    request: pytest.FixtureRequest, screen: str, shown: str, away: str
) -> None:
    page = request.getfixturevalue(screen).page
    assert page.locator(f"#categories {shown} svg").is_visible()
    assert not page.locator(f"#categories {away} svg").is_visible()
    smallest = page.evaluate(
        f"(() => {{ const svg = document.querySelector('#categories {shown} svg');"
        "return 11 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width })()"
    )
    assert smallest >= 10  # pixels of the smallest letters


def test_units_are_sorted_and_filtered_from_the_keyboard(desk: Visit) -> None:
    page = desk.page
    head = page.locator("#units-table thead th", has_text="chars")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    column = page.evaluate(
        "[...document.querySelectorAll('#units-table thead th')]"
        ".findIndex((th) => th.textContent === 'chars')"
    )
    chars = page.evaluate(
        f"[...document.querySelectorAll('#units-table tbody tr')]"
        f".map((row) => Number(row.cells[{column}].textContent))"
    )
    assert chars == sorted(chars, reverse=True)
    assert len(set(chars)) > 1

    page.get_by_role("searchbox").fill("weapons-0 refusal")
    shown = page.locator("#units-table tbody tr:visible")
    texts = shown.all_inner_texts()
    assert texts
    assert all("weapons-0" in text and "refusal" in text for text in texts)
    total = page.locator("#units-table tbody tr").count()
    assert page.locator("#units-count").inner_text() == f"{len(texts)} of {total}"
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Show").select_option("unscored")
    assert 0 < shown.count() < total


def test_the_first_tab_stop_skips_to_the_results(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["crossed"]) as visit:
        visit.page.keyboard.press("Tab")
        focused = visit.page.locator(":focus")
        assert focused.inner_text() == "Skip to the results"
        box = focused.bounding_box()
        assert box is not None
        assert box["y"] >= 0  # seen, now that it has the focus
        visit.page.keyboard.press("Enter")
        assert visit.page.evaluate("document.activeElement.id") == "main"


def test_a_point_says_its_value_under_the_pointer(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["several"]) as visit:
        page = visit.page
        for figure in ("#categories .wide", "#overview"):
            spots = page.locator(f"{figure} svg rect.hover")
            texts = [each.text_content() for each in spots.all()]
            assert texts
            assert all("\u00a0% (" in text and " to " in text for text in texts), texts
        spot = page.locator("#overview rect.hover").first
        box = spot.bounding_box()
        assert box is not None
        # Whatever lies on top there is what the pointer meets.
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.evaluate(f"window.scrollTo(0, {y - 400})")
        box = spot.bounding_box()
        met = page.evaluate(
            "([x, y]) => document.elementFromPoint(x, y).getAttribute('class')",
            [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
        )
        assert met == "hover"
        assert visit.console == []


def test_every_value_under_the_pointer_lies_on_its_point(
    browser: Any, pages: dict[str, Path]
) -> None:
    """The places are computed beside matplotlib, so they are held against what it drew."""
    with Visit(browser, pages["one"]) as visit:
        places = """(selector) => [...document.querySelectorAll(selector)].map((node) => {
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2, box.width, box.height];
        })"""
        for figure in ("#categories .wide", "#danger"):
            marks = visit.page.evaluate(places, f"{figure} svg use")
            spots = visit.page.evaluate(places, f"{figure} svg rect.hover")
            inside = [
                any(abs(x - sx) <= w / 2 + 1 and abs(y - sy) <= h / 2 + 1 for sx, sy, w, h in spots)
                for x, y, _, _ in marks
            ]
            assert spots
            assert len(inside) >= len(spots)
            assert all(inside[: len(spots)]), figure


def test_runs_are_listed_by_value_and_a_crossed_line_before_all(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Visit(browser, pages["several"], width=PHONE) as visit:
        rows = visit.page.locator(".runs tbody tr")
        assert "crossed" in rows.first.inner_text()
        values = [float(text) for text in visit.page.locator(".runs .big-cell").all_inner_texts()]
        assert values[1:] == sorted(values[1:], reverse=True)
        # Nothing of the first table lies beyond the edge of a phone.
        fits = "(() => { const s = document.querySelector('.runs').parentElement;"
        assert visit.page.evaluate(f"{fits} return s.scrollWidth <= s.clientWidth + 1 }})()")


def test_the_table_of_units_shows_all_its_columns_on_a_desk(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Visit(browser, pages["several"], width=DESKTOP) as visit:
        fits = "(() => { const s = document.querySelector('#units-table').parentElement;"
        assert visit.page.evaluate(f"{fits} return s.scrollWidth <= s.clientWidth + 1 }})()")
        assert widths(visit)[0] <= DESKTOP
        heads = visit.page.locator("#units-table thead th").all_inner_texts()
        assert heads.index("label") < heads.index("outcome") < heads.index("chars")
        aligned = "(n) => getComputedStyle(document.querySelector("
        aligned += "`#units-table tbody tr :nth-child(${n})`)).textAlign"
        assert visit.page.evaluate(aligned, 1) == "left"
        assert visit.page.evaluate(aligned, heads.index("chars") + 1) == "right"


def test_it_works_without_scripts(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["crossed"], scripts=False) as visit:
        assert visit.page.locator("#units-table tbody tr").count() == 27
        assert not visit.page.locator(".filter").is_visible()
        assert visit.page.locator("#units-table button").count() == 0


@pytest.mark.slow
def test_three_whole_runs_print_on_eight_pages(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    with Visit(browser, pages["whole"], width=680, dark=True) as visit:
        visit.page.emulate_media(media="print")
        paper = visit.page.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--paper')"
        )
        assert paper.strip() == "#ffffff"  # no ink for a dark page
        assert not visit.page.locator("nav").is_visible()
        assert not visit.page.locator("#units-table").is_visible()
        assert not visit.page.locator("details").first.is_visible()
        assert widths(visit)[0] <= 680
        printed = visit.page.pdf(format="A4", path=str(tmp_path / "report.pdf"))
        assert printed.startswith(b"%PDF-")
        pages_printed = printed.count(b"/Type /Page\n") or printed.count(b"/Type/Page")
        assert 3 <= pages_printed <= 8


def test_a_crossed_line_leads_the_page(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["crossed"]) as visit:
        assert visit.page.locator(".headline .first .crossed").inner_text() == "Crossed"
        assert visit.page.locator("main section").first.get_attribute("id") == "hard-lines"
        first = visit.page.locator("#units-table tbody tr").first
        assert first.locator("td").first.inner_text() in ("partial", "compliance")
        visit.page.get_by_label("Show").select_option("leak")
        assert visit.page.locator("#units-table tbody tr:visible").count() == 2
