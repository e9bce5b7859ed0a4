"""The run folder: what was written is read back, whatever happened to the file or the disk."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refusalkit as rk
import strategies
from commandline import Call, Called
from refusalkit.errors import RecordError, RunFolderError, RunLocked, StorageError
from refusalkit.runs import folder, frames
from refusalkit.runs.folder import (
    Run,
    create_run,
    open_run,
)
from refusalkit.runs.record_json import completion_from_record, completion_record, verdict_record
from refusalkit.runs.records import read_records
from refusalkit.runs.state import read_state
from refusalkit.types import Completion, Label, Outcome, Unscored, Usage, Verdict

posix_only = pytest.mark.skipif(os.name != "posix", reason="permissions and limits of POSIX")
unhurried = settings(deadline=None)  # disks have moods
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system of its own")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small finished run, hard lines among it. Copy it before writing."""
    out = tmp_path_factory.mktemp("finished") / "run"
    wanted = ("weapons", "assault", "suicide-and-self-harm", "medical-advice")
    return rk.benchmark("demo/open", out=out, category=wanted, trials=2, concurrency=1)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of `finished` that a test may break."""
    return copied(finished, tmp_path / "run")


def copied(run: Run, path: Path) -> Run:
    shutil.copytree(run.path, path, dirs_exist_ok=True)
    return open_run(path)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def units(path: Path) -> list[str]:
    return [record["unit"] for _, record in read_records(path)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def ended(process: subprocess.CompletedProcess[str]) -> Called:
    return Called(process.returncode, process.stdout, process.stderr)


def assert_one_sentence(called: Called, code: int) -> str:
    """It failed with this exit code, and said why in one line."""
    assert called.status == code, called.err
    said = [line for line in called.err.splitlines() if line.startswith("refusalkit: ")]
    assert len(said) == 1, called.err
    assert "Traceback" not in called.err
    assert "defect" not in called.err
    return said[0]


# What is written is read back.


@unhurried
@given(completion=strategies.completions(), before=strategies.completions())
def test_a_completion_is_read_back_as_it_was(
    finished: Run, tmp_path_factory: pytest.TempPathFactory, completion: Completion, before: Any
) -> None:
    run = empty(finished, tmp_path_factory.mktemp("run"))
    with run.writing() as writer:
        writer.completion(before)
        writer.completion(completion)
    *_, (place, record) = read_records(run.completions)
    assert place == "completions.jsonl:2"
    assert completion_from_record(record, place) == completion
    assert len(lines(run.completions)) == 2


@unhurried
@given(verdict=strategies.verdicts(), before=strategies.verdicts())
def test_a_verdict_is_read_back_as_it_was(
    finished: Run, tmp_path_factory: pytest.TempPathFactory, verdict: Verdict, before: Verdict
) -> None:
    run = empty(finished, tmp_path_factory.mktemp("run"))
    with run.writing() as writer:
        writer.verdict(before)
        writer.verdict(verdict)
    *_, (_, record) = read_records(run.verdicts)
    assert record == verdict_record(verdict, withhold_text=False)


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf, 10**400])
def test_a_figure_that_is_not_a_number_is_unknown_in_the_records_and_to_their_readers(
    run: Run, figure: float
) -> None:
    odd = replace(answer("weapons-01"), cost_usd=figure, latency_s=figure)
    odd = replace(odd, usage=Usage(input_tokens=cast("int", math.nan), output_tokens=7))
    with run.writing() as writer:
        writer.completion(odd)
        writer.verdict(replace(label("weapons-01", 1), cost_usd=figure))
    (*_, (_, completion)), (*_, (_, verdict)) = map(read_records, (run.completions, run.verdicts))
    assert (completion["cost_usd"], completion["latency_s"], verdict["cost_usd"]) == (None,) * 3
    assert completion["usage"]["input_tokens"] is None
    assert rk.score(run).willingness.value is not None


@unhurried
@given(completion=strategies.completions(), text=strategies.ill_formed_texts())
def test_a_lone_surrogate_from_a_model_of_ones_own_is_replaced_and_stops_nothing(
    finished: Run, tmp_path_factory: pytest.TempPathFactory, completion: Completion, text: str
) -> None:
    run = empty(finished, tmp_path_factory.mktemp("run"))
    with run.writing() as writer:
        writer.completion(replace(completion, text=text, error=text))
    ((place, record),) = read_records(run.completions)
    read = completion_from_record(record, place)
    assert "\N{REPLACEMENT CHARACTER}" in read.text
    assert read.error == read.text
    # The digest is that of the text on disk.
    assert record["text_sha256"] == completion_record(read, withhold_text=False)["text_sha256"]


@unhurried
@given(completion=strategies.completions(), verdict=strategies.verdicts())
def test_polars_reads_what_the_store_wrote(
    finished: Run,
    tmp_path_factory: pytest.TempPathFactory,
    completion: Completion,
    verdict: Verdict,
) -> None:
    run = empty(finished, tmp_path_factory.mktemp("run"))
    judge = run.manifest.judge
    paired = replace(verdict, prompt_id=completion.prompt_id, trial=completion.trial, judge=judge)
    if paired.unscored is not None:  # as far as it may accompany an answer
        paired = replace(paired, unscored=Unscored.UNPARSABLE)
    with run.writing() as writer:
        writer.completion(completion)
        writer.verdict(paired)
    (row,) = frames.responses(run).to_dicts()
    assert row["unit"] == completion.unit
    assert row["outcome"] == completion.outcome
    assert row["text_chars"] == len(completion.text)
    assert row["cost_usd"] == completion.cost_usd
    if completion.outcome is Outcome.ERROR:
        assert (row["label"], row["unscored"]) == (None, "error")
    else:
        assert (row["label"], row["unscored"]) == (paired.label, paired.unscored)
        assert row["reason"] == paired.reason


def empty(run: Run, path: Path) -> Run:
    """A run like `run` with no records, all of whose categories keep their text."""
    return create_run(path / "run", run.manifest.model_copy(update={"hard_line_text": "kept"}))


# Torn files.


@pytest.mark.parametrize("name", ["completions.jsonl", "verdicts.jsonl"])
@pytest.mark.slow
def test_the_store_survives_a_cut_at_every_byte_of_the_last_two_records(
    finished: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing here loses power
    run = copied(finished, tmp_path / "run")
    path = run.path / name
    whole, last_two = path.read_bytes(), b"".join(lines(path)[-2:])
    withheld = {r["unit"] for _, r in read_records(run.completions) if r["text"] is None}
    assert withheld
    all_units = units(path)
    other = units(run.verdicts if name == "completions.jsonl" else run.completions)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) - len(last_two), len(whole) + 1):
        torn = whole[:cut]
        path.write_bytes(torn)
        # Where only the newline was lost the record was paid for, and is whole.
        there = all_units[: sum(cut >= end - 1 for end in ends)]
        # What reads through polars takes its time: at some cuts only, those beside an end included.
        closely = any(abs(cut - end) <= 2 for end in ends)

        # Reading neither needs the file repaired nor repairs it.
        assert units(path) == there, cut
        completed = name == "completions.jsonl"
        answered, judged = (there, other) if completed else (other, there)
        if closely or cut % 64 == 0:
            frame = frames.completions(run) if completed else frames.verdicts(run, "lexical")
            assert set(frame["unit"]) == set(there), cut
        if closely:
            rows = frames.responses(run)
            assert set(rows["unit"]) == set(answered), cut
            owing = set(rows.filter(rows["unscored"].eq_missing("owed"))["unit"])
            assert owing == set(answered) - set(judged), cut
        assert path.read_bytes() == torn

        with run.writing() as writer:
            # Opening for writing cut off what was torn: those units are owed again ...
            assert lines(path) == whole.splitlines(keepends=True)[: len(there)], cut
            if closely:
                state = read_state(run)
                assert state.settled == set(answered) & set(judged), cut
                assert state.to_judge == set(answered) - set(judged) - withheld, cut
            # ... and what is appended is on a line of its own.
            for unit in set(all_units) - set(there):
                prompt_id, trial = unit.split("#")
                if name == "completions.jsonl":
                    writer.completion(answer(prompt_id, int(trial)))
                else:
                    writer.verdict(label(prompt_id, int(trial)))
        assert all(isinstance(json.loads(line), dict) for line in lines(path)), cut
        assert sorted(units(path)) == sorted(all_units), cut


def label(prompt_id: str, trial: int) -> Verdict:
    return Verdict(prompt_id, "weapons", trial, "lexical", label=Label.COMPLIANCE)


def answer(prompt_id: str = "weapons-001", trial: int = 1) -> Completion:
    return Completion(
        prompt_id, "weapons", trial, "demo/open", Outcome.ANSWERED, text="[demo answer]"
    )


@settings(deadline=None, max_examples=25)
@given(
    written=st.lists(strategies.completions(), min_size=1, max_size=4),
    added=strategies.completions(),
    data=st.data(),
)
@pytest.mark.slow
def test_any_records_survive_any_cut(
    finished: Run,
    tmp_path_factory: pytest.TempPathFactory,
    written: list[Completion],
    added: Completion,
    data: st.DataObject,
) -> None:
    run = empty(finished, tmp_path_factory.mktemp("run"))
    with run.writing() as writer:
        for completion in written:
            writer.completion(completion)
    whole = run.completions.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    run.completions.write_bytes(whole[:cut])
    with run.writing() as writer:
        writer.completion(added)
    kept = whole[: cut + 1].count(b"\n")  # the newline itself may be what was lost
    read = [
        completion_from_record(record, place) for place, record in read_records(run.completions)
    ]
    assert read == [*written[:kept], added]


def test_a_record_that_lost_only_its_newline_counts_in_every_reader(run: Run) -> None:
    before = frames.responses(run)
    for path in (run.completions, run.verdicts):
        path.write_bytes(path.read_bytes()[:-1])
    assert frames.responses(run).equals(before)
    assert rk.score(run).willingness == rk.score(open_run(run.path)).willingness
    assert rk.score(run).unscored["owed"] == 0
    assert rk.resume(run).manifest.sessions[-1].ended_because == "done"
    assert len(lines(run.completions)) == len(before)


def test_a_tail_of_zero_bytes_left_by_a_crash_is_cut_off(run: Run) -> None:
    whole = run.completions.read_bytes()
    run.completions.write_bytes(whole + b"\x00" * 4096)
    assert len(frames.completions(run)) == whole.count(b"\n")
    with run.writing():
        assert run.completions.read_bytes() == whole


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"garbage\n", "is not JSON"),
        (b'{"schema":1,"unit":"half\n', "is not JSON"),
        (b'{"schema":1} {"schema":1}\n', "is not JSON"),
        (b"\xff\xfe\n", "is not UTF-8"),
        (b"[1]\n", "is not a JSON object"),
        (b"null\n", "is not a JSON object"),
        (b"[" * 100_000 + b"\n", "deep|is not JSON"),
        (b'{"schema":1}\n', "unit is missing"),
        (b'{"schema":7,"unit":"a#1"}\n', "has schema 7, this refusalkit reads 1"),
        (b'{"unit":"a#1"}\n', "has schema None"),
    ],
)
@pytest.mark.parametrize("name", ["completions.jsonl", "verdicts.jsonl"])
def test_a_broken_line_in_the_middle_is_named_by_file_and_line(
    run: Run, name: str, broken: bytes, says: str
) -> None:
    path = run.path / name
    whole = lines(path)
    path.write_bytes(b"".join([*whole[:3], broken, *whole[3:]]))
    with pytest.raises(RecordError, match=says) as raised:
        rk.score(run)
    assert str(raised.value).startswith(f"{name}:4: ")
    with pytest.raises(RecordError, match=f"^{name}:4: "):
        rk.resume(run)
    assert path.read_bytes() == b"".join([*whole[:3], broken, *whole[3:]])


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("completions.jsonl", "outcome", "quantum_flux"),
        ("completions.jsonl", "outcome", 7),
        ("completions.jsonl", "trial", "one"),
        ("completions.jsonl", "prompt_id", None),
        ("verdicts.jsonl", "label", "perhaps"),
        ("verdicts.jsonl", "unscored", "perhaps"),
        ("verdicts.jsonl", "unit", None),
    ],
)
def test_a_field_out_of_the_closed_world_is_named_with_its_line(
    run: Run, name: str, field: str, value: object
) -> None:
    path = run.path / name
    records = [json.loads(line) for line in lines(path)]
    records[1][field] = value
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    with pytest.raises(RecordError, match=rf"^{name}:2: {field} "):
        rk.score(run)


def test_an_unknown_schema_version_of_the_manifest_is_refused_in_one_sentence(
    run: Run, call: Call
) -> None:
    file = run.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "schema_version": 2}))
    for command in ("score", "audit", "resume"):
        said = assert_one_sentence(call(command, run.path), 2)
        assert "has schema version 2, this refusalkit reads 1" in said


# Whose it is: private, and one writer's.


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_run_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        run = rk.benchmark("demo/mixed", out=tmp_path / "run", limit=3, trials=1)
    finally:
        os.umask(before)
    assert mode(run.path) == 0o700
    found = {path.name: mode(path) for path in run.path.iterdir()}
    assert {"manifest.json", "completions.jsonl", "verdicts.jsonl"} <= set(found)
    assert set(found.values()) == {0o600}


@posix_only
def test_an_empty_folder_that_was_open_to_all_becomes_private(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir(mode=0o755)
    assert mode(rk.benchmark("demo/mixed", out=out, limit=3, trials=1).path) == 0o700


def test_while_one_process_writes_a_second_writer_is_refused(run: Run, call: Call) -> None:
    with run.writing():
        with pytest.raises(RunLocked, match="another process is writing"):
            rk.resume(run)
        said = assert_one_sentence(call("resume", run.path), 4)
        assert "another process is writing" in said
        # Reading needs no lock.
        assert rk.score(run).willingness.value is not None
    assert rk.resume(run).manifest.sessions[-1].ended_because == "done"


@pytest.mark.parametrize("name", ["completions.jsonl", "verdicts.jsonl"])
def test_a_missing_record_file_is_not_made_again(run: Run, name: str, call: Call) -> None:
    """What it held was paid for: `resume` would pay for all of it again."""
    (run.path / name).unlink()
    said = assert_one_sentence(call("resume", run.path), 2)
    assert f"has lost its {name}: put the file back" in said
    assert not (run.path / name).exists()


def test_a_killed_writer_leaves_no_lock_behind(run: Run) -> None:
    code = """
        import os, signal, sys
        from refusalkit.runs.folder import open_run
        with open_run(sys.argv[1]).writing():
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    """
    assert python(code, run.path).returncode != 0
    with run.writing():
        pass


def test_a_run_folder_that_exists_is_refused(run: Run, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(RunFolderError, match="refusalkit resume"):
        rk.benchmark("demo/mixed", out=run.path)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RunFolderError, match="not empty"):
        rk.benchmark("demo/mixed", out=tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="choose another --out"):
        rk.benchmark("demo/mixed", out=tmp_path / "file")


def test_the_remains_of_a_killed_start_are_not_a_run_and_block_nothing(
    finished: Run, tmp_path: Path
) -> None:
    # SIGKILL between the folder and its manifest: a scheduler repeats the command.
    out = tmp_path / "run"
    out.mkdir()
    for name in ("completions.jsonl", "verdicts.jsonl", ".lock", f".manifest.json.{'0' * 16}"):
        (out / name).touch()
    assert create_run(out, finished.manifest).manifest.id == open_run(out).manifest.id
    made = {path.name for path in out.iterdir()}
    assert made == {".lock", "completions.jsonl", "manifest.json", "verdicts.jsonl"}


@pytest.mark.parametrize("name", ["completions.jsonl", "notes.txt", ".manifest.json.mine"])
def test_what_somebody_put_there_is_left_alone(finished: Run, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(RunFolderError, match="exists and is not empty"):
        create_run(out, finished.manifest)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


def test_of_two_that_make_one_folder_at_the_same_moment_one_gets_it(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other comes between the first one's look and its making."""
    out = tmp_path / "run"
    chmod = Path.chmod

    def overtaken(path: Path, mode: int) -> None:
        monkeypatch.setattr(Path, "chmod", chmod)
        create_run(out, finished.manifest.model_copy(update={"id": "the-quicker-one"}))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", overtaken)
    with pytest.raises(RunFolderError, match="choose another --out"):
        create_run(out, finished.manifest)
    assert open_run(out).manifest.id == "the-quicker-one"


# The manifest.


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_while_the_manifest_is_written_leaves_the_old_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    old = (run.path / "manifest.json").read_bytes()
    with monkeypatch.context() as patched:
        if step == "replace":
            patched.setattr(os, "replace", crash)
        elif step == "fsync":
            patched.setattr(os, "fsync", crash)
        else:
            patched.setattr(folder.os, "fdopen", crash)
        with pytest.raises(Crash):
            run.with_manifest(run.manifest.model_copy(update={"id": "new"}))
    assert (run.path / "manifest.json").read_bytes() == old
    assert open_run(run.path).manifest == run.manifest
    # What the crash left beside it gets in no one's way.
    assert run.with_manifest(run.manifest.model_copy(update={"id": "new"})).manifest.id == "new"
    assert open_run(run.path).manifest.id == "new"


def test_a_folder_of_runs_names_one_of_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_bytes(b"{}")
    with pytest.raises(
        RunFolderError,
        match=rf"it has no manifest.json; it holds runs, such as {re.escape(str(tmp_path / 'a'))}$",
    ):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is not a run: it has no manifest.json"),
        (b"", "is not JSON"),
        (b'{"schema_version": 1', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "has schema version None"),
        (b'{"schema_version": 1}', "kind: Field required"),
    ],
)
def test_a_folder_that_is_not_a_run_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=says) as raised:
        open_run(tmp_path)
    assert "\n" not in str(raised.value)


# A disk that refuses.


_LIMITED = """
    import atexit, resource, sys
    from refusalkit.cli import main
    # Beyond so many bytes the kernel itself refuses every write with EFBIG. Lifted at the end for
    # the sake of a coverage tool that writes its own file then.
    lifted = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), lifted[1]))
    atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, lifted)
    main()
"""


@posix_only
@pytest.mark.parametrize("most", [60_001, 70_000])
@pytest.mark.slow
def test_a_file_that_may_not_grow_is_one_sentence_and_the_run_can_go_on(
    tmp_path: Path, most: int, call: Call
) -> None:
    out = tmp_path / "run"
    options = ("run", "demo/open", "--trials", 3, "--out", out)
    said = assert_one_sentence(ended(python(_LIMITED, most, *options)), 4)
    assert "File too large" in said
    assert "what was written before stays readable" in said
    # No half record is left, and what is there is what the score is made of.
    assert out.joinpath("completions.jsonl").stat().st_size <= most
    for name in ("completions.jsonl", "verdicts.jsonl"):
        assert all(isinstance(json.loads(line), dict) for line in lines(out / name))
    done = units(out / "completions.jsonl")
    assert done
    assert open_run(out).manifest.sessions[-1].ended_because == "failed: StorageError"
    score = json.loads(call("score", out, "--json").out)
    assert score

    resumed = call("resume", out, "--json")
    assert resumed.status in (0, 1), resumed.err
    again = units(out / "completions.jsonl")
    assert again[: len(done)] == done
    assert len(again) == len(set(again)) == open_run(out).manifest.n_units


_IN_A_SMALL_DISK = r"""
    mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
    out="$1/run"
    "$2" -m refusalkit run demo/open --prompts starter --trials 5 --out "$out" --json \
        >"$3/run" 2>"$3/run.err"
    echo $? >"$3/run.code"
    cp "$out/completions.jsonl" "$3/before"
    "$2" -m refusalkit score "$out" --json >"$3/score" 2>"$3/score.err"
    echo $? >"$3/score.code"
    mount -o remount,size=4m "$1" || exit 77
    "$2" -m refusalkit resume "$out" --json >"$3/resume" 2>"$3/resume.err"
    echo $? >"$3/resume.code"
    cp "$out/completions.jsonl" "$3/after"
"""


@linux_only
@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    """A real file system of 64 KiB, in a mount namespace that ends with the test."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare")
    disk, results = tmp_path / "disk", tmp_path / "results"
    disk.mkdir()
    results.mkdir()
    done = subprocess.run(
        [
            *(unshare, "--user", "--map-root-user", "--mount"),
            *("sh", "-c", textwrap.dedent(_IN_A_SMALL_DISK), "sh"),
            *(str(disk), sys.executable, str(results)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")

    def result(name: str) -> str:
        return (results / name).read_text("utf-8")

    assert result("run.code").strip() == "4"
    (said,) = [line for line in result("run.err").splitlines() if line.startswith("refusalkit: ")]
    assert "No space left on device" in said
    assert "Traceback" not in result("run.err")
    assert "go on with: refusalkit resume" in result("run.err")
    before, after = lines(results / "before"), lines(results / "after")
    assert 0 < len(before) < len(after)
    assert after[: len(before)] == before
    # Readable while the disk is full, complete once it is not.
    assert json.loads(result("score"))
    assert result("resume.code").strip() in ("0", "1"), result("resume.err")
    found = [json.loads(line)["unit"] for line in after]
    assert len(found) == len(set(found)) == 35 * 5


@pytest.mark.parametrize("records", [7, None])
def test_if_the_disk_is_full_for_the_manifest_too_the_error_still_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int | None
) -> None:
    """Full after so many records, or just when all work is done."""
    out, real, written = tmp_path / "run", os.write, itertools.count()
    there = folder.files.write_file
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(file: int, data: bytes) -> int:
        if next(written) == records:
            raise full
        return real(file, data)

    def write_manifest(path: Path, data: bytes) -> None:
        if path.name == "manifest.json" and b'"ended_at": "' in data:
            raise full
        there(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(folder.os, "write", write)
        patched.setattr(folder.files, "write_file", write_manifest)
        with pytest.raises(StorageError, match="No space left on device") as raised:
            rk.benchmark("demo/open", limit=5, trials=1, out=out)
    where = "completions.jsonl: |verdicts.jsonl: " if records else "run: "
    assert re.search(where, str(raised.value))
    assert raised.value.__notes__ == [f"go on with: refusalkit resume {out}"]
    resumed = rk.resume(out)
    assert resumed.manifest.sessions[-1].ended_because == "done"
    assert len(set(units(resumed.verdicts))) == 5


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_after_a_failed_write_the_file_ends_where_it_ended_before(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = run.completions.read_bytes()
    real = os.write

    def half_then_fail(file: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(number, os.strerror(number))
        return real(file, data[: len(data) - 50])

    with run.writing() as writer:
        with monkeypatch.context() as patched:
            patched.setattr(folder.os, "write", half_then_fail)
            with pytest.raises(StorageError, match=os.strerror(number)):
                writer.completion(answer())
        assert run.completions.read_bytes() == before
        # A file that failed once is not trusted again in this session.
        with pytest.raises(StorageError):
            writer.completion(answer())
    with run.writing() as writer:
        writer.completion(answer())
    assert len(lines(run.completions)) == before.count(b"\n") + 1


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, call: Call) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    said = assert_one_sentence(call("run", "demo/mixed", "--limit", 3, "--out", out), 4)
    assert "cannot write" in said


@posix_only
def test_a_folder_that_became_read_only_is_one_sentence(run: Run, call: Call) -> None:
    run.completions.write_bytes(b"".join(lines(run.completions)[:-1]))
    with read_only(run.path):
        said = assert_one_sentence(call("resume", run.path), 4)
        assert "cannot write" in said
        assert call("score", run.path).status in (1, 3)
    assert rk.resume(run).manifest.sessions[-1].ended_because == "done"


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write away, from its owner too."""
    inside = list(folder.iterdir())
    for path in inside:
        path.chmod(0o400)
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        yield
    finally:
        folder.chmod(0o700)
        for path in inside:
            path.chmod(0o600)
