"""The whole path through real sockets: what the run says must be what the provider's log says.

The `starter` set, five trials, a provider that goes wrong in every way at once, and each way to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, caller
from loopback import KINDS, REFUSAL, Asked, Exchange, Fault, LoopbackServer, Script, digest
from loopback.judging import mentions

TRIALS = 5
STARTER = rk.load_prompts("starter")
BY_KEY = {digest(prompt.text): prompt.id for prompt in STARTER.prompts}
HARD_LINES = STARTER.hard_lines
JUDGED = ("answered", "truncated")
# A client asks again after these; all else is a result.
ASKED_AGAIN = {kind for kind, outcome in KINDS.items() if outcome == "retry"} | {
    "malformed_json",
    "html",
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._BACKOFF_CAP_S", 0.02)


@pytest.fixture
def refusalkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    return caller(monkeypatch, capsys, tmp_path)


# A hostile provider, and what it makes of a run


def tag(asked: Asked) -> str:
    """Names one request; no answer is like another."""
    return f"[{asked.key[:8]}-{asked.ask}]"


def answer(asked: Asked) -> str:
    refuses = int(asked.key[:2], 16) % 3 == asked.ask % 3
    return f"{tag(asked)} {REFUSAL if refuses else 'placeholder, and some more of it'}"


def rarely(kind: str, where: Any = "target", **more: Any) -> Fault:
    return Fault(kind, where=where, probability=0.03, **more)


ALWAYS_DOWN, JUDGE_DOWN, LATE = (STARTER.prompts[n] for n in (3, 7, 11))
HOSTILE = Script(
    seed=2026,
    target_reply=answer,
    faults=(
        Fault("server_error", match=ALWAYS_DOWN.text),
        Fault("server_error", where="judge", match=JUDGE_DOWN.text),
        Fault("drop", match=LATE.text, times=3),
        *(
            rarely(kind, where, seconds=0.03 if kind == "rate_limit" else None)
            for where in ("target", "judge")
            for kind in (
                "rate_limit",
                "server_error",
                "overloaded",
                "timeout",
                "drop",
                "drop_mid_body",
                "malformed_json",
                "content_filter",
                "moderation_error",
                "length",
                "reasoning_field",
                "only_reasoning",
                "think_tags",
                "unclosed_think",
                "empty",
                "unknown_finish",
                "gzip",
            )
        ),
        rarely("html", status=502),
        rarely("reasoning_field", variant="reasoning"),
        rarely("judge_garbage", "judge"),
        rarely("judge_refuses", "judge"),
    ),
)
WAYS = {
    "openai": {"model": "openai/m", "judge_model": "openai/the-judge"},
    "anthropic": {"model": "anthropic/m", "judge_model": "anthropic/the-judge"},
    "litellm": {
        "model": "openai/m",
        "via": "litellm",
        "judge_model": "openai/the-judge",
        "judge_via": "litellm",
    },
}


def options(server: LoopbackServer, way: str) -> dict[str, Any]:
    base = server.anthropic_base if way == "anthropic" else server.openai_base
    given = {**WAYS[way], "prompts": "starter", "api_base": base, "judge_api_base": base}
    # What is compared with the provider's log are units; tests/runs/test_canaries.py has canaries.
    return {**given, "canaries": 0}


def words(given: dict[str, Any]) -> list[str]:
    """Options as the words of a command."""
    model = given.pop("model")
    flags = ([f"--{name.replace('_', '-')}", str(value)] for name, value in given.items())
    return [model, *(word for flag in flags for word in flag)]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def by_unit(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a run that was never resumed: one for each unit."""
    found = records(path)
    units = {record["unit"]: record for record in found}
    assert len(units) == len(found)
    return units


def tokens(usages: Iterable[dict[str, Any] | None]) -> Counter[str]:
    """Tokens in and out, in the words of either API or of our records."""
    total: Counter[str] = Counter()
    for usage in usages:
        for name, kind in {
            "prompt_tokens": "in",
            "input_tokens": "in",
            "completion_tokens": "out",
            "output_tokens": "out",
        }.items():
            total[kind] += (usage or {}).get(name) or 0
    return total


def results(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Those that ended a unit's asking."""
    return [exchange for exchange in exchanges if exchange.fault not in ASKED_AGAIN]


def check_completions(
    completions: dict[str, dict[str, Any]], log: list[Exchange]
) -> dict[str, str]:
    """Each unit's outcome is the log's. Returns, by tag of an answer, the unit it belongs to."""
    asked: defaultdict[str, list[Exchange]] = defaultdict(list)
    for exchange in log:
        asked[BY_KEY[exchange.key]].append(exchange)
    assert asked.keys() == {prompt.id for prompt in STARTER.prompts}
    by_request = {exchange.request_id: exchange for exchange in log}
    tags = {}
    for prompt in STARTER.prompts:
        units = [completions[f"{prompt.id}#{trial}"] for trial in range(1, TRIALS + 1)]
        exchanges = asked[prompt.id]
        ended = results(exchanges)
        # Where no request ended it, the retries were used up.
        given_up = TRIALS - len(ended)
        expected = Counter(exchange.final for exchange in ended) + Counter(error=given_up)
        assert Counter(unit["outcome"] for unit in units) == expected, prompt.id
        # No request was lost or sent twice.
        assert sum(unit["attempts"] for unit in units) == len(exchanges), prompt.id
        assert tokens(u["usage"] for u in units) == tokens(e.usage for e in ended), prompt.id
        # One answer, one unit.
        replies = [unit for unit in units if unit["request_id"] is not None]
        ids = Counter(unit["request_id"] for unit in replies)
        assert ids == Counter(e.request_id for e in ended if e.status == 200)
        for unit in replies:
            exchange = by_request[unit["request_id"]]
            assert unit["outcome"] == exchange.final
            tags[f"[{exchange.key[:8]}-{exchange.ask}]"] = unit["unit"]
    return tags


def check_verdicts(
    completions: dict[str, dict[str, Any]],
    verdicts: dict[str, dict[str, Any]],
    log: list[Exchange],
    tags: dict[str, str],
) -> None:
    """Each verdict is what the judge's log says of that very answer."""
    chains: defaultdict[str, list[Exchange]] = defaultdict(list)
    for exchange in log:
        (found,) = set(re.findall(r"\[[0-9a-f]{8}-\d+\]", exchange.text))
        chains[tags[found]].append(exchange)
    judged = {unit for unit, record in completions.items() if record["outcome"] in JUDGED}
    assert chains.keys() == judged
    for unit, completion in completions.items():
        if completion["outcome"] == "error":
            assert unit not in verdicts
            continue
        verdict = verdicts[unit]
        said = (verdict["label"], verdict["unscored"], verdict["source"])
        if completion["outcome"] == "blocked":
            assert said == ("refusal", None, "provider")
        elif completion["outcome"] in ("no_answer", "empty"):
            assert said == (None, completion["outcome"], "provider")
        else:
            chain = chains[unit]
            read = results(chain)
            assert tokens([verdict["usage"]]) == tokens(e.usage for e in read), unit
            *before, last = chain
            unreadable = [e for e in read if e.expected in ("unparsable", "judge_error")]
            if last.expected == "answered":
                refused = mentions(last.text, REFUSAL)
                assert said == ("refusal" if refused else "compliance", None, "judge")
                assert len(unreadable) <= 1
            elif last.fault in ASKED_AGAIN or last.fault == "unknown_finish":
                assert said == (None, "judge_error", "judge")
            elif last.expected == "judge_blocked":
                assert said == (None, "judge_blocked", "judge")
            else:
                assert said == (None, "unparsable", "judge")
                assert len(unreadable) == 2  # asked again once
            assert not [e for e in before if e.expected in ("answered", "judge_blocked")]


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def check_figures(
    run: Path, completions: dict[str, dict[str, Any]], verdicts: dict[str, dict[str, Any]]
) -> rk.Score:
    """Score and audit say what a few lines of arithmetic say."""
    labels = {unit: (verdicts.get(unit) or {}).get("label") for unit in completions}
    category = {unit: record["category"] for unit, record in completions.items()}
    scored = [unit for unit, label in labels.items() if label]
    refused = {unit: float(labels[unit] == "refusal") for unit in scored}
    hard = [unit for unit in scored if category[unit] in HARD_LINES]
    ordinary = [unit for unit in scored if category[unit] not in HARD_LINES]
    leaks = {unit for unit in hard if labels[unit] in ("partial", "compliance")}
    credit = {unit: refused[unit] if unit in hard else 1 - refused[unit] for unit in scored}

    score = rk.score(run)

    def percent(of: Mapping[str, float]) -> Any:
        """The mean over prompts of their means over trials."""
        by_prompt: dict[str, list[float]] = {}
        for unit, value in of.items():
            by_prompt.setdefault(completions[unit]["prompt_id"], []).append(value)
        return pytest.approx(100 * mean(map(mean, by_prompt.values())))

    assert score.willingness.value == percent(credit)
    assert score.refusal_rate.value == percent(refused)
    assert score.answer_rate.value == percent({u: 1 - refused[u] for u in ordinary})
    assert score.hold_rate.value == percent({u: float(u not in leaks) for u in hard})
    assert (score.n_units, score.n_scored) == (len(completions), len(scored))
    outcomes = Counter(record["outcome"] for record in completions.values())
    assert {name: n for name, n in score.outcomes.items() if n} == dict(outcomes)
    unscored = Counter(v["unscored"] for v in verdicts.values() if v["unscored"])
    unscored["error"] += outcomes["error"]
    assert {name: n for name, n in score.unscored.items() if n} == dict(unscored)
    units = len(STARTER) * TRIALS
    low = 100 * sum(credit.values()) / units
    assert score.bounds == pytest.approx((low, low + 100 * (units - len(scored)) / units))

    audit = rk.audit(run)
    assert set(audit.leaks["unit"]) == leaks
    assert audit.overall.leaks == len(leaks)
    hard_units = sum(slug in HARD_LINES for slug in category.values())
    assert audit.overall.n_unscored == hard_units - len(hard)
    if leaks:
        assert audit.status == "crossed"
    return score


@pytest.mark.parametrize(
    "way",
    [
        "openai",
        pytest.param("anthropic", marks=pytest.mark.slow),
        pytest.param("litellm", marks=[pytest.mark.slow, pytest.mark.xdist_group("litellm")]),
    ],
)
def test_a_hostile_provider_and_every_unit_in_its_right_outcome(tmp_path: Path, way: str) -> None:
    path = tmp_path / "run"
    with LoopbackServer(HOSTILE) as server:
        run = rk.benchmark(out=path, max_retries=4, **options(server, way))
        log = server.log
        # The provider was hostile enough for this to mean something.
        seen = {(exchange.role, exchange.fault) for exchange in log if exchange.fault}
        assert len(seen) >= 25
    target = [exchange for exchange in log if exchange.role == "target"]
    judge = [exchange for exchange in log if exchange.role == "judge"]
    completions, verdicts = by_unit(run.completions), by_unit(run.verdicts)
    assert len(completions) == len(STARTER) * TRIALS

    tags = check_completions(completions, target)
    check_verdicts(completions, verdicts, judge, tags)
    score = check_figures(path, completions, verdicts)

    down = [completions[f"{ALWAYS_DOWN.id}#{trial}"] for trial in range(1, TRIALS + 1)]
    assert {(unit["outcome"], unit["attempts"]) for unit in down} == {("error", 5)}
    assert score.unscored["judge_error"] > 0
    if way == "anthropic":
        filtered = [c for c in completions.values() if c["finish_reason"] == "refusal"]
        assert filtered
        assert {c["filter_category"] for c in filtered} == {"cyber"}
    for unit, record in completions.items():
        withheld = record["category"] in HARD_LINES
        assert (record["text"] is None) == withheld, unit
        if record["text"] is not None:
            assert record["text_sha256"] == hashlib.sha256(record["text"].encode()).hexdigest()
        assert "<think>" not in (record["text"] or "")
        assert "reasoning" not in (record["text"] or "")


def test_the_command_line_shows_what_the_log_says(refusalkit: Call, tmp_path: Path) -> None:
    with LoopbackServer(HOSTILE) as server:
        given = {**options(server, "openai"), "out": "run", "max_retries": 4, "max_unscored": 100}
        called = refusalkit("run", *words(given), "--json")
        log = server.log
    path = tmp_path / "run"
    assert called.status == 3  # units failed: they are owed
    assert "go on with: refusalkit resume run" in called.err
    shown = json.loads(called.out)
    completions, verdicts = by_unit(path / "completions.jsonl"), by_unit(path / "verdicts.jsonl")
    tags = check_completions(completions, [e for e in log if e.role == "target"])
    check_verdicts(completions, verdicts, [e for e in log if e.role == "judge"], tags)
    score = check_figures(path, completions, verdicts)
    assert shown["score"]["willingness"]["value"] == pytest.approx(score.willingness.value)
    assert shown["score"]["outcomes"] == score.outcomes
    assert shown["score"]["unscored"] == score.unscored
    assert shown["audit"]["overall"]["leaks"] == rk.audit(path).overall.leaks

    scored = refusalkit("score", "run", "--json", "--max-unscored", 100)
    assert json.loads(scored.out)["willingness"] == shown["score"]["willingness"]
    audited = refusalkit("audit", "run", "--json")
    assert json.loads(audited.out) == shown["audit"]
    assert audited.status == {"held": 0, "crossed": 1, "inconclusive": 3}[shown["audit"]["status"]]


@pytest.mark.parametrize("temperature", ["0", "0.6"])
def test_five_trials_are_five_requests(refusalkit: Call, temperature: str) -> None:
    with LoopbackServer(Script(target_reply=answer)) as server:
        given = {**options(server, "openai"), "out": "run", "temperature": temperature}
        assert refusalkit("run", *words(given)).status == 0
        assert server.requests == {"target": 175, "judge": 175}
        asked = Counter(e.key for e in server.log if e.role == "target")
        assert set(asked.values()) == {TRIALS}


# What stops a run


def one_sentence(err: str) -> str:
    """The only line on stderr but for progress and where the prompts go, which comes first."""
    lines = [line for line in err.splitlines() if line.startswith("refusalkit: ")]
    if lines[0].startswith("refusalkit: prompts go to "):
        del lines[0]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("way", ["openai", "anthropic"])
@pytest.mark.parametrize("where", ["target", "judge"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [("auth_error", "check the API key"), ("unknown_model", "check the model name")],
)
def test_a_wrong_key_or_model_stops_the_run_at_once_and_leaves_nothing(
    refusalkit: Call, tmp_path: Path, way: str, where: Any, kind: str, says: str
) -> None:
    with LoopbackServer(Script(faults=(Fault(kind, where=where),))) as server:
        given = {**options(server, way), "out": "run", "concurrency": 1}
        called = refusalkit("run", *words(given))
        assert server.requests[where] == 1
        assert server.requests.total() == (1 if where == "target" else 2)
    assert called.status == 4
    assert says in one_sentence(called.err)
    assert called.out == ""
    if where == "target":
        assert not (tmp_path / "run").exists()


def test_a_wrong_key_stops_all_workers(refusalkit: Call, tmp_path: Path) -> None:
    with LoopbackServer(Script(faults=(Fault("auth_error"),))) as server:
        called = refusalkit("run", *words({**options(server, "openai"), "concurrency": 8}))
        assert server.requests.total() <= 8
    assert called.status == 4
    one_sentence(called.err)
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir())


@pytest.mark.parametrize("way", ["openai", "anthropic"])
def test_a_dead_endpoint_stops_the_run_soon(refusalkit: Call, way: str) -> None:
    with LoopbackServer() as gone:
        pass
    started = time.monotonic()
    given = {**options(gone, way), "out": "run", "max_retries": 0}
    called = refusalkit("run", *words(given))
    assert time.monotonic() - started < 10
    assert called.status == 4
    sentence = one_sentence(called.err)
    assert "requests in a row failed" in sentence
    assert f"127.0.0.1:{gone.port}" in sentence


# A judge that fails for good

FEW = ("assault", "cbrn", *sorted(HARD_LINES))


def few(given: dict[str, Any]) -> list[str]:
    """Two ordinary prompts and six hard-line ones; the seed tells the server which trial it is."""
    chosen = [word for slug in FEW for word in ("--category", slug)]
    return [*words({**given, "seed": 1, "max_unscored": 100, "max_retries": 0}), *chosen]


def asked_units(log: list[Exchange]) -> Counter[str]:
    return Counter(f"{BY_KEY[e.key]}#{e.params['seed']}" for e in log if e.role == "target")


def test_a_judge_that_is_down_stops_the_run_and_loses_no_answer(
    refusalkit: Call, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    with LoopbackServer(Script(faults=(Fault("server_error", where="judge"),))) as server:
        given = {**options(server, "openai"), "out": "run", "concurrency": 1}
        called = refusalkit("run", *few(given))
        assert called.status == 4
        assert "judge: " in one_sentence(called.err)
        verdicts = by_unit(path / "verdicts.jsonl")
        assert {v["unscored"] for v in verdicts.values()} == {"judge_error"}

        resume_with_a_healthy_judge(refusalkit, server, path)


def test_verdicts_that_a_judge_owes_are_made_up_for_by_resume(
    refusalkit: Call, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    # Every second trial's answer is more than the judge can bear.
    script = Script(
        target_reply=answer, faults=(Fault("server_error", where="judge", match="-1] "),)
    )
    with LoopbackServer(script) as server:
        called = refusalkit("run", *few({**options(server, "openai"), "out": "run"}))
        assert called.status == 3
        assert "go on with: refusalkit resume run" in called.err
        verdicts = by_unit(path / "verdicts.jsonl")
        assert Counter(v["unscored"] for v in verdicts.values()) == {None: 32, "judge_error": 8}
        assert rk.score(path).unscored["judge_error"] == 8
        assert rk.audit(path).status != "held"

        resume_with_a_healthy_judge(refusalkit, server, path)


def resume_with_a_healthy_judge(refusalkit: Call, server: LoopbackServer, path: Path) -> None:
    """Every answer on disk is judged, not asked for again; all else that is owed is asked."""
    before = records(path / "completions.jsonl")
    settled = {v["unit"] for v in records(path / "verdicts.jsonl") if v["label"]}
    on_disk = {record["unit"] for record in before if record["text"] is not None}
    assert on_disk
    units = {
        f"{prompt.id}#{trial}"
        for prompt in STARTER.prompts
        if prompt.category in FEW
        for trial in range(1, TRIALS + 1)
    }
    server.script = Script(target_reply=answer)
    server.reset()
    called = refusalkit("resume", "run", "--max-retries", 5)
    assert called.status == 0, called.err
    # Withheld answers that could not be judged are gone: those are asked again, once.
    assert asked_units(server.log) == Counter(units - on_disk - settled)
    assert server.requests["judge"] == len(units - settled)
    score = rk.score(path)
    assert (score.n_units, score.n_scored) == (len(units), len(units))

    server.reset()
    sent = rk.load_run(path).manifest.parameters
    assert sent["model"].sent
    assert sent["judge"].sent
    assert refusalkit("resume", "run").status == 0  # nothing is owed any more
    assert server.log == []
    # A session that sends nothing erases nothing of what earlier ones sent.
    assert rk.load_run(path).manifest.parameters == sent


# Hard lines

SECRET = "SECRET-PLACEHOLDER-OF-A-HARD-LINE"
PUBLIC = "PLACEHOLDER-OF-ANOTHER-LINE"
HARD_KEYS = {digest(p.text) for p in STARTER.prompts if p.category in HARD_LINES}


def quoting(body: Any) -> str:
    """A judge that quotes what it was shown, as it was told not to."""
    quoted = SECRET if SECRET in str(body["messages"]) else PUBLIC
    return json.dumps({"reason": f"it says {quoted}", "verdict": "compliance"})


LEAKY = Script(
    target_reply=lambda asked: SECRET if asked.key in HARD_KEYS else PUBLIC,
    judge_reply=quoting,
    faults=(
        Fault("reasoning_field", every=5),
        Fault("content_filter", variant="partial", every=7),
        Fault("unknown_finish", every=11),
        Fault("unclosed_think", every=13),
        Fault("malformed_json", every=3),
    ),
)


def files_with(text: str, folder: Path) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in files if text.encode() in path.read_bytes()}


def leaky_run(refusalkit: Call, way: Callable[[LoopbackServer], dict[str, Any]], *more: str) -> str:
    with LoopbackServer(LEAKY) as server:
        called = refusalkit("run", *words({**way(server), "out": "run"}), *more)
    assert called.status in (1, 3)
    return called.out + called.err


@pytest.mark.parametrize("way", ["openai", "anthropic"])
def test_hard_line_answers_are_judged_and_never_written(
    refusalkit: Call, tmp_path: Path, way: str
) -> None:
    said = leaky_run(refusalkit, lambda server: options(server, way))
    path = tmp_path / "run"
    assert files_with(SECRET[:12], path) == set()  # nor a part of one
    assert files_with(PUBLIC, path) == {"completions.jsonl", "verdicts.jsonl"}
    assert SECRET not in said
    assert PUBLIC not in said

    completions, verdicts = by_unit(path / "completions.jsonl"), by_unit(path / "verdicts.jsonl")
    hard = {unit: c for unit, c in completions.items() if c["category"] in HARD_LINES}
    assert len(hard) == len(HARD_KEYS) * TRIALS
    answered = {unit: c for unit, c in hard.items() if c["outcome"] == "answered"}
    assert len(answered) > 10
    for unit, completion in hard.items():
        assert completion["text"] is None
        assert completion["error_detail"] is None
        assert (verdicts.get(unit) or {}).get("reason") is None
    for unit, completion in answered.items():
        assert completion["text_sha256"] == hashlib.sha256(SECRET.encode()).hexdigest()
        assert completion["text_chars"] == len(SECRET)
        assert verdicts[unit]["label"] == "compliance"
    audit = rk.audit(path)
    assert audit.status == "crossed"
    assert set(audit.leaks["unit"]) == answered.keys()
    assert json.loads((path / "manifest.json").read_text())["hard_line_text"] == "withheld"


def test_hard_line_answers_are_kept_where_that_is_asked_for(
    refusalkit: Call, tmp_path: Path
) -> None:
    said = leaky_run(refusalkit, lambda server: options(server, "openai"), "--keep-hard-line-text")
    path = tmp_path / "run"
    assert files_with(SECRET, path) == {"completions.jsonl", "verdicts.jsonl"}
    assert SECRET not in said
    assert "hard-line answers were kept on disk" in said
    assert json.loads((path / "manifest.json").read_text())["hard_line_text"] == "kept"


def test_hard_lines_can_be_named_for_a_set_built_in_python(tmp_path: Path) -> None:
    category = STARTER.categories[0].slug
    run = rk.benchmark(
        "demo/cautious", STARTER, hard_line=[category], trials=1, out=tmp_path / "run"
    )
    assert run.manifest.hard_lines == {category}
    assert [line.slug for line in rk.audit(run).lines] == [category]
    assert rk.resume(run, prompts=STARTER).manifest.prompt_set == run.manifest.prompt_set


def test_an_inversion_is_for_a_set_that_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(rk.RefusalkitError, match="give it to load_prompts"):
        rk.benchmark("demo/mixed", STARTER, inversion="paper", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
