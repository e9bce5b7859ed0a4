"""Consoles for a terminal or a pipe."""

from __future__ import annotations

import os
from typing import Literal

from rich.console import Console, RenderableType


def console(*, stderr: bool = False) -> Console:
    """A console that prints text verbatim: no markup, no highlighting.

    With ``NO_COLOR`` there is no bold either; rich by itself would leave out only the colours.
    """
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, color_system=colours)


def show(*views: RenderableType) -> None:
    """Print views to stdout, one below the other."""
    out = console()
    for view in views:
        out.print(view)
