"""What a run would take before anything is asked: requests, tokens, USD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from refusalkit import frames
from refusalkit.config import RunConfig
from refusalkit.models import price_at
from refusalkit.models.prices import Price
from refusalkit.models.tokens import tokeniser
from refusalkit.rubrics import Rubric
from refusalkit.store import Run
from refusalkit.types import Prompt, PromptSet
from refusalkit.untrusted import printable

# A chat format's own tokens around a message.
_AROUND = 4
# Where nothing was measured, in tokens: a refusal of one sentence, an ordinary answer, a verdict.
_REFUSAL, _ANSWER = 30, 500
_VERDICT_LOW, _VERDICT = 15, 60


@dataclass(frozen=True, slots=True)
class Span:
    """A figure that is not known yet: low, expected, high."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> Span:
        """Each of the three, multiplied."""
        return Span(self.low * factor, self.expected * factor, self.high * factor)

    def plus(self, other: Span) -> Span:
        """Low with low, expected with expected, high with high."""
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Share:
    """What the model under test, or a judge, takes of a run.

    `cost_usd` is None where the price is unknown. `basis` says where the lengths come from.
    """

    part: Literal["model", "judge"]
    name: str
    requests: int
    input_tokens: Span
    output_tokens: Span
    cost_usd: Span | None
    basis: str


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run would take. `tokeniser` names the encoding that counted the prompts."""

    model: str
    prompt_set: str
    n_prompts: int
    trials: int
    shares: tuple[Share, ...]
    tokeniser: str
    notes: tuple[str, ...]

    @property
    def requests(self) -> int:
        """All requests, retries not counted."""
        return sum(share.requests for share in self.shares)

    @property
    def cost_usd(self) -> Span | None:
        """All of it in USD; None where a price is unknown."""
        total = Span(0.0, 0.0, 0.0)
        for share in self.shares:
            if share.cost_usd is None:
                return None
            total = total.plus(share.cost_usd)
        return total


def estimate_run(
    config: RunConfig, prompts: PromptSet, rubrics: Sequence[Rubric], earlier: Iterable[Run] = ()
) -> RunEstimate:
    """Estimate a run of `config` over `prompts`, judged by `rubrics`.

    The prompts' tokens are counted. Answers are taken to be as long as those of the `earlier` runs
    of the same model: low and high are the 10th and the 90th percentile of all of them. Without
    such a run low is a refusal of one sentence, expected an ordinary answer, and high every answer
    at `max_tokens`, a ceiling. The same for verdicts.
    """
    counted = tokeniser()
    earlier = list(earlier)
    units = len(prompts) * config.trials
    asked = sum(counted.total(_texts(prompt, config)) + _AROUND for prompt in prompts.prompts)
    asked *= config.trials
    answer, basis = _answer_span(config, earlier)
    shares = [
        _share(
            "model",
            config.model,
            units,
            Span(asked, asked, asked),
            answer.times(units),
            price_at(config.model, config.api_base, config.via),
            basis,
        )
    ]
    for rubric in rubrics:
        if rubric.kind != "llm":
            shares.append(_share("judge", rubric.name, 0, _ZERO, _ZERO, _FREE, "no request"))
            continue
        fixed = counted.total((rubric.system, rubric.template)) + 2 * _AROUND
        verdict, basis = _verdict_span(rubric, earlier)
        read = Span(asked, asked, asked).plus(answer.plus(Span(fixed, fixed, fixed)).times(units))
        price = price_at(rubric.model, config.judge_api_base, config.judge_via)
        name = f"{rubric.name}:{rubric.model}"
        shares.append(_share("judge", name, units, read, verdict.times(units), price, basis))
    return RunEstimate(
        model=config.model,
        prompt_set=prompts.name,
        n_prompts=len(prompts),
        trials=config.trials,
        shares=tuple(shares),
        tokeniser=counted.name,
        notes=tuple(_notes(config, shares)),
    )


_ZERO = Span(0.0, 0.0, 0.0)
_FREE = Price(0.0, 0.0)


def _share(
    part: Literal["model", "judge"],
    name: str,
    requests: int,
    incoming: Span,
    outgoing: Span,
    price: Price | None,
    basis: str,
) -> Share:
    if name.startswith("demo/"):
        price = _FREE
    cost = (
        None
        if price is None
        else incoming.times(price.input_usd).plus(outgoing.times(price.output_usd))
    )
    return Share(part, name, requests, incoming, outgoing, cost, basis)


def _texts(prompt: Prompt, config: RunConfig) -> list[str]:
    systems = [text for text in (config.system, prompt.system) if text]
    return [*systems, *(turn.content for turn in prompt.turns)]


def _answer_span(config: RunConfig, earlier: Sequence[Run]) -> tuple[Span, str]:
    same = [run for run in earlier if run.manifest.config.get("model") == config.model]
    tokens = [count for run in same for count in frames.output_tokens(run)]
    if tokens:
        return _measured(tokens), f"{len(tokens)} answers of {_runs(len(same))}"
    return Span(_REFUSAL, _ANSWER, config.max_tokens), "assumed: no earlier run of this model"


def _verdict_span(rubric: Rubric, earlier: Sequence[Run]) -> tuple[Span, str]:
    judge = f"{rubric.name}:{rubric.model}"
    same = [run for run in earlier if judge in run.manifest.judges]
    tokens = [count for run in same for count in frames.output_tokens(run, judge)]
    if tokens:
        return _measured(tokens), f"{len(tokens)} verdicts of {_runs(len(same))}"
    return Span(_VERDICT_LOW, _VERDICT, rubric.max_tokens), "assumed: no earlier run of this judge"


def _measured(tokens: list[int]) -> Span:
    ordered = sorted(tokens)
    mean = sum(ordered) / len(ordered)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    # Where few answers are long, their mean lies beyond most of them.
    return Span(min(low, mean), mean, max(high, mean))


def _runs(count: int) -> str:
    return "1 earlier run" if count == 1 else f"{count} earlier runs"


def _notes(config: RunConfig, shares: Sequence[Share]) -> Iterable[str]:
    for share in shares:
        if share.cost_usd is None:
            why = "an endpoint of your own has no list price"
            own = config.api_base if share.part == "model" else config.judge_api_base
            yield (
                f"the price of {printable(share.name)} is unknown"
                f"{f' ({why})' if own else ''}, so is the sum"
            )
    yield (
        "requests that are sent again are not counted, nor is the discount of a prompt cache; a "
        "judge is asked a second time where its first reply cannot be read"
    )
