"""The types of a score in a JSON report."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from refusalkit.runs.manifest import JudgePart

Count = Annotated[int, Field(ge=0)]


Counts = dict[str, Count]


Percent = Annotated[float, Field(ge=-100, le=100)]


Status = Literal["held", "crossed", "inconclusive"]


class EstimateRecord(TypedDict):
    """A figure in percent; null where nothing was scored.

    `low` and `high` are the interval over prompts like these, `asked_again` (low, high) that over
    these prompts, asked again; null where a figure has only the first.
    """

    value: Percent | None
    low: float | None
    high: float | None
    asked_again: tuple[float, float] | None
    method: str
    level: float
    n_prompts: Count
    n_responses: Count
    n_unscored: Count


class BoundsRecord(TypedDict):
    """The figure if all unscored responses had gone one way, or the other."""

    low: float
    high: float


class AgreementRecord(TypedDict):
    """Two-way agreement between labels, as fractions; null where undefined."""

    split: str
    n: Count
    accuracy: float | None
    precision: float | None
    recall: float | None
    kappa: float | None


class PairRecord(TypedDict):
    """Two judges over the answers that both labelled."""

    first: str
    second: str
    n: Count
    splits: list[AgreementRecord]


class DifferingPairRecord(PairRecord):
    """A pair of judges with the units on which they differ."""

    differ: list[str]


class CanariesRecord(TypedDict):
    """Answers with known labels that were judged along with the run; no figure counts them."""

    asked: Count
    right: Count
    wrong: list[str]
    unscored: list[str]


class CouncilRecord(TypedDict):
    """How the members of a council voted."""

    rule: str
    members: list[str]
    labelled: Counts
    n_answers: Count
    n_unanimous: Count
    unanimous_percent: Percent | None
    n_owed: Count
    pairs: list[PairRecord]


class SummaryRecord(TypedDict):
    """Counts by label, and willingness with its interval."""

    n_prompts: Count
    n_units: Count
    n_scored: Count
    n_unscored: Count
    refusal: Count
    deflection: Count
    partial: Count
    compliance: Count
    willingness: float | None
    low: float | None
    high: float | None
    held: Annotated[float | None, Field(description="The hold rate; null without hard lines.")]


class PressureScriptRecord(TypedDict):
    """The script of insistence, and how many of its turns were asked."""

    script: str
    version: str
    digest: str
    turns: Count


class HeldAfterRecord(TypedDict):
    """Refusals after so many turns of insistence."""

    turn: Count
    gave_way: Annotated[Count, Field(description="Conversations that gave way at this turn.")]
    held: Annotated[EstimateRecord, Field(description="Share still held; unscored: not known.")]


class GaveWayRecord(TypedDict):
    """A unit whose refusal did not hold."""

    unit: str
    turn: Count


class PressureRecord(TypedDict):
    """How long refusals held when they were insisted on."""

    script: PressureScriptRecord
    n_refusals: Count
    n_pressed: Count
    turns: list[HeldAfterRecord]
    hard_lines: list[HeldAfterRecord]
    gave_way: list[GaveWayRecord]


class CategoryRecord(SummaryRecord):
    """One category; the last fields only with contrast prompts."""

    category: str
    title: str
    hard_line: bool
    over_refusal: NotRequired[float | None]
    n_pairs: NotRequired[Count | None]
    youden_j: NotRequired[float | None]
    youden_low: NotRequired[float | None]
    youden_high: NotRequired[float | None]


class TrialRecord(SummaryRecord):
    """One trial of all prompts."""

    trial: Count


class DangerRecord(SummaryRecord):
    """Ordinary prompts of one level of danger."""

    danger: int


class LanguageRecord(SummaryRecord):
    """One language; the difference is to the prompts that its prompts translate."""

    language: str
    n_pairs: Count
    difference: float | None
    difference_low: float | None
    difference_high: float | None


class PromptRecord(TypedDict):
    """One prompt over its trials."""

    prompt_id: str
    category: str
    hard_line: bool
    n_units: Count
    n_scored: Count
    n_unscored: Count
    refusal: Count
    deflection: Count
    partial: Count
    compliance: Count
    willingness: float | None


class VarianceRecord(TypedDict):
    """The variance of willingness by source, in squared points; null where not measured."""

    prompts: float | None
    trials: float | None
    judge: float | None
    n_prompts: Count
    trials_per_prompt: float
    n_judges: Count
    standard_error: float | None
    half_width: float | None
    with_twice_the_trials: float | None
    with_twice_the_prompts: float | None
    shares: dict[str, float]
    dominant: Literal["prompts", "trials", "judge"] | None
    said: list[str]


class ScoredSetRecord(TypedDict):
    """The prompt set behind a score."""

    name: str
    version: str
    digest: str
    inversion: Any


class ScoringJudgeRecord(TypedDict):
    """The judge behind a score, with the fields of its manifest entry."""

    id: str
    name: str
    digest: str | None
    version: int | None
    kind: str
    model: str | None
    source: str | None
    graded: bool
    members: list[str]
    rule: str | None
    hard_line_judge: JudgePart | None
    fallback: JudgePart | None
    same_family_as_model: str | None
    words: Counts
    rests_on: Counts
    n_cut: Count


class OddAnswersRecord(TypedDict):
    """Answers that a reader of the figures should know of."""

    unknown_marks: Annotated[
        Counts,
        Field(description="Answers by a mark in their text that looks like one of reasoning."),
    ]
    unsaid: Annotated[Count, Field(description="Judged although no finish reason was given.")]
    native_lost: Annotated[
        Counts,
        Field(description="By a gateway's finish word, where the provider's own was lost."),
    ]
    only_reasoning: Annotated[Count, Field(description="Reasoning without final text.")]


class ScoreRecord(TypedDict):
    """As `refusalkit score --json` prints it, beside the headline figures (`FIGURES`)."""

    schema: Literal[1]
    run: str
    model: str
    prompt_set: ScoredSetRecord
    judge: ScoringJudgeRecord
    trials: Count
    n_prompts: Count
    n_contrast: Count
    n_framed: Annotated[Count, Field(description="Framed hard-line requests; no rate counts them.")]
    n_units: Count
    n_scored: Count
    count_deflection: bool
    hard_line_text: Literal["withheld", "kept"]
    variance: VarianceRecord
    canaries: CanariesRecord
    bounds: BoundsRecord
    unscored_interval: Annotated[
        BoundsRecord,
        Field(description="95 % interval of willingness for chance and what is unscored."),
    ]
    is_complete: bool
    n_owed: Count
    outcomes: Counts
    unscored: Counts
    odd_answers: OddAnswersRecord
    keyword_fallback: Annotated[
        dict[str, Any] | None,
        Field(
            description="Preset atropos: what the reference environment's keywords say of answers "
            "without a label."
        ),
    ]
    fallback_answers: Annotated[
        Count, Field(description="Units labelled by the fallback of a blocked judge.")
    ]
    pressure: PressureRecord | None
    council: CouncilRecord | None
    by_category: list[CategoryRecord]
    by_trial: list[TrialRecord]
    by_language: list[LanguageRecord]
    by_prompt: list[PromptRecord]
