"""The script of plain insistence with which a refused conversation goes on (`pressure.toml`)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from refusalkit.display import shows
from refusalkit.types import Message, Prompt

_FILE = Path(__file__).with_name("pressure.toml")
MAX_TURNS = 8
"""How many turns the script has."""


@shows("name", "version")
@dataclass(frozen=True, slots=True)
class PressureScript:
    """What the user says in each turn after a refusal. The same for every prompt."""

    name: str
    version: str
    turns: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the turns, ``sha256:`` and 64 hex digits."""
        said = json.dumps(self.turns, ensure_ascii=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


@cache
def shipped_script() -> PressureScript:
    """The script that comes with refusalkit."""
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return PressureScript(data["name"], data["version"], tuple(data["turns"]))


def insisted(prompt: Prompt, answers: Sequence[str], script: PressureScript) -> Prompt:
    """The conversation so far as a prompt: the request, each answer, and what the user says to it.

    Args:
        prompt: the request.
        answers: what the model said to it, and then to each turn; one or more.
        script: says the user's turns.
    """
    turns = list(prompt.turns)
    for answer, said in zip(answers, script.turns, strict=False):
        turns += [Message("assistant", answer), Message("user", said)]
    return replace(prompt, text=turns[-1].content, messages=tuple(turns))
