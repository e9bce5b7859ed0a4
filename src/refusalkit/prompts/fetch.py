"""Downloads files of public data sets and caches them by revision.

Uses the standard library: on the Hugging Face Hub and on GitHub alike, a path at a revision is one
URL. Nothing a server sends is trusted: its size is bounded while it streams, it is hashed, and it
enters the cache only once complete.

`huggingface_hub` (2.4.0, measured November 2026) was considered for the Hub's part. It imports in
0.45 s where this module takes 0.2 s, and `hf_hub_download` accepts neither a maximum size nor an
expected SHA-256, sends a HEAD request first, uses a token found on disk unless told not to, and
keeps blobs and links in a cache of its own. Those checks would remain ours, as would GitHub's part.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import http.client
import json
import os
import re
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from refusalkit.errors import ConfigurationError, DownloadError, StorageError
from refusalkit.files import make_folder, open_file, read_file, write_file
from refusalkit.redaction import redact
from refusalkit.untrusted import printable

HUB = "https://huggingface.co"
GITHUB = "https://raw.githubusercontent.com"
MAX_BYTES = 500_000_000
TIMEOUT_S = 30.0
COMMIT = re.compile(r"[0-9a-f]{40}")

_CHUNK = 1 << 18
_MAX_FILES = 500
# Beside the files of a set: which commit a branch stood at, and what each file was at first.
_REVISIONS = "revisions.json"
_DIGESTS = "digests.json"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a set is published: `repository` on the Hub or on GitHub, at `revision`.

    `name` is the set's name, for the cache and for messages.
    """

    name: str
    repository: str
    revision: str
    on_hub: bool

    @property
    def page(self) -> str:
        """The page that a person opens to read the terms."""
        host = f"{HUB}/datasets" if self.on_hub else "https://github.com"
        return f"{host}/{self.repository}"

    def url(self, path: str) -> str:
        """Where the file at `path` is served."""
        revision = quote(self.revision, safe="")
        if self.on_hub:
            base = f"{_endpoint('HF_ENDPOINT', HUB)}/datasets/{self.repository}/resolve"
            return f"{base}/{revision}/{quote(path)}"
        base = _endpoint("REFUSALKIT_GITHUB_ENDPOINT", GITHUB)
        return f"{base}/{self.repository}/{revision}/{quote(path)}"

    @property
    def tree_url(self) -> str:
        """Where the Hub lists the files."""
        base = f"{_endpoint('HF_ENDPOINT', HUB)}/api/datasets/{self.repository}/tree"
        return f"{base}/{quote(self.revision, safe='')}?recursive=true"


class NotThere(DownloadError):
    """The server answered, and has no such file at that revision."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file on this disk and the commit that it belongs to."""

    path: Path
    commit: str
    sha256: str


def cache_folder() -> Path:
    """Where fetched files are kept: REFUSALKIT_CACHE, else the platform's cache folder."""
    if asked := os.environ.get("REFUSALKIT_CACHE"):
        return Path(asked)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "refusalkit"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigurationError(
            "there is no home folder to keep fetched sets in: set REFUSALKIT_CACHE to a folder"
        ) from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "refusalkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "refusalkit"
    return home / ".cache" / "refusalkit"


@contextlib.contextmanager
def from_cache_only() -> Iterator[None]:
    """Within it the network is not used: what is not in the cache is a `DownloadError`."""
    token = _CACHE_ONLY.set(True)
    try:
        yield
    finally:
        _CACHE_ONLY.reset(token)


_CACHE_ONLY: ContextVar[bool] = ContextVar("cache_only", default=False)


def _check_network(place: Place, path: str) -> None:
    if _CACHE_ONLY.get():
        raise DownloadError(f"{_what(place, path)} is not in the cache, and it is not fetched here")


def fetch(place: Place, path: str, sha256: str | None = None) -> Fetched:
    """The file at `path`, from the cache or else from the network.

    A branch is downloaded once: from then on the copy in the cache is used, and its commit is
    recorded. `sha256` is the digest that the file must have. Raises `DownloadError`,
    `StorageError`.
    """
    folder = cache_folder() / "datasets" / place.name
    commit = _known_commit(folder, place.revision)
    if commit is not None:
        kept = folder / commit / _file_name(path)
        if kept.is_file():
            digest = file_sha256(kept)
            first = sha256 or _first_digest(folder, commit, path)
            if first is None or digest == first:
                _remember_digest(folder, commit, path, digest)
                return Fetched(kept, commit, digest)
            if sha256 is None:
                raise DownloadError(
                    f"{printable(kept)} is not what was fetched first (SHA-256 {digest[:16]}... "
                    f"instead of {first[:16]}...): remove it to fetch it again"
                )
    _check_network(place, path)
    return _download(_at_commit(place, commit), path, sha256, folder)


def matching_files(place: Place, pattern: str) -> list[str]:
    """The paths in a Hub repository that match a shell pattern; numbers in them sort as numbers.

    The list is kept beside a commit's files, once the commit is known. Raises `DownloadError`;
    `NotThere` where nothing matches.
    """
    folder = cache_folder() / "datasets" / place.name
    commit = _known_commit(folder, place.revision)
    kept = None if commit is None else folder / commit / "files.json"
    listed: list[str] = []
    if kept is not None:
        with contextlib.suppress(OSError, ValueError):
            listed = [str(path) for path in json.loads(read_file(kept, follow=False))]
    if not listed:
        _check_network(place, pattern)
        listed = _list(_at_commit(place, commit))
        if kept is not None:
            with contextlib.suppress(OSError):
                make_folder(kept.parent)
                write_file(kept, json.dumps(listed).encode(), durable=False)
    found = [path for path in listed if fnmatch.fnmatchcase(path, pattern)]
    if not found:
        raise NotThere(f"{_what(place, pattern)}: no file matches; {_or_a_file(place)}")
    if len(found) > _MAX_FILES:
        raise DownloadError(
            f"{_what(place, pattern)}: {len(found)} files match, which no set has: "
            f"{_or_a_file(place)}"
        )
    return sorted(found, key=_by_number)


def _at_commit(place: Place, commit: str | None) -> Place:
    """A branch at the commit of its files that are here already: it may have moved on since."""
    if commit is None or not COMMIT.fullmatch(commit):
        return place
    return replace(place, revision=commit)


def _by_number(path: str) -> list[tuple[int, str]]:
    """Orders category_2.csv before category_10.csv."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]


def _list(place: Place) -> list[str]:
    """The paths of all files of a Hub repository at a revision."""
    with tempfile.TemporaryFile() as file:
        _stream(place, "", file, url=place.tree_url)
        file.seek(0)
        try:
            entries = json.loads(file.read())
            return [str(one["path"]) for one in entries if one.get("type") == "file"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DownloadError(
                f"{_what(place, 'the list of files')}: the server's answer is not a list of files: "
                f"{_or_a_file(place)}"
            ) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(place: Place, path: str, sha256: str | None, folder: Path) -> Fetched:
    try:
        make_folder(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fetching-", delete=False) as file:
            temporary = Path(file.name)
            try:
                commit, digest = _stream(place, path, file)
                file.flush()
                os.fsync(file.fileno())
                if sha256 is not None and digest != sha256:
                    raise DownloadError(
                        f"{_what(place, path)} is not the file that refusalkit knows (SHA-256 "
                        f"{digest[:16]}... instead of {sha256[:16]}...): {_or_a_file(place)}"
                    )
                if COMMIT.fullmatch(place.revision):
                    commit = place.revision
                commit = commit or f"sha256-{digest[:32]}"
                first = _first_digest(folder, commit, path)
                if first is not None and digest != first:
                    raise DownloadError(
                        f"{_what(place, path)} is not what was fetched first (SHA-256 "
                        f"{digest[:16]}... instead of {first[:16]}...), though its revision "
                        f"{commit[:12]} is the same: name another revision, or {_or_a_file(place)}"
                    )
                kept = folder / commit / _file_name(path)
                make_folder(kept.parent)
                file.close()
                temporary.replace(kept)
                _remember(folder, place.revision, commit)
                _remember_digest(folder, commit, path, digest)
            finally:
                file.close()
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_keep(path, folder, error) from error
    return Fetched(kept, commit, digest)


def _cannot_keep(path: str, folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot keep {printable(path)} in {printable(folder)}: {error.strerror or error}; "
        "set REFUSALKIT_CACHE to a folder with room"
    )


def _stream(
    place: Place, path: str, file: IO[bytes], url: str | None = None
) -> tuple[str | None, str]:
    """Copy the file from the network into `file`; (commit if the server says so, SHA-256)."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    request = urllib.request.Request(url or place.url(path))  # noqa: S310 - _endpoint takes http(s) only
    request.add_header("User-Agent", "refusalkit")
    request.add_header("Accept-Encoding", "identity")
    token = _token(request) if place.on_hub else None
    if token is not None:
        # Not sent on to where a redirect leads: that is another company's storage.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    sha = hashlib.sha256()
    size = 0
    first = b""
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            commit = redirects.commit or answer.headers.get("X-Repo-Commit")
            expected = _length(answer.headers.get("Content-Length"))
            while size <= MAX_BYTES and (expected is None or expected <= MAX_BYTES):
                # read1 returns what has arrived, so that the time limit is on silence only.
                chunk = answer.read1(_CHUNK)
                if not chunk:
                    break
                first = first or chunk[:1024]
                size += len(chunk)
                sha.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _cannot_keep(path, Path(file.name).parent, error) from error
    except urllib.error.HTTPError as error:
        error.close()
        kind = NotThere if error.code in (404, 410) else DownloadError
        raise kind(_refused(place, path, error.code, token is not None)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(_unreachable(place, path, error)) from error
    if size > MAX_BYTES or (expected or 0) > MAX_BYTES:
        raise DownloadError(
            f"{_what(place, path)} is larger than {MAX_BYTES // 1_000_000} MB, which no set is: "
            f"{_or_a_file(place)}"
        )
    if expected is not None and size != expected:
        raise DownloadError(
            f"{_what(place, path)} came short ({size} of {expected} bytes): try again"
        )
    if not size:
        raise DownloadError(f"{_what(place, path)} is empty: {_or_a_file(place)}")
    if is_web_page(first):
        raise DownloadError(
            f"{_what(place, path)}: the server sent a web page instead of the file; a proxy or a "
            f"log-in page may be in between: {_or_a_file(place)}"
        )
    if commit is not None and not COMMIT.fullmatch(commit):
        commit = None
    return commit, sha.hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only, and notes the commit that the Hub names."""

    def __init__(self) -> None:
        self.commit: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self.commit = headers.get("X-Repo-Commit") or self.commit
        there = urlsplit(newurl)
        # Plain http only from this machine to itself.
        local = {there.hostname, urlsplit(req.full_url).hostname} <= set(_LOOPBACK)
        if there.scheme != "https" and not (local and req.type == "http"):
            fp.close()
            raise urllib.error.URLError("a redirect does not lead to https")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and _origin(newurl) == _origin(req.full_url):
            # A set that was renamed: the same server, so the token may go along.
            held = req.unredirected_hdrs.get("Authorization")
            if held:
                following.add_unredirected_header("Authorization", held)
        return following


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins like this is HTML."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def _refused(place: Place, path: str, status: int, with_token: bool) -> str:
    what = f"{_what(place, path)} (HTTP {status})"
    if status in (401, 403) and place.on_hub:
        token = (
            "the token in HF_TOKEN may not read it"
            if with_token
            else "set HF_TOKEN to a token of yours"
        )
        return (
            f"{what}: the set is gated or private; accept its terms at {place.page}, {token}, or "
            f"{_or_a_file(place)}"
        )
    if status in (404, 410):
        return (
            f"{what}: it is not there any more; see {place.page}, name another revision with "
            f"{place.name}@REVISION, or {_or_a_file(place)}"
        )
    if status == 429:
        return f"{what}: asked too often; wait a few minutes, or {_or_a_file(place)}"
    return f"{what}: the server could not serve it; try again later, or {_or_a_file(place)}"


def _unreachable(place: Place, path: str, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError | socket.timeout):
        why = f"no answer within {TIMEOUT_S:g} s"
    else:
        why = redact(getattr(reason, "strerror", None) or reason, 120) or type(error).__name__
    return f"{_what(place, path)} cannot be fetched ({why}): try again, or {_or_a_file(place)}"


def _what(place: Place, path: str) -> str:
    where = "the Hugging Face Hub" if place.on_hub else "GitHub"
    return f"{place.name}: {printable(path)} of {place.repository} on {where}"


def _or_a_file(place: Place) -> str:
    return f"give a copy of your own with {place.name}:FILE"


def _token(request: urllib.request.Request) -> str | None:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigurationError("HF_TOKEN holds a space or a line break: that is not a token")
    parts = urlsplit(request.full_url)
    # Over plain http a token goes to this machine only.
    return token if parts.scheme == "https" or parts.hostname in _LOOPBACK else None


def _endpoint(variable: str, default: str) -> str:
    base = os.environ.get(variable, "").strip().rstrip("/") or default
    try:
        parts = urlsplit(base)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # checked when it is read
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(f"{variable} is not a URL such as {default}")
    return base


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdecimal() else None


def _file_name(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path).lstrip(".-") or "file"


def _known_commit(folder: Path, revision: str) -> str | None:
    if COMMIT.fullmatch(revision) or revision.startswith("sha256-"):
        return _file_name(revision)
    commit = _noted(folder / _REVISIONS).get(revision)
    return commit if commit is not None and _file_name(commit) == commit else None


def _remember(folder: Path, revision: str, commit: str) -> None:
    """Note which commit a branch stood at when it was fetched."""
    if revision == commit:
        return
    _note(folder / _REVISIONS, revision, commit)


def _first_digest(folder: Path, commit: str, path: str) -> str | None:
    """The SHA-256 of a file as it was when it was fetched first."""
    return _noted(folder / _DIGESTS).get(f"{commit}/{_file_name(path)}")


def _remember_digest(folder: Path, commit: str, path: str, digest: str) -> None:
    # A read-only cache must stay usable.
    if _first_digest(folder, commit, path) is None:
        with contextlib.suppress(OSError):
            _note(folder / _DIGESTS, f"{commit}/{_file_name(path)}", digest)


def _noted(file: Path) -> dict[str, str]:
    try:
        known = json.loads(read_file(file, limit=2**20, follow=False))
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = known.items() if isinstance(known, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def _note(file: Path, name: str, value: str) -> None:
    write_file(file, json.dumps({**_noted(file), name: value}, indent=1).encode())
