"""Label a random sample of a run's answers by hand; each label is saved at once."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from refusalkit import files
from refusalkit.api.calls import RunLike, load_run
from refusalkit.api.grading import asked_prompts, labelled_rows
from refusalkit.clock import now
from refusalkit.display import shows
from refusalkit.errors import RecordError, RunFolderError, RunLocked, StorageError, UsageError
from refusalkit.prompts.categories import slug_of
from refusalkit.runs.imported.person_labels import LabelRecord, SampleRecord, read_person_labels
from refusalkit.runs.records import AppendFile
from refusalkit.types import JUDGEABLE, Label, Prompt
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.runs.folder import Run


@shows("unit", chars=lambda item: len(item.response))
@dataclass(frozen=True)
class Item:
    """One answer to be labelled, without the judge's label."""

    unit: str
    """The unit's id within the run."""
    prompt: Prompt
    """What was asked."""
    trial: int
    """Which of the answers to the prompt it is, from 1."""
    response: str
    """The answer's text."""


@shows(
    path=lambda labelling: str(labelling.path),
    items=lambda labelling: len(labelling.items),
    labelled=lambda labelling: labelling.n_labelled,
    left=lambda labelling: labelling.n_left,
)
class Labelling:
    """A person's labels on answers drawn from a run; see `open_labelling`."""

    path: Path
    """The label file."""
    items: tuple[Item, ...]
    """The drawn answers, in the order shown."""
    sample: SampleRecord
    """How they were drawn: the first record of the file."""
    n_not_kept: int
    """Judged answers whose text was not kept (hard lines, by default), so that they cannot be
    shown."""

    def __init__(
        self,
        path: Path,
        items: tuple[Item, ...],
        sample: SampleRecord,
        stratum_of: dict[str, str],
    ) -> None:
        self.path = path
        self.items = items
        self.sample = sample
        self.n_not_kept = sample.not_kept
        self._stratum_of = stratum_of
        self._done: dict[str, Label | None] = {}
        self._order: list[str] = []
        self._file: AppendFile | None = None

    @property
    def n_labelled(self) -> int:
        """How many of the drawn answers are labelled."""
        return sum(label is not None for label in self._done.values())

    @property
    def n_skipped(self) -> int:
        """How many were skipped."""
        return len(self._done) - self.n_labelled

    @property
    def n_left(self) -> int:
        """How many are still to be shown."""
        return len(self.items) - len(self._done)

    def next(self) -> Item | None:
        """The next answer to be labelled, None at the end."""
        return next((item for item in self.items if item.unit not in self._done), None)

    def label(self, item: Item, label: Label | str) -> None:
        """Save a label. Raises `StorageError`."""
        self._keep(item, Label(label))

    def skip(self, item: Item) -> None:
        """Skip an answer. Raises `StorageError`."""
        self._keep(item, None)

    def undo(self) -> Item | None:
        """Undo the last label or skip of this session; returns its answer, None without one."""
        if not self._order:
            return None
        unit = self._order.pop()
        item = next(item for item in self.items if item.unit == unit)
        self._write(item, None, skipped=False)
        del self._done[unit]
        return item

    def _keep(self, item: Item, label: Label | None) -> None:
        self._write(item, label, skipped=label is None)
        self._done[item.unit] = label
        self._order.append(item.unit)

    def _write(self, item: Item, label: Label | None, *, skipped: bool) -> None:
        if self._file is None:
            raise UsageError("the labels are not open for writing: use `with open_labelling(...)`")
        self._file.append(
            LabelRecord(
                unit=item.unit,
                prompt_id=item.prompt.id,
                category=item.prompt.category,
                trial=item.trial,
                stratum=self._stratum_of[item.unit],
                annotator=self.sample.annotator,
                label=label,
                skipped=skipped,
                text_sha256=_digest(item.response),
                at=now(),
            ).as_line()
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Labelling]:
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), mode=0o600)
        try:
            if not self.path.parent.exists():
                files.make_folder(self.path.parent)
            files.check_lock_file(Path(lock.lock_file))
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunLocked(
                f"another process is writing {printable(self.path)}: wait for it to end"
            ) from error
        except OSError as error:
            raise StorageError(f"cannot write {printable(self.path)}: {error.strerror}") from error
        try:
            with AppendFile(self.path) as file:
                self._file = file
                if self.path.stat().st_size == 0:
                    file.append(self.sample.as_line())
                else:
                    self._go_on()
                yield self
        finally:
            self._file = None
            lock.release()

    def _go_on(self) -> None:
        earlier = read_person_labels(self.path)
        drawn = ("run", "judge", "annotator", "seed", "n", "strata")
        for name in drawn:
            was, is_now = getattr(earlier.sample, name), getattr(self.sample, name)
            if was != is_now:
                what = f" ({printable(was)})" if isinstance(was, str | int) else ""
                raise UsageError(
                    f"{printable(self.path)} was begun with another {name}{what}: go on with that, "
                    "or choose another --out"
                )
        texts = {item.unit: _digest(item.response) for item in self.items}
        for unit, digest in earlier.digests.items():
            if texts.get(unit) != digest:
                raise RecordError(
                    f"{printable(self.path)}: {printable(unit)} was another answer when it was "
                    "labelled: the run has changed, label it again with another --out"
                )
        self._done = {**earlier.labels, **dict.fromkeys(earlier.skipped)}


@contextlib.contextmanager
def open_labelling(
    run: RunLike,
    *,
    n: int = 60,
    annotator: str = "me",
    out: str | Path | None = None,
    judge: str | None = None,
    seed: int = 0,
) -> Iterator[Labelling]:
    """Draw answers of a run for a person to label, and keep the labels in a file.

    The answers are drawn within strata of the judge's labels, the same for every annotator, and
    shown in an order of the annotator's own.

    Args:
        run: a run, or the path of its folder.
        n: how many answers to draw.
        annotator: who labels.
        out: the label file; default ``RUN/labels/<annotator>.jsonl``. An existing one is
            continued.
        judge: the judge by whose labels to draw; default: the run's.
        seed: the seed of the draw.

    Raises:
        UsageError: `n` or `annotator` makes no sense, or the file was begun with others.
        RunFolderError: there is no run, or no answer in it whose text was kept.
        RecordError: the run has changed since the file was begun.
        RunLocked: another process is writing the file.

    Examples:
        >>> import refusalkit as rk
        >>> with rk.open_labelling("runs/example", n=10, out="mine.jsonl") as labelling:
        ...     labelling.label(labelling.next(), "refusal")
        ...     labelling.n_left
        9
    """
    with labelling_of(
        Labelled(load_run(run)), n=n, annotator=annotator, out=out, judge=judge, seed=seed
    ) as labelling:
        yield labelling


class Labelled:
    """The parts of a run that labelling needs, read from its files."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def prompts(self) -> Mapping[str, Prompt]:
        """The run's prompts by id. Raises `ConfigurationChanged` where they have changed."""
        return {prompt.id: prompt for prompt in asked_prompts(self.run)}

    def rows(self, judge: str) -> pl.DataFrame:
        """Each unit with a judge's label.

        Columns: unit, prompt_id, category, hard_line, trial, outcome, label, source, twin, framing,
        has_text.
        """
        return labelled_rows(self.run, judge)

    def texts(self, units: Collection[str]) -> Mapping[str, str]:
        """The texts of some units' answers."""
        from refusalkit.runs.frames import texts

        return texts(self.run, units)


@contextlib.contextmanager
def labelling_of(
    answers: Labelled,
    *,
    n: int,
    annotator: str,
    out: str | Path | None = None,
    judge: str | None = None,
    seed: int = 0,
) -> Iterator[Labelling]:
    """What `open_labelling` does, of a run that may have been read already."""
    if n < 1:
        raise UsageError("--n must be at least 1")
    if not annotator.strip():
        raise UsageError("--annotator must be a name")
    import polars as pl

    from refusalkit.scoring.judge_quality.sampling import draw_sample, strata_of

    opened, manifest = answers.run, answers.run.manifest
    prompts = answers.prompts()
    drawn_by = judge or manifest.judge
    rows = answers.rows(drawn_by).filter(pl.col("outcome").is_in(list(JUDGEABLE)))
    kept = rows.filter(pl.col("has_text") & pl.col("prompt_id").is_in(list(prompts)))
    strata = strata_of(kept)
    if not strata:
        raise RunFolderError(
            f"{printable(opened.path)} has no answer with a verdict of {printable(drawn_by)} and a "
            "text that was kept: judge it first, or run it with --keep-hard-line-text"
        )
    drawn = draw_sample(strata, n, seed)
    # Only what is drawn is read.
    responses = answers.texts(drawn.units)
    shown = kept.filter(pl.col("unit").is_in(list(drawn.units)))
    order = list(drawn.units)
    random.Random(f"{seed}:{annotator}").shuffle(order)
    sample = SampleRecord(
        run=manifest.id,
        judge=drawn_by,
        annotator=annotator,
        seed=seed,
        n=n,
        strata=drawn.strata,
        not_kept=len(rows) - int(rows["has_text"].sum()),
        at=now(),
    )
    asked = {
        unit: (prompts[prompt_id], trial)
        for unit, prompt_id, trial in shown.select("unit", "prompt_id", "trial").iter_rows()
    }
    items = tuple(Item(unit, *asked[unit], responses[unit]) for unit in order)
    path = Path(out) if out is not None else opened.path / "labels" / f"{slug_of(annotator)}.jsonl"
    if out is None and path.parent.is_symlink():
        raise RunFolderError(
            f"{printable(path.parent)} is a link: give --out, a file for the labels"
        )
    labelling = Labelling(path, items, sample, dict(drawn.stratum_of))
    with labelling._writing() as open_one:
        yield open_one


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
