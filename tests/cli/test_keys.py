"""Keys reach the endpoint and nothing else: no file, no message, no traceback, no report.

The provider here repeats the key wherever it can: in error bodies of every status, in a redirect,
in HTML, in a 200's error field, in its answers. None of these keys has a shape that gives it away.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commandline import Call
from refusalkit.errors import ConfigurationError
from refusalkit.models.chat import ChatModel
from refusalkit.models.litellm_calls import load_litellm
from refusalkit.models.open import open_client
from refusalkit.models.pacing import Pacer
from refusalkit.redaction import Keys
from refusalkit.types import Completion, GenerationConfig, Prompt

WORDS = "correct-horse-battery-staple-42"
QUOTED = 'my "local" vLLM/key + 100% <ours> & \\theirs\\'
HEXADECIMAL = "9f86d081884c7d659a2feaa0c55ad015"
SHAPES = {"words": WORDS, "quoted": QUOTED, "hexadecimal": HEXADECIMAL}
GOOD = {
    "id": "x",
    "model": "m",
    "choices": [{"finish_reason": "stop", "message": {"content": "[demo answer]"}}],
}


def forms(key: str) -> list[str]:
    """The ways in which an endpoint may write a key, worked out apart from the product."""
    pair = f"user:{key}".encode()
    return [
        key,
        quote(key, safe=""),
        quote_plus(key),
        json.dumps(key)[1:-1],
        html.escape(key),
        base64.b64encode(key.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
        # Without the groups of three that also hold what is beside the key.
        base64.b64encode(pair).decode().rstrip("=")[8:-4],
    ]


def written(key: str) -> list[str]:
    """The forms as an endpoint has them, the last one whole."""
    return [*forms(key)[:-1], base64.b64encode(f"user:{key}".encode()).decode()]


@dataclass
class Echo:
    """A provider that says the caller's key back to it, in the way of `kind`."""

    kind: str = "400"
    url: str = ""
    keys: list[str] = field(default_factory=list)

    def reply(self, key: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        message = "You sent " + " or ".join([f"Bearer {key}", *written(key)])
        kind, headers = self.kind, {"Content-Type": "application/json"}
        error = {"type": "error", "error": {"message": message, "type": key, "code": key}}
        if kind.isdigit():
            if kind == "429":
                headers["Retry-After"] = "0"
            return int(kind), headers, json.dumps(error).encode()
        if kind == "html":
            page = f"<html><body>{html.escape(message)}</body></html>"
            return 500, {"Content-Type": f"text/html; key={quote(key)}"}, page.encode()
        if kind == "redirect":
            return 307, {"Location": f"{self.url}/elsewhere?key={quote(key)}"}, b""
        if kind == "200 error":
            return 200, headers, json.dumps(error).encode()
        assert kind == "answer"
        if path.endswith("/messages"):
            text = {"type": "text", "text": message}
            whole: object = {"content": [text], "stop_reason": key, "model": key, "id": key}
        else:
            spoken = {"content": message, "reasoning": message}
            choice = {"finish_reason": "stop", "message": spoken}
            whole = {"id": key, "model": message, "choices": [choice]}
        return 200, headers | {"x-request-id": quote(key)}, json.dumps(whole).encode()


@pytest.fixture(scope="module")
def running() -> Iterator[Echo]:
    echo = Echo()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            key = self.headers.get("x-api-key") or bearer
            echo.keys.append(key)
            if "elsewhere" in self.path:
                status, headers, body = 500, {}, b"a redirect was followed"
                echo.kind = "followed"
            else:
                status, headers, body = echo.reply(key, self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    echo.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield echo
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def echo(running: Echo, monkeypatch: pytest.MonkeyPatch) -> Echo:
    for api in ("OPENAI", "ANTHROPIC"):
        for part in ("API_KEY", "BASE_URL", "AUTH_TOKEN"):
            monkeypatch.delenv(f"{api}_{part}", raising=False)
    running.keys.clear()
    return running


def found(key: str, folder: Path, *said: str) -> list[str]:
    """Where the key is, in any form: in what was said, or in a file below the folder."""
    places = {f"said {number}": text.encode() for number, text in enumerate(said)}
    for path in folder.rglob("*"):
        places[f"the name {path}"] = os.fsencode(path)
        if path.is_file():
            places[str(path)] = path.read_bytes()
    return [
        f"{form!r} in {place}: {data[max(0, data.find(form.encode()) - 80) :][:200]!r}"
        for place, data in places.items()
        for form in forms(key)
        if form.encode().lower() in data.lower()
    ]


KINDS = ("400", "401", "403", "404", "429", "500", "html", "redirect", "200 error", "answer")


def words(api: str, echo: Echo, out: Path) -> list[str]:
    base = f"{echo.url}/v1" if api == "openai" else echo.url
    options = {
        "--judge": "lexical",
        "--api-base": base,
        "--api-key-env": "OUR_OWN",
        "--prompts": "starter",
        # Of a hard line no error would be kept that could hold the key.
        "--category": "weapons",
        "--limit": "3",
        "--max-retries": "0",
        "--concurrency": "2",
        "--out": str(out),
    }
    return ["run", f"{api}/m", *(word for pair in options.items() for word in pair)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_key_that_the_endpoint_says_back_is_found_nowhere(
    echo: Echo, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: str, kind: str
) -> None:
    shape = sorted(SHAPES)[KINDS.index(kind) % len(SHAPES)]
    key = SHAPES[shape]
    monkeypatch.setenv("OUR_OWN", key)
    echo.kind = kind
    if kind == "429":
        # Thirty of them before it gives up, and no wait in between.
        monkeypatch.setattr("refusalkit.models.pacing._MAX_RATE_LIMITS", 1)
    out = tmp_path / "run"
    said = []
    start = words(api, echo, out)
    if kind in ("500", "answer"):
        # The judge hears it said back as well, and is read or fails.
        start += ["--judge", "graded", "--judge-model", f"{api}/judge", "--canaries", "1"]
        start += ["--judge-api-base", start[start.index("--api-base") + 1]]
        start += ["--judge-api-key-env", "OUR_OWN"]
    later = [["resume", out], ["score", out], ["report", out]] if kind in ("400", "answer") else []
    for line in (start, *later):
        done = call(*line)
        said += [done.out, done.err]
    assert set(echo.keys) == {key}, said
    assert echo.kind == kind, "no redirect is followed: the key would go along"
    assert found(key, tmp_path, *said) == []
    if kind == "400":
        assert b"[key]" in (out / "completions.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("api", "kind"), [("openai", "html"), ("anthropic", "401")])
def test_nor_in_a_traceback_that_debug_asks_for(
    echo: Echo, tmp_path: Path, api: str, kind: str
) -> None:
    echo.kind = kind
    command = [sys.executable, "-m", "refusalkit", "--debug", *words(api, echo, tmp_path / "run")]
    environment = {**os.environ, "OUR_OWN": QUOTED, "PYTHONDEVMODE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found(QUOTED, tmp_path, done.stdout, done.stderr) == []
    assert kind == "html" or "Traceback" in done.stderr
    assert echo.keys


@pytest.mark.xdist_group("litellm")
@pytest.mark.parametrize("kind", ["401", "answer", "redirect"])
@pytest.mark.slow
def test_nor_through_litellm(
    echo: Echo, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setenv("OUR_OWN", WORDS)
    echo.kind = kind
    out = tmp_path / "run"
    done = call(*words("openai", echo, out), "--via", "litellm")
    assert echo.keys
    assert echo.kind == kind, "no redirect is followed: the key would go along"
    assert found(WORDS, tmp_path, done.out, done.err) == []


def asked_through_litellm(model_id: str, base: str | None = None) -> Completion:
    """What comes of one prompt, by whatever keys litellm finds."""

    async def main() -> Completion:
        model = ChatModel(open_client(model_id, pacer=Pacer(), api_base=base, via="litellm"))
        try:
            return await model.complete(Prompt("p1", "assault", "[demo]"), GenerationConfig())
        finally:
            await model.aclose()

    return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.xdist_group("litellm")
def test_nor_is_one_of_a_variable_that_does_not_end_like_a_key(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", WORDS)
    monkeypatch.setenv("AWS_REGION_NAME", "us-east-1")
    monkeypatch.setenv("AWS_BEDROCK_RUNTIME_ENDPOINT", echo.url)
    echo.kind = "400"
    done = asked_through_litellm("bedrock/anthropic.claude-3-haiku-20240307-v1:0")
    assert echo.keys == [WORDS]
    assert "[key]" in str(done.error_detail)
    assert not Keys(WORDS).within(str(done))


@pytest.mark.slow
@pytest.mark.xdist_group("litellm")
@pytest.mark.parametrize("provider", ["openai", "groq"])
def test_nor_is_one_that_litellm_has_from_elsewhere(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    for name in [name for name, value in os.environ.items() if value == WORDS]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(load_litellm(), "headers", {"x-api-key": WORDS})
    echo.kind = "400"
    done = asked_through_litellm(f"{provider}/m", f"{echo.url}/v1")
    assert echo.keys == [WORDS]
    assert "[key]" in str(done.error_detail)
    assert not Keys(WORDS).within(str(done))


@pytest.mark.xdist_group("litellm")
@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("WATSONX_APIKEY", WORDS, True),
        ("SNOWFLAKE_JWT", "a1B2" * 1000, True),
        ("AWS_BEARER_TOKEN_BEDROCK", HEXADECIMAL, True),
        ("Some_Passphrase", WORDS, True),
        ("SOME_SERVICE_PASSWORD", "correcthorsebattery", True),
        # An answer may say these.
        ("TOKENIZERS_PARALLELISM", "disabled", False),
        ("KEYBOARD_LAYOUT", "japanese", False),
        ("MAX_TOKENS_IN_ALL", "1000000000", False),
        ("CREDENTIALS_FOLDER", str(Path(__file__)), False),
        ("HOME_OF_SOMETHING", WORDS, False),
    ],
)
def test_what_a_variable_of_this_name_holds_is_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, hidden: bool
) -> None:
    monkeypatch.setenv(name, value)
    client = open_client("openai/m", pacer=Pacer(), api_base="http://127.0.0.1:9", via="litellm")
    assert client._keys.within(f"before {value} after") is hidden


@pytest.mark.parametrize("option", ["--api-base", "--judge-api-base"])
@pytest.mark.parametrize("place", ["http://user:{}@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key={}"])
def test_a_url_with_a_key_is_refused_without_repeating_it(
    call: Call, tmp_path: Path, option: str, place: str
) -> None:
    done = call("run", "openai/m", "--prompts", "starter", option, place.format(WORDS))
    assert done.status == 4 or done.status == 2
    assert "credentials" in done.err
    assert found(WORDS, tmp_path, done.out, done.err) == []


@pytest.mark.parametrize(
    "base", [f"http://user:{WORDS}@127.0.0.1:9/v1", f"http://user:{WORDS}@127.0.0.1:port/v1"]
)
def test_nor_is_one_in_the_environments_base_url_or_proxy(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", HEXADECIMAL)
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    monkeypatch.setenv("HTTP_PROXY", f"http://us:{WORDS}@127.0.0.1:9")
    done = call(
        *("run", "openai/m", "--prompts", "starter", "--limit", "3", "--max-retries", "0"),
        *("--judge", "lexical"),
        *("--out", tmp_path / "run"),
    )
    assert done.status in (3, 4)
    assert "a defect" not in done.err
    for key in (WORDS, HEXADECIMAL):
        assert found(key, tmp_path, done.out, done.err) == []


@pytest.mark.parametrize("key", ["schl\u00fcssel-ohne-pr\u00e4fix", "two\nlines-of-a-key"])
def test_a_key_that_no_header_can_carry_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OUR_OWN", key)
    with pytest.raises(ConfigurationError, match="copy it again") as caught:
        open_client("openai/m", pacer=Pacer(), api_base="http://127.0.0.1:9", api_key_env="OUR_OWN")
    assert key not in str(caught.value)


class TestKeys:
    @pytest.mark.parametrize("key", SHAPES.values())
    def test_are_hidden_in_every_form(self, key: str) -> None:
        for form, inner in zip(written(key), forms(key), strict=True):
            said = Keys(key).hide(f"before {form} after")
            assert said.startswith("before ")
            assert "[key]" in said
            assert inner not in said

    @given(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40),
        st.text(max_size=30),
        st.text(max_size=30),
    )
    @pytest.mark.slow
    def test_keys_are_hidden_whatever_surrounds_them(
        self, key: str, before: str, after: str
    ) -> None:
        said = Keys(key).hide(before + key + after)
        assert not Keys(key).within(said) or key.lower() in "[key]" * 8

    @pytest.mark.parametrize("key", ["EMPTY", "none", "x", "", None])
    def test_values_that_are_not_keys_leave_words_whole(self, key: str | None) -> None:
        assert Keys(key).hide("none of EMPTY x") == "none of EMPTY x"

    def test_do_not_show_themselves(self) -> None:
        assert WORDS not in repr(Keys(WORDS))

    @pytest.mark.parametrize("build", ["cause", "context", "note", "group"])
    def test_are_found_anywhere_in_a_chain_of_errors(self, build: str) -> None:
        inner = ValueError(f"sent {WORDS}")
        outer: BaseException = RuntimeError("clean")
        makers: dict[str, Callable[[], object]] = {
            "cause": lambda: setattr(outer, "__cause__", inner),
            "context": lambda: setattr(outer, "__context__", inner),
            "note": lambda: outer.add_note(f"with {WORDS}"),
            "group": lambda: setattr(outer, "__cause__", ExceptionGroup("some", [inner])),
        }
        makers[build]()
        assert Keys(WORDS).in_traceback(outer)
        assert not Keys(HEXADECIMAL).in_traceback(outer)
