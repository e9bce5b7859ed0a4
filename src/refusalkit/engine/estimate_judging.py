"""Estimates the judging of recorded answers, or of a run that is judged again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refusalkit.config.run_config import RunConfig
from refusalkit.engine.estimate import (
    NONE_EXPECTED,
    JudgeShares,
    RunEstimate,
    as_batched,
    at_most,
    canary_tokens,
    notes_on,
    same,
    tells_deflections,
)
from refusalkit.engine.insistence_estimate import AROUND
from refusalkit.engine.lengths import EarlierRuns
from refusalkit.judges.excerpt import excerpt
from refusalkit.judges.rubrics import Rubric
from refusalkit.models.tokens import Tokeniser, tokeniser
from refusalkit.runs.folder import Run
from refusalkit.runs.imported.answers import RecordedAnswers
from refusalkit.types import Prompt, unit_id


def estimate_judging(
    config: RunConfig,
    answers: RecordedAnswers,
    rubrics: Sequence[Rubric],
    earlier: Iterable[Run] = (),
    *,
    fallback: Rubric | None = None,
    hard_line_judge: Rubric | None = None,
    named: bool = True,
) -> RunEstimate:
    """Estimate what it takes to judge recorded answers.

    The tokens of prompts and answers are counted; of a long answer, those of the excerpt that the
    judge sees. Verdicts are assumed to be as long as in the `earlier` runs, as in `estimate_run`.
    """
    counted = tokeniser()
    runs = EarlierRuns(tuple(earlier), named, ())
    hard_lines = answers.prompts.hard_lines if hard_line_judge is not None else frozenset()
    held = [(p, t) for p, t in answers.units if p.category in hard_lines and p.twin is None]
    rest = [unit for unit in answers.units if unit not in held] if held else list(answers.units)
    graded = tells_deflections(config, rubrics, fallback, hard_line_judge)
    n_canaries, of_canaries = canary_tokens(config, counted, graded=graded)
    judged = JudgeShares(config, runs, counted)

    def read(units: Sequence[tuple[Prompt, int]], rubric: Rubric) -> int:
        return sum(_tokens(prompt, trial, answers, rubric, counted) for prompt, trial in units)

    shares = [
        judged(rubric, same(len(rest) + n_canaries), same(read(rest, rubric) + of_canaries))
        for rubric in rubrics
    ]
    if hard_line_judge is not None:
        tokens = same(read(held, hard_line_judge))
        shares.append(judged(hard_line_judge, same(len(held)), tokens, "; hard lines only"))
    if fallback is not None:
        tokens = same(read(answers.units, fallback) + of_canaries)
        every = same(len(answers.units) + n_canaries)
        shares.append(at_most(judged(fallback, every, tokens, NONE_EXPECTED)))
    several = len(rubrics) > 1 or fallback is not None or hard_line_judge is not None
    shares = as_batched(shares, config, several=several)
    return RunEstimate(
        model=config.model,
        prompt_set=answers.prompts.name,
        n_prompts=len(answers.prompts),
        trials=config.trials,
        shares=tuple(shares),
        tokeniser=counted.name,
        notes=(
            *_left_out(answers),
            *notes_on(config, shares, rubrics, n_canaries, runs),
        ),
        n_answers=len(answers.units),
    )


def _tokens(
    prompt: Prompt, trial: int, answers: RecordedAnswers, rubric: Rubric, counted: Tokeniser
) -> int:
    """Tokens of one answer and its request, as a judge sees them."""
    shown, _ = excerpt(answers.responses[unit_id(prompt.id, trial)], rubric.limits, "")
    return counted.total((*(turn.content for turn in prompt.turns), shown)) + AROUND


def _left_out(answers: RecordedAnswers) -> Iterable[str]:
    if answers.left_out:
        left = ", ".join(f"{count} {why}" for why, count in sorted(answers.left_out.items()))
        yield f"what cannot be judged is not counted: {left}"
