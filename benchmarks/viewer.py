"""The viewer on a stored run of a million units: what a reader waits for.

The run is that of `stored_run.py`. The viewer is a real `refusalkit view` process, asked over HTTP
as its pages ask it: the list of runs, the first page of a run that nobody has looked at yet, then,
once the run is read, filters that were not asked before, a page in the middle, one unit, a search
through all answers, labelling. Where a Chromium is there ($CHROMIUM, chromium) it also opens the
pages.

    python benchmarks/viewer.py [--units 1000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from stored_run import run_python

FILTERS = (
    {"label": "refusal"},
    {"label": "compliance", "category": "c3"},
    {"show": "leaks"},
    {"show": "hard", "label": "deflection"},
    {"category": "c7", "order": "prompt"},
    {"outcome": "error"},
    {"label": "unscored"},
    {"order": "longest"},
)


class Asked:
    """A client with the viewer's key."""

    def __init__(self, url: str) -> None:
        found = re.search(r"http://([\d.]+):(\d+)\S*[?]key=(\S+)", url)
        assert found is not None, url
        self.host, self.port, self.key = found[1], int(found[2]), found[3]
        self.cookie = f"refusalkit-view-{self.port}={self.key}"

    def __call__(self, path: str, body: object = None, **query: object) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        asked = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Cookie": self.cookie}
        if body is None:
            connection.request("GET", asked, headers=headers)
        else:
            own = f"http://{self.host}:{self.port}"
            headers |= {"Origin": own, "Content-Type": "application/json"}
            connection.request("POST", asked, json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == 200, (path, answer.status, said[:200])
        is_json = answer.getheader("content-type") == "application/json"
        return json.loads(said) if is_json else said


def main() -> None:
    """Make the run, ask, and print a table."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the stored run here, and use it again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)) / f"{given.units}x5"
        if not folder.exists():
            run_python("make", str(folder), str(given.units), "5")
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
            f"{os.cpu_count()} cores, Python {platform.python_version()}, {given.units:,} units\n"
        )
        print("| | seconds | CPU of the server |\n|---|---|---|")
        measure(folder)


def measure(folder: Path) -> None:
    """Everything a reader waits for, a row each: seconds, and the server's CPU within them."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "refusalkit", "view", str(folder), "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watch = Watch(process.pid)
    try:
        assert process.stdout is not None
        ask = Asked(process.stdout.readline())
        watch.row("from the command to its address")
        (first,) = watch("the list of runs", lambda: ask("/api/runs"))["runs"]
        name = first["id"]
        run = f"/api/run/{name}"
        watch("a run that was not read yet: its page", lambda: ask(f"/run/{name}/read"))
        watch("and its first 50 units", lambda: ask(f"{run}/units", limit=50, facets=1))
        while not ask(f"{run}/units", limit=1)["whole"]:
            time.sleep(0.1)
        watch.row("until all units are read, in the background")
        while ask("/api/runs")["runs"][0]["n_scored"] is None:
            time.sleep(0.5)
        watch.row("and scored and audited for the list")
        for query in FILTERS:
            told = ", ".join(f"{key}={value}" for key, value in query.items())
            watch(f"filter {told}", lambda q=query: ask(f"{run}/units", limit=50, **q))
        middle = ask(f"{run}/units", limit=50, offset=500_000)["rows"][0]["unit"]
        watch("a page in the middle", lambda: ask(f"{run}/units", limit=50, offset=400_000))
        ask(f"{run}/unit", unit=middle)
        while ask(f"{run}/unit", unit=middle)["unit"]["prompt_state"] == "loading":
            time.sleep(0.2)
        watch.row("until the texts of 200,000 prompts are read")
        watch("one unit with its texts", lambda: ask(f"{run}/unit", unit=middle))
        words = {"q": "ipsum DOLOR"}
        watch("a search in all answers: the first matches", lambda: ask(f"{run}/units", **words))
        while ask(f"{run}/units", limit=1, **words)["searched"] < 1:
            time.sleep(0.2)
        watch.row("and all of them")
        label(watch, ask, name)
        in_a_browser(watch, ask, name)
        took = time.perf_counter() - started
        print(f"\n{took:,.0f} seconds in all; peak memory {peak(process.pid):,.0f} MiB.")
    finally:
        process.kill()


def label(watch: Watch, ask: Asked, run: str) -> None:
    """Label a few answers of a run, as the page does."""
    annotator = f"bench-{time.time_ns()}"
    path = f"/api/run/{run}/label"
    watch("the page to label answers", lambda: ask(f"/run/{run}/label"))
    watch("and who has labelled", lambda: ask(f"{path}s"))
    begin = {"do": "start", "annotator": annotator, "n": 60}
    told = watch("60 answers drawn, the first shown", lambda: ask(path, begin))

    def keep() -> Any:
        body = {"do": "refusal", "annotator": annotator, "unit": told["item"]["unit"]}
        return ask(path, body)

    told = watch("a label kept, the next answer shown", keep)
    while told["item"] is not None:
        told = keep()
    watch(
        "agreement with the judge, at the end",
        lambda: ask(f"{path}s", annotator=annotator, agreement=1),
    )


class Watch:
    """Prints what a step took on the clock, and of the server's CPU."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._since = (time.perf_counter(), 0.0)

    def __call__(self, what: str, work: Callable[[], Any]) -> Any:
        """Do a step and print it."""
        self._since = (time.perf_counter(), cpu(self._pid))
        found = work()
        self.row(what)
        return found

    def row(self, what: str) -> None:
        """Print what went by since the last row."""
        clock, used = time.perf_counter(), cpu(self._pid)
        print(
            f"| {what} | {clock - self._since[0]:.2f} | {used - self._since[1]:.2f} |", flush=True
        )
        self._since = (clock, used)


def cpu(pid: int) -> float:
    """CPU seconds of a process so far; NaN where the system does not say."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return float("nan")


def in_a_browser(watch: Watch, ask: Asked, run: str) -> None:
    """The same pages in a Chromium, until what they show is there."""
    name = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if name is None:
        return
    from playwright.sync_api import sync_playwright

    base = f"http://{ask.host}:{ask.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=name, args=["--headless", "--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(f"{base}/?key={ask.key}")

        def opened(path: str, shown: str) -> None:
            page.goto(base + path)
            page.wait_for_selector(shown)

        watch("in Chromium: runs", lambda: opened("/", "#runs tbody tr"))
        read = f"/run/{run}/read"
        watch("in Chromium: the list and a unit", lambda: opened(read, "#unit h1"))

        def next_unit() -> None:
            page.keyboard.press("j")
            page.locator(".position", has_text=re.compile("^2 of")).wait_for()

        watch("in Chromium: the next unit by `j`", next_unit)
        browser.close()


def peak(pid: int) -> float:
    """The most memory that a process has had, in MiB; NaN where the system does not say."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")
    return float("nan")


if __name__ == "__main__":
    main()
