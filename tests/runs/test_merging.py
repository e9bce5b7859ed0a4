"""Shards of a run, merged: the whole is what an unsplit run would have been, to the last digit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from refusalkit.errors import ConfigurationChanged, RecordError, RunFolderError, UsageError
from refusalkit.prompts.prompt_set import root_id, shard_of
from refusalkit.reporting.data import score_data, to_json

# `REFUSALKIT_SPLITS=1000` for the long form.
SPLITS = int(os.environ.get("REFUSALKIT_SPLITS", "8"))
SMALL: dict[str, Any] = {"danger": [3], "trials": 1, "canaries": 0}
OPTIONS: dict[str, Any] = {"judge": "lexical", "trials": 2, "canaries": 2}


def run(out: Path, shard: str | None = None, **options: Any) -> rk.Run:
    return rk.benchmark(
        "demo/mixed", "starter,contrast-146", shard=shard, out=out, **{**OPTIONS, **options}
    )


def figures(path: Path) -> str:
    """All that `score --json` says of a run but its name, and what was spent."""
    found = score_data(rk.score(path))
    found.pop("run")
    return to_json(found)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("small") / "run", **SMALL).path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture(scope="module")
def thirds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("thirds")
    return [run(folder / f"part-{k}", f"{k}/3").path for k in (1, 2, 3)]


class TestShares:
    @pytest.mark.parametrize("of", [1, 2, 7])
    def test_together_they_are_the_set_and_none_overlap(self, of: int) -> None:
        prompts = rk.load_prompts("starter,contrast-146")
        shares = [prompts.shard(k, of) for k in range(1, of + 1)]
        ids = [prompt.id for share in shares for prompt in share]
        assert sorted(ids) == sorted(prompt.id for prompt in prompts)
        assert all(share.whole is prompts for share in shares)

    def test_a_twin_is_in_the_share_of_its_prompt(self) -> None:
        share = rk.load_prompts("refusalkit-166,contrast-146").shard(2, 5)
        twins = [prompt for prompt in share if prompt.twin is not None]
        assert twins
        assert all(prompt.twin in share for prompt in twins)
        assert {shard_of(root_id(prompt), 5) for prompt in share} == {2}

    def test_an_empty_share_is_refused(self) -> None:
        prompts = rk.load_prompts("starter")
        filled = {shard_of(root_id(prompt), 500) for prompt in prompts}
        empty = min(set(range(1, 501)) - filled)
        with pytest.raises(UsageError, match="take fewer shards"):
            prompts.shard(empty, 500)

    @pytest.mark.parametrize("text", ["0/3", "4/3", "2", "2/0", "a/b", "-1/3", "1/3/5", ""])
    def test_a_share_is_k_of_n(self, text: str, call: Call) -> None:
        said = call("run", "demo/mixed", "--shard", text)
        assert said.status == 4
        assert "K/N" in said.err
        assert said.err.count("\n") == 1


class TestMerging:
    def test_the_score_is_that_of_an_unsplit_run(
        self, whole: Path, thirds: list[Path], tmp_path: Path
    ) -> None:
        merged = rk.merge([thirds[2], thirds[0], thirds[1]], tmp_path / "merged")
        assert merged.missing == ()
        assert figures(merged.run.path) == figures(whole)
        assert merged.run.manifest.shard is None
        assert merged.run.manifest.config_digest == rk.load_run(whole).manifest.config_digest
        assert len(merged.run.manifest.sessions) == 3
        assert not list(tmp_path.glob(".*"))

    def test_a_missing_share_is_owed_and_asked_by_resume(
        self, call: Call, whole: Path, thirds: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "merged"
        said = call("merge", str(thirds[0]), str(thirds[2]), "--out", str(out))
        assert said.status == 3, said.err
        assert "missing shards, owed: 2/3" in said.err
        asked = rk.load_run(thirds[1]).manifest.n_units
        before = count_lines(out / "completions.jsonl")
        assert call("resume", str(out)).status == 0
        after = count_lines(out / "completions.jsonl")
        assert after - before == asked
        assert figures(out) == figures(whole)

    def test_framed_prompts_and_their_requests_stay_together(self, tmp_path: Path) -> None:
        parts = [run(tmp_path / f"p{k}", f"{k}/2", framings=True).path for k in (1, 2)]
        merged = rk.merge(parts, tmp_path / "merged").run.path
        split = rk.audit(merged)
        unsplit = rk.audit(run(tmp_path / "whole", framings=True))
        assert split.status == unsplit.status
        assert split.overall.n_prompts == unsplit.overall.n_prompts
        assert split.leaks.sort("unit").equals(unsplit.leaks.sort("unit"))

    def test_what_was_spent_and_the_canaries_are_kept(
        self, thirds: list[Path], tmp_path: Path
    ) -> None:
        merged = rk.merge(thirds, tmp_path / "merged").run
        each = [(part / "canaries.jsonl").read_text().count("\n") for part in thirds]
        assert (merged.path / "canaries.jsonl").read_text().count("\n") == sum(each)
        assert rk.score(merged).canaries.asked == 2

    def test_turns_of_pressure_are_kept(self, tmp_path: Path) -> None:
        parts = [run(tmp_path / f"p{k}", f"{k}/2", pressure=2).path for k in (1, 2)]
        merged = rk.merge(parts, tmp_path / "merged").run
        whole = run(tmp_path / "whole", pressure=2)
        turns = [count_lines(one.pressure) for one in (merged, whole)]
        assert turns[0] == turns[1] > 0
        assert figures(merged.path) == figures(whole.path)

    @pytest.mark.parametrize("field", ["text", "error_detail", "a_field_of_no_record"])
    def test_a_text_that_a_shard_should_have_withheld_goes_no_further(
        self, thirds: list[Path], tmp_path: Path, field: str
    ) -> None:
        forged = tmp_path / "forged"
        shutil.copytree(thirds[0], forged)
        lines = (forged / "completions.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        hard = rk.load_run(forged).manifest.hard_lines
        planted = [{**r, field: "[planted]"} if r["category"] in hard else r for r in records]
        assert planted != records
        text = "".join(json.dumps(record) + "\n" for record in planted)
        (forged / "completions.jsonl").write_text(text, encoding="utf-8")
        merged = rk.merge([forged], tmp_path / "merged").run
        assert "[planted]" not in merged.completions.read_text(encoding="utf-8")

    def test_a_hard_line_of_the_set_is_withheld_whatever_a_shard_calls_it(
        self, thirds: list[Path], tmp_path: Path, call: Call
    ) -> None:
        lines = rk.load_run(thirds[0]).manifest.hard_lines
        for number, third in enumerate(thirds):
            shard = tmp_path / str(number)
            shutil.copytree(third, shard)
            manifest = json.loads((shard / "manifest.json").read_text())
            for entry in (manifest["prompt_set"], manifest["shard"]["prompt_set"]):
                for category in entry["categories"]:
                    category["hard_line"] = False
            (shard / "manifest.json").write_text(json.dumps(manifest))
            for name, field in (("completions", "text"), ("verdicts", "reason")):
                path = shard / f"{name}.jsonl"
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                for row in rows:
                    row[field] = "PLANTED" if row["category"] in lines else row[field]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            assert call("export", shard, "--to", "bundle", tmp_path / "b.zip").status == 0
            with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
                assert not any(b"PLANTED" in bundle.read(name) for name in bundle.namelist())
        assert call("merge", *map(tmp_path.joinpath, "012"), "--out", tmp_path / "all").status == 0
        assert any("PLANTED" in path.read_text() for path in tmp_path.glob("?/*.jsonl"))
        assert not any("PLANTED" in path.read_text() for path in (tmp_path / "all").glob("*.jsonl"))

    def test_of_very_many_missing_shares_a_few_are_named(
        self, call: Call, thirds: list[Path], tmp_path: Path
    ) -> None:
        """A stranger's shard that says that it is one of a million."""
        one = tmp_path / "one"
        shutil.copytree(thirds[0], one)
        data = json.loads((one / "manifest.json").read_bytes())
        data["shard"]["of"] = 999_999
        (one / "manifest.json").write_text(json.dumps(data))
        for name in ("completions.jsonl", "verdicts.jsonl", "canaries.jsonl"):
            (one / name).write_bytes(b"")
        said = call("merge", one, "--out", "whole")
        assert said.status == 3
        assert len(said.err) < 1000
        assert said.err.endswith("21/999999 and 999,978 more\n")
        data["shard"]["of"] = 10**30
        (one / "manifest.json").write_text(json.dumps(data))
        said = call("merge", one, "--out", "again")
        assert said.status == 2
        assert "shard.of" in said.err


class TestRefused:
    def test_a_whole_run(self, whole: Path, thirds: list[Path], tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match="is a whole run, not a shard"):
            rk.merge([thirds[0], whole], tmp_path / "merged")

    def test_one_share_twice(self, thirds: list[Path], tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match="is shard 1/3, and so is"):
            rk.merge([thirds[0], thirds[0]], tmp_path / "merged")

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"trials": 3}, "trials"),
            ({"temperature": 1.0}, "temperature"),
            ({"shard": "2/4"}, "a share of 3, the other of 4"),
            ({"keep_hard_line_text": True}, "keep_hard_line_text"),
        ],
    )
    def test_a_share_of_another_run(
        self, options: dict[str, Any], what: str, thirds: list[Path], tmp_path: Path
    ) -> None:
        other = run(tmp_path / "other", **{"shard": "2/3", **options})
        with pytest.raises(ConfigurationChanged, match="is not of the same run as") as caught:
            rk.merge([thirds[0], other], tmp_path / "merged")
        assert what in str(caught.value)
        assert not (tmp_path / "merged").exists()

    def test_other_prompts(self, thirds: list[Path], tmp_path: Path) -> None:
        other = rk.benchmark("demo/mixed", "starter", shard="2/3", out=tmp_path / "o", **OPTIONS)
        with pytest.raises(ConfigurationChanged, match="is not of the same run as"):
            rk.merge([thirds[0], other], tmp_path / "merged")

    def test_a_record_of_another_share(self, thirds: list[Path], tmp_path: Path) -> None:
        forged = tmp_path / "forged"
        shutil.copytree(thirds[0], forged)
        foreign = (thirds[1] / "verdicts.jsonl").read_text().splitlines(keepends=True)[0]
        with (forged / "verdicts.jsonl").open("a") as file:
            file.write(foreign)
        with pytest.raises(
            RecordError, match=r"verdicts\.jsonl:\d+: .* is of shard 2/3, not of 1/3"
        ):
            rk.merge([forged], tmp_path / "merged")
        assert [path.name for path in tmp_path.iterdir()] == ["forged"]

    def test_a_folder_that_holds_something(self, thirds: list[Path], tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(RunFolderError, match="is not empty"):
            rk.merge(thirds, tmp_path)
        assert (tmp_path / "mine.txt").read_text() == "mine"

    def test_stopping_early_and_sharding_together(self, call: Call) -> None:
        options = ("--shard", "1/2", "--stop-when", "crossed")
        said = call("run", "demo/mixed", "--prompts", "starter", *options)
        assert said.status == 4
        assert "a shard cannot know what the others found" in said.err


@pytest.mark.slow
@settings(max_examples=SPLITS, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_however_it_was_split_and_killed_the_whole_is_the_same(
    data: st.DataObject, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A kill is a file cut at any byte: what it leaves is resumed, in its shard or in the whole."""
    folder = tmp_path_factory.mktemp("split")
    of = data.draw(st.integers(1, 3), label="shares")
    parts = []
    for k in range(1, of + 1):
        part = run(folder / f"p{k}", f"{k}/{of}", **SMALL).path
        for name in ("completions.jsonl", "verdicts.jsonl"):
            if data.draw(st.booleans(), label=f"cut {k} {name}"):
                file = part / name
                keep = data.draw(st.integers(0, file.stat().st_size), label="bytes kept")
                with file.open("r+b") as opened:
                    opened.truncate(keep)
                (part / "checkpoint.jsonl").unlink(missing_ok=True)
        if data.draw(st.booleans(), label=f"resume {k}"):
            rk.resume(part)
        parts.append(part)
    given_parts = data.draw(st.permutations(parts), label="order")
    kept = data.draw(st.integers(1, of), label="given")
    merged = rk.merge(given_parts[:kept], folder / "merged").run
    rk.resume(merged)
    assert figures(merged.path) == figures(small)
    text = (merged.path / "completions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["unit"] for line in lines}) == merged.manifest.n_units


def test_a_merge_that_is_killed_leaves_nothing_that_looks_like_a_run(
    thirds: list[Path], tmp_path: Path
) -> None:
    program = (
        "import os, sys, signal, refusalkit as rk\n"
        "from refusalkit.runs import merging\n"
        "rename = merging.Path.rename\n"
        "merging.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "rk.merge(sys.argv[2:], sys.argv[1])\n"
    )
    out = tmp_path / "merged"
    words = [sys.executable, "-c", program, str(out), *map(str, thirds)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    assert rk.merge(thirds, out).missing == ()
