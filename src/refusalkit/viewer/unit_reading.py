"""Everything that a page shows of one unit, read from its places in the files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from refusalkit.errors import RecordError
from refusalkit.prompts.pressure import shipped_script
from refusalkit.reporting.document.parts import printable_lines
from refusalkit.runs.records import Place, read_records
from refusalkit.types import Label, Prompt
from refusalkit.viewer.prompts import KnownPrompts
from refusalkit.viewer.shelf import OpenedRun
from refusalkit.viewer.unit_index import UnitIndex

MAX_CHARS = 200_000
"""Maximum number of characters of one text that are shown."""


def list_rows(opened: OpenedRun, index: UnitIndex, rows: pl.Series) -> list[dict[str, Any]]:
    """What a list shows of some units."""
    titles = titles_of(opened)
    columns = ["unit", "prompt_id", "trial", "category", "hard_line", "outcome", "label"]
    columns += ["unscored", "leak", "differ", "twin", "framing"]
    found = index.units[rows.to_list()].select(columns)
    return [
        {**row, "title": titles.get(row["category"], row["category"]), "shown": shown(row["unit"])}
        for row in found.iter_rows(named=True)
    ]


def titles_of(opened: OpenedRun) -> dict[str, str]:
    """Titles of the run's categories by slug, fit for display."""
    return {each.slug: shown(each.title) for each in opened.manifest.prompt_set.categories}


def read_unit(
    opened: OpenedRun,
    index: UnitIndex,
    row: int,
    *,
    prompts: KnownPrompts | None,
    uncovered: bool,
) -> dict[str, Any]:
    """One unit with its conversation and every judge's verdict, as JSON values.

    Texts of hard-line units are left out unless `uncovered`; ``covered`` says if there are any.
    Raises `RecordError` where the unit is no longer at its place in the files.
    """
    facts = index.units.row(row, named=True)
    unit = facts["unit"]
    completion = _record(opened.run.completions, (facts["line"], facts["at"]), unit)
    prompt = None if prompts is None else prompts.by_id.get(facts["prompt_id"])
    is_hard = _is_hard(facts, opened, prompts)
    kept = isinstance(completion.get("text"), str)
    open_ = uncovered or not is_hard
    turns = _turns(opened, index.turns.get(unit, ()), unit)
    found: dict[str, Any] = {
        "unit": unit,
        "shown": shown(unit),
        "prompt_id": shown(facts["prompt_id"]),
        "trial": facts["trial"],
        "category": titles_of(opened).get(facts["category"], shown(facts["category"])),
        "hard_line": bool(facts["hard_line"]),
        "danger": facts["danger"],
        "twin": shown(facts["twin"]),
        "framing": shown(facts["framing"]),
        "leak": facts["leak"],
        "differ": facts["differ"],
        "label": facts["label"],
        "unscored": facts["unscored"],
        "outcome": facts["outcome"],
        "facts": _facts(completion),
        "covered": not open_ and (kept or prompt is not None),
        "is_hard": is_hard,
        "kept": kept,
        "text_chars": facts["text_chars"],
        "text": shown(completion["text"]) if kept and open_ else None,
        "conversation": _conversation(opened, prompt) if open_ else None,
        "tags": [] if prompt is None else [shown(tag) for tag in prompt.tags],
        "lang": None if prompt is None else shown(prompt.lang),
        "prompt_state": _prompt_state(prompts, prompt),
        "turns": _shown_turns(turns, open_),
        "verdicts": _verdicts(opened, index, facts, open_),
        "trials": trials_of(index, facts["prompt_id"]),
    }
    return found


def trials_of(index: UnitIndex, prompt_id: str) -> list[dict[str, Any]]:
    """All answers to a prompt: unit, trial, label."""
    own = index.units.filter(pl.col("prompt_id") == prompt_id)
    columns = ("unit", "trial", "label", "unscored", "leak")
    return own.select(columns).sort("trial").head(_MAX_TRIALS).to_dicts()


_MAX_TRIALS = 50


def shown(text: object) -> Any:
    """Text from outside, fit for display: hidden characters escaped, cut at `MAX_CHARS`.

    None stays None.
    """
    if text is None:
        return None
    return printable_lines(str(text)[:MAX_CHARS], MAX_CHARS)


_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _is_hard(facts: Mapping[str, Any], opened: OpenedRun, prompts: KnownPrompts | None) -> bool:
    """Whether texts are covered: the manifest or the prompt set marks the category a hard line."""
    if facts["twin"] is not None and opened.run.is_own:
        return False
    return bool(facts["hard_line"]) or is_hard_line(facts["category"], opened, prompts)


def is_hard_line(category: str, opened: OpenedRun, prompts: KnownPrompts | None) -> bool:
    """Whether texts of a category are covered; all of a stranger's run, until its set is read."""
    if prompts is None:
        return category in opened.manifest.hard_lines or not opened.run.is_own
    return category in opened.manifest.hard_lines | prompts.hard_lines


def _record(path: Any, place: Place, unit: str) -> Mapping[str, Any]:
    record = next((found for _, found in read_records(path, [place])), None)
    if record is None or record.get("unit") != unit:
        raise RecordError("the run's files have changed: load the page again")
    return record


def _moment(said: object) -> str | None:
    """The time of a record in a readable form; anything else unchanged."""
    text: str | None = shown(said)
    if text is None or not _MOMENT.fullmatch(text):
        return text
    return f"{text[:10]} {text[11:19]} UTC"


def _facts(completion: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values for the details of a unit."""
    names = ("model", "served_model", "finish_reason", "filter_category", "error", "error_detail")
    found = [(name.replace("_", " "), shown(completion.get(name))) for name in names]
    usage = completion.get("usage")
    if isinstance(usage, Mapping):
        counts = ("input_tokens", "output_tokens", "reasoning_tokens")
        found += [(name.replace("_", " "), shown(usage.get(name))) for name in counts]
    cost, latency = completion.get("cost_usd"), completion.get("latency_s")
    found.append(("cost", f"${cost:.4g}" if isinstance(cost, int | float) else None))
    found.append(("latency", f"{latency:.2f} s" if isinstance(latency, int | float) else None))
    found.append(("attempts", shown(completion.get("attempts"))))
    found.append(("at", _moment(completion.get("at"))))
    served = completion.get("served_model") in (None, completion.get("model"))
    return [
        (name, value)
        for name, value in found
        if value is not None and not (name == "served model" and served)
    ]


def _prompt_state(prompts: KnownPrompts | None, prompt: Prompt | None) -> str:
    """``there``, ``loading``, or why there is no prompt."""
    if prompt is not None:
        return "there"
    if prompts is None:
        return "loading"
    return str(shown(prompts.missing or "the set no longer has this prompt"))


def _conversation(opened: OpenedRun, prompt: Prompt | None) -> list[dict[str, Any]] | None:
    """The messages that the model was sent: role and text of each."""
    if prompt is None:
        return None
    system = [prompt.system or opened.manifest.config.get("system")]
    turns = [{"role": "system", "text": shown(text)} for text in system if text]
    return turns + [{"role": turn.role, "text": shown(turn.content)} for turn in prompt.turns]


def _turns(opened: OpenedRun, places: Sequence[Place], unit: str) -> list[Mapping[str, Any]]:
    """The records of the turns after a refusal."""
    records = [record for _, record in read_records(opened.run.pressure, places)] if places else []
    if any(record.get("unit") != unit for record in records):
        raise RecordError("the run's files have changed: load the page again")
    return records


def _shown_turns(records: Sequence[Mapping[str, Any]], open_: bool) -> list[dict[str, Any]]:
    script = shipped_script().turns
    found = []
    for record in records:
        answer, verdict = record.get("completion"), record.get("verdict")
        turn = record.get("turn")
        if not isinstance(answer, Mapping) or not isinstance(verdict, Mapping):
            continue
        if not isinstance(turn, int):
            continue
        found.append(
            {
                "turn": turn,
                "said": shown(script[turn - 1]) if 0 < turn <= len(script) else None,
                "text": shown(answer.get("text")) if open_ else None,
                "kept": isinstance(answer.get("text"), str),
                "outcome": shown(answer.get("outcome")),
                **_verdict(verdict, open_),
            }
        )
    return found


def _verdicts(
    opened: OpenedRun, index: UnitIndex, facts: Mapping[str, Any], open_: bool
) -> list[dict[str, Any]]:
    """Every judge's verdict, that of the judge of record first."""
    found = []
    for n, judge in enumerate(index.judges):
        at = facts[f"at_{n}"]
        is_own = judge == opened.manifest.judge
        said: dict[str, Any] = {"judge": shown(judge), "of_record": is_own}
        if at is None:
            found.append({**said, "label": None, "unscored": "no verdict", "reason": None})
            continue
        record = _record(opened.run.verdicts, (facts[f"line_{n}"], at), facts["unit"])
        found.append({**said, **_verdict(record, open_)})
    return sorted(found, key=lambda one: not one["of_record"])


def _verdict(record: Mapping[str, Any], open_: bool) -> dict[str, Any]:
    label = record.get("label")
    known = label if label in {each.value for each in Label} else None
    names = ("unscored", "source", "word", "rests_on", "answered_by")
    cut = record.get("cut_chars")
    return {
        "label": known,
        "reason": shown(record.get("reason")) if open_ else None,
        "has_reason": record.get("reason") is not None,
        **{name: shown(record.get(name)) for name in names},
        "cut_chars": cut if isinstance(cut, int) else 0,
    }
