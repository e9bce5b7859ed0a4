"""What the viewer lists and shows of a run: each filter, each unit, no more than was asked for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refusalkit as rk
from refusalkit.errors import UsageError
from refusalkit.runs.folder import Run, open_run
from refusalkit.runs.manifest import JudgeEntry
from refusalkit.types import Completion, Label, Outcome, Verdict
from refusalkit.viewer.prompts import KnownPrompts, read_prompts
from refusalkit.viewer.shelf import Shelf
from refusalkit.viewer.unit_index import UnitIndex, build_index
from refusalkit.viewer.unit_query import Listing, UnitQuery
from run_folders import Row, write_run
from viewer.served import Client, viewer

pytestmark = pytest.mark.xdist_group("viewer")
OTHER = "graded:other/judge"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read")
    rk.benchmark("demo/leaky", "starter", trials=2, out=folder / "kept", keep_hard_line_text=True)
    rk.benchmark("demo/leaky", "starter", trials=2, out=folder / "withheld")
    rk.benchmark("demo/cautious", "starter", trials=2, out=folder / "cautious")
    add_judge(open_run(folder / "kept"))
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Client]:
    with viewer(runs) as opened:
        yield opened


def add_judge(run: Run, every: int = 5) -> None:
    """A second judge, who differs on each fifth answer."""
    entry = JudgeEntry(name="graded", kind="llm", model="other/judge")
    judges = {**run.manifest.judges, OTHER: entry}
    run = run.with_manifest(run.manifest.model_copy(update={"judges": judges}))
    rows = rk.units(run).filter(label=rk.Label.REFUSAL.value).to_dicts()
    with run.writing() as writer:
        for n, row in enumerate(rows):
            label = Label.DEFLECTION if n % every == 0 else Label.REFUSAL
            at = (row["prompt_id"], row["category"], row["trial"])
            writer.verdict(Verdict(*at, OTHER, label=label, reason="[demo reason]"))


def listed(index: UnitIndex, query: UnitQuery, **known: Any) -> list[str]:
    rows = Listing().rows(index, query, **known)
    return list(index.units[rows.to_list()]["unit"])


rows_of_runs = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "p3", "h1", "h2"]),
        st.integers(1, 3),
        st.sampled_from(["answered", "truncated", "error"]),
        st.sampled_from([*(label.value for label in Label), "unparsable", "judge_error", None]),
    ),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(rows_of_runs)
def test_filters_list_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, int, str, str | None]]
) -> None:
    rows: list[Row] = [
        (prompt, "hard" if prompt.startswith("h") else "plain", trial, outcome, word)
        for prompt, trial, outcome, word in drawn
    ]
    run = write_run(tmp_path_factory.mktemp("random") / "run", rows, prompts=_PROMPTS, trials=3)
    last = {(row[0], row[2]): row for row in rows}
    said = {(row[0], row[2]): row[4] for row in rows if row[4] is not None}
    expected: dict[str, tuple[Row, str | None]] = {}
    for key in sorted(last, key=lambda key: (last[key][1], *key)):
        row, word = last[key], said.get(key)
        # A verdict beside an error belongs to an attempt that was lost.
        label = word if word in set(Label) and row[3] != "error" else None
        expected[f"{key[0]}#{key[1]}"] = (row, label)
    index = build_index(run)

    def loop(fits: Any) -> list[str]:
        return [unit for unit, (row, label) in expected.items() if fits(row, label)]

    everything = UnitQuery(order="prompt")
    assert listed(index, everything) == list(expected)
    for label in Label:
        query = UnitQuery(label=label.value, order="prompt")
        assert listed(index, query) == loop(lambda _, said, label=label: said == label.value)
    unscored = UnitQuery(label="unscored", order="prompt")
    assert listed(index, unscored) == loop(lambda _, said: said is None)
    leaked = ("partial", "compliance")
    leaks = loop(lambda row, said: row[1] == "hard" and said in leaked)
    assert listed(index, UnitQuery(show="leaks")) == leaks
    assert listed(index, UnitQuery(show="hard"))[: len(leaks)] == leaks
    for outcome in ("answered", "truncated", "error"):
        query = UnitQuery(outcome=outcome, order="prompt")
        assert listed(index, query) == loop(lambda row, _, outcome=outcome: row[3] == outcome)
    plain = UnitQuery(category="plain", label="refusal", order="prompt")
    assert listed(index, plain) == loop(lambda row, said: row[1] == "plain" and said == "refusal")
    found = UnitQuery(q="H1#", order="prompt")
    assert listed(index, found) == loop(lambda row, _: row[0] == "h1")
    assert sum(index.facets["label"].values()) == len(expected)


_PROMPTS = {"p1": "plain", "p2": "plain", "p3": "plain", "h1": "hard", "h2": "hard"}


def test_flipped_lists_what_one_run_refused_and_the_other_did_not(tmp_path: Path) -> None:
    ours = write_run(
        tmp_path / "a",
        [
            ("p1", "plain", 1, "answered", "refusal"),
            ("p2", "plain", 1, "answered", "refusal"),
            ("p3", "plain", 1, "answered", "compliance"),
            ("p4", "plain", 1, "answered", "unparsable"),
            ("p5", "plain", 1, "answered", "partial"),
        ],
    )
    theirs = write_run(
        tmp_path / "b",
        [
            ("p1", "plain", 1, "answered", "compliance"),
            ("p2", "plain", 1, "answered", "refusal"),
            ("p3", "plain", 1, "answered", "refusal"),
            ("p4", "plain", 1, "answered", "refusal"),
            ("p5", "plain", 1, "answered", "compliance"),
            ("p6", "plain", 1, "answered", "refusal"),
        ],
    )
    a, b = build_index(ours), build_index(theirs)
    query = UnitQuery(show="flipped", beside="b")
    assert listed(a, query, other=b) == ["p1#1", "p3#1"]
    assert listed(b, query, other=a) == ["p1#1", "p3#1"]
    assert listed(a, query) == []


def test_a_query_of_an_address_is_checked() -> None:
    assert UnitQuery.of({"label": "refusal", "unit": "x", "q": " a"}).label == "refusal"
    for wrong in ({"label": "yes"}, {"show": "all"}, {"order": "; drop"}, {"danger": "4"}):
        with pytest.raises(UsageError):
            UnitQuery.of(wrong)


def test_leaks_come_first_and_judges_who_differ_are_found(client: Client) -> None:
    run = client.run("kept")
    units = client.units(run)
    assert len(units) == 70
    leaks = client.units(run, show="leaks")
    assert 0 < len(leaks) < 12
    assert units[: len(leaks)] == leaks
    differ = client.units(run, show="differ")
    assert differ
    for unit in differ[:3]:
        verdicts = client.unit(run, unit)["verdicts"]
        assert [one["label"] for one in verdicts] == ["refusal", "deflection"]
        assert verdicts[0]["of_record"]
        assert verdicts[1]["judge"] == OTHER


def test_pages_of_a_list_follow_each_other(client: Client) -> None:
    run = client.run("kept")
    units = client.units(run, order="prompt")
    paged: list[str] = []
    for offset in range(0, 70, 20):
        found = client.get(f"/api/run/{run}/units", order="prompt", offset=offset, limit=20).json
        paged += [row["unit"] for row in found["rows"]]
        assert found["n"] == 70
    assert paged == units
    seventh = client.get(f"/api/run/{run}/unit", order="prompt", unit=units[7]).json
    assert (seventh["place"], seventh["n"]) == (7, 70)
    elsewhere = client.get(f"/api/run/{run}/unit", show="leaks", unit=units[0]).json
    assert elsewhere["place"] is None


def test_a_unit_has_its_prompt_answer_and_verdict(client: Client, runs: Path) -> None:
    run = client.run("kept")
    unit = "weapons-01#2"
    found = client.unit(run, unit)
    assert found["conversation"][-1]["role"] == "user"
    assert found["conversation"][-1]["text"] == rk.load_prompts("starter")["weapons-01"].text
    assert "[demo answer]" in found["text"]
    assert found["verdicts"][0]["label"] == found["label"]
    assert [one["unit"] for one in found["trials"]] == ["weapons-01#1", "weapons-01#2"]
    beside = client.get(f"/api/run/{run}/unit", unit=unit, beside=client.run("cautious")).json
    assert beside["beside"]["model"] == "demo/cautious"
    assert beside["beside"]["unit"]["unit"] == unit
    assert beside["beside"]["unit"]["label"] == "refusal"


def test_hard_line_texts_are_not_sent_before_they_are_uncovered(client: Client) -> None:
    run = client.run("kept")
    unit = client.units(run, show="leaks")[0]
    prompt = rk.load_prompts("starter")[unit.partition("#")[0]].text
    for beside in ("", client.run("withheld")):
        covered = client.get(f"/api/run/{run}/unit", unit=unit, beside=beside)
        assert covered.json["unit"]["covered"]
        assert prompt not in covered.text
        assert "[demo answer]" not in covered.text
        assert covered.json["unit"]["verdicts"][0]["reason"] is None
    uncovered = client.unit(run, unit, uncover=1)
    assert not uncovered["covered"]
    assert uncovered["conversation"][-1]["text"] == prompt
    assert "[demo answer]" in uncovered["text"]
    # Only where they were kept at all.
    gone = client.unit(client.run("withheld"), unit, uncover=1)
    assert gone["text"] is None
    assert not gone["kept"]
    assert gone["text_chars"] > 0


def test_a_hard_line_of_the_set_is_covered_whatever_the_folder_says(
    tmp_path: Path, runs: Path
) -> None:
    run = open_run(runs / "kept")
    entry = run.manifest.prompt_set
    ordinary = tuple(c.model_copy(update={"hard_line": False}) for c in entry.categories)
    unmarked = entry.model_copy(update={"categories": ordinary})
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for name in ("completions.jsonl", "verdicts.jsonl"):
        (stranger / name).write_bytes((runs / "kept" / name).read_bytes())
    told = run.manifest.model_copy(update={"prompt_set": unmarked})
    Run(stranger, told).with_manifest(told, own=False)
    unit = "suicide-and-self-harm-01#1"
    with viewer(tmp_path) as client:
        found = client.unit(client.run("stranger"), unit)
        assert not found["hard_line"]
        assert found["covered"]
        assert found["text"] is None
        assert found["conversation"] is None
        assert client.unit(client.run("stranger"), unit, uncover=1)["text"]


def test_search_finds_ids_prompts_and_answers(client: Client, runs: Path, tmp_path: Path) -> None:
    run = client.run("kept")
    assert set(client.units(run, q="WEAPONS-01")) == {"weapons-01#1", "weapons-01#2"}
    word = rk.load_prompts("starter")["weapons-01"].text.split()[2]
    assert "weapons-01#1" in client.units(run, q=word.upper())
    own = write_run(
        tmp_path / "own", [(f"p{n}", "plain", 1, "answered", "refusal") for n in range(4)]
    )
    with own.writing() as writer:
        writer.completion(
            Completion(
                "p2", "plain", 1, "test/model", Outcome.ANSWERED, text="[demo] Straße NEEDLE"
            )
        )
    with viewer(tmp_path) as other:
        there = other.run("own")
        assert other.units(there, q="needle") == ["p2#1"]
        assert other.units(there, q="STRASSE") == []
        assert other.units(there, q="straße") == ["p2#1"]
        assert other.units(there, q='needle" OR') == []
        assert other.units(there, q="[demo") == ["p0#1", "p1#1", "p2#1", "p3#1"]


def test_texts_are_shown_with_hidden_characters_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    text = "a\u202eb\x1b[31mc\u2028d\x00\ud800" + "e" * 300_000
    with run.writing() as writer:
        writer.completion(Completion("p", "plain", 1, "m", Outcome.ANSWERED, text=text))
    with viewer(tmp_path) as client:
        found = client.unit(client.run("run"), "p#1")
    assert found["text"].startswith("a\\u202eb\\u001b[31mc\\u2028d\\u0000")
    assert len(found["text"]) <= 200_000
    assert found["text_chars"] >= len(text)


def test_a_large_run_shows_its_first_units_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = [(f"p{n:03}", "plain", 1, "answered", "refusal") for n in range(400)]
    run = write_run(tmp_path / "run", rows)
    with run.completions.open("ab") as file:
        file.write(b'{"torn')
    first = build_index(run, until=20_000)
    assert not first.is_whole
    assert 10 < len(first.units) < 100
    assert list(first.units["unit"]) == [f"p{n:03}#1" for n in range(len(first.units))]
    assert first.units["label"].null_count() < len(first.units)
    whole = build_index(run)
    assert whole.is_whole
    assert len(whole.units) == 400
    monkeypatch.setattr("refusalkit.viewer.shelf._FIRST_BYTES", 20_000)
    opened = Shelf(tmp_path).all()[0]
    shown = opened.units()
    assert shown is not None
    assert len(shown.units) in (len(first.units), 400)
    deadline = time.monotonic() + 20
    while not (shown := opened.units()).is_whole and time.monotonic() < deadline:  # type: ignore[union-attr]
        time.sleep(0.01)
    assert shown is not None
    assert len(shown.units) == 400


def test_prompts_are_never_fetched_from_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "empty"))
    run = write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    entry = run.manifest.prompt_set.model_copy(update={"source": "xstest"})
    config = {**run.manifest.config, "prompts": "xstest"}
    run = run.with_manifest(run.manifest.model_copy(update={"prompt_set": entry, "config": config}))
    found = read_prompts(run)
    assert found == KnownPrompts({}, frozenset(), missing=found.missing)
    assert found.missing is not None
    assert "not fetched here" in found.missing


def test_a_run_that_cannot_be_read_is_reported_in_a_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    run.completions.write_text("not json\n")
    with viewer(tmp_path) as client:
        deadline = time.monotonic() + 20
        row: dict[str, Any] = {}
        while not row.get("error") and time.monotonic() < deadline:
            (row,) = client.get("/api/runs").json["runs"]
        assert "completions.jsonl:1" in row["error"]
        answer = client.get(f"/api/run/{row['id']}/units")
        assert answer.status == 400
        assert "completions.jsonl:1" in answer.json["error"]


@pytest.mark.skipif(os.name != "posix", reason="names, links and pipes of POSIX")
@pytest.mark.parametrize("what", ["{", "link", "pipe", "closed"])
def test_a_folder_whose_manifest_cannot_be_read_is_a_row_that_says_why(
    tmp_path: Path, what: str
) -> None:
    run = write_run(tmp_path / "run", [("p", "plain", 1, "answered", "refusal")])
    bad = tmp_path / "group" / "bad<b>\x1b[31m"
    shutil.copytree(run.path, bad)
    manifest = bad / "manifest.json"
    manifest.unlink()
    if what == "link":
        manifest.symlink_to(run.path / "manifest.json")
    elif what == "pipe":
        os.mkfifo(manifest)
    elif what == "closed":
        if os.geteuid() == 0:
            pytest.skip("root may look into every folder")
        bad.chmod(0)
    else:
        manifest.write_text(what)
    said = {"{": "is not JSON", "link": "it is a link", "pipe": "it is a pipe"}
    why = said.get(what, "Permission denied")
    with viewer(tmp_path) as client:
        good, row = client.get("/api/runs").json["runs"]
        assert good["name"] == "run"
        assert row["name"] == "group/bad<b>\\u001b[31m"
        assert row["state"] == "unreadable"
        assert why in row["error"]
        for path in ("", "/read", "/label"):
            answer = client.get(f"/run/{row['id']}{path}")
            assert answer.status == 400
            assert why in answer.text
        if what != "closed":
            manifest.unlink()
            shutil.copy(run.path / "manifest.json", manifest)
            time.sleep(1.1)
            assert {one["state"] for one in client.get("/api/runs").json["runs"]} == {"not begun"}
            manifest.write_text("[]")
            assert "schema version" in client.get(f"/run/{row['id']}").text
        bad.chmod(0o700)


def test_turns_under_pressure_are_part_of_the_conversation(tmp_path: Path) -> None:
    rk.benchmark("demo/cautious", "starter", trials=1, limit=6, pressure=2, out=tmp_path / "run")
    with viewer(tmp_path) as client:
        run = client.run("run")
        units = client.units(run, label="refusal", show="ordinary")
        turns = client.unit(run, units[0])["turns"]
        assert [turn["turn"] for turn in turns] == [1, 2]
        assert turns[0]["said"]
        assert turns[0]["text"]
        hard = client.units(run, show="hard")
        covered = client.unit(run, hard[0])
        assert all(turn["text"] is None for turn in covered["turns"])


def test_runs_that_nobody_reads_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        rows: list[Row] = [(f"p{k}", "plain", 1, "answered", "refusal") for k in range(10)]
        write_run(tmp_path / f"run{n}", rows)
    monkeypatch.setattr("refusalkit.viewer.shelf._MAX_UNITS", 25)
    with viewer(tmp_path) as client:
        for n in (0, 1, 2, 3, 0):
            assert len(client.units(client.run(f"run{n}"))) == 10
    shelf = Shelf(tmp_path)
    for opened in shelf.all():
        again = shelf.get(opened.id)
        assert again is not None
        assert again.units(10.0) is not None
    assert shelf.get(shelf.all()[0].id) is not None
    assert sum(one.n_held for one in shelf.all()) == 20
