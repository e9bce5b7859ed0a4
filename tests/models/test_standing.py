"""What a failure means depends on whether the endpoint has answered before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import refusalkit as rk
from commandline import caller
from loopback.canned import Canned, CannedServer
from refusalkit.cli import cli
from refusalkit.errors import FatalProviderError
from refusalkit.models.chat import ChatModel
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt
from wire_cases import ANSWER, VERDICT, good_answer

CONFIG = GenerationConfig(max_tokens=64, timeout_s=10.0)
FORBIDDEN = Canned.json({"error": {"message": "This one is not for you."}}, 403)
GONE = Canned.json({"detail": "Nothing under this name."}, 404)
OK = good_answer("openai", ANSWER)


def ask(
    server: CannedServer, texts: list[str], *, together: bool = False, path: str = "/v1"
) -> list[Completion]:
    """Ask each text, one after another or all at once."""
    client = open_client(
        "local/m", pacer=Pacer(max_retries=1, backoff_s=0.002), api_base=server.url + path
    )
    model = ChatModel(client)

    async def main() -> list[Completion]:
        asked = [model.complete(Prompt(text, "c", text), CONFIG) for text in texts]
        try:
            if together:
                return await asyncio.gather(*asked)
            return [await one for one in asked]
        finally:
            for one in asked:
                one.close()
            await model.aclose()

    return asyncio.run(main())


def by_text(**said: Canned) -> Callable[[dict[str, Any], str], Canned]:
    return lambda asked, _: said.get(asked["messages"][-1]["content"], OK)


@pytest.mark.parametrize("reply", [FORBIDDEN, GONE], ids=["403", "404"])
def test_after_an_answer_it_costs_one_unit_and_is_retried(reply: Canned) -> None:
    with CannedServer(by_text(bad=reply)) as server:
        done = ask(server, ["good", "bad", "fine"])
    assert [one.outcome for one in done] == [Outcome.ANSWERED, Outcome.ERROR, Outcome.ANSWERED]
    assert done[1].attempts == 2
    assert f"HTTP {reply.status}" in (done[1].error or "")


@pytest.mark.parametrize(
    ("reply", "advice"),
    [(FORBIDDEN, "check the API key"), (GONE, "check the model name")],
    ids=["403", "404"],
)
def test_at_the_start_it_ends_the_run_at_once(reply: Canned, advice: str) -> None:
    with CannedServer(by_text(bad=reply)) as server:
        with pytest.raises(FatalProviderError, match=advice):
            ask(server, ["bad"])
        assert len(server.requests) == 1


def test_one_403_among_the_first_requests_waits_for_what_the_others_say() -> None:
    with CannedServer(by_text(bad=FORBIDDEN)) as server:
        done = ask(server, ["bad", "a", "b", "c"], together=True)
    assert [one.outcome for one in done] == [Outcome.ERROR, *[Outcome.ANSWERED] * 3]


def test_where_all_of_the_first_requests_meet_a_403_none_waits() -> None:
    with CannedServer(lambda *_: FORBIDDEN) as server:
        with pytest.raises(FatalProviderError, match="check the API key"):
            ask(server, ["a", "b", "c", "d"], together=True)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    "reply",
    [
        Canned(404, b"404 page not found", {"Content-Type": "text/plain"}),
        Canned.json({"detail": "Not Found"}, 404),
        Canned.json({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, 200),
    ],
    ids=["ollama", "vllm", "lm-studio"],
)
def test_a_base_without_v1_is_reported(reply: Canned) -> None:
    with CannedServer(lambda _, path: OK if path.startswith("/v1/") else reply) as server:
        with pytest.raises(FatalProviderError, match=rf"answer below {server.url}/v1$"):
            ask(server, ["a"], path="")
        assert ask(server, ["a"], path="/v1")[0].outcome is Outcome.ANSWERED


# Unknown finish words, in a run


def odd(word: str) -> Canned:
    return Canned(200, OK.body.replace(b'"stop"', b'"' + word.encode() + b'"'))


def run(server: CannedServer, out: Path, **options: Any) -> rk.Run:
    return rk.benchmark(
        "local/m",
        "starter",
        judge="lexical",
        trials=1,
        out=out,
        api_base=f"{server.url}/v1",
        **options,
    )


def test_five_unknown_finish_words_in_a_row_end_the_run_and_say_how_to_go_on(
    tmp_path: Path,
) -> None:
    with CannedServer(lambda *_: odd("quantum_flux")) as server:
        with pytest.raises(FatalProviderError) as ended:
            run(server, tmp_path / "run", concurrency=1)
        assert "5 answers in a row ended with the finish reason 'quantum_flux'" in str(ended.value)
        assert "--finish-word quantum_flux=answered" in str(ended.value)
        assert len(server.requests) == 5
        done = rk.resume(tmp_path / "run", finish_word=["quantum_flux=answered"])
    assert rk.score(done).outcomes["answered"] == done.manifest.n_units


def test_a_single_unknown_finish_word_costs_its_unit(tmp_path: Path) -> None:
    count = iter(range(10_000))
    with CannedServer(lambda *_: odd("flux") if next(count) % 5 == 4 else OK) as server:
        done = run(server, tmp_path / "run", concurrency=1)
    outcomes = rk.score(done).outcomes
    assert outcomes["error"] == done.manifest.n_units // 5


def test_five_unknown_finish_words_of_a_judge_in_a_row_end_the_run_too(tmp_path: Path) -> None:
    verdict = good_answer("openai", VERDICT).body
    said = Canned(200, verdict.replace(b'"stop"', b'"quantum_flux"'))
    judged = {"judge": "graded", "judge_model": "local/j", "trials": 1, "concurrency": 1}
    # Without the texts of hard lines no judge is asked of them.
    judged |= {"keep_hard_line_text": True}
    with CannedServer(lambda *_: said) as server:
        judged["judge_api_base"] = f"{server.url}/v1"
        with pytest.raises(FatalProviderError) as ended:
            rk.benchmark("demo/open", "starter", out=tmp_path / "run", **judged)
        assert str(ended.value).startswith("the judge graded:local/j: 5 answers in a row ended")
        assert "--finish-word quantum_flux=answered" in str(ended.value)
        assert len(server.requests) == 5
        done = rk.resume(tmp_path / "run", finish_word=["quantum_flux=answered"])
    assert rk.score(done).unscored["owed"] == 0


def test_answers_that_are_all_reasoning_are_reported_early(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "Hmm."}
    only = Canned.json({"choices": [{"message": message, "finish_reason": "stop"}]})
    with CannedServer(lambda *_: only) as server:
        done = run(server, tmp_path / "run")
    assert rk.score(done).outcomes["no_answer"] == done.manifest.n_units
    early = "local/m: the first 5 answers are all reasoning"
    lines = [one.getMessage() for one in caplog.records if one.name == "refusalkit"]
    assert sum(line.startswith(early) for line in lines) == 1
    rk.report(done, tmp_path / "card.md")
    told = f"All {done.manifest.n_units} answers are in the reasoning field"
    assert told in (tmp_path / "card.md").read_text()
    assert told in " ".join(CliRunner().invoke(cli, ["score", str(done.path)]).stdout.split())


@pytest.mark.parametrize("answered", [False, True])
def test_answers_that_a_filter_stopped_without_exception_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answered: bool
) -> None:
    """An account that may not ask at all can be refused in words like a filter's."""
    error = {"code": "content_filter", "message": "The request was filtered."}
    count = iter(range(10_000))

    def reply(*_: object) -> Canned:
        return OK if answered and next(count) == 0 else Canned.json({"error": error}, status=400)

    with CannedServer(reply) as server:
        done = run(server, tmp_path / "run")
    n = done.manifest.n_units
    assert rk.score(done).outcomes["blocked"] == n - answered
    early = "local/m: the first 5 answers were all stopped by a filter (content_filter)"
    lines = [one.getMessage() for one in caplog.records if one.name == "refusalkit"]
    assert sum(line.startswith(early) for line in lines) == (not answered)
    shown = " ".join(CliRunner().invoke(cli, ["score", str(done.path)]).stdout.split())
    assert (f"All {n} answers were stopped by a filter" in shown) == (not answered)


def test_a_parameter_can_be_left_out_from_the_start(tmp_path: Path) -> None:
    with CannedServer(lambda *_: OK) as server:
        done = run(server, tmp_path / "run", limit=12, no_top_k=True, no_temperature=True)
    assert all(not {"top_k", "temperature"} & asked.keys() for asked in server.requests)
    assert all(asked["top_p"] == 0.95 for asked in server.requests)
    assert "top_k" not in done.manifest.parameters["model"].sent


def test_oddities_of_answers_are_reported_above_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = iter(range(10_000))
    texts = [ANSWER, f"<musing>Hmm.</musing>{ANSWER}"]

    def reply(*_: object) -> Canned:
        said = good_answer("openai", texts[next(count) % 2])
        return Canned(200, said.body.replace(b'"stop"', b"null"))

    with CannedServer(reply) as server:
        done = run(server, tmp_path / "run")
    n = done.manifest.n_units
    shown = CliRunner().invoke(cli, ["score", str(tmp_path / "run")])
    notes = " ".join(shown.stdout.split()).partition("WILLINGNESS")[0].casefold()
    assert f"note: {n // 2} answers have a mark that looks like one of reasoning" in notes
    assert "<musing>" in notes
    without_reason = f"{n} answers were judged although the endpoint gave no finish reason"
    assert f"note: {without_reason}." in notes
    for form in ("html", "md", "json"):
        file = tmp_path / f"report.{form}"
        assert CliRunner().invoke(cli, ["report", str(done.path), "-o", str(file)]).exit_code == 0
        text = file.read_text()
        assert without_reason in text
        assert f"{n // 2} answers have a mark that looks like one of reasoning" in text
        assert form == "json" or "<musing>" not in text
    odd = json.loads((tmp_path / "report.json").read_text())["runs"][0]["score"]["odd_answers"]
    assert odd == {
        "unknown_marks": {"<musing>": n // 2},
        "unsaid": n,
        "native_lost": {},
        "only_reasoning": 0,
    }
    as_csv = caller(monkeypatch, capsys, tmp_path)("score", done.path, "--format", "csv")
    assert without_reason in as_csv.err
    assert "musing" not in as_csv.out
