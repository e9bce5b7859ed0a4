"""What a resume finds owed is what a plain reading of the files finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refusalkit.prompts.digests import prompt_digest
from refusalkit.runs import columns, frames
from refusalkit.runs.extents import Cursor
from refusalkit.runs.records import read_records
from refusalkit.runs.settled import Settled, settled_bits
from refusalkit.runs.state import read_state
from refusalkit.types import Prompt, unit_id
from run_folders import write_run

ids = st.text(max_size=8) | st.sampled_from(["a", "a#1", "b\n", "é"])
LOST = ("judge_error", "error", "owed")
trials = st.integers(min_value=1, max_value=1000)


@given(planned=st.sets(st.tuples(ids, trials), max_size=40), data=st.data())
@example(planned={("a", 62), ("a", 63), ("a", 64), ("a", 1)}, data=None)
def test_settled_units_are_a_set_of_their_ids(planned, data) -> None:
    pl = frames.pl
    plan = sorted(planned)
    done = set(data.draw(st.sets(st.sampled_from(plan)))) if data and plan else set(plan[:2])
    units = {unit_id(*pair) for pair in done}
    settled = Settled(settled_bits(pl.Series(sorted(units), dtype=pl.String)))
    assert settled == units
    assert set(settled) == units
    assert len(settled) == len(units)
    left = settled.leave([(trial, [Prompt(name, "c", "[demo]")]) for name, trial in plan])
    assert [(prompt.id, trial) for prompt, trial in left] == [p for p in plan if p not in done]


def test_an_invalid_unit_is_not_settled() -> None:
    settled = Settled(settled_bits(frames.pl.Series(["a#1", "a", "#", "a#x", "#\u0663"])))
    assert "a#1" in settled
    assert not {"a", "a#", "a#2", "a#x", "", "#1"} & set(settled)
    assert all(other not in settled for other in ("a", "a#", "a#2", "a#x", "", "#1"))


@pytest.mark.parametrize("piece", [1, 100, 1000, 8 * 2**20])
def test_a_file_read_in_pieces_is_the_file(tmp_path: Path, monkeypatch, piece: int) -> None:
    words = ["refusal", "compliance", "unparsable", None]
    rows = [(f"p{n}", "plain", 1, "answered", words[n % 4]) for n in range(30)]
    run = write_run(tmp_path / "run", rows)
    lines = run.completions.read_bytes().splitlines(keepends=True)
    # A retry, a blank line, and a line that a kill tore.
    run.completions.write_bytes(b"".join([*lines, b"\n", lines[0], b'{"schema":1,"unit":"a#']))
    whole = frames.attempts(run, (), Cursor())
    frames_as_read = frames.responses(run)
    monkeypatch.setattr(columns, "_PIECE", piece)
    assert frames.attempts(run, (), Cursor()).equals(whole)
    assert frames.responses(run).equals(frames_as_read)
    plain = [(place, record["unit"]) for place, record in read_records(run.completions)]
    assert [(f"completions.jsonl:{n}", u) for n, u in whole.select("line", "unit").rows()] == plain


outcomes = st.sampled_from(
    [
        ("answered", "compliance"),
        ("answered", "refusal"),
        ("truncated", "unparsable"),
        ("answered", "judge_error"),
        ("answered", None),
        ("blocked", "refusal"),
        ("empty", "empty"),
        ("error", None),
    ]
)
rows = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "h1"]), st.integers(1, 3), outcomes), max_size=25
)


@settings(max_examples=40)
@given(rows=rows, piece=st.sampled_from([200, 8 * 2**20]))
@pytest.mark.slow
def test_owed_work_is_what_a_plain_reading_finds(rows, piece: int) -> None:
    written = [
        (name, "hard" if name == "h1" else "plain", trial, *came) for name, trial, came in rows
    ]
    planned = {"p1": "plain", "p2": "plain", "h1": "hard"}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_PIECE", piece)
        run = write_run(Path(folder) / "run", written, prompts=planned, trials=3)
        last = {record["unit"]: record for _, record in read_records(run.completions)}
        said = {record["unit"]: record for _, record in read_records(run.verdicts)}
        state = read_state(run)
        again = list(read_records(run.completions, state.answers.values()))
    stands = {unit for unit, record in said.items() if record["unscored"] not in LOST}
    came = {unit for unit, record in last.items() if record["outcome"] != "error"}
    owing = came - stands
    gone = {
        unit
        for unit in owing
        if last[unit]["text"] is None and last[unit]["outcome"] in ("answered", "truncated")
    }
    assert state.settled == came & stands
    assert state.withheld == gone
    assert state.to_judge == owing - gone
    assert {record["unit"]: record for _, record in again} == {unit: last[unit] for unit in owing}


def test_a_prompt_of_a_large_set_is_hashed_as_any_other() -> None:
    for text in ("[demo]", 'a "quote"\\ and\n', "é \u2028 \U0001f600"):
        for danger in (None, 2):
            prompt = Prompt("a-1", "c", text, danger=danger)
            parts = ["a-1", "c", None, [["user", text]], danger, [], "en"]
            line = json.dumps(parts, separators=(",", ":")) + "\n"
            assert prompt_digest(prompt) == f"sha256:{hashlib.sha256(line.encode()).hexdigest()}"
