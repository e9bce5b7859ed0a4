"""A seal on a manifest, which proves that this user wrote it on this machine and left it unchanged.

It is an HMAC-SHA256 over the manifest's content, made with a key that is only in the user's state
folder. A run folder may be copied and renamed. If somebody else wrote or changed it, the seal is
missing or does not match, and what it says about where requests go is not followed
(`refusalkit.runs.trust`).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusalkit import files

FIELD = "seal"
"""The manifest's field that holds it."""

_KEY_FILE = "manifest.key"
_KEY_BYTES = 32


def state_folder() -> Path | None:
    """Where the key is kept: REFUSALKIT_STATE, or the platform's folder for a program's state.

    None if there is no home folder.
    """
    if asked := os.environ.get("REFUSALKIT_STATE"):
        return Path(asked)
    if sys.platform == "win32" and (base := os.environ.get("LOCALAPPDATA")):
        return Path(base) / "refusalkit"
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification says that relative paths are to be ignored.
    if Path(base).is_absolute():
        return Path(base) / "refusalkit"
    try:
        return Path.home() / ".local" / "state" / "refusalkit"
    except RuntimeError:
        return None


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's JSON values with their seal; without one if no key can be stored."""
    plain = {name: value for name, value in data.items() if name != FIELD}
    key = _key(create=True)
    return plain if key is None else {**plain, FIELD: _code(key, plain)}


def is_sealed(text: bytes) -> bool:
    """Whether a manifest, as read from disk, has a valid seal by this user's key."""
    if f'"{FIELD}"'.encode() not in text:
        return False
    try:
        data = json.loads(text)
        said = data.pop(FIELD, None) if isinstance(data, dict) else None
        if not isinstance(said, str):
            return False
        key = _key(create=False)
        return key is not None and hmac.compare_digest(_code(key, data).encode(), said.encode())
    except (ValueError, RecursionError):
        return False


def code_of(data: bytes) -> str | None:
    """An HMAC (hex) of a file's content by this user's key; None if no key can be stored."""
    key = _key(create=True)
    return None if key is None else hmac.new(key, data, hashlib.sha256).hexdigest()


def has_code(data: bytes, said: object) -> bool:
    """Whether `said` is the HMAC of this content by this user's key."""
    key = _key(create=False)
    if key is None or not isinstance(said, str):
        return False
    code = hmac.new(key, data, hashlib.sha256).hexdigest()
    return hmac.compare_digest(code.encode(), said.encode("utf-8", "replace"))


def _code(key: bytes, data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"hmac-sha256:{hmac.new(key, text.encode('ascii'), hashlib.sha256).hexdigest()}"


def _key(*, create: bool) -> bytes | None:
    """The user's key; None if there is none, or if somebody else may have written it."""
    folder = state_folder()
    if folder is None:
        return None
    path = folder / _KEY_FILE
    try:
        return _read_key(path)
    except FileNotFoundError:
        if not create:
            return None
    except OSError:
        return None
    with contextlib.suppress(OSError):
        files.make_folder(folder)
        _make_key(path)
        return _read_key(path)
    return None


def _read_key(path: Path) -> bytes | None:
    with files.open_file(path, follow=False) as file:
        found = os.fstat(file.fileno())
        if hasattr(os, "getuid"):
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                return None  # somebody else may have put it there
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(file.fileno(), 0o600)
        text = file.read(2 * _KEY_BYTES + 1).strip()
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _make_key(path: Path) -> None:
    """Create the key atomically: if two processes do so at the same time, one wins."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    data = secrets.token_hex(_KEY_BYTES).encode("ascii") + b"\n"
    with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except (OSError, NotImplementedError):  # a file system without hard links
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            path.chmod(0o600)
            file.write(data)
    finally:
        scratch.unlink(missing_ok=True)
