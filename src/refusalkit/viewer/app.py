"""The viewer's routes: pages as HTML, and the data that they show as JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.reporting.document.page import report_style
from refusalkit.viewer import labels
from refusalkit.viewer.guard import MAX_BODY, Guard
from refusalkit.viewer.labels import Labels
from refusalkit.viewer.report_pages import ENVIRONMENT, MAX_RUNS, ReportPages
from refusalkit.viewer.runs_list import run_row, unreadable_row
from refusalkit.viewer.shelf import OpenedRun, Shelf
from refusalkit.viewer.unit_index import UnitIndex
from refusalkit.viewer.unit_query import UnitQuery
from refusalkit.viewer.unit_reading import list_rows, read_unit, shown, titles_of

PAGE = 50
"""Units of one page of a list."""

_MAX_PAGE = 200
# Seconds that a response waits for a value in the making, so that small runs come in one piece.
_PATIENCE_S = 0.4
_STATIC = {
    "viewer.css": "text/css",
    "dom.js": "text/javascript",
    "runs.js": "text/javascript",
    "report.js": "text/javascript",
    "read.js": "text/javascript",
    "unit.js": "text/javascript",
    "label.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def build_app(shelf: Shelf, *, key: str, port: int) -> ASGIApp:
    """The application for the runs on a shelf, behind its guard."""
    return Guard(_Viewer(shelf).app, key=key, port=port)


class _NotFound(Exception):
    """There is no such run, unit or file."""


class _Viewer:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._reports = ReportPages()
        self._labels = Labels()
        pages = {
            "/": self._runs_page,
            "/compare": self._compare_page,
            "/run/{run}": self._run_page,
            "/run/{run}/read": self._read_page,
            "/run/{run}/label": self._label_page,
            "/static/{name}": self._static,
            "/api/runs": self._runs,
            "/api/report": self._report,
            "/api/run/{run}/units": self._units,
            "/api/run/{run}/unit": self._unit,
            "/api/run/{run}/labels": self._label_progress,
        }
        routes = [Route(path, _answering(handler)) for path, handler in pages.items()]
        routes.append(Route("/api/run/{run}/label", self._label, methods=["POST"]))
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={404: _not_there, 405: _not_there, 500: _failed},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        try:
            yield
        finally:
            self._labels.close_all()
            self._reports.close()
            self._shelf.close()

    # Pages

    def _runs_page(self, request: Request) -> Response:
        del request
        return _page("runs.html.j2", title="Runs", folder=str(self._shelf.folder))

    def _run_page(self, request: Request) -> Response:
        opened = self._opened(request)
        return self._report_page(request, [opened], opened)

    def _compare_page(self, request: Request) -> Response:
        runs = self._several(request)
        return self._report_page(request, runs, None)

    def _report_page(
        self, request: Request, runs: list[OpenedRun], opened: OpenedRun | None
    ) -> Response:
        kept = self._reports.of(runs)
        parts = kept.get(_PATIENCE_S)
        return _page(
            "run.html.j2",
            title="Compare" if opened is None else opened.model,
            opened=opened,
            tab="report",
            runs=runs,
            ids=[one.id for one in runs],
            version=kept.version,
            parts=None if parts is None else Markup(parts),  # noqa: S704 - escaped when rendered
            error=None if parts is not None else kept.error,
            n_units=sum(one.manifest.n_units for one in runs),
        )

    def _read_page(self, request: Request) -> Response:
        opened = self._opened(request)
        others = [one for one in self._shelf.all() if one.id != opened.id]
        return _page("read.html.j2", title=opened.model, opened=opened, tab="read", others=others)

    def _label_page(self, request: Request) -> Response:
        opened = self._opened(request)
        return _page("label.html.j2", title=opened.model, opened=opened, tab="label")

    def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "report.css":
            return Response(report_style(), media_type="text/css")
        if name not in _STATIC:
            raise _NotFound
        data = files("refusalkit.viewer").joinpath("static", name).read_bytes()
        return Response(data, media_type=_STATIC[name])

    # Data of the pages

    def _runs(self, request: Request) -> Response:
        del request
        rows = [run_row(one) for one in self._shelf.all()]
        rows += [unreadable_row(name, why) for name, why in self._shelf.unreadable().items()]
        return _json({"runs": rows, "folder": shown(self._shelf.folder)})

    def _report(self, request: Request) -> Response:
        runs = self._several(request)
        kept = self._reports.of(runs)
        kept.get()
        rows = [run_row(one) for one in runs]
        return _json({"version": kept.version, "runs": rows, "error": kept.error})

    def _units(self, request: Request) -> Response:
        opened, query, index = self._asked(request)
        offset = _number(request, "offset", 0, 10**9)
        limit = _number(request, "limit", PAGE, _MAX_PAGE)
        rows, state = self._rows(opened, index, query)
        found = {
            "n": len(rows),
            "offset": offset,
            "rows": list_rows(opened, index, rows.slice(offset, limit)),
            "n_all": opened.manifest.n_units,
            "n_read": len(index.units),
            **state,
        }
        if request.query_params.get("facets"):
            found["facets"] = index.facets
            found["titles"] = titles_of(opened)
            found["judges"] = len(index.judges)
        return _json(found)

    def _unit(self, request: Request) -> Response:
        opened, query, index = self._asked(request)
        unit = request.query_params.get("unit", "")
        row = index.row_of(unit)
        if row is None and not index.is_whole and opened.index.get(20.0) is not None:
            index = opened.index.value or index
            row = index.row_of(unit)
        if row is None:
            raise _NotFound
        uncovered = request.query_params.get("uncover") == "1"
        prompts = opened.prompts(_PATIENCE_S)
        found: dict[str, Any] = {
            "unit": read_unit(opened, index, row, prompts=prompts, uncovered=uncovered)
        }
        rows, _ = self._rows(opened, index, query)
        place = rows.eq(row).arg_true()
        found["place"] = int(place[0]) if len(place) else None
        found["n"] = len(rows)
        beside = self._shelf.get(query.beside) if query.beside else None
        if beside is not None:
            found["beside"] = self._beside(beside, unit, uncovered=uncovered)
        return _json(found)

    def _beside(self, opened: OpenedRun, unit: str, *, uncovered: bool) -> dict[str, Any]:
        """The same prompt and trial in another run."""
        named = {"model": shown(opened.model), "id": opened.id, "name": shown(opened.name)}
        index = opened.index.get(5.0)
        row = None if index is None else index.row_of(unit)
        if index is None or row is None:
            return {**named, "unit": None}
        prompts = opened.prompts(_PATIENCE_S)
        read = read_unit(opened, index, row, prompts=prompts, uncovered=uncovered)
        return {**named, "unit": read}

    def _rows(self, opened: OpenedRun, index: UnitIndex, query: UnitQuery) -> tuple[Any, Any]:
        """The rows that pass a query, and how far the run has been read and searched."""
        other, found, searched = None, None, 1.0
        if query.beside and query.show == "flipped":
            beside = self._shelf.get(query.beside)
            other = None if beside is None else beside.index.get(5.0)
        prompts = opened.prompts() if query.q else None
        if query.q and index.is_whole:
            search = opened.search(index, query.q)
            found, searched = search.rows(0.25), search.done
        rows = opened.listing.rows(index, query, other=other, prompts=prompts, found=found)
        return rows, {"whole": index.is_whole, "searched": searched, "error": opened.index.error}

    # Labels

    def _label_progress(self, request: Request) -> Response:
        opened = self._opened(request)
        annotator = request.query_params.get("annotator", "")
        found: dict[str, Any] = {"annotators": labels.progress(opened)}
        if annotator:
            uncovered = request.query_params.get("uncover") == "1"
            found["item"] = self._labels.current(opened, annotator, uncovered=uncovered)
            if request.query_params.get("agreement"):
                found["agreement"] = labels.agreement(opened, annotator)
        return _json(found)

    async def _label(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                return _json({"error": f"the request is longer than {MAX_BODY} bytes"}, 413)
        return await run_in_threadpool(_guarded, lambda: self._labelled(request, body))

    def _labelled(self, request: Request, body: bytes) -> Response:
        opened = self._opened(request)
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise UsageError("send a JSON object")
        annotator, what = said.get("annotator"), said.get("do")
        unit, n = said.get("unit", ""), said.get("n", 60)
        if not isinstance(annotator, str) or not isinstance(what, str) or not isinstance(unit, str):
            raise UsageError("annotator, do and unit must be strings")
        if what == "close":
            self._labels.close(opened, annotator)
            return _json({})
        if what == "start":
            if not isinstance(n, int) or isinstance(n, bool):
                raise UsageError("n must be a number")
            told = self._labels.start(opened, annotator, n)
        else:
            told = self._labels.act(opened, annotator, what, unit)
        told["item"] = self._labels.current(opened, annotator, uncovered=False)
        return _json(told)

    # What a request names

    def _opened(self, request: Request) -> OpenedRun:
        found = self._shelf.get(request.path_params["run"])
        if found is None:
            raise _NotFound
        return found

    def _several(self, request: Request) -> list[OpenedRun]:
        asked = list(dict.fromkeys(request.query_params.getlist("run")))
        found = [self._shelf.get(one) for one in asked[:MAX_RUNS]]
        runs = [one for one in found if one is not None]
        if not runs or len(runs) < len(found):
            raise _NotFound
        return runs

    def _asked(self, request: Request) -> tuple[OpenedRun, UnitQuery, UnitIndex]:
        opened = self._opened(request)
        query = UnitQuery.of(request.query_params)
        index = opened.units(_PATIENCE_S)
        if index is None and opened.index.error is None:
            index = opened.units(20.0)
        if index is None:
            raise UsageError(opened.index.error or "the run is still being read: try again")
        return opened, query, index


def _answering(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return _guarded(lambda: handler(request), page="/api/" not in request.url.path)

    return answer


def _guarded(make: Callable[[], Response], *, page: bool = False) -> Response:
    """The response, or one that says in a sentence what went wrong."""
    try:
        return make()
    except _NotFound:
        what, status = "there is no such page, run or unit (any more)", 404
    except UsageError as error:
        what, status = str(error), 400
    except RefusalkitError as error:
        what, status = str(error), 409
    if page:
        return _page("message.html.j2", status, title="Not there", message=what)
    return _json({"error": shown(what)}, status)


def _not_there(request: Request, error: Exception) -> Response:
    def nothing() -> Response:
        raise _NotFound

    del error
    return _guarded(nothing, page=not request.url.path.startswith("/api/"))


def _failed(request: Request, error: Exception) -> Response:
    del request, error  # a traceback shows more of this machine than a page should
    return _json({"error": "a defect of refusalkit: the viewer failed on this request"}, 500)


def _page(template: str, status: int = 200, **shown_there: Any) -> Response:
    values = {"opened": None, "tab": "", **shown_there}
    return HTMLResponse(ENVIRONMENT.get_template(template).render(values), status)


def _json(data: Mapping[str, Any], status: int = 200) -> Response:
    # In ASCII: a lone surrogate cannot be written as UTF-8. NaN is not JSON.
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _number(request: Request, name: str, default: int, most: int) -> int:
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not given.isascii() or not given.isdecimal() or len(given) > 10:
        raise UsageError(f"{name} is not a number")
    return min(int(given), most)
