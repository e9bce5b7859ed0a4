"""Scripted models that answer in process: no key, no network, placeholders only.

Answers differ between prompts and trials; the same call always gives the same answer. Now and then
they show what real models do: a provider's filter, an empty answer, one cut short, one that never
gets past its reasoning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from refusalkit.display import shows
from refusalkit.errors import ConfigurationError
from refusalkit.models.client import ParameterLog
from refusalkit.models.outcomes import Reply, read_reply
from refusalkit.types import Completion, GenerationConfig, Prompt, Usage
from refusalkit.untrusted import printable

_REFUSALS = (
    "I can't help with that.",
    "I'm sorry, but I can't assist with this request.",
    "I won't help with this. It could hurt somebody.",
)
_HELD = (
    "I can't help with that. If someone is at risk, please contact your local emergency services.",
    "I won't help with this. If you are struggling, a crisis line in your country can help.",
)
_DEFLECTION = "I can't help with that, but I can tell you about staying safe instead. [demo answer]"
_PARTIAL = "I shouldn't go into this, but here is a general outline: [demo answer]"
_COMPLIANCE = (
    "[demo answer]",
    "Sure. [demo answer]",
    "[demo answer] Please use this responsibly.",
)

HARD_LINES = frozenset(
    {"minor-specific-harm", "exploitation-and-trafficking", "suicide-and-self-harm"}
)


@dataclass(frozen=True, slots=True)
class _Script:
    """How often (0 to 1) a model answers ordinary prompts and `twins`, and `leaks` on a hard line.

    `framed` is how often it leaks on a framed hard-line request, `yields` how often it gives way to
    one turn of insistence (`run --pressure`).
    """

    answers: float
    leaks: float
    twins: float
    framed: float = 0.0
    yields: float = 0.0


SCRIPTS: Mapping[str, _Script] = {
    "cautious": _Script(answers=0.15, leaks=0.0, twins=0.75),
    "open": _Script(answers=0.92, leaks=0.0, twins=1.0, framed=0.3, yields=0.2),
    "mixed": _Script(answers=0.5, leaks=0.0, twins=0.9),
    "leaky": _Script(answers=0.6, leaks=0.25, twins=0.95, framed=0.4, yields=0.3),
}


@shows("id")
class DemoModel:
    """``demo/cautious``, ``demo/open``, ``demo/mixed`` or ``demo/leaky``."""

    def __init__(self, name: str, *, hard_lines: frozenset[str] = HARD_LINES) -> None:
        if name not in SCRIPTS:
            known = ", ".join(f"demo/{known}" for known in SCRIPTS)
            raise ConfigurationError(f"no demo model demo/{printable(name)}: choose one of {known}")
        self._name = name
        self._script = SCRIPTS[name]
        self._hard_lines = hard_lines
        self._parameters = ParameterLog()

    @property
    def id(self) -> str:
        """``demo/<name>``."""
        return f"demo/{self._name}"

    @property
    def parameters(self) -> ParameterLog:
        """Nothing is sent anywhere."""
        return self._parameters

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        """Answer from the script."""
        seed = config.seed or 0
        reply = self._reply(prompt, f"{self._name}|{seed}|{prompt.id}", trial)
        reading = read_reply(reply)
        return Completion(
            prompt_id=prompt.id,
            category=prompt.category,
            trial=trial,
            model=self.id,
            outcome=reading.outcome,
            finish_reason=reply.finish_reason,
            text=reading.text,
            reasoning=reading.reasoning,
            usage=reply.usage,
            cost_usd=0.0,
            latency_s=0.0,
            served_model=self.id,
            filter_category=reply.filter_category,
            error=reading.error,
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _reply(self, prompt: Prompt, key: str, trial: int) -> Reply:
        # Each prompt leans one way, so that trials of one prompt resemble each other.
        lean = _draw(key, "lean")
        chance = _draw(key, f"trial {trial}")
        oddity = _draw(key, f"oddity {trial}")
        # A safe twin is not a hard line, whatever its category.
        hard_line = prompt.twin is None and prompt.category in self._hard_lines
        usage = Usage(input_tokens=len(prompt.text) // 4 + 4, output_tokens=12, reasoning_tokens=0)
        # On hard lines the filter is the only oddity: the demo's audit should show what its model
        # does, not what its connection does.
        if oddity < 0.02:
            return Reply("", "content_filter", usage=usage, filter_category="demo")
        if oddity < 0.03 and not hard_line:
            return Reply("", "stop", usage=usage)
        if oddity < 0.04 and not hard_line:
            return Reply("<think>[demo reasoning that never ends]", "stop", usage=usage)
        finish = "length" if 0.04 <= oddity < 0.06 else "stop"
        answers = self._script.answers if prompt.twin is None else self._script.twins
        leaks = self._script.leaks if prompt.framing is None else self._script.framed
        willing = 0.7 * lean + 0.3 * chance < (leaks if hard_line else answers)
        if prompt.framing is None and prompt.turns[:-1] and prompt.turns[-2].role == "assistant":
            willing = _draw(key, f"turn {len(prompt.turns)} {trial}") < self._script.yields
        text = self._text(hard_line, willing, chance)
        if oddity > 0.85:
            text = f"<think>[demo reasoning]</think>{text}"
        return Reply(text, finish, usage=usage)

    def _text(self, hard_line: bool, willing: bool, chance: float) -> str:
        pick = int(chance * 1000)
        if not willing:
            refusals = _HELD if hard_line else _REFUSALS
            return _DEFLECTION if pick % 9 == 0 else refusals[pick % len(refusals)]
        return _PARTIAL if pick % 11 == 0 else _COMPLIANCE[pick % len(_COMPLIANCE)]


def _draw(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    digest = hashlib.sha256("|".join(parts).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64
