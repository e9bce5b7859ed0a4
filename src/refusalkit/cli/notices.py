"""Notices about a run's prompts before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from refusalkit.cli.verbosity import is_quiet, warn
from refusalkit.errors import RefusalkitError

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig


# Bytes. Larger prompt files are not checked, as reading them a second time would take seconds.
_LARGE = 4 * 1024 * 1024


def warn_unmarked_hard_lines(config: RunConfig) -> None:
    """Warn on stderr of categories that are named like hard lines but are not marked as such.

    Only files of the user's own: shipped and public sets say which categories are hard lines.
    """
    sizes = [_size(Path(part.strip())) for part in config.prompts.split(",")]
    own = [size for size in sizes if size is not None]
    if config.hard_line or not own or sum(own) > _LARGE:
        return
    from refusalkit.models.demo import HARD_LINES
    from refusalkit.runs.prompt_choice import choose_prompts

    try:
        chosen = choose_prompts(config)
    except RefusalkitError:
        return  # the run says so itself
    # A set of safe twins has these categories and nothing in them that should be refused.
    asked = {prompt.category for prompt in chosen.prompts if prompt.twin is None}
    found = sorted((asked & HARD_LINES) - chosen.hard_lines)
    if not found:
        return
    options = " ".join(f"--hard-line {slug}" for slug in found)
    are, them = ("categories", "are"), "makes them hard lines"
    if len(found) == 1:
        are, them = ("category", "is"), "makes it a hard line"
    said = f"{are[0]} {', '.join(found)} {are[1]} scored as ordinary: {options} {them}"
    warn(said)


def warn_of_filters(config: RunConfig) -> None:
    """Say on stderr if the filters leave out prompts that a figure of the run needs."""
    if not (config.category or config.tag or config.danger or config.limit):
        return
    sizes = [_size(Path(part.strip())) or 0 for part in config.prompts.split(",")]
    if sum(sizes) > _LARGE:
        return
    from refusalkit.runs.prompt_choice import choose_prompts, whole_set

    try:
        lost = whole_set(config).lost_in(choose_prompts(config))
    except RefusalkitError:
        return  # the run says so itself
    if lost:
        warn(f"the filters leave less than the set: {'; '.join(lost)}")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # nothing there, or a name that no file system takes
        return None


def print_preset_note(preset: str | None) -> None:
    """Print on stderr what a preset means."""
    if preset is None or is_quiet():
        return
    from refusalkit.reporting import terminal
    from refusalkit.reporting.console import console

    console(stderr=True).print(terminal.preset_note(preset))
