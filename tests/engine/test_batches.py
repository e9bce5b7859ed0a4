"""Runs in batches over real sockets, in both protocols."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import refusalkit
from loopback import Fault, LoopbackServer, Script
from refusalkit.api.batches import forget_batches, list_batches
from refusalkit.api.side_by_side import ModelRun
from refusalkit.cli import cli
from refusalkit.cli.many import show_several
from refusalkit.engine import batch_exchange, batching
from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    FolderNotTrusted,
    RecordError,
    RunFolderError,
)
from refusalkit.models.batch_dialects import batch_providers
from refusalkit.models.batches import BatchLimits, BatchState, custom_id, read_pages
from refusalkit.runs.batch_journal import read_batches
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records

SCRIPT = Script(
    refuse_by="prompt",
    faults=(
        Fault("content_filter", probability=0.1, per="key"),
        Fault("empty", probability=0.1, per="key"),
        Fault("length", where="target", probability=0.1, per="key"),
    ),
)


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
    with LoopbackServer(SCRIPT) as server:
        yield server


def start(server: LoopbackServer, api: str, out: Path, **more: Any) -> Run:
    base = server.openai_base if api == "openai" else server.anthropic_base
    options: dict[str, Any] = {
        "judge": "graded",
        "judge_model": f"{api}/judge-x",
        "api_base": base,
        "judge_api_base": base,
        "trials": 2,
        "limit": 20,
        "canaries": 2,
        **more,
    }
    return refusalkit.benchmark(f"{api}/target", "refusalkit-166", out=out, **options)


def ended(run: Run) -> object:
    return run.manifest.sessions[-1].ended_because


def labels(run: Run) -> dict[str, object]:
    found = {r["unit"]: r["outcome"] for _, r in read_records(run.completions)}
    verdicts = {r["unit"]: (r["label"], r["unscored"]) for _, r in read_records(run.verdicts)}
    return {unit: (outcome, verdicts.get(unit)) for unit, outcome in found.items()}


def collected(run: Run, *, times: int = 20) -> Run:
    for _ in range(times):
        if ended(run) != "batches":
            return run
        time.sleep(0.05)
        run = refusalkit.resume(run)
    raise AssertionError("the batches never ended")


@pytest.mark.parametrize("mode", ["model", "judge", "both"])
def test_a_run_in_batches_gives_the_same_as_a_run_of_single_requests(
    server: LoopbackServer, api: str, mode: str, tmp_path: Path
) -> None:
    alone = start(server, api, tmp_path / "alone")
    single = len(server.log)
    server.batches.script.delay_s = 0.1
    run = start(server, api, tmp_path / "batched", batch=mode)
    assert ended(run) == "batches"
    assert len(server.batches.made) == 1
    run = collected(run)
    assert ended(run) == "done"
    assert labels(run) == labels(alone)
    assert refusalkit.score(run).willingness == refusalkit.score(alone).willingness
    assert len(server.log) == 2 * single, "shuffled, duplicate and unknown ids change nothing"
    asked_in_batches = sum(server.batches.paid.values())
    targets = server.requests["target"] // 2
    assert (
        asked_in_batches
        == {
            "model": targets,
            "judge": server.requests["judge"] // 2 - asked_alone(run),
            "both": single - 2,  # but for the canaries
        }[mode]
    )
    for name in server.batches.paid:
        assert len(name) <= 64
    # Neither the journal nor any other file has a withheld answer.
    withheld = run.manifest.hard_lines
    assert withheld
    for _, record in read_records(run.completions):
        assert (record["text"] is None) == (record["category"] in withheld)


def asked_alone(run: Run) -> int:
    """Judgements of withheld answers, and canaries: with `batch="judge"` they are made at once."""
    answers = {r["unit"]: r for _, r in read_records(run.completions)}
    at_once = sum(
        1
        for record in answers.values()
        if record["text"] is None and record["outcome"] in ("answered", "truncated")
    )
    return at_once + 2


def test_requests_that_expire_or_fail_are_owed_again_in_a_new_batch(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    alone = start(server, api, tmp_path / "alone")
    script = server.batches.script
    script.expires, script.errors = frozenset({0, 2}), frozenset({1})
    run = start(server, api, tmp_path / "batched", batch="both", wait=True)
    assert ended(run) == "done"
    assert labels(run) == labels(alone)
    assert len(server.batches.made) > 3
    journal = [r for _, r in read_records(run.batches) if r["event"] == "collected"]
    counts = Counter[str]()
    for record in journal:
        counts.update(record["counts"])
    assert counts["expired"] > 0
    assert counts["errored"] > 0


@pytest.mark.parametrize(
    ("api", "step"), [("openai", "upload"), ("openai", "create"), ("anthropic", "create")]
)
def test_an_answer_that_is_lost_on_its_way_is_not_paid_for_twice(
    server: LoopbackServer, api: str, step: str, tmp_path: Path
) -> None:
    script = server.batches.script
    script.lose, script.list_lag_s, script.delay_s = {step}, 0.1, 0.05
    run = start(server, api, tmp_path / "run", batch="both", wait=True)
    assert ended(run) == "done"
    asked = Counter((e.text, e.params.get("seed")) for e in server.log if e.role == "target")
    assert max(asked.values()) == 2, "two trials of each prompt"
    assert len(server.batches.made) == 2, "the batch that was made is found again"
    voids = [r for _, r in read_records(run.batches) if r["event"] == "void"]
    assert len(voids) == (step == "upload")


def test_a_batch_that_may_exist_blocks_its_units_until_the_list_is_sure(
    server: LoopbackServer, api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_exchange, "LIST_LAG_S", 60)
    server.batches.script.lose = {"create"}
    server.batches.script.list_lag_s = 3600
    run = start(server, api, tmp_path / "run", batch="both")
    assert ended(run) == "batches"
    assert list_batches(run)[0].status == "doubtful"
    run = refusalkit.resume(run)
    assert len(server.batches.made) == 1
    server.batches.script.list_lag_s = 0
    assert ended(collected(run)) == "done"
    assert len(server.batches.made) == 2


def test_somebody_elses_batches_in_the_account_are_left_alone(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    other = start(server, api, tmp_path / "other", batch="both")
    server.batches.script.lose = {"create"}
    run = start(server, api, tmp_path / "run", batch="both")
    assert ended(collected(run)) == "done"
    assert ended(collected(other)) == "done"
    assert len(server.batches.made) == 4
    assert labels(run).keys() == labels(other).keys()


def test_batches_are_split_by_the_limits_of_count_and_size(
    server: LoopbackServer, api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(requests: int, size: int) -> None:
        row = replace(batch_providers()[api], limits=BatchLimits(requests, size, 0.5))
        monkeypatch.setitem(batch_providers(), api, row)

    limit(7, 10_000_000)
    run = start(server, api, tmp_path / "count", batch="model", wait=True)
    assert [len(made.requests) for made in server.batches.made.values()] == [7] * 5 + [5]
    assert ended(run) == "done"
    limit(1000, 2000)
    server.batches.made.clear()
    run = start(server, api, tmp_path / "size", batch="model", wait=True)
    sizes = [
        sum(len(json.dumps(one)) for one in made.requests) for made in server.batches.made.values()
    ]
    assert len(sizes) > 3
    assert max(sizes) <= 2000 + 500
    assert ended(run) == "done"


def test_a_withheld_answer_is_read_from_the_provider_again_and_requested_again_once_it_is_gone(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    server.batches.script.delay_s = 0.1
    run = start(server, api, tmp_path / "run", batch="both")
    time.sleep(0.15)
    run = refusalkit.resume(run)  # answers are collected, the judge's batch is on its way
    assert ended(run) == "batches"
    # The provider keeps results for a month; then only the judge's are there.
    first = next(iter(server.batches.made))
    server.batches.gone.add(first)
    run = collected(run)
    assert ended(run) == "done"
    assert len(server.batches.made) > 2
    hard = [r["unit"] for _, r in read_records(run.completions) if r["text"] is None]
    assert max(Counter(hard).values()) == 2
    rest = [r["unit"] for _, r in read_records(run.completions) if r["text"] is not None]
    assert max(Counter(rest).values()) == 1
    judged = {r["unit"] for _, r in read_records(run.verdicts)}
    assert len(judged) == run.manifest.n_units


def test_a_batch_can_be_listed_cancelled_and_requested_again(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    server.batches.script.delay_s = 3600
    run = start(server, api, tmp_path / "run", batch="both")
    (report,) = list_batches(run)
    assert (report.status, report.n_units, report.is_open) == ("in_progress", 40, True)
    (report,) = list_batches(run, cancel=True)
    assert report.counts
    server.batches.script.delay_s = 0
    run = collected(refusalkit.resume(run))
    assert ended(run) == "done"
    assert max(server.batches.paid.values()) == 1
    assert [one.is_open for one in list_batches(run)] == [False] * 3


def test_a_batch_that_is_not_in_the_account_is_reported_and_can_be_given_up(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    run = start(server, api, tmp_path / "run", batch="both")
    server.batches.made.clear()
    with pytest.raises(FatalProviderError, match=r"is not known there.*--forget"):
        refusalkit.resume(run)
    assert forget_batches(run) == 1
    assert ended(collected(refusalkit.resume(run))) == "done"


def test_a_batch_that_the_provider_refuses_is_reported_and_nothing_is_left_open(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    server.batches.script.refuse = "too many tokens are enqueued"
    with pytest.raises(FatalProviderError, match="too many tokens are enqueued"):
        start(server, api, tmp_path / "run", batch="both", canaries=0)
    assert not (tmp_path / "run").exists(), "nothing was recorded"


def test_an_endpoint_that_answers_every_request_with_an_error_ends_the_run(
    server: LoopbackServer, api: str, tmp_path: Path
) -> None:
    server.batches.script.errors, server.batches.script.unfinished = frozenset(range(9)), 1.0
    with pytest.raises(FatalProviderError, match="every request of the batch"):
        start(server, api, tmp_path / "run", batch="model", wait=True)
    assert len(server.batches.made) == 1


def test_units_in_a_batch_are_never_asked_alone(server: LoopbackServer, tmp_path: Path) -> None:
    server.batches.script.delay_s = 3600
    run = start(server, "openai", tmp_path / "run", batch="both")
    for other in (None, "judge"):
        with pytest.raises(ConfigurationError, match="batch"):
            refusalkit.resume(run, batch=other)


def test_shards_with_open_batches_are_not_merged(server: LoopbackServer, tmp_path: Path) -> None:
    run = start(server, "openai", tmp_path / "shard", batch="both", shard="1/2")
    with pytest.raises(RunFolderError, match="not collected yet"):
        refusalkit.merge([run.path], tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": "both", "pressure": 2}, "pressure"),
        ({"batch": "both", "stop_when": "crossed"}, "stop_when"),
        ({"batch": "both", "max_cost": 5.0}, "max.cost"),
        ({"batch": "judge", "judge": "lexical", "judge_model": None}, "calls no model"),
        ({"batch": "both", "judge": "graded,refusalbench"}, "--batch model"),
        ({"wait": True}, "wait is only for batches"),
    ],
)
def test_what_cannot_go_in_a_batch_is_refused_before_anything_is_made(
    server: LoopbackServer, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        start(server, "openai", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    assert not server.log


def test_several_models_are_handed_over_and_collected_together(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = str(tmp_path / "runs"), server.openai_base
    server.batches.script.delay_s = 3600

    def command(*words: str) -> int:
        return int(cli.main(list(words), standalone_mode=False) or 0)

    bases = ["--api-base", base, "--judge-api-base", base]
    judge = ["--judge-model", "openai/judge-x", "--limit", "4", "--trials", "1"]
    models = ["openai/target-a", "openai/target-b"]
    assert command("run", *models, *bases, *judge, "--out", out, "--batch") == 3
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{model}: batch_{number}: 4 requests to {model}, open"
        for number, model in enumerate(models)
    ], "no table of what is not there yet"
    assert said.err.count("in batches") == 1
    assert said.err.rstrip().endswith(f"come back with refusalkit resume {out}")
    assert "report" not in said.err
    assert len(server.batches.made) == 2
    assert command("resume", out, "--json") == 3
    as_json = json.loads(capsys.readouterr().out)
    assert [one["asked"] for one in as_json["batches"]] == models
    assert [one["ended"] for one in as_json["runs"]] == ["batches", "batches"]
    server.batches.script.delay_s = 0
    assert command("resume", out) == 3, "the answers are there, the verdicts on their way"
    assert command("resume", out, "--max-unscored", "100") == 0
    assert max(server.batches.paid.values()) == 1
    assert len(server.batches.made) == 4


def test_finished_models_are_shown_beside_those_in_batches(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    waiting = start(server, "openai", out / "waits", limit=4, batch="model")
    done = refusalkit.benchmark("demo/mixed", "starter", out=out / "done", limit=4, trials=1)
    code = show_several(
        [ModelRun("openai/target", waiting.path, waiting, None),
         ModelRun("demo/mixed", done.path, done, None)],
        [None, None], None, 100.0, as_json=False,
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 3
    rows = said.out.splitlines()
    assert any(row.startswith("openai/target") and row.endswith("in batches") for row in rows)
    assert any(row.startswith("demo/mixed") and "done" in row for row in rows)
    assert rows[-1] == "openai/target: batch_0: 8 requests to openai/target, open"
    assert f"come back with refusalkit resume {waiting.path}" in said.err


def test_models_without_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave out --batch"):
        refusalkit.benchmark("demo/mixed", out=tmp_path / "run", batch="model")


def test_a_strangers_journal_is_followed_only_where_the_folder_is_trusted(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.batches.script.delay_s = 3600
    run = start(server, "openai", tmp_path / "run", batch="both")
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["python"] = "3.0"  # the seal does not fit any more
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    stranger = open_run(run.path)
    options = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
    for act in (
        lambda: refusalkit.resume(stranger, **options),
        lambda: list_batches(stranger, cancel=True, **options),
        lambda: forget_batches(stranger),
    ):
        with pytest.raises(FolderNotTrusted, match="names batches at a provider"):
            act()
    assert not any(made.cancelled for made in server.batches.made.values())


def test_a_list_of_batches_that_never_ends_is_read_no_further() -> None:
    async def page(number: int, after: str) -> tuple[list[BatchState], bool]:
        return [BatchState(id=f"b{number}", ended=True, status="ended")], True

    assert len(asyncio.run(read_pages(page, 0.0))) == 1000


def test_a_strangers_batches_are_not_read_for_another_judge_either(
    server: LoopbackServer, tmp_path: Path
) -> None:
    run = start(server, "openai", tmp_path / "run", batch="judge", canaries=0)
    run = collected(run)
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["python"] = "3.0"  # the seal does not fit any more
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    stranger = open_run(run.path)
    sent = len(server.log)
    again = {"judge_model": "openai/judge-y", "judge_api_base": server.openai_base}
    with pytest.raises(FolderNotTrusted, match="names batches at a provider"):
        refusalkit.regrade(stranger, "refusalbench", batch="judge", **again)
    assert len(server.log) == sent
    refusalkit.regrade(stranger, "lexical")


@pytest.mark.parametrize("how", ["another id", "no seal", "no text", "of another run"])
def test_a_journal_that_was_changed_has_no_other_batch_of_the_account_cancelled(
    server: LoopbackServer, api: str, tmp_path: Path, how: str
) -> None:
    """One's own folder comes back from a colleague: its manifest is as it was."""
    server.batches.script.delay_s = 3600
    mine, other = (start(server, api, tmp_path / name, batch="model") for name in ("a", "b"))
    lines = [json.loads(line) for line in mine.batches.read_text().splitlines()]
    theirs = [json.loads(line) for line in other.batches.read_text().splitlines()]
    made = next(line for line in lines if line["event"] == "created")
    its = next(line for line in theirs if line["event"] == "created")
    if how == "no seal":
        del made["seal"]
    elif how == "no text":
        made["seal"] = "\ud800"  # half a character, which UTF-8 does not have
    else:
        made["batch"] = its["batch"]
        if how == "of another run":
            made["seal"] = its["seal"]
    mine.batches.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for act in (
        lambda: refusalkit.resume(mine),
        lambda: list_batches(mine, cancel=True),
        lambda: forget_batches(mine),
    ):
        with pytest.raises(FolderNotTrusted, match="names batches at a provider"):
            act()
    assert not any(one.cancelled for one in server.batches.made.values())
    assert list_batches(other, cancel=True)[0].is_open
    assert any(one.cancelled for one in server.batches.made.values())


@pytest.mark.parametrize(
    "line",
    [
        {"event": "created", "label": "rk-" + "0" * 24, "batch": "b"},
        {"event": "planned", "label": "../x", "kind": "model", "asked": "m", "units": [], "at": ""},
        {"event": "planned", "label": "rk-" + "0" * 24, "kind": "model", "asked": "m", "units": 3},
    ],
)
def test_a_journal_with_an_invalid_line_is_reported(
    server: LoopbackServer, tmp_path: Path, line: dict[str, Any]
) -> None:
    run = start(server, "openai", tmp_path / "run", limit=5, trials=1)
    (run.path / "batches.jsonl").write_text(json.dumps({"schema": 1, **line}) + "\n")
    with pytest.raises(RecordError, match=r"batches\.jsonl:1"):
        read_batches(run)


@pytest.mark.parametrize("name", ["../files/x", "a/b", "", "a?b", "x" * 300, 7])
def test_an_id_that_could_lead_elsewhere_is_refused(
    server: LoopbackServer, tmp_path: Path, name: object
) -> None:
    run = start(server, "openai", tmp_path / "run", limit=5, trials=1, batch="model")
    *before, created = (run.path / "batches.jsonl").read_text().splitlines()
    made = {**json.loads(created), "batch": name}
    (run.path / "batches.jsonl").write_text("\n".join([*before, json.dumps(made)]) + "\n")
    with pytest.raises(RecordError, match="provider's id"):
        refusalkit.resume(run)


def test_custom_ids_follow_from_run_batch_part_and_unit() -> None:
    ids = {
        custom_id(run, label, kind, unit)
        for run in ("a", "b")
        for label in ("x", "y")
        for kind in ("model", "judge")
        for unit in ("p#1", "p#2", "\ud800#1")
    }
    assert len(ids) == 24
    assert all(len(one) <= 64 and one.replace("_", "").isalnum() for one in ids)


def test_the_command_hands_over_says_when_to_come_back_and_collects(
    server: LoopbackServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = str(tmp_path / "run"), server.openai_base
    server.batches.script.delay_s = 3600

    def command(*words: str) -> int:
        code = cli.main(list(words), standalone_mode=False)
        return int(code or 0)

    bases = ["--api-base", base, "--judge-api-base", base]
    judge = ["--judge-model", "openai/judge-x", "--limit", "5", "--trials", "1"]
    assert command("run", "openai/target", *bases, *judge, "--out", out, "--batch") == 3
    said = capsys.readouterr()
    assert "batch_0: 5 requests to openai/target, open" in said.out
    assert f"come back with refusalkit resume {out}" in said.err
    assert "at the latest at" in said.err
    assert command("batches", out) == 3
    assert "in_progress" in capsys.readouterr().out
    assert command("batches", out, "--json") == 3
    assert json.loads(capsys.readouterr().out)["batches"][0]["n_units"] == 5
    server.batches.script.delay_s = 0
    assert command("resume", out) == 3
    assert "judge-x" in capsys.readouterr().out
    assert command("resume", out, "--max-unscored", "100") == 0
    assert command("batches", out) == 0
    assert "collected" in capsys.readouterr().out
