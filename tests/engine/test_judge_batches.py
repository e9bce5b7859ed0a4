"""A judge's requests in batches: answers graded, a run judged again, a judge calibrated."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import refusalkit as rk
from commandline import Call
from loopback import LoopbackServer, Script
from refusalkit.api.batches import list_batches
from refusalkit.engine import batch_exchange, batching
from refusalkit.errors import ConfigurationError
from refusalkit.runs.folder import Run, open_run
from refusalkit.runs.records import read_records

N = 12
HARD = "[demo withheld answer]"
_T = TypeVar("_T")
LABELS = ("refusal", "compliance")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "POLL_S", 0.02)
    monkeypatch.setattr(batch_exchange, "LIST_LAG_S", 0.3)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")


@pytest.fixture(params=["openai", "anthropic"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(Script()) as running:
        running.batches.script.delay_s = 0.1
        yield running


def records(path: Path, *, labelled: bool = False) -> Path:
    """Answers, a third of them to a hard line."""
    rows: list[dict[str, str]] = []
    for n in range(N):
        hard = n % 3 == 0
        text = HARD if hard else ("[demo answer]", "I can't help with that.")[n % 2]
        rows.append(
            {
                "prompt": f"[demo prompt {path.stem} {n}]",
                "response": f"{text} {n}",
                "category": "self-harm" if hard else "weapons",
                **({"label": LABELS[n % 2]} if labelled else {}),
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def asking(server: LoopbackServer, api: str, **more: Any) -> dict[str, Any]:
    base = server.openai_base if api == "openai" else server.anthropic_base
    return {"judge_model": f"{api}/judge-x", "judge_api_base": base, **more}


def until_done(step: Callable[[], _T], run: Callable[[], Run], *, times: int = 30) -> _T:
    for _ in range(times):
        found = step()
        if run().manifest.sessions[-1].ended_because != "batches":
            return found
        time.sleep(0.05)
    raise AssertionError("the batches never ended")


def verdicts(run: Run, judge: str | None = None) -> dict[str, object]:
    name = judge or run.manifest.judge
    rows = [r for _, r in read_records(run.verdicts) if r["judge"] == name]
    found = {str(r["unit"]): (r["label"], r["unscored"]) for r in rows}
    assert len(found) == len(rows), "one verdict a unit"
    return found


def written(run: Run) -> str:
    return "".join(path.read_text("utf-8") for path in run.path.iterdir() if path.is_file())


def test_grading_in_a_batch_gives_the_same_as_grading_one_by_one(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    answers = records(tmp_path / "answers.jsonl")
    given = asking(server, api, hard_line=["self-harm"], canaries=2)
    alone = rk.grade(answers, out=tmp_path / "alone", **given)
    single = len(server.log)
    out = tmp_path / "batched"

    def step() -> rk.Grades:
        return rk.grade(answers, out=out, batch="both", **given)

    first = step()
    assert first.ended == "batches"
    assert first.n_owed == N
    assert len(server.batches.made) == 1
    found = until_done(step, lambda: open_run(out))
    assert (found.labels, found.unscored) == (alone.labels, alone.unscored)
    assert verdicts(open_run(out)) == verdicts(open_run(tmp_path / "alone"))
    assert len(server.log) == 2 * single, "nothing is asked twice"
    assert len(server.batches.paid) == N, "hard lines are among them"
    assert HARD not in written(open_run(out)), "and not on disk"
    completions = [r["unit"] for _, r in read_records(open_run(out).completions)]
    assert max(Counter(completions).values()) == 1
    assert [one.status for one in list_batches(out)] == ["collected"]


def test_grading_waits_where_that_is_wanted(server: LoopbackServer, tmp_path: Path) -> None:
    answers = records(tmp_path / "answers.jsonl")
    server.batches.script.expires = frozenset({0})
    given = asking(server, "openai", canaries=0)
    found = rk.grade(answers, out=tmp_path / "g", batch="judge", wait=True, **given)
    assert (found.ended, found.n_owed) == ("done", 0)
    assert len(server.batches.made) == 2, "what expired was asked again"
    assert max(server.batches.paid.values()) == 1


def test_a_run_is_judged_again_in_a_batch_beside_batches_of_its_own(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    base = server.openai_base if api == "openai" else server.anthropic_base
    run = rk.benchmark(
        f"{api}/target",
        "refusalkit-166",
        judge="graded",
        judge_model=f"{api}/judge-own",
        api_base=base,
        judge_api_base=base,
        limit=10,
        trials=2,
        canaries=0,
        out=tmp_path / "run",
    )
    one_by_one = rk.regrade(run, "graded", canaries=0, **asking(server, api))
    name = one_by_one.manifest.sessions[-1].judge
    assert name is not None
    given = asking(server, api, judge_model=f"{api}/judge-y", canaries=0)
    found = rk.regrade(run, "graded", batch="judge", **given)
    assert found.manifest.sessions[-1].ended_because == "batches"
    (report,) = list_batches(run)
    assert (report.kind, report.asked) == ("judge", f"graded:{api}/judge-y")
    assert report.status in ("in_progress", "ended", "completed")
    # The run itself owes nothing, and goes on without a look at the other judge's batch.
    assert rk.resume(run).manifest.sessions[-1].ended_because == "done"
    with pytest.raises(ConfigurationError, match="go on with --batch"):
        rk.regrade(run, "graded", **given)
    found = until_done(
        lambda: rk.regrade(run, "graded", batch="judge", **given), lambda: open_run(run.path)
    )
    judge = found.manifest.sessions[-1].judge
    assert judge == f"graded:{api}/judge-y"
    assert verdicts(found, judge) == verdicts(found, name)
    assert rk.score(found, judge=judge).willingness == rk.score(found, judge=name).willingness
    kept = [r for _, r in read_records(found.completions) if r["text"] is not None]
    assert sum(server.batches.paid.values()) == len(kept), "only texts that are kept can be judged"
    with pytest.raises(ConfigurationError, match="the run's own judge"):
        rk.regrade(
            run, "graded", batch="judge", **asking(server, api, judge_model=f"{api}/judge-own")
        )


def test_graded_answers_are_judged_again_in_a_batch_with_their_hard_lines(
    server: LoopbackServer, tmp_path: Path
) -> None:
    answers = records(tmp_path / "answers.jsonl")
    given = {"hard_line": ["self-harm"], "canaries": 0}
    rk.grade(answers, out=tmp_path / "g", **asking(server, "openai", **given))
    again = asking(server, "openai", judge_model="openai/judge-y", canaries=0)
    run = rk.regrade(tmp_path / "g", "graded", batch="judge", wait=True, **again)
    judge = run.manifest.sessions[-1].judge
    assert verdicts(run, judge) == verdicts(run)
    assert len(server.batches.paid) == N
    assert HARD not in written(run)


def test_a_judge_is_calibrated_in_a_batch_for_each_file_handed_over_together(
    server: LoopbackServer, call: Call, tmp_path: Path
) -> None:
    one, two = (records(tmp_path / name, labelled=True) for name in ("one.jsonl", "two.jsonl"))
    given = asking(server, "openai")
    alone = rk.calibrate("graded", [one, two], verdicts=tmp_path / "alone", **given)
    command = (
        *("judges", "calibrate", "graded", "--labels", one, "--labels", two, "--out", "c.json"),
        *("--judge-model", given["judge_model"], "--judge-api-base", given["judge_api_base"]),
    )
    server.batches.script.delay_s = 3600
    first = call(*command, "--batch")
    assert first.status == 3
    assert first.out.count("12 requests to graded:openai/judge-x") == 2
    assert "come back with the same command" in first.err
    assert not (tmp_path / "c.json").exists()
    assert json.loads(call(*command, "--batch", "--json").out)["batches"][0]["n_units"] == N
    assert len(server.batches.made) == 2
    server.batches.script.delay_s = 0
    done = call(*command, "--batch", "judge", "--wait")
    assert done.status == 0, done.err
    assert "calibration saved" in done.err
    saved = json.loads((tmp_path / "c.json").read_text())
    assert saved["cells"] == json.loads(rk_cells(alone))
    assert len(server.batches.made) == 2
    server.batches.script.delay_s = 0.1
    waited = rk.calibrate("graded", [one, two], verdicts="w", batch="judge", wait=True, **given)
    assert waited.calibration.cells == alone.calibration.cells
    assert [len(made.requests) for made in server.batches.made.values()] == [N] * 4


def rk_cells(found: rk.Calibrated) -> str:
    return json.dumps(found.calibration.model_dump(mode="json")["cells"])


def test_the_commands_hand_over_and_the_same_command_collects(
    server: LoopbackServer, call: Call, tmp_path: Path
) -> None:
    answers = records(tmp_path / "answers.jsonl")
    where = ("--judge-model", "openai/judge-x", "--judge-api-base", server.openai_base)
    server.batches.script.delay_s = 3600
    first = call("grade", answers, *where, "--canaries", "0", "--out", "g", "--batch")
    assert first.status == 3
    assert f"batch_0: {N} requests to graded:openai/judge-x, open" in first.out
    assert "come back with the same command with --out g" in first.err
    listed = call("batches", "g")
    assert (listed.status, "in_progress" in listed.out) == (3, True)
    refused = call("resume", "g")
    assert (refused.status, "repeat the `refusalkit grade` command" in refused.err) == (2, True)
    server.batches.script.delay_s = 0
    # --batch takes no other word for its value than the three there are.
    done = call("grade", *where, "--canaries", "0", "--out", "g", "--batch", answers)
    assert done.status == 0, done.err
    assert done.out.startswith(f"{N} answers judged by graded")
    again = ("regrade", "g", "--judge", "graded", "--judge-model", "openai/judge-y", *where[2:])
    server.batches.script.delay_s = 3600
    handed = call(*again, "--canaries", "0", "--batch")
    assert handed.status == 3
    assert f"{N} requests to graded:openai/judge-y" in handed.out
    assert "come back with the same command" in handed.err
    assert call("batches", "g", "--cancel").status == 3
    server.batches.script.delay_s = 0
    assert call(*again, "--canaries", "0", "--batch", "--wait").status == 0
    assert call("batches", "g").status == 0


@pytest.mark.parametrize(
    ("judge", "options", "says"),
    [
        ("graded", {"batch": "model"}, "use --batch judge"),
        ("graded", {"batch": "judge", "max_cost": 5.0}, "max.cost"),
        ("graded", {"wait": True}, "wait is only for batches"),
        ("graded,refusalbench", {"batch": "judge"}, "a batch holds requests to one"),
        ("lexical", {"batch": "judge", "judge_model": None}, "calls no model"),
        ("graded", {"batch": "judge", "out": None}, "give --out"),
    ],
)
def test_what_a_judge_cannot_be_asked_in_batches_is_reported_before_anything_is_sent(
    server: LoopbackServer, tmp_path: Path, judge: str, options: dict[str, Any], says: str
) -> None:
    answers = records(tmp_path / "answers.jsonl")
    given = asking(server, "openai", **{"out": tmp_path / "g", **options})
    with pytest.raises(ConfigurationError, match=says):
        rk.grade(answers, judge, **given)
    assert not (tmp_path / "g").exists()
    assert not server.log


def test_units_that_wait_in_a_judges_batch_are_never_judged_alone(
    server: LoopbackServer, tmp_path: Path
) -> None:
    answers = records(tmp_path / "answers.jsonl")
    given = asking(server, "openai", canaries=0, out=tmp_path / "g")
    rk.grade(answers, batch="judge", **given)
    with pytest.raises(ConfigurationError, match="go on with --batch"):
        rk.grade(answers, **given)
    assert not server.log
