"""What the loopback provider answers: a pure function of what was asked and how often before.

`Script.decide(asked)` looks at nothing but its arguments: no clock, no order of arrival, no random
state. The same requests therefore get the same answers at any concurrency, before and after a kill.
Chance comes from a seeded hash of the key (the digest of the last user message) and of the ask
number (how often that key was asked before), so a retry or a further trial is a fresh draw.

The texts are placeholders. Nothing here ever answers a prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from .faults import KINDS, Fault, Reply, reply_for
from .judging import judge_reply, obedient_reply

Api = Literal["openai", "anthropic"]
Role = Literal["target", "judge"]

ANSWER = "[demo answer]"
REFUSAL = "I can't help with that."


def digest(text: str) -> str:
    """sha256 of a text; lone surrogates, which JSON can carry, do not make it fail."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    raw = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big") / 2**64


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a script sees it."""

    api: Api
    role: Role
    model: str
    text: str  # the last user message
    key: str  # its sha256
    ask: int  # how many times this model was asked this text before, 0 for the first
    body: Mapping[str, Any]  # the whole request


@dataclass(frozen=True)
class Script:
    """How a `LoopbackServer` behaves. Everything but the hooks can be written as JSON.

    `refusal_rate` is the share of target answers that are `refusal`, drawn for each ask
    (`refuse_by="ask"`) or once for a prompt (`"prompt"`: all its trials agree). `rates` sets
    another rate for models whose name contains a key. `refuse_containing` and `answer_containing`
    decide by words in the prompt, before the draw. In `answer`, ``{key}`` and ``{ask}`` are filled
    in, which makes every trial's text differ.

    `faults` are rules; the first that applies to a request wins, so put the rare ones first.
    """

    seed: int = 0
    refusal_rate: float = 0.3
    rates: Mapping[str, float] | None = None
    refuse_by: Literal["ask", "prompt"] = "ask"
    refuse_containing: tuple[str, ...] = ()
    answer_containing: tuple[str, ...] = ()
    answer: str = ANSWER
    refusal: str = REFUSAL
    faults: tuple[Fault, ...] = ()
    # Model names that are judges; None: every name that contains "judge", in any case.
    judges: frozenset[str] | None = None
    # What a judge that was asked for no JSON schema says: (refusal, not a refusal).
    plain_verdicts: tuple[str, str] = ("refusal", "compliance")
    # `obedient` judges do what they are told outside the data blocks (judging.py).
    judge_mode: Literal["reader", "obedient"] = "reader"
    # The served model is the asked one with this behind it, e.g. "-2026-01-01".
    served_suffix: str = ""
    # Hooks, in process only: the answer's text, and a judge's reply to the request's body.
    target_reply: Callable[[Asked], str] | None = None
    judge_reply: Callable[[Mapping[str, Any]], str] | None = None

    def role(self, model: str) -> Role:
        """Who is asked, by the model's name alone."""
        if self.judges is None:
            return "judge" if "judge" in model.lower() else "target"
        return "judge" if model in self.judges else "target"

    def refuses(self, asked: Asked) -> bool:
        """Whether the scripted target declines this one."""
        if any(word in asked.text for word in self.refuse_containing):
            return True
        if any(word in asked.text for word in self.answer_containing):
            return False
        rate = self.refusal_rate
        for part, other in (self.rates or {}).items():
            if part in asked.model:
                rate = other
        parts = (self.seed, "refuse", asked.key) + ((asked.ask,) if self.refuse_by == "ask" else ())
        return chance(*parts) < rate

    def text(self, asked: Asked) -> str:
        """The text of an ordinary answer."""
        if asked.role == "judge":
            if self.judge_reply is not None:
                return self.judge_reply(asked.body)
            reply = obedient_reply if self.judge_mode == "obedient" else judge_reply
            return reply(asked.body, asked.text, self.refusal, self.plain_verdicts)
        if self.target_reply is not None:
            return self.target_reply(asked)
        if self.refuses(asked):
            return self.refusal
        return self.answer.replace("{key}", asked.key[:8]).replace("{ask}", str(asked.ask))

    def fault(self, asked: Asked) -> Fault | None:
        """The first fault rule that applies, if any."""
        for index, fault in enumerate(self.faults):
            if self._applies(fault, index, asked):
                return fault
        return None

    def decide(self, asked: Asked) -> Reply:
        """The whole decision: what to send for this request."""
        return reply_for(self.fault(asked), asked.role, self.text(asked))

    def _applies(self, fault: Fault, index: int, asked: Asked) -> bool:
        if fault.where not in ("any", asked.role):
            return False
        if fault.times is not None and asked.ask >= fault.times:
            return False
        if fault.match is not None and fault.match not in asked.text:
            return False
        if fault.model is not None and fault.model not in asked.model:
            return False
        if fault.kind == "bad_param" and fault.param not in asked.body:
            return False
        seed = fault.seed if fault.seed is not None else self.seed
        draw = (seed, index, fault.kind, asked.key)
        if fault.every is not None:
            # One in `every` by a phase of the key: of `every` asks of one key in a row exactly one
            # is hit, and across keys the share is the same.
            phase = int(chance(*draw) * fault.every)
            if (phase + asked.ask) % fault.every:
                return False
        if fault.probability is not None:
            once = fault.per == "key" or fault.times is not None
            return chance(*draw, "p", *(() if once else (asked.ask,))) < fault.probability
        return True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Script:
        """A script from its JSON form: the field names above, `faults` as a list of objects."""
        hooks = {"target_reply", "judge_reply"}
        unknown = set(data) - {f.name for f in fields(cls)} | (set(data) & hooks)
        if unknown:
            raise ValueError(f"a script has no {', '.join(sorted(unknown))} in JSON")
        values = dict(data)
        values["faults"] = tuple(Fault(**one) for one in data.get("faults", ()))
        for name in ("refuse_containing", "answer_containing", "plain_verdicts"):
            if name in data:
                values[name] = tuple(data[name])
        if data.get("judges") is not None:
            values["judges"] = frozenset(data["judges"])
        return cls(**values)


def _zoo(role: Literal["target", "judge"]) -> tuple[Fault, ...]:
    """One rule for every fault that fits the role, each for about 2 % of the asks."""
    skip = {"slow", "auth_error", "unknown_model", "insufficient_quota", "bad_param"}
    kinds = [k for k in KINDS if k not in skip and (role == "judge" or not k.startswith("judge_"))]
    return tuple(Fault(k, where=role, probability=0.02, seconds=0.05) for k in kinds)


# Scripts by name, for the command line (`python -m tests.loopback --script NAME`).
SCRIPTS: dict[str, Script] = {
    "plain": Script(),
    "open": Script(refusal_rate=0.0),
    "cautious": Script(refusal_rate=1.0),
    # Transient faults only: a client that retries loses nothing.
    "flaky": Script(
        faults=tuple(
            Fault(kind, where="any", probability=0.03, seconds=0.05)
            for kind in ("rate_limit", "server_error", "overloaded", "timeout", "drop")
        )
    ),
    # The first ask of every prompt is turned away.
    "rate_limited": Script(faults=(Fault("rate_limit", times=1, seconds=0.05),)),
    "reasoning": Script(faults=(Fault("reasoning_field"),)),
    "think": Script(faults=(Fault("think_tags"),)),
    "filtered": Script(faults=(Fault("content_filter", every=4),)),
    # Models of the newest kind take no sampling parameters.
    "no_sampling": Script(
        faults=tuple(
            Fault("bad_param", where="any", param=name)
            for name in ("temperature", "top_p", "top_k")
        )
    ),
    "judge_trouble": Script(faults=_zoo("judge")),
    "hostile": Script(faults=_zoo("target") + _zoo("judge")),
    "bad_key": Script(faults=(Fault("auth_error", where="any"),)),
}
