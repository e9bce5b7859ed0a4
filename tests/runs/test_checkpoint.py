"""A checkpoint is a cache: with it or without, whatever befell its files, a run owes the same."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import zlib
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.errors import RecordError
from refusalkit.runs import columns, state
from refusalkit.runs.checkpoint import SCHEMA, load_checkpoint
from refusalkit.runs.costs import exact_sum
from refusalkit.runs.extents import START, Extent
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.manifest import JudgeEntry
from refusalkit.runs.records import RecordWriter, read_records
from refusalkit.runs.seal import code_of
from refusalkit.runs.state import CheckpointWriter, RunState, read_state
from refusalkit.types import Completion, Label, Outcome, Unscored, Verdict
from run_folders import JUDGE, TEXT, write_run

MEMBERS = ("a:test/m", "b:test/m")
OTHER = "other:test/judge"
PROMPTS = {"p1": "plain", "p#2": "plain", "h1": "hard", "h2": "hard"}
UNITS = [(name, trial) for trial in (1, 2, 70) for name in PROMPTS]

# What may be in the records of a run, whatever wrote them.
costs = st.sampled_from([None, 0.0, 0.1, 0.2, 0.3, 1e-9, 123.0])
units = st.sampled_from(UNITS)
completions = st.builds(
    lambda unit, outcome, cost: Completion(
        unit[0], PROMPTS[unit[0]], unit[1], "test/model", outcome, text=TEXT, cost_usd=cost
    ),
    units,
    st.sampled_from([Outcome.ANSWERED, Outcome.ANSWERED, *Outcome]),
    costs,
)
said = st.sampled_from(
    [Label.REFUSAL, Label.COMPLIANCE, Unscored.JUDGE_ERROR, Unscored.MISSING_VOTE, Unscored.EMPTY]
)
verdicts = st.builds(
    lambda unit, judge, word, source, cost: Verdict(
        unit[0],
        PROMPTS[unit[0]],
        unit[1],
        judge,
        label=word if isinstance(word, Label) else None,
        unscored=word if isinstance(word, Unscored) else None,
        source=source,
        cost_usd=cost,
    ),
    units,
    st.sampled_from([JUDGE, JUDGE, JUDGE, *MEMBERS, OTHER]),
    said,
    st.sampled_from(["judge", "judge", "provider"]),
    costs,
)
sessions = st.lists(st.one_of(completions, verdicts), max_size=12)
FILES = ("completions.jsonl", "verdicts.jsonl")


def new_run(folder: Path, judging: str = "one") -> Run:
    """A run without records, judged by one judge or by a council."""
    run = write_run(folder, [], prompts=PROMPTS, trials=70)
    judges = dict(run.manifest.judges)
    if judging != "one":
        part = {"name": "lexical", "kind": "lexical"}
        apart = {"id": "hard", **part} if judging == "council and another" else None
        judges |= {name: JudgeEntry.model_validate(part) for name in MEMBERS}
        council = {**part, "members": MEMBERS, "rule": "majority", "hard_line_judge": apart}
        judges[JUDGE] = JudgeEntry.model_validate(council)
    judges[OTHER] = JudgeEntry.model_validate({"name": "other", "kind": "llm"})
    return run.with_manifest(run.manifest.model_copy(update={"judges": judges}))


def write(writer: RecordWriter, record: Completion | Verdict) -> None:
    if isinstance(record, Completion):
        writer.completion(record)
    else:
        writer.verdict(record)


def work(run: Run, records: list[Completion | Verdict]) -> None:
    """A session that finds what is there, and writes; a checkpoint is made beside it."""

    async def session() -> None:
        with run.writing() as writer:
            checkpoint_writer = CheckpointWriter(run, writer, read_state(run))
            for record in records:
                write(writer, record)
                checkpoint_writer.maybe_save()
                await asyncio.sleep(0)
            await checkpoint_writer.close()

    asyncio.run(session())


def seen(run: Run, judge: str | None = None) -> dict[str, object] | str:
    """All that a resume finds, or what it says is broken."""
    try:
        with run.writing():
            state = read_state(run, judge)
            judged = {
                u for _, r in read_records(run.verdicts, state.verdict_places) for u in [r["unit"]]
            }
            answers = [
                record["unit"]
                for _, record in read_records(run.completions, state.answers.values())
            ]
    except RecordError as error:
        return str(error)
    assert sorted(answers) == sorted(state.to_judge | state.withheld)
    assert judged <= state.to_judge | state.withheld
    of_disk = ("checkpoint", "n_unsaved")
    found = {f.name: getattr(state, f.name) for f in fields(RunState) if f.name not in of_disk}
    return {**found, "settled": set(state.settled), "n": len(state.settled)}


def from_the_records(run: Run, judge: str | None = None) -> dict[str, object] | str:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(run.path, copy)
        (copy / "checkpoint.jsonl").unlink(missing_ok=True)
        return seen(open_run(copy), judge)


class Mishaps:
    """What may befall the files of a run between two sessions."""

    def __init__(self, run: Run, data: st.DataObject) -> None:
        self._run, self._draw = run, data.draw
        self._earlier: list[bytes] = []

    def happen(self) -> None:
        if self._run.checkpoint.exists():
            self._earlier.append(self._run.checkpoint.read_bytes())
        getattr(self, self._draw(st.sampled_from(["none", "none", *self.ALL])))()

    ALL = ("cut", "drop_line", "swap_lines", "repeat_line", "other_label", "spoil", "delete", "old")

    def none(self) -> None:
        pass

    def _file(self) -> Path:
        return self._run.path / self._draw(st.sampled_from(FILES))

    def cut(self) -> None:
        """Killed, or cut short by somebody: at any byte."""
        path = self._file()
        whole = path.read_bytes()
        path.write_bytes(whole[: self._draw(st.integers(max(0, len(whole) - 900), len(whole)))])

    def _change_lines(self, change: Any) -> None:
        path = self._file()
        lines = path.read_bytes().splitlines(keepends=True)
        if lines:
            change(lines, self._draw(st.integers(0, len(lines) - 1)))
        path.write_bytes(b"".join(lines))

    def drop_line(self) -> None:
        self._change_lines(lambda lines, at: lines.pop(at))

    def swap_lines(self) -> None:
        self._change_lines(lambda lines, at: lines.insert(0, lines.pop(at)))

    def repeat_line(self) -> None:
        self._change_lines(lambda lines, at: lines.append(lines[at]))

    def other_label(self) -> None:
        """An edit that leaves the length as it was."""
        path = self._run.verdicts
        path.write_bytes(path.read_bytes().replace(b'"refusal"', b'"partial"', 1))

    def spoil(self) -> None:
        """A bit of the checkpoint flips."""
        if self._run.checkpoint.exists():
            # Drawn without a look at its length: that hangs on when a thread got its turn.
            at = self._draw(st.integers(0, 10**5))
            data = bytearray(self._run.checkpoint.read_bytes())
            data[at % len(data)] ^= 1
            self._run.checkpoint.write_bytes(bytes(data))

    def delete(self) -> None:
        self._run.checkpoint.unlink(missing_ok=True)

    def old(self) -> None:
        """One from before, as a kill in front of its replacement leaves."""
        if self._earlier:
            self._run.checkpoint.write_bytes(self._draw(st.sampled_from(self._earlier)))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    judging=st.sampled_from(["one", "council", "council and another"]),
    every=st.integers(1, 6),
)
@pytest.mark.slow
def test_with_a_checkpoint_a_run_owes_what_its_records_alone_say(
    data: st.DataObject, judging: str, every: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "EVERY", every)
        patch.setattr(columns, "_PIECE", data.draw(st.sampled_from([300, 8 * 2**20])))
        patch.setattr(os, "fsync", lambda _: None)  # nothing here loses power
        run = new_run(Path(folder) / "run", judging)
        mishaps = Mishaps(run, data)
        for _ in range(data.draw(st.integers(1, 4))):
            try:
                work(run, data.draw(sessions))
            except RecordError:
                assert isinstance(from_the_records(run), str)
            mishaps.happen()
            expected, of_other = from_the_records(run), from_the_records(run, OTHER)
            assert seen(run) == expected
            assert seen(run) == expected, "and from the checkpoint that was just made"
            assert seen(run, OTHER) == of_other


@settings(max_examples=200)
@given(
    data=st.binary(max_size=200),
    size=st.integers(0, 200),
    other=st.binary(max_size=3),
    at=st.integers(0, 200),
)
def test_a_file_begins_as_it_did_or_it_does_not(
    data: bytes, size: int, other: bytes, at: int
) -> None:
    extent = START.followed_by(data[: size // 2], 0).followed_by(data[size // 2 : size], 0)
    assert extent == Extent(len(data[:size]), 0, zlib.crc32(data[:size]))
    changed = data[:at] + other + data[at + len(other) :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        for content in (data, changed, data + other, data[:at]):
            path.write_bytes(content)
            assert extent.begins(path) == content.startswith(data[:size])


@given(st.lists(st.floats(0, 1e300), max_size=30), st.randoms())
def test_a_sum_is_the_same_in_any_order_and_any_portions(amounts: list[float], dice: Any) -> None:
    addends = exact_sum(amounts)
    assert addends is not None
    assert sum(map(Fraction, addends)) == sum(map(Fraction, amounts))
    parts = amounts[: len(amounts) // 2], amounts[len(amounts) // 2 :]
    first = exact_sum(parts[0])
    assert first is not None
    assert exact_sum((*first, *parts[1])) == addends
    dice.shuffle(amounts)
    assert exact_sum(amounts) == addends


@pytest.mark.parametrize(
    "amounts", [[float("inf")], [float("nan"), 1.0], [1e308, 1e308], [float("inf"), -float("inf")]]
)
def test_what_has_no_sum_is_not_known(amounts: list[float]) -> None:
    assert exact_sum(amounts) is None


# What there is, and when it counts.


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A small finished run that has a checkpoint over all of its records."""
    monkeypatch.setattr(state, "EVERY", 1)
    made = rk.benchmark("demo/mixed", out=tmp_path / "run", limit=8, trials=2)
    with made.writing():
        read_state(made)
    assert load_checkpoint(made) is not None
    return made


def forged(run: Run, **changed: object) -> bytes:
    """The checkpoint with other contents, as whole as the true one."""
    _, head, rows = run.checkpoint.read_bytes().split(b"\n", 2)
    data = json.dumps({**json.loads(head), **changed}).encode() + b"\n" + rows
    first = {"schema": SCHEMA, "crc32": zlib.crc32(data), "code": code_of(data)}
    return json.dumps(first).encode() + b"\n" + data


def refusals(run: Run) -> int:
    with run.writing():
        return read_state(run).refusals


def test_what_counts_is_gone_on_from_and_nothing_before_it_is_read(run: Run) -> None:
    run.checkpoint.write_bytes(forged(run, refusals=1000))
    assert refusals(run) == 1000


def test_one_without_this_users_code_is_passed_over(run: Run) -> None:
    first, data = forged(run, refusals=1000).split(b"\n", 1)
    said = json.loads(first)
    for changed in ({"code": None}, {"code": "0" * 64}, {"code": 7}):
        run.checkpoint.write_bytes(json.dumps({**said, **changed}).encode() + b"\n" + data)
        assert refusals(run) != 1000


@pytest.mark.parametrize(
    "changed",
    [
        {"basis": "sha256:0"},
        {"basis": None},
        {"refusals": "1000"},
        {"tables": []},
        {"more": 1},
        {"completions": {"size": 1, "lines": 1, "crc32": 1}},
        {"verdicts": {"size": 2**70, "lines": 1, "crc32": 1}},
    ],
)
def test_what_is_not_one_of_ours_is_passed_over(run: Run, changed: dict[str, object]) -> None:
    true = refusals(run)
    run.checkpoint.write_bytes(forged(run, **{"refusals": 1000, **changed}))
    assert refusals(run) == true
    for content in (b"", b"\n", b"[" * 100_000, b"\xff\xfe", b'{"schema":1}\n{}\n'):
        run.checkpoint.write_bytes(content)
        assert refusals(run) == true


def test_a_checkpoint_of_another_run_is_not_used(run: Run) -> None:
    run.checkpoint.write_bytes(forged(run, refusals=1000))
    other = run.manifest.model_copy(update={"id": "another"})
    assert refusals(run.with_manifest(other)) < 1000


def test_an_edit_is_seen_though_the_length_is_the_same(run: Run) -> None:
    before = refusals(run)
    run.verdicts.write_bytes(run.verdicts.read_bytes().replace(b'"refusal"', b'"partial"', 1))
    assert refusals(run) == before - 1


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_it_is_private(run: Run) -> None:
    assert stat.S_IMODE(run.checkpoint.stat().st_mode) == 0o600


def test_a_short_run_has_no_checkpoint(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", out=tmp_path / "run", limit=8, trials=2)
    assert {path.name for path in rk.resume(run).path.iterdir()} <= {
        *("manifest.json", "completions.jsonl", "verdicts.jsonl", "canaries.jsonl", ".lock")
    }


def test_a_run_whose_checkpoint_cannot_be_written_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "EVERY", 3)
    made = rk.benchmark("demo/mixed", out=tmp_path / "run", limit=8, trials=2)
    for path in (made.completions, made.verdicts):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    made.checkpoint.unlink()
    made.checkpoint.mkdir()  # nothing can take its place
    done = rk.resume(made)
    assert done.manifest.sessions[-1].ended_because == "done"
    assert len(list(read_records(done.completions))) == done.manifest.n_units
    assert not list(done.path.glob(".checkpoint*"))


def test_a_disk_that_is_nearly_full_is_left_to_the_records(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.checkpoint.unlink()
    free = shutil.disk_usage(run.path)._replace(free=2000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: free)
        refusals(run)
    assert not run.checkpoint.exists()
    refusals(run)
    assert run.checkpoint.exists()
