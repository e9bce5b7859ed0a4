"""What a run's records say of each unit, against a plain reading of the files."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.reporting.data.audits import audit_data
from refusalkit.reporting.data.scores import PARTS, score_data
from refusalkit.runs import columns, frames, set_aside, state
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.frames import EVERYTHING, REPORTED, SCORED, RunRecords
from refusalkit.runs.records import read_records
from refusalkit.runs.unit_rows import UnitRows
from refusalkit.scoring.audit import audit_run
from refusalkit.scoring.score import score_run
from refusalkit.scoring.trials import trial_agreement
from refusalkit.types import Label
from run_folders import JUDGE, shuffle_records, write_run

OTHER, FOREIGN = "other", "of-no-run"
WORDS = [*map(str, Label), "unparsable", None]
CATEGORIES = ("plain", "hard-one")

units = st.tuples(st.sampled_from(["a", "b#1", "c c"]), st.integers(1, 3))
attempts = st.tuples(
    units,
    st.sampled_from(["answered", "truncated", "error"]),
    st.sampled_from(WORDS),
)
verdicts = st.tuples(units, st.sampled_from([OTHER, FOREIGN]), st.sampled_from(list(Label)))


def written(
    folder: Path,
    rows: list[tuple[tuple[str, int], str, str | None]],
    others: list[tuple[tuple[str, int], str, Label]],
) -> Run:
    """A run of two judges, whose file has verdicts of a third that it does not know."""
    category = dict(zip(("a", "b#1", "c c"), (*CATEGORIES, CATEGORIES[0]), strict=True))
    run = write_run(
        folder,
        [(prompt, category[prompt], trial, *said) for (prompt, trial), *said in rows],
        prompts=category,
        trials=3,
        twins={"c c": "a"},
    )
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["judges"][OTHER] = {"name": OTHER, "kind": "custom"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with run.verdicts.open("a") as file:
        for n, ((prompt, trial), judge, label) in enumerate(others):
            record = {"schema": 1, "unit": f"{prompt}#{trial}", "judge": judge, "label": label}
            record |= {"source": "judge", "cost_usd": 0.25 * n, "usage": {"input_tokens": n}}
            file.write(json.dumps(record) + "\n")
    return open_run(run.path)


def last(path: Path, judge: str | None = None) -> dict[str, dict[str, Any]]:
    """The last record of each unit, by a judge where one is named; in the file's order."""
    found: dict[str, dict[str, Any]] = {}
    for _, record in read_records(path):
        if judge is None or record["judge"] == judge:
            found.pop(record["unit"], None)
            found[record["unit"]] = dict(record)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(attempts, max_size=12),
    st.lists(verdicts, max_size=8),
    st.sampled_from([1, 300, 8 * 2**20]),
)
@pytest.mark.slow
def test_each_judge_has_its_own_last_word_whatever_columns_are_asked_for(
    rows: list[tuple[tuple[str, int], str, str | None]],
    others: list[tuple[tuple[str, int], str, Label]],
    piece: int,
) -> None:
    with TemporaryDirectory() as folder:
        run = written(Path(folder) / "run", rows, others)
        answers = last(run.completions)
        whole, before = {}, columns._PIECE
        try:
            columns._PIECE = piece
            for asked in ((), SCORED, REPORTED, EVERYTHING):
                records = RunRecords(run, asked)
                for judge in (JUDGE, OTHER):
                    whole[judge] = records.responses(judge)
                    said = last(run.verdicts, judge)
                    assert set(whole[judge]["unit"]) == answers.keys()
                    for row in whole[judge].iter_rows(named=True):
                        verdict = said.get(row["unit"])
                        failed = answers[row["unit"]]["outcome"] == "error"
                        label = None if failed or verdict is None else verdict["label"]
                        assert row["label"] == label
                        assert (row["label"] is None) != (row["unscored"] is None)
                        assert row["hard_line"] == (row["prompt_id"] == "b#1")
                        assert row["twin"] == ("a" if row["prompt_id"] == "c c" else None)
                    order = whole[judge].select("category", "prompt_id", "trial").rows()
                    assert order == sorted(order)
                if "source" in asked:
                    assert list(records.labels(OTHER)) == list(last(run.verdicts, OTHER))
                if "usage" in asked:
                    assert records.tokens()["judge"]["input_tokens"] == sum(range(len(others)))
            for judge in (JUDGE, OTHER):
                # The other judge's verdicts need not be read for one.
                assert frames.responses(run, judge).equals(whole[judge])
        finally:
            columns._PIECE = before


@given(st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_rows_do_not_hang_on_the_order_of_the_records(order: random.Random) -> None:
    with TemporaryDirectory() as folder:
        rows = [(f"p{n % 7}", "plain", n // 7 + 1, "answered", WORDS[n % 6]) for n in range(35)]
        run = write_run(Path(folder) / "run", rows)
        before = frames.responses(run)
        shuffle_records(run, order)
        assert frames.responses(run).equals(before)


def test_a_prompt_that_records_put_in_two_categories_is_one_prompt(tmp_path: Path) -> None:
    rows = [("p", "plain", 1, "answered", "refusal"), ("p", "other", 2, "answered", "compliance")]
    score = score_run(write_run(tmp_path / "run", rows, prompts={"p": "plain"}))
    assert (score.willingness.n_prompts, score.willingness.n_responses) == (1, 2)
    assert score.by_prompt.select("category", "n_scored").sort("category").rows() == [
        ("other", 1),
        ("plain", 1),
    ]


@contextmanager
def in_parts(rows: int) -> Iterator[None]:
    """Every run is a very large one, and so many rows are in memory at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_MAX_WHOLE", 0)
        patch.setattr(frames, "_PART", 300)
        patch.setattr(set_aside, "_ROWS", rows)
        yield


def told(run: Run, judge: str) -> dict[str, Any]:
    """All that is said of a run by one of its judges, as JSON values."""
    records = RunRecords(run, SCORED | {"cost_usd"}, count_odd=True)
    score = score_run(run, judge=judge, records=records)
    audit = audit_run(run, judge=judge, records=records)
    return {
        "score": score_data(score, PARTS),
        "cells": [score.n_cut, score.judge_words, score.rests_on, score.unscored_sentence],
        "trials": trial_agreement(score),
        "audit": audit_data(audit),
        "discrimination": score.discrimination.to_dicts(),
        "spent": [records.spent_usd(), records.spent_usd([judge])],
        "edits": records.edits,
        "rows": [part.to_dicts() for part in (score.responses, score.contrast, score.framed)],
    }


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(attempts, max_size=12), st.lists(verdicts, max_size=8), st.integers(1, 9))
def test_a_very_large_run_gives_the_same_as_if_it_were_all_in_memory(
    rows: list[tuple[tuple[str, int], str, str | None]],
    others: list[tuple[tuple[str, int], str, Label]],
    at_once: int,
) -> None:
    with TemporaryDirectory() as folder:
        run = written(Path(folder) / "run", rows, others)
        for judge in (JUDGE, OTHER):
            whole = told(run, judge)
            with in_parts(at_once):
                assert told(run, judge) == whole


def test_a_very_large_run_is_scored_without_all_its_units_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = range(1, 41)
    units = [
        (name, "plain", trial, "answered", "refusal") for name in "abcdefgh" for trial in trials
    ]
    run = write_run(tmp_path / "run", units, prompts=dict.fromkeys("abcdefgh", "plain"), trials=40)
    monkeypatch.setattr(frames, "_MAX_WHOLE", 0)
    monkeypatch.setattr(frames, "_PART", 10_000)
    seen = []
    responses = UnitRows.responses

    def watched(self: UnitRows, judge: str | None = None) -> Any:
        seen.append(len(self.units))
        return responses(self, judge)

    monkeypatch.setattr(UnitRows, "responses", watched)
    score = score_run(run)
    assert score.by_trial["n_scored"].to_list() == [8] * 40
    assert score.willingness.value == 0
    assert max(seen) < len(units) == score.n_scored == sum(seen)


def test_a_run_that_goes_on_while_it_is_read_contradicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "EVERY", 1)
    later = rk.benchmark("demo/mixed", "starter", trials=2, limit=12, out=tmp_path / "later").path
    now = shutil.copytree(later, tmp_path / "now")
    files = ("completions.jsonl", "verdicts.jsonl")
    for name in files:
        lines = (later / name).read_bytes().splitlines(keepends=True)
        (now / name).write_bytes(b"".join(lines[:9]))
    (now / "checkpoint.jsonl").unlink()
    read = frames.read_pieces

    def while_read(path: Path, *given: Any, **more: Any) -> Iterator[pl.DataFrame]:
        yield from read(path, *given, **more)
        for name in (*files, "checkpoint.jsonl"):
            shutil.copy(later / name, now / name)

    monkeypatch.setattr(frames, "read_pieces", while_read)
    records = RunRecords(open_run(now))
    assert len(records.responses()) == 9
    assert not records.edits
    assert len(RunRecords(open_run(now)).responses()) == 24
