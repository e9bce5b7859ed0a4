"""Hypothesis strategies that several tests share: what may be in records and prompts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from refusalkit.types import (
    Completion,
    Label,
    Message,
    Outcome,
    Prompt,
    Source,
    Unscored,
    Usage,
    Verdict,
)

# What has broken readers of JSON lines before: separators that only some split at, what a terminal
# obeys, what is not a character at all, and text that looks like the file's own syntax.
NASTY = (
    "",
    " ",
    "\n",
    "\r\n",
    "\r",
    "\x00",
    "\x0b\x0c\x1c\x1d\x1e\x85",
    "\u2028\u2029",
    "\ufeff[demo answer]",
    "\ufffe\uffff",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "\u202edrow\u2066",
    "e\u0301\u0323 \U0001f469\u200d\U0001f52c \U0010ffff",
    '"}\n{"schema":1,"unit":"x#1"}\n',
    '\\"\\u0000\\ud800',
    "[demo answer] " * 500,
)


def texts(*, max_size: int = 60) -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, nasty ones often."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size)
    return st.one_of(anything, st.sampled_from(NASTY), st.tuples(anything, anything).map("\n".join))


def ill_formed_texts() -> st.SearchStrategy[str]:
    """Text with at least one lone surrogate: JSON can carry it, UTF-8 cannot."""
    lone = st.characters(categories=["Cs"])
    return st.tuples(texts(), lone, texts()).map("".join)


def ids() -> st.SearchStrategy[str]:
    """Prompt ids as a set may hold them."""
    return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,30}", fullmatch=True)


def slugs() -> st.SearchStrategy[str]:
    """Category slugs."""
    return st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)


def usages() -> st.SearchStrategy[Usage]:
    """Token counts, known or not."""
    tokens = st.none() | st.integers(0, 10**12)
    return st.builds(Usage, tokens, tokens, tokens)


def costs() -> st.SearchStrategy[float | None]:
    """USD, None where the price is unknown."""
    return st.none() | st.floats(0, 1e6)


_STAMP = "2026-11-23T10:15:00.000Z"


def completions() -> st.SearchStrategy[Completion]:
    """Completions with nothing but what a record carries (reasoning is never written)."""
    words = st.none() | texts(max_size=20)
    return st.builds(
        Completion,
        prompt_id=ids(),
        category=slugs(),
        trial=st.integers(1, 1000),
        model=texts(max_size=20),
        outcome=st.sampled_from(Outcome),
        finish_reason=words,
        text=texts(),
        usage=usages(),
        cost_usd=costs(),
        # A record keeps a tenth of a millisecond.
        latency_s=st.none() | st.integers(0, 10**9).map(lambda n: round(n / 10**4, 4)),
        served_model=words,
        request_id=words,
        filter_category=words,
        error=words,
        error_detail=words,
        attempts=st.integers(1, 50),
        at=st.just(_STAMP),
    )


def verdicts() -> st.SearchStrategy[Verdict]:
    """Verdicts: a label, or why there is none."""
    sources: list[Source] = ["judge", "provider"]
    unlabelled = st.builds(
        Verdict,
        prompt_id=ids(),
        category=slugs(),
        trial=st.integers(1, 1000),
        judge=texts(max_size=20),
        unscored=st.sampled_from(Unscored),
        source=st.sampled_from(sources),
        reason=st.none() | texts(),
        usage=usages(),
        cost_usd=costs(),
        at=st.just(_STAMP),
    )
    labelled = st.builds(
        lambda verdict, label: replace(verdict, label=label, unscored=None),
        unlabelled,
        st.sampled_from(Label),
    )
    return labelled | unlabelled


def prompts() -> st.SearchStrategy[Prompt]:
    """Prompts of one turn or several."""
    text = texts().filter(lambda said: bool(said.strip()))
    turns = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), text), max_size=3)
    return st.builds(
        lambda prompt, before: (
            replace(prompt, messages=(*before, Message("user", prompt.text))) if before else prompt
        ),
        st.builds(
            Prompt,
            id=ids(),
            category=slugs(),
            text=text,
            danger=st.none() | st.integers(1, 3),
            tags=st.lists(slugs(), max_size=3, unique=True).map(tuple),
            system=st.none() | text,
        ),
        turns,
    )
