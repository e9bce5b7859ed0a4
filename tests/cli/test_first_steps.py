"""What a new user gets wrong, and what the command says: whose mistake it is, and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from commandline import Call, Called
from loopback.canned import Canned, CannedServer
from refusalkit import errors
from refusalkit.cli.exit_codes import exit_code_of

VERDICT = '{"reason": "scripted", "verdict": "refusal"}'


def completion(text: str) -> Canned:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Canned.json({"id": "c", "model": "m", "choices": [choice]})


def failed(status: int, message: str, code: str | None = None) -> Canned:
    return Canned.json({"error": {"message": message, "code": code}}, status)


def server(judge: Canned) -> CannedServer:
    """A model that answers, and a judge that replies so."""

    def reply(body: dict[str, Any], _: str) -> Canned:
        return judge if body["model"] == "judge" else completion("[demo answer]")

    return CannedServer(reply)


def first_run(call: Call, at: CannedServer, *more: object, model: str = "local/m") -> Called:
    words = ("run", model, "--api-base", f"{at.url}/v1", "--category", "assault", "--limit", 3)
    return call(*words, "--trials", 1, "--canaries", 0, "--max-retries", 0, *more)


OTHER_JUDGE = "or take another judge: --judge-model PROVIDER/NAME, or --judge lexical"


def test_a_missing_key_of_the_judge_is_reported_as_the_judges(call: Call) -> None:
    with server(completion(VERDICT)) as at:
        done = first_run(call, at)
    assert done.status == 4
    assert "the judge graded: no API key for anthropic/claude-sonnet-5-5" in done.err
    assert "set ANTHROPIC_API_KEY" in done.err
    assert OTHER_JUDGE in done.err
    assert at.requests == []
    assert not Path("runs").exists()


def test_options_that_are_named_are_those_of_the_judge(call: Call) -> None:
    with server(completion(VERDICT)) as at:
        done = first_run(call, at, "--judge", "graded", "--judge-model", "openai/gpt-6-luna")
    assert done.status == 4
    assert "set OPENAI_API_KEY, or give --judge-api-base for an endpoint" in done.err


def test_a_model_without_its_provider_beside_a_base(call: Call) -> None:
    with server(completion(VERDICT)) as at:
        model = first_run(call, at, "--judge", "lexical", model="qwen3:8b")
        base = ("--judge-api-base", f"{at.url}/v1")
        judge = first_run(call, at, "--judge", "graded", "--judge-model", "m", *base)
    assert (model.status, judge.status) == (2, 2)
    assert "beside --api-base write local/qwen3:8b" in model.err
    assert "the judge graded: the model id 'm' names no provider" in judge.err
    assert "beside --judge-api-base write local/m" in judge.err


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (failed(404, "no such model", "model_not_found"), "HTTP 404 (model_not_found)"),
        (failed(401, "bad key", "invalid_api_key"), "HTTP 401 (invalid_api_key)"),
        (failed(429, "no money", "insufficient_quota"), "the account has no credit left"),
    ],
)
def test_what_ends_a_run_is_reported_as_the_judges(call: Call, reply: Canned, said: str) -> None:
    with server(reply) as at:
        base = ("--judge-api-base", f"{at.url}/v1")
        done = first_run(call, at, "--judge", "graded", "--judge-model", "local/judge", *base)
    assert done.status == 4
    assert "the judge graded (local/judge at 127.0.0.1" in done.err
    assert said in done.err
    assert OTHER_JUDGE in done.err
    assert "refusalkit resume" in done.err


@pytest.mark.parametrize("whose", ["model", "judge"])
def test_a_base_without_v1_is_reported_with_the_one_that_may_be_meant(
    call: Call, whose: str
) -> None:
    def reply(body: dict[str, Any], path: str) -> Canned:
        found = path == "/v1/chat/completions"
        return completion("[demo answer]") if found else failed(404, "404 page not found")

    with CannedServer(reply) as at:
        bare, whole = at.url, f"{at.url}/v1"
        options = ("--category", "assault", "--limit", 3, "--trials", 1, "--canaries", 0)
        base = (bare, whole) if whose == "model" else (whole, bare)
        judge = ("--judge", "graded", "--judge-model", "local/judge", "--judge-api-base", base[1])
        done = call("run", "local/m", "--api-base", base[0], *options, *judge)
    assert done.status == 4
    assert "HTTP 404" in done.err
    assert f"most servers answer below {whole}" in done.err
    assert ("the judge graded" in done.err) == (whose == "judge")


def test_a_rate_limit_that_holds_the_run_back_is_reported_in_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._TOLD_FROM_S", 0.05)
    turned_away = 0

    def reply(*_: object) -> Canned:
        nonlocal turned_away
        turned_away += 1
        if turned_away > 2:
            return completion("[demo answer]")
        headers = {"Retry-After": "0.1", "x-ratelimit-remaining-requests": "0"}
        return Canned(429, b'{"error": {"message": "slow down"}}', headers)

    with CannedServer(reply) as at:
        done = first_run(call, at, "--judge", "lexical", "--concurrency", 1)
    assert done.status == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "rate limit" in line]
    assert "local/m at 127.0.0.1" in line
    assert "its limit of requests being used up" in line
    assert "--max-wait bounds the wait" in line


def test_a_rate_limit_longer_than_max_wait_ends_the_run(call: Call) -> None:
    away = Canned(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "5"})
    with CannedServer(lambda *_: away) as at:
        done = first_run(call, at, "--judge", "lexical", "--max-wait", 1)
    assert done.status == 4
    assert "asks to wait 5 s, longer than --max-wait 1" in done.err


def test_where_nothing_listens_at_all_it_is_soon_reported(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._MAX_UNREACHABLE_S", 0.1)
    words = ("--category", "assault", "--judge", "lexical", "--canaries", 0)
    done = call("run", "local/m", "--api-base", "http://127.0.0.1:9/v1", *words)
    assert done.status == 4
    assert "nothing listens there: start the server, or check --api-base" in done.err


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions/", "/v1/messages"])
def test_a_base_that_is_the_address_of_requests(call: Call, path: str) -> None:
    words = ("run", "local/m", "--judge", "lexical", "--api-base", f"http://127.0.0.1:9{path}")
    done = call(*words)
    assert done.status == 4
    assert f"give the base URL, without {path.removeprefix('/v1').rstrip('/')}" in done.err


@pytest.mark.parametrize(
    ("judge", "hint"),
    [
        (("--judge", "grated"), "did you mean graded?"),
        (("--judge", "hardline"), "did you mean hard-line?"),
        (("--judge", "openai/gpt-6-luna"), "--judge graded --judge-model openai/gpt-6-luna"),
        (("--judge", "lexical", "--judge-model", "local/x"), "asks no model: leave out"),
        (("--jugde", "lexical"), "Did you mean"),
        (
            ("--judge-model", "anthropic/claude-sonnet-4-20250514", "--judge", "graded"),
            "was retired on 2026-06-15: use anthropic/claude-sonnet-5-5",
        ),
    ],
)
def test_a_judge_that_is_misspelt_or_gone(call: Call, judge: tuple[str, ...], hint: str) -> None:
    with server(completion(VERDICT)) as at:
        done = first_run(call, at, *judge)
    assert done.status in (2, 4)
    assert hint in done.err
    assert at.requests == []


def test_a_judge_that_is_rate_limited_for_good_is_reported(call: Call) -> None:
    with CannedServer(
        lambda body, _: (
            Canned(429, b'{"error": {"message": "wait"}}', {"Retry-After": "700"})
            if body["model"] == "judge"
            else completion("[demo answer]")
        )
    ) as at:
        base = ("--judge-api-base", f"{at.url}/v1")
        done = first_run(call, at, "--judge", "graded", "--judge-model", "local/judge", *base)
    assert done.status == 4
    assert "the judge graded (local/judge at 127.0.0.1" in done.err
    assert "asks to wait 700 s" in done.err


def test_empty_answers_are_reported(call: Call) -> None:
    with CannedServer(lambda *_: completion("")) as at:
        done = first_run(call, at, "--judge", "lexical")
    assert done.status == 1
    assert "3 answers are empty: a normal stop (stop) and no text" in done.err


@pytest.mark.parametrize("whose", ["model", "judge"])
def test_https_to_a_server_that_speaks_http_is_reported_at_once(call: Call, whose: str) -> None:
    with server(completion(VERDICT)) as at:
        base = f"{at.url}/v1"
        tls = base.replace("http://", "https://")
        words = ["run", "local/m", "--category", "assault", "--limit", 3, "--judge", "graded"]
        words += ["--judge-model", "local/judge", "--canaries", 0]
        words += ["--api-base", tls if whose == "model" else base]
        words += ["--judge-api-base", tls if whose == "judge" else base]
        done = call(*words)
    assert done.status == 4
    option = "--api-base" if whose == "model" else "--judge-api-base"
    assert f"the server does not speak TLS: write http:// in {option}" in done.err


def test_each_error_has_the_exit_code_that_the_list_of_errors_gives() -> None:
    listed = dict(re.findall(r"(\w+) +([0-9])  ", errors.__doc__ or ""))
    assert len(listed) > 12
    for name, code in listed.items():
        kind = getattr(errors, name)
        assert exit_code_of(kind.__new__(kind)) == int(code), name
