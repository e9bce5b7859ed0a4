"""What each command imports, and that nothing is downloaded; each in its own process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import refusalkit
from handmade import write_run

CLIENTS = {"litellm", "anthropic", "openai"}
STATISTICS = {"polars", "scipy", "numpy"}

# Runs a program without sockets or name lookups; its imports are listed on stderr.
WRAPPER = """\
import json, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args[1:]}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
sys.argv = ["refusalkit", *sys.argv[1:]]
try:
    exec(compile(PROGRAM, "program", "exec"))
except SystemExit as ended:
    status = ended.code or 0
else:
    status = 0
found = sorted({name.partition(".")[0] for name in sys.modules})
sys.stderr.write("\\n" + json.dumps({"status": status, "modules": found}))
"""


def ran(program: str, *words: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The modules that a program imported, its exit status and its output."""
    text = f"PROGRAM = {textwrap.dedent(program)!r}\n{WRAPPER}"
    passed_on = re.compile(r"PATH|SYSTEMROOT|TMPDIR|TEMP|TMP|COVERAGE_\w+")
    environment = {k: v for k, v in os.environ.items() if passed_on.fullmatch(k)}
    done = subprocess.run(
        [sys.executable, "-c", text, *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, _, last = done.stderr.rpartition("\n")
    report = json.loads(last)
    return {**report, "modules": set(report["modules"])}, done.stdout + before


COMMAND = "from refusalkit.cli import main; main()"


class TestCommands:
    @pytest.mark.parametrize(
        "words",
        [
            "--help",
            "--version",
            "run --help",
            "prompts list",
            "prompts show starter",
            "prompts validate starter",
            "judges list",
            "judges show lexical",
            "judges show graded --json",
            "judges calibrate --help",
            "judges label --help",
        ],
    )
    def test_commands_without_a_run_import_no_clients_or_statistics(
        self, tmp_path: Path, words: str
    ) -> None:
        report, said = ran(COMMAND, *words.split(), folder=tmp_path)
        assert report["status"] == 0
        assert said
        assert report["modules"] & (CLIENTS | STATISTICS) == set()

    @pytest.mark.parametrize(
        "words", ["score made", "audit made", "score made --by trial --json", "compare made made"]
    )
    def test_commands_that_read_a_run_import_no_client(self, tmp_path: Path, words: str) -> None:
        write_run(tmp_path / "made")
        report, said = ran(COMMAND, *words.split(), folder=tmp_path)
        assert report["status"] == 0
        assert said
        assert report["modules"] & CLIENTS == set()

    @pytest.mark.parametrize(
        ("words", "tables"),
        [("score made --json", False), ("audit made --json", False), ("score made", True)],
    )
    def test_figures_import_no_jinja_or_numpy_and_only_tables_rich(
        self, tmp_path: Path, words: str, tables: bool
    ) -> None:
        write_run(tmp_path / "made")
        report, said = ran(COMMAND, *words.split(), folder=tmp_path)
        assert report["status"] == 0
        assert said
        assert ("rich" in report["modules"]) == tables
        assert report["modules"] & {"numpy", "scipy", "matplotlib", "jinja2", "aiohttp"} == set()

    @pytest.mark.parametrize(
        ("words", "plots"),
        [
            ("score made", False),
            pytest.param("report made --json", False, marks=pytest.mark.slow),
            pytest.param("report made", True, marks=pytest.mark.slow),
        ],
    )
    def test_only_pages_import_matplotlib(self, tmp_path: Path, words: str, plots: bool) -> None:
        write_run(tmp_path / "made")
        report, said = ran(COMMAND, *words.split(), folder=tmp_path)
        assert report["status"] == 0
        assert said
        assert ("matplotlib" in report["modules"]) == plots
        assert report["modules"] & CLIENTS == set()

    def test_a_demo_run_needs_no_client_no_key_and_no_network(self, tmp_path: Path) -> None:
        words = ("run", "demo/mixed", "--limit", "4", "--trials", "1", "--out", "made")
        report, said = ran(COMMAND, *words, folder=tmp_path)
        assert report["status"] == 0
        assert "Run: made" in said
        # Nor numbers by the megabyte: memory and start-up were a third more with them.
        assert report["modules"] & (CLIENTS | {"aiohttp", "scipy", "numpy"}) == set()


class TestLibrary:
    def test_importing_the_package_is_silent_and_light(self, tmp_path: Path) -> None:
        report, said = ran("import refusalkit", folder=tmp_path)
        assert said == ""
        needless = CLIENTS | STATISTICS | {"pydantic", "aiohttp", "click", "rich", "jsonlines"}
        assert report["modules"] & needless == set()

    def test_every_public_name_can_be_imported(self, tmp_path: Path) -> None:
        program = """
            import refusalkit
            for name in refusalkit.__all__:
                assert getattr(refusalkit, name).__name__ == name, name
            from refusalkit import *
        """
        report, said = ran(program, folder=tmp_path)
        assert said == ""
        assert report["modules"] & CLIENTS == set()

    def test_every_public_name_is_visible_to_type_checkers(self) -> None:
        assert set(refusalkit.__all__) <= set(dir(refusalkit))
        with pytest.raises(AttributeError, match="has no attribute 'benchmrak'"):
            _ = refusalkit.benchmrak

    def test_the_version_matches_the_package(self) -> None:
        assert refusalkit.__version__ == version("refusalkit")

    @pytest.mark.slow
    def test_importing_litellm_is_silent_and_offline(self, tmp_path: Path) -> None:
        program = """
            import gc, os
            from refusalkit.models.litellm_calls import load_litellm
            gc.set_threshold(701, 9, 9)
            before = dict(os.environ)
            assert load_litellm() is load_litellm()
            assert gc.get_threshold() == (701, 9, 9)
            assert dict(os.environ) == before
            # Nor does the first request that needs them fetch Anthropic's headers.
            from litellm.anthropic_beta_headers_manager import get_provider_beta_header
            get_provider_beta_header("placeholder", "anthropic")
        """
        report, said = ran(program, folder=tmp_path)
        assert said == ""
        assert "litellm" in report["modules"]

    @pytest.mark.parametrize("model", ["anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"])
    def test_opening_a_model_is_offline(self, tmp_path: Path, model: str) -> None:
        program = f"""
            import os
            os.environ["PLACEHOLDER_KEY"] = "placeholder"
            import refusalkit
            refusalkit.open_model({model!r}, api_key_env="PLACEHOLDER_KEY")
        """
        report, said = ran(program, folder=tmp_path)
        assert said == ""
        assert "litellm" not in report["modules"]

    def test_a_library_run_is_silent(self, tmp_path: Path) -> None:
        program = """
            import refusalkit as rk
            run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="made")
            assert rk.score(run).n_units == 4
            rk.grade
        """
        _, said = ran(program, folder=tmp_path)
        assert said == ""
