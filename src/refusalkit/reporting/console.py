"""Consoles for a terminal or a pipe."""

from __future__ import annotations

from rich.console import Console, RenderableType


def console(*, stderr: bool = False) -> Console:
    """A console that prints text verbatim: no markup, no highlighting."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def show(*views: RenderableType) -> None:
    """Print views to stdout, one below the other."""
    out = console()
    for view in views:
        out.print(view)
