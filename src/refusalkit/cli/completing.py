"""Completion on Tab, and the command that prints a shell's script for it.

Nothing here uses the network, and files that cannot be read are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from refusalkit.errors import RefusalkitError

if TYPE_CHECKING:
    from refusalkit.prompts.prompt_set import PromptSet

Candidates = Callable[[click.Context, str], list[CompletionItem]]
VARIABLE = "_REFUSALKIT_COMPLETE"
_BASH = """\
%(complete_func)s() {
    local line response typed breaks kept="" type value
    line="${COMP_LINE:0:$COMP_POINT}"
    response=$(env COMP_LINE="$line" %(complete_var)s=bash_complete $1)
    # Of a word bash replaces only what stands behind a sign that breaks words.
    typed="${line##* }"
    breaks="${COMP_WORDBREAKS//[!=:]/}"
    if [[ -n $breaks && $typed == *[$breaks]* ]]; then
        kept="${typed%%"${typed##*[$breaks]}"}"
    fi
    COMPREPLY=()
    while IFS=',' read -r type value; do
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$kept"}")
        fi
    done <<< "$response"
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
# What bash would read as more than a part of a name; `#` and `~` where they begin a word.
_SPECIAL = re.compile(r"^[#~]|[^\w@%+=:,./#~-]")
# How many runs are read to find their models.
_MAX_RUNS = 50
# Of a run's answers only so much is read to know their units, and so many are offered: a person
# waits.
_MAX_BYTES = 32 * 2**20
_MAX_UNITS = 200


@add_completion_class
class _Bash(BashComplete):
    """bash breaks words at more signs than a shell does when it runs a command: the line counts."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line.endswith((" ", "\t")) else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """What is offered is put into the line as it is: a name must not be a command there."""
        return f"{item.type},{_SPECIAL.sub(_escaped, item.value)}"


def _escaped(sign: re.Match[str]) -> str:
    return f"\\{sign[0]}"


@click.command(epilog="Example: refusalkit completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, sets, judges and runs.

    bash and zsh: put `eval "$(refusalkit completion bash)"`, with your shell's name, into ~/.bashrc
    or ~/.zshrc.
    fish: refusalkit completion fish > ~/.config/fish/completions/refusalkit.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "one of the choices"
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "refusalkit", VARIABLE).source())


def runs(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """`@last`, the runs of runs/ by name, and folders that are runs or lead to some."""
    from refusalkit.runs.folder import holds_run
    from refusalkit.runs.naming import LAST, RUNS

    parent, slash, _name = incomplete.rpartition("/")
    found = []
    if not slash:
        found += [LAST, *(each.name for each in _folders(RUNS) if holds_run(each))]
    for each in _folders(Path((parent or slash) or ".")):
        path = f"{parent}{slash}{each.name}"
        found.append(path if holds_run(each) else f"{path}/")
    return _starting(found, incomplete)


def models(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """The scripted models, and those that runs in runs/ asked."""
    from refusalkit.models.demo import SCRIPTS
    from refusalkit.runs.naming import RUNS, runs_below

    asked = []
    for number, run in enumerate(runs_below(RUNS)):
        if number >= _MAX_RUNS:
            break
        asked.append(str(run.manifest.config.get("model", "")))
    return _starting([*(f"demo/{name}" for name in SCRIPTS), *asked], incomplete)


def sets(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """The shipped and public sets, files and folders; after a comma one more."""
    from refusalkit.prompts.load import shipped_sets
    from refusalkit.prompts.public_facts import public_sets

    return _listed([*shipped_sets(), *public_sets()], incomplete, (".jsonl", ".csv", ".tsv"))


def judges(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """The shipped judges and judge files; after a comma one more."""
    from refusalkit.judges.rubrics import shipped_judges

    return _listed(shipped_judges(), incomplete, (".toml",))


def judges_of_run(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The judges of the run that the command names."""
    from refusalkit.runs.folder import open_run
    from refusalkit.runs.naming import find_run

    # An option that waits for its value ends click's parsing before the arguments are told apart.
    named = ctx.params.get("run") or next(iter(ctx.params.get("runs") or ctx.args), None)
    if named is None:
        return []
    return _starting(open_run(find_run(str(named))).manifest.judges, incomplete)


def units(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The units of the run that the command names, as far as its first answers tell."""
    from refusalkit.runs.folder import open_run
    from refusalkit.runs.naming import find_run
    from refusalkit.runs.records import first_units

    run = open_run(find_run(str(ctx.params["run"])))
    return _starting(first_units(run.completions, _MAX_BYTES), incomplete)[:_MAX_UNITS]


def recorded(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Runs, and files that may hold recorded answers."""
    parent, slash, _name = incomplete.rpartition("/")
    files = [
        f"{parent}{slash}{each.name}"
        for each in _entries(Path((parent or slash) or "."))
        if each.name.endswith((".jsonl", ".json", ".eval")) and each.is_file()
    ]
    return [*runs(ctx, incomplete), *_starting(files, incomplete)]


def categories(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The categories of the prompt set that the command names."""
    return _starting([category.slug for category in _set_of(ctx).categories], incomplete)


def tags(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The tags of the prompt set that the command names."""
    return _starting(sorted({tag for one in _set_of(ctx).prompts for tag in one.tags}), incomplete)


OPTIONS: dict[str, Candidates] = {
    "prompts": sets,
    "judge": judges,
    "judge_fallback": judges,
    "hard_line_judge": judges,
    "judge_model": models,
    "category": categories,
    "hard_line": categories,
    "tag": tags,
    "earlier": runs,
}
"""What an option's value may be, by its field or name."""


ARGUMENTS: dict[str, Candidates] = {
    "MODEL": models,
    "SET": sets,
    "SOURCE": sets,
    "JUDGE": judges,
    "OLD": judges,
    "NEW": judges,
    "RUN": runs,
    "RUNS": runs,
    "PATH": recorded,
    "RESPONSES": recorded,
    "SHARD": runs,
    "UNIT": units,
}
"""What an argument may be, by the word that the help has for it."""


def complete_argument(
    argument: click.Argument, ctx: click.Context, incomplete: str
) -> list[CompletionItem] | None:
    """What a shell offers as an argument; None where click knows it itself."""
    word = (argument.metavar or "").strip("[].")
    if word in ("DIR", "FOLDER"):
        return [CompletionItem(incomplete, type="dir")]
    if word == "OUT":
        return [CompletionItem(incomplete, type="file")]
    candidates = ARGUMENTS.get(word)
    return None if candidates is None else _offered(candidates, ctx, incomplete)


def _offered(candidates: Candidates, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    try:
        return candidates(ctx, incomplete)
    except (RefusalkitError, OSError):
        return []


def complete_option(
    option: click.Option, ctx: click.Context, incomplete: str
) -> list[CompletionItem] | None:
    """What a shell offers as an option's value; None where click knows it itself."""
    if option.name == "judge" and option.metavar == "ID":
        return _offered(judges_of_run, ctx, incomplete)
    if (candidates := OPTIONS.get(option.name or "")) is not None:
        return _offered(candidates, ctx, incomplete)
    kinds = {"FILE": "file", "DIR": "dir"}
    if (kind := kinds.get((option.metavar or "").partition("|")[0])) is not None:
        return [CompletionItem(incomplete, type=kind)]
    return None


def _set_of(ctx: click.Context) -> PromptSet:
    from refusalkit.config.run_config import DEFAULT_PROMPTS
    from refusalkit.prompts.load import load_prompts, shipped_sets

    source = next(iter(ctx.args), None) if "prompts" not in ctx.params else None
    named = str(ctx.params.get("prompts") or ctx.params.get("source") or source or DEFAULT_PROMPTS)
    # A public set might have to be fetched.
    local = all(part in shipped_sets() or Path(part).exists() for part in named.split(","))
    return load_prompts(named if local else DEFAULT_PROMPTS)


def _listed(
    names: Iterable[str], incomplete: str, endings: tuple[str, ...]
) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    parent, slash, _ = last.rpartition("/")
    files = []
    for each in _entries(Path((parent or slash) or ".")):
        path = f"{parent}{slash}{each.name}"
        if each.is_dir():
            files.append(f"{path}/")
        elif each.name.endswith(endings):
            files.append(path)
    known = [] if slash else list(names)
    return _starting([f"{before}{comma}{name}" for name in [*known, *files]], incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name)
        for name in dict.fromkeys(names)
        # A name with a control character could be more than a name to a terminal, and one that
        # begins with a dash would be an option.
        if name.startswith(incomplete) and name.isprintable() and not name.startswith("-")
    ]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    return [each for each in _entries(folder) if each.is_dir()]
