"""Writes a run for other programs and people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from refusalkit.api.calls import RunLike, load_run
from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

Format = Literal["bundle"]
FORMATS: tuple[Format, ...] = get_args(Format)


@shows("to", "digest", paths=lambda made: len(made.paths))
@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    to: Format
    """The format."""
    paths: tuple[Path, ...]
    """The files, in order of their writing."""
    digest: str | None = None
    """Of a bundle, ``sha256:...``: publish it beside the file. None for other formats."""


def export(run: RunLike, to: Format, out: str | Path) -> Exported:
    """Write a run for other programs and people.

    ``bundle``: one archive without texts (no answer, no judge's reason on a hard line, no address
    of an endpoint), which anyone can `verify` and score.

    Args:
        run: a run, or the path of its folder.
        to: the format.
        out: the file to write.

    Raises:
        UsageError: the format is unknown.
        RunFolderError: there is no run.
        RecordError: a record cannot be read.
        StorageError: the file cannot be written.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="runs/shared")
        >>> made = rk.export(run, "bundle", "shared.zip")
        >>> rk.verify("shared.zip").intact
        True
    """
    from refusalkit.integrations.bundle import write_bundle

    if to not in FORMATS:
        raise UsageError(f"no format {printable(to)!r}: one of {', '.join(FORMATS)}")
    opened, target = load_run(run), Path(out)
    return Exported(to, (target,), write_bundle(opened, target))
