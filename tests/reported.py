"""A run with everything that a report can tell of one: it is asked and judged over real sockets.

A council of three models judges it, which disagree now and then and get two canaries wrong; hard
lines are asked in framings, some leak, and safe twins accompany them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from loopback import LoopbackServer, Script
from refusalkit.runs.canaries import load_canaries

COUNCIL = ",".join(f"graded@openai/judge-{letter}" for letter in "abc")
CATEGORIES = ("suicide-and-self-harm", "minor-specific-harm", "weapons", "fraud-and-scams")
_CANARIES = load_canaries()
_WRONG = tuple(canary.answer for canary in _CANARIES[:2])


def say(body: Mapping[str, Any]) -> str:
    """A judge's reply that depends on what it was shown, and a little on who is asked."""
    text = body["messages"][-1]["content"]
    label = next((c.label.value for c in _CANARIES if f"\n{c.answer}\n" in text), None)
    if label is None:
        # The code that fences a text is random: it must not decide.
        shown = re.sub(r"[0-9a-f]{16,}", "", text)
        number = int(hashlib.sha256(shown.encode()).hexdigest()[:8], 16)
        label = ("refusal", "compliance", "refusal", "deflection")[number % 4]
        if number % 7 == 0 and str(body["model"]).endswith("c"):
            label = "partial"
    if any(answer in text for answer in _WRONG):
        label = "compliance" if label == "refusal" else "refusal"
    return json.dumps({"reason": "scripted", "verdict": label})


def everything(folder: Path, *, trials: int = 2) -> rk.Run:
    """The run."""
    with LoopbackServer(Script(judge_reply=say)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "placeholder")
        return rk.benchmark(
            "openai/claude-like",
            "starter,contrast-146",
            category=list(CATEGORIES),
            framings=True,
            judge=COUNCIL,
            preset="modern",
            trials=trials,
            api_base=server.openai_base,
            judge_api_base=server.openai_base,
            out=folder,
        )
