"""The examples of docs/ecosystem.md that put other libraries' model objects under test."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import refusalkit as rk
from places import ROOT

PAGE = (ROOT / "docs" / "ecosystem.md").read_text("utf-8")
EXAMPLES = {
    found["folder"]: found["code"]
    for found in re.finditer(
        r"```text\n(?P<code>(?:(?!```).)*from_callable.*?out=\"runs/(?P<folder>[\w-]+)\".*?)```",
        PAGE,
        re.DOTALL,
    )
}
PACKAGES = {
    "langchain": "langchain_core",
    "pydantic-ai-model": "pydantic_ai",
    "pydantic-ai-agent": "pydantic_ai",
    "inspect": "inspect_ai",
}


def test_each_library_has_its_example() -> None:
    assert EXAMPLES.keys() == PACKAGES.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# Event loops that other libraries leave to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_the_example_runs_as_it_stands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(PACKAGES[name], reason="make test-integrations")
    # Inspect counts tokens with an encoding that litellm ships.
    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None
    encodings = Path(str(litellm.origin)).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(encodings))
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[name]
    lines = filter(None, code.strip().splitlines())
    own = [line for line in lines if not line.startswith(("import", "from"))]
    assert len(own) <= 5
    exec(compile(code, f"docs/ecosystem.md: {name}", "exec"), {"rk": rk})
    score = rk.score(f"runs/{name}")
    assert score.n_scored == 35
    assert score.model.partition("/")[0] in name
