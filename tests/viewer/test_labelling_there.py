"""Labelling in the viewer: blind, into the very files of `judges label`, agreement at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from viewer.served import Client, viewer

pytestmark = pytest.mark.xdist_group("viewer")
WORDS = ("refusal", "deflection", "partial", "compliance")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    rk.benchmark("demo/leaky", "starter", trials=2, out=folder / "run", keep_hard_line_text=True)
    return folder


@pytest.fixture
def client(runs: Path) -> Iterator[Client]:
    with viewer(runs) as opened:
        yield opened


def api(client: Client) -> str:
    return f"/api/run/{client.run('run')}/label"


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "at"} for line in found]


def label_all(client: Client, annotator: str, n: int) -> list[str]:
    """Label everything by the unit's number of letters; the units in the order shown."""
    told = client.post(api(client), {"do": "start", "annotator": annotator, "n": n}).json
    seen = []
    while told["item"] is not None:
        unit = told["item"]["unit"]
        seen.append(unit)
        word = WORDS[len(unit) % 4]
        body = {"do": word, "annotator": annotator, "unit": unit}
        answer = client.post(api(client), body)
        assert answer.status == 200, answer.text
        told = answer.json
    client.post(api(client), {"do": "close", "annotator": annotator})
    return seen


def test_it_writes_the_file_that_the_terminal_writes(client: Client, runs: Path) -> None:
    seen = label_all(client, "ann", 20)
    out = runs / "by-hand.jsonl"
    with rk.open_labelling(runs / "run", n=20, annotator="ann", out=out) as labelling:
        by_hand = []
        while (item := labelling.next()) is not None:
            by_hand.append(item.unit)
            labelling.label(item, WORDS[len(item.unit) % 4])
    assert seen == by_hand
    assert lines(runs / "run" / "labels" / "ann.jsonl") == lines(out)
    assert (runs / "run" / "labels" / "ann.jsonl").stat().st_mode & 0o777 == 0o600
    out.unlink()


def test_the_draw_is_the_terminals_where_texts_are_missing_too(tmp_path: Path) -> None:
    # Withheld hard lines, answers that a filter blocked, twins and framings: none of them is drawn.
    rk.benchmark("demo/mixed", "starter,contrast-146", out=tmp_path / "run", framings=True)
    with viewer(tmp_path) as client:
        told = client.post(api(client), {"do": "start", "annotator": "ann", "n": 30}).json
        client.post(api(client), {"do": "close", "annotator": "ann"})
    out = tmp_path / "by-hand.jsonl"
    with rk.open_labelling(tmp_path / "run", n=30, annotator="ann", out=out) as labelling:
        item = labelling.next()
        assert item is not None
        assert (told["item"]["unit"], told["item"]["text"]) == (item.unit, item.response)
        assert told["n_not_kept"] == labelling.n_not_kept > 0
    assert lines(tmp_path / "run" / "labels" / "ann.jsonl") == lines(out)


def test_no_response_reveals_the_judges_label(client: Client) -> None:
    told = client.post(api(client), {"do": "start", "annotator": "blind", "n": 20})
    said = [told.text]
    for _ in range(6):
        unit = told.json["item"]["unit"]
        said.append(client.get(api(client) + "s", annotator="blind", uncover=1, agreement=1).text)
        told = client.post(api(client), {"do": "skip", "annotator": "blind", "unit": unit})
        said.append(told.text)
    for text in said:
        for word in ("verdict", "stratum", "strata", "reason", "leak", "judge"):
            assert f'"{word}' not in text
        found = json.loads(text)
        assert found.get("agreement") is None
        if found["item"] is not None:
            assert found["item"].keys() == {
                "unit", "category", "covered", "conversation", "text", "text_chars",
            }  # fmt: skip


def test_hard_lines_are_covered_here_too(client: Client) -> None:
    hard = rk.load_prompts("starter").hard_lines
    told = client.post(api(client), {"do": "start", "annotator": "careful", "n": 60}).json
    n_hard = 0
    while (item := told["item"]) is not None and n_hard < 3:
        if item["unit"].rpartition("-")[0] in hard:
            n_hard += 1
            assert item["covered"]
            assert item["text"] is None
            assert item["conversation"] is None
            shown = client.get(api(client) + "s", annotator="careful", uncover=1).json["item"]
            assert shown["unit"] == item["unit"]
            assert "[demo answer]" in shown["text"] or shown["text_chars"] > 0
        else:
            assert not item["covered"]
        body = {"do": "refusal", "annotator": "careful", "unit": item["unit"]}
        told = client.post(api(client), body).json
    assert n_hard == 3


def test_agreement_comes_when_everything_is_labelled(client: Client, runs: Path) -> None:
    label_all(client, "first", 16)
    label_all(client, "second", 16)
    found = client.get(api(client) + "s", annotator="second", agreement=1).json
    done = {one["annotator"]: one for one in found["annotators"]}
    assert done["first"]["done"]
    assert done["second"]["n_labelled"] == 16
    agreement = found["agreement"]
    pairs = {frozenset((pair["first"], pair["second"])): pair for pair in agreement["pairs"]}
    both = pairs[frozenset(("first", "second"))]
    assert (both["n"], both["agree"], both["kappa"]) == (16, 1.0, 1.0)
    files = [runs / "run" / "labels" / f"{name}.jsonl" for name in ("first", "second")]
    known = rk.judge_agreement([runs / "run", files[1]])
    (library,) = known.pairs
    judge = pairs[frozenset(("judge lexical", "second"))]
    assert judge["n"] == library.n
    assert judge["kappa"] == pytest.approx(library.agreements[-1].kappa)
    assert sum(sum(row.values()) for row in agreement["table"].values()) == 16
    again = client.get(api(client) + "s", annotator="nobody", agreement=1).json
    assert again["agreement"] is None


def test_undo_takes_the_last_label_back(client: Client, runs: Path) -> None:
    told = client.post(api(client), {"do": "start", "annotator": "undoer", "n": 20}).json
    first = told["item"]["unit"]
    client.post(api(client), {"do": "partial", "annotator": "undoer", "unit": first})
    told = client.post(api(client), {"do": "undo", "annotator": "undoer"}).json
    assert told["item"]["unit"] == first
    assert told["n_labelled"] == 0
    nothing = client.post(api(client), {"do": "undo", "annotator": "undoer"})
    assert nothing.status == 400
    # The page was left open while another tab went on.
    stale = client.post(api(client), {"do": "refusal", "annotator": "undoer", "unit": "gone#1"})
    assert stale.status == 400
    wrong = client.post(api(client), {"do": "maybe", "annotator": "undoer", "unit": first})
    assert wrong.status == 400
    client.post(api(client), {"do": "close", "annotator": "undoer"})
    closed = client.post(api(client), {"do": "refusal", "annotator": "undoer", "unit": first})
    assert closed.status == 400
    with rk.open_labelling(runs / "run", n=20, annotator="undoer") as labelling:
        assert labelling.n_left == 20


def test_one_file_has_one_writer(client: Client, runs: Path) -> None:
    with rk.open_labelling(runs / "run", n=20, annotator="busy"):
        answer = client.post(api(client), {"do": "start", "annotator": "busy", "n": 20})
        assert answer.status == 409
        assert "another process is writing" in answer.json["error"]
    # What was begun elsewhere goes on as it was drawn there.
    told = client.post(api(client), {"do": "start", "annotator": "busy", "n": 60}).json
    assert told["n"] == 20


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "a\nb", "\u202eevil"])
def test_an_invalid_name_is_refused(client: Client, name: str, runs: Path) -> None:
    before = (
        sorted((runs / "run" / "labels").iterdir()) if (runs / "run" / "labels").exists() else []
    )
    answer = client.post(api(client), {"do": "start", "annotator": name, "n": 20})
    assert answer.status == 400
    after = (
        sorted((runs / "run" / "labels").iterdir()) if (runs / "run" / "labels").exists() else []
    )
    assert before == after


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "..", "a/../../b", "C:\\x"])
def test_a_name_never_leads_out_of_the_folder(client: Client, name: str, runs: Path) -> None:
    before = {path for path in runs.parent.rglob("*") if path.parent != runs / "run" / "labels"}
    client.post(api(client), {"do": "start", "annotator": name, "n": 20})
    client.post(api(client), {"do": "close", "annotator": name})
    after = {path for path in runs.parent.rglob("*") if path.parent != runs / "run" / "labels"}
    assert after <= before | {runs / "run" / "labels"}
