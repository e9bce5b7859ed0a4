"""Reads a Parquet file or a spreadsheet in a process of its own, bounded in memory and time.

A megabyte of either can unpack to more than a machine has, and what the file says about its size
may be wrong. The operating system holds the other process to its bounds (not on Windows, which has
no such call), and if it is killed the error is one sentence.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from refusalkit.files import MAX_LINE

if TYPE_CHECKING:
    import polars as pl

MAX_UNPACKED = 2**30
"""Bytes of the largest table, unpacked."""

MAX_ROWS = 10_000_000
"""Rows of the longest table."""

_MAX_MEMORY = 4 * 2**30
_MAX_CPU_S = 60
_MAX_REPLY = 2**20

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from refusalkit.prompts.unpack import main; main(sys.argv[2])"
)


class UnreadableTableError(Exception):
    """A table that cannot be read; the text says why, and is put after the table's name."""


def unpacked(path: Path, pick: Callable[[Sequence[str]], Sequence[str] | None]) -> pl.DataFrame:
    """The columns of a table that `pick` chooses among those it has; none where it returns None.

    Raises `UnreadableTableError`.
    """
    import polars as pl

    search = json.dumps([folder for folder in sys.path if folder])
    # Isolated: what the working directory or the environment offers is not imported.
    words = [sys.executable, "-I", "-c", _START, search, os.path.abspath(path)]  # noqa: PTH100
    environment = {**os.environ, "POLARS_MAX_THREADS": "2"}
    with subprocess.Popen(  # noqa: S603 - this interpreter
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            wanted = pick(_answer(process.stdout, "columns"))
            if not wanted:
                return pl.DataFrame()
            process.stdin.write(json.dumps(list(wanted)).encode() + b"\n")
            process.stdin.flush()
            n_bytes = int(_answer(process.stdout, "bytes")[0])
            data = process.stdout.read(n_bytes)
        except BrokenPipeError:
            raise UnreadableTableError(_TOO_LARGE) from None
        finally:
            process.kill()
    return pl.read_ipc(io.BytesIO(data))


def check_cells(frame: pl.DataFrame) -> None:
    """Raise `UnreadableTableError` where a text of a table is longer than a line may be."""
    import polars as pl

    for column in frame.select(pl.col(pl.String)).iter_columns():
        if (longest := column.str.len_bytes().max()) is not None and longest > MAX_LINE:  # type: ignore[operator]
            raise UnreadableTableError(f"a cell of it is longer than {MAX_LINE / 1e6:.0f} MB")


_TOO_LARGE = (
    f"it takes more than {_MAX_MEMORY / 1e9:.0f} GB of memory, or {_MAX_CPU_S} seconds, to unpack"
)


def _answer(stdout: IO[bytes], name: str) -> list[str]:
    line = stdout.readline(_MAX_REPLY)
    try:
        said = json.loads(line)
    except ValueError:  # it was ended
        raise UnreadableTableError(_TOO_LARGE) from None
    if "error" in said:
        raise UnreadableTableError(said["error"])
    answer: list[str] = said[name]
    return answer


def main(path: str) -> None:
    """The other process: it lists the columns, is told which are wanted, and writes them."""
    _bound()
    try:
        _write(Path(path))
    except UnreadableTableError as error:
        _say({"error": str(error)})
    except MemoryError:
        _say({"error": _TOO_LARGE})
    except BrokenPipeError:
        pass
    finally:
        os._exit(0)


def _bound() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, most in (
        (resource.RLIMIT_AS, _MAX_MEMORY),
        (resource.RLIMIT_CPU, _MAX_CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, hard))


def _write(path: Path) -> None:
    import polars as pl

    try:
        table = _scan(path)
        _say({"columns": table.collect_schema().names()})
        wanted = json.loads(sys.stdin.buffer.readline() or b"[]")
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if table.select(pl.len()).collect().item() > MAX_ROWS:
            raise UnreadableTableError(f"it has more than {MAX_ROWS:,} rows")
        frame = table.select(wanted).collect()
        # Dictionaries are written out as texts, so that the size is what the table will take.
        plain = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        out = _Bounded()
        plain.write_ipc(out, compat_level=pl.CompatLevel.oldest())
    except OSError as error:
        raise UnreadableTableError(str(error.strerror or error)) from error
    # A damaged Parquet file can make polars panic.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        text = str(error).strip()
        raise UnreadableTableError(text.splitlines()[0] if text else "no reason given") from error
    except ModuleNotFoundError:
        raise UnreadableTableError(
            "it needs the package fastexcel (pip install fastexcel), or save it as .csv"
        ) from None
    data = out.getbuffer()
    _say({"bytes": [str(len(data))]})
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class _Bounded(io.BytesIO):
    """Bytes in memory, up to the size of the largest table."""

    def write(self, data: object) -> int:
        if self.tell() + len(memoryview(data)) > MAX_UNPACKED:  # type: ignore[arg-type]
            raise UnreadableTableError(f"it unpacks to more than {MAX_UNPACKED / 1e6:.0f} MB")
        return super().write(data)  # type: ignore[arg-type]


def _scan(path: Path) -> pl.LazyFrame:
    import polars as pl

    if path.suffix.lower() == ".xlsx":
        return pl.read_excel(path, infer_schema_length=0).lazy()
    return pl.scan_parquet(path, glob=False)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _say(what: object) -> None:
    sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()
