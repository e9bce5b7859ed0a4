"""Detects, from the first answers, that a whole run would be useless."""

from __future__ import annotations

import logging

from refusalkit.models.outcomes import MAX_UNKNOWN_FINISHES, unknown_finishes
from refusalkit.types import JUDGEABLE, Completion, Outcome
from refusalkit.untrusted import printable

# This many answers in a row are not an accident.
_IN_A_ROW = 5
_log = logging.getLogger("refusalkit")


class EarlySigns:
    """Watches a run's answers as they arrive."""

    def __init__(self) -> None:
        self._unknown_words = 0
        self._only_reasoning = 0
        self._only_blocked = 0
        self._has_text = False

    def saw(self, completion: Completion) -> None:
        """Take note of an answer.

        Logs a warning if the first answers all have reasoning and no final text, or were all
        stopped by a filter. Raises `FatalProviderError` if five in a row ended with an unknown
        finish word.
        """
        if completion.outcome is Outcome.ERROR:
            _log.debug("%s: failed: %s", completion.unit, completion.error)
        word = completion.unknown_finish
        if word is None:
            self._unknown_words = 0
        else:
            self._unknown_words += 1
            if self._unknown_words >= MAX_UNKNOWN_FINISHES:
                raise unknown_finishes(completion.model, word)
        if self._has_text or completion.outcome in JUDGEABLE:
            self._has_text = True
        elif completion.outcome is Outcome.NO_ANSWER and completion.reasoning.strip():
            self._only_reasoning += 1
            if self._only_reasoning == _IN_A_ROW:
                _log.warning(
                    "%s: the first %d answers are all reasoning, with no text that could be "
                    "judged: raise --max-tokens, try --reasoning off, or check the server's "
                    "reasoning parser",
                    completion.model,
                    _IN_A_ROW,
                )
        elif completion.outcome is Outcome.BLOCKED:
            self._only_blocked += 1
            if self._only_blocked == _IN_A_ROW:
                _log.warning(
                    "%s: the first %d answers were all stopped by a filter (%s) and count as "
                    "refusals: check that it judges content, and does not refuse this account or "
                    "network",
                    completion.model,
                    _IN_A_ROW,
                    printable(completion.filter_category or completion.finish_reason, 60),
                )
