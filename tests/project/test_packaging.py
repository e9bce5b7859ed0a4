"""The wheel is built, installed into a clean environment and used from an empty folder."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from places import ROOT

# One worker builds the wheel and the environment, once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


def call(
    *command: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done


def build(kind: str, source: Path, target: Path) -> Path:
    """Build with the locked hatchling, offline."""
    call(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=source)
    (built,) = target.iterdir()
    return built


@dataclass(frozen=True)
class Clean:
    """An environment with the wheel; its dependencies come from the development environment."""

    python: Path
    console_script: Path
    folder: Path
    env: dict[str, str]


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist like a release, which proves the sdist complete."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return build("wheel", source, folder / "built")


@pytest.fixture(scope="session")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    # Paths may contain spaces.
    home = tmp_path_factory.mktemp("clean") / "a venv"
    venv.create(home, with_pip=True, symlinks=os.name != "nt")
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    suffix = ".exe" if os.name == "nt" else ""
    python = scripts / f"python{suffix}"
    # No HOME: no configuration and no user packages.
    kept = {"PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP"}
    env = {name: value for name, value in os.environ.items() if name in kept}
    env |= {"PYTHONUTF8": "1", "COLUMNS": "80"}
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    call(python, *pip, "--disable-pip-version-check", wheel, cwd=home, env=env)
    # Behind the clean site-packages, and without the .pth files of the developer's, so that
    # the editable refusalkit is out of reach.
    site = call(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home, env=env
    ).stdout.strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(site, "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    folder = tmp_path_factory.mktemp("empty")
    return Clean(python, scripts / f"refusalkit{suffix}", folder, env)


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sdist_names(sdist: Path) -> set[str]:
    """The paths below the archive's top folder."""
    with tarfile.open(sdist) as archive:
        return {
            PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
            for member in archive.getmembers()
        }


def source_files(folder: str) -> Iterator[str]:
    for path in (ROOT / folder).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT / folder).as_posix()


def test_the_wheel_holds_the_package_the_sets_the_judges_and_the_licences(wheel: Path) -> None:
    names = wheel_names(wheel)
    expected = {f"refusalkit/{name}" for name in source_files("src/refusalkit")}
    for folder in ("prompts", "judges"):
        files = {f"refusalkit/_data/{folder}/{name}" for name in source_files(folder)}
        assert files, f"{folder}/ is empty"
        expected |= files
    assert expected <= names
    assert "refusalkit/py.typed" in names
    assert "refusalkit/_data/prompts/starter/set.toml" in names
    for name in ("probes.jsonl", "canaries.jsonl"):
        assert f"refusalkit/_data/judges/{name}" in names
    licences = {name.split("/licenses/")[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "prompts/LICENSE"}
    assert {PurePosixPath(name).parts[0] for name in names - expected} == {
        f"refusalkit-{version()}.dist-info"
    }, "nothing else is inside: no tests, no runs"


def test_the_sdist_holds_neither_tests_nor_runs(sdist: Path) -> None:
    tops = {PurePosixPath(name).parts[0] for name in sdist_names(sdist)}
    assert {"src", "prompts", "judges", "README.md", "LICENSE", "pyproject.toml"} <= tops
    assert not tops & {"tests", "runs", "benchmarks", "scripts", ".ci", ".github", "uv.lock"}


def test_the_clean_environment_has_its_own_refusalkit(clean: Clean) -> None:
    code = "import refusalkit, sys; print(refusalkit.__file__); print(sys.prefix)"
    file, prefix = call(
        clean.python, "-c", code, cwd=clean.folder, env=clean.env
    ).stdout.splitlines()
    assert Path(file).is_relative_to(prefix)
    assert not Path(file).is_relative_to(ROOT)


def test_the_demo_runs_from_an_empty_folder(clean: Clean, tmp_path: Path) -> None:
    run = ["run", "demo/mixed", "--prompts", "starter", "--trials", "2", "--out", "run"]
    call(clean.python, "-m", "refusalkit", *run, cwd=tmp_path, env=clean.env)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert (tmp_path / "run" / "verdicts.jsonl").read_text(encoding="utf-8")


def test_the_console_script_runs(clean: Clean) -> None:
    done = call(clean.console_script, "--help", cwd=clean.folder, env=clean.env)
    assert "refusalkit" in done.stdout
    assert "audit" in done.stdout


# The lock.


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def version() -> str:
    return str(toml("pyproject.toml")["project"]["version"])


@functools.cache
def locked() -> dict[tuple[str, str], set[str]]:
    """The hashes in uv.lock by name and version."""
    return {
        (package["name"], package["version"]): {
            file["hash"] for file in [*package.get("wheels", []), package.get("sdist")] if file
        }
        for package in toml("uv.lock")["package"]
        if package["name"] != "refusalkit"
    }


def exported() -> dict[tuple[str, str], set[str]]:
    """The hashes in requirements-dev.txt by name and version."""
    text = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    entries = re.sub(r"(?m)^\s*#.*\n?", "", text).replace("\\\n", " ").splitlines()
    found: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        pinned = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry)
        assert pinned, f"not a pinned requirement: {entry!r}"
        found[pinned[1], pinned[2]] = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
    return found


def test_pip_installs_what_uv_installs() -> None:
    both = locked()
    # Packages locked but not exported belong to an extra.
    assert exported() == {key: both.get(key) for key in exported()}, "run `make lock`"
    assert all(exported().values()), "every requirement has a hash"


def test_the_export_names_no_host() -> None:
    text = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text


def test_the_lock_satisfies_pyproject() -> None:
    project = toml("pyproject.toml")
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        versions = [found for (package, found) in locked() if package == name]
        assert versions, f"{name} is not in uv.lock: run `make lock`"
        for found in versions:
            assert requirement.specifier.contains(found), f"{name} {found}: run `make lock`"


def test_litellm_is_a_version_after_the_compromised_ones() -> None:
    (asked,) = (
        found
        for found in map(Requirement, toml("pyproject.toml")["project"]["dependencies"])
        if found.name == "litellm"
    )
    assert not any(asked.specifier.contains(bad) for bad in ("1.82.7", "1.82.8", "1.88.9", "2.0"))
    (pinned,) = (found for name, found in exported() if name == "litellm")
    assert asked.specifier.contains(pinned)


def test_the_table_of_the_ecosystem_has_the_versions_that_are_tested() -> None:
    pins = (ROOT / "tests" / "integrations" / "real" / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)", pins, re.M))
    page = (ROOT / "docs" / "ecosystem.md").read_text()
    table = page[page.index("| what |") : page.index("Versions are those")]
    told = re.findall(
        r"`?(inspect_ai|inspect view|pytest-xdist|pytest|langchain-core|pydantic-ai-slim"
        r"|Every Eval Ever|huggingface_hub|mlflow-skinny|trackio|wandb)`? ([0-9.]+[0-9])",
        table,
    )
    names = {"Every Eval Ever": "every-eval-ever", "inspect view": "inspect-ai"}
    assert len(told) >= 12
    for name, version in told:
        own = pinned[names.get(name, name.replace("_", "-"))]
        oldest = re.search(r'"inspect_ai>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
        assert oldest is not None
        is_oldest = name == "inspect_ai" and version == oldest[1]
        assert is_oldest or own == version or own.startswith(f"{version}."), (name, version, own)
    for newest in re.findall(r"`inspect_ai` [0-9.]+ and ([0-9.]+[0-9])", table):
        assert newest == pinned["inspect-ai"]
