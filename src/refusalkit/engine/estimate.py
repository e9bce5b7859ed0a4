"""Estimates a run before anything is sent: requests, tokens, USD."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from refusalkit.config.run_config import RunConfig
from refusalkit.display import shows
from refusalkit.engine.insistence_estimate import AROUND, Insisting, insisting
from refusalkit.engine.lengths import EarlierRuns, Refusals, Span, judge_id
from refusalkit.judges.rubrics import Rubric
from refusalkit.models.endpoints import own_base, price_at
from refusalkit.models.prices import Price
from refusalkit.models.tokens import Tokeniser, tokeniser
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.canaries import choose_canaries
from refusalkit.runs.folder import Run
from refusalkit.runs.pressure import is_pressed
from refusalkit.types import Prompt
from refusalkit.untrusted import printable


@shows(
    "part",
    "name",
    "requests",
    cost_usd=lambda share: None if share.cost_usd is None else share.cost_usd.expected,
)
@dataclass(frozen=True, slots=True)
class Share:
    """What the model under test, or one judge, takes of a run."""

    part: Literal["model", "judge"]
    """Whether it is the model's or a judge's."""
    name: str
    """The model's id, or the judge's name and model."""
    requests: int
    """Expected requests, not counting retries."""
    most_requests: int
    """Requests if every optional one is sent too."""
    input_tokens: Span
    """Tokens of all requests."""
    output_tokens: Span
    """Tokens of all answers."""
    cost_usd: Span | None
    """USD; None where the price is unknown."""
    basis: str
    """Where the lengths come from: earlier runs, or an assumption."""
    batch_usd: Span | None = None
    """USD if the requests go in batches; None: the price is unknown, or no batch takes them."""
    insisting: bool = False
    """Whether these are the turns after refusals (`run --pressure`), and not the requests."""


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
    """Requests, tokens and USD of a run that has not started."""

    model: str
    """The model's id."""
    prompt_set: str
    """The name of the prompt set."""
    n_prompts: int
    """Its prompts, after filters."""
    trials: int
    """Independent answers to each prompt."""
    shares: tuple[Share, ...]
    """The model's share, one for each judge, then the shares of the turns after refusals."""
    tokeniser: str
    """Name of the encoding by which the prompts' tokens were counted."""
    notes: tuple[str, ...]
    """What the figures leave out, in sentences."""
    n_answers: int | None = None
    """Recorded answers to be judged; None if a model is asked for them first."""

    @property
    def requests(self) -> int:
        """All expected requests, not counting retries."""
        return sum(share.requests for share in self.shares)

    @property
    def most_requests(self) -> int:
        """All requests if every optional one is sent too, not counting retries."""
        return sum(share.most_requests for share in self.shares)

    @property
    def cost_usd(self) -> Span | None:
        """Total cost in USD; None if a price is unknown."""
        return sum_usd(share.cost_usd for share in self.shares)

    @property
    def batch_cost_usd(self) -> Span | None:
        """Total cost in USD if the requests go in batches; None if a price is unknown."""
        return sum_usd(share.batch_usd for share in self.shares)


def sum_usd(costs: Iterable[Span | None]) -> Span | None:
    """The sum of the costs; None if one is unknown."""
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

    The prompts' tokens are counted. Answers are assumed to be as long as in the `earlier` runs of
    the same model with the same reasoning setting, and never longer than `max_tokens`: low and high
    are the 10th and the 90th percentile. Without such a run, low is a one-sentence refusal,
    expected an ordinary answer, and high, a ceiling, every answer at `max_tokens`. The same goes
    for verdicts.

    Earlier runs that were not `named` are skipped if their records cannot be read. If a named run
    is of no use, a note says why, unless it is a run of a model estimated `beside` this one.

    The `hard_line_judge` reads answers to hard-line prompts, but not to contrast prompts. The
    `fallback` is expected to read nothing; its high figure is for every judge being blocked.

    With ``pressure`` the turns after refusals have shares of their own, for the model and for each
    judge. Expected is the refusal rate of the earlier runs, or else half of the ordinary requests
    and all hard-line ones; low is no refusal, high is every request refused to the last turn.
    """
    counted = tokeniser()
    runs = EarlierRuns(tuple(earlier), named, beside)
    held = [p for p in prompts.prompts if p.category in prompts.hard_lines and p.twin is None]
    asked = _asked_tokens(prompts.prompts, config, counted)
    of_held = _asked_tokens(held, config, counted) if hard_line_judge is not None else 0
    units = len(prompts) * config.trials
    units_held = len(held) * config.trials if hard_line_judge is not None else 0
    graded = tells_deflections(config, rubrics, fallback, hard_line_judge)
    n_canaries, of_canaries = canary_tokens(config, counted, graded=graded)
    answer, basis = runs.of_answers(config)

    judged = JudgeShares(config, runs, counted)

    def answers(tokens: int, count: int) -> Span:
        return same(tokens).plus(answer.times(count))

    price = price_at(config.model, config.api_base, config.via)
    written = answer.times(units)
    shares = [_share("model", config.model, same(units), same(asked), written, price, basis)]
    rest = answers(asked - of_held, units - units_held).plus(same(of_canaries))
    n_rest = same(units - units_held + n_canaries)
    shares += [judged(rubric, n_rest, rest) for rubric in rubrics]
    if hard_line_judge is not None:
        read = answers(of_held, units_held)
        shares.append(judged(hard_line_judge, same(units_held), read, "; hard lines only"))
    if fallback is not None:
        read = answers(asked, units).plus(same(of_canaries))
        every = judged(fallback, same(units + n_canaries), read, NONE_EXPECTED)
        shares.append(at_most(every))
    if config.pressure:
        refusals = runs.of_refusals(config)
        ordinary, hard = _insisting(config, prompts, refusals, answer, counted)
        both = ordinary.plus(hard)
        after = f"; {_TURNS[config.pressure > 1].format(config.pressure)} after a refusal"
        basis = f"{refusals.basis}{after}, high is that all is refused to the last"
        asked_on = (both.requests, both.asked, both.answered)
        more = [_share("model", config.model, *asked_on, price, basis)]
        part = both if hard_line_judge is None else ordinary
        asking = [rubric for rubric in rubrics if rubric.asks_model]
        more += [judged(rubric, part.requests, part.read, after) for rubric in asking]
        if hard_line_judge is not None:
            role = f"{after}, hard lines only"
            more.append(judged(hard_line_judge, hard.requests, hard.read, role))
        if fallback is not None:
            role = f"{after}{NONE_EXPECTED}"
            more.append(at_most(judged(fallback, both.requests, both.read, role)))
        # Each turn needs the answer to the one before it, so these cannot go in a batch.
        shares = [replace(share, batch_usd=None) for share in shares]
        shares += [replace(share, insisting=True, batch_usd=None) for share in more]
    several = len(rubrics) > 1 or fallback is not None or hard_line_judge is not None
    shares = as_batched(shares, config, several=several)
    return RunEstimate(
        model=config.model,
        prompt_set=prompts.name,
        n_prompts=len(prompts),
        trials=config.trials,
        shares=tuple(shares),
        tokeniser=counted.name,
        notes=tuple(notes_on(config, shares, rubrics, n_canaries, runs)),
    )


class JudgeShares:
    """Makes the share of each judge, in a run or over recorded answers."""

    def __init__(self, config: RunConfig, runs: EarlierRuns, counted: Tokeniser) -> None:
        self._config, self._runs, self._counted = config, runs, counted

    def __call__(self, rubric: Rubric, requests: Span, read: Span, role: str = "") -> Share:
        """The share of one judge that reads `read` tokens of prompts and answers in all."""
        if not rubric.asks_model:
            return _share("judge", rubric.name, _ZERO, _ZERO, _ZERO, _FREE, "no request")
        fixed = self._counted.total((rubric.system, rubric.template)) + 2 * AROUND
        verdict, basis = self._runs.of_verdicts(rubric)
        read = read.plus(requests.times(fixed))
        price = price_at(rubric.model, self._config.judge_api_base, self._config.judge_via)
        written = verdict.each(requests)
        return _share("judge", judge_id(rubric), requests, read, written, price, basis + role)


def canary_tokens(config: RunConfig, counted: Tokeniser, *, graded: bool) -> tuple[int, int]:
    """How many canaries a judge labels, and their tokens."""
    canaries = choose_canaries(config.canaries, graded=graded)
    tokens = sum(counted.total((one.request, one.answer)) + AROUND for one in canaries)
    return len(canaries), tokens


def as_batched(shares: Iterable[Share], config: RunConfig, *, several: bool) -> list[Share]:
    """The shares with `batch_usd` set to the ordinary price for what cannot go into batches.

    What goes into batches is what ``batch`` names, or by default everything but the judges where
    there are `several`.
    """
    alone = {"model": {"judge"}, "judge": {"model"}}.get(str(config.batch), set())
    if several:
        alone = {*alone, "judge"}
    return [
        replace(share, batch_usd=share.cost_usd)
        if share.part in alone and not config.pressure
        else share
        for share in shares
    ]


_ZERO = Span(0.0, 0.0, 0.0)
_FREE = Price(0.0, 0.0, batch_factor=1.0)
NONE_EXPECTED = "; none expected, high is all"
_TURNS = ("{} turn", "up to {} turns")


def _share(
    part: Literal["model", "judge"],
    name: str,
    requests: Span,
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
    expected, most = round(requests.expected), round(requests.high)
    return Share(part, name, expected, most, incoming, outgoing, cost, basis, batched)


def same(figure: float) -> Span:
    """A known figure: low, expected and high are the same."""
    return Span(figure, figure, figure)


def at_most(share: Share) -> Share:
    """The share of a judge that may have to do nothing, which is expected, or everything."""

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
    return config.trials * sum(counted.total(_texts(p, config)) + AROUND for p in prompts)


def _insisting(
    config: RunConfig, prompts: PromptSet, refusals: Refusals, answer: Span, counted: Tokeniser
) -> tuple[Insisting, Insisting]:
    """The turns after refusals of ordinary requests, and after those of hard-line requests."""
    pressed = [prompt for prompt in prompts.prompts if is_pressed(prompt)]
    found = []
    for hard, refused in ((False, refusals.ordinary), (True, refusals.hard_lines)):
        group = [p for p in pressed if (p.category in prompts.hard_lines) is hard]
        found.append(
            insisting(
                len(group) * config.trials,
                _asked_tokens(group, config, counted),
                refused,
                refusals,
                answer,
                turns=config.pressure,
                counted=counted,
            )
        )
    return found[0], found[1]


def _texts(prompt: Prompt, config: RunConfig) -> list[str]:
    systems = [text for text in (config.system, prompt.system) if text]
    return [*systems, *(turn.content for turn in prompt.turns)]


def tells_deflections(
    config: RunConfig,
    rubrics: Sequence[Rubric],
    fallback: Rubric | None,
    hard_line_judge: Rubric | None,
) -> bool:
    """Whether the judge of the run is graded, by the rules of `Council` and `ComposedJudge`."""
    binary = sum(not rubric.is_graded for rubric in rubrics)
    majority = len(rubrics) > 1 and config.council in (None, "majority")
    graded = 2 * binary < len(rubrics) if majority else binary == 0
    if hard_line_judge is not None:
        graded = hard_line_judge.is_graded
    return graded and (fallback is None or fallback.is_graded)


def notes_on(
    config: RunConfig,
    shares: Sequence[Share],
    rubrics: Sequence[Rubric],
    n_canaries: int,
    runs: EarlierRuns,
) -> Iterable[str]:
    """What the figures leave out, and where they come from, in sentences."""
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
    for path in runs.skipped:
        yield f"{printable(path)} was skipped: its records cannot be read"
    yield from runs.unused
    yield (
        "retries are not counted, nor is the discount of a prompt cache; a judge is asked a second "
        "time if its first reply cannot be read"
    )
