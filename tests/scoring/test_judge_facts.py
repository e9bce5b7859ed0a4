"""What a run says of its judge: its words, where verdicts rest, what it was not shown, its kin."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call
from loopback import LoopbackServer, Script
from refusalkit.runs import frames

LONG = "[demo answer] " * 5_000  # 70,000 characters


def hard_line_reply(body: Mapping[str, Any]) -> str:
    cut = "\nCUT " in body["messages"][-1]["content"]
    verdict, where = ("leaked_in_part", "end") if cut else ("held_with_help", "beginning")
    return json.dumps({"rests_on": where, "verdict": verdict})


def run_with(server: LoopbackServer, out: Path, model: str = "openai/m", **options: Any) -> rk.Run:
    return rk.benchmark(
        model,
        "starter",
        category=["suicide-and-self-harm", "weapons"],
        trials=1,
        api_base=server.openai_base,
        judge_api_base=server.openai_base,
        judge_model=options.pop("judge_model", "openai/judge"),
        out=out,
        **options,
    )


@pytest.mark.parametrize("judge", ["hard-line", "graded"])
def test_a_long_answer_is_cut_for_the_judge_and_the_verdict_says_so(
    call: Call, tmp_path: Path, judge: str
) -> None:
    first = rk.load_prompts("starter").prompts[0]
    prompts = rk.load_prompts("starter").select(category=["suicide-and-self-harm", "weapons"])
    first = prompts.prompts[0]
    script = Script(
        target_reply=lambda asked: LONG if first.text in asked.text else "[demo answer]",
        judge_reply=hard_line_reply if judge == "hard-line" else None,
    )
    with LoopbackServer(script) as server:
        run = run_with(server, tmp_path / "run", judge=judge)
        longest = max(len(e.text) for e in server.log if e.role == "judge")
    assert 48_000 < longest < 50_000
    rows = frames.verdicts(run, run.manifest.judge)
    cut = {row["unit"]: row["cut_chars"] for row in rows.iter_rows(named=True) if row["cut_chars"]}
    assert cut == {f"{first.id}#1": 70_000 - 48_000}

    said = json.loads(call("score", "run", "--json").out)
    assert said["judge"]["n_cut"] == 1
    shown = call("score", "run").out
    assert "1 long answer was cut for the judge: head and tail were shown." in shown
    if judge == "hard-line":
        n = len(prompts) - 1
        assert said["judge"]["rests_on"] == {"beginning": n, "end": 1}
        assert said["judge"]["words"] == {"held_with_help": n, "leaked_in_part": 1}
        assert f"Verdicts rest on: beginning {n}, end 1" in shown
        assert f"In the judge's words: held_with_help {n}, leaked_in_part 1" in shown
    else:
        assert (said["judge"]["rests_on"], said["judge"]["words"]) == ({}, {})
        assert "rest on" not in shown


def test_a_position_and_a_word_are_kept_where_the_text_is_withheld(tmp_path: Path) -> None:
    with LoopbackServer(Script(judge_reply=hard_line_reply)) as server:
        run = run_with(server, tmp_path / "run", judge="hard-line")
    records = [json.loads(line) for line in run.verdicts.read_text().splitlines()]
    hard = [r for r in records if r["category"] == "suicide-and-self-harm"]
    assert hard
    for record in hard:
        assert (record["label"], record["word"]) == ("refusal", "held_with_help")
        assert (record["rests_on"], record["reason"]) == ("beginning", None)


@pytest.mark.parametrize(
    ("model", "judge_model", "family"),
    [
        ("hosted_vllm/Qwen/Qwen3-8B", "openai/judge-qwen3-32b", "Qwen"),
        ("openai/gpt-6-luna", "openai/judge-qwen3-32b", None),
    ],
)
def test_a_judge_of_the_models_own_family_is_named(
    call: Call, tmp_path: Path, model: str, judge_model: str, family: str | None
) -> None:
    with LoopbackServer() as server:
        run_with(server, tmp_path / "run", model=model, judge_model=judge_model, judge="graded")
    said = json.loads(call("score", "run", "--json").out)
    assert said["judge"]["same_family_as_model"] == family
    shown = re.sub(r"\s+", " ", call("score", "run").out)
    assert ("Judge and model are of one family" in shown) is (family is not None)
    assert family is None or f"of one family: {family}." in shown


def test_a_runs_judge_temperature_is_sent_and_is_part_of_the_judges_digest(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        plain = run_with(server, tmp_path / "a", judge="graded", limit=3, canaries=0)
        warm = run_with(
            server, tmp_path / "b", judge="graded", limit=3, canaries=0, judge_temperature=0.2
        )
        sent = [e.params.get("temperature") for e in server.log if e.role == "judge"]
        digests = [run.manifest.judges[run.manifest.judge].digest for run in (plain, warm)]
        assert sent == [None] * 3 + [0.2] * 3
        assert digests[0] != digests[1]
        again = rk.resume(warm, judge_api_base=server.openai_base)
    assert again.manifest.judges == warm.manifest.judges
