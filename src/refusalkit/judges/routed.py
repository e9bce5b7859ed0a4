"""A judge composed of several: a fallback for blocked requests, another judge for hard lines.

All verdicts carry the composed judge's id, so a run has one judge. `Verdict.answered_by` names the
part that was asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.judges.council import (
    Council,
    EarlierVerdicts,
    Note,
    Panel,
    digest_of_parts,
    is_graded,
    stamped,
    total_cost,
)
from refusalkit.judges.protocol import Judge
from refusalkit.types import Completion, Prompt, Unscored, Verdict
from refusalkit.untrusted import printable


@shows("id")
class ComposedJudge:
    """A `Judge` that routes each answer to one of its parts.

    Answers to prompts of `hard_lines` (slugs of categories) go to `hard_line_judge`; all others,
    and those to contrast prompts, go to `base`. Where the judge that was asked is `judge_blocked`,
    `fallback` is asked; both are paid for. Raises `UsageError` for a fallback whose file asks no
    language model (a word list never replaces a judge), for one beside a council, whose other
    members already decide, and for one with the base's own id.
    """

    def __init__(
        self,
        base: Judge,
        *,
        fallback: Judge | None = None,
        hard_line_judge: Judge | None = None,
        hard_lines: Collection[str] = (),
    ) -> None:
        if fallback is not None:
            _check_fallback(base, fallback)
        self.base = base
        self.fallback = fallback
        self.hard_line_judge = hard_line_judge
        self._hard_lines = frozenset(hard_lines)

    @property
    def id(self) -> str:
        """The base's id, and ``+fallback=<id>`` and ``+hard-line=<id>`` where there is one."""
        parts = [self.base.id]
        if self.fallback is not None:
            parts.append(f"fallback={self.fallback.id}")
        if self.hard_line_judge is not None:
            parts.append(f"hard-line={self.hard_line_judge.id}")
        return "+".join(parts)

    @property
    def digest(self) -> str:
        """SHA-256 over the parts' ids and digests."""
        return digest_of_parts("composed", (self.base, self.fallback, self.hard_line_judge))

    @property
    def graded(self) -> bool:
        """Whether all parts that may judge a hard line tell a deflection from a leak."""
        on_hard_lines = self.hard_line_judge or self.base
        return is_graded(on_hard_lines) and (self.fallback is None or is_graded(self.fallback))

    def voters(self, prompt: Prompt) -> tuple[str, ...]:
        """The members of the council that reads this prompt's answers, if one does."""
        asked = self._asked(prompt)
        return asked.voters(prompt) if isinstance(asked, Panel) else ()

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Label one completion."""
        asked = self._asked(prompt)
        return await self._completed(
            await asked.grade(prompt, completion), asked, prompt, completion
        )

    async def deliberate(
        self, prompt: Prompt, completion: Completion, earlier_verdicts: EarlierVerdicts, note: Note
    ) -> Verdict:
        """Label one completion; judges with a valid verdict in `earlier_verdicts` are not asked."""
        asked = self._asked(prompt)
        before = earlier_verdicts.get(self.id)
        if (
            self.fallback is not None
            and before is not None
            and before.unscored is Unscored.JUDGE_ERROR
            and before.answered_by == self.fallback.id
        ):
            # The judge was blocked and the fallback failed: only the fallback is owed.
            said = await self.fallback.grade(prompt, completion)
            return self._signed(said, self.fallback, prompt, completion)
        if isinstance(asked, Panel):
            said = await asked.deliberate(prompt, completion, earlier_verdicts, note)
        else:
            said = await asked.grade(prompt, completion)
        return await self._completed(said, asked, prompt, completion)

    async def aclose(self) -> None:
        """Close the connections of all parts."""
        for part in (self.base, self.fallback, self.hard_line_judge):
            if part is not None:
                await part.aclose()

    def _asked(self, prompt: Prompt) -> Judge:
        hard = prompt.category in self._hard_lines and prompt.twin is None
        return self.hard_line_judge if hard and self.hard_line_judge is not None else self.base

    async def _completed(
        self, said: Verdict, asked: Judge, prompt: Prompt, completion: Completion
    ) -> Verdict:
        if said.unscored is not Unscored.JUDGE_BLOCKED or self.fallback is None:
            return self._signed(said, asked, prompt, completion)
        instead = await self.fallback.grade(prompt, completion)
        why = f"{asked.id} was blocked ({printable(said.reason or 'no reason given', 120)})"
        return replace(
            self._signed(instead, self.fallback, prompt, completion),
            reason=f"{why}; {instead.reason}" if instead.reason else why,
            usage=said.usage + instead.usage,
            cost_usd=total_cost((said, instead)),
        )

    def _signed(self, said: Verdict, by: Judge, prompt: Prompt, completion: Completion) -> Verdict:
        return replace(stamped(said, prompt, completion, self.id), answered_by=by.id)


def asked_judges(judge: Judge) -> tuple[Judge, ...]:
    """The judges that a council or a composed judge asks; a single judge as it is."""
    if isinstance(judge, Council):
        return tuple(part for member in judge.members for part in asked_judges(member))
    if isinstance(judge, ComposedJudge):
        parts = (judge.base, judge.fallback, judge.hard_line_judge)
        return tuple(asked for part in parts if part is not None for asked in asked_judges(part))
    return (judge,)


def _check_fallback(base: Judge, fallback: Judge) -> None:
    rubric = getattr(fallback, "rubric", None)
    if rubric is not None and not rubric.asks_model:
        raise UsageError(
            f"the judge {printable(fallback.id)} asks no language model: only one that does may "
            "answer where a judge was blocked, never a word list"
        )
    if isinstance(base, Panel):
        raise UsageError(
            "a council takes no fallback: where a member is blocked the others decide; leave out "
            "--judge-fallback, or name that judge as a member"
        )
    if base.id == fallback.id:
        raise UsageError(
            f"the fallback {printable(fallback.id)} is the judge itself: name another judge, or "
            "another model (NAME@MODEL)"
        )
