"""What a tracker is given of a run that somebody else wrote; the packages are stood in for."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import refusalkit as rk
from refusalkit.integrations.trackers import facts_of
from refusalkit.shipped import judges_dir

HOSTILE = "../../\x1b[31m x\u202e/" + "a" * 9000


class Artifact:
    def __init__(self, name: str, *, type: str) -> None:
        self.name, self.type, self.files = name, type, list[str]()

    def add_file(self, path: str) -> None:
        self.files.append(path)


class Logged:
    def __enter__(self) -> Logged:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("tracker", ["mlflow", "trackio", "wandb"])
def test_a_strangers_names_become_neither_paths_nor_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: Any
) -> None:
    run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out=tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    manifest["id"] = manifest["refusalkit"] = HOSTILE
    manifest["prompt_set"]["name"] = HOSTILE
    (run.path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    got: list[Any] = []

    def take(*values: Any, **named: Any) -> Logged:
        got.extend([*values, *named.values()])
        return Logged()

    fake: Any = ModuleType(tracker)
    fake.__spec__ = ModuleSpec(tracker, None)
    fake.Artifact, fake.Settings = Artifact, dict
    for name in ("init", "log", "log_artifact", "finish", "start_run", "set_experiment"):
        setattr(fake, name, take)
        setattr(Logged, name, staticmethod(take))
    for name in ("log_params", "log_metrics"):
        setattr(fake, name, take)
    monkeypatch.setitem(sys.modules, tracker, fake)
    rk.log_to(run.path, tracker)
    names = [each.name for each in got if isinstance(each, Artifact)]
    names += [each for each in got if isinstance(each, str) and "report.html" not in each]
    assert len(names) >= 2
    assert not any(set(name) & set("/\x1b\u202e ") or len(name) > 120 for name in names)
    facts = [value for each in got if isinstance(each, dict) for value in each.values()]
    assert any(isinstance(value, str) and "\\u001b[31m" in value for value in facts)
    assert not any(set(str(value)) & set("\x1b\u202e") or len(str(value)) > 500 for value in facts)


def test_a_judge_in_a_file_is_named_by_its_id(tmp_path: Path) -> None:
    own = tmp_path / "private" / "own.toml"
    own.parent.mkdir()
    shipped = (judges_dir() / "lexical.toml").read_text("utf-8")
    own.write_text(shipped.replace('name = "lexical"', 'name = "own"'), "utf-8")
    run = rk.benchmark(
        "demo/mixed", "starter", trials=1, limit=4, hard_line_judge=str(own), out=tmp_path / "run"
    )
    facts = facts_of(run)
    assert facts["hard_line_judge"] == "own"
    assert "private" not in json.dumps(facts)
