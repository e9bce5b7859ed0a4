"""How long answers and verdicts were in earlier runs, and how often they were refusals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from refusalkit.config.run_config import RunConfig
from refusalkit.display import shows
from refusalkit.engine.earlier_refusals import count_refusals
from refusalkit.errors import RefusalkitError
from refusalkit.judges.rubrics import Rubric
from refusalkit.runs import frames
from refusalkit.runs.folder import Run
from refusalkit.untrusted import printable

_T = TypeVar("_T")

# Assumed lengths in tokens: a refusal of one sentence, an ordinary answer, a verdict.
_REFUSAL, _ANSWER = 30, 500
_VERDICT_LOW, _VERDICT = 15, 60
# Assumed share of the ordinary requests that are refused.
_REFUSED = 0.5


@shows("low", "expected", "high")
@dataclass(frozen=True, slots=True)
class Span:
    """An estimate: low, expected and high."""

    low: float
    """The 10th percentile of earlier answers, or a refusal of one sentence."""
    expected: float
    """Their mean, or an ordinary answer."""
    high: float
    """Their 90th percentile, or the limit on tokens."""

    def times(self, factor: float) -> Span:
        """Each of the three, multiplied."""
        return Span(self.low * factor, self.expected * factor, self.high * factor)

    def each(self, other: Span) -> Span:
        """Low times low, expected times expected, high times high."""
        return Span(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def plus(self, other: Span) -> Span:
        """Low with low, expected with expected, high with high."""
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often a model refuses, and still refuses when the user insists."""

    ordinary: float
    """Share of the ordinary requests that it refuses, 0 to 1."""
    hard_lines: float
    """Share of the hard-line requests that it refuses, 0 to 1."""
    held: float
    """Share of the turns of insistence after which it still refuses, 0 to 1."""
    output_tokens: float
    """Mean length of a refusal in tokens, reasoning included."""
    text_tokens: float
    """Mean length in tokens without reasoning, as the next turn repeats it to the model."""
    basis: str
    """Where the figures come from: earlier runs, or an assumption."""


class EarlierRuns:
    """How long answers and verdicts were in earlier runs, and how often they were refusals.

    `skipped` has runs that the user did not name and whose records cannot be read; `unused` says
    why the answers of others were left out.
    """

    def __init__(self, earlier: Sequence[Run], named: bool, beside: Collection[str]) -> None:
        self._earlier = earlier
        self._named = named
        self._beside = beside
        self.skipped: dict[Path, None] = {}
        self.unused: list[str] = []

    def of_answers(self, config: RunConfig) -> tuple[Span, str]:
        """Output tokens of an answer, and where they come from."""
        same, fit = self._of_model(config)
        self.unused = list(self._not_used(config, same))
        tokens, n_runs = self._read(fit, frames.output_tokens)
        if tokens:
            within = [min(count, config.max_tokens) for count in tokens]
            return _measured(within), f"{len(tokens)} answers of {count_runs(n_runs)}"
        how = f" with reasoning {config.reasoning}" if same and not fit else ""
        assumed = _assumed(_REFUSAL, _ANSWER, config.max_tokens)
        return assumed, f"assumed: no earlier run of this model{how}"

    def of_refusals(self, config: RunConfig) -> Refusals:
        """How often the model refuses and goes on refusing, and how long its refusals are."""
        _, fit = self._of_model(config)
        seen, n_runs = self._read(fit, lambda run: [count_refusals(run)])
        n_ordinary, n_hard = (
            sum(one.answers for one in seen),
            sum(one.hard_line_answers for one in seen),
        )
        n_turns = sum(one.turns for one in seen)
        refused = sum(one.refused for one in seen)
        hard_refused = sum(one.hard_line_refused for one in seen)
        lengths = [pair for one in seen for pair in one.lengths] or [(_REFUSAL, _REFUSAL)]
        written, shown = (
            min(sum(column) / len(lengths), config.max_tokens)
            for column in zip(*lengths, strict=True)
        )
        return Refusals(
            ordinary=refused / n_ordinary if n_ordinary else _REFUSED,
            hard_lines=hard_refused / n_hard if n_hard else 1.0,
            held=sum(one.turns_held for one in seen) / n_turns if n_turns else 1.0,
            output_tokens=written,
            text_tokens=shown,
            basis=(
                f"{refused + hard_refused} refusals of {count_runs(n_runs)}"
                if n_ordinary + n_hard
                else "assumed: half of the ordinary requests refused, and all on hard lines"
            ),
        )

    def _of_model(self, config: RunConfig) -> tuple[list[Run], list[Run]]:
        """All runs of the model, and those of them with the same reasoning setting."""
        same = [run for run in self._earlier if _model_of(run) == config.model]
        # With reasoning a model writes many times as much as without.
        return same, [run for run in same if _reasoning_of(run) == config.reasoning]

    def _not_used(self, config: RunConfig, same: Sequence[Run]) -> Iterable[str]:
        """Why earlier runs that a user might expect to be used were not."""
        others = [run for run in same if _reasoning_of(run) != config.reasoning]
        if not self._named:
            if others:
                were = "was" if len(others) == 1 else "were"
                yield (
                    f"{count_runs(len(others))} of this model {were} not used: made with a "
                    f"reasoning setting other than {config.reasoning}"
                )
            return
        for run in others:
            yield (
                f"the answers of {printable(run.path)} were not used: made with reasoning "
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
        judge = judge_id(rubric)
        same = [run for run in self._earlier if judge in run.manifest.judges]
        tokens, n_runs = self._read(same, lambda run: frames.output_tokens(run, judge))
        if tokens:
            return _measured(tokens), f"{len(tokens)} verdicts of {count_runs(n_runs)}"
        assumed = _assumed(_VERDICT_LOW, _VERDICT, rubric.max_tokens)
        return assumed, "assumed: no earlier run of this judge"

    def _read(self, runs: Sequence[Run], what: Callable[[Run], list[_T]]) -> tuple[list[_T], int]:
        found: list[_T] = []
        n_runs = 0
        for run in runs:
            try:
                found += what(run)
            except RefusalkitError:
                if self._named:
                    raise
                self.skipped[run.path] = None
            else:
                n_runs += 1
        return found, n_runs


def judge_id(rubric: Rubric) -> str:
    """A judge's id in a run's manifest."""
    return f"{rubric.name}:{rubric.model}"


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
    # If a few answers are very long, their mean may lie above the 90th percentile.
    return Span(min(low, mean), mean, max(high, mean))


def count_runs(count: int) -> str:
    """``1 earlier run``, ``2 earlier runs``."""
    return "1 earlier run" if count == 1 else f"{count} earlier runs"
