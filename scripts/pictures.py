"""Pictures of every page of the viewer and the report, to be looked at.

    python scripts/pictures.py --out build/pictures   # wide and on a phone, light and dark
    python scripts/pictures.py --docs                 # renews the few in docs/pictures

The runs are made for it, of scripted models on shipped sets and on two prompts about tea. A real
Chromium ($CHROMIUM, or chromium) opens a real `refusalkit view`. It prints which pages are wider
than their window, which texts are cut without a sign of it, and how many sheets a report takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import HTTPCookieProcessor, build_opener

import refusalkit as rk

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
# A report is longer than a screen: so many pixels of it are one picture.
SLICE = 1600
# The texts of a docs picture are a safe twin's.
SAFE = "contrast-146"
LONG = "I would start with the kettle. " * 40

# What sticks out of the window, and what is cut although nothing says so.
STICKS_OUT = """() => {
  const found = [];
  const all = document.documentElement.scrollWidth;
  if (all > innerWidth) found.push(`page ${all} > ${innerWidth}`);
  const told = (each) => `${each.tagName}.${each.className} ${each.textContent.trim().slice(0, 40)}`;
  for (const each of document.querySelectorAll("body *")) {
    const { overflowX, textOverflow, visibility } = getComputedStyle(each);
    if (!each.offsetParent || visibility === "hidden" || each.closest(".away, svg")) continue;
    const wider = each.clientWidth > 1 && each.scrollWidth > each.clientWidth + 1;
    if (wider && overflowX === "hidden" && textOverflow !== "ellipsis") found.push(`cut: ${told(each)}`);
    const box = each.getBoundingClientRect();
    const scrolls = each.closest(".scroll, .list-box, pre, [tabindex='0']");
    if (box.width && box.right > innerWidth + 1 && !scrolls) found.push(`out: ${told(each)}`);
  }
  return [...new Set(found)].slice(0, 12);
}"""  # noqa: E501


class Second:
    """A second judge, who differs on each third answer that the first took for compliance."""

    id = "second"

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        label = rk.Label.REFUSAL if "can't" in completion.text else rk.Label.COMPLIANCE
        if label is rk.Label.COMPLIANCE and len(prompt.id) % 3 == 0:
            label = rk.Label.PARTIAL
        at = (prompt.id, prompt.category, completion.trial)
        return rk.Verdict(
            *at, self.id, label, reason="[demo reason] it follows the request in part"
        )

    async def aclose(self) -> None:
        pass


async def slowly(text: str) -> str:
    """Answer after a while, so that a run is at work as long as the pictures take."""
    del text
    await asyncio.sleep(3)
    return "[demo answer]"


def make_runs(folder: Path, *, odd: bool) -> None:
    """Finished runs, one that stopped early; with `odd` one of long names, an unreadable one."""
    sets = f"starter,{SAFE}"
    rk.benchmark("demo/leaky", sets, trials=3, out=folder / "leaky", framings=True)
    rk.regrade(folder / "leaky", Second(), canaries=0)
    rk.benchmark("demo/cautious", sets, trials=3, out=folder / "cautious", pressure=2)
    rk.benchmark("demo/open", sets, trials=3, out=folder / "models" / "open-step-1200")
    rk.benchmark("demo/mixed", "starter", trials=2, out=folder / "stopped")
    for name in ("completions.jsonl", "verdicts.jsonl"):
        lines = (folder / "stopped" / name).read_text().splitlines(keepends=True)
        (folder / "stopped" / name).write_text("".join(lines[:30]))
    if odd:
        make_odd_runs(folder)


def make_odd_runs(folder: Path) -> None:
    """A run of long names and long answers, and what is no run."""
    tea = folder / "tea.jsonl"
    rows = (
        {"id": "green-tea", "category": "tea", "text": "How hot should water be for green tea?"},
        {
            "id": "a-very-long-name-of-a-prompt-" * 3 + "end",
            "category": "tea",
            "text": "Tea? " * 60,
        },
    )
    tea.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = rk.from_callable(
        lambda text: LONG, name="mine/a-model-with-a-rather-long-name-v2-instruct"
    )
    rk.benchmark(model, tea, trials=2, judge="lexical", out=folder / "tea")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{")


def work_on(folder: Path) -> None:
    """A run that is not done while this process lives."""
    model = rk.from_callable(slowly, name="mine/slow")
    with contextlib.suppress(Exception):
        rk.benchmark(model, "starter", trials=40, judge="lexical", out=folder, concurrency=12)


def label_some(run: Path, annotator: str, n: int, wrong: int, leave: int = 0) -> None:
    """Labels of a person, some of them another's than the judge's."""
    with rk.open_labelling(run, n=n, annotator=annotator) as labelling:
        while labelling.n_left > leave and (item := labelling.next()) is not None:
            refused = "can't" in item.response
            labelling.label(
                item, "refusal" if refused or labelling.n_labelled < wrong else "compliance"
            )


@contextlib.contextmanager
def viewer(folder: Path) -> Iterator[str]:
    """A real viewer; its address."""
    command = [sys.executable, "-m", "refusalkit", "view", folder.name, "--no-open", "--json"]
    at = folder.parent
    with subprocess.Popen(command, cwd=at, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def ids_of(url: str) -> dict[str, str]:
    """How the viewer names each run, by its folder."""
    opened = build_opener(HTTPCookieProcessor())
    opened.open(url).read()
    base = url.partition("?")[0].rstrip("/")
    runs = json.loads(opened.open(f"{base}/api/runs").read())["runs"]
    return {Path(run["name"]).name: run["id"] for run in runs}


class Camera:
    """Opens pages in one size and theme, and takes their pictures."""

    def __init__(self, browser: Any, url: str, out: Path, size: str, theme: str) -> None:
        self.size, self.theme, self._out = size, theme, out
        width, height = SIZES[size]
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
            device_scale_factor=1,
            is_mobile=size == "phone",
            has_touch=size == "phone",
        )
        self.page = self._context.new_page()
        self.page.set_default_timeout(60_000)
        self.base = ""
        if url:
            self.base = url.partition("?")[0].rstrip("/")
            self.page.goto(url)

    def open(self, path: str, shown: str) -> Any:
        """Open a page, and wait for what it shows."""
        self.page.goto(path if path.startswith("file:") else self.base + path)
        self.page.locator(shown).first.wait_for()
        return self.page

    def take(self, name: str, *, whole: bool = False) -> None:
        """A picture of the window, or of the whole page, in slices; says what sticks out."""
        self.page.wait_for_timeout(250)
        path = self._out / f"{name}-{self.size}-{self.theme}.png"
        for what in self.page.evaluate(STICKS_OUT):
            print(f"{path.name}: {what}", flush=True)
        if not whole:
            self.page.screenshot(path=path)
            return
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for number, top in enumerate(range(0, height, SLICE), 1):
            clip = {
                "x": 0,
                "y": top,
                "width": SIZES[self.size][0],
                "height": min(SLICE, height - top),
            }
            path = self._out / f"{name}-{number:02}-{self.size}-{self.theme}.png"
            self.page.screenshot(path=path, clip=clip, full_page=True)

    def close(self) -> None:
        """Close the window."""
        self._context.close()


def take_viewer(camera: Camera, ids: dict[str, str]) -> None:
    """Every page of the viewer."""
    page = camera.open("/", "#runs tbody tr")
    page.wait_for_timeout(1500)
    camera.take("runs")
    for name in ("demo/leaky", "demo/cautious"):
        page.get_by_role("checkbox", name=f"Pick {name}").check()
    camera.take("runs-two-picked")
    page.get_by_role("searchbox").fill("no such run")
    camera.take("runs-none-found")
    leaky = ids["leaky"]
    camera.open(f"/run/{leaky}", ".report-head")
    camera.take("run", whole=True)
    for name in ("stopped", "tea", "slow"):
        camera.open(f"/run/{ids[name]}", ".report-head")
        camera.take(f"run-{name}")
    camera.open(f"/compare?run={leaky}&run={ids['cautious']}", ".report-head")
    camera.take("compare", whole=True)
    read = f"/run/{leaky}/read"
    page = camera.open(read, "#units a" if camera.size == "phone" else "#unit h1")
    camera.take("read")
    page.keyboard.press("?")
    camera.take("read-keys")
    page.keyboard.press("Escape")
    page = camera.open(f"{read}?q=no-such-words", "#empty")
    camera.take("read-none-found")
    page = camera.open(f"{read}?show=leaks", "#units a")
    first = page.locator("#units a").first.get_attribute("data-unit")
    camera.open(f"{read}?unit={quote(str(first))}", "#unit h1")
    camera.take("unit-covered")
    page = camera.open(f"{read}?show=differ&label=compliance", "#units a")
    some = page.locator("#units a[data-unit*='safe']").first.get_attribute("data-unit")
    there = f"unit={quote(str(some))}"
    page = camera.open(f"{read}?show=differ&{there}", "#unit h1")
    camera.take("unit-judges-differ")
    page.locator("#unit details summary").first.click()
    camera.take("unit-details", whole=True)
    camera.open(f"{read}?beside={ids['cautious']}&{there}", "#unit .two")
    camera.take("unit-beside", whole=camera.size == "phone")
    tea = f"/run/{ids['tea']}/read"
    camera.open(f"{tea}?unit={quote('a-very-long-name-of-a-prompt-' * 3 + 'end#1')}", "#unit h1")
    camera.take("unit-long")
    camera.open(f"/run/{ids['stopped']}/read", "#units a")
    camera.take("read-stopped")
    take_labelling(camera, leaky)
    camera.open("/run/nothing", "#main h1")
    camera.take("error-no-run")
    camera.open(f"{read}?unit=nothing", "#empty")
    camera.take("error-no-unit")
    camera.page.context.clear_cookies()
    camera.open("/", "body")
    camera.take("error-no-key")


def take_labelling(camera: Camera, run: str) -> None:
    """The page where answers are labelled: before, within, and when all is done."""
    page = camera.open(f"/run/{run}/label", "#annotators li")
    camera.take("label-begin")
    page.locator("#start input[name=annotator]").fill(f"{camera.size} {camera.theme}")
    page.locator("#start input[name=n]").fill("2")
    page.locator("#start button").click()
    page.locator("#problem:not([hidden])").wait_for()
    camera.take("label-too-few")
    page.locator("#start input[name=n]").fill("12")
    page.locator("#start button").click()
    page.locator("#item > *").first.wait_for()
    for _ in range(12):  # a prompt that may stand in a picture
        if page.locator("#item .answer").count():
            break
        page.locator("[data-do=skip]").click()
        page.wait_for_timeout(200)
    camera.take("label-answer")
    page = camera.open(f"/run/{run}/label", "#annotators li")
    page.get_by_role("button", name="Agreement").first.click()
    page.locator("#done h2").first.wait_for()
    camera.take("label-agreement", whole=True)


def take_reports(camera: Camera, files: dict[str, Path]) -> None:
    """The report of one run, of three, and of one that is not done."""
    for name, path in files.items():
        camera.open(path.resolve().as_uri(), "h1")
        camera.take(f"report-{name}", whole=True)


def pages_printed(browser: Any, files: dict[str, Path]) -> None:
    """Say how many sheets each report takes."""
    for name, path in files.items():
        page = browser.new_page()
        page.goto(path.resolve().as_uri())
        printed = page.pdf(format="A4")
        # A page is "/Type /Page", their list "/Type /Pages".
        n = printed.count(b"/Type /Page") - printed.count(b"/Type /Pages")
        print(f"report-{name}: {n} sheets of A4")
        page.close()


def take_for_docs(camera: Callable[[str, str], Camera], ids: dict[str, str], report: Path) -> None:
    """The pictures that README and docs show."""
    light = camera("desktop", "light")
    page = light.open("/", "#runs tbody tr")
    page.wait_for_timeout(1500)
    for name in ("demo/leaky", "demo/cautious"):
        page.get_by_role("checkbox", name=f"Pick {name}").check()
    keep(light, "viewer-runs")
    read = f"/run/{ids['leaky']}/read"
    page = light.open(f"{read}?show=differ&label=compliance", "#units a")
    some = page.locator("#units a[data-unit*='safe']").first.get_attribute("data-unit")
    light.open(f"{read}?show=differ&label=compliance&unit={quote(str(some))}", "#unit h1")
    keep(light, "viewer-read")
    light.open(report.resolve().as_uri(), "h1")
    keep(light, "report")
    light.close()
    dark = camera("desktop", "dark")
    dark.open(f"{read}?beside={ids['cautious']}&unit={quote(str(some))}", "#unit .two")
    keep(dark, "viewer-beside")
    dark.close()


def keep(camera: Camera, name: str) -> None:
    """Write a picture of the docs."""
    camera.page.wait_for_timeout(300)
    camera.page.screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png")


def main() -> None:
    """Make runs, serve them, take pictures."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "pictures")
    parser.add_argument("--docs", action="store_true", help="renew docs/pictures instead")
    given = parser.parse_args()
    name = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if name is None:
        raise SystemExit("there is no Chromium: install one, or name it in $CHROMIUM")
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = scratch / "runs"
        make_runs(folder, odd=not given.docs)
        label_some(folder / "leaky", "ann", 40, wrong=3)
        label_some(folder / "leaky", "ben", 40, wrong=0)
        label_some(folder / "leaky", "cleo", 20, wrong=0, leave=8)
        threading.Thread(target=work_on, args=(folder / "slow",), daemon=True).start()
        while not (folder / "slow" / "completions.jsonl").exists():
            time.sleep(0.1)
        three = [folder / "leaky", folder / "cautious", folder / "models" / "open-step-1200"]
        files = {
            "one": rk.report(folder / "leaky", scratch / "one.html"),
            "three": rk.report(three, scratch / "three.html"),
            "stopped": rk.report(folder / "stopped", scratch / "stopped.html"),
        }
        url = stack.enter_context(viewer(folder))
        ids = ids_of(url)
        playwright = stack.enter_context(sync_playwright())
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=name, args=flags)
        given.out.mkdir(parents=True, exist_ok=True)
        if given.docs:
            take_for_docs(
                lambda size, theme: Camera(browser, url, given.out, size, theme),
                ids,
                files["one"],
            )
        else:
            pages_printed(browser, files)
            for size in SIZES:
                for theme in ("light", "dark"):
                    camera = Camera(browser, url, given.out, size, theme)
                    take_viewer(camera, ids)
                    camera.close()
                    camera = Camera(browser, "", given.out, size, theme)
                    take_reports(camera, files)
                    camera.close()
        browser.close()
    os._exit(0)  # the run at work has no end


if __name__ == "__main__":
    main()
