"""Opens and writes files in folders that may come from a stranger.

Such a folder may hold a link, a pipe or a device where a file should be. Reading opens regular
files only and never waits for a pipe. Writing never goes through a link: a new file
is made under a random name beside its place and renamed over it, and records are appended only to a
regular file that no other name shares. Names are resolved below a descriptor of their folder where
the platform has such calls (not on Windows).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_WHOLE = 256 * 2**20
"""Bytes of the largest file that is read as a whole."""

MAX_LINE = 64 * 2**20
"""Bytes of the longest line of a file that is read line by line."""

# An empty list is three bytes of a file, and sixty of memory.
_MAX_CONTAINERS = 20_000_000

_BINARY = getattr(os, "O_BINARY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NOCTTY = getattr(os, "O_NOCTTY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# A pipe without a writer is opened at once, to be refused, instead of being waited for.
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_SAFELY = _BINARY | _CLOEXEC | _NOCTTY | _NONBLOCK

_HAS_DIR_FD = {os.open, os.stat, os.rename, os.unlink} <= os.supports_dir_fd
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


def mode_of(path: Path) -> int:
    """Kind and permissions of what is there, as `os.stat` has them; 0 if nothing is.

    Raises `OSError` if that cannot be known, where `Path.is_file` of Python 3.14 answers no.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0


def open_file(path: Path, *, follow: bool = True) -> io.BufferedReader:
    """A regular file, opened for reading.

    Without `follow` a link is refused too: a run folder holds its files itself. Raises `OSError`,
    whose `strerror` says what is there instead of a file.
    """
    # Opening a device can do something by itself, so it is looked at first.
    _check_regular(path.stat(follow_symlinks=follow))
    flags = os.O_RDONLY | _SAFELY | (0 if follow else _NOFOLLOW)
    file = os.open(path, flags)
    try:
        _check_regular(os.fstat(file))
        opened = os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise
    return opened


def read_file(path: Path, *, limit: int = MAX_WHOLE, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises `OSError` as `open_file`."""
    with open_file(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        # `read` allocates the bytes it is asked for: no more than the file has.
        data = b"" if size > limit else file.read(min(limit, size or limit) + 1)
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {_size(limit)}")
    return data


def read_json_file(path: Path, *, follow: bool = True) -> bytes:
    """`read_file` of JSON, which must not be many times as large in memory. Raises `OSError`."""
    data = read_file(path, follow=follow)
    if data.count(b"[") + data.count(b"{") > _MAX_CONTAINERS:
        what = f"it holds more than {_MAX_CONTAINERS // 10**6} million lists and objects"
        raise OSError(errno.EFBIG, what)
    return data


def lines_of(file: BinaryIO, *, limit: int = MAX_LINE) -> Iterator[bytes]:
    """The lines of an opened file. Raises `OSError` at one longer than `limit` bytes."""
    if os.fstat(file.fileno()).st_size <= limit:
        yield from file
        return
    while line := file.readline(limit + 1):
        if len(line) > limit:
            raise OSError(errno.EFBIG, f"a line of it is longer than {_size(limit)}")
        yield line


def write_file(path: Path, data: bytes, *, private: bool = True, durable: bool = True) -> None:
    """Write a whole file or nothing, replacing what was there in one step. Raises `OSError`.

    `private`: readable by the user only, whatever the umask; else by all that the umask allows,
    but writable only by its owner. `durable`: it survives a loss of power. A link, or anything else
    that is not a regular file, is not replaced.
    """
    with _folder_of(path) as (folder, name):
        at = name if folder is not None else path.with_name(name)
        check_replaceable(path)
        scratch_name = f".{name[:100]}.{secrets.token_hex(8)}"
        scratch = scratch_name if folder is not None else path.with_name(scratch_name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY | _CLOEXEC
        mode = 0o600 if private else 0o644
        file = os.open(scratch, flags, mode, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as handle:
                handle.write(data)
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            os.replace(scratch, at, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch, dir_fd=folder)
            raise
        if durable and folder is not None:
            with contextlib.suppress(OSError):  # not every file system can sync a folder
                os.fsync(folder)


def check_replaceable(path: Path) -> None:
    """Raise `OSError` unless a regular file, or nothing, is at `path`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        where = os.path.realpath(path)
        raise OSError(errno.ELOOP, f"it is a link to {where[:200]!r}: name that file itself")
    _check_regular(found)


def open_for_appending(path: Path, *, create: bool) -> int:
    """A descriptor of a regular file, for reading and writing; a new one is private to the user.

    It is never reached through a link. A file that has a second name elsewhere (a hard link) gets
    a copy of its own first, so that what is appended appears nowhere else. Raises `OSError`;
    without `create` a file that is not there is a `FileNotFoundError`.
    """
    flags = os.O_RDWR | _SAFELY | _NOFOLLOW
    with _folder_of(path) as (folder, name):
        at = name if folder is not None else path
        try:
            _check_regular(os.stat(at, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            if not create:
                raise
            return os.open(at, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        file = os.open(at, flags, dir_fd=folder)
        try:
            found = os.fstat(file)
            _check_regular(found)
            if found.st_nlink > 1:
                own = _copied(file, path, name, folder)
                os.close(file)
                file = own
        except BaseException:
            os.close(file)
            raise
        return file


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Make a folder that is private to the user, whatever the umask. Raises `OSError`.

    An existing folder stays as it is; a link or a file in its place is refused.
    """
    if parents and not path.parent.exists():
        make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, f"{_kind(found.st_mode)} is in its place") from None


def check_lock_file(path: Path) -> None:
    """Make sure that taking a lock at `path`, which empties the file there, empties no other file.

    A file that has a second name elsewhere (a hard link) is removed, unless a process holds its
    lock. Raises `OSError` where something other than a file is there.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _check_regular(found)
    if found.st_nlink > 1:
        with open_file(path, follow=False) as file:
            if _is_free(file.fileno()):
                path.unlink()


def is_lock_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`; False where that cannot be found out."""
    try:
        with open_file(path, follow=False) as file:
            return not _is_free(file.fileno())
    except OSError:
        return False


def _is_free(file: int) -> bool:
    """Whether no process holds a lock on an opened file."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[tuple[int | None, str]]:
    """A descriptor of the folder of `path`, where the platform has them, and the name in it."""
    if path.name in ("", "..") or "\0" in str(path):
        raise OSError(errno.EINVAL, "it is not a file name")
    if not _HAS_DIR_FD:
        yield None, path.name
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
    try:
        yield folder, path.name
    finally:
        os.close(folder)


def _copied(file: int, path: Path, name: str, folder: int | None) -> int:
    """A copy of an opened file, put in its place; returns its descriptor."""
    scratch_name = f".{name[:100]}.{secrets.token_hex(8)}"
    scratch = scratch_name if folder is not None else path.with_name(scratch_name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY | _CLOEXEC
    own = os.open(scratch, flags, 0o600, dir_fd=folder)
    try:
        with (
            os.fdopen(os.dup(file), "rb") as source,
            os.fdopen(os.dup(own), "wb") as target,
        ):
            shutil.copyfileobj(source, target, 2**20)
            target.flush()
            os.fsync(target.fileno())
        at = name if folder is not None else path
        os.replace(scratch, at, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.close(own)
        with contextlib.suppress(OSError):
            os.unlink(scratch, dir_fd=folder)
        raise
    return own


def _check_regular(found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    raise OSError(errno.EINVAL, f"it is {_kind(found.st_mode)}, not a file")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _size(limit: int) -> str:
    return f"{limit / 1_000_000:.0f} MB"
