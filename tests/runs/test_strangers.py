"""A run folder that somebody else wrote: what it says about hosts, keys and texts is not followed.

The attacker's server writes down all that it is sent. docs/security.md names these tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commandline import Call, caller
from loopback import ANSWER, LoopbackServer, Script
from loopback.canned import CannedServer
from refusalkit.runs.seal import state_folder
from refusalkit.shipped import judges_dir
from wire_cases import VERDICT, good_answer

OWN_KEY = "own-key-0123456789abcdef"
SECRET = "cloud-secret-0123456789abcdef"
HARD_LINE = "suicide-and-self-harm"


class Attacker:
    """A server that writes down what it gets, headers and all, and answers nothing."""

    def __init__(self) -> None:
        self.got: list[str] = []
        log = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                log.append(f"{self.path}\n{self.headers}\n{body.decode('utf-8', 'replace')}")
                self.send_error(500)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    found = Attacker()
    yield found
    found.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackServer]:
    with LoopbackServer(Script(refusal_rate=0.0)) as running:
        yield running


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    found = caller(monkeypatch, capsys, tmp_path)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", OWN_KEY)
    monkeypatch.setenv("MY_LOCAL_KEY", OWN_KEY)
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GROQ_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    return found


@pytest.fixture
def run(call: Call, provider: LoopbackServer, tmp_path: Path) -> Path:
    """A run of one's own at an endpoint of one's own, that owes its last unit."""
    out = tmp_path / "run"
    own = ("--api-base", provider.openai_base, "--api-key-env", "MY_LOCAL_KEY")
    of_judge = ("--judge-api-base", provider.openai_base, "--judge-api-key-env", "MY_LOCAL_KEY")
    judge = ("--judge", "graded", "--judge-model", "openai/judge-x", *of_judge)
    small = ("--category", HARD_LINE, "--limit", 3, "--trials", 1, "--canaries", 0)
    made = call("run", "openai/target", *own, *judge, *small, "--out", out)
    assert made.status in (0, 1), made.err
    owe(out)
    return out


def owe(folder: Path) -> None:
    """Take a run's last unit away."""
    (folder / "checkpoint.jsonl").unlink(missing_ok=True)
    completions = (folder / "completions.jsonl").read_bytes().splitlines(keepends=True)
    gone = json.loads(completions[-1])["unit"]
    (folder / "completions.jsonl").write_bytes(b"".join(completions[:-1]))
    verdicts = (folder / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    left = [line for line in verdicts if json.loads(line)["unit"] != gone]
    (folder / "verdicts.jsonl").write_bytes(b"".join(left))


def manifest_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return data


def forge(folder: Path, *, config: Any = (), **changes: Any) -> None:
    """Change a manifest as a stranger would, who has no key to seal it."""
    data = manifest_of(folder)
    data["config"] |= dict(config)
    data |= changes
    (folder / "manifest.json").write_text(json.dumps(data), "utf-8")


def n_units(folder: Path) -> int:
    records = map(json.loads, (folder / "completions.jsonl").read_bytes().splitlines())
    return len({record["unit"] for record in records})


# One's own


def test_ones_own_run_is_gone_on_with_without_a_question(call: Call, run: Path) -> None:
    done = call("resume", run)
    assert n_units(run) == 3, done.err
    assert "--api-base" not in done.err
    assert "--trust-folder" not in done.err


def test_a_copy_of_ones_own_run_is_ones_own(call: Call, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(run, copy)
    done = call("resume", copy)
    assert n_units(copy) == 3, done.err


def test_a_session_says_once_at_the_start_what_is_sent_where(
    call: Call, run: Path, provider: LoopbackServer
) -> None:
    lines = call("resume", run).err.splitlines()
    host = provider.openai_base.removesuffix("/v1")
    said = (
        f"refusalkit: prompts go to {host} (openai/target, key: MY_LOCAL_KEY); "
        f"answers to be judged go to {host} (openai/judge-x, key: MY_LOCAL_KEY)"
    )
    assert lines.count(said) == 1
    assert lines[0] == said


def test_scripted_models_are_gone_on_with_no_matter_who_made_the_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("run", "demo/mixed", "--limit", 3, "--trials", 1, "--out", "run")
    owe(tmp_path / "run")
    monkeypatch.setenv("REFUSALKIT_STATE", str(tmp_path / "another-machine"))
    done = call("resume", "run")
    assert n_units(tmp_path / "run") == 3
    assert "prompts go to" not in done.err


def test_the_key_of_the_seal_is_the_users_alone_and_is_made_once(call: Call, run: Path) -> None:
    folder = state_folder()
    assert folder is not None
    key = folder / "manifest.key"
    if os.name == "posix":
        assert key.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o077 == 0
    before = key.read_bytes()
    call("resume", run)
    assert key.read_bytes() == before
    assert before.decode().strip() not in (run / "manifest.json").read_text("utf-8")


# On another machine


def test_on_another_machine_one_sentence_says_what_to_add(
    call: Call, run: Path, provider: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSALKIT_STATE", str(tmp_path / "another-machine"))
    asked = provider.requests
    refused = call("resume", run)
    assert refused.status == 4
    (line,) = refused.err.splitlines()
    base = provider.openai_base
    for named in (base, "MY_LOCAL_KEY", "--api-base", "--api-key-env", "--judge-api-base"):
        assert named in line
    assert line.endswith(
        "give --api-key-env and --judge-api-key-env yourself, and with that --api-base and "
        "--judge-api-base, or --trust-folder in place of the latter if you trust who wrote it"
    )
    assert provider.requests == asked
    given = ("--api-base", base, "--api-key-env", "MY_LOCAL_KEY")
    judge = ("--judge-api-base", base, "--judge-api-key-env", "MY_LOCAL_KEY")
    assert n_units(run) == 2
    call("resume", run, *given, *judge)
    assert n_units(run) == 3
    # So is the other way that the sentence names.
    monkeypatch.setenv("REFUSALKIT_STATE", str(tmp_path / "a-third-machine"))
    owe(run)
    call("resume", run, "--trust-folder", *given[2:], *judge[2:])
    assert n_units(run) == 3
    # From now on it is this user's own: the same without a word.
    owe(run)
    call("resume", run)
    assert n_units(run) == 3


# Where a key goes, and which


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GROQ_API_KEY"])
@pytest.mark.parametrize("prefix", ["", "judge_"])
def test_a_folder_chooses_neither_where_a_key_goes_nor_which(
    call: Call, run: Path, attacker: Attacker, prefix: str, variable: str
) -> None:
    forge(run, config={f"{prefix}api_base": attacker.base, f"{prefix}api_key_env": variable})
    refused = call("resume", run)
    assert refused.status == 4
    assert attacker.base in refused.err
    assert variable in refused.err
    assert SECRET not in refused.err
    assert attacker.got == []
    assert n_units(run) == 2


@pytest.mark.parametrize("prefix", ["", "judge_"])
def test_with_an_address_of_ones_own_the_folders_variable_is_still_asked_for(
    call: Call, run: Path, attacker: Attacker, prefix: str
) -> None:
    """`--api-base MINE` says where, and not with which key."""
    forge(run, config={f"{prefix}api_key_env": "AWS_SECRET_ACCESS_KEY"})
    bases = ("--api-base", attacker.base, "--judge-api-base", attacker.base)
    refused = call("resume", run, *bases)
    assert refused.status == 4
    assert "AWS_SECRET_ACCESS_KEY" in refused.err
    assert attacker.got == []


def test_a_trusted_folder_names_hosts_and_providers_keys_but_no_other_variable(
    call: Call, run: Path, provider: LoopbackServer, attacker: Attacker
) -> None:
    both = {"api_key_env": "OPENAI_API_KEY", "judge_api_key_env": "OPENAI_API_KEY"}
    forge(run, config={**both, "api_key_env": "AWS_SECRET_ACCESS_KEY", "api_base": attacker.base})
    refused = call("resume", run, "--trust-folder")
    assert refused.status == 4
    assert "AWS_SECRET_ACCESS_KEY" in refused.err
    assert attacker.got == []
    forge(run, config={**both, "api_base": provider.openai_base})
    call("resume", run, "--trust-folder")
    assert n_units(run) == 3


def test_what_an_earlier_session_says_of_a_judge_is_not_followed(
    call: Call, run: Path, provider: LoopbackServer, attacker: Attacker
) -> None:
    call("resume", run)
    again = ("regrade", run, "--judge", "refusalbench", "--judge-model", "openai/judge-y")
    at = ("--judge-api-base", provider.openai_base, "--judge-api-key-env", "MY_LOCAL_KEY")
    call(*again, *at)
    sessions = manifest_of(run)["sessions"]
    evil = {"judge_api_base": attacker.base, "judge_api_key_env": "AWS_SECRET_ACCESS_KEY"}
    sessions[-1]["operational"] |= evil
    forge(run, sessions=sessions)
    refused = call(*again)
    assert refused.status == 4
    assert attacker.base in refused.err
    assert attacker.got == []
    # Neither does a resume that says where carry the entry on under this user's seal.
    given = ("--api-base", provider.openai_base, "--api-key-env", "MY_LOCAL_KEY")
    assert call("resume", run, *given, *at).status != 4
    assert attacker.base not in (run / "manifest.json").read_text("utf-8")
    # A regrade by one's own words does not make the folder one's own.
    forge(run, config={"api_base": attacker.base})
    call(*again, *at)
    owe(run)
    assert call("resume", run).status == 4
    assert attacker.got == []


def test_grade_does_not_follow_the_folder_that_it_goes_on_with(
    call: Call, provider: LoopbackServer, attacker: Attacker, tmp_path: Path
) -> None:
    rows = [{"prompt": f"[demo prompt {n}]", "response": "[demo answer]"} for n in range(2)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    at = ("--judge-api-base", provider.openai_base, "--judge-api-key-env", "MY_LOCAL_KEY")
    again = ("grade", "answers.jsonl", "--judge-model", "openai/judge-x", "--out", "graded")
    call(*again, *at)
    assert call(*again).status == 0  # one's own
    forge(tmp_path / "graded", config={"judge_api_base": attacker.base})
    (tmp_path / "graded" / "verdicts.jsonl").write_bytes(b"")
    refused = call(*again)
    assert refused.status == 4
    assert attacker.base in refused.err
    assert attacker.got == []
    assert call(*again, *at).status == 0


@pytest.mark.parametrize("how", ["seal", "no seal", "another run's seal"])
def test_a_seal_fits_one_manifest_only(
    call: Call, run: Path, attacker: Attacker, tmp_path: Path, how: str
) -> None:
    data = manifest_of(run)
    assert data["seal"].startswith("hmac-sha256:")
    if how == "no seal":
        del data["seal"]
    elif how == "another run's seal":
        call("run", "demo/mixed", "--limit", 3, "--trials", 1, "--out", "other")
        data["seal"] = manifest_of(tmp_path / "other")["seal"]
    data["config"]["api_base"] = attacker.base
    (run / "manifest.json").write_text(json.dumps(data), "utf-8")
    assert call("resume", run).status == 4
    assert attacker.got == []


def test_fields_that_litellm_takes_for_options_are_not_taken_from_a_folder(
    call: Call, tmp_path: Path, attacker: Attacker
) -> None:
    """An `extra_body` with a `base_url` would send a provider's key elsewhere."""
    call("run", "demo/open", "--limit", 3, "--trials", 1, "--out", "run")
    folder = tmp_path / "run"
    owe(folder)
    body = {"base_url": attacker.base, "api_base": attacker.base}
    forge(folder, config={"model": "groq/some-model", "extra_body": body})
    from refusalkit.config.run_config import RunConfig

    config = RunConfig.model_validate(manifest_of(folder)["config"])
    forge(folder, config_digest=config.digest)
    refused = call("resume", folder)
    assert refused.status == 4
    assert "--extra-body" in refused.err
    assert attacker.got == []


def test_an_address_inside_a_models_name_is_refused(call: Call, attacker: Attacker) -> None:
    """litellm asks `huggingface/https://...` there, with the token of the Hub."""
    refused = call("run", f"huggingface/{attacker.base}", "--limit", 3, "--trials", 1)
    assert refused.status == 2
    assert "API base" in refused.err
    assert attacker.got == []


# What is withheld


@pytest.mark.parametrize("how", ["hard_line false", "kept", "both"])
def test_a_folder_cannot_have_hard_line_answers_written(
    call: Call, run: Path, provider: LoopbackServer, how: str
) -> None:
    data = manifest_of(run)
    if how != "kept":
        for category in data["prompt_set"]["categories"]:
            category["hard_line"] = False
    kept = {} if how == "hard_line false" else {"hard_line_text": "kept"}
    forge(run, prompt_set=data["prompt_set"], **kept)
    at = ("--api-base", provider.openai_base, "--api-key-env", "MY_LOCAL_KEY")
    judge = ("--judge-api-base", provider.openai_base, "--judge-api-key-env", "MY_LOCAL_KEY")
    done = call("resume", run, *at, *judge)
    assert n_units(run) == 3, done.err
    for file in run.iterdir():
        assert ANSWER.encode() not in file.read_bytes(), file.name
    assert "hard line" in done.err or "hard-line" in done.err
    after = manifest_of(run)
    assert after["hard_line_text"] == "withheld"
    assert any(category["hard_line"] for category in after["prompt_set"]["categories"])


def test_a_folder_can_withhold_more(call: Call, tmp_path: Path) -> None:
    call("run", "demo/open", "--category", "assault", "--trials", 1, "--limit", 2, "--out", "more")
    folder = tmp_path / "more"
    owe(folder)
    categories = manifest_of(folder)["prompt_set"]
    for category in categories["categories"]:
        category["hard_line"] = True
    forge(folder, prompt_set=categories)
    call("resume", folder)
    last = (folder / "completions.jsonl").read_bytes().splitlines()[-1]
    assert json.loads(last)["text"] is None


# Edited records


@pytest.fixture
def finished(call: Call, tmp_path: Path) -> Path:
    """A finished run without leaks, which an audit finds held."""
    wanted = ("--category", HARD_LINE, "--category", "assault")
    call("run", "demo/cautious", *wanted, "--limit", 4, "--trials", 1, "--out", "held")
    assert call("audit", "held").status == 0
    return tmp_path / "held"


def edit_text(folder: Path) -> str:
    path = folder / "completions.jsonl"
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    changed = [record for record in records if record["text"] is not None][:2]
    for record in changed:
        record["text"] += " and more"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return f"{len(changed)} with a text that does not match its digest"


def lose_answer(folder: Path) -> str:
    path = folder / "completions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    return "1 with a verdict on an answer that is not there"


def forge_checkpoint(folder: Path) -> str:
    (folder / "checkpoint.jsonl").write_text('{"schema": 2, "crc32": 0}\n{}\n')
    return "a checkpoint of other records"


@pytest.mark.parametrize("edit", [edit_text, lose_answer, forge_checkpoint])
def test_edited_records_are_reported_with_their_count_and_no_line_is_held_by_them(
    call: Call, finished: Path, edit: Any
) -> None:
    told = edit(finished)
    for words in (("score", finished), ("audit", finished), ("report", finished)):
        done = call(*words)
        assert sum(told in line for line in done.err.splitlines()) == 1, words
    assert call("audit", finished).status == 3
    assert told in " ".join(call("audit", finished).out.split())
    assert told in (finished / "report.html").read_text("utf-8")


def test_a_folder_does_not_say_how_many_leaks_its_audit_lets_pass(
    call: Call, tmp_path: Path
) -> None:
    lines = ("--prompts", "refusalkit-166", "--category", "assault", "--hard-line", "assault")
    asked = ("--trials", 1, "--stop-when", "crossed", "--max-leaks", 900)
    call("run", "demo/open", *lines, *asked, "--out", "run")
    assert call("audit", "run").status == 0  # by this user's own rule
    data = manifest_of(tmp_path / "run")
    forge(tmp_path / "run", id="another")
    ended = call("audit", "run")
    assert ended.status == 1
    told = " ".join(ended.out.split())
    assert "allows 900 leaks: that counts only with --max-leaks 900" in told
    assert call("audit", "run", "--max-leaks", 900).status == 0
    forge(tmp_path / "run", config={"max_leaks": "many"})
    ended = call("audit", "run")
    assert ended.status == 2
    assert "config.max_leaks" in ended.err
    del data["config"]["max_leaks"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(data), "utf-8")
    assert "allows" not in call("audit", "run").out


def test_a_checkpoint_that_somebody_else_wrote_hides_no_owed_work(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that calls every unit settled, made with another key."""
    from refusalkit.runs.checkpoint import save_checkpoint
    from refusalkit.runs.folder import open_run
    from refusalkit.runs.state import read_state

    run = open_run(finished)
    with run.writing():
        state = read_state(run)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("REFUSALKIT_STATE", str(finished.parent / "elsewhere"))
        save_checkpoint(run, state.checkpoint)
    kept = (finished / "checkpoint.jsonl").read_bytes()
    owe(finished)
    # The files begin with fewer records than it speaks of, or with others: both are reported.
    (finished / "checkpoint.jsonl").write_bytes(kept)
    assert "a checkpoint of other records" in call("score", finished).err
    call("resume", finished)
    assert n_units(finished) == 4


def test_a_judge_file_that_became_another_is_refused_before_anything_is_sent(
    call: Call, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    text = (judges_dir() / "graded.toml").read_text().replace('name = "graded"', 'name = "mine"')
    mine.write_text(text)
    asked = good_answer("openai", VERDICT)
    with CannedServer(lambda *_: asked) as server:
        words = ("--judge-api-base", f"{server.url}/v1", "--judge-model", "local/j")
        words = (*words, "--canaries", 0, "--limit", 35, "--trials", 1, "--prompts", "starter")
        begun = call("run", "demo/open", "--judge", mine, *words, "--out", "run")
        assert begun.status in (0, 1, 3), begun.err
        sent = len(server.requests)
        assert sent
        # One answer is owed again.
        records = tmp_path / "run" / "verdicts.jsonl"
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]))
        for edited in (
            text.replace('system = """', 'system = """\nBe otherwise.', 1),
            text.replace('name = "mine"', 'name = "yours"'),
        ):
            assert edited != text
            mine.write_text(edited)
            ended = call("resume", "run")
            assert ended.status == 4
            assert "start a new run to use it" in ended.err
            assert len(server.requests) == sent
        mine.write_text(text)
        assert call("resume", "run").status == begun.status
        assert len(server.requests) == sent + 1


def test_records_that_are_not_those_graded_are_left_out_of_an_agreement(
    call: Call, tmp_path: Path
) -> None:
    def line(n: int, label: str) -> str:
        row = {"id": f"a{n}", "prompt": "A placeholder?", "response": ANSWER, "label": label}
        return json.dumps(row) + "\n"

    records = tmp_path / "records.jsonl"
    records.write_text("".join(line(n, "compliance") for n in range(4)))
    assert call("grade", "records.jsonl", "--judge", "lexical", "--out", "graded").status == 0
    both = call("judges", "agree", "graded", "--json")
    assert sorted(json.loads(both.out)["labelled"]) == ["lexical", "people"]
    # What lies at the path that the manifest names is something else by now.
    records.write_text("".join(line(n + 1, "refusal") for n in range(4)))
    ended = call("judges", "agree", "graded")
    assert ended.status == 2
    assert "what people said of them is left out" in ended.err
    manifest = json.loads((tmp_path / "graded" / "manifest.json").read_text())
    manifest["prompt_set"]["source"] = str(tmp_path / "graded")
    (tmp_path / "graded" / "manifest.json").write_text(json.dumps(manifest))
    ended = call("judges", "agree", "graded")
    assert ended.status in (2, 4)
    assert "graded from itself" in ended.err
    assert call("judges", "label", "graded", "--out", "labels").status in (2, 4)


@pytest.mark.parametrize(
    "far", [r"\\attacker\share\p", "//attacker/share/p", r"\/attacker\share\p", r"\\?\UNC\a\b"]
)
def test_a_folder_makes_nobody_open_a_file_on_another_machine(
    far: str, call: Call, run: Path
) -> None:
    """On Windows that would send the attacker's machine the user's name and password's hash."""
    whole = manifest_of(run)
    mine = ("--api-base", "http://127.0.0.1:9/v1", "--api-key-env", "MY_LOCAL_KEY")
    mine = (*mine, "--judge-api-base", "http://127.0.0.1:9/v1", "--judge-api-key-env", mine[-1])
    (judge,) = whole["judges"]
    for changed in (
        {"prompt_set": {**whole["prompt_set"], "source": far}},
        {"judges": {judge: {**whole["judges"][judge], "source": far}}},
    ):
        forge(run, **changed)
        ended = call("resume", run, *mine)
        assert ended.status == 4
        assert "names a file on another one" in ended.err
    forge(run, judges=whole["judges"], prompt_set={**whole["prompt_set"], "source": far})
    for words in (("regrade", run, "--judge", "lexical"), ("judges", "agree", run)):
        ended = call(*words)
        assert ended.status in (2, 4), words
        assert "attacker" not in ended.err or "names a file on another one" in ended.err
    assert call("score", run).status in (0, 1, 3)


def test_a_judge_file_makes_nobody_load_a_model_from_another_machine(
    call: Call, tmp_path: Path
) -> None:
    text = (judges_dir() / "minos.toml").read_text()
    far = text.replace('"NousResearch/Minos-v1"', r"'\\attacker\share'")
    assert far != text
    (tmp_path / "mine.toml").write_text(far)
    ended = call("run", "demo/open", "--judge", "mine.toml", "--limit", 3)
    assert ended.status == 2
    assert "path on another machine" in ended.err


def places_of_text(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each text in a manifest."""
    for name, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, dict | list):
            yield from places_of_text(value, (*way, name))
        elif isinstance(value, str):
            yield (*way, name)


STEERING = "\x1b]0;owned\x07\u202e\n```\n=1+1"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_text_of_a_manifest_steers_a_terminal_or_what_is_written(
    call: Call, tmp_path: Path, part: int
) -> None:
    call("run", "demo/leaky", "--prompts", "starter", "--trials", 1, "--out", "run")
    call("regrade", "run", "--judge", "lexical", "--count-deflection")
    shutil.copytree("run", "other")
    whole = manifest_of(tmp_path / "run")
    places = list(places_of_text(whole))
    assert len(places) > 60
    written = ("card.md", "page.html", "units.csv", "audit.xml", "hub")
    for *way, last in places[part::4]:
        forge(tmp_path / "run", **json.loads(json.dumps(whole)))
        data = manifest_of(tmp_path / "run")
        inner: Any = data
        for step in way:
            inner = inner[step]
        inner[last] = STEERING
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(data), "utf-8")
        for words in (
            ("score", "run"),
            ("score", "run", "--by", "category", "--format", "csv"),
            ("audit", "run", "--format", "markdown", "--junit", "audit.xml"),
            ("compare", "run", "other"),
            ("compare", "run", "other", "--anyway", "--format", "markdown"),
            ("leaderboard", "run", "other"),
            ("report", "run", "-o", "card.md"),
            ("report", "run", "-o", "page.html"),
            ("report", "run", "-o", "units.csv"),
            ("export", "run", "--to", "hub", "hub", "--dataset", "a/b"),
            ("verify", "run"),
            ("runs", "."),
            ("resume", "run"),
            ("merge", "run", "--out", "merged"),
        ):
            ended = call(*words)
            assert not {*"\x1b\x07\u202e"} & {*ended.out, *ended.err}, (way, last, words)
            assert "a defect" not in ended.err, (way, last, words, ended.err)
        for name in written:
            path = tmp_path / name
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file():
                    held = file.read_text("utf-8")
                    assert not {*"\x1b\x07\u202e"} & {*held}, (way, last, file)
                    file.unlink()


@pytest.mark.parametrize("field", ["system", "reasoning", "preset", "prompts"])
def test_half_a_character_in_a_manifest_keeps_no_report_from_being_written(
    call: Call, finished: Path, field: str
) -> None:
    forge(finished, config={field: "\ud800"})
    for words in (
        ("report", finished, "-o", "card.md"),
        ("report", finished, "-o", "page.html"),
        ("leaderboard", finished),
        ("export", finished, "--to", "bundle", "run.zip"),
    ):
        ended = call(*words)
        assert ended.status in (0, 2), words
        assert "a defect" not in ended.err, (words, ended.err)


def test_a_model_card_of_a_strangers_run_closes_no_fence_and_steers_no_terminal(
    call: Call, run: Path, tmp_path: Path
) -> None:
    steering = "\x1b]8;;http://evil\x07\u202e\n```\n<img src=x onerror=alert(1)>"
    whole = manifest_of(run)
    judge = {name: {**entry, "name": steering} for name, entry in whole["judges"].items()}
    entry = {**whole["prompt_set"], "name": steering, "version": steering}
    forge(run, refusalkit=steering, prompt_set=entry, judges=judge, config={"model": steering})
    assert call("report", run, "-o", "card.md").status == 0
    card = (tmp_path / "card.md").read_text("utf-8")
    assert not {"\x1b", "\x07", "\u202e"} & set(card)
    # What is in fences is code; everything else is escaped or code, too.
    fences = [line for line in card.splitlines() if line.startswith("```")]
    assert fences == ["```sh", "```", "```bibtex", "```"]
    parts = re.split(r"^```.*\n", card, flags=re.MULTILINE)
    assert not any("<img" in re.sub(r"`[^`]*`", "", part) for part in parts[::2])


def test_a_run_of_very_many_judges_is_refused_at_once(call: Call, run: Path) -> None:
    """Each judge has figures of its own, and is compared with each other one."""
    manifest = json.loads((run / "manifest.json").read_text())
    entry = manifest["judges"][manifest["judge"]]
    manifest["judges"] |= {f"judge-{n}": entry for n in range(5000)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    for command in (("score", run), ("report", run), ("judges", "agree", run)):
        done = call(*command)
        assert (done.status, done.out) == (2, "")
        assert "judges: Dictionary should have at most 50 items" in done.err


def test_of_very_many_parameters_only_a_few_are_listed(call: Call, run: Path) -> None:
    call("resume", run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["parameters"]["model"]["dropped"] = {f"p{n}": "no" for n in range(2000)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = call("regrade", run, "--judge", "lexical")
    assert done.status == 0
    assert "model: p0 was left out: no" in done.err
    assert "1,950 more were left out" in done.err
    assert len(done.err.splitlines()) < 100


@pytest.mark.parametrize("field", ["selection", "sent", "operational", "config"])
def test_a_manifest_that_is_nested_deeply_is_refused(call: Call, run: Path, field: str) -> None:
    """It could be read and not be written again."""
    manifest = json.loads((run / "manifest.json").read_text())
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": [deep]}
    entry = {"selection": manifest["prompt_set"], "operational": manifest["sessions"][0]}
    entry |= {"sent": manifest["parameters"]["model"]}
    entry.get(field, manifest)[field] = {**entry.get(field, manifest)[field], "deep": deep}
    (run / "manifest.json").write_text(json.dumps(manifest))
    for command in (("score", run), ("resume", run), ("regrade", run, "--judge", "lexical")):
        done = call(*command)
        assert (done.status, done.out) == (2, "")
        assert f"{field}: is nested too deeply" in done.err


def test_a_council_of_very_many_members_is_refused(call: Call, run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    judge = manifest["judges"][manifest["judge"]]
    judge |= {"kind": "council", "rule": "majority", "members": [manifest["judge"]] * 100_000}
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = call("score", run)
    assert done.status == 2
    assert "members: Tuple should have at most 50 items" in done.err


def test_prompts_that_only_a_manifest_has_take_no_memory_of_compare(
    call: Call, tmp_path: Path
) -> None:
    """Each was counted out once for either way: 8 GB for a billion of them."""
    small = ("run", "demo/mixed", "--prompts", "starter", "--limit", 6, "--trials", 1)
    call(*small, "--out", tmp_path / "a")
    call(*small, "--out", tmp_path / "b")
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["prompt_set"]["categories"][0] |= {"n_prompts": 10**9, "n_units": 10**9}
    path.write_text(json.dumps(manifest))
    done = call("compare", tmp_path / "a", tmp_path / "b", "--anyway", "--json")
    assert done.status == 0
    (pair,) = json.loads(done.out)["pairs"]
    assert pair["willingness"]["bounds"] == {
        "low": pytest.approx(-100),
        "high": pytest.approx(100),
    }
    done = call("compare", tmp_path / "a", tmp_path / "b", "--anyway", "--max-drop", 3)
    assert done.status == 2
    assert "prompts were planned that neither run has an answer to" in done.err
