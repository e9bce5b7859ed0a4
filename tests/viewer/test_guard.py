"""Nobody but the user's own browser reaches the viewer, whatever a web page tries."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import refusalkit as rk
from viewer.hostile import SCRIPT, UNIT, write_hostile
from viewer.served import Client, unit_path, viewer

pytestmark = pytest.mark.xdist_group("viewer")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guarded")
    rk.benchmark("demo/mixed", "starter", trials=1, out=folder / "own")
    write_hostile(folder / "hostile")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[Client]:
    with viewer(runs) as opened:
        yield opened


def pages(client: Client) -> list[str]:
    found = ["/"]
    ids = [run["id"] for run in client.get("/api/runs").json["runs"]]
    for run in ids:
        found += [f"/run/{run}", f"/run/{run}/read", f"/run/{run}/label"]
    return [*found, f"/compare?run={ids[0]}&run={ids[1]}", "/no-such-page"]


def test_without_the_key_nothing_is_shown(client: Client) -> None:
    for path in [*pages(client), "/api/runs", "/static/viewer.css"]:
        answer = client.send("GET", path, cookie=False)
        assert answer.status == 403
        assert "demo/mixed" not in answer.text
        assert "set-cookie" not in answer.headers
    for wrong in ("", "x", client.key[:-1], client.key + "x", client.key.swapcase()):
        assert client.send("GET", f"/?key={wrong}", cookie=False).status == 403
        cookie = f"{client.cookie.partition('=')[0]}={wrong}"
        assert client.send("GET", "/api/runs", Cookie=cookie).status == 403


def test_the_key_becomes_a_strict_cookie_and_leaves_the_address(client: Client) -> None:
    run = client.run("own")
    answer = client.send("GET", f"/run/{run}/read?key={client.key}&label=refusal", cookie=False)
    assert answer.status == 303
    assert answer.headers["location"] == f"/run/{run}/read?label=refusal"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert str(client.port) in cookie.partition("=")[0]  # other ports have cookies of their own
    # From another page's link the browser would not send a strict cookie along a redirect.
    from_link = client.send("GET", f"/?key={client.key}", cookie=False, Sec_Fetch_Site="cross-site")
    assert from_link.status == 200
    assert client.key not in from_link.text


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/",
        "/\\evil.example/",
        "///evil.example",
        "/%0d%0aX-Injected: 1",
        "/%22%3E<b>",
    ],
)
def test_the_key_leads_to_no_other_site(client: Client, path: str) -> None:
    raw = client.raw(
        f"GET {path}?key={client.key} HTTP/1.1\r\nHost: {client.host}\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    head = raw.partition(b"\r\n\r\n")[0].decode().lower()
    location = next((line for line in head.split("\r\n") if line.startswith("location:")), "")
    assert "//" not in location
    assert "x-injected" not in head.replace(location, "")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1:{port}@evil.example",
        "evil.example#127.0.0.1",
        "127.0.0.1:x",
        "[::1].evil.example",
        "[::1]evil.example",
        "0.0.0.0:{port}",
        "127.0.0.2:{port}",
        "",
    ],
)
def test_a_rebound_name_is_turned_away(client: Client, host: str) -> None:
    host = host.format(port=client.port)
    for path in ("/", "/api/runs", f"/?key={client.key}"):
        answer = client.send("GET", path, Host=host)
        assert answer.status == 421
        assert "set-cookie" not in answer.headers
    posted = client.post("/api/run/x/label", {}, Host=host, Origin=f"http://{host}")
    assert posted.status == 421


def test_two_hosts_are_one_too_many(client: Client) -> None:
    raw = client.raw(
        f"GET /api/runs HTTP/1.1\r\nHost: {client.host}\r\nHost: evil.example\r\n"
        f"Cookie: {client.cookie}\r\nConnection: close\r\n\r\n".encode()
    )
    assert raw.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "LOCALHOST:8080", "[::1]:{port}", "127.0.0.1"]
)
def test_names_of_this_machine_will_do(client: Client, host: str) -> None:
    # A tunnel has another port than the server.
    assert client.send("GET", "/api/runs", Host=host.format(port=client.port)).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_reads_nothing(client: Client, site: str) -> None:
    for path in ("/", "/api/runs", "/static/dom.js"):
        answer = client.send("GET", path, Sec_Fetch_Site=site)
        assert answer.status == 403
    for origin in ("http://evil.example", "null", "http://localhost:1", f"https://{client.host}"):
        assert client.send("GET", "/api/runs", Origin=origin).status == 403


def test_another_page_writes_nothing(client: Client, runs: Path) -> None:
    path = f"/api/run/{client.run('own')}/label"
    start = {"do": "start", "annotator": "mallory", "n": 10}
    for origin in ("http://evil.example", "null", f"http://{client.host}.evil.example", "file://"):
        assert client.post(path, start, Origin=origin).status == 403
    assert client.post(path, start, Sec_Fetch_Site="cross-site").status == 403
    assert client.post(path, start, Sec_Fetch_Site="same-site").status == 403
    no_origin = client.send("POST", path, b"{}", Content_Type="application/json")
    assert no_origin.status == 403
    # What a form of another page can send without being asked for.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.post(path, start, Content_Type=kind).status == 415
    assert client.send("GET", path, None).status in (404, 405)
    assert (
        client.send("POST", path, b"{}", cookie=False, Origin=f"http://{client.host}").status == 403
    )
    assert not (runs / "own" / "labels").exists()


def test_what_is_sent_is_bounded(client: Client) -> None:
    path = f"/api/run/{client.run('own')}/label"
    assert client.post(path, {"do": "x" * 70_000}).status == 413
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {client.host}\r\nOrigin: http://{client.host}\r\n"
        f"Cookie: {client.cookie}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    assert client.raw(chunked.encode()).startswith(b"HTTP/1.1 411")
    for wrong in (b"", b"[]", b"{", b"[" * 9_000, b'{"do": 1, "annotator": "me"}'):
        answer = client.send(
            "POST",
            path,
            wrong,
            Origin=f"http://{client.host}",
            Content_Type="application/json",
        )
        assert answer.status == 400, wrong[:20]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_there_are_no_other_methods(client: Client, method: str) -> None:
    assert client.send(method, "/api/runs").status == 405
    assert client.send("POST", "/api/runs", b"{}").status in (403, 405, 415)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../guard.py",
        "/static/..%2fguard.py",
        "/static/%2e%2e/guard.py",
        "/static/..\\guard.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/viewer.css%00.js",
        "/run/..",
        "/run/%2e%2e%2f%2e%2e%2fetc/read",
        "/run/own",
        "/run/{folder}",
        "/api/run/..%2fown/units",
        "/api/run/%2e/unit?unit=../../manifest.json",
        "/run/{run}/../../../etc/passwd",
        "/run/{run}/manifest.json",
        "/run/{run}/labels/me.jsonl",
        "/%00",
        "/%ff%fe",
    ],
)
def test_a_path_leads_to_nothing_but_pages(client: Client, runs: Path, path: str) -> None:
    path = path.format(run=client.run("own"), folder=str(runs / "own").replace("/", "%2f"))
    answer = client.send("GET", path)
    assert answer.status in (400, 404)
    for inside in (b"root:", b"class Guard", b"schema_version", str(runs).encode()):
        assert inside not in answer.body


class Tags(HTMLParser):
    """Counts what a page would run: scripts of its own, handlers, styles, addresses elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in ("iframe", "object", "embed", "base", "style", "img"):
            self.found.append(tag)
        if tag == "script" and not (known.get("src") or "").startswith("/static/"):
            self.found.append("inline script")
        self.found += [name for name in known if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            address = known.get(name)
            if address and not address.startswith(("/", "#")):
                self.found.append(f"{name}={address}")
            if address and address.startswith("//"):
                self.found.append(f"{name}={address}")


def test_no_field_of_a_run_becomes_a_script(client: Client) -> None:
    for path in pages(client):
        answer = client.get(path)
        deadline = 40
        while "data-waiting" in answer.text and deadline:
            deadline -= 1
            client.get(f"/api/report?run={path.rpartition('/')[2]}")
            answer = client.get(path)
        tags = Tags()
        tags.feed(answer.text)
        assert tags.found == [], path
        assert SCRIPT not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert client.key not in answer.text
    hostile = next(r for r in client.get("/api/runs").json["runs"] if r["name"] != "own")
    told = client.get(f"/api/run/{hostile['id']}/unit", unit=UNIT)
    assert told.headers["content-type"] == "application/json"
    assert told.headers["x-content-type-options"] == "nosniff"
    unit = told.json["unit"]
    # As it is, for a text node.
    assert SCRIPT in unit["text"]
    assert SCRIPT in unit["verdicts"][0]["reason"]
    assert client.get(unit_path(hostile["id"], UNIT)).status == 200


def test_an_error_tells_nothing_of_the_machine(client: Client, runs: Path) -> None:
    run = client.run("own")
    for query in ("label=x", "order=%00", "danger=9", "offset=-1", "offset=1e9", "q=" + "x" * 300):
        answer = client.get(f"/api/run/{run}/units?{query}")
        assert answer.status == 400, query
        assert "Traceback" not in answer.text
        assert str(runs) not in answer.text
    assert client.get("/api/run/000000000000/units").status == 404
    assert client.get(f"/compare?run={run}&run=nope").status == 404
    assert client.get("/compare").status == 404
    assert client.get(f"/api/run/{run}/unit", unit="no-such#1").status == 404
