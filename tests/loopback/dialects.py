"""The same answer in other dialects of the OpenAI protocol, and a filter's in many."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Choice = dict[str, Any]
CASES = Path(__file__).resolve().parents[1] / "samples" / "wire" / "cases.jsonl"
THOUGHT = "[demo reasoning] I'm sorry, but I can't help with that. Or can I?"


def _text(pattern: str) -> Callable[[Choice], None]:
    def dress(choice: Choice) -> None:
        message = choice["message"]
        said = message["content"] or ""
        message["content"] = pattern.replace("THOUGHT", THOUGHT).replace("ANSWER", said)

    return dress


def _finish(word: str | None) -> Callable[[Choice], None]:
    def dress(choice: Choice) -> None:
        choice["finish_reason"] = word

    return dress


def _message(**fields: Any) -> Callable[[Choice], None]:
    def dress(choice: Choice) -> None:
        choice["message"].update(fields)

    return dress


def _parts(choice: Choice) -> None:
    text = choice["message"]["content"] or ""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}
    choice["message"]["content"] = [thinking, {"type": "text", "text": text}]


# Each leaves the final text and the outcome as they are.
DRESSES: tuple[Callable[[Choice], None], ...] = (
    *map(_finish, ["eos", "STOP", "end_turn", "COMPLETE", "", None]),
    _text("<think>THOUGHT</think>\n\nANSWER"),
    _text("THOUGHT\n</think>\nANSWER"),
    _text("[THINK]THOUGHT[/THINK]ANSWER"),
    _text("<seed:think>THOUGHT</seed:think>ANSWER"),
    _text("<think>a <think>THOUGHT</think> b</think>ANSWER"),
    _text(
        "<|channel|>analysis<|message|>THOUGHT<|end|><|start|>assistant<|channel|>final<|message|>"
        "ANSWER<|return|>"
    ),
    _text("\ufeffANSWER<|im_end|>"),
    _message(reasoning_content=THOUGHT),
    _message(reasoning=THOUGHT, reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}]),
    _parts,
)


@cache
def blocked() -> tuple[tuple[int, bytes], ...]:
    """Status and body of every reply of the case file that is a filter's."""
    found = []
    for line in CASES.read_text("utf-8").splitlines():
        case = json.loads(line)
        if case["protocol"] == "openai" and case["expect"].get("outcome") == "blocked":
            reply = case["reply"]
            found.append((reply["status"], json.dumps(reply["json"]).encode()))
    return tuple(found)


def dress(answer: dict[str, Any], draw: float) -> None:
    """Put an answer into the dialect that a draw from [0, 1) says."""
    DRESSES[int(draw * len(DRESSES))](answer["choices"][0])
