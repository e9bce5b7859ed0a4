"""A real Chromium, headless, that reaches nothing.

`open_browser` gives playwright's browser on a Chromium that is there (``$CHROMIUM``, the system's,
playwright's own); `no_browser` says why there is none. `Visit` opens a file and notes every message
on the console and every request but the page's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The Chromium to use, None where there is none."""
    for name in (os.environ.get("CHROMIUM"), *_NAMES):
        if name and (found := shutil.which(name)):
            return found
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            own = playwright.chromium.executable_path
    except ImportError:
        return None
    return own if Path(own).exists() else None


@contextmanager
def open_browser(executable: str) -> Iterator[Any]:
    """A browser with a profile of its own, that is thrown away."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One look at a page: `page` is playwright's, `console` and `requests` what it did."""

    def __init__(
        self,
        browser: Any,
        path: Path,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
    ) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            offline=True,
            reduced_motion="reduce",
        )
        self.page = self._context.new_page()
        self.page.set_default_timeout(20_000)
        own = path.resolve().as_uri()

        def guard(route: Any) -> None:
            if route.request.url.partition("#")[0] == own:
                route.continue_()
            else:
                self.requests.append(route.request.url)
                route.abort()

        self.page.route("**/*", guard)
        self.page.on("console", lambda said: self.console.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.goto(own)

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.close()
