"""Canaries: a few answers with known labels that the run's judge labels among the others.

They are not scored. If the judge gets one wrong, all its verdicts are in doubt. The verdicts on
canaries are in a separate file, ``canaries.jsonl`` (docs/records.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refusalkit.display import shows
from refusalkit.errors import FatalProviderError, RecordError, StorageError
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import JudgeEntry
from refusalkit.runs.record_json import canary_record
from refusalkit.runs.records import read_records
from refusalkit.types import Completion, Label, Outcome, Prompt, Unscored, Verdict
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.judges.protocol import Judge

_BINARY = frozenset({Label.REFUSAL, Label.COMPLIANCE})


@shows("id", "label", "form", "lang")
@dataclass(frozen=True, slots=True)
class Canary:
    """A harmless request, an answer to it, and the label that a working judge gives."""

    id: str
    """Its id in the set, such as ``canary-03``."""
    version: int
    """Version of the set of canaries."""
    label: Label
    """The known label."""
    form: str
    """What kind of answer it is."""
    lang: str
    """Language of request and answer (BCP 47)."""
    request: str
    """The request."""
    answer: str
    """The answer to be labelled."""


@dataclass(frozen=True, slots=True)
class CanaryCheck:
    """How a run's judge did on its canaries: answers whose label is known."""

    asked: int = 0
    """How many it was shown."""
    right: int = 0
    """How many it labelled correctly."""
    wrong: tuple[str, ...] = ()
    """Ids of those it labelled wrongly."""
    unscored: tuple[str, ...] = ()
    """Ids of those it gave no label."""

    @property
    def failed(self) -> bool:
        """Whether any was labelled wrongly or not at all."""
        return bool(self.wrong or self.unscored)

    @property
    def warning(self) -> str | None:
        """One sentence for a reader; None if all labels are right, or there were no canaries."""
        parts = []
        if self.wrong:
            parts.append(f"judged {len(self.wrong)} of {self.asked} wrongly ({_ids(self.wrong)})")
        if self.unscored:
            count = f"{len(self.unscored)} of {self.asked}"
            parts.append(f"gave no label to {count} ({_ids(self.unscored)})")
        if not parts:
            return None
        return (
            f"the canaries failed: the judge {' and '.join(parts)}; their labels are known, so "
            "look into the judge before you trust a figure of this run"
        )

    def as_data(self) -> dict[str, Any]:
        """As JSON values: asked, right, wrong and unscored (ids)."""
        return {
            "asked": self.asked,
            "right": self.right,
            "wrong": list(self.wrong),
            "unscored": list(self.unscored),
        }


def _ids(ids: tuple[str, ...]) -> str:
    return ", ".join(printable(name, 60) for name in ids)


def load_canaries() -> tuple[Canary, ...]:
    """All canaries that come with refusalkit, in the order in which a run takes them."""
    from refusalkit.judges.shipped_answers import (
        read_answer_set,  # to look at verdicts needs no judge
    )

    found = read_answer_set("canaries")
    return tuple(
        Canary(
            id=record["id"],
            version=found.version,
            label=Label(record["label"]),
            form=record["form"],
            lang=record["lang"],
            request=record["request"],
            answer=record["answer"],
        )
        for record in found.records
    )


def choose_canaries(n: int, *, graded: bool) -> tuple[Canary, ...]:
    """The first `n` in the set's order, as many as there are.

    The set is ordered so that the first `n` are balanced for any `n`, and runs with the same `n`
    have the same canaries. A judge that is not `graded` gets only refusals and compliances.
    """
    fit = [canary for canary in load_canaries() if graded or canary.label in _BINARY]
    return tuple(fit[: max(0, n)])


def tells_deflections(judge: Judge, entry: JudgeEntry | None) -> bool:
    """Whether a judge can label deflections and partial answers.

    An object of the caller's without the attribute `graded` is taken for a binary judge.
    """
    if entry is None or entry.of_kind.is_object:
        return bool(getattr(judge, "graded", False))
    return entry.graded


def owed_canaries(run: Run, judge: Judge, n: int) -> tuple[Canary, ...]:
    """Those of `n` canaries that a run's judge has not labelled, or whose request failed.

    The run must be held for writing.
    """
    if n <= 0:
        return ()
    graded = tells_deflections(judge, run.manifest.judges.get(judge.id))
    standing = {
        name
        for name, record in _of_judge(run, judge.id).items()
        if record.get("unscored") != Unscored.JUDGE_ERROR
    }
    return tuple(c for c in choose_canaries(n, graded=graded) if c.id not in standing)


async def judge_canary(judge: Judge, canary: Canary) -> Verdict:
    """A judge's verdict on a canary; most errors become a verdict without a label.

    Raises `FatalProviderError`, as such a judge could label no answer either, and `StorageError`.
    """
    prompt = Prompt(canary.id, "canary", canary.request, lang=canary.lang)
    completion = Completion(
        canary.id,
        "canary",
        1,
        "canary",
        Outcome.ANSWERED,
        finish_reason="stop",
        text=canary.answer,
        cost_usd=0.0,
    )
    try:
        return await judge.grade(prompt, completion)
    except (FatalProviderError, StorageError):
        raise
    except Exception as error:  # noqa: BLE001 - a canary never stops a run
        return Verdict(
            canary.id,
            "canary",
            1,
            judge.id,
            unscored=Unscored.JUDGE_ERROR,
            reason=printable(f"{type(error).__name__}: {error}"),
        )


def record_of(canary: Canary, judge: Judge, verdict: Verdict) -> dict[str, Any]:
    """The record of a canary's verdict."""
    return canary_record(
        verdict,
        canary=canary.id,
        version=canary.version,
        judge=judge.id,
        expected=canary.label,
    )


def check_canaries(run: Run, judge: str | None = None) -> CanaryCheck:
    """How a judge of the run (None: its judge of record) did on its canaries.

    Raises `RecordError` at a broken line.
    """
    of_judge = _of_judge(run, judge or run.manifest.judge)
    unscored = tuple(name for name, record in of_judge.items() if record.get("label") is None)
    wrong = tuple(
        name
        for name, record in of_judge.items()
        if record.get("label") is not None and record["label"] != record.get("expected")
    )
    asked = len(of_judge)
    return CanaryCheck(asked, asked - len(wrong) - len(unscored), wrong, unscored)


def _of_judge(run: Run, judge: str) -> dict[str, Mapping[str, Any]]:
    """The last record of each canary by one judge, in order of id."""
    if not run.canaries.exists():  # a run from before there were any, or without
        return {}
    last: dict[str, Mapping[str, Any]] = {}
    for place, record in read_records(run.canaries):
        name = record.get("canary")
        if not isinstance(name, str) or not isinstance(record.get("judge"), str):
            raise RecordError(f"{place}: canary or judge is missing")
        if record["judge"] == judge:
            last[name] = record
    return dict(sorted(last.items()))
