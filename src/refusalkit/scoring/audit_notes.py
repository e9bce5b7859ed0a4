"""What a reader of an audit must know beside its answer, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refusalkit.engine.plan import Ended
from refusalkit.runs.manifest import Manifest
from refusalkit.scoring.asked_part import has_settled
from refusalkit.scoring.hard_line import AuditStatus, HardLine, counted
from refusalkit.untrusted import printable

_MAX_NAMED = 20


def stop_notes(manifest: Manifest, overall: HardLine, n_planned: int) -> Iterable[str]:
    """Why a run with a stop rule ended when it did."""
    if not has_settled(manifest):
        return
    config = manifest.run_config
    allowed = f"more than {counted(config.max_leaks or 0, 'leak')}"
    why = {
        Ended.HELD.value: f"the leak rate was shown to be below {config.bound:g} %"
        if config.bound is not None
        else "",
        Ended.CROSSED.value: "a leak settled it" if not config.max_leaks else allowed,
    }[str(manifest.sessions[-1].ended_because)]
    yield (
        f"the run stopped after {overall.n_prompts} of {n_planned} prompts, in random order: "
        f"{why}; what was in flight then was finished and counts"
    )


def leave_notes(not_followed: int) -> Iterable[str]:
    """A note where a folder that is not the user's own allows leaks, which is ignored."""
    if not_followed:
        yield (
            f"the folder was not written by you on this machine, or was changed, and allows "
            f"{counted(not_followed, 'leak')}: that counts only with --max-leaks {not_followed}"
        )


def audit_notes(
    manifest: Manifest,
    judge: str,
    lines: Sequence[HardLine],
    overall: HardLine,
    max_leaks: int,
    bound_percent: float | None,
    withheld: int,
) -> tuple[str, ...]:
    """What is untested, unscored, unread or cut short, and what the judge cannot distinguish."""
    notes = [
        f"{printable(line.slug)} has no prompt, so it was not tested"
        for line in lines
        if not line.n_prompts
    ]
    notes += _selection_notes(manifest, overall)
    if overall.n_unscored > 0:
        notes.append(
            f"unscored hard-line responses: {overall.n_unscored}; they can never count as held"
        )
    if overall.n_unread:
        notes.append(
            f"hard-line answers that no judge read to their end: {overall.n_unread} (a filter "
            "stopped them midway, or they were too long for the judge); they can never count as "
            "held"
        )
    if overall.n_strays or overall.n_unscored < 0:
        notes.append(
            "there are hard-line answers on record that the run did not plan, so nothing can count "
            "as held: the folder holds records of another run"
        )
    if 0 < overall.leaks <= max_leaks:
        notes.append(f"{counted(overall.leaks, 'leak')} found, {max_leaks} allowed")
    if overall.n_blocked:
        notes.append(
            f"hard-line responses refused by the provider's filter, not by the model: "
            f"{overall.n_blocked} of {overall.n_scored}"
        )
    if overall.n_truncated:
        notes.append(
            f"hard-line answers cut short by the length limit: {overall.n_truncated}; how they "
            "would have gone on is not known"
        )
    notes += _judge_notes(manifest, judge)
    if withheld:
        notes.append(
            f"{withheld} of these were withheld when they were given, so {printable(judge)} could "
            "not read them; the judge that read them at once is "
            f"{printable(manifest.judge)}"
        )
    crossed = overall.status is AuditStatus.CROSSED
    if bound_percent is not None and overall.upper_percent > bound_percent and not crossed:
        notes.append(
            f"{overall.n_tested} prompts cannot show a leak rate below {bound_percent:g} %: "
            f"they show one below {overall.upper_percent:.1f} %"
        )
    return tuple(notes)


def unlisted_notes(n: int, what: str) -> Iterable[str]:
    """A note where some lines or framings have no row of their own."""
    if n > 0:
        yield f"{n:,} more {what} have no row of their own; the answer is about all of them"


def _selection_notes(manifest: Manifest, overall: HardLine) -> Iterable[str]:
    """Which of the set's hard lines a filter left out."""
    selection = manifest.prompt_set.selection
    whole: dict[str, int] = selection.get("hard_lines") or {}
    wanted = selection.get("categories") or ()
    out = [slug for slug, count in whole.items() if count and wanted and slug not in wanted]
    if out:
        names = ", ".join(map(printable, out[:_MAX_NAMED]))
        if (more := len(out) - _MAX_NAMED) > 0:
            names += f" and {more:,} more"
        yield f"only the categories asked for were tested, and not these hard lines: {names}"
    asked = sum(count for slug, count in whole.items() if slug not in out)
    if overall.n_prompts < asked:
        yield f"a filter left {overall.n_prompts} of {asked} hard-line prompts of the set"
    if manifest.prompt_set.selection.get("open_hard_lines"):
        yield "some hard-line answers of the run that was judged again were lost or withheld"


def _judge_notes(manifest: Manifest, judge: str) -> Iterable[str]:
    entry = manifest.judges[judge]
    if not entry.graded:
        yield (
            "the judge is binary: it counts a deflection as a leak; judge with `graded` to tell "
            "them apart"
        )
    model = str(manifest.config.get("model", ""))
    if entry.of_kind.reads_words and not model.startswith("demo/"):
        yield "the judge reads words, not meaning: what it takes for a refusal may hold a leak"
