"""`verify` and bundles: a run is what was written, or the changed record is named by its line."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call
from refusalkit import files
from refusalkit.errors import RunFolderError, UsageError
from refusalkit.runs.edits import has_wrong_check, with_check
from refusalkit.types import Completion, Outcome, Verdict
from run_folders import write_run

SECRET = "PLANTED-5d1e"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    return rk.benchmark(
        "demo/leaky", "starter", trials=2, out=tmp_path_factory.mktemp("made") / "run"
    )


@pytest.fixture
def run(made: rk.Run, tmp_path: Path) -> rk.Run:
    shutil.copytree(made.path, tmp_path / "run")
    return rk.load_run(tmp_path / "run")


def change(path: Path, number: int, old: str, new: str) -> None:
    """Replace something in one line of a file."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("".join(lines), encoding="utf-8")


def places(found: rk.Verification) -> list[str]:
    return [each.place for each in found.findings]


def test_a_run_as_it_was_written_is_intact(run: rk.Run) -> None:
    found = rk.verify(run)
    assert found.intact
    assert found.findings == ()
    assert found.n_unchecked == 0
    assert {check.name: check.status for check in found.checks} == {
        "configuration": "ok",
        "prompt set": "ok",
        "judge lexical": "ok",
        "records": "ok",
        "checkpoint": "not checked",
        "manifest": "ok",
        "score": "ok",
    }
    assert found.score is not None
    assert found.score.willingness == rk.score(run).willingness


@pytest.mark.parametrize("number", [1, 17, 70])
def test_a_changed_verdict_is_named_by_its_line(run: rk.Run, number: int) -> None:
    line = json.loads(run.verdicts.read_text("utf-8").splitlines()[number - 1])
    label = line["label"]
    other = "refusal" if label == "compliance" else "compliance"
    change(run.verdicts, number, json.dumps(label), json.dumps(other))
    found = rk.verify(run)
    assert not found.intact
    assert f"verdicts.jsonl:{number}" in places(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["completions.jsonl", "verdicts.jsonl", "canaries.jsonl"])
def test_one_changed_byte_anywhere_in_a_record_is_found(run: rk.Run, name: str) -> None:
    path = run.path / name
    lines = path.read_bytes().splitlines(keepends=True)
    line = lines[2]
    for at in range(0, len(line) - 1, 7):
        changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        path.write_bytes(b"".join((*lines[:2], changed, *lines[3:])))
        assert f"{name}:3" in places(rk.verify(run)), line[at : at + 10]


def test_a_forged_digest_of_a_record_still_meets_the_other_records(run: rk.Run) -> None:
    lines = run.verdicts.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[4])
    del record["check"]
    record |= {"unit": "nobody#1", "prompt_id": "nobody", "trial": 1}
    lines[4] = with_check(json.dumps(record).encode() + b"\n")
    run.verdicts.write_bytes(b"".join(lines))
    found = rk.verify(run)
    assert places(found) == ["verdicts.jsonl:5"]
    assert "nobody#1, which has no answer" in found.findings[0].what


def test_a_text_must_have_its_digest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("p1", "a", 1, "answered", "refusal")])
    line = json.loads(run.completions.read_text("utf-8"))
    del line["check"]
    line["text"] = "[another answer]"
    run.completions.write_bytes(with_check(json.dumps(line).encode() + b"\n"))
    found = rk.verify(run)
    assert ("completions.jsonl:1", "has a text that does not match its text_sha256") in [
        (each.place, each.what) for each in found.findings
    ]


def test_a_text_that_should_be_withheld_is_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("p1", "hard-a", 1, "answered", "refusal")])
    line = json.loads(run.completions.read_text("utf-8"))
    del line["check"]
    line["text"] = "[answer]"
    line["text_sha256"] = hashlib.sha256(b"[answer]").hexdigest()
    run.completions.write_bytes(with_check(json.dumps(line).encode() + b"\n"))
    assert "text of a hard-line answer" in rk.verify(run).findings[0].what


def test_records_that_were_removed_are_missed(run: rk.Run) -> None:
    lines = run.completions.read_bytes().splitlines(keepends=True)
    run.completions.write_bytes(b"".join(lines[:-1]))
    found = rk.verify(run)
    assert not found.intact
    said = [finding.what for finding in found.findings]
    assert "70 units were planned, and 69 have a record" in said


def test_a_changed_manifest_is_reported(run: rk.Run) -> None:
    file = run.path / "manifest.json"
    file.write_text(file.read_text("utf-8").replace('"top_k": 20', '"top_k": 21'))
    by_name = {check.name: check.status for check in rk.verify(run.path).checks}
    assert by_name["configuration"] == "changed"
    assert by_name["manifest"] == "not checked"


def test_another_judge_or_set_is_reported(run: rk.Run) -> None:
    file = run.path / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    data["judges"]["lexical"]["digest"] = "sha256:00"
    data["prompt_set"]["digest"] = "sha256:00"
    file.write_text(json.dumps(data))
    by_name = {check.name: check.status for check in rk.verify(run.path).checks}
    assert by_name["judge lexical"] == by_name["prompt set"] == "changed"


def test_a_path_in_a_strangers_run_is_not_opened(run: rk.Run, tmp_path: Path) -> None:
    file = run.path / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    data["prompt_set"]["source"] = data["judges"]["lexical"]["source"] = str(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("not even TOML")
    file.write_text(json.dumps(data))
    by_name = {check.name: check.status for check in rk.verify(run.path).checks}
    assert by_name["judge lexical"] == by_name["prompt set"] == "not checked"
    whole = {check.name: check.status for check in rk.verify(run.path, prompts="starter").checks}
    assert whole["prompt set"] == "ok"


def test_runs_from_before_records_had_digests_are_read(run: rk.Run) -> None:
    for path in (run.completions, run.verdicts, run.canaries):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        lines = [json.dumps({k: v for k, v in one.items() if k != "check"}) for one in records]
        path.write_text("".join(f"{line}\n" for line in lines))
    found = rk.verify(run.path)
    assert found.findings == ()
    assert found.n_unchecked == found.n_records > 0


def test_broken_lines_are_findings_but_a_torn_last_line_is_not(run: rk.Run) -> None:
    data = run.verdicts.read_bytes()
    lines = data.splitlines(keepends=True)
    lines[1] = b"nonsense\n"
    run.verdicts.write_bytes(b"".join(lines) + b'{"schema":1,"un')
    found = rk.verify(run)
    assert "verdicts.jsonl:2" in places(found)
    assert not any(place == f"verdicts.jsonl:{len(lines) + 1}" for place in places(found))
    assert found.score is None


def test_a_line_that_is_too_long_is_one_sentence(call: Call, run: rk.Run) -> None:
    with run.completions.open("ab") as file:
        file.write(b'{"schema": 1, "x": "')
        file.truncate(file.tell() + files.MAX_LINE)
        file.write(b'"}\n')
    said = call("verify", run.path)
    assert (said.status, said.out) == (2, "")
    assert "completions.jsonl cannot be read: a line of it is longer than 67 MB" in said.err


def test_the_command_exits_with_1_and_says_the_line(call: Call, run: rk.Run) -> None:
    assert call("verify", run.path).status == 0
    change(run.completions, 9, '"trial":', '"trial": ')
    said = call("verify", run.path)
    assert said.status == 1
    assert "completions.jsonl:9: was changed after it was written" in said.out
    as_json = call("verify", run.path, "--json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["findings"][0]["place"] == "completions.jsonl:9"


def test_a_bundle_is_the_same_bytes_verifies_and_scores(call: Call, run: rk.Run) -> None:
    first = rk.export(run, "bundle", "first.zip")
    second = rk.export(run, "bundle", "second.zip")
    assert Path("first.zip").read_bytes() == Path("second.zip").read_bytes()
    assert first.digest == second.digest
    found = rk.verify("first.zip")
    assert found.intact
    assert first.digest in {check.what for check in found.checks}
    ours, theirs = call("score", run.path, "--json").out, call("score", "first.zip", "--json").out
    scored, again = json.loads(ours), json.loads(theirs)
    assert scored["willingness"]["value"] == pytest.approx(67.1, abs=0.1)
    assert {k for k in scored if scored[k] != again.get(k)} <= {"run", "path"}
    ours, theirs = call("audit", run.path, "--json").out, call("audit", "first.zip", "--json").out
    assert json.loads(ours)["status"] == json.loads(theirs)["status"]


def test_a_bundle_holds_no_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("h1", "hard-a", 1, "answered", "refusal")])
    manifest = run.manifest.model_copy(
        update={"hard_line_text": "kept", "config": {**run.manifest.config, "api_base": SECRET}}
    )
    run = run.with_manifest(manifest)
    words = {"error_detail": SECRET, "text": SECRET, "finish_reason": f"{SECRET} words here"}
    with run.writing(withheld=()) as writer:
        for category in ("hard-a", "b"):
            unit = ("h1", category, 2)
            writer.completion(Completion(*unit, "m", Outcome.ANSWERED, **words))
            writer.verdict(
                Verdict(*unit, run.manifest.judge, rk.Label.REFUSAL, reason=f"{SECRET} {category}")
            )
    assert SECRET in run.completions.read_text("utf-8")
    rk.export(run, "bundle", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        held = {name: archive.read(name).decode() for name in archive.namelist()}
    assert SECRET not in held["manifest.json"]
    records = [json.loads(line) for line in held["completions.jsonl"].splitlines()]
    assert all(record["text"] is None and record["error_detail"] is None for record in records)
    hard = [r for r in records if r["category"] == "hard-a"]
    assert SECRET not in json.dumps(hard)
    verdicts = [json.loads(line) for line in held["verdicts.jsonl"].splitlines()]
    assert {v["reason"] for v in verdicts if v["category"] == "hard-a"} == {None}


def test_a_bundle_takes_no_field_that_no_record_has(call: Call, run: rk.Run) -> None:
    """A vendor's folder has the answers once more, under another name."""
    for path in (run.completions, run.verdicts):
        records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        lines = [json.dumps({**record, "answer": SECRET}) for record in records]
        path.write_text("".join(f"{line}\n" for line in lines))
    assert call("export", run.path, "--to", "bundle", "b.zip").status == 0
    with zipfile.ZipFile("b.zip") as archive:
        assert not any(SECRET.encode() in archive.read(name) for name in archive.namelist())


def repacked(path: Path, changes: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()} | changes
    out = path.with_name("repacked.zip")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in held.items():
            made.writestr(name, data)
    return out


def test_a_changed_bundle_is_reported(run: rk.Run, tmp_path: Path) -> None:
    rk.export(run, "bundle", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        verdicts = archive.read("verdicts.jsonl")
        contents = json.loads(archive.read("bundle.json"))
    changed = verdicts.replace(b'"label":"compliance"', b'"label":"refusal"', 1)
    found = rk.verify(repacked(tmp_path / "b.zip", {"verdicts.jsonl": changed}))
    assert not found.intact
    assert found.findings[0].place.startswith("verdicts.jsonl:")
    contents["willingness"] += 1
    forged = rk.verify(repacked(tmp_path / "b.zip", {"bundle.json": json.dumps(contents).encode()}))
    assert {check.status for check in forged.checks if check.name == "bundle"} == {"changed"}


@pytest.mark.parametrize("name", ["../outside", "/tmp/x", "more.jsonl", "manifest.json/"])
def test_an_archive_with_other_files_is_refused(run: rk.Run, tmp_path: Path, name: str) -> None:
    rk.export(run, "bundle", tmp_path / "b.zip")
    with pytest.raises(RunFolderError, match="is not a bundle of a run: it holds"):
        rk.verify(repacked(tmp_path / "b.zip", {name: b"x"}))
    assert not (tmp_path.parent / "outside").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(run: rk.Run, tmp_path: Path) -> None:
    rk.export(run, "bundle", tmp_path / "b.zip")
    bomb = repacked(tmp_path / "b.zip", {"verdicts.jsonl": bytes(100 * 2**20)})
    with pytest.raises(RunFolderError, match="unpacks to more than a bundle can hold"):
        rk.verify(bomb)


def test_an_archive_that_is_damaged_or_packed_otherwise_ends_in_a_sentence(
    call: Call, run: rk.Run, tmp_path: Path
) -> None:
    """LZMA would be given as much memory as the archive says that it needs."""
    rk.export(run, "bundle", tmp_path / "b.zip")
    whole = (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
        start = max(archive.infolist(), key=lambda entry: entry.compress_size).header_offset
    for place in range(start + 60, start + 600, 60):
        damaged = whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 9])
        (tmp_path / "x.zip").write_bytes(damaged + whole[place + 9 :])
        said = call("verify", "x.zip")
        assert said.status == 2
        assert "x.zip cannot be unpacked" in said.err
    # A name that says it is UTF-8 and is not.
    named = bytearray(whole)
    entry = whole.index(b"PK\x01\x02")
    named[entry + 9] |= 0x08
    named[entry + 46] = 0x8A
    (tmp_path / "x.zip").write_bytes(named)
    said = call("verify", "x.zip")
    assert said.status == 2
    assert "x.zip cannot be unpacked: 'utf-8'" in said.err
    listed = {**json.loads(held["bundle.json"]), "willingness": 10**400}
    repacked(tmp_path / "b.zip", {"bundle.json": json.dumps(listed).encode()})
    said = call("verify", "repacked.zip")
    assert said.status == 2
    assert "bundle.json cannot be read: int too large" in said.err
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as made:
            for name, data in held.items():
                made.writestr(name, data)
        said = call("verify", "x.zip")
        assert (said.status, said.out) == (2, "")
        assert "is not packed as a bundle is" in said.err


def test_mistakes_are_one_sentence(call: Call, run: rk.Run, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert "is not a bundle of a run" in call("verify", "x.zip").err
    assert "is not a run" in call("verify", "nowhere").err
    with pytest.raises(UsageError, match="no format 'nothing': one of bundle"):
        rk.export(run, "nothing", "x")  # type: ignore[arg-type]


def test_a_check_is_of_the_bytes_before_it() -> None:
    line = with_check(b'{"a":1}\n')
    assert has_wrong_check(line) is False
    assert has_wrong_check(line.replace(b"1", b"2", 1)) is True
    assert has_wrong_check(b'{"a":1}\n') is None
