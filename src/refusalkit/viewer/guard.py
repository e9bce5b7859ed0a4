"""Lets only a browser on this machine that was given the key, and its own pages, use the viewer.

A page of another site can send requests to loopback, and by DNS rebinding even under a host name of
its choice. So the name in `Host` must be one of loopback's, a cookie must hold the random key that
was printed in the address, and the headers that say which page a request comes from must name this
one. Models' answers may contain scripts: the content security policy allows only this program's
files, and no page builds HTML from text.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_BODY = 64 * 1024
_COOKIE = "refusalkit-view"
_METHODS = frozenset({"GET", "HEAD", "POST"})
# No script of the viewer turns text into HTML; trusted types make the browser refuse it, too.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{style}'; "
    "img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# The only inline style: a page for somebody without the key cannot load a file.
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{max-width:34rem;margin:15vh auto;padding:0 1.5rem;font:1rem/1.6 system-ui,sans-serif}"
    "h1{font-size:1.5rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEAD = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>refusalkit view</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style>
"""
_HEADERS = {
    "Content-Security-Policy": _POLICY.format(style=_STYLE_HASH),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_LOCKED = f"""{_HEAD}<h1>This page has a key</h1>
<p>Open the address that <code>refusalkit view</code> printed in its terminal; it is a new one
each time the viewer is started.</p>
</html>
"""
_DOOR = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>refusalkit view</title>
<meta http-equiv="refresh" content="0;url={path}">
<p><a href="{path}">Open the runs</a></p>
</html>
"""


class Guard:
    """Lets those requests through to `app` that have the key and come from the viewer's pages."""

    def __init__(self, app: ASGIApp, *, key: str, port: int) -> None:
        self._app = app
        self._key = key
        # Cookies are shared by all ports of a host.
        self._cookie = f"{_COOKIE}-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the app; add the security headers to either."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket, which the viewer does not have
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is not passed on; None where it is."""
        headers = Headers(scope=scope)
        if not _is_single(headers, ("host", "origin", "content-length")):
            return _no("a header that must be single is repeated", 400)
        host = headers.get("host", "")
        if _name_of(host) not in HOSTS:
            return _no("the host must be 127.0.0.1, localhost or [::1]", 421)
        if scope["method"] not in _METHODS:
            return _no("the method must be GET, HEAD or POST", 405)
        came_from = headers.get("sec-fetch-site", "none")
        offered = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key")
        if offered is not None and scope["method"] == "GET":
            return self._let_in(scope, offered, came_from)
        if came_from not in ("none", "same-origin"):
            return _no("another page asked for this", 403)
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return _no("another page asked for this", 403)
        if not self._has_key(headers.getlist("cookie")):
            return HTMLResponse(_LOCKED, 403)
        if scope["method"] == "POST":
            return _wrong_post(headers, origin)
        return None

    def _let_in(self, scope: Scope, offered: Iterable[str], came_from: str) -> Response:
        """Check the key in an address, set the cookie, and redirect to the address without it."""
        if not any(self._is_key(one) for one in offered):
            return HTMLResponse(_LOCKED, 403)
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(k, v) for k, vs in given.items() if k != "key" for v in vs])
        # From the root: a path that begins with two slashes would be another host.
        raw = scope.get("raw_path", b"/").decode("latin-1").partition("?")[0]
        path = "/" + raw.lstrip("/\\") + (f"?{rest}" if rest else "")
        if not path.isascii() or any(sign in path for sign in "\"'<>`\\ "):
            path = "/"
        answer: Response = RedirectResponse(path, 303)
        if came_from not in ("none", "same-origin"):
            # A strict cookie is not sent after a redirect that began on another site's page, so
            # this page of the viewer goes on from here.
            answer = HTMLResponse(_DOOR.format(path=path.replace("&", "&amp;")))
        answer.set_cookie(self._cookie, self._key, httponly=True, samesite="strict", path="/")
        return answer

    def _has_key(self, cookies: Iterable[str]) -> bool:
        for line in cookies:
            try:
                found = SimpleCookie(line).get(self._cookie)
            except CookieError:
                continue
            if found is not None and self._is_key(found.value):
                return True
        return False

    def _is_key(self, offered: str) -> bool:
        return secrets.compare_digest(offered.encode(), self._key.encode())


def _wrong_post(headers: Headers, origin: str | None) -> Response | None:
    """The refusal of a POST request; None where it is passed on."""
    if origin is None:
        return _no("the Origin header is missing", 403)
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return _no("the content type must be application/json", 415)
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdecimal():
        return _no("the Content-Length header is missing or not a number", 411)
    if len(length) > 9 or int(length) > MAX_BODY:
        return _no(f"the request is longer than {MAX_BODY} bytes", 413)
    return None


def _is_single(headers: Headers, names: Iterable[str]) -> bool:
    return all(len(headers.getlist(name)) <= 1 for name in names)


def _name_of(host: str) -> str:
    """The name in a `Host` header, in lower case and without the port; empty if malformed."""
    if host.startswith("["):
        name, mark, port = host.partition("]")
        name, port = name + mark, port.removeprefix(":") if port.startswith(":") else port
    else:
        name, _, port = host.partition(":")
    return name.lower() if not port or port.isdecimal() else ""


def _no(why: str, status: int) -> Response:
    return PlainTextResponse(f"refusalkit view: {why}\n", status)
