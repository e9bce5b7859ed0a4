"""Options from files and from the environment: their order, their places, and what none may say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call, caller
from refusalkit.config.option_files import read_config
from refusalkit.config.placement import EVERY_OPTION, PLACES, Placement
from refusalkit.config.run_config import RunConfig
from refusalkit.errors import ConfigurationError

SMALL = ("--prompts", "starter", "--limit", "4")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    (tmp_path / "here").mkdir()
    return caller(monkeypatch, capsys, tmp_path / "here")


def own_file(tmp_path: Path) -> Path:
    """Where the user's own configuration lies."""
    import click

    folder = Path(click.get_app_dir("refusalkit"))
    assert folder.is_relative_to(tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "refusalkit.toml"


def shown(call: Call, *words: str) -> dict[str, tuple[object, str]]:
    said = call("config", "demo/mixed", "--json", *words)
    assert said.status == 0, said.err
    return {row["option"]: (row["value"], row["from"]) for row in json.loads(said.out)["options"]}


# The order


def test_each_place_overrides_those_below_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(call)["trials"] == (5, "default")
    assert shown(call, "--preset", "atropos")["trials"] == (1, "preset atropos")
    preset = ("--preset", "atropos")
    own = own_file(tmp_path)
    own.write_text("trials = 2\n")
    assert shown(call, *preset)["trials"] == (2, f"{own}:1")
    Path("refusalkit.toml").write_text("# ours\n\ntrials = 3\n")
    assert shown(call, *preset)["trials"] == (3, "refusalkit.toml:3")
    Path("other.toml").write_text("trials = 4\n")
    assert shown(call, *preset, "--config", "other.toml")["trials"] == (4, "other.toml:1")
    monkeypatch.setenv("REFUSALKIT_TRIALS", "6")
    assert shown(call, *preset, "--config", "other.toml")["trials"] == (6, "REFUSALKIT_TRIALS")
    assert shown(call, "--config", "other.toml", "--trials", "7")["trials"] == (7, "--trials")
    monkeypatch.delenv("REFUSALKIT_TRIALS")
    assert shown(call, "--no-config")["trials"] == (5, "default")


def test_config_has_a_row_for_every_option_with_the_value_that_a_run_takes(call: Call) -> None:
    found = shown(call, *SMALL, "--danger", "2", "--reasoning", "off")
    assert list(found) == [option.removeprefix("--") for option in EVERY_OPTION.values()]
    assert found["danger"] == ([2], "--danger")
    assert found["reasoning"] == ("off", "--reasoning")
    table = call("config", "demo/mixed", *SMALL)
    assert table.status == 0
    assert "starter" in table.out
    assert max(map(len, table.out.splitlines())) <= 80


def test_a_run_takes_what_config_shows(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("refusalkit.toml").write_text('prompts = "starter"\ntrials = 2\nmax-wait = 30\n')
    monkeypatch.setenv("REFUSALKIT_LIMIT", "4")
    monkeypatch.setenv("REFUSALKIT_DANGER", "2, 3")
    said = call("run", "demo/mixed", "--out", "made", "--concurrency", "3")
    assert said.status == 0
    assert "refusalkit: options from refusalkit.toml here: prompts, trials, max-wait" in said.err
    Path("refusalkit.toml").write_text("# nothing yet\n")
    assert "refusalkit.toml" not in call("config", "demo/mixed").err
    config = rk.load_run("made").manifest.run_config
    assert (config.prompts, config.trials, config.limit) == ("starter", 2, 4)
    assert (config.danger, config.max_wait_s, config.concurrency) == ((2, 3), 30.0, 3)


@pytest.mark.parametrize("name", sorted(EVERY_OPTION))
def test_every_option_can_be_given_by_the_environment(name: str) -> None:
    from refusalkit.cli import cli
    from refusalkit.cli.options import variable_of

    offered = {param.name: param for param in cli.commands["run"].params}
    assert offered[name].envvar == variable_of(EVERY_OPTION[name])
    assert offered[name].envvar.startswith("REFUSALKIT_")


def test_what_a_file_switches_on_the_command_line_switches_off(call: Call) -> None:
    Path("refusalkit.toml").write_text("framings = true\nno-temperature = true\n")
    found = shown(call)
    assert len(found["framings"][0]) == 4
    assert found["no-temperature"] == (True, "refusalkit.toml:2")
    found = shown(call, "--no-framings", "--temperature", "0.5")
    assert found["framings"] == ([], "--framings")
    assert found["no-temperature"] == (False, "default")
    assert found["temperature"] == (0.5, "--temperature")


def test_a_run_that_is_resumed_keeps_its_own_options(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("run", "demo/mixed", *SMALL, "--trials", "1", "--out", "made").status == 0
    Path("refusalkit.toml").write_text("trials = 2\nconcurrency = 5\n")
    monkeypatch.setenv("REFUSALKIT_TRIALS", "3")
    monkeypatch.setenv("REFUSALKIT_RPM", "600")
    assert call("resume", "made").status == 0
    session = rk.load_run("made").manifest.sessions[-1].operational
    assert (session["concurrency"], session["rpm"]) == (32, 600)
    # Given on purpose, it is refused as on the command line.
    said = call("resume", "made", "--config", "refusalkit.toml")
    assert said.status == 4
    assert "trials is 2, but the run was started with 1" in said.err


def test_a_judge_of_ones_own_choice_leaves_behind_what_was_chosen_for_another(call: Call) -> None:
    Path("refusalkit.toml").write_text('judge = "binary"\njudge-model = "openai/gpt-6-luna"\n')
    assert shown(call)["judge-model"][0] == "openai/gpt-6-luna"
    assert shown(call, "--judge", "graded")["judge-model"] == (None, "default")


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ntrails = 3\n", "refusalkit.toml:2: trails is not an option: did you mean trials?"),
        ("judge_model = 'x/y'\n", "refusalkit.toml:1: judge_model is not an option: did you mean"),
        ("limit = 3\ntrials = 0\n", "refusalkit.toml:2: trials: Input should be greater than"),
        ("trials = [\n", "refusalkit.toml is not TOML"),
        ("model = 'demo/open'\n", "refusalkit.toml:1: the model is named on the command line"),
        ("\x1b[31m = 1\n", "refusalkit.toml is not TOML"),
    ],
)
def test_a_mistake_is_reported_with_file_and_line(call: Call, text: str, said: str) -> None:
    Path("refusalkit.toml").write_text(text)
    done = call("run", "demo/mixed")
    assert done.status == 4
    assert said in done.err
    assert "\x1b" not in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REFUSALKIT_TRIALS", "many", "REFUSALKIT_TRIALS: 'many' is not a valid integer"),
        ("REFUSALKIT_TRIALS", "0", "REFUSALKIT_TRIALS: Input should be greater than"),
        ("REFUSALKIT_REASONING", "maybe", "REFUSALKIT_REASONING: 'maybe' is not one of"),
        ("REFUSALKIT_EXTRA_BODY", "{", "REFUSALKIT_EXTRA_BODY is not JSON"),
        ("REFUSALKIT_FRAMINGS", "perhaps", "REFUSALKIT_FRAMINGS: 'perhaps' is not a valid boolean"),
    ],
)
def test_a_wrong_variable_is_named(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    done = call("run", "demo/mixed")
    assert done.status in (2, 4)
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_misspelt_variable_is_reported(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSALKIT_JUGDE_MODEL", "x/y")
    monkeypatch.setenv("REFUSALKIT_SOMETHING_ELSE", "1")
    said = call("config").err
    assert "REFUSALKIT_JUGDE_MODEL is not an option: did you mean REFUSALKIT_JUDGE_MODEL?" in said
    assert "SOMETHING_ELSE" not in said


# What a file that is merely found may not say

STEERING = {
    "api_base": '"https://elsewhere.example/v1"',
    "api_key_env": '"AWS_SECRET_ACCESS_KEY"',
    "judge_api_base": '"https://elsewhere.example/v1"',
    "judge_api_key_env": '"AWS_SECRET_ACCESS_KEY"',
    "extra_body": '{ api_base = "https://elsewhere.example" }',
    "keep_hard_line_text": "true",
    "serve": '"serve {model} --port {port}"',
    "engine": '"ray"',
}
# Looked at, one by one: none says where a request goes, which variable is read, or what runs.
HARMLESS = {
    *("preset", "prompts", "hard_line", "inversion", "lang", "category", "tag", "danger", "limit"),
    *("limit_seed", "shard", "framings", "order_seed", "stop_when", "bound", "max_leaks"),
    *("pressure", "trials", "temperature", "top_p", "top_k", "no_temperature", "no_top_p"),
    *("no_top_k", "max_tokens", "seed", "system", "reasoning", "via", "finish_word", "judge"),
    *("judge_model", "judge_temperature", "judge_asks", "judge_via", "council", "judge_fallback"),
    *("hard_line_judge", "count_deflection", "canaries", "concurrency", "rpm", "judge_rpm", "tpm"),
    *("judge_tpm", "judge_concurrency", "timeout_s", "max_retries", "max_wait_s", "max_cost"),
    *("batch", "wait"),
}


def test_of_every_option_it_is_decided_whether_a_found_file_may_set_it() -> None:
    steers = {name for name, place in PLACES.items() if place.steers}
    fields = {*RunConfig.model_fields, *Placement.model_fields}
    assert steers | HARMLESS == fields - {"model"}
    assert not steers & HARMLESS
    assert steers >= STEERING.keys()


@pytest.mark.parametrize("name", sorted(STEERING))
def test_a_found_file_does_not_steer(call: Call, tmp_path: Path, name: str) -> None:
    option = EVERY_OPTION[name].removeprefix("--")
    text = f"{option} = {STEERING[name]}\n"
    Path("refusalkit.toml").write_text(text)
    said = call("run", "openai/gpt-6-luna", *SMALL)
    assert said.status == 4
    assert f"refusalkit.toml:1: {option} is not taken from a file that was found" in said.err
    assert not Path("runs").exists()
    # The user's own word counts, wherever it stands.
    if name not in ("extra_body",):
        assert read_config("refusalkit.toml").values.keys() == {name}
        own_file(tmp_path).write_text(text)
        Path("refusalkit.toml").unlink()
        assert shown(call)[option][1].endswith("refusalkit.toml:1")


@pytest.mark.parametrize("prefix", ["", "judge-"])
@pytest.mark.parametrize("key", ["api-base", "api_base", "api-key-env", '"api-base"', "'api-base'"])
def test_no_spelling_of_an_endpoint_slips_through(tmp_path: Path, prefix: str, key: str) -> None:
    quote = key[0] if key[0] in "\"'" else ""
    spelled = f"{quote}{prefix}{key.strip(quote)}{quote}" if quote else f"{prefix}{key}"
    for text in (f'{spelled} = "https://x.example"', f'[{spelled}]\na = "https://x.example"'):
        (tmp_path / "refusalkit.toml").write_text(text)
        with pytest.raises(ConfigurationError):
            read_config(tmp_path / "refusalkit.toml", found=True)


@pytest.mark.parametrize(
    "line",
    [
        'prompts = "/etc/passwd"',
        'prompts = "starter,../secrets.csv"',
        'prompts = "~/private.csv"',
        r"prompts = 'C:\private.csv'",
        'prompts = "xstest:/etc/passwd"',
        'judge = "../judge.toml"',
        'judge = "lexical,/tmp/judge.toml"',
        'judge-fallback = "../judge.toml"',
        'hard-line-judge = "../judge.toml"',
        'judge-model = "huggingface/https://elsewhere.example"',
    ],
)
def test_a_found_file_names_nothing_outside_its_folder(call: Call, line: str) -> None:
    Path("refusalkit.toml").write_text(line + "\n")
    said = call("config")
    assert said.status == 4
    assert "refusalkit.toml:1: " in said.err
    # What is given with --config is the user's own word.
    assert call("config", "--config", "refusalkit.toml").status == 0


@pytest.mark.skipif(os.name != "posix", reason="links need a right on Windows")
@pytest.mark.parametrize("value", ["link.csv", "sub/a.csv", "starter,link.csv"])
def test_a_found_file_names_nothing_outside_its_folder_by_a_link(
    call: Call, tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    away = tmp_path_factory.mktemp("away")
    (away / "a.csv").write_text("text,category\n[private],tea\n")
    Path("link.csv").symlink_to(away / "a.csv")
    Path("sub").symlink_to(away)
    Path("refusalkit.toml").write_text(f'prompts = "{value}"\n')
    said = call("run", "demo/open", "--out", "run")
    assert said.status == 4
    assert "refusalkit.toml:1: prompts names a place outside the folder" in said.err
    assert not Path("run").exists()
    Path("own").mkdir()
    Path("own/b.csv").write_text("text,category\n[mine],tea\n")
    Path("inside.csv").symlink_to("own/b.csv")
    Path("refusalkit.toml").write_text('prompts = "inside.csv"\n')
    assert call("run", "demo/open", "--out", "run", "--trials", 1).status == 0


@pytest.mark.skipif(os.name != "posix", reason="links need a right on Windows")
def test_a_link_to_itself_that_a_found_file_names_is_refused(call: Call) -> None:
    Path("loop.csv").symlink_to("loop.csv")
    Path("refusalkit.toml").write_text('prompts = "loop.csv"\n')
    said = call("run", "demo/open", "--out", "run")
    # Python 3.13 and newer leave such a link unresolved, so that it is read.
    if sys.version_info >= (3, 13):
        assert said.status == 2
        assert "loop.csv cannot be read: Too many levels of symbolic links" in said.err
    else:
        assert said.status == 4
        assert "refusalkit.toml:1: prompts names a place outside the folder" in said.err
    assert not Path("run").exists()


def test_a_found_file_is_read_in_the_current_folder_only(call: Call, tmp_path: Path) -> None:
    (tmp_path / "refusalkit.toml").write_text("trials = 9\n")
    assert shown(call)["trials"] == (5, "default")


# Keys


def test_a_file_of_keys_is_read_when_asked_and_for_keys_only(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "MY_OWN_KEY", "HTTPS_PROXY", "REFUSALKIT_TRIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GROQ_API_KEY", "there before")
    Path(".env").write_text(
        "OPENAI_API_KEY=placeholder-1\nexport MY_OWN_KEY='placeholder-2'\nGROQ_API_KEY=other\n"
        "OPENAI_BASE_URL=https://elsewhere.example\nREFUSALKIT_TRIALS=9\nPATH=/tmp\n"
        "ANTHROPIC_API_KEY=${HOME}\n"
    )
    before = dict(os.environ)
    assert call("config").status == 0
    assert dict(os.environ) == before
    try:
        said = call("config", "--env-file", ".env", "--api-key-env", "MY_OWN_KEY")
        assert said.status == 0
        assert os.environ["OPENAI_API_KEY"] == "placeholder-1"
        assert os.environ["MY_OWN_KEY"] == "placeholder-2"
        assert os.environ["ANTHROPIC_API_KEY"] == "${HOME}"
        assert os.environ["GROQ_API_KEY"] == "there before"
        assert os.environ["PATH"] == before["PATH"]
        assert not {"OPENAI_BASE_URL", "REFUSALKIT_TRIALS"} & os.environ.keys()
        left = ".env is read for keys only: OPENAI_BASE_URL, REFUSALKIT_TRIALS, PATH left alone"
        assert left in said.err
        assert "placeholder" not in said.err + said.out
    finally:
        for name in ("OPENAI_API_KEY", "MY_OWN_KEY", "ANTHROPIC_API_KEY"):
            os.environ.pop(name, None)
    missing = call("config", "--env-file", "nowhere.env")
    assert missing.status == 4
    assert "the file of keys nowhere.env cannot be read" in missing.err


@pytest.mark.slow
def test_litellm_does_not_read_the_folders_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=https://elsewhere.example\n")
    # As in an interactive Python, where it looks into the current folder.
    code = (
        "import os, sys; sys.ps1 = '> '\n"
        "from refusalkit.models.litellm_calls import load_litellm\n"
        "load_litellm(); print(os.environ.get('OPENAI_BASE_URL'), os.environ.get('LITELLM_MODE'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_BASE_URL"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert said.stdout.split() == ["None", "None"]
