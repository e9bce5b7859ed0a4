"""The command that reproduces a run, from its manifest."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import RefusalkitError
from refusalkit.runs.manifest import Manifest

# Endpoints are not part of what is measured, but a command without them would go elsewhere.
_WHERE = ("api_base", "api_key_env", "judge_api_base", "judge_api_key_env")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How to reproduce a run.

    `words` is the command, unquoted; empty if no command can do it, and then `obstacles` says why.
    """

    words: tuple[str, ...]
    obstacles: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command as one line for a POSIX shell; empty where there is none."""
        return shlex.join(self.words)

    @property
    def command_lines(self) -> str:
        """The command; a long one has each option on its own line."""
        if len(self.command) <= 78:
            return self.command
        head, rest = self.words[:3], self.words[3:]
        lines = [shlex.join(head)]
        for word in rest:
            quoted = shlex.quote(word)
            if word.startswith("--"):
                lines.append(quoted)
            else:
                lines[-1] += f" {quoted}"
        return " \\\n  ".join(lines)


def reproduction(manifest: Manifest) -> Reproduction:
    """The `refusalkit run` (or `grade`) command whose configuration has this run's digest.

    It names only what differs from the defaults and the preset. No command exists for a run made
    with Python objects, or with a value that no option can give, such as no temperature.
    """
    try:
        config = manifest.run_config
    except RefusalkitError:
        return Reproduction((), ("the manifest's configuration is not one of this version",))
    judge = manifest.judges[manifest.judge]
    if manifest.kind == "grade":
        source = manifest.prompt_set.source or config.prompts
        own = ["--judge", config.judge_name, *_options(config, ("judge_model", "judge_via"))[0]]
        return Reproduction(("refusalkit", "grade", source, *own, *_where(config)))
    obstacles = []
    if manifest.prompt_set.source is None:
        obstacles.append("the prompts were built in Python")
    if judge.source is None and judge.of_kind.is_object:
        obstacles.append("the judge was an object built in Python")
    options, inexpressible = _options(config, tuple(config.measured))
    obstacles += inexpressible
    if obstacles:
        return Reproduction((), tuple(obstacles))
    return Reproduction(("refusalkit", "run", config.model, *options, *_where(config)))


def _where(config: RunConfig) -> list[str]:
    return _options(config, _WHERE)[0]


def _options(config: RunConfig, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The options that turn the defaults into `config`, and why some fields have none."""
    given: dict[str, Any] = {"model": config.model}
    words, obstacles = [], []
    if config.preset is not None and "preset" in names:
        given["preset"] = config.preset
        words += ["--preset", config.preset]
    for name in sorted(names, key=list(RunConfig.model_fields).index):
        value = getattr(config, name)
        # Resolved again each time: one option can replace what a preset chose for another.
        if name in ("model", "preset") or value == getattr(resolve_config(given), name):
            continue
        option = f"--{name.replace('_', '-')}"
        if value is None or value is False or value == ():
            obstacles.append(f"{name} was set to none from Python")
            continue
        given[name] = value
        if name == "framings":
            # The option is a flag for all of them.
            if value == resolve_config({**given, name: True}).framings:
                words.append(option)
            else:
                obstacles.append(f"only some framings were asked: {', '.join(value)}")
        elif value is True:
            words.append(option)
        elif isinstance(value, tuple):
            for item in value:
                words += _pair(option, item)
        else:
            words += _pair(option, value)
    return words, obstacles


def _pair(option: str, value: Any) -> list[str]:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    # A value that begins with a dash would be taken for an option.
    return [f"{option}={text}"] if text.startswith("-") else [option, text]
