"""Shortens a very long answer for a judge: its head, a line that says so, its tail."""

from __future__ import annotations

from refusalkit.judges.rubrics import AnswerLimits

# A longer cluster, such as a pile of combining marks, is split anyway.
_MAX_CLUSTER = 64


def excerpt(text: str, limits: AnswerLimits | None, nonce: str) -> tuple[str, int]:
    """What a judge is shown of an answer, and how many code points of it are left out.

    The line in place of the middle carries `nonce`, which an answer cannot know, so that no answer
    can pretend to have been cut. No more than `limits` allow is shown, and no grapheme cluster is
    split.
    """
    if limits is None or len(text) <= limits.answer_chars:
        return text, 0
    head, _ = _boundaries(text, limits.head_chars)
    _, tail = _boundaries(text, len(text) - limits.tail_chars)
    missing = tail - head
    line = f"CUT {nonce}: {missing} characters of the answer are not shown here"
    return f"{text[:head]}\n{line}\n{text[tail:]}", missing


def _boundaries(text: str, at: int) -> tuple[int, int]:
    """Ends of the grapheme cluster that a cut at `at` would split; (at, at) if it splits none."""
    import regex  # here, because it is slow to import and few answers are so long

    # A cluster never spans a line end, so the search can begin at any line.
    begin = max(text.rfind("\n", 0, at) + 1, at - 4 * _MAX_CLUSTER)
    for cluster in regex.finditer(r"\X", text, pos=begin, endpos=at + _MAX_CLUSTER):
        start, end = int(cluster.start()), int(cluster.end())
        if end >= at:
            splits = start < at < end <= start + _MAX_CLUSTER
            return (start, end) if splits else (at, at)
    return at, at
