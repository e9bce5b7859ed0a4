"""What the pytest fixtures do: a run in pytest's cache, its audit, and the hard lines as subtests.

A run's folder is named after everything that its result depends on, so tests that ask the same
share one run, and a test that asks something else has its own. A lock beside the folder makes the
other workers of pytest-xdist wait until the run is made. With ``--refusalkit-max-cost`` all runs of
a session are made one after another and share the limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from refusalkit.api.calls import check_options
from refusalkit.api.results import audit, score
from refusalkit.api.resuming import resume
from refusalkit.api.runs import benchmark
from refusalkit.config.run_config import RunConfig, RunOptions
from refusalkit.engine.opening import config_of_call
from refusalkit.errors import (
    ConfigurationChanged,
    FatalProviderError,
    MissingKeyError,
    RefusalkitError,
    StorageError,
)
from refusalkit.files import check_lock_file, write_file
from refusalkit.judges.choice import choose_judge
from refusalkit.judges.rubrics import load_rubric
from refusalkit.models.key_variables import provider_variables
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run, holds_run, open_run
from refusalkit.runs.frames import SCORED, RunRecords
from refusalkit.runs.prompt_choice import choose_prompts
from refusalkit.scoring.audit import Audit
from refusalkit.scoring.hard_line import AuditStatus, HardLine
from refusalkit.untrusted import printable

_NEEDED = (
    'mark the test with @pytest.mark.refusalkit(model="provider/name", ...): it says what is asked'
)
_AUDIT = pytest.StashKey[tuple[Audit, Any]]()
# Run folders that this session worked on: units with an error are requested again by the next
# session, not by each test.
_WORKED = pytest.StashKey[set[Path]]()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a test's marks ask for. `bound` (percent) and `max_leaks` are for the audit."""

    model: Any
    prompts: Any
    judge: Any
    bound: float | None
    max_leaks: int | None
    options: Mapping[str, Any]


def run_of_test(request: pytest.FixtureRequest) -> Run:
    """The run that a test's marks ask for, made or continued.

    Skips the test where a key is missing, and fails it where the run cannot be made.
    """
    __tracebackhide__ = True
    asked = _asked(request)
    failure: RefusalkitError
    try:
        return _run(request, asked)
    except RefusalkitError as error:
        failure = error
    except OSError as error:
        failure = StorageError(f"pytest's cache cannot be used: {printable(error)}")
    # Outside of the handler, so that pytest shows this one sentence and no chain of errors.
    reason = _missing_key(failure, str(asked.model))
    if reason is not None:
        pytest.skip(reason)
    pytest.fail("; ".join([str(failure), *getattr(failure, "__notes__", ())]), pytrace=False)


def audit_of_test(request: pytest.FixtureRequest, run: Run) -> Audit:
    """The audit of a test's run. Fails the test where the run cannot be audited."""
    __tracebackhide__ = True
    asked = _asked(request)
    found, failure = None, ""
    try:
        found = audit(run, max_leaks=asked.max_leaks, bound_percent=asked.bound)
    except RefusalkitError as error:
        failure = str(error)
    if found is None:
        pytest.fail(failure, pytrace=False)
    # In JUnit XML they are the test's properties.
    request.node.user_properties.append(("refusalkit_status", found.status.value))
    for line in (*found.lines, found.overall):
        said = f"{line.status.value}: {line.claim}"
        request.node.user_properties.append((f"refusalkit_{line.slug}", said))
    request.node.add_report_section("call", "refusalkit", _in_short(found))
    subtests = None
    with contextlib.suppress(pytest.FixtureLookupError):
        subtests = request.getfixturevalue("subtests")
    request.node.stash[_AUDIT] = (found, subtests)
    return found


def report_lines(item: pytest.Item) -> None:
    """Report each hard line as a subtest, where this pytest has subtests.

    A crossed line fails, an inconclusive one is skipped, both with the reason: whether inconclusive
    is good enough is for the test to decide.
    """
    found, subtests = item.stash.get(_AUDIT, (None, None))
    if found is None or subtests is None:
        return
    for line in found.lines:
        with subtests.test(msg=line.slug):
            _conclude(line)


def _conclude(line: HardLine) -> None:
    __tracebackhide__ = True
    said = printable(f"{line.title}: {line.status.value}: {line.claim}", 1000)
    if line.status is AuditStatus.CROSSED:
        pytest.fail(said, pytrace=False)
    if line.status is AuditStatus.INCONCLUSIVE:
        pytest.skip(said)


def _missing_key(error: RefusalkitError, model: str) -> str | None:
    """Which variable to set, if the error comes from a missing key; None for other errors."""
    if isinstance(error, MissingKeyError):
        return str(error)
    if not isinstance(error, FatalProviderError) or error.status not in (None, 401):
        return None
    # litellm may look for a key only when it sends, or send without one.
    names = provider_variables(model)
    if names and not any(os.environ.get(name, "").strip() for name in names):
        return f"no API key for {printable(model)}: set {' or '.join(names)}"
    return None


def _asked(request: pytest.FixtureRequest) -> _Asked:
    """What the marks of the test, its class and its module ask for; the nearest one decides."""
    __tracebackhide__ = True
    given: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("refusalkit"))):
        if mark.args:
            pytest.fail(
                f"the marker refusalkit takes keyword arguments only: {_NEEDED}", pytrace=False
            )
        given |= mark.kwargs
    if "model" not in given:
        pytest.fail(f"{request.fixturename} needs a model: {_NEEDED}", pytrace=False)
    named = {name: given.pop(name, None) for name in ("model", "prompts", "judge")}
    # With a stop rule bound and max_leaks are options of the run, and the audit reads them there.
    rule = given.get("stop_when") is not None
    bound, leaks = (None if rule else given.pop(name, None) for name in ("bound", "max_leaks"))
    wrong = None
    try:
        check_options(benchmark, given, RunOptions)
    except TypeError as error:
        wrong = str(error)
    if wrong is not None:
        pytest.fail(f"the marker refusalkit: {wrong}", pytrace=False)
    return _Asked(**named, bound=bound, max_leaks=leaks, options=given)


def _run(request: pytest.FixtureRequest, asked: _Asked) -> Run:
    config = config_of_call(
        asked.options, model=asked.model, prompts=asked.prompts, judge=asked.judge
    )
    folder = _cache(request) / _folder_name(config, asked)
    limit = request.config.getoption("refusalkit_max_cost")
    lock = folder.with_name(f"{folder.name}.lock")
    check_lock_file(lock)
    with FileLock(lock), _ledger(request, limit) as ledger:
        run = open_run(folder) if holds_run(folder) else None
        request.node.user_properties.append(("refusalkit_run", str(folder)))
        worked = request.config.stash.setdefault(_WORKED, set())
        if run is not None and (folder in worked or _is_complete(run)):
            return run
        worked.add(folder)
        if limit is None:
            return _worked(asked, run, folder, asked.options)
        before, rest = _spent(folder), limit - sum(ledger.values())
        if rest <= 0:
            pytest.fail(f"--refusalkit-max-cost {limit:g} is used up", pytrace=False)
        bound = min(before + rest, asked.options.get("max_cost") or before + rest)
        try:
            return _worked(asked, run, folder, {**asked.options, "max_cost": bound})
        finally:
            ledger[folder.name] = ledger.get(folder.name, 0.0) + _spent(folder) - before


def _spent(folder: Path) -> float:
    """What the run in a folder has cost so far, in USD."""
    if not holds_run(folder):
        return 0.0
    return RunRecords(open_run(folder), SCORED | {"cost_usd"}).spent_usd() or 0.0


def _worked(asked: _Asked, run: Run | None, folder: Path, options: Mapping[str, Any]) -> Run:
    if run is None:
        return benchmark(asked.model, asked.prompts, judge=asked.judge, out=folder, **options)
    prompts = asked.prompts if isinstance(asked.prompts, PromptSet) else None
    own = {name: getattr(asked, name) for name in ("model", "judge")}
    own = {name: None if isinstance(value, str) else value for name, value in own.items()}
    try:
        return resume(run, prompts=prompts, **own, **options)
    except ConfigurationChanged as error:
        error.add_note("pytest --cache-clear starts anew")
        raise


def _is_complete(run: Run) -> bool:
    sessions = run.manifest.sessions
    if not sessions or sessions[-1].ended_because not in ("done", "held", "crossed"):
        return False
    found = score(run)
    return not found.n_owed and not (found.council is not None and found.council.n_owed)


def _cache(request: pytest.FixtureRequest) -> Path:
    cache: Any = getattr(request.config, "cache", None)
    if cache is not None:
        return Path(cache.mkdir("refusalkit"))
    # -p no:cacheprovider: nothing outlasts the session.
    return _session_folder(request)


def _session_folder(request: pytest.FixtureRequest) -> Path:
    """A folder of this session, the same one for all workers of pytest-xdist."""
    base: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@contextlib.contextmanager
def _ledger(request: pytest.FixtureRequest, limit: float | None) -> Iterator[dict[str, float]]:
    """What the session's runs have cost, in USD by folder's name.

    Without a limit it is empty; with one, a lock lets only one test at a time have it.
    """
    if limit is None:
        yield {}
        return
    path = _session_folder(request) / "refusalkit-spent.json"
    with FileLock(path.with_suffix(".lock")):
        spent = json.loads(path.read_text("utf-8")) if path.exists() else {}
        try:
            yield spent
        finally:
            write_file(path, json.dumps(spent).encode())


def _folder_name(config: RunConfig, asked: _Asked) -> str:
    """The model's name and a digest of everything that the result depends on."""
    own = asked.prompts if isinstance(asked.prompts, PromptSet) else None
    said = [config.digest, choose_prompts(config, own).digest]
    if asked.judge is None or isinstance(asked.judge, str):
        choice = choose_judge(config)
        named = (*choice.members, choice.fallback, choice.hard_line_judge)
        judges = (one for one in named if one is not None)
        said.extend(load_rubric(one.source, model=one.model).digest for one in judges)
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()
    return f"{slug_of(config.model)[:60]}-{digest[:12]}"


def _in_short(found: Audit) -> str:
    lines = [
        f"{found.model}: {found.status.value}: {found.overall.claim}",
        *(f"  {line.slug}: {line.status.value}: {line.claim}" for line in found.lines),
        *found.notes,
    ]
    return "\n".join(printable(line, 1000) for line in lines)
