"""Estimates a run before anything is asked: requests, tokens, USD."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from refusalkit.config.run_config import RunConfig
from refusalkit.display import shows
from refusalkit.errors import RefusalkitError
from refusalkit.judges.rubrics import Rubric
from refusalkit.models.endpoints import own_base, price_at
from refusalkit.models.prices import Price
from refusalkit.models.tokens import Tokeniser, tokeniser
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs import frames
from refusalkit.runs.canaries import choose_canaries
from refusalkit.runs.folder import Run
from refusalkit.types import Prompt
from refusalkit.untrusted import printable

# Tokens that a chat format adds to a message.
_AROUND = 4
# Assumed lengths in tokens: a refusal of one sentence, an ordinary answer, a verdict.
_REFUSAL, _ANSWER = 30, 500
_VERDICT_LOW, _VERDICT = 15, 60


@shows("low", "expected", "high")
@dataclass(frozen=True, slots=True)
class Span:
    """A range for a figure that is not known yet."""

    low: float
    """The 10th percentile of earlier answers, or a refusal of one sentence."""
    expected: float
    """Their mean, or an ordinary answer."""
    high: float
    """Their 90th percentile, or the limit on tokens."""

    def times(self, factor: float) -> Span:
        """Each of the three, multiplied."""
        return Span(self.low * factor, self.expected * factor, self.high * factor)

    def plus(self, other: Span) -> Span:
        """Low with low, expected with expected, high with high."""
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)


@shows(
    "part",
    "name",
    "requests",
    cost_usd=lambda share: None if share.cost_usd is None else share.cost_usd.expected,
)
@dataclass(frozen=True, slots=True)
class Share:
    """The part of a run that the model under test, or a judge, takes."""

    part: Literal["model", "judge"]
    """Whether it is the model's or a judge's."""
    name: str
    """The model's id, or the judge's name and model."""
    requests: int
    """Requests, retries not counted."""
    input_tokens: Span
    """Tokens of all requests."""
    output_tokens: Span
    """Tokens of all answers."""
    cost_usd: Span | None
    """USD; None where the price is unknown."""
    basis: str
    """Where the lengths come from: earlier runs, or an assumption."""
    batch_usd: Span | None = None
    """USD if the requests go in batches; None where that price is unknown."""


@shows(
    "model",
    "prompt_set",
    "n_prompts",
    "trials",
    "requests",
    cost_usd=lambda found: None if found.cost_usd is None else found.cost_usd.expected,
)
@dataclass(frozen=True, slots=True)
class RunEstimate:
    """Requests, tokens and USD of a run that was not made yet."""

    model: str
    """The model's id."""
    prompt_set: str
    """The name of the prompt set."""
    n_prompts: int
    """Its prompts, after filters."""
    trials: int
    """Independent answers to each prompt."""
    shares: tuple[Share, ...]
    """The model's share, then one for each judge."""
    tokeniser: str
    """The name of the encoding that counted the prompts' tokens."""
    notes: tuple[str, ...]
    """What the figures leave out, in sentences."""

    @property
    def requests(self) -> int:
        """All requests, retries not counted."""
        return sum(share.requests for share in self.shares)

    @property
    def cost_usd(self) -> Span | None:
        """All of it in USD; None where a price is unknown."""
        return sum_usd(share.cost_usd for share in self.shares)

    @property
    def batch_cost_usd(self) -> Span | None:
        """All of it in USD if the requests go in batches; None where a price is unknown."""
        return sum_usd(share.batch_usd for share in self.shares)


def sum_usd(costs: Iterable[Span | None]) -> Span | None:
    """All of them together; None where one is unknown."""
    total = Span(0.0, 0.0, 0.0)
    for cost in costs:
        if cost is None:
            return None
        total = total.plus(cost)
    return total


def estimate_run(
    config: RunConfig,
    prompts: PromptSet,
    rubrics: Sequence[Rubric],
    earlier: Iterable[Run] = (),
    *,
    fallback: Rubric | None = None,
    hard_line_judge: Rubric | None = None,
    named: bool = True,
    beside: Collection[str] = (),
) -> RunEstimate:
    """Estimate a run of `config` over `prompts`, judged by `rubrics`.

    The prompts' tokens are counted. Answers are taken to be as long as those of the `earlier` runs
    of the same model with the same reasoning, and never longer than `max_tokens`: low and high are
    the 10th and the 90th percentile of all of them. Without such a run low is a refusal of one
    sentence, expected an ordinary answer, and high every answer at `max_tokens`, a ceiling. The
    same for verdicts. Earlier runs not `named` are passed over where their records cannot
    be read; of one that was named a note says why its answers are of no use, but where it is of a
    model that is estimated `beside` this one.

    The `hard_line_judge` reads what it reads in a run: answers to hard lines, and none to contrast
    prompts. The `fallback` is expected to read nothing; high is that every judge is blocked.
    """
    counted = tokeniser()
    lengths = _Lengths(tuple(earlier), named, beside)
    held = [p for p in prompts.prompts if p.category in prompts.hard_lines and p.twin is None]
    asked = _asked_tokens(prompts.prompts, config, counted)
    of_held = _asked_tokens(held, config, counted) if hard_line_judge is not None else 0
    units = len(prompts) * config.trials
    units_held = len(held) * config.trials if hard_line_judge is not None else 0
    graded = _tells_deflections(config, rubrics, fallback, hard_line_judge)
    canaries = choose_canaries(config.canaries, graded=graded)
    of_canaries = sum(counted.total((one.request, one.answer)) + _AROUND for one in canaries)
    answer, basis = lengths.of_answers(config)

    def judged(rubric: Rubric, requests: int, read: Span, role: str = "") -> Share:
        if not rubric.asks_model:
            return _share("judge", rubric.name, 0, _ZERO, _ZERO, _FREE, "no request")
        fixed = counted.total((rubric.system, rubric.template)) + 2 * _AROUND
        verdict, basis = lengths.of_verdicts(rubric)
        read = read.plus(_same(fixed * requests))
        price = price_at(rubric.model, config.judge_api_base, config.judge_via)
        name, written = _judge_id(rubric), verdict.times(requests)
        return _share("judge", name, requests, read, written, price, basis + role)

    def answers(tokens: int, count: int) -> Span:
        return _same(tokens).plus(answer.times(count))

    price = price_at(config.model, config.api_base, config.via)
    written = answer.times(units)
    shares = [_share("model", config.model, units, _same(asked), written, price, basis)]
    rest = answers(asked - of_held, units - units_held).plus(_same(of_canaries))
    base_units = units - units_held + len(canaries)
    shares += [judged(rubric, base_units, rest) for rubric in rubrics]
    if hard_line_judge is not None:
        read = answers(of_held, units_held)
        shares.append(judged(hard_line_judge, units_held, read, "; hard lines only"))
    if fallback is not None:
        read = answers(asked, units).plus(_same(of_canaries))
        every = judged(fallback, units + len(canaries), read, "; none expected, high is all")
        shares.append(_at_most(every))
    return RunEstimate(
        model=config.model,
        prompt_set=prompts.name,
        n_prompts=len(prompts),
        trials=config.trials,
        shares=tuple(shares),
        tokeniser=counted.name,
        notes=tuple(_notes(config, shares, rubrics, len(canaries), lengths)),
    )


_ZERO = Span(0.0, 0.0, 0.0)
_FREE = Price(0.0, 0.0, batch_factor=1.0)


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
    factor = None if price is None else price.batch_factor
    batched = None if cost is None or factor is None else cost.times(factor)
    return Share(part, name, requests, incoming, outgoing, cost, basis, batched)


def _same(figure: float) -> Span:
    return Span(figure, figure, figure)


def _at_most(share: Share) -> Share:
    """The share of a judge that may be asked for anything between nothing and everything."""

    def high(span: Span) -> Span:
        return Span(0.0, 0.0, span.high)

    return replace(
        share,
        requests=0,
        input_tokens=high(share.input_tokens),
        output_tokens=high(share.output_tokens),
        cost_usd=None if share.cost_usd is None else high(share.cost_usd),
        batch_usd=None if share.batch_usd is None else high(share.batch_usd),
    )


def _asked_tokens(prompts: Iterable[Prompt], config: RunConfig, counted: Tokeniser) -> int:
    """The tokens of all requests to the model."""
    return config.trials * sum(counted.total(_texts(p, config)) + _AROUND for p in prompts)


def _texts(prompt: Prompt, config: RunConfig) -> list[str]:
    systems = [text for text in (config.system, prompt.system) if text]
    return [*systems, *(turn.content for turn in prompt.turns)]


def _judge_id(rubric: Rubric) -> str:
    return f"{rubric.name}:{rubric.model}"


def _tells_deflections(
    config: RunConfig,
    rubrics: Sequence[Rubric],
    fallback: Rubric | None,
    hard_line_judge: Rubric | None,
) -> bool:
    """Whether the judge of the run is graded, as `Council` and `ComposedJudge` say it of theirs."""
    binary = sum(not rubric.is_graded for rubric in rubrics)
    majority = len(rubrics) > 1 and config.council in (None, "majority")
    graded = 2 * binary < len(rubrics) if majority else binary == 0
    if hard_line_judge is not None:
        graded = hard_line_judge.is_graded
    return graded and (fallback is None or fallback.is_graded)


class _Lengths:
    """How long answers and verdicts were in earlier runs.

    `skipped` are runs that were not named and whose records cannot be read, `unused` says why the
    answers of others were left out.
    """

    def __init__(self, earlier: Sequence[Run], named: bool, beside: Collection[str]) -> None:
        self._earlier = earlier
        self._named = named
        self._beside = beside
        self.skipped: dict[Path, None] = {}
        self.unused: list[str] = []

    def of_answers(self, config: RunConfig) -> tuple[Span, str]:
        """Output tokens of an answer, and where they come from."""
        same = [run for run in self._earlier if _model_of(run) == config.model]
        # A model that reasons writes many times what it writes without.
        fit = [run for run in same if _reasoning_of(run) == config.reasoning]
        self.unused = list(self._not_used(config, same))
        tokens, n_runs = self._read(fit, None)
        if tokens:
            within = [min(count, config.max_tokens) for count in tokens]
            return _measured(within), f"{len(tokens)} answers of {_runs(n_runs)}"
        how = f" with reasoning {config.reasoning}" if same and not fit else ""
        assumed = _assumed(_REFUSAL, _ANSWER, config.max_tokens)
        return assumed, f"assumed: no earlier run of this model{how}"

    def _not_used(self, config: RunConfig, same: Sequence[Run]) -> Iterable[str]:
        """Why earlier runs that a user might expect to be used were not."""
        others = [run for run in same if _reasoning_of(run) != config.reasoning]
        if not self._named:
            if others:
                were = "was" if len(others) == 1 else "were"
                yield (
                    f"{_runs(len(others))} of this model {were} not used: asked with another "
                    f"reasoning than {config.reasoning}"
                )
            return
        for run in others:
            yield (
                f"the answers of {printable(run.path)} were not used: asked with reasoning "
                f"{printable(_reasoning_of(run))}, not {config.reasoning}"
            )
        for run in self._earlier:
            model = _model_of(run)
            if model != config.model and model not in self._beside:
                yield (
                    f"the answers of {printable(run.path)} were not used: they are those of "
                    f"{printable(model)}, not of {printable(config.model)}"
                )

    def of_verdicts(self, rubric: Rubric) -> tuple[Span, str]:
        """Output tokens of a verdict, and where they come from."""
        judge = _judge_id(rubric)
        same = [run for run in self._earlier if judge in run.manifest.judges]
        tokens, n_runs = self._read(same, judge)
        if tokens:
            return _measured(tokens), f"{len(tokens)} verdicts of {_runs(n_runs)}"
        assumed = _assumed(_VERDICT_LOW, _VERDICT, rubric.max_tokens)
        return assumed, "assumed: no earlier run of this judge"

    def _read(self, runs: Sequence[Run], judge: str | None) -> tuple[list[int], int]:
        tokens: list[int] = []
        n_runs = 0
        for run in runs:
            try:
                tokens += frames.output_tokens(run, judge)
            except RefusalkitError:
                if self._named:
                    raise
                self.skipped[run.path] = None
            else:
                n_runs += 1
        return tokens, n_runs


def _model_of(run: Run) -> str:
    return str(run.manifest.config.get("model", ""))


def _reasoning_of(run: Run) -> str:
    return str(run.manifest.config.get("reasoning", "auto"))


def _assumed(low: int, expected: int, most: int) -> Span:
    return Span(min(low, most), min(expected, most), most)


def _measured(tokens: list[int]) -> Span:
    ordered = sorted(tokens)
    mean = sum(ordered) / len(ordered)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    # Where few answers are long, their mean lies beyond most of them.
    return Span(min(low, mean), mean, max(high, mean))


def _runs(count: int) -> str:
    return "1 earlier run" if count == 1 else f"{count} earlier runs"


def _notes(
    config: RunConfig,
    shares: Sequence[Share],
    rubrics: Sequence[Rubric],
    n_canaries: int,
    lengths: _Lengths,
) -> Iterable[str]:
    for share in shares:
        if share.cost_usd is None:
            why = "an endpoint of your own has no list price"
            if share.part == "model":
                own = own_base(config.model, config.api_base, config.via)
            else:
                asked = share.name.partition(":")[2]
                own = own_base(asked, config.judge_api_base, config.judge_via)
            yield (
                f"the price of {printable(share.name)} is unknown"
                f"{f' ({why})' if own else ''}, so is the sum"
            )
    if n_canaries and any(rubric.asks_model for rubric in rubrics):
        count = "1 canary is" if n_canaries == 1 else f"{n_canaries} canaries are"
        yield f"{count} counted with what a judge is asked"
    if config.pressure:
        yield (
            f"what is asked after a refusal is not counted: up to {config.pressure} more requests "
            "for each one, to the model and to the judge"
        )
    for path in lengths.skipped:
        yield f"{printable(path)} was passed over: its records cannot be read"
    yield from lengths.unused
    yield (
        "requests that are sent again are not counted, nor is the discount of a prompt cache; a "
        "judge is asked a second time where its first reply cannot be read"
    )
