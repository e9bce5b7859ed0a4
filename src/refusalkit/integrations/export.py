"""Writes a run for other programs and people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from refusalkit.api.calls import RunLike, load_run
from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.integrations.every_eval_ever import Relationship

Format = Literal["bundle", "every-eval-ever", "inspect", "hub"]
FORMATS: tuple[Format, ...] = get_args(Format)


@shows("to", "digest", paths=lambda made: len(made.paths))
@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    to: Format
    """The format: ``bundle``, ``every-eval-ever``, ``inspect`` or ``hub``."""
    paths: tuple[Path, ...]
    """The files, in the order in which they were written."""
    digest: str | None = None
    """A bundle's digest, ``sha256:...``: publish it beside the file. None for other formats."""


def export(
    run: RunLike,
    to: Format,
    out: str | Path,
    *,
    organization: str = "unknown",
    relationship: Relationship = "other",
    dataset: str | None = None,
) -> Exported:
    """Write a run for other programs and people.

    ``bundle``: one archive without texts (no answer, no judge's reason on a hard line, no address
    of an endpoint), which anyone can `verify` and score. ``every-eval-ever``: each rate, and each
    answer's label without texts, in that project's schema (0.3.0). ``inspect`` (an extra): a log
    for Inspect's viewer, with the texts that the run kept, but never those of hard lines. ``hub``
    (an extra): ``.eval_results/refusalkit.yaml`` for a model repository, and a block for a model
    card.

    Args:
        run: a run, or the path of its folder.
        to: the format.
        out: the file of a bundle or of a log (``.eval``, ``.json``); the folder for
            ``every-eval-ever`` and ``hub``.
        organization: who made the evaluation; for ``every-eval-ever``.
        relationship: of that organization to the model's developer: ``first_party``,
            ``third_party``, ``collaborative`` or ``other``; for ``every-eval-ever``.
        dataset: the benchmark's id on the Hub, ``owner/name``; for ``hub``.

    Raises:
        UsageError: the format is unknown, its extra is not installed, nothing was scored yet
            (but for ``bundle``), `out` ends wrongly, or `dataset` is missing.
        RunFolderError: there is no run.
        RecordError: a record cannot be read.
        StorageError: a file cannot be written.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="runs/shared")
        >>> made = rk.export(run, "bundle", "shared.zip")
        >>> rk.verify("shared.zip").intact
        True
    """
    from refusalkit.integrations.bundle import write_bundle
    from refusalkit.integrations.every_eval_ever import write_every_eval_ever

    if to not in FORMATS:
        raise UsageError(f"no format {printable(to)!r}: one of {', '.join(FORMATS)}")
    opened, target = load_run(run), Path(out)
    if to == "every-eval-ever":
        paths = write_every_eval_ever(
            opened, target, organization=organization, relationship=relationship
        )
        return Exported(to, paths)
    if to == "inspect":
        with needs_extra("inspect", "inspect_ai"):
            from refusalkit.integrations.inspect.logs import write_inspect_log
        return Exported(to, (write_inspect_log(opened, target),))
    if to == "hub":
        with needs_extra("hub", "huggingface_hub"):
            from refusalkit.integrations.hub import write_hub_results
        return Exported(to, write_hub_results(opened, target, dataset=dataset))
    return Exported(to, (target,), write_bundle(opened, target))


@contextlib.contextmanager
def needs_extra(extra: str, package: str) -> Iterator[None]:
    """Raise `UsageError`, naming the extra to install, if the block misses this package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UsageError(
            f"{package} is not installed: install the extra, from a clone pip install '.[{extra}]'"
        ) from error
