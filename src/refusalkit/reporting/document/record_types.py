"""The types of a JSON report; its JSON Schema is generated from them.

Rates are in percent, times in seconds, amounts in USD. Fields may be added. Removing a field or
changing its meaning takes a new `schema` number.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from refusalkit.reporting.document.score_record_types import (
    BoundsRecord,
    CanariesRecord,
    Count,
    Counts,
    DangerRecord,
    DifferingPairRecord,
    EstimateRecord,
    Percent,
    PressureRecord,
    ScoreRecord,
    Status,
)
from refusalkit.scoring.figures import FIGURES


class LineRecord(TypedDict):
    """One hard line, one framing, or all hard lines together."""

    slug: str
    title: str
    status: Status
    n_prompts: Count
    n_units: Count
    n_unscored: Count
    n_unread: Count
    n_tested: Count
    n_open: Annotated[int, Field(ge=0, description="Prompts without a leak that may hold one.")]
    n_blocked: Count
    n_truncated: Count
    n_strays: Count
    leaks: Count
    leaking_prompts: Count
    upper_percent: Annotated[
        float, Field(ge=0, le=100, description="Every open prompt counted as a leak.")
    ]
    lower_percent: Annotated[
        float, Field(ge=0, le=100, description="The leak rate's lower bound; for a crossed line.")
    ]
    at_every_moment: Annotated[
        bool, Field(description="Whether the bound holds for a run that stopped on its results.")
    ]


class LeakRecord(TypedDict):
    """One leaking response."""

    unit: str
    prompt_id: str
    category: str
    framing: str | None
    frame_of: str | None
    trial: Count
    label: Literal["partial", "compliance"]
    word: str | None
    judge: str
    rests_on: str | None


class OverBlockingRecord(TypedDict):
    """Refusals of the safe twins of one hard line."""

    slug: str
    title: str
    n_contrast: Count
    refused: EstimateRecord


class AuditedSetRecord(TypedDict):
    """The prompt set behind an audit."""

    name: str
    version: str
    digest: str


class AuditRecord(TypedDict):
    """As `refusalkit audit --json` prints it."""

    schema: Literal[1]
    run: str
    model: str
    prompt_set: AuditedSetRecord
    judge: str
    trials: Count
    status: Status
    max_leaks: Count
    bound_percent: float | None
    overall: LineRecord
    lines: list[LineRecord]
    framings: Annotated[
        list[LineRecord],
        Field(description="The bare requests, then each framing; empty without framings."),
    ]
    over_blocking: list[OverBlockingRecord]
    leaks: list[LeakRecord]
    notes: list[str]
    canaries: CanariesRecord
    pressure: Annotated[
        PressureRecord | None, Field(description="null where no refusal was insisted on.")
    ]


class TrialAgreementRecord(TypedDict):
    """Agreement of the trials of a prompt."""

    trials: Count
    n_prompts: Count
    n_unanimous: Count
    unanimous_percent: Percent | None
    n_whole: Count
    spread: Annotated[
        list[Count],
        Field(description="Prompts with every trial scored, by trials refused: 0, 1, ..."),
    ]
    fleiss_kappa: Annotated[float, Field(le=1)] | None


class JudgeAgreementsRecord(TypedDict):
    """The judges of a run, pair by pair."""

    schema: Literal[1]
    labelled: Counts
    pairs: list[DifferingPairRecord]


class JudgingRecord(TypedDict):
    """How a run was judged."""

    judge: str
    n_judged: Count
    n_by_provider: Count
    unscored: Counts
    words: Counts
    n_cut: Count
    rests_on: Counts
    answered_by: Counts
    others: Annotated[
        dict[str, EstimateRecord], Field(description="Willingness by each other judge of the run.")
    ]
    agreements: JudgeAgreementsRecord | None
    correction: Annotated[
        dict[str, Any] | None,
        Field(
            description="Figures corrected for judge error, as `score --calibration --json` prints "
            "them; null without a calibration."
        ),
    ]


class TokensRecord(TypedDict):
    """Tokens of all requests to the model or to the judge."""

    input_tokens: Count
    output_tokens: Count
    reasoning_tokens: Count
    cache_read_tokens: Count
    cache_write_tokens: Count
    n_said: Annotated[Count, Field(description="Records that state their tokens.")]


class RunTokensRecord(TypedDict):
    """Tokens of a run."""

    model: TokensRecord
    judge: TokensRecord


class SpendingRecord(TypedDict):
    """What a run cost and how long it took."""

    cost_usd: Annotated[
        float | None, Field(description="All requests and retries; null if a price is unknown.")
    ]
    cost_per_scored_usd: float | None
    tokens: RunTokensRecord
    latency_s: dict[str, Annotated[float, Field(ge=0)]] | None
    worked_s: float | None


class ConfigurationRecord(TypedDict):
    """What was asked for, what was sent, and with which versions."""

    config: dict[str, Any]
    config_digest: str
    prompt_set: str
    selection: dict[str, Any]
    judges: dict[str, str | None]
    parameters: dict[str, Any]
    refusalkit: str
    python: str | None
    packages: dict[str, str]


class PresetRowRecord(TypedDict):
    """One aspect of a preset beside what it follows."""

    aspect: str
    report: Annotated[str | None, Field(description="null: the paper does not say.")]
    preset: str
    environment: str


class PresetRecord(TypedDict):
    """The preset beside what it follows."""

    name: str
    otherwise: list[str]
    rows: list[PresetRowRecord]


class ReproduceRecord(TypedDict):
    """The command that makes the run again."""

    command: Annotated[
        str | None, Field(description="For a POSIX shell; null where no command can do it.")
    ]
    words: list[str]
    obstacles: list[str]


class RunRecord(TypedDict):
    """One run."""

    name: Annotated[str, Field(description="Distinguishes the run from others in the report.")]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None
    complete: Annotated[
        bool, Field(description="Whether the last session finished and no unit is owed.")
    ]
    cautions: Annotated[
        list[str], Field(description="What a reader must know; failed canaries come first.")
    ]
    score: ScoreRecord
    audit: Annotated[AuditRecord | None, Field(description="null if the set has no hard lines.")]
    by_danger: Annotated[
        list[DangerRecord],
        Field(description="Ordinary prompts by danger; empty where the set states none."),
    ]
    labels: Annotated[
        dict[str, Counts],
        Field(
            description="Units that came back by label, or unscored: ordinary, hard lines, safe "
            "twins, framed requests."
        ),
    ]
    trial_agreement: TrialAgreementRecord
    judging: JudgingRecord
    spending: SpendingRecord
    configuration: ConfigurationRecord
    preset: PresetRecord | None
    reproduce: ReproduceRecord


class DifferenceRecord(TypedDict):
    """One figure of two runs."""

    first: float | None
    second: float | None
    difference: Annotated[EstimateRecord, Field(description="In points.")]
    p: float | None
    p_asked_again: float | None
    corrected: Annotated[
        dict[str, Any] | None, Field(description="Without the judge's errors; null: not asked for.")
    ]
    bounds: BoundsRecord


class RunPairRecord(TypedDict):
    """Two runs set against each other."""

    first: str
    second: str
    paired: bool
    n_common: Count
    n_only_first: Count
    n_only_second: Count
    p_holm: float | None
    willingness: DifferenceRecord
    answer_rate: NotRequired[DifferenceRecord]
    hold_rate: NotRequired[DifferenceRecord]
    refusal_rate: NotRequired[DifferenceRecord]
    over_refusal: NotRequired[DifferenceRecord]
    by_category: list[dict[str, Any]]
    flipped: list[dict[str, Any]]


class ComparisonRecord(TypedDict):
    """As `refusalkit compare --json` prints it."""

    schema: Literal[1]
    warnings: list[str]
    notes: list[str]
    runs: list[dict[str, Any]]
    pairs: list[RunPairRecord]
    gate: dict[str, Any] | None
    in_order: dict[str, Any] | None


class ReportRecord(TypedDict):
    """What `refusalkit report RUN... -o FILE.json` writes.

    Rates are in percent, times in seconds, amounts in USD. Fields may be added; removing one or
    changing its meaning takes a new `schema` number.
    """

    schema: Literal[1]
    kind: Literal["refusalkit-report"]
    warnings: Annotated[
        list[str],
        Field(
            description="To be read before any figure: failed canaries, runs compared although "
            "they should not be."
        ),
    ]
    runs: Annotated[list[RunRecord], Field(min_length=1)]
    cautions: Annotated[list[str], Field(description="Why the runs cannot be compared.")]
    comparison: Annotated[
        ComparisonRecord | None,
        Field(description="null for one run, or runs that cannot be compared (see `cautions`)."),
    ]


def report_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report."""
    schema = TypeAdapter(ReportRecord).json_schema(mode="serialization")
    score = schema["$defs"]["ScoreRecord"]
    figure = {"$ref": "#/$defs/EstimateRecord"}
    score["properties"] = {**dict.fromkeys(FIGURES, figure), **score["properties"]}
    score["required"] = [*FIGURES, *score["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
