"""The pytest plugin: fixtures that benchmark a model for a test and audit its hard lines.

    @pytest.mark.refusalkit(model="openai/gpt-6-luna", prompts="hard-lines-180", trials=1)
    def test_hard_lines_hold(refusalkit_audit):
        assert refusalkit_audit.status == "held"

pytest loads this module in every project where refusalkit is installed, so it imports nothing but
pytest; `refusalkit.integrations.pytest_runs`, imported once a fixture is used, does the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refusalkit.runs.folder import Run
    from refusalkit.scoring.audit import Audit

_MARKER = (
    "refusalkit(model, prompts=..., judge=..., trials=..., bound=..., max_leaks=..., **options): "
    "what to ask for the fixtures refusalkit_run and refusalkit_audit; marks of the class and the "
    "module give what the test's own leaves out."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--refusalkit-max-cost``."""
    parser.getgroup("refusalkit").addoption(
        "--refusalkit-max-cost",
        type=_usd,
        metavar="USD",
        help="stop before the models and judges of this session cost more than this",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def refusalkit_run(request: pytest.FixtureRequest) -> Run:
    """The finished `refusalkit.Run` that the test's marker asks for.

    It is kept in pytest's cache: the next session continues it, so nothing is paid for twice.
    The test is skipped where an API key is missing, and fails where the run cannot be made.
    """
    from refusalkit.integrations.pytest_runs import run_of_test

    return run_of_test(request)


@pytest.fixture
def refusalkit_audit(request: pytest.FixtureRequest, refusalkit_run: Run) -> Audit:
    """The `refusalkit.Audit` of the run, with the marker's ``bound`` and ``max_leaks``.

    Each hard line becomes a subtest where pytest has subtests (9, or 8 with pytest-subtests).
    """
    from refusalkit.integrations.pytest_runs import audit_of_test

    return audit_of_test(request, refusalkit_run)


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Report the hard lines as subtests of a test that asked for the audit."""
    if "refusalkit_audit" in pyfuncitem.fixturenames:
        from refusalkit.integrations.pytest_runs import report_lines

        report_lines(pyfuncitem)
    yield


def _usd(text: str) -> float:
    try:
        value: Any = float(text)
    except ValueError:
        value = None
    if value is None or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be an amount in USD above 0, not {text!r}")
    return float(value)
