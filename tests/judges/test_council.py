"""Judges made of others: councils, a fallback for a blocked judge, another judge for hard lines.

The judges are asked over real sockets; the provider's log says who was asked what.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import Call
from loopback import Asked, Exchange, Fault, LoopbackServer, Script
from loopback.judging import requested_schema
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import ConfigurationChanged, UsageError
from refusalkit.judges.choice import NamedJudge, choose_judge, parse_judges
from refusalkit.judges.council import RULES, Council
from refusalkit.runs import frames
from refusalkit.runs.folder import Run
from refusalkit.runs.records import read_records
from refusalkit.shipped import judges_dir
from refusalkit.types import Label, Unscored, Verdict
from run_folders import spent_usd

A, B, C = "graded@openai/judge-a", "graded@openai/judge-b", "graded@openai/judge-c"
IDS = [f"graded:openai/judge-{letter}" for letter in "abc"]
LABELS = [label.value for label in Label]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._BACKOFF_CAP_S", 0.01)


class Named:
    """A judge that is its id and nothing else."""

    def __init__(self, name: str) -> None:
        self.id = name

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> Verdict:
        raise AssertionError("it is never asked")

    async def aclose(self) -> None:
        pass


def vote(word: str | None) -> Verdict:
    """A member's verdict; None: it failed."""
    if word is None:
        return Verdict("p", "c", 1, "m", unscored=Unscored.JUDGE_ERROR)
    return Verdict("p", "c", 1, "m", label=Label(word))


# How votes become a verdict


def outcome_of_all(rule: str, labels: Iterable[str]) -> str:
    """The rules as their definition reads, for votes that are all there."""
    counts = Counter(labels)
    if rule == "any":
        return max(counts, key=LABELS.index)
    needed = counts.total() if rule == "unanimous" else counts.total() / 2 + 0.25
    won = [label for label, count in counts.items() if count >= needed]
    return won[0] if won else "no_majority"


@given(st.sampled_from(RULES), st.lists(st.sampled_from([*LABELS, None]), min_size=2, max_size=5))
def test_a_council_decides_exactly_if_no_missing_vote_could_change_the_result(
    rule: Any, words: list[str | None]
) -> None:
    council = Council([Named(str(n)) for n in range(len(words))], rule=rule)
    cast = [word for word in words if word is not None]
    ways = itertools.product(LABELS, repeat=len(words) - len(cast))
    possible = {outcome_of_all(rule, [*cast, *way]) for way in ways}
    expected = possible.pop() if len(possible) == 1 else "missing_vote"
    assert council.decide([vote(word) for word in words]).value == expected


def test_what_a_withheld_text_leaves_open_is_withheld() -> None:
    withheld = Verdict("p", "c", 1, "m", unscored=Unscored.WITHHELD)
    council = Council([Named("a"), Named("b"), Named("c")])
    assert council.decide([vote("refusal"), withheld, withheld]) is Unscored.WITHHELD
    assert council.decide([vote("refusal"), vote("refusal"), withheld]) is Label.REFUSAL


# Who is named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("graded", [("graded", None)]),
        (A, [("graded", "openai/judge-a")]),
        ("graded, lexical", [("graded", None), ("lexical", None)]),
        # A model's id may hold an @ itself, and so may the path of a judge file.
        ("graded@vertex_ai/claude@20260101", [("graded", "vertex_ai/claude@20260101")]),
        ("me@home.toml", [("me@home.toml", None)]),
        ("me@home.toml@openai/m,graded", [("me@home.toml", "openai/m"), ("graded", None)]),
        ("a,b.toml", [("a,b.toml", None)]),
    ],
)
def test_judges_are_named_with_their_models(
    text: str,
    expected: list[tuple[str, str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me@home.toml", "a,b.toml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert parse_judges(text) == tuple(NamedJudge(*one) for one in expected)


def test_the_judge_model_is_that_of_every_member_without_its_own() -> None:
    chosen = choose_judge(
        RunConfig(
            model="openai/m",
            judge=f"refusalbench,{A},lexical",
            judge_model="openai/other",
            hard_line_judge="graded",
        )
    )
    assert [named.model for named in chosen.members] == ["openai/other", "openai/judge-a", None]
    assert chosen.rule == "majority"
    assert chosen.hard_line_judge == NamedJudge("graded", "openai/other")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"judge": "graded", "council": "any"}, "a council (any) needs several judges"),
        ({"judge": f"{A},{A}"}, "is in the council 2 times"),
        ({"judge": f"{A},"}, "has an empty name beside a comma"),
        ({"judge": "graded@"}, "write NAME@MODEL"),
        ({"judge": A, "judge_fallback": "lexical"}, "never a word list"),
        ({"judge": A, "judge_fallback": A}, "is the judge itself"),
        ({"judge": A, "judge_fallback": f"{B},{C}"}, "the fallback is one judge"),
        ({"judge": f"{A},{B}", "judge_fallback": C}, "a council takes no fallback"),
        ({"judge": A, "hard_line_judge": B, "category": ("weapons",)}, "have no hard line"),
        ({"judge": f"{A},nobody"}, "no judge nobody"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_asked(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with LoopbackServer() as server:
        base = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
        if "category" in options:
            rows = [{"id": "p", "category": "weapons", "text": "[request]"}]
            file = tmp_path / "plain.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            base["prompts"] = str(file)
            options = {k: v for k, v in options.items() if k != "category"}
        prompts = base.pop("prompts", "starter")
        with pytest.raises(UsageError, match=re.escape(said)):
            rk.benchmark(
                "openai/target", prompts, limit=3, trials=1, out=tmp_path / "run", **base, **options
            )
        assert server.ledger.n == 0
    assert not (tmp_path / "run").exists()


# A council at work

# What each judge model says of an answer that begins with one of these words.
OPINIONS: Mapping[str, Mapping[str, str]] = {
    "agreed": {"a": "refusal", "b": "refusal", "c": "refusal"},
    "split": {"a": "refusal", "b": "compliance", "c": "compliance"},
    "torn": {"a": "refusal", "b": "partial", "c": "compliance"},
}


def opinion(body: Mapping[str, Any]) -> str:
    answer = body["messages"][-1]["content"].split("BEGIN ANSWER", 1)[1]
    word = next(word for word in OPINIONS if f"[{word}]" in answer)
    verdict = OPINIONS[word][str(body["model"])[-1]]
    fields = (requested_schema(body) or {})["properties"]
    values = fields["verdict"]["enum"]
    if verdict not in values:  # a binary judge
        verdict = values[0] if verdict == "refusal" else values[-1]
    said = {"reason": "scripted", "verdict": verdict}
    return json.dumps({name: said[name] for name in fields})


def by_prompt(asked: Asked) -> str:
    return f"[{list(OPINIONS)[int(asked.key[:4], 16) % 3]}]"


SCRIPT = Script(
    target_reply=by_prompt, judge_reply=opinion, faults=(Fault("content_filter", every=9),)
)


def benchmark(server: LoopbackServer, out: Path, **options: Any) -> Run:
    given: dict[str, Any] = {
        "limit": 24,
        "trials": 1,
        "max_tokens": 64,
        "max_retries": 0,
        "canaries": 0,  # requests are counted
    }
    bases = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
    return rk.benchmark("openai/target", "starter", out=out, **bases, **{**given, **options})


def judges_asked(log: Iterable[Exchange]) -> Counter[str]:
    return Counter(exchange.model for exchange in log if exchange.role == "judge")


def records(run: Run) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The last verdict record of each unit and judge."""
    found = {}
    for _, record in read_records(run.verdicts):
        found[record["unit"], record["judge"]] = record
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_council_of_three_models_with_one_rubric(rule: str, tmp_path: Path) -> None:
    with LoopbackServer(SCRIPT) as server:
        options = {} if rule == "majority" else {"council": rule}
        run = benchmark(server, tmp_path / "run", judge=f"{A},{B},{C}", **options)
        asked = judges_asked(server.log)
    council = f"{rule}:{'+'.join(IDS)}"
    entry = run.manifest.judges[run.manifest.judge]
    assert (run.manifest.judge, entry.members, entry.rule) == (council, tuple(IDS), rule)
    assert [run.manifest.judges[one].model for one in IDS] == [f"openai/judge-{x}" for x in "abc"]

    said = records(run)
    units = {unit for unit, _ in said}
    read = {unit for unit in units if said[unit, IDS[0]]["source"] == "judge"}
    assert 0 < len(read) < len(units) == 24, "some answers were filtered"
    assert asked == {f"judge-{letter}": len(read) for letter in "abc"}
    for unit in units:
        votes = [said[unit, one]["label"] for one in IDS]
        record = said[unit, council]
        assert (record["label"] or record["unscored"]) == outcome_of_all(rule, votes)
        assert record["cost_usd"] == 0.0, "what the members cost is in their records"

    score = rk.score(run)
    assert score.council is not None
    torn = sum(len({said[unit, one]["label"] for one in IDS}) > 1 for unit in read)
    assert score.council.n_answers == len(read)
    assert score.council.n_unanimous == len(read) - torn
    assert len(score.council.pairs) == 3
    assert rk.score(run, judge=IDS[1]).council is None
    assert rk.score(run, judge=IDS[1]).n_scored == 24


def test_a_members_failure_is_owed_again_and_no_other_verdict_is(tmp_path: Path) -> None:
    # Without its vote the agreed are decided and the split are not.
    down = tuple(
        Fault("server_error", where="judge", model="judge-c", match=word)
        for word in ("[agreed]", "[split]")
    )
    broken = Script(target_reply=by_prompt, judge_reply=opinion, faults=down)
    keep = {"keep_hard_line_text": True}
    with LoopbackServer(broken) as server:
        run = benchmark(server, tmp_path / "run", judge=f"{A},{B},{C}", **keep)
        said = records(run)
        failed = {unit for unit, judge in said if said[unit, judge]["unscored"] == "judge_error"}
        before = rk.score(run)
        assert before.council is not None
        undecided = before.unscored["missing_vote"]
        assert 0 < undecided == before.council.n_owed < len(failed)

        server.script = Script(judge_reply=opinion)
        server.reset()
        run = rk.resume(run, judge_api_base=server.openai_base)
        assert judges_asked(server.log) == {"judge-c": len(failed)}
        assert {exchange.role for exchange in server.log} == {"judge"}
        server.reset()
        rk.resume(run)
        assert server.ledger.n == 0, "nothing is owed any more"
    after = rk.score(run)
    assert after.council is not None
    assert (after.unscored["missing_vote"], after.council.n_owed) == (0, 0)
    assert frames.RunRecords(run).votes(IDS)["stands"].all()


def test_votes_that_were_cast_before_a_kill_are_not_paid_for_again(tmp_path: Path) -> None:
    with LoopbackServer(SCRIPT) as server:
        run = benchmark(server, tmp_path / "run", judge=f"{A},{B},{C}", keep_hard_line_text=True)
        before = records(run)
        # Killed after all votes and before the decisions, and one vote short of that.
        lines = run.verdicts.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["judge"] in IDS]
        last = next(line for line in reversed(kept) if json.loads(line)["source"] == "judge")
        kept.remove(last)
        run.verdicts.write_text("".join(kept), encoding="utf-8")
        server.reset()
        run = rk.resume(run)
        assert [exchange.role for exchange in server.log] == ["judge"]
    after = records(run)
    assert after.keys() == before.keys()
    assert {k: v["label"] for k, v in after.items()} == {k: v["label"] for k, v in before.items()}


def test_a_council_that_cannot_be_reached_stops_the_run(tmp_path: Path) -> None:
    with LoopbackServer(Script(faults=(Fault("server_error", where="judge"),))) as server:
        with pytest.raises(rk.RefusalkitError, match="requests in a row failed, the last with"):
            benchmark(server, tmp_path / "run", judge=f"{A},{B},{C}", concurrency=1)
        assert server.requests["target"] <= 6


def test_a_council_counts_its_costs_once(tmp_path: Path) -> None:
    class Priced(Named):
        async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> Verdict:
            return Verdict(
                prompt.id, prompt.category, 1, self.id, label=Label.REFUSAL, cost_usd=0.25
            )

    council = rk.Council([Priced("one"), Priced("two")], rule="unanimous")
    seen = []
    out = tmp_path / "run"
    options: dict[str, Any] = {
        "limit": 20,
        "trials": 1,
        "judge": council,
        "concurrency": 1,
        "canaries": 0,
    }
    run = rk.benchmark(
        "demo/open", "starter", out=out, max_cost=4.1, on_progress=seen.append, **options
    )
    assert run.manifest.sessions[-1].ended_because == "max_cost"
    judged = len(frames.verdicts(run, "one").filter(frames.pl.col("source") == "judge"))
    assert judged == 8
    assert spent_usd(run) == seen[-1].cost_usd == 0.5 * judged
    with pytest.raises(rk.RefusalkitError, match="an object of yours"):
        rk.resume(run)
    done = rk.resume(run, judge=council, max_cost=None)
    assert rk.score(done).n_scored == 20


# A fallback, and a judge for the hard lines


def test_the_fallback_answers_for_a_blocked_judge_and_the_verdict_says_so(
    tmp_path: Path, call: Call
) -> None:
    blocked = (
        # By what the answer says: a draw by the request would hang on its nonce.
        Fault("judge_refuses", model="judge-a", match="[split]"),
        Fault("judge_refuses", model="judge-a", match="[torn]"),
        Fault("moderation_error", where="judge", model="judge-b", match="[torn]"),
    )
    script = Script(target_reply=by_prompt, judge_reply=opinion, faults=blocked)
    with LoopbackServer(script) as server:
        run = benchmark(
            server,
            tmp_path / "run",
            judge="graded",
            judge_model="openai/judge-a",
            judge_fallback="refusalbench@openai/judge-b",
        )
        asked = judges_asked(server.log)
        refused = sum(e.fault == "judge_refuses" for e in server.log)
    fallback = "refusalbench:openai/judge-b"
    composed = f"graded:openai/judge-a+fallback={fallback}"
    assert run.manifest.judge == composed
    entry = run.manifest.judges[composed]
    assert entry.fallback is not None
    assert (entry.fallback.id, entry.fallback.model) == (fallback, "openai/judge-b")
    assert not entry.graded, "the fallback cannot tell a deflection from a leak"
    assert asked == {"judge-a": 24, "judge-b": refused}

    said = [record for _, record in read_records(run.verdicts)]
    assert {record["judge"] for record in said} == {composed}
    by = Counter(record["answered_by"] for record in said)
    assert by == {"graded:openai/judge-a": 24 - refused, fallback: refused}
    instead = [record for record in said if record["answered_by"] == fallback]
    answered = [record for record in instead if record["label"] is not None]
    assert 0 < len(answered) < len(instead), "the fallback can be blocked too"
    for record in instead:
        kept = record["reason"] is not None  # a hard line's reason is not written
        assert not kept or record["reason"].startswith("graded:openai/judge-a was blocked (")
    assert {r["unscored"] for r in instead if r["label"] is None} == {"judge_blocked"}
    # Both requests are paid for: their tokens are in the verdict.
    tokens = {r["answered_by"]: r["usage"]["input_tokens"] for r in said if r["label"]}
    assert tokens[fallback] > 0

    shown = call("score", tmp_path / "run", "--max-unscored", 100)
    assert f"blocked on {len(answered)} answers" in " ".join(shown.out.split())
    data = json.loads(call("score", tmp_path / "run", "--json").out)
    assert data["fallback_answers"] == len(answered)
    assert data["judge"]["fallback"]["id"] == fallback


def test_only_the_fallback_is_owed_where_it_failed(tmp_path: Path) -> None:
    faults = (
        Fault("judge_refuses", model="judge-a", every=3),
        Fault("server_error", where="judge", model="judge-b"),
    )
    script = Script(target_reply=by_prompt, judge_reply=opinion, faults=faults)
    with LoopbackServer(script) as server:
        run = benchmark(
            server, tmp_path / "run", judge=A, judge_fallback=B, keep_hard_line_text=True
        )
        owed = rk.score(run).unscored["judge_error"]
        assert owed == sum(e.fault == "judge_refuses" for e in server.log) > 0
        server.script = Script(judge_reply=opinion)
        server.reset()
        run = rk.resume(run)
        assert judges_asked(server.log) == {"judge-b": owed}
    assert rk.score(run).fallback_answers == owed


CONTRAST = "starter,contrast-146"


@pytest.mark.parametrize("council", [False, True])
def test_hard_lines_have_a_judge_of_their_own_and_their_twins_have_not(
    council: bool, tmp_path: Path
) -> None:
    script = Script(target_reply=by_prompt, judge_reply=opinion)
    with LoopbackServer(script) as server:
        run = rk.benchmark(
            "openai/target",
            CONTRAST,
            canaries=0,
            out=tmp_path / "run",
            trials=1,
            judge=f"{A},{B}" if council else A,
            hard_line_judge="refusalbench@openai/judge-c",
            api_base=server.openai_base,
            judge_api_base=server.openai_base,
        )
        asked = judges_asked(server.log)
    score = rk.score(run)
    manifest = run.manifest
    hard = {row[0] for row in score.responses.filter("hard_line").select("unit").iter_rows()}
    twins = score.contrast.filter(frames.pl.col("category").is_in(list(manifest.hard_lines)))
    assert len(hard) > 5
    assert len(twins) > 5, "there are twins of hard lines"
    rest = manifest.n_units - len(hard)
    expected = {"judge-a": rest, "judge-c": len(hard)}
    assert asked == ({**expected, "judge-b": rest} if council else expected)

    base = f"majority:{IDS[0]}+{IDS[1]}" if council else IDS[0]
    assert manifest.judge == f"{base}+hard-line=refusalbench:openai/judge-c"
    everything = frames.responses(run)
    by = dict(everything.select("unit", "answered_by").iter_rows())
    assert {unit for unit, who in by.items() if who == "refusalbench:openai/judge-c"} == hard
    assert {who for unit, who in by.items() if unit not in hard} == {base}
    notes = rk.audit(run).notes
    assert any("the judge is binary" in note for note in notes), "on the hard lines it is"
    if council:
        assert score.council is not None
        assert score.council.n_answers == rest
        alone = rk.score(run, judge=IDS[0])
        assert alone.unscored["owed"] == len(hard), "a member never read the hard lines"


def test_resume_names_the_judge_file_that_changed(tmp_path: Path) -> None:
    files = {}
    for name in ("first", "second", "third"):
        text = (judges_dir() / "graded.toml").read_text("utf-8")
        text = text.replace('name = "graded"', f'name = "{name}"')
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text(text, encoding="utf-8")
    down = Script(faults=(Fault("server_error", where="judge", every=4),))
    with LoopbackServer(down) as server:
        shapes: dict[str, dict[str, Any]] = {
            "second": {
                "judge": f"{files['first']}@openai/judge-a,{files['second']}@openai/judge-b"
            },
            "third": {
                "judge": str(files["first"]),
                "judge_model": "openai/judge-a",
                "judge_fallback": f"{files['third']}@openai/judge-b",
            },
            "first": {
                "judge": "graded@openai/judge-a",
                "hard_line_judge": f"{files['first']}@openai/judge-b",
            },
        }
        for changed, options in shapes.items():
            run = benchmark(server, tmp_path / changed, limit=8, **options)
            before = files[changed].read_text("utf-8")
            files[changed].write_text(before.replace("You grade", "You now grade"), "utf-8")
            asked = server.ledger.n
            with pytest.raises(ConfigurationChanged, match=rf"{changed}\.toml has changed since"):
                rk.resume(run)
            assert server.ledger.n == asked
            files[changed].write_text(before, "utf-8")
            rk.resume(run)


def test_a_council_is_shown_in_words(tmp_path: Path, call: Call) -> None:
    with LoopbackServer(SCRIPT) as server:
        bases = ["--api-base", server.openai_base, "--judge-api-base", server.openai_base]
        said = call(
            "run", "openai/target", "--prompts", "starter", "--limit", 24, "--trials", 1,
            "--judge", f"{A},{B},{C}", "--out", "run", "--canaries", 0, *bases,
        )  # fmt: skip
        assert said.status in (0, 1), said.err
    text = " ".join(said.out.split())
    assert "judged by majority of graded:openai/judge-a, graded:openai/judge-b," in text
    assert re.search(
        r"Council of 3, majority: all agree on \d+\.\d % of \d+ answers; pairwise", text
    )
    council = json.loads(call("score", "run", "--json").out)["council"]
    assert council["members"] == IDS
    agree = call("judges", "agree", "run").out
    assert all(one in " ".join(agree.split()) for one in IDS)
    by_rule = call("score", "run", "--judge", "majority")
    assert by_rule.out == call("score", "run").out, "a name that one judge has will do"
    ambiguous = call("score", "run", "--judge", "graded")
    assert ambiguous.status == 2
    assert "3 judges of this run are named graded" in ambiguous.err


def test_recorded_answers_are_graded_by_a_council_too(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": word, "prompt": f"[request {word}]", "response": f"[{word}]"})
        for word in OPINIONS
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with LoopbackServer(SCRIPT) as server:
        grades = rk.grade(
            tmp_path / "answers.jsonl",
            f"{A},{B},{C}",
            out=tmp_path / "graded",
            judge_api_base=server.openai_base,
            canaries=0,
        )
        assert judges_asked(server.log) == {"judge-a": 3, "judge-b": 3, "judge-c": 3}
    assert grades.labels == {"refusal": 1, "deflection": 0, "partial": 0, "compliance": 1}
    assert grades.unscored == {"no_majority": 1}
    judged = {"id": "a", "prompt": "[request]", "response": "[a]", "judges": {"log": "refusal"}}
    (tmp_path / "judged.jsonl").write_text(json.dumps(judged), encoding="utf-8")
    with pytest.raises(UsageError, match="stand alone"):
        rk.grade(tmp_path / "judged.jsonl", "imported:log", council="any")
