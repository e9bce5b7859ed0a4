"""The command line that makes a run again, from its manifest."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from refusalkit.config import RunConfig, resolve_config
from refusalkit.errors import RefusalkitError
from refusalkit.runs.manifest import Manifest

# Where a request goes is no part of what is measured, and without it none arrives.
_WHERE = ("api_base", "api_key_env", "judge_api_base", "judge_api_key_env")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How to make a run again.

    `words` are the command's, unquoted; empty where no command can, and `obstacles` say why.
    """

    words: tuple[str, ...]
    obstacles: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command as one line for a POSIX shell; empty where there is none."""
        return shlex.join(self.words)

    @property
    def command_lines(self) -> str:
        """The command with each option on a line of its own where it is long."""
        if len(self.command) <= 78:
            return self.command
        head, rest = self.words[:3], self.words[3:]
        lines = [shlex.join(head)]
        for word in rest:
            quoted = shlex.quote(word)
            if word.startswith("--") or not rest:
                lines.append(quoted)
            else:
                lines[-1] += f" {quoted}"
        return " \\\n  ".join(lines)


def reproduction(manifest: Manifest) -> Reproduction:
    """The `refusalkit run` (or `grade`) whose configuration has the digest of this run's.

    Only what differs from the defaults and the preset is named. There is no command for a run that
    was made with Python objects, or that sent no temperature: the command line cannot say either.
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
    if judge.source is None and judge.kind == "custom":
        obstacles.append("the judge was an object built in Python")
    options, inexpressible = _options(config, tuple(config.measured))
    obstacles += [f"{name} was set to none from Python" for name in inexpressible]
    if obstacles:
        return Reproduction((), tuple(obstacles))
    return Reproduction(("refusalkit", "run", config.model, *options, *_where(config)))


def _where(config: RunConfig) -> list[str]:
    return _options(config, _WHERE)[0]


def _options(config: RunConfig, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The options that take the defaults to `config`, and the fields that no option can set."""
    given: dict[str, Any] = {"model": config.model}
    if config.preset is not None:
        given["preset"] = config.preset
    base = resolve_config(given)
    ordered = sorted(names, key=list(RunConfig.model_fields).index)
    words = ["--preset", config.preset] if config.preset is not None and "preset" in names else []
    impossible = []
    for name in ordered:
        value = getattr(config, name)
        if name in ("model", "preset") or value == getattr(base, name):
            continue
        option = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            impossible.append(name)
        elif value is True:
            words.append(option)
        elif isinstance(value, tuple):
            for item in value:
                words += _pair(option, item)
        else:
            words += _pair(option, value)
    return words, impossible


def _pair(option: str, value: Any) -> list[str]:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    # A value that begins with a dash would be taken for an option.
    return [f"{option}={text}"] if text.startswith("-") else [option, text]
