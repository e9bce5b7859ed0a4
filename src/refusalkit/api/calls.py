"""What the public functions share: how they take a run, and how they check keywords."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from refusalkit.runs.folder import Run, open_run

RunLike: TypeAlias = Run | str | Path
"""A run, or the path of its folder."""


def load_run(run: RunLike) -> Run:
    """Open a run folder for reading.

    Args:
        run: the path of the folder; a `Run` is read anew.

    Raises:
        RunFolderError: there is no run at the path, or its manifest cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> rk.load_run("runs/example").manifest.trials
        2
    """
    return open_run(run.path if isinstance(run, Run) else run)


def _figures(run: Run) -> dict[str, str]:
    """The progress and score of a run, for `repr`; empty if its records cannot be read."""
    from refusalkit.scoring.score import score_run

    try:
        found = score_run(run)
    except Exception:  # noqa: BLE001 - a repr never raises
        return {}
    done = {"scored": f"{found.n_scored} of {found.n_units}"}
    return {**done, "willingness": str(found.willingness)} if found.n_scored else done


Run.read_figures = _figures


def path_of(source: RunLike) -> Path:
    """The path of a run, or of other records."""
    return source.path if isinstance(source, Run) else Path(source)


def as_list(runs: RunLike | Sequence[RunLike]) -> list[RunLike]:
    """One run, or several, as a list."""
    return [runs] if isinstance(runs, Run | str | Path) else list(runs)


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], kind: type[Any]
) -> None:
    """Raise `TypeError` for a keyword that the function does not take, suggesting a similar one.

    `kind` is the `TypedDict` of its further keyword arguments.
    """
    for name in options:
        if name not in kind.__optional_keys__:
            own = [p.name for p in inspect.signature(function).parameters.values()]
            known = [*(each for each in own if each != "options"), *kind.__optional_keys__]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}"
            )
