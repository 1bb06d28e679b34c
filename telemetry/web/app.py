"""The application: the API, the WebSocket and the page, as routes behind the guard."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from telemetry.client import Fleet
from telemetry.errors import TelemetryError, UsageError
from telemetry.web import api
from telemetry.web.following import Following, News
from telemetry.web.guard import (
    LOGIN,
    LOGOUT,
    SESSION,
    Gate,
    Guarded,
    cookie_name,
    error_response,
    is_secure,
    json_response,
)
from telemetry.web.live import TICK, Live, Session
from telemetry.web.login import LASTS, Logins, RefusedError, Viewer
from telemetry.web.metrics import CONTENT_TYPE, compressed, exposition
from telemetry.web.past import Past
from telemetry.web.routes import Route as ApiRoute
from telemetry.web.routes import UnavailableError

PAGE = Path(__file__).parent / "page"

MOST_SESSIONS = 1000
"""Browsers that are connected at once."""

_READ_AT_ONCE, _MOST_WAITING = 2, 50
_LARGEST_BODY = 2048

_NORMAL, _GOING_AWAY, _POLICY, _TRY_LATER = 1000, 1001, 1008, 1013
"""Codes with which a WebSocket is closed (RFC 6455)."""


class Site:
    """What is served, and to whom: the live copy of a fleet, and its past."""

    def __init__(self, fleet: Fleet, past: Past, gate: Gate) -> None:
        self.live = Live(lambda: time.time_ns() // 1_000_000)
        self._following = Following(fleet, self._deliver)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._past, self._gate = past, gate
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._waiting = 0

    def app(self) -> Starlette:
        """The application."""
        made = Starlette(
            routes=self._routes(),
            middleware=[Middleware(Guarded, gate=self._gate)],
            exception_handlers={HTTPException: _http_error, TelemetryError: _error, Exception: _defect},
            lifespan=self._lifespan,
        )
        made.router.redirect_slashes = False
        return made

    @property
    def has_failed(self) -> bool:
        """Whether nothing more is learnt of the fleet, by a defect."""
        return self._following.has_failed

    def end(self) -> None:
        """Tell the browsers that the server goes away."""
        for session in self.live.sessions:
            session.end(_GOING_AWAY)

    def _routes(self) -> list[BaseRoute]:
        logins = self._gate.logins
        return [
            *(Route(one.path, self._answering(one), methods=["GET"]) for one in api.ROUTES),
            Route(SESSION, self._session, methods=["GET"]),
            *([] if logins is None else self._login_routes(logins)),
            WebSocketRoute("/api/live", self._serve_live),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/", _page, methods=["GET"]),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]

    def _login_routes(self, logins: Logins) -> list[BaseRoute]:
        return [
            Route(LOGIN, partial(self._log_in, logins), methods=["POST"]),
            Route(LOGOUT, partial(_log_out, logins), methods=["POST"]),
        ]

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        ticking = asyncio.create_task(self._tick())
        with self._following:
            yield
        ticking.cancel()

    def _deliver(self, news: News) -> None:
        """Hand news to the event loop, from the thread that follows."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.live.take, news)

    async def _tick(self) -> None:
        """Tell the time, and end the sessions whose login has ended."""
        while True:
            await asyncio.sleep(TICK)
            self.live.tick()
            if (logins := self._gate.logins) is not None:
                await asyncio.to_thread(logins.look_at_accounts)
                for session in self.live.sessions:
                    if session.login is None or not logins.holds(session.login, time.monotonic()):
                        session.end(_POLICY)

    # --- the API ---

    def _answering(self, route: ApiRoute) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            values = route.values(request.path_params, request.query_params.multi_items())
            made = partial(route.answer, api.Request(self.live, self._past, request.scope["viewer"]), **values)
            return json_response(await self._read(made) if route.reads_database else made())

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

    # --- the metrics ---

    async def _metrics(self, request: Request) -> Response:
        viewer: Viewer = request.scope["viewer"]
        feeds = [feed for miner, feed in self.live.feeds.items() if viewer.sees(miner)]
        records = {key: record for feed in feeds for key, record in feed.records.items()}

        def chunks() -> Iterator[bytes]:
            told = self._past.health()
            if viewer.miner is not None:
                told = [one for one in told if one.name.startswith(f"{viewer.miner}/")]
            yield from exposition(records, told, now=self.live.now())

        # Starlette asks for each chunk in a thread, once the one before is sent.
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return StreamingResponse(chunks(), media_type=CONTENT_TYPE)
        return StreamingResponse(compressed(chunks()), media_type=CONTENT_TYPE, headers={"Content-Encoding": "gzip"})

    # --- the WebSocket ---

    async def _serve_live(self, websocket: WebSocket) -> None:
        if len(self.live.sessions) >= MOST_SESSIONS:
            await websocket.close(_TRY_LATER)
            return
        await websocket.accept()
        with Session(self.live, websocket.scope["viewer"].sees, websocket.scope["login"]) as session:
            sending = asyncio.create_task(_send(websocket, session))
            try:
                while (message := await websocket.receive())["type"] == "websocket.receive":
                    session.receive(message.get("text") or "")
            finally:
                sending.cancel()

    # --- logging in ---

    async def _session(self, request: Request) -> Response:
        if self._gate.logins is None:
            return json_response({"login": False, "user": None})
        try:
            _, viewer = await self._gate.viewer(request)
        except RefusedError:
            return json_response({"login": True, "user": None})
        return json_response({"login": True, "user": viewer.user})

    async def _log_in(self, logins: Logins, request: Request) -> Response:
        name, password = await _credentials(request)
        viewer = await self._gate.check(logins, request, name, password)
        response = json_response({"user": viewer.user})
        response.set_cookie(
            cookie_name(request), logins.begin(viewer, time.monotonic()),
            max_age=int(LASTS), httponly=True, samesite="strict", secure=is_secure(request),
        )  # fmt: skip
        return response


async def _log_out(logins: Logins, request: Request) -> Response:
    name = cookie_name(request)
    logins.end(request.cookies.get(name, ""))
    response = json_response({"user": None})
    response.delete_cookie(name, httponly=True, samesite="strict", secure=is_secure(request))
    return response


async def _credentials(request: Request) -> tuple[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise HTTPException(413)
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    match given:
        case {"user": str(name), "password": str(password)}:
            return name, password
    raise UsageError('expected {"user": "viewer.all.NAME", "password": "…"}, in JSON')


async def _send(websocket: WebSocket, session: Session) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went away meanwhile
        async for message in session.messages():
            await websocket.send_text(message)
            # A socket that takes all at once would let nobody else come up.
            await asyncio.sleep(0)
        await websocket.close(session.ended or _NORMAL)


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def _error(_: Request, error: Exception) -> Response:
    return error_response(error)


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response({"error": error.detail.lower()}, error.status_code, error.headers)


def _defect(_: Request, _error: Exception) -> Response:
    return json_response({"error": "a defect of the server: see its log"}, 500)
