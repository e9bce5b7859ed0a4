"""Labelling in the viewer: it writes the same files as `judges label`, open while in use.

Nothing that is returned here shows a judge's label before the annotator has finished.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from refusalkit.api.labelling import Item, Labelled, Labelling, labelling_of
from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.prompts.fetch import from_cache_only
from refusalkit.runs.folder import Run
from refusalkit.runs.frames import RunRecords
from refusalkit.runs.imported.person_labels import PersonLabels, read_person_labels
from refusalkit.runs.records import read_records
from refusalkit.scoring.agreement.judge_pairs import JudgeAgreements, judge_agreements
from refusalkit.types import Label, Prompt
from refusalkit.viewer.prompts import KnownPrompts
from refusalkit.viewer.shelf import OpenedRun
from refusalkit.viewer.unit_index import UnitIndex
from refusalkit.viewer.unit_reading import is_hard_line, shown, titles_of

_IDLE_S = 900.0
# Seconds that the first draw waits for the run to be read.
_PATIENCE_S = 120.0
_MAX_NAME = 60
_MAX_N = 5_000


@dataclass
class _Open:
    """A label file that is held for writing."""

    labelling: Labelling
    stack: contextlib.ExitStack
    used: float


class Labels:
    """The label files that are open, by run and annotator."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}
        self._lock = threading.Lock()

    def start(self, opened: OpenedRun, annotator: str, n: int) -> dict[str, Any]:
        """Draw `n` answers, or go on with the annotator's file, whose own draw then holds.

        Raises `UsageError`, and what `open_labelling` raises.
        """
        annotator = annotator.strip()
        if not annotator or len(annotator) > _MAX_NAME or not annotator.isprintable():
            raise UsageError(f"the annotator's name must be 1 to {_MAX_NAME} printable characters")
        if not 1 <= n <= _MAX_N:
            raise UsageError(f"the number of answers must be 1 to {_MAX_N}")
        with self._lock:
            self._close_idle()
            key = (opened.id, annotator)
            if key not in self._open:
                begun = next((f for f in label_files(opened) if f.annotator == annotator), None)
                drawn = n if begun is None else begun.sample.n
                seed = 0 if begun is None else begun.sample.seed
                judge = None if begun is None else begun.sample.judge
                stack = contextlib.ExitStack()
                with from_cache_only():
                    labelling = stack.enter_context(
                        labelling_of(
                            _answers(opened), n=drawn, annotator=annotator, seed=seed, judge=judge
                        )
                    )
                self._open[key] = _Open(labelling, stack, time.monotonic())
            return self._told(opened, key)

    def act(self, opened: OpenedRun, annotator: str, what: str, unit: str) -> dict[str, Any]:
        """Label the answer `unit` (`what` is the label), ``skip`` it, or ``undo`` the last step.

        Raises `UsageError` where `unit` is not the next answer or the file is not open.
        """
        with self._lock:
            key = (opened.id, annotator.strip())
            held = self._open.get(key)
            if held is None:
                raise UsageError("the label file is not open (any more): load the page again")
            labelling = held.labelling
            if what == "undo":
                if labelling.undo() is None:
                    raise UsageError("nothing was labelled in this session: nothing to undo")
                return self._told(opened, key)
            item = labelling.next()
            if item is None or item.unit != unit:
                raise UsageError("another answer is the next one by now: load the page again")
            if what == "skip":
                labelling.skip(item)
            elif what in {label.value for label in Label}:
                labelling.label(item, what)
            else:
                raise UsageError("a label must be refusal, deflection, partial or compliance")
            return self._told(opened, key)

    def current(
        self, opened: OpenedRun, annotator: str, *, uncovered: bool
    ) -> dict[str, Any] | None:
        """The answer to be labelled next, without verdicts; None at the end."""
        with self._lock:
            held = self._open.get((opened.id, annotator.strip()))
            item = None if held is None else held.labelling.next()
        return None if item is None else _shown_item(opened, item, uncovered=uncovered)

    def close(self, opened: OpenedRun, annotator: str) -> None:
        """Close a label file, so that another program can write it."""
        with self._lock:
            held = self._open.pop((opened.id, annotator.strip()), None)
            if held is not None:
                held.stack.close()

    def close_all(self) -> None:
        """Close all label files."""
        with self._lock:
            for held in self._open.values():
                held.stack.close()
            self._open.clear()

    def _close_idle(self) -> None:
        for key, held in list(self._open.items()):
            if time.monotonic() - held.used > _IDLE_S:
                self._open.pop(key).stack.close()

    def _told(self, opened: OpenedRun, key: tuple[str, str]) -> dict[str, Any]:
        held = self._open[key]
        held.used = time.monotonic()
        labelling = held.labelling
        return {
            "annotator": shown(key[1]),
            "n": len(labelling.items),
            "n_labelled": labelling.n_labelled,
            "n_skipped": labelling.n_skipped,
            "n_left": labelling.n_left,
            "n_not_kept": labelling.n_not_kept,
            "file": shown(labelling.path.name),
        }


class _InMemory(Labelled):
    """A run that the viewer has read: only the texts of drawn answers are read again."""

    def __init__(self, run: Run, index: UnitIndex, prompts: KnownPrompts) -> None:
        super().__init__(run)
        self._index, self._prompts = index, prompts

    def prompts(self) -> Mapping[str, Prompt]:
        return self._prompts.by_id

    def rows(self, judge: str) -> pl.DataFrame:
        n = self._index.judges.index(self.run.manifest.judge_id(judge))
        source = pl.when(pl.col(f"own_{n}")).then(pl.lit("judge"))
        return self._index.units.with_columns(label=pl.col(f"label_{n}"), source=source)

    def texts(self, units: Collection[str]) -> Mapping[str, str]:
        places = self._index.units.filter(pl.col("unit").is_in(list(units))).select("line", "at")
        read = read_records(self.run.completions, places.sort("line").iter_rows())
        found = {str(record["unit"]): record.get("text") for _, record in read}
        return {unit: text for unit, text in found.items() if unit in units and text is not None}


def _answers(opened: OpenedRun) -> Labelled:
    """A run's answers: from memory where the viewer could read them all, else from the files."""
    index, prompts = opened.index.get(_PATIENCE_S), opened.prompts(_PATIENCE_S)
    if index is None or prompts is None or prompts.missing is not None:
        return Labelled(opened.run)  # raises an error that says what is wrong
    return _InMemory(opened.run, index, prompts)


def _shown_item(opened: OpenedRun, item: Item, *, uncovered: bool) -> dict[str, Any]:
    prompt = item.prompt
    is_hard = is_hard_line(prompt.category, opened, opened.prompts(20.0)) and prompt.twin is None
    open_ = uncovered or not is_hard
    system = [prompt.system or opened.manifest.config.get("system")]
    turns = [{"role": "system", "text": shown(text)} for text in system if text]
    turns += [{"role": turn.role, "text": shown(turn.content)} for turn in prompt.turns]
    return {
        "unit": item.unit,
        "category": titles_of(opened).get(prompt.category, shown(prompt.category)),
        "covered": not open_,
        "conversation": turns if open_ else None,
        "text": shown(item.response) if open_ else None,
        "text_chars": len(item.response),
    }


def label_files(opened: OpenedRun) -> list[PersonLabels]:
    """The label files in a run's folder; links and other files are skipped."""
    folder = opened.run.path / "labels"
    found = []
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.glob("*.jsonl"))[:_MAX_FILES]:
            with contextlib.suppress(RefusalkitError):
                if not path.is_symlink():
                    found.append(read_person_labels(path))
    return [one for one in found if one.sample.run == opened.manifest.id]


_MAX_FILES = 50


def progress(opened: OpenedRun) -> list[dict[str, Any]]:
    """For each annotator of a run: how many answers were drawn, labelled, and are left."""
    found = []
    for one in label_files(opened):
        drawn = sum(stratum.drawn for stratum in one.sample.strata)
        left = drawn - len(one.labels) - len(one.skipped)
        found.append(
            {
                "annotator": shown(one.annotator),
                "n": drawn,
                "n_labelled": len(one.labels),
                "n_left": left,
                "done": left == 0,
            }
        )
    return found


def agreement(opened: OpenedRun, annotator: str) -> dict[str, Any] | None:
    """How an annotator who has finished agrees with the judge and with others who have finished.

    None while answers are left: until then annotators must not learn what the judge said.
    """
    done = {
        one.annotator: one
        for one, how in zip(label_files(opened), progress(opened), strict=True)
        if how["done"]
    }
    own = done.get(annotator.strip())
    if own is None or not own.labels:
        return None
    judge = own.sample.judge
    units = {unit for one in done.values() for unit in one.labels}
    by_judge = _labels_by(opened, judge, units)
    said = {f"judge {judge}": by_judge}
    said |= {name: dict(one.labels) for name, one in done.items()}
    found = judge_agreements(said)
    mine = own.labels
    table = {
        person.value: {
            label.value: sum(mine[unit] is person and by_judge.get(unit) is label for unit in mine)
            for label in Label
        }
        for person in Label
    }
    differ = [unit for unit in mine if unit in by_judge and by_judge[unit] is not mine[unit]]
    return {
        "judge": shown(judge),
        "pairs": _pairs(found),
        "table": table,
        "differ": sorted(differ)[:500],
    }


def _labels_by(opened: OpenedRun, judge: str, units: Collection[str]) -> dict[str, Label]:
    """A judge's own labels of some units, without those that a filter gave."""
    index = opened.index.get(_PATIENCE_S)
    if index is None or judge not in index.judges:
        every = RunRecords(opened.run, judges=[judge], verify=False).labels(judge)
        return {unit: label for unit, label in every.items() if unit in units}
    n = index.judges.index(judge)
    asked = pl.col("unit").is_in(list(units)) & pl.col(f"own_{n}")
    rows = index.units.filter(asked).select("unit", f"label_{n}").drop_nulls().iter_rows()
    return {unit: Label(label) for unit, label in rows}


def _pairs(found: JudgeAgreements) -> list[dict[str, Any]]:
    """For each pair of annotators and judges: agreement on refusal or not, as in the score."""
    rows = []
    for pair in found.pairs:
        on_refusal = pair.agreements[-1]
        rows.append(
            {
                "first": shown(pair.first),
                "second": shown(pair.second),
                "n": pair.n,
                "agree": on_refusal.accuracy,
                "kappa": on_refusal.kappa,
                "split": on_refusal.split,
            }
        )
    return rows
