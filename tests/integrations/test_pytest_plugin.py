"""The pytest plugin, used as a project would use it: by pytest itself, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

# pytester forgets what a session in this process imported, and polars cannot be imported twice.
import refusalkit.integrations.pytest_runs  # noqa: F401

pytest_plugins = ["pytester"]

HARD_LINES = """
import pytest

@pytest.mark.refusalkit(model="demo/{model}", prompts="{prompts}", trials=1)
def test_hard_lines_hold(refusalkit_audit):
    assert refusalkit_audit.status == "held"
"""

# A model that counts its answers in a file, and fails as long as there is a file `down`.
COUNTED = """
from pathlib import Path
import pytest
import refusalkit as rk

def ask(text):
    if Path("down").exists() and len(text) % 5 == 0:
        raise RuntimeError("down")
    with open("asked", "a") as file:
        file.write("x")
    return "I can't help with that."

pytestmark = pytest.mark.refusalkit(
    model=rk.from_callable(ask, name="mine/counted"), prompts="starter", judge="lexical", trials=1
)

def test_one(refusalkit_run):
    assert rk.score(refusalkit_run).n_scored > 0

def test_other(refusalkit_audit):
    assert refusalkit_audit.status == "held"
"""


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)


def test_the_ten_lines_of_the_docs_pass_for_a_model_that_holds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(HARD_LINES.format(model="cautious", prompts="hard-lines-180"))
    result = pytester.runpytest_inprocess("-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*SUBPASSED[[]suicide-and-self-harm[]]*"])


def test_a_crossed_line_is_a_failure_of_its_own_with_the_prompt_counts(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(HARD_LINES.format(model="leaky", prompts="starter"))
    result = pytester.runpytest_inprocess("-ra", "--junitxml=out.xml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "Exploitation and trafficking: crossed: 1 leak on 1 prompt in 2 scored responses*",
            "SUBFAILED[[]exploitation-and-trafficking[]]*",
            "FAILED *::test_hard_lines_hold*",
        ]
    )
    (case,) = ET.parse(pytester.path / "out.xml").getroot().iter("testcase")
    failures = [str(failure.get("message")) for failure in case.iter("failure")]
    assert any("Exploitation and trafficking: crossed" in message for message in failures)
    properties = {each.get("name"): str(each.get("value")) for each in case.iter("property")}
    assert properties["refusalkit_status"] == "crossed"
    assert properties["refusalkit_suicide-and-self-harm"].startswith("held: 0 leaks in 2")


def test_without_subtests_the_audit_alone_answers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(HARD_LINES.format(model="leaky", prompts="starter"))
    result = pytester.runpytest_inprocess("-p", "no:subtests", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Captured refusalkit call*"])


def test_leaks_that_the_marker_allows_fail_nothing(pytester: pytest.Pytester) -> None:
    text = HARD_LINES.format(model="leaky", prompts="starter").replace(
        "trials=1", "trials=1, max_leaks=1, bound=100"
    )
    pytester.makepyfile(text)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_rerun_goes_on_and_asks_nothing_twice(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(COUNTED)
    (pytester.path / "down").touch()
    first = pytester.runpytest_inprocess()
    first.assert_outcomes(passed=1, failed=1)  # an error leaves a line inconclusive
    before = len((pytester.path / "asked").read_text())
    assert 0 < before < 35
    (pytester.path / "down").unlink()
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
    assert len((pytester.path / "asked").read_text()) == 35
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
    assert len((pytester.path / "asked").read_text()) == 35
    folders = [each for each in pytester.path.glob(".pytest_cache/d/refusalkit/*") if each.is_dir()]
    assert [each.name.rpartition("-")[0] for each in folders] == ["mine-counted"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize("what", ["hard link", "link", "pipe", "folder"])
def test_a_lock_that_somebody_planted_empties_no_file_and_is_one_sentence(
    pytester: pytest.Pytester, what: str
) -> None:
    pytester.makepyfile(HARD_LINES.format(model="cautious", prompts="starter"))
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    (lock,) = (pytester.path / ".pytest_cache" / "d" / "refusalkit").glob("*.lock")
    own = pytester.path / "own.txt"
    own.write_text("precious")
    lock.unlink()
    if what == "hard link":
        lock.hardlink_to(own)
    elif what == "link":
        lock.symlink_to(own)
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    result = pytester.runpytest_inprocess()
    assert own.read_text() == "precious"
    if what == "hard link":
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"pytest's cache cannot be used: *it is a {what}, not a file"])
        result.stdout.no_fnmatch_line("*_unix.py*")


@pytest.mark.slow
def test_workers_of_xdist_share_one_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=COUNTED, test_b=COUNTED)
    result = pytester.runpytest_subprocess("-n", "2", "--dist=load", "--junitxml=out.xml")
    result.assert_outcomes(passed=4)
    assert len((pytester.path / "asked").read_text()) == 35
    told = [each.get("name") for each in ET.parse("out.xml").getroot().iter("property")]
    assert told.count("refusalkit_suicide-and-self-harm") == 2, "the workers' lines come through"


@pytest.mark.parametrize("model", ["openai/gpt-6-luna", "anthropic/claude-sonnet-5-5"])
def test_a_missing_key_skips_and_says_which(pytester: pytest.Pytester, model: str) -> None:
    pytester.makepyfile(
        HARD_LINES.format(model="x", prompts="starter").replace(
            '"demo/x"', f'"{model}", judge="lexical"'
        )
    )
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=1)
    variable = f"{model.partition('/')[0].upper()}_API_KEY"
    result.stdout.fnmatch_lines([f"SKIPPED*no API key for {model}: set {variable}*"])


def test_all_runs_of_a_session_stay_below_the_bound_on_cost(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        import refusalkit as rk

        class Paid:
            id = "mine/paid"
            parameters = rk.open_model("demo/open").parameters

            async def complete(self, prompt, config, *, trial=1):
                return rk.Completion(
                    prompt.id, prompt.category, trial, self.id, rk.Outcome.ANSWERED,
                    text="I can't help with that.", cost_usd=1.0,
                )

            async def aclose(self):
                pass

        def cost(run):
            return run.completions.read_text().count('"cost_usd":1')

        @pytest.mark.refusalkit(model=Paid(), prompts="starter", judge="lexical", trials=1, limit=4)
        def test_four(refusalkit_run):
            assert cost(refusalkit_run) == 4

        @pytest.mark.refusalkit(model=Paid(), prompts="starter", judge="lexical", trials=2)
        def test_the_rest(refusalkit_run):
            assert 0 < cost(refusalkit_run) <= 6
            assert refusalkit_run.manifest.sessions[-1].ended_because == "max_cost"
        """
    )
    result = pytester.runpytest_inprocess("--refusalkit-max-cost", "10.5")
    result.assert_outcomes(passed=2)
    wrong = pytester.runpytest_inprocess("--refusalkit-max-cost", "-1")
    wrong.stderr.fnmatch_lines(["*must be an amount in USD above 0, not '-1'*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("", "*refusalkit_run needs a model: mark the test with @pytest.mark.refusalkit(model=*"),
        ('@pytest.mark.refusalkit("demo/open")', "*takes keyword arguments only*"),
        (
            '@pytest.mark.refusalkit(model="demo/open", prompt="x")',
            "*unexpected keyword argument 'prompt'; did you mean 'prompts'?*",
        ),
        (
            '@pytest.mark.refusalkit(model="demo/open", prompts="no-such-set")',
            "*no-such-set*",
        ),
        (
            '@pytest.mark.refusalkit(model="demo/open", prompts="contrast-146", limit=3)',
            "*has no hard-line category*",
        ),
    ],
)
def test_a_wrong_marker_is_reported_in_one_sentence(
    pytester: pytest.Pytester, marker: str, said: str
) -> None:
    pytester.makepyfile(f"import pytest\n\n{marker}\ndef test_it(refusalkit_audit):\n    pass\n")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_pytest_loads_nothing_but_the_plugin_itself(tmp_path: Path) -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); "
        "import refusalkit.integrations.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [
        "refusalkit",
        "refusalkit.integrations",
        "refusalkit.integrations.pytest_plugin",
    ]
