"""How far a run is, in words."""

from __future__ import annotations

from refusalkit.engine.plan import Progress


def describe(progress: Progress) -> str:
    """One line: completions, verdicts, refusals, unscored, cost, time left."""
    parts = [
        f"{progress.completions}/{progress.planned} answered",
        f"{progress.verdicts} judged",
        f"{progress.refusals} refusals",
        f"{progress.unscored} unscored",
        "cost unknown" if progress.cost_usd is None else f"${progress.cost_usd:.2f}",
    ]
    if (left := time_left(progress)) is not None:
        parts.append(left)
    return ", ".join(parts)


def time_left(progress: Progress) -> str | None:
    """How long the rest will take, such as ``1:05 left``; None where unknown, or finished."""
    if progress.eta_s is None or progress.verdicts >= progress.planned:
        return None
    minutes, seconds = divmod(round(progress.eta_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} days left"
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def fitted(progress: Progress, room: int) -> str:
    """How far a run is, in at most `room` characters: the less important figures are left out.

    How many are judged and the time left are never left out.
    """
    judged, left = f"{progress.verdicts}/{progress.planned}", time_left(progress)
    spent = "cost unknown" if progress.cost_usd is None else f"${progress.cost_usd:.2f}"
    # In the order of the line, each with its rank: the highest rank is left out first.
    parts = [
        (0, f"{judged} judged"),
        (1, left or ""),
        (6, f"{progress.completions} answered"),
        (3, f"{progress.refusals} refusals"),
        (2 if progress.unscored else 5, f"{progress.unscored} unscored"),
        (4, spent),
    ]
    for rank in range(6, 0, -1):
        text = ", ".join(part for at, part in parts if at <= rank and part)
        if len(text) <= room:
            return text
    return f"{judged}, {left}" if left else judged


def shortened(name: str, room: int) -> str:
    """A name in `room` characters: its beginning and its end, which tell models apart."""
    if len(name) <= room:
        return name
    ending = max(1, (room - 1) * 2 // 3)
    return f"{name[: room - 1 - ending]}…{name[-ending:]}"
