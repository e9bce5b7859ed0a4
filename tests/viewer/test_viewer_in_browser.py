"""The viewer in a real Chromium: by keyboard alone, accessible, quiet, fit for every screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

import refusalkit as rk
from refusalkit.runs.folder import open_run
from viewer.hostile import UNIT, write_hostile
from viewer.served import Client, viewer
from viewer.test_reading import add_judge

pytestmark = pytest.mark.xdist_group("viewer-browser")
DESKTOP, PHONE = 1280, 390


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    rk.benchmark("demo/leaky", "starter", trials=2, out=folder / "leaky", keep_hard_line_text=True)
    rk.benchmark("demo/cautious", "starter", trials=2, out=folder / "cautious", pressure=2)
    add_judge(open_run(folder / "leaky"))
    write_hostile(folder / "hostile")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Client]:
    with viewer(runs) as opened:
        yield opened


class Window:
    """A window of the browser, let in with the key; it notes what must not happen."""

    def __init__(self, browser: Any, client: Client, width: int, *, dark: bool = False) -> None:
        self.client = client
        self.console: list[str] = []
        self.elsewhere: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 860},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda said: self.console.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", self._note)
        self.page.goto(client.url)

    def _note(self, request: Any) -> None:
        if urlsplit(request.url).netloc != self.client.host:
            self.elsewhere.append(request.url)

    def open(self, path: str) -> Any:
        self.page.goto(f"http://{self.client.host}{path}")
        return self.page

    def fits(self) -> bool:
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return bool(wide <= window)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def desk(browser: Any, client: Client) -> Iterator[Window]:
    with Window(browser, client, DESKTOP) as window:
        yield window


def said(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.inner_text())


def test_the_key_leaves_the_address_at_once(desk: Window, client: Client) -> None:
    page = desk.open(f"/?key={client.key}")
    assert client.key not in page.url
    assert "key" not in page.evaluate("document.cookie")  # scripts do not see it
    page.locator("#runs tbody tr").nth(2).wait_for()


@pytest.mark.slow
def test_runs_are_sorted_filtered_and_compared_by_keyboard(desk: Window) -> None:
    page = desk.open("/")
    rows = page.locator("#runs tbody tr")
    rows.nth(2).wait_for()
    page.locator("#runs .line.crossed").first.wait_for()
    head = page.locator('#runs th[data-key="willingness"] button')
    head.focus()
    page.keyboard.press("Enter")
    figures = [float(text) for text in page.locator("#runs .figure").all_inner_texts()]
    assert figures == sorted(figures, reverse=True)
    page.keyboard.press("Enter")
    assert (
        page.locator('#runs th[data-key="willingness"]').get_attribute("aria-sort") == "ascending"
    )
    page.keyboard.press("Escape")
    page.locator("body").press("/")
    page.keyboard.type("cautious")
    assert rows.count() == 1
    assert "1 of 3 runs" in said(page, "#summary")
    page.get_by_role("searchbox").fill("")
    for name in ("demo/leaky", "demo/cautious"):
        page.get_by_role("checkbox", name=f"Pick {name}").focus()
        page.keyboard.press("Space")
    page.locator("#compare").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="2 runs compared").wait_for()
    page.locator("#differences").wait_for()
    page.get_by_role("link", name="Read side by side").click()
    page.locator(".two").wait_for()


def test_units_are_read_by_keyboard_alone(desk: Window, client: Client) -> None:
    run = client.run("leaky")
    page = desk.open(f"/run/{run}/read")
    units = client.units(run)
    page.locator("#unit h1").wait_for()
    page.keyboard.press("j")
    page.wait_for_url(lambda url: quote(units[1], safe="") in url)
    page.keyboard.press("k")
    page.wait_for_url(lambda url: quote(units[0], safe="") in url)
    assert page.locator("#units a[aria-current]").get_attribute("data-unit") == units[0]
    # Covered before a deliberate key, each time.
    page.locator(".cover").wait_for()
    assert "[demo answer]" not in page.content()
    page.keyboard.press("u")
    page.locator(".prompt .turn .text").first.wait_for()
    assert page.locator(".cover").count() == 0
    page.keyboard.press("j")
    page.locator(".cover").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("weapons-01")
    page.locator("#count", has_text="2 of 70").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.locator("#unit h1", has_text="weapons-01").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("j")  # not for the page now
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    page.keyboard.press("x")
    page.locator("#count", has_text="70 units").wait_for()


@pytest.mark.slow
def test_the_address_is_a_link_to_filters_and_unit(desk: Window, client: Client) -> None:
    run = client.run("leaky")
    page = desk.open(f"/run/{run}/read")
    page.get_by_label("Show").select_option("differ")
    page.get_by_label("Label").select_option("refusal")
    page.locator("#units a").nth(1).click()
    prompt, _, trial = parse_qs(urlsplit(page.url).query)["unit"][0].partition("#")
    page.locator("#unit h1", has_text=f"{prompt} trial {trial}").wait_for()
    page.locator("#unit .said").nth(1).wait_for()
    link, title = page.url, said(page, "#unit h1")
    rows = page.locator("#units a").count()
    page = desk.open(link.partition(client.host)[2])
    page.locator("#unit h1", has_text=title.split()[0]).wait_for()
    assert said(page, "#unit h1") == title
    assert page.get_by_label("Show").input_value() == "differ"
    page.locator("#units a").nth(rows - 1).wait_for()
    assert page.locator("#units a").count() == rows


def test_flipped_units_are_shown_side_by_side(desk: Window, client: Client) -> None:
    run, other = client.run("leaky"), client.run("cautious")
    page = desk.open(f"/run/{run}/read?beside={other}&show=flipped&label=compliance")
    page.locator(".two").wait_for()
    labels = page.locator(".two > div").evaluate_all(
        "(sides) => sides.map((side) => side.querySelector('.said .label').textContent)"
    )
    assert labels == ["compliance", "refusal"]
    assert page.locator(".two h2").first.inner_text() == "demo/leaky"


def test_answers_are_labelled_by_keyboard_and_blind(
    desk: Window, client: Client, runs: Path
) -> None:
    page = desk.open(f"/run/{client.run('leaky')}/label")
    page.get_by_label("Your name").fill("keys")
    page.get_by_label("Answers").fill("14")
    page.keyboard.press("Enter")
    page.locator("#where", has_text="1 of 14").wait_for()
    for verdict in ("lexical", "graded", "verdict", "judge said"):
        assert verdict not in said(page, "#work").lower()
    for n in range(14):
        page.keyboard.press("rdpc"[n % 4])
        if n == 3:
            page.locator("#where", has_text="5 of 14").wait_for()
            page.keyboard.press("u")
            page.locator("#where", has_text="4 of 14").wait_for()
            page.keyboard.press("c")
        if n < 13:
            page.locator("#where", has_text=f"{n + 2} of 14").wait_for()
    page.get_by_role("heading", name="You against the judge").wait_for()
    assert (runs / "leaky" / "labels" / "keys.jsonl").exists()


def test_a_hostile_run_runs_nothing(browser: Any, client: Client) -> None:
    with Window(browser, client, DESKTOP) as window:
        row = next(r for r in client.get("/api/runs").json["runs"] if "hostile" in r["name"])
        window.open("/")
        window.page.locator("#runs tbody tr").nth(2).wait_for()
        read = f"/run/{row['id']}/read"
        for path in (f"/run/{row['id']}", read, f"{read}?unit={quote(UNIT, safe='')}"):
            page = window.open(path)
            page.locator("h1").first.wait_for()
            page.locator("[data-waiting]").wait_for(state="detached")
            assert page.evaluate("window.owned") is None
            assert page.title() != "owned"
        page.locator(".answer .text").wait_for()
        assert "<script>" in said(page, ".answer .text")
        assert page.locator("article script, article img, td img").count() == 0
        assert window.console == []
        assert window.elsewhere == []
        # The page itself could not do it: the policy has no inline and no strings as code.
        assert page.evaluate(
            "(() => { try { document.body.innerHTML = '<b>x</b>'; return false } "
            "catch { return true } })()"
        )


def test_a_page_of_another_site_gets_nothing(browser: Any, client: Client, runs: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(client.url)
    run = client.run("leaky")
    before = (
        sorted((runs / "leaky" / "labels").glob("*"))
        if (runs / "leaky" / "labels").exists()
        else []
    )
    # Another origin with the user's cookies: the same machine under its other name.
    attacker = f"http://localhost:{client.port}/static/icon.svg"
    evil = context.new_page()
    evil.route(
        attacker, lambda route: route.fulfill(body="<title>evil</title>", content_type="text/html")
    )
    evil.goto(attacker)
    assert evil.title() == "evil"
    target = f"http://{client.host}"
    read = evil.evaluate(
        "(url) => fetch(url, {credentials: 'include'}).then((r) => r.text(), () => 'blocked')",
        f"{target}/api/runs",
    )
    assert read == "blocked"
    wrote = evil.evaluate(
        "(url) => fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors', "
        'headers: {\'Content-Type\': \'text/plain\'}, body: \'{"do":"start","annotator":"evil"}\'})'
        ".then((r) => r.type, () => 'blocked')",
        f"{target}/api/run/{run}/label",
    )
    assert wrote in ("opaque", "blocked")
    framed = evil.evaluate(
        "(url) => new Promise((done) => { const f = document.createElement('iframe'); f.src = url;"
        "f.onload = () => { try { done(f.contentDocument?.body?.innerText ?? 'sealed') } "
        "catch { done('sealed') } }; document.body.append(f) })",
        f"{target}/",
    )
    assert "leaky" not in framed
    after = (
        sorted((runs / "leaky" / "labels").glob("*"))
        if (runs / "leaky" / "labels").exists()
        else []
    )
    assert before == after
    context.close()


def test_a_link_to_a_unit_opens_the_page_of_the_list_that_has_it(
    desk: Window, client: Client
) -> None:
    run = client.run("leaky")
    last = client.units(run)[-1]
    page = desk.open(f"/run/{run}/read?unit={quote(last, safe='')}")
    page.locator("#units a[aria-current]").wait_for()
    here = page.locator("#units a[aria-current]")
    assert here.get_attribute("data-unit") == last
    # Whole, not half below the pager.
    seen = here.evaluate(
        "each => each.getBoundingClientRect().bottom <= "
        "each.closest('ol').getBoundingClientRect().bottom + 1"
    )
    assert seen


def test_a_phone_shows_the_list_and_then_the_unit(browser: Any, client: Client) -> None:
    with Window(browser, client, PHONE) as window:
        page = window.open(f"/run/{client.run('leaky')}/read?show=leaks")
        page.locator("#units a").first.click()
        page.locator("#unit h1").wait_for()
        assert not page.locator("#units").is_visible()
        assert window.fits()
        page.get_by_role("button", name="Units").click()
        page.locator("#units a").first.wait_for()
        assert window.fits()
        window.open(f"/run/{client.run('leaky')}/read?q=no-such-words")
        page.get_by_text("No unit passes these filters.").wait_for()
        page = window.open("/")
        page.locator("#runs tbody tr").nth(2).wait_for()
        assert window.fits()
        assert window.console == []
        assert window.elsewhere == []


PAGES = (
    "/",
    "/run/{leaky}",
    "/run/{leaky}/read",
    "/run/{leaky}/read?beside={cautious}&show=flipped",
    "/run/{cautious}/read",
    "/run/{leaky}/label",
    "/compare?run={leaky}&run={cautious}",
    "/nothing",
)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_axe_finds_no_violation(browser: Any, client: Client, width: int, dark: bool) -> None:
    from axe_playwright_python.sync_playwright import Axe

    ids = {name: client.run(name) for name in ("leaky", "cautious")}
    with Window(browser, client, width, dark=dark) as window:
        for path in PAGES:
            page = window.open(path.format(**ids))
            page.locator("#main").first.wait_for(state="attached")
            page.locator("[data-waiting]").wait_for(state="detached")
            if path == "/":
                page.locator("#runs .line.crossed").first.wait_for()
                page.get_by_role("checkbox").first.check()
            if "/read" in path:
                page.locator("#units a").first.click()
                page.locator("#unit h1").wait_for()
            if path.endswith("label"):
                page.get_by_label("Your name").fill(f"axe{width}{dark}")
                page.get_by_label("Answers").fill("14")
                page.get_by_role("button", name="Begin").click()
                page.locator("#where", has_text="of 14").wait_for()
            page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            named = [rule["id"] for rule in found.response["violations"]]
            assert named == [], f"{path}: {found.generate_report()}"
            assert window.fits(), path
        refused = [line for line in window.console if "404" not in line]
        assert refused == []
        assert window.elsewhere == []
