"""The documentation builds without warnings and covers every command, option and public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import refusalkit as rk
from places import ROOT
from refusalkit.cli import cli
from refusalkit.config.run_config import SECTIONS

# Built once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference-cli.html").read_text(encoding="utf-8")

    def walk(command: click.Command, name: str) -> None:
        assert f">{name}<" in page, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in page, f"{name} {parameter.opts[0]}"
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                walk(inner, f"{name} {inner.name}")

    walk(cli, "refusalkit")


def test_the_reference_has_the_groups_and_the_defaults_of_the_help(site: Path) -> None:
    page = (site / "reference-cli.html").read_text(encoding="utf-8")
    run = page[page.index('id="refusalkit-run"') : page.index('id="refusalkit-runs"')]
    headings = re.findall(r"<th>([^<]+)</th>", run)
    assert headings == list(SECTIONS)
    for option, default in (("--trials", "5"), ("--timeout", "600"), ("--canaries", "8")):
        assert re.search(rf"{option}[^<]*</code></td>\s*<td>[^\n]*default: {default}<", run), option


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference-python.html").read_text(encoding="utf-8")
    documented = set(re.findall(r'id="refusalkit\.([\w.]+)"', page))
    last = {name.rpartition(".")[2] for name in documented}
    missing = {n for n in rk.__all__ if n not in last}
    assert not missing


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text), page.name


class Disk:
    """A page of the site opened from disk: every request to elsewhere is noted and stopped."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.elsewhere: list[str] = []
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.page.set_default_timeout(20_000)

        def guard(route: Any) -> None:
            if route.request.url.startswith("file:"):
                route.continue_()
            else:
                self.elsewhere.append(route.request.url)
                route.abort()

        self.page.route("**/*", guard)
        self.page.goto(path.as_uri())


def test_the_search_works_from_disk(browser: Any, site: Path) -> None:
    disk = Disk(browser, site / "getting-started.html")
    box = disk.page.locator("input.md-search__input")
    box.click()
    box.press_sequentially("Clopper")
    found = disk.page.locator(".md-search-result__item a").first
    found.wait_for()
    results = disk.page.locator(".md-search-result__list").inner_text()
    assert "Clopper" in results
    assert str(found.get_attribute("href")).startswith(("file:", "."))
    assert disk.elsewhere == []


def test_copy_buttons_copy_commands_only(browser: Any, site: Path) -> None:
    disk = Disk(browser, site / "getting-started.html")
    page = disk.page
    page.evaluate(
        "document.addEventListener('copy', () => {"
        "  const on = document.activeElement;"
        "  window.copied = on && on.value ? on.value : String(getSelection());"
        "}, true)"
    )
    blocks = page.locator(".language-console")
    assert blocks.count() >= 3
    for block in blocks.all():
        text = block.locator("code").inner_text()
        commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        assert commands
        block.hover()
        block.locator("button[data-clipboard-target], button.md-code__button").first.click()
        copied = page.evaluate("window.copied")
        assert copied.splitlines()[0] == commands[0]
        assert not any(line.startswith("$ ") for line in copied.splitlines())
        output = [line for line in text.splitlines() if not line.startswith(("$ ", "> "))]
        assert not set(output) & set(copied.splitlines()) - set(commands)
