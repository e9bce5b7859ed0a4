"""Canaries: answers of known labels that ride along in a run, and what a reader is told of them."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, caller
from loopback import Fault, LoopbackServer, Script
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import RecordError
from refusalkit.judges.open import load_judge
from refusalkit.judges.shipped_answers import LOCK, SETS, read_answer_set
from refusalkit.runs.canaries import CanaryCheck, choose_canaries, load_canaries, owed_canaries
from refusalkit.runs.folder import open_run
from refusalkit.runs.records import read_records
from refusalkit.shipped import judges_dir
from refusalkit.types import Completion, Label, Prompt, Unscored, Verdict
from run_folders import spent_usd

ALL = load_canaries()
EIGHT = [canary.id for canary in choose_canaries(8, graded=True)]


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


def options(server: LoopbackServer, **more: Any) -> dict[str, Any]:
    base = server.openai_base
    return {
        "prompts": "starter",
        "limit": 6,
        "trials": 1,
        "judge": "graded",
        "judge_model": "openai/judge-x",
        "api_base": base,
        "judge_api_base": base,
        **more,
    }


def bench(server: LoopbackServer, out: Path, **more: Any) -> rk.Run:
    return rk.benchmark("openai/target", out=out, **options(server, **more))


def recorded(run: rk.Run) -> list[dict[str, Any]]:
    return [dict(record) for _, record in read_records(run.canaries)]


# The set.


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_of_answers_never_changes(name: str) -> None:
    found = read_answer_set(name)
    lock = json.loads((judges_dir() / LOCK).read_text("utf-8"))
    assert lock["sets"][f"{name} {found.version}"] == found.digest


@pytest.mark.parametrize("name", SETS)
def test_hidden_characters_are_escaped_in_a_set(name: str) -> None:
    text = (judges_dir() / f"{name}.jsonl").read_text("utf-8")
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")}
    assert hidden == {"\n"}


def test_a_set_of_answers_is_not_a_judge() -> None:
    from refusalkit.judges.rubrics import shipped_judges

    assert not {"canaries", "probes", "answers.lock"} & set(shipped_judges())


def test_there_are_enough_of_every_label_and_form() -> None:
    labels = Counter(canary.label for canary in ALL)
    assert labels[Label.REFUSAL] == labels[Label.COMPLIANCE] >= 8
    assert labels[Label.DEFLECTION] >= 2
    assert labels[Label.PARTIAL] >= 2
    assert len({canary.id for canary in ALL}) == len(ALL) >= 16
    assert {canary.lang for canary in ALL} > {"en"}
    assert "fake verdict" in {canary.form for canary in ALL}


@pytest.mark.parametrize("graded", [True, False])
@pytest.mark.parametrize("n", range(1, 21))
def test_every_beginning_is_balanced_and_fit_for_the_judge(n: int, graded: bool) -> None:
    labels = Counter(canary.label for canary in choose_canaries(n, graded=graded))
    assert abs(labels[Label.REFUSAL] - labels[Label.COMPLIANCE]) <= 1
    if not graded:
        assert not {Label.DEFLECTION, Label.PARTIAL} & set(labels)
    assert choose_canaries(n, graded=graded) == choose_canaries(n + 1, graded=graded)[:n]


def test_the_lexical_judge_gets_all_of_them_right() -> None:
    run_judge = load_judge("lexical")

    async def said() -> dict[str, Label | None]:
        from refusalkit.runs.canaries import judge_canary

        return {canary.id: (await judge_canary(run_judge, canary)).label for canary in ALL}

    assert asyncio.run(said()) == {canary.id: canary.label for canary in ALL}


# In a run.


def test_canaries_are_judged_in_a_run_recorded_separately_and_not_scored(tmp_path: Path) -> None:
    with LoopbackServer(Script(refusal_rate=1.0)) as server:
        with_them = bench(server, tmp_path / "with")
        assert server.requests == {"target": 6, "judge": 6 + 8}
        server.reset()
        without = bench(server, tmp_path / "without", canaries=0)
        assert server.requests == {"target": 6, "judge": 6}
    assert not without.canaries.exists()
    first, second = rk.score(with_them), rk.score(without)
    assert first.canaries == CanaryCheck(asked=8, right=8)
    assert second.canaries == CanaryCheck()
    assert (first.willingness, first.n_units) == (second.willingness, second.n_units)
    assert with_them.manifest.config_digest == without.manifest.config_digest
    assert sorted(record["canary"] for record in recorded(with_them)) == EIGHT
    assert with_them.canaries.stat().st_mode & 0o777 == 0o600
    for record in recorded(with_them):
        assert record["label"] == record["expected"]
        assert record["judge"] == "graded:openai/judge-x"
        assert record["usage"]["input_tokens"] > 0
    units = {record["unit"] for _, record in read_records(with_them.verdicts)}
    assert not {unit for unit in units if unit.startswith("canary")}


def test_a_binary_judge_is_asked_refusals_and_compliances_only(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        run = bench(server, tmp_path / "run", judge="refusalbench", canaries=20)
    assert rk.score(run).canaries == CanaryCheck(asked=16, right=16)
    assert {record["expected"] for record in recorded(run)} == {"refusal", "compliance"}


def test_they_are_asked_at_the_start_and_take_their_turn(tmp_path: Path) -> None:
    with LoopbackServer(latency_s=0.005) as server:
        bench(server, tmp_path / "run", limit=30, concurrency=2)
        assert server.max_in_flight <= 2
        asked = [exchange for exchange in server.log if exchange.role == "judge"]
        answers = {canary.answer for canary in ALL}
        places = [i for i, e in enumerate(asked) if any(a in e.text for a in answers)]
    # Among the first units, neither all before them nor after them.
    assert len(places) == 8
    assert places[-1] < 20


def test_an_interrupted_run_asks_only_the_ones_that_are_missing(tmp_path: Path) -> None:
    with LoopbackServer(latency_s=0.005) as server:

        async def part() -> rk.Run:
            stop = asyncio.Event()

            def after_three(progress: rk.Progress) -> None:
                if progress.verdicts >= 3:
                    stop.set()

            return await rk.benchmark_async(
                "openai/target",
                out=tmp_path / "run",
                stop=stop,
                on_progress=after_three,
                **options(server, limit=30, concurrency=1),
            )

        run = asyncio.run(part())
        asked = {record["canary"] for record in recorded(run)}
        assert 0 < len(asked) < 8
        # A line torn by a kill is owed again.
        with run.canaries.open("a", encoding="utf-8") as file:
            file.write('{"schema": 1, "canary": "canary-99", "judge": ')
        run = rk.resume(run, concurrency=8)
        assert sorted(record["canary"] for record in recorded(run)) == EIGHT
        server.reset()
        rk.resume(run)
        assert not server.requests
        rk.resume(run, canaries=10)
        assert server.requests == {"judge": 2}


def test_a_judge_that_fails_on_them_is_shown_and_stops_nothing(tmp_path: Path) -> None:
    spanish = next(canary for canary in ALL if canary.lang == "es")
    first = Fault("server_error", where="judge", match=ALL[0].answer)
    garbage = Fault("judge_garbage", where="judge", match=spanish.answer)
    with LoopbackServer(Script(answer="[demo]", refusal="[no]", faults=(first, garbage))) as server:
        run = bench(server, tmp_path / "run", max_retries=0)
        assert run.manifest.sessions[-1].ended_because == "done"
        check = rk.score(run).canaries
        assert check == CanaryCheck(8, 6, (), (ALL[0].id, spanish.id))
        # What could not be reached is asked again; what was said is kept.
        server.script = Script()
        server.reset()
        run = rk.resume(run, max_retries=5)
        assert server.requests == {"judge": 1}
    assert rk.score(run).canaries == CanaryCheck(8, 7, (), (spanish.id,))


class Priced:
    """A judge of one's own: half a dollar a verdict, everything a refusal; canaries break it."""

    id = "mine"

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.calls: list[str] = []

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        self.calls.append(prompt.id)
        await asyncio.sleep(0)
        if self.breaks and prompt.category == "canary":
            raise KeyError(prompt.id)
        return Verdict(prompt.id, prompt.category, 1, self.id, Label.REFUSAL, cost_usd=0.5)

    async def aclose(self) -> None: ...


def test_a_judge_of_ones_own_that_breaks_on_them_stops_nothing(tmp_path: Path) -> None:
    run = rk.benchmark(
        "demo/open", "starter", judge=Priced(breaks=True), limit=3, trials=1, out=tmp_path / "run"
    )
    assert run.manifest.sessions[-1].ended_because == "done"
    assert len(rk.score(run).canaries.unscored) == 8
    reasons = {record["reason"] for record in recorded(run)}
    assert f"KeyError: '{ALL[0].id}'" in reasons


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_they_cost_counts_and_no_budget_is_passed(tmp_path: Path, concurrency: int) -> None:
    judge = Priced()
    given = {"limit": 20, "trials": 1, "concurrency": concurrency}
    seen: list[rk.Progress] = []
    run = rk.benchmark(
        "demo/open",
        "starter",
        judge=judge,
        max_cost=5.0,
        on_progress=seen.append,
        out=tmp_path / "run",
        **given,
    )
    assert run.manifest.sessions[-1].ended_because == "max_cost"
    spent = 0.5 * len(judge.calls)
    assert 4.0 <= spent <= 5.0
    assert seen[-1].cost_usd == spent_usd(run) == spent
    run = rk.resume(run, judge=judge, max_cost=100.0)
    assert run.manifest.sessions[-1].ended_because == "done"
    assert len(judge.calls) == 20 + 8
    assert spent_usd(run) == 14.0


def test_a_grade_with_an_llm_judge_has_them_and_one_of_a_log_has_none(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"id": "a", "prompt": "[request]", "response": "[demo answer]", "verdict": "refusal"}]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with LoopbackServer() as server:
        base = server.openai_base
        grades = rk.grade(
            answers,
            "graded",
            judge_model="openai/judge-x",
            judge_api_base=base,
            out=tmp_path / "grades",
        )
        assert server.requests == {"judge": 9}
    assert grades.canaries == CanaryCheck(asked=8, right=8)
    assert rk.grade(answers, "lexical").canaries == CanaryCheck(asked=8, right=8)


# What a reader is told.


def contrary(body: Mapping[str, Any]) -> str:
    """A judge that says the opposite of what it should of two canaries."""
    text = body["messages"][-1]["content"]
    label = next((c.label.value for c in ALL if f"\n{c.answer}\n" in text), "refusal")
    if ALL[0].answer in text or ALL[1].answer in text:
        label = "compliance" if label == "refusal" else "refusal"
    return json.dumps({"reason": "scripted", "verdict": label})


def test_a_run_whose_canaries_fail_says_so_at_the_top(refusalkit: Call, tmp_path: Path) -> None:
    with LoopbackServer(Script(judge_reply=contrary)) as server:
        bench(server, tmp_path / "run", limit=20)
        given = options(server, out="again", limit=4)
        flags = [w for n, v in given.items() for w in (f"--{n.replace('_', '-')}", v)]
        called = refusalkit("run", "openai/target", *flags)
    warning = "judged 2 of 8 wrongly (canary-01, canary-02)"
    told = " ".join(called.out.split())
    assert told.startswith("WARNING: the canaries failed: the judge " + warning)
    assert f"refusalkit: the canaries failed: the judge {warning}" in called.err

    for command in (("score",), ("score", "--by", "category"), ("audit",)):
        out = refusalkit(*command, "run").out
        assert " ".join(out.split()).startswith("WARNING: the canaries failed")
    expected = {"asked": 8, "right": 6, "wrong": ["canary-01", "canary-02"], "unscored": []}
    for command in ("score", "audit"):
        assert json.loads(refusalkit(command, "run", "--json").out)["canaries"] == expected
    csv = refusalkit("score", "run", "--format", "csv")
    assert "canaries failed" in csv.err
    assert "canaries" not in csv.out
    for suffix in ("md", "html"):
        rk.report(tmp_path / "run", tmp_path / f"report.{suffix}")
        assert warning in (tmp_path / f"report.{suffix}").read_text("utf-8")


def test_a_run_whose_canaries_are_right_has_no_warning(refusalkit: Call) -> None:
    called = refusalkit("run", "demo/open", "--prompts", "starter", "--limit", 3, "--out", "run")
    assert "canar" not in called.out + called.err
    as_json = json.loads(refusalkit("score", "run", "--json").out)
    assert as_json["canaries"] == {"asked": 8, "right": 8, "wrong": [], "unscored": []}


def test_a_run_from_before_there_were_any_is_read_as_ever(refusalkit: Call, tmp_path: Path) -> None:
    run = rk.benchmark("demo/open", "starter", limit=3, out=tmp_path / "run", canaries=0)
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    del manifest["config"]["canaries"]
    (run.path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    assert rk.score(run).canaries == CanaryCheck()
    assert RunConfig.model_validate(manifest["config"]).digest == run.manifest.config_digest


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    run = rk.benchmark("demo/open", "starter", limit=3, out=tmp_path / "run")
    with run.canaries.open("a", encoding="utf-8") as file:
        file.write('{"schema": 1, "judge": "lexical"}\n')
    with pytest.raises(RecordError, match=r"canaries\.jsonl:9: canary or judge is missing"):
        rk.score(run)


def test_a_second_judge_has_its_own(tmp_path: Path) -> None:
    """What a later judge of a run owes is what that judge was not asked."""
    run = rk.benchmark("demo/open", "starter", limit=3, out=tmp_path / "run")
    other = Priced()
    assert [c.id for c in owed_canaries(open_run(run.path), other, 2)] == EIGHT[:2]
    assert owed_canaries(run, load_judge("lexical"), 8) == ()
    failed = recorded(run)[0] | {"label": None, "unscored": Unscored.JUDGE_ERROR.value}
    with run.canaries.open("a", encoding="utf-8") as file:
        file.write(json.dumps(failed) + "\n")
    assert [c.id for c in owed_canaries(run, load_judge("lexical"), 8)] == [failed["canary"]]
