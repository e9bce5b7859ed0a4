"""The documentation builds without warnings and covers every command, option and public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import refusalkit as rk
from places import ROOT
from refusalkit.cli import cli

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
    shown = ["What is asked", "How the model is asked", "The judge", "Limits", "Output"]
    assert headings == [*shown, "Configuration"]
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
