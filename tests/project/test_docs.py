"""Runs the examples in README.md and docs/ verbatim.

In README.md and docs/**/*.md a fenced block is an example if it is tagged `console` or `python`:

- ``console``: lines that start with ``$ `` are commands (a ``\\`` at the end continues one on the
  next line), the lines below a command are what it prints, standard error included. ``...``
  stands for anything; runs of white space count as one. A command that ends with another status
  than 0 is followed by a line ``# exit 3``. A command with nothing below it may print anything.
  Only ``refusalkit`` and ``python -m refusalkit`` are run; there is no shell, so no pipes. The
  README's are run in processes of their own, those of docs/ in this one, which is quicker.
- ``python``: executed in one namespace per document; ``await`` may be at the top level.

The blocks of a document run in order in one temporary folder that holds ``runs/example``. Blocks
that are only to be looked at are tagged ``sh``, ``text``, ``toml`` and so on.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from places import ROOT
from refusalkit.cli import main

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST_READ = ("README.md", "docs/getting-started.md")
PROGRAMS = (["refusalkit"], ["python", "-m", "refusalkit"])
SHELL = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1"}
# The environment that commands get: no HOME, no keys, no proxies.
PASSED_ON = re.compile(r"PATH|SYSTEMROOT|TMPDIR|TEMP|TMP|COVERAGE_\w+")


# Printed occasionally on a slow machine.
PROGRESS = re.compile(r"^\d+/\d+ answered, .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    kind: str
    line: int  # of its first line of text, counted from 1
    text: str


@dataclass
class Command:
    line: int
    words: list[str]
    status: int = 0
    expected: list[str] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"\s*(`{3,}|~{3,})\s*([\w+-]*)[^`]*", lines[number])
        number += 1
        if not opening:
            continue
        fence, kind = opening.groups()
        first = number
        while number < len(lines) and not re.fullmatch(
            rf"\s*{fence[0]}{{{len(fence)},}}\s*", lines[number]
        ):
            number += 1
        yield Block(kind, first + 1, textwrap.dedent("\n".join(lines[first:number])))
        number += 1


def commands(block: Block) -> list[Command]:
    """The commands of a console block with their expected output."""
    found: list[Command] = []
    lines = iter(enumerate(block.text.splitlines(), block.line))
    for number, line in lines:
        if line.startswith("$ "):
            typed = line[2:]
            while typed.endswith("\\"):
                typed = typed[:-1] + next(lines)[1].removeprefix("> ")
            found.append(Command(number, shlex.split(typed, comments=True)))
        elif not found:
            raise AssertionError(f"line {number}: a console block begins with `$ `, not {line!r}")
        elif (status := re.fullmatch(r"# exit (\d+)", line)) and not found[-1].expected:
            found[-1].status = int(status[1])
        else:
            found[-1].expected.append(line)
    return found


def arguments(words: list[str]) -> list[str] | None:
    """The arguments, or None if the command is another program."""
    for program in PROGRAMS:
        if words[: len(program)] == program:
            return words[len(program) :]
    return None


def same_text(expected: str, printed: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected, printed, flags)


def run_command(command: Command, folder: Path, *, alone: bool = True) -> str | None:
    """Run one command and return what is wrong with it, if anything.

    `alone`: in a process of its own.
    """
    args = arguments(command.words)
    if args is None:
        return None
    if SHELL & set(args):
        return "needs a shell, which the tests do not use: tag the block `sh`"
    status, printed = (started if alone else called)(args, folder)
    printed = PROGRESS.sub("", printed)
    expected = "\n".join(command.expected).rstrip("\n") + "\n"
    if status != command.status:
        return f"ended with {status}, not {command.status}, and printed:\n{printed}"
    if expected.strip() and not same_text(expected, printed):
        return f"should print:\n{expected}\nbut printed:\n{printed}"
    return None


def started(args: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and output of a command in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    environment |= {"COLUMNS": "80", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-m", "refusalkit", *args],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def called(args: list[str], folder: Path) -> tuple[int, str]:
    """The same in this process, which saves a second of imports."""
    out = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["refusalkit", *args])
        patch.setattr(sys, "stdin", io.StringIO())
        patch.setattr(sys.modules["__main__"], "__package__", None)
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), out.getvalue()


def run_python(block: Block, document: str, namespace: dict[str, Any]) -> None:
    """Execute a block; tracebacks name the document and its lines."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def documents() -> Iterator[Any]:
    """What a newcomer reads first is tried by `make test`, the others by `make test-all`."""
    for path in DOCUMENTS:
        name = path.relative_to(ROOT).as_posix()
        marks = () if name in FIRST_READ else (pytest.mark.slow,)
        yield pytest.param(path, id=name, marks=marks)


@pytest.mark.parametrize("document", list(documents()))
def test_examples(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = ROOT / "runs" / "example"
    if example.is_dir():
        shutil.copytree(example, tmp_path / "runs" / "example")
    for name in os.environ:
        if name == "HOME" or name.endswith(("_KEY", "_TOKEN", "_API_BASE", "_BASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    name = document.relative_to(ROOT).as_posix()
    alone = name == "README.md"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    wrong: list[str] = []
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.kind == "python":
            run_python(block, name, namespace)
        elif block.kind == "console":
            for command in commands(block):
                if mistake := run_command(command, tmp_path, alone=alone):
                    wrong.append(f"{name}:{command.line}: {shlex.join(command.words)}\n{mistake}")
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


def test_the_readme_contains_an_executed_command() -> None:
    shown = [
        command
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))
        if block.kind == "console"
        for command in commands(block)
        if arguments(command.words) is not None
    ]
    assert shown, "README.md has no ```console block with a refusalkit command"


def test_blocks_and_commands_are_found_with_their_lines() -> None:
    text = textwrap.dedent(
        """\
        Text

        ```sh
        $ not run
        ```

        1. A list:

           ````console
           $ refusalkit run 'a b' \\
               --limit 3   # a remark
           # exit 3
           first ...
           # exit 4
           $ ls
           ````
        """
    )
    shown, run = blocks(text)
    assert (shown.kind, run.kind, run.line) == ("sh", "console", 10)
    first, second = commands(run)
    assert first == Command(
        10, ["refusalkit", "run", "a b", "--limit", "3"], 3, ["first ...", "# exit 4"]
    )
    assert arguments(first.words) == ["run", "a b", "--limit", "3"]
    assert second == Command(15, ["ls"])
    assert arguments(second.words) is None


def test_differing_output_is_reported(tmp_path: Path) -> None:
    assert same_text("a ... c\n", "a  b\nc\n")
    assert not same_text("a ... d\n", "a  b\nc\n")
    piped = Command(1, ["refusalkit", "score", "|", "head"])
    assert "shell" in (run_command(piped, tmp_path) or "")
    unknown = Command(1, ["refusalkit", "no-such-command"], expected=["fine"])
    assert "ended with" in (run_command(unknown, tmp_path) or "")


def test_python_blocks_share_names_and_may_await() -> None:
    namespace: dict[str, Any] = {}
    run_python(Block("python", 3, "import asyncio\nseen = 1"), "a.md", namespace)
    run_python(Block("python", 9, "await asyncio.sleep(0)\nseen += 1"), "a.md", namespace)
    assert namespace["seen"] == 2
    with pytest.raises(ZeroDivisionError) as failure:
        run_python(Block("python", 40, "seen\n1 / 0"), "a.md", namespace)
    assert failure.traceback[-1].lineno == 40  # counted from 0: line 41 of the document
