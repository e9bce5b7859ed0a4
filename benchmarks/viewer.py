"""The viewer on a stored run of a million units: what a reader waits for.

The run is that of `stored_run.py`. The viewer is a real `refusalkit view` process, asked over HTTP
as its pages ask it: the list of runs, the first page of a run that nobody has looked at yet, then,
once the run is read, filters that were not asked before, a page in the middle, one unit, a search
through all answers. Where a Chromium is there ($CHROMIUM, chromium) it also opens the pages.

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
import statistics
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

    def __call__(self, path: str, **query: object) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        asked = path + (f"?{urlencode(query)}" if query else "")
        connection.request("GET", asked, headers={"Cookie": self.cookie})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, (path, answer.status, body[:200])
        is_json = answer.getheader("content-type") == "application/json"
        return json.loads(body) if is_json else body


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
        print("| | seconds |\n|---|---|")
        measure(folder)


def measure(folder: Path) -> None:
    """Everything a reader waits for, a row each."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "refusalkit", "view", str(folder), "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        ask = Asked(process.stdout.readline())
        row("from the command to its address", time.perf_counter() - started)
        row("the page of runs", timed(lambda: ask("/")))
        (first,) = ask("/api/runs")["runs"]
        row("the list of runs", timed(lambda: ask("/api/runs")))
        run = f"/api/run/{first['id']}"
        began = time.perf_counter()
        row("a run that was not read yet: its page", timed(lambda: ask(f"/run/{first['id']}/read")))
        row("and its first 50 units", timed(lambda: ask(f"{run}/units", limit=50, facets=1)))
        while not ask(f"{run}/units", limit=1)["whole"]:
            time.sleep(0.2)
        row("until all units are read, in the background", time.perf_counter() - began)
        waits = [timed(lambda f=f: ask(f"{run}/units", limit=50, **f)) for f in FILTERS]
        row("a filter, the median of 8", statistics.median(waits))
        row("the slowest of them", max(waits))
        middle = ask(f"{run}/units", limit=50, offset=500_000)["rows"][0]["unit"]
        row("a page in the middle", timed(lambda: ask(f"{run}/units", limit=50, offset=400_000)))
        row("one unit", timed(lambda: ask(f"{run}/unit", unit=middle)))
        row("the next time", timed(lambda: ask(f"{run}/unit", unit=middle)))
        began = time.perf_counter()
        found = ask(f"{run}/units", limit=50, q="ipsum DOLOR")
        row("a search in all answers: its first matches", time.perf_counter() - began)
        while found["searched"] < 1:
            time.sleep(0.2)
            found = ask(f"{run}/units", limit=1, q="ipsum DOLOR")
        row("and all of them", time.perf_counter() - began)
        in_a_browser(ask, first["id"])
        while (one := ask("/api/runs")["runs"][0])["n_scored"] is None and not one["error"]:
            time.sleep(0.5)
        row("from the start until its figures are in the list", time.perf_counter() - started)
        print(f"\nPeak memory {peak(process.pid):,.0f} MiB.")
    finally:
        process.kill()


def in_a_browser(ask: Asked, run: str) -> None:
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
        for what, path, shown in (
            ("in Chromium: runs", "/", "#runs tbody tr"),
            ("in Chromium: a unit beside its list", f"/run/{run}/read", "#unit h1"),
        ):
            row(
                what,
                timed(lambda p=path, s=shown: (page.goto(base + p), page.wait_for_selector(s))),
            )
        began = time.perf_counter()
        page.keyboard.press("j")
        page.wait_for_selector("#units li:nth-child(2) a[aria-current]")
        page.wait_for_function("document.querySelector('.position').textContent.startsWith('2 ')")
        row("in Chromium: the next unit by `j`", time.perf_counter() - began)
        browser.close()


def timed(work: Callable[[], object]) -> float:
    """Seconds that something took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak(pid: int) -> float:
    """The most memory that a process has had, in MiB; NaN where the system does not say."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")
    return float("nan")


def row(what: str, seconds: float) -> None:
    """A row of the table."""
    print(f"| {what} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
