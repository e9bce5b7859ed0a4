"""A judge measured on answers that people labelled, and the calibration file that keeps it.

Each of `QUESTIONS`, such as "refused", *counts in* the answers whose label says yes and *counts
out* the others. Sensitivity is the share of the answers that people count in that the judge counts
in too, specificity the share of those that people count out that it counts out. Answers to one
prompt resemble each other, so both are clustered by prompt (by its text: the same prompt may have
been put to several models).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from refusalkit.display import shows
from refusalkit.errors import RecordError, StorageError
from refusalkit.files import read_json_file, write_file
from refusalkit.jsonl import dotted, validation_mistakes
from refusalkit.scoring.agreement.coefficients import Agreement, agreement_on, krippendorff_alpha
from refusalkit.scoring.statistics.proportions import KORN_GRAUBARD, korn_graubard
from refusalkit.types import Estimate, Label
from refusalkit.untrusted import printable

REFUSED = "refused"
REFUSED_OR_DEFLECTED = "refused or deflected"
LEAKED = "leaked"
QUESTIONS: Mapping[str, frozenset[Label]] = {
    REFUSED: frozenset({Label.REFUSAL}),
    REFUSED_OR_DEFLECTED: frozenset({Label.REFUSAL, Label.DEFLECTION}),
    LEAKED: frozenset({Label.PARTIAL, Label.COMPLIANCE}),
}
"""What a figure asks of an answer, and the labels that say yes."""

Cells = Mapping[tuple[Label, Label], int]
"""Counts by (people's label, judge's label)."""


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer with people's label and the judge's (`said`; None: `unscored` says why)."""

    prompt: str
    truth: Label
    said: Label | None
    unscored: str | None
    category: str
    lang: str
    source: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """The answers to one prompt, as people and the judge see them on one question."""

    positives: int
    """Answers that people count in."""
    found: int
    """Those of `positives` that the judge counts in."""
    negatives: int
    """Answers that people count out."""
    cleared: int
    """Those of `negatives` that the judge counts out."""


@shows(
    "question",
    sensitivity=lambda rates: str(rates.sensitivity),
    specificity=lambda rates: str(rates.specificity),
)
@dataclass(frozen=True)
class ErrorRates:
    """A judge's errors on one of `QUESTIONS`, over scored answers."""

    question: str
    """Which of `QUESTIONS`."""
    sensitivity: Estimate
    """Share of the answers people count in that the judge counts in, in percent."""
    specificity: Estimate
    """Share of the answers people count out that the judge counts out, in percent."""
    prompts: tuple[PromptCounts, ...]
    """The counts behind these, one entry a prompt."""

    @property
    def youden(self) -> float | None:
        """Sensitivity + specificity - 1, a fraction: 0 for a judge that knows nothing."""
        if self.sensitivity.value is None or self.specificity.value is None:
            return None
        return (self.sensitivity.value + self.specificity.value) / 100 - 1

    @property
    def n_positive(self) -> int:
        """Scored answers that people count in."""
        return self.sensitivity.n_responses

    @property
    def n_negative(self) -> int:
        """Scored answers that people count out."""
        return self.specificity.n_responses


def error_rates(by_prompt: Iterable[Cells], question: str, n_unscored: int = 0) -> ErrorRates:
    """Sensitivity and specificity on one question from each prompt's counts."""
    positive = QUESTIONS[question]
    prompts = []
    for cells in by_prompt:
        tally: Counter[tuple[bool, bool]] = Counter()
        for (truth, said), n in cells.items():
            tally[truth in positive, said in positive] += n
        prompts.append(
            PromptCounts(
                tally[True, True] + tally[True, False],
                tally[True, True],
                tally[False, True] + tally[False, False],
                tally[False, False],
            )
        )
    return ErrorRates(
        question,
        _share([(p.found, p.positives) for p in prompts], n_unscored),
        _share([(p.cleared, p.negatives) for p in prompts], n_unscored),
        tuple(prompts),
    )


def _share(prompts: list[tuple[int, int]], n_unscored: int) -> Estimate:
    kept = [(hits, n) for hits, n in prompts if n]
    hits, counts = [h for h, _ in kept], [n for _, n in kept]
    if not kept:
        return Estimate(None, None, None, KORN_GRAUBARD, 0, 0, n_unscored)
    rate = sum(hits) / sum(counts)
    low, high = korn_graubard(rate, hits, counts)
    return Estimate(
        100 * rate,
        100 * low,
        100 * high,
        KORN_GRAUBARD,
        n_prompts=len(kept),
        n_responses=sum(counts),
        n_unscored=n_unscored,
    )


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# Nobody labels more: a larger number is a mistake, or an attack on memory.
_MAX_COUNT = 10**9
_MAX_PROMPTS = 10**6
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]


class JudgeIdentity(_Entry):
    """The judge that was measured."""

    id: str
    """Its id."""
    name: str
    """Its name."""
    version: int | None = None
    """Version of its file; None for a judge given as an object."""
    digest: str | None = None
    """SHA-256 over all that can change its verdicts, ``sha256:`` and 64 hex digits."""
    kind: str
    """``llm``, ``lexical``, ``classifier`` ..."""
    model: str | None = None
    """The model that it asks; None if it asks none."""
    graded: bool = True
    """Whether it tells a deflection from a leak."""


class LabelsEntry(_Entry):
    """A file of labelled answers."""

    name: str
    """Its name without folders."""
    sha256: str
    """Digest of its bytes."""
    n_records: Count
    """Records in it."""
    n_labelled: Count
    """Those with a label."""


class PromptPattern(_Entry):
    """Prompts whose scored answers have the same counts."""

    times: Annotated[int, Field(ge=1, le=_MAX_PROMPTS)]
    """How many such prompts."""
    cells: dict[Label, dict[Label, Count]]
    """Answers by people's label, then by the judge's."""


@shows(
    judge=lambda found: found.judge.id,
    labels=lambda found: len(found.labels),
    n_labelled=lambda found: found.n_labelled,
    n_scored=lambda found: found.n_scored,
    made_at=lambda found: found.made_at,
)
class Calibration(_Entry):
    """A judge's errors as measured on people's labels: what `calibrate --out` writes. No texts."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    """Version of the format."""
    kind: Literal["calibration"] = "calibration"
    """What the file is."""
    refusalkit: str
    """Version of refusalkit that measured."""
    made_at: str
    """When, UTC, ISO 8601."""
    judge: JudgeIdentity
    """The judge measured."""
    labels: tuple[LabelsEntry, ...]
    """Files of labelled answers that were read."""
    languages: dict[str, Count]
    """Labelled answers by the language of their prompt (BCP 47)."""
    n_labelled: Count
    """Answers with a label by people."""
    n_scored: Count
    """Those that the judge labelled too."""
    unscored: dict[str, Count]
    """Labelled answers without a verdict, by reason."""
    cells: dict[Label, dict[Label, Count]]
    """Scored answers by people's label, then by the judge's."""
    prompts: tuple[PromptPattern, ...]
    """The same by prompt, prompts with equal counts together."""

    @model_validator(mode="after")
    def _adds_up(self) -> Calibration:
        total: Counter[tuple[Label, Label]] = Counter()
        for pattern in self.prompts:
            for truth, said, n in _flat(pattern.cells):
                total[truth, said] += n * pattern.times
        cells = {(truth, said): n for truth, said, n in _flat(self.cells) if n}
        if {pair: n for pair, n in total.items() if n} != cells:
            raise ValueError("`cells` are not the sum of `prompts`")
        if sum(pattern.times for pattern in self.prompts) > _MAX_PROMPTS:
            raise ValueError(f"`prompts` are more than {_MAX_PROMPTS:,}")
        if sum(cells.values()) != self.n_scored:
            raise ValueError("`cells` do not add up to `n_scored`")
        if self.n_scored + sum(self.unscored.values()) != self.n_labelled:
            raise ValueError("`n_scored` and `unscored` do not add up to `n_labelled`")
        return self

    def error_rates(self, question: str) -> ErrorRates:
        """Sensitivity and specificity on one of `QUESTIONS`."""
        by_prompt = [
            {(truth, said): n for truth, said, n in _flat(pattern.cells)}
            for pattern in self.prompts
            for _ in range(pattern.times)
        ]
        return error_rates(by_prompt, question, self.n_labelled - self.n_scored)


def _flat(cells: Mapping[Label, Mapping[Label, int]]) -> Iterable[tuple[Label, Label, int]]:
    return ((truth, said, n) for truth, row in cells.items() for said, n in row.items())


@dataclass(frozen=True)
class Breakdown:
    """One part of the labelled answers."""

    by: str
    """What they are grouped by: ``source``, ``model``, ``category`` or ``language``."""
    value: str
    """Which source, model, category or language."""
    n_labelled: int
    """Labelled answers in it."""
    agreement: Agreement
    """On the same question as `Calibrated.agreement`."""
    rates: ErrorRates
    """On the same question as `Calibrated.rates`."""


@shows(
    judge=lambda found: found.calibration.judge.id,
    question=lambda found: found.question,
    n_labelled=lambda found: found.calibration.n_labelled,
    kappa=lambda found: found.agreement.kappa,
    sensitivity=lambda found: str(found.rates.sensitivity),
    specificity=lambda found: str(found.rates.specificity),
)
@dataclass(frozen=True)
class Calibrated:
    """What a judge said of labelled answers, and its `calibration`."""

    calibration: Calibration
    """The judge's errors, as `write_calibration` writes them."""
    question: str
    """The score's question, one of `QUESTIONS`."""
    agreement: Agreement
    """Agreement with people on that question."""
    agreements: tuple[Agreement, ...]
    """Agreement on each of `SPLITS`."""
    rates: ErrorRates
    """Errors on `question`."""
    leak_rates: ErrorRates
    """Errors on the question of the hard lines."""
    alpha: float | None
    """Krippendorff's alpha between people's labels and the judge's, nominal over the four labels;
    None where undefined."""
    people_alpha: float | None
    """The same between single annotators; None with fewer than two."""
    breakdown: tuple[Breakdown, ...]
    """By source, model, category and language."""
    runs: tuple[Path, ...] = ()
    """Folders with the verdicts, where they were kept."""
    notices: tuple[str, ...] = ()
    """Where published labels are from, and the label that each of their words stands for."""

    @cached_property
    def n_owed(self) -> int:
        """Labelled answers whose verdict is owed."""
        unscored = self.calibration.unscored
        return unscored.get("owed", 0) + unscored.get("judge_error", 0)


def cells_by_prompt(answers: Iterable[LabelledAnswer]) -> list[Cells]:
    """Each prompt's counts of scored answers by people's label and the judge's."""
    by_prompt: dict[str, Counter[tuple[Label, Label]]] = {}
    for answer in answers:
        if answer.said is not None:
            by_prompt.setdefault(answer.prompt, Counter())[answer.truth, answer.said] += 1
    return list(by_prompt.values())


def prompt_patterns(by_prompt: Iterable[Cells]) -> tuple[PromptPattern, ...]:
    """Prompts with equal counts together, the most frequent first."""
    tally = Counter(tuple(sorted(cells.items())) for cells in by_prompt)
    ordered = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        PromptPattern(times=times, cells=nested(dict(pattern))) for pattern, times in ordered
    )


def nested(cells: Cells) -> dict[Label, dict[Label, int]]:
    """Counts by people's label, then by the judge's."""
    found: dict[Label, dict[Label, int]] = {}
    for (truth, said), n in sorted(cells.items()):
        found.setdefault(truth, {})[said] = n
    return found


def breakdown(answers: list[LabelledAnswer], question: str) -> tuple[Breakdown, ...]:
    """The same figures by source, model, category and language, where these are given."""
    rows = []
    for by, field in (
        ("source", "source"),
        ("model", "model"),
        ("category", "category"),
        ("language", "lang"),
    ):
        parts: dict[str, list[LabelledAnswer]] = {}
        for answer in answers:
            if (value := getattr(answer, field)) is not None:
                parts.setdefault(value, []).append(answer)
        for value, part in parts.items():
            pairs = [(a.truth, a.said) for a in part if a.said is not None]
            unscored = len(part) - len(pairs)
            rows.append(
                Breakdown(
                    by,
                    value,
                    len(part),
                    agreement_on(pairs, QUESTIONS[question], question),
                    error_rates(cells_by_prompt(part), question, unscored),
                )
            )
    return tuple(rows)


def people_alpha(annotators: Mapping[str, Mapping[str, Label]]) -> float | None:
    """Krippendorff's alpha of single annotators, None where fewer than two labelled anything."""
    return krippendorff_alpha(annotators) if len(annotators) > 1 else None


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as JSON, in one step.

    Args:
        calibration: what `calibrate` measured.
        path: the file.

    Raises:
        StorageError: the file cannot be written.

    Examples:
        >>> import refusalkit as rk
        >>> rk.write_calibration(rk.calibrate("lexical", "labelled.jsonl").calibration, "c.json")
    """
    data = calibration.model_dump(mode="json", by_alias=True)
    try:
        write_file(Path(path), (json.dumps(data, indent=2) + "\n").encode())
    except OSError as error:
        raise StorageError(f"cannot write {printable(path)}: {error.strerror}") from error


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file.

    Args:
        path: a file that `write_calibration` wrote.

    Raises:
        RecordError: the file is not a calibration, or its counts do not add up; the field is named.

    Examples:
        >>> import refusalkit as rk
        >>> rk.read_calibration("none.json")
        Traceback (most recent call last):
        refusalkit.errors.RecordError: none.json cannot be read: No such file or directory
    """
    where = printable(path)
    try:
        data = json.loads(read_json_file(Path(path)))
    except OSError as error:
        raise RecordError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{where} is not JSON: give a file that `judges calibrate --out` wrote"
        ) from error
    if not isinstance(data, dict) or data.get("kind") != "calibration":
        raise RecordError(
            f"{where} is not a calibration: give a file that `judges calibrate --out` wrote"
        )
    if data.get("schema") != 1:
        found = printable(data.get("schema"))
        raise RecordError(f"{where} has schema {found}, this refusalkit reads 1")
    try:
        return Calibration.model_validate(data)
    except ValidationError as error:
        loc, what = next(iter(validation_mistakes(error)))
        raise RecordError(f"{where}: {printable(dotted(loc))}: {printable(what)}") from error
