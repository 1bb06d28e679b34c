"""The application: the API, the WebSocket and the page behind one set of checks. The only file with starlette in it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from telemetry.client import Fleet
from telemetry.errors import TelemetryError, UsageError
from telemetry.web import api
from telemetry.web.following import Following, News
from telemetry.web.live import TICK, Live, Session
from telemetry.web.past import Past
from telemetry.web.routes import NotFoundError, UnavailableError
from telemetry.web.routes import Route as ApiRoute

PAGE = Path(__file__).parent / "page"

MOST_SESSIONS = 1000
"""Browsers that are connected at once."""

_READ_AT_ONCE, _MOST_WAITING = 2, 50

_NORMAL, _GOING_AWAY, _TRY_LATER = 1000, 1001, 1013

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Site:
    """What is served: the live copy of a fleet, and its past."""

    def __init__(self, fleet: Fleet, past: Past) -> None:
        self.live = Live(lambda: time.time_ns() // 1_000_000)
        self._fleet, self._past = fleet, past
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._waiting = 0

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=self._routes(),
            middleware=[Middleware(_SafeHeaders)],
            exception_handlers={HTTPException: _http_error, TelemetryError: _error, Exception: _defect},
            lifespan=self._lifespan,
        )

    def end(self) -> None:
        """Tell the browsers that the server goes away."""
        for session in self.live.sessions:
            session.end(_GOING_AWAY)

    def _routes(self) -> list[BaseRoute]:
        return [
            *(Route(one.path, self._answering(one), methods=["GET"]) for one in api.ROUTES),
            WebSocketRoute("/api/live", self._serve_live),
            Route("/", _page, methods=["GET"]),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def deliver(news: News) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.live.take, news)

        ticking = asyncio.create_task(self._tick())
        with Following(self._fleet, deliver):
            yield
        ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.live.tick()

    def _answering(self, route: ApiRoute) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            values = route.values(request.path_params, request.query_params.multi_items())
            made = partial(route.answer, api.Request(self.live, self._past, api.Viewer()), **values)
            return _json(await self._read(made) if route.reads_database else made())

        return answer

    async def _read(self, made: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever is JSON
        """What is made from the database: in a thread, a few at once, and no more than a few wait."""
        if self._waiting >= _MOST_WAITING:
            raise UnavailableError("too many ask for what was: try again")
        self._waiting += 1
        try:
            async with self._reading:
                return await asyncio.to_thread(made)
        finally:
            self._waiting -= 1

    async def _serve_live(self, websocket: WebSocket) -> None:
        if len(self.live.sessions) >= MOST_SESSIONS:
            await websocket.close(_TRY_LATER)
            return
        await websocket.accept()
        with Session(self.live, api.Viewer().sees) as session:
            sending = asyncio.create_task(_send(websocket, session))
            try:
                while (message := await websocket.receive())["type"] == "websocket.receive":
                    session.receive(message.get("text") or "")
            finally:
                sending.cancel()


class _SafeHeaders:
    """Adds to every response what keeps browsers from doing more with it than is meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                is_asset = scope["path"].startswith("/page/")
                headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
            await send(message)

        await self._app(scope, receive, send_safely if scope["type"] == "http" else send)


async def _send(websocket: WebSocket, session: Session) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away meanwhile
        async for message in session.messages():
            await websocket.send_text(message)
            # A socket that takes all at once would let nobody else come up.
            await asyncio.sleep(0)
        await websocket.close(session.ended or _NORMAL)


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401  # whatever is JSON
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def _error(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, _status(error))


def _status(error: Exception) -> int:
    match error:
        case NotFoundError():
            return 404
        case UsageError():
            return 400
        case UnavailableError():
            return 503
    return 500


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json({"error": error.detail.lower()}, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _defect(_: Request, _error: Exception) -> Response:
    return _json({"error": "a defect of the server: see its log"}, 500)
