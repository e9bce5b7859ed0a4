"""Tables that unpack beyond any bound: one sentence, in bounded memory, whatever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="bounds of POSIX")

# Runs the command and then says the most memory that it, or what it started, held.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "refusalkit", *sys.argv[1:]])
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("most", most * (1 if sys.platform == "darwin" else 1024))
sys.exit(done.returncode)
"""


def refusalkit(*words: str, cwd: Path) -> tuple[int, str, int]:
    """(exit status, stderr, peak bytes of memory) of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stderr, int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    same = pl.select(pl.repeat("x", 10_000_001).alias("prompt"), category=pl.lit("a"))
    same.write_parquet(folder / "rows.parquet")
    # Nine gigabytes in a kilobyte: one text, nine thousand times.
    same_text = pl.repeat("0" * 1_000_000, 9_000).alias("prompt")
    text = pl.select(same_text, category=pl.lit("a"))
    # In one row group it would be made in nine gigabytes of memory, too.
    text.write_parquet(folder / "same.parquet", compression="zstd", row_group_size=250)
    with (folder / "line.csv").open("wb") as file:
        file.write(b"prompt,category\n")
        file.truncate(2 * 10**9)
    (folder / "line.jsonl").touch()
    os.truncate(folder / "line.jsonl", 2 * 10**9)
    with (folder / "cell.csv").open("wb") as file:
        file.write(b'prompt,category\n"' + b"zero\n" * 15_000_000 + b'",a\n')
    assert (folder / "rows.parquet").stat().st_size < 1_000_000
    assert (folder / "same.parquet").stat().st_size < 1_000_000
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rows.parquet", "it has more than 10,000,000 rows"),
        ("same.parquet", "it takes more than 4 GB of memory, or 60 seconds, to unpack"),
        ("line.csv", "it is larger than 1074 MB"),
        ("line.jsonl", "it is larger than 1074 MB"),
        ("cell.csv", "a cell of it is longer than 67 MB"),
    ],
)
def test_what_unpacks_beyond_bounds_is_reported_in_bounded_memory(
    tables: Path, name: str, why: str
) -> None:
    status, err, most = refusalkit("prompts", "validate", name, cwd=tables)
    assert status == 2, err
    assert why in err
    assert len(err.splitlines()) == 2
    assert most < 4.5e9


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("prompts", "show", "same.parquet"),
        ("run", "demo/open", "--prompts", "same.parquet"),
        ("run", "demo/open", "--prompts", "xstest:same.parquet"),
        ("prompts", "convert", "same.parquet", "made"),
    ],
    ids=" ".join,
)
def test_every_command_that_reads_a_table_is_bounded(tables: Path, words: tuple[str, ...]) -> None:
    status, err, most = refusalkit(*words, cwd=tables)
    assert status == 2, err
    assert "same.parquet" in err
    assert "Traceback" not in err
    assert most < 4.5e9
    assert not (tables / "made").exists()


@pytest.mark.slow
def test_two_prompts_of_twelve_megabytes_are_checked_in_bounded_memory(tmp_path: Path) -> None:
    prompts = [f"word{n} ordinary text " * 550_000 for n in range(2)]
    rows = [json.dumps({"prompt": prompt, "category": "long"}) + "\n" for prompt in prompts]
    (tmp_path / "two.jsonl").write_text("".join(rows))
    status, err, most = refusalkit("prompts", "validate", "two.jsonl", cwd=tmp_path)
    assert status == 0, err
    assert most < 1e9


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """The other process is isolated: a stranger's folder holds data, never code."""
    small = tmp_path / "small.parquet"
    pl.DataFrame({"prompt": ["One?", "Two?"], "category": ["a", "b"]}).write_parquet(small)
    for name in ("polars.py", "json.py", "sitecustomize.py"):
        (tmp_path / name).write_text("open('ran', 'w').close()\n")
    code = "import refusalkit as rk, sys; print(len(rk.load_prompts(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(small)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout == "2\n", done.stderr
    assert not (tmp_path / "ran").exists()
