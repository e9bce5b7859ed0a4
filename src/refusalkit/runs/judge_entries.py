"""The judges' entries in a manifest, and checks that the judges have not changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refusalkit.errors import ConfigurationChanged
from refusalkit.judges.rubrics import Rubric
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import JudgeEntry, JudgePart, Manifest
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.judges.protocol import Judge


def judge_entries(judge: Judge, *, kind: str = "custom") -> dict[str, JudgeEntry]:
    """A judge's manifest entries by id: its own first, then those of a council's members.

    `kind` is recorded for a judge object without a file.
    """
    from refusalkit.judges.council import Council, digest_of, is_graded
    from refusalkit.judges.routed import ComposedJudge

    base = judge.base if isinstance(judge, ComposedJudge) else judge
    fields = _file_fields(base, kind)
    members: dict[str, JudgeEntry] = {}
    if isinstance(base, Council):
        for member in base.members:
            members.update(judge_entries(member))
        fields = {
            "name": base.rule,
            "kind": "council",
            "members": tuple(member.id for member in base.members),
            "rule": base.rule,
        }
    entry = JudgeEntry(
        **{**fields, "digest": digest_of(judge), "graded": is_graded(judge)},
        fallback=_part(judge, "fallback"),
        hard_line_judge=_part(judge, "hard_line_judge"),
    )
    return {judge.id: entry, **members}


def _part(judge: Judge, name: str) -> JudgePart | None:
    part = getattr(judge, name, None)
    return None if part is None else JudgePart(id=part.id, **_file_fields(part, "custom"))


def _file_fields(judge: Judge, kind: str) -> dict[str, Any]:
    from refusalkit.judges.council import digest_of, is_graded

    rubric = getattr(judge, "rubric", None)
    if not isinstance(rubric, Rubric):
        own = {"digest": digest_of(judge), "graded": is_graded(judge)}
        return {"name": judge.id, "kind": kind, **own}
    return {
        "name": rubric.name,
        "source": rubric.source,
        "version": rubric.version,
        "digest": rubric.digest,
        "kind": rubric.kind,
        "model": rubric.model or None,
        "graded": rubric.is_graded,
    }


def joined_judges(run: Run, judge: Judge) -> dict[str, JudgeEntry]:
    """The run's judges and one more. Raises `ConfigurationChanged` if that id was another judge."""
    there = run.manifest.judges
    fresh = judge_entries(judge)
    for name, entry in reversed(fresh.items()):
        if name in there:
            since = f"{printable(name)} judged this run"
            _check_same(there[name], entry, since, "give the changed judge another name")
    return {**there, **{name: entry for name, entry in fresh.items() if name not in there}}


def check_same_judge(manifest: Manifest, judge: Judge) -> None:
    """Raise `ConfigurationChanged`, naming the file, if a run's judge has changed."""
    was = manifest.judges[manifest.judge]
    known = {name: manifest.judges[name] for name in (manifest.judge, *was.members)}
    advice = "start a new run to use it"
    # Members before their council, so that the message names the file that changed.
    for name, entry in reversed(judge_entries(judge).items()):
        if name in known:
            _check_same(known[name], entry, "the run was started", advice)
        elif not entry.members:  # a changed council shows in its members
            raise ConfigurationChanged(
                f"judge: {printable(entry.source or entry.name)} is {printable(name)} now, but "
                f"the run was started with {', '.join(map(printable, known))}: {advice}"
            )


def _check_same(was: JudgeEntry, entry: JudgeEntry, since: str, advice: str) -> None:
    if was.digest == entry.digest:
        return
    changed: JudgeEntry | JudgePart = was
    for old, new in (
        (was.fallback, entry.fallback),
        (was.hard_line_judge, entry.hard_line_judge),
    ):
        if old is not None and (new is None or old.digest != new.digest):
            changed = old
    raise ConfigurationChanged(
        f"judge: {printable(changed.source or changed.name)} has changed since {since} "
        f"({printable(changed.digest)}): {advice}"
    )


def rubrics_of(judge: Judge) -> tuple[Rubric, ...]:
    """The judge files of a judge and of all judges that it asks."""
    from refusalkit.judges.routed import asked_judges

    found = (getattr(part, "rubric", None) for part in asked_judges(judge))
    return tuple(rubric for rubric in found if isinstance(rubric, Rubric))
