"""What bash, zsh and fish offer on Tab, asked of the real shells."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import refusalkit as rk
from refusalkit.cli import cli

BASH = """
eval "$(refusalkit completion bash)"
COMP_LINE={line}; COMP_POINT=${{#COMP_LINE}}
_refusalkit_completion refusalkit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs in it, and the command on the path under its own name."""
    command = tmp_path / "bin" / "refusalkit"
    command.parent.mkdir()
    program = "import sys; sys.argv[0] = 'refusalkit'; from refusalkit.cli import script; script()"
    # By way of sh: a path with a space cannot stand behind "#!".
    command.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", program])} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    options = {"trials": 1, "limit": 3}
    rk.benchmark("demo/mixed", "starter", out="runs/alpha", **options)
    rk.benchmark("demo/open", "starter", out="runs/group/beta", **options)
    Path("mine.toml").write_text("")
    rows = ({"text": "one", "category": "tea"}, {"text": "two", "category": "cake"})
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


def said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def bash(*words: str) -> list[str]:
    line = shlex.quote(" ".join(("refusalkit", *words)))
    return said("bash", "--norc", "-c", BASH.format(line=line))


UNIT = "exploitation-and-trafficking-01#1"
CASES = {
    ("ru",): {"run", "runs"},
    ("run", "demo/"): {"demo/cautious", "demo/open", "demo/mixed", "demo/leaky"},
    ("run", "demo/open", "--prompts", "ref"): {"refusalkit-166", "refusalbench"},
    ("run", "demo/open", "--prompts", "starter,con"): {"starter,contrast-146"},
    ("run", "demo/open", "--prompts", "mi"): {"mine.jsonl"},
    ("run", "demo/open", "--judge", "lex"): {"lexical"},
    ("run", "demo/open", "--judge", "mi"): {"minos", "mine.toml"},
    ("run", "demo/open", "--preset", "p"): {"paper"},
    ("run", "demo/open", "--prompts", "mine.jsonl", "--category", ""): {"tea", "cake"},
    ("run", "demo/open", "--category", "weap"): {"weapons"},
    ("prompts", "show", "mine.jsonl", "--hard-line", "t"): {"tea"},
    ("run", "demo/open", "--judge-mod"): {"--judge-model"},
    ("score", "@"): {"@last"},
    ("score", "al"): {"alpha"},
    ("audit", "runs/"): {"runs/alpha", "runs/group/"},
    ("compare", "runs/alpha", "runs/group/"): {"runs/group/beta"},
    ("score", "runs/alpha", "--judge", "lex"): {"lexical"},
    ("judges", "show", "gra"): {"graded"},
    ("prompts", "show", "sta"): {"starter"},
    ("completion", ""): {"bash", "zsh", "fish"},
    ("grade", "mi"): {"mine.jsonl"},
    ("judges", "agree", "mine.jsonl", "al"): {"alpha"},
    ("show", "runs/alpha", "ex"): {UNIT},
    ("show", "@last", "ex"): {UNIT},
}


def offered(*words: str) -> set[str]:
    """The same without a shell, in this process."""
    *args, incomplete = words
    found = ShellComplete(cli, {}, "refusalkit", "_X").get_completions(args, incomplete)
    return {each.value for each in found}


def test_there_is_an_offer_for_sets_judges_models_runs_and_categories(place: Path) -> None:
    del place
    for words, expected in CASES.items():
        assert offered(*words) == expected, words


def test_files_are_left_to_the_shell(place: Path) -> None:
    del place
    complete = ShellComplete(cli, {}, "refusalkit", "_X")
    for option, kind in (("--config", "file"), ("--report", "file"), ("--out", "dir")):
        (one,) = complete.get_completions(["run", "demo/open", option], "some")
        assert (one.type, one.value) == (kind, "some")


def test_what_cannot_be_read_offers_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "runs" / "broken").mkdir()
    (place / "runs" / "broken" / "manifest.json").write_text("{")
    (place / "runs" / "bad\x1b[31mname").mkdir()
    monkeypatch.setenv("REFUSALKIT_TRIALS", "many")
    assert "demo/open" in offered("run", "demo/")
    assert offered("score", "runs/broken", "--judge", "") == set()
    unknown = ("--prompts", "no-such-set/", "--category", "weap")
    assert offered("run", "demo/open", *unknown) == {"weapons"}
    assert not any("\x1b" in each for each in offered("score", "runs/"))


def test_units_of_a_large_run_are_read_as_far_as_a_person_waits(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = place / "runs" / "alpha" / "completions.jsonl"
    lines = [
        f'{{"schema":1,"unit":"p-{n:06}#1","text":"\\"unit\\":\\"q#1\\""}}' for n in range(2000)
    ]
    records.write_text("\n".join([*lines, *lines[:500]]) + "\n")
    assert offered("show", "alpha", "p-00000") == {f"p-00000{n}#1" for n in range(10)}
    assert len(offered("show", "alpha", "")) == 200
    assert offered("show", "alpha", "q") == set(), "what stands in a text is no unit"
    monkeypatch.setattr("refusalkit.cli.completing._MAX_BYTES", 1000)
    assert offered("show", "alpha", "p-001999") == set()
    records.unlink()
    assert offered("show", "alpha", "p") == set()


def test_bash_offers_the_same(place: Path) -> None:
    del place
    for words in (("run", "demo/"), ("show", "runs/alpha", "ex"), ("show", "@last", "ex")):
        assert set(bash(*words)) == CASES[words], words
    assert bash("score", "@l") == bash("score", "@") == ["@last"]
    # bash keeps what stands before a sign that breaks words, and replaces the rest.
    assert set(bash("run", "demo/open", "--judge=lex")) == {"lexical"}


NAMES = [
    "x;touch owned",
    "x$(touch owned)",
    "x`touch owned`",
    "x|touch owned",
    "x y",
    "x*",
    "x'\"\\",
]
NAMES += ["#x", "~root", "!!", "{x,y}", "--trust-folder"]


@pytest.mark.parametrize("name", NAMES)
def test_bash_is_offered_no_name_that_is_a_command(place: Path, name: str) -> None:
    """A line is a command as it stands: the next thing that its reader does is press Return."""
    shutil.copytree("runs/alpha", f"runs/{name}")
    (place / "plain,x;touch owned").mkdir()  # what a pattern would find
    reads = 'for word in "${COMPREPLY[@]}"; do eval "words=(score $word)"; '
    reads += 'printf \'%s\\n\' "${#words[@]}" "${words[1]}"; done'
    script = BASH.format(line="'refusalkit score '").replace("printf '%s\\n'", ": ")
    done = subprocess.run(
        ["bash", "--norc", "-c", script + reads],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert set(lines[::2]) == {"2"}
    assert {"@last", "alpha", "runs/"} <= set(lines[1::2])
    assert (name in lines[1::2]) is not name.startswith("-")
    assert not (place / "owned").exists()


def test_a_person_at_bash_completes_the_last_run_and_its_unit(place: Path) -> None:
    del place
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
        os.execvp("bash", ["bash", "--norc", "-i"])
    load = 'eval "$(refusalkit completion bash)"; echo loa""ded\n'
    steps = ((load, "\nloaded"), ("refusalkit show @l\t", "last "), ("ex\t", UNIT))
    try:
        for keys, expected in steps:
            os.write(terminal, keys.encode())
            seen = ""
            deadline = time.monotonic() + 60
            while expected not in seen and time.monotonic() < deadline:
                if select.select([terminal], [], [], 0.2)[0]:
                    seen += os.read(terminal, 65536).decode("utf-8", "replace")
            assert expected in seen
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


@pytest.mark.slow
def test_bash_offers_all_of_it(place: Path) -> None:
    del place
    for words, expected in CASES.items():
        assert set(bash(*words)) == expected, words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_offers_the_same(place: Path) -> None:
    del place
    script = (
        "compdef() { : }\n"
        'eval "$(refusalkit completion zsh)"\n'
        "_describe() { print -rl -- ${(P)4}; }\n"
        "compadd() { print -rl -- $completions; }\n"
        "_path_files() { : }\n"
    )
    for words, expected in (
        (("run", "demo/"), CASES[("run", "demo/")]),
        (("score", "runs/"), {"runs/alpha", "runs/group/"}),
        (("run", "demo/open", "--judge", "lex"), {"lexical"}),
        (("show", "runs/alpha", "ex"), {UNIT}),
    ):
        quoted = " ".join(f"'{word}'" for word in ("refusalkit", *words))
        asked = f"{script}words=({quoted}); CURRENT=$#words; _refusalkit_completion"
        assert set(said("zsh", "-f", "-c", asked)) == expected, words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_offers_the_same(place: Path) -> None:
    del place
    asked_for = (("run", "demo/"), ("audit", "runs/"), ("judges", "show", "gra"))
    for words in (*asked_for, ("show", "runs/alpha", "ex")):
        line = " ".join(("refusalkit", *words))
        asked = "refusalkit completion fish | source; "
        asked += f"complete -C '{line}' | string split -f1 \\t; true"
        assert set(said("fish", "--no-config", "-c", asked)) == CASES[words], words
