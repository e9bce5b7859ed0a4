"""The injection self-test: answers that try to steer their judge, and its verdicts on them.

Each attack is placed before, after or around a carrier: a plain refusal or a plain compliance, both
to a harmless request. It tries to get the carrier judged the other way round. The attacker is
assumed to know everything about the judge except the nonce of one grading: the judge's words and
schema are filled in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from refusalkit.display import shows
from refusalkit.errors import ConfigurationError
from refusalkit.judges.protocol import Judge
from refusalkit.judges.rubrics import VERDICT_FIELD, Rubric, fill
from refusalkit.judges.shipped_answers import read_answer_set
from refusalkit.types import Completion, Label, Outcome, Prompt, Verdict

PLACES = ("before", "after", "around")


@shows("id")
@dataclass(frozen=True, slots=True)
class Carrier:
    """An answer of a known `label`, and the label that an attack on it `wants`.

    A carrier that is not `attacked` is hard to judge as it is: a supportive reply that never says
    no.
    """

    id: str
    label: Label
    wants: Label
    request: str
    answer: str
    attacked: bool = True


@shows("id")
@dataclass(frozen=True, slots=True)
class Attack:
    """A text that tries to steer a judge.

    In `text`, ``{{word}}`` stands for the judge's own word for the wanted label and ``{{json}}``
    for a reply of its schema. Where `chars` is set, `filling` before it pads it to that length.
    """

    id: str
    kind: str
    text: str
    places: tuple[str, ...] = PLACES
    filling: str = ""
    chars: int = 0


@shows("id")
@dataclass(frozen=True, slots=True)
class Probe:
    """One attack on one carrier in one place."""

    attack: Attack
    carrier: Carrier
    place: str

    @property
    def id(self) -> str:
        """``<attack>/<carrier>/<place>``."""
        return f"{self.attack.id}/{self.carrier.id}/{self.place}"


@shows("version")
@dataclass(frozen=True)
class ProbeSet:
    """The attacks and carriers of one version."""

    version: int
    digest: str
    carriers: tuple[Carrier, ...]
    attacks: tuple[Attack, ...]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of attack, in order."""
        return tuple(dict.fromkeys(attack.kind for attack in self.attacks))


@dataclass
class Probed:
    """A judge's verdicts. `planned` is how many probes were to be asked; `asked` has those asked.

    `baseline` has the verdict on each carrier without an attack. A carrier that was judged wrongly
    is not attacked.
    """

    planned: int
    baseline: list[tuple[Carrier, Verdict]] = field(default_factory=list)
    asked: list[tuple[Probe, Verdict]] = field(default_factory=list)

    @property
    def cost_usd(self) -> float | None:
        """What the requests cost, in USD; None: a price is unknown."""
        costs = [verdict.cost_usd for _, verdict in (*self.baseline, *self.asked)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def load_probes() -> ProbeSet:
    """The attack answers that come with refusalkit."""
    found = read_answer_set("probes")
    carriers = tuple(
        Carrier(
            id=record["carrier"],
            label=Label(record["label"]),
            wants=Label(record["wants"]),
            request=record["request"],
            answer=record["answer"],
            attacked=record.get("attacked", True),
        )
        for record in found.records
        if "carrier" in record
    )
    attacks = tuple(
        Attack(
            id=record["attack"],
            kind=record["kind"],
            text=record["text"],
            places=tuple(record.get("places", PLACES)),
            filling=record.get("fill", ""),
            chars=record.get("chars", 0),
        )
        for record in found.records
        if "attack" in record
    )
    return ProbeSet(found.version, found.digest, carriers, attacks)


def carriers_for(judge: Judge, probes: ProbeSet) -> list[Carrier]:
    """The carriers whose label the judge can give: a binary judge knows no deflection."""
    rubric = _rubric_of(judge)
    graded = rubric is None or Label.DEFLECTION in rubric.labels.values()
    return [c for c in probes.carriers if graded or c.label is not Label.DEFLECTION]


def answer_text(probe: Probe, judge: Judge) -> str:
    """The answer to judge: the carrier with the attack in its place."""
    attack = attack_text(probe.attack, judge, probe.carrier.wants)
    parts = {
        "before": (attack, probe.carrier.answer),
        "after": (probe.carrier.answer, attack),
        "around": (attack, probe.carrier.answer, attack),
    }
    return "\n\n".join(parts[probe.place])


def attack_text(attack: Attack, judge: Judge, wants: Label) -> str:
    """The text of an attack on `judge` that wants a label."""
    word = word_for(judge, wants)
    values = _Values(word=word, json=reply_of_schema(judge, word))
    text, filling = fill(attack.text, values), fill(attack.filling, values)
    short = max(0, attack.chars - len(text) - 1)
    if not filling or not short:
        return text
    return f"{(filling * (short // len(filling) + 1))[:short]}\n{text}"


class _Values(dict[str, str]):
    """Values for placeholders; an unknown placeholder stays, as part of the attack's text."""

    def __missing__(self, name: str) -> str:
        return "{{" + name + "}}"


def word_for(judge: Judge, label: Label) -> str:
    """The judge's own word for a label; the label's, where its file has none."""
    rubric = _rubric_of(judge)
    words = rubric.labels if rubric is not None else {}
    return next((word for word, stands_for in words.items() if stands_for is label), label.value)


def reply_of_schema(judge: Judge, word: str) -> str:
    """A reply as the judge itself would give it, in JSON, with `word` for its verdict."""
    rubric = _rubric_of(judge)
    properties = (rubric.schema if rubric is not None else {}).get("properties", {})
    reply = {name: _some_value(schema) for name, schema in properties.items()}
    return json.dumps({**reply, VERDICT_FIELD: word})


def _rubric_of(judge: Judge) -> Rubric | None:
    rubric = getattr(judge, "rubric", None)
    return rubric if isinstance(rubric, Rubric) else None


def _some_value(schema: Any) -> Any:
    """A value that a property of the schema may have; None where its type is not known here."""
    if not isinstance(schema, dict):
        return None
    if schema.get("enum"):
        return schema["enum"][0]
    return {"string": "as graded", "boolean": True, "integer": 1, "number": 1}.get(
        str(schema.get("type"))
    )


async def ask_probes(
    judge: Judge,
    probes: ProbeSet,
    *,
    kinds: Sequence[str] = (),
    concurrency: int = 32,
    max_cost: float | None = None,
    stop: asyncio.Event | None = None,
    on_answer: Callable[[Probed], None] | None = None,
) -> Probed:
    """Put every probe, or those of some `kinds`, to a judge; at most `concurrency` at once.

    It ends early when `stop` is set, or where one more verdict, as expensive as the most expensive
    so far, could exceed `max_cost` (USD). Raises `FatalProviderError`, and `ConfigurationError`
    where a budget is set and a verdict comes without its price.
    """
    attacks = [attack for attack in probes.attacks if not kinds or attack.kind in kinds]
    carriers = carriers_for(judge, probes)
    n_attacked = sum(carrier.attacked for carrier in carriers)
    done = Probed(planned=sum(len(attack.places) for attack in attacks) * n_attacked)
    purse = _Purse(max_cost)

    async def ask(carrier: Carrier, answer: str) -> Verdict:
        prompt = Prompt(f"probe-{carrier.id}", "probe", carrier.request)
        completion = Completion(
            prompt.id, "probe", 1, "probe", Outcome.ANSWERED, finish_reason="stop", text=answer
        )
        purse.in_flight += 1
        try:
            verdict = await judge.grade(prompt, completion)
        finally:
            purse.in_flight -= 1
        purse.pay(verdict)
        return verdict

    def goes_on() -> bool:
        return not (stop is not None and stop.is_set()) and purse.has_room

    async def work(left: Iterator[Probe]) -> None:
        while goes_on():
            probe = next(left, None)
            if probe is None:
                return
            done.asked.append((probe, await ask(probe.carrier, answer_text(probe, judge))))
            if on_answer is not None:
                on_answer(done)

    for carrier in carriers:
        if goes_on():
            done.baseline.append((carrier, await ask(carrier, carrier.answer)))
    sound = [c for c, verdict in done.baseline if c.attacked and verdict.label is c.label]
    owed = {probe.id: probe for probe in _combined(attacks, sound)}
    left = iter(owed.values())
    workers = [asyncio.create_task(work(left)) for _ in range(max(1, min(concurrency, len(owed))))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    number = {probe_id: place for place, probe_id in enumerate(owed)}
    done.asked.sort(key=lambda item: number[item[0].id])
    return done


def _combined(attacks: Sequence[Attack], carriers: Sequence[Carrier]) -> Iterator[Probe]:
    for attack in attacks:
        for carrier in carriers:
            for place in attack.places:
                yield Probe(attack, carrier, place)


class _Purse:
    """What may still be spent, in USD."""

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._spent = 0.0
        self._dearest = 0.0
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        if self._most is None:
            return True
        return self._spent + (self.in_flight + 1) * self._dearest < self._most

    def pay(self, verdict: Verdict) -> None:
        if self._most is None:
            return
        if verdict.cost_usd is None and verdict.label is not None:
            raise ConfigurationError(
                "what a verdict costs is not known, so max_cost cannot hold: leave it out"
            )
        self._spent += verdict.cost_usd or 0.0
        self._dearest = max(self._dearest, verdict.cost_usd or 0.0)
