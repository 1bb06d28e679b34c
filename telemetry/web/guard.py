"""What stands before every answer: whether the question may be asked, and what a browser is told to keep to."""

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import orjson
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.errors import TelemetryError, UsageError
from telemetry.web.login import Logins, RefusedError, TooManyTriesError, Viewer
from telemetry.web.routes import NotFoundError, UnavailableError

_log = logging.getLogger(__name__)

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

LOGIN, LOGOUT, SESSION = "/login", "/logout", "/api/session"

_OPEN_PATHS = {"/", LOGIN, LOGOUT, SESSION}
_PAGE = "/page/"
"""What is the same for everybody: the page, and how one logs in."""

_READS = {"GET", "HEAD"}
_CHECKS_AT_ONCE, _MOST_WAITING = 2, 20

NOBODY = Viewer()


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:  # noqa: ANN401
    """An answer in JSON."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def error_response(error: Exception) -> Response:
    """An error as its answer."""
    headers = {"Retry-After": str(error.after)} if isinstance(error, TooManyTriesError) else None
    return json_response({"error": str(error)}, _status(error), headers)


def _status(error: Exception) -> int:
    match error:
        case RefusedError():
            return 401
        case NotOursError():
            return 403
        case NotFoundError():
            return 404
        case TooManyTriesError():
            return 429
        case UsageError():
            return 400
    # What is left is about something beyond us: the broker, the database.
    return 503


class NotOursError(TelemetryError):
    """The question was meant for another server, or comes from another's page."""


class Gate:
    """Who may ask: `logins` where one has to log in, `names` by which the server is reached, where they are known."""

    def __init__(self, logins: Logins | None, names: frozenset[str] | None) -> None:
        self.logins, self._names = logins, names
        self._checking = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._waiting = 0

    def require_ours(self, asker: HTTPConnection) -> None:
        """Raise NotOursError where another site is behind the question.

        Its page can have its own name lead here (DNS rebinding), and can open a WebSocket to anywhere.
        """
        host = asker.headers.get("host", "").lower()
        if self._names is not None and _split(f"//{host}").hostname not in self._names:
            raise NotOursError(f"{host[:80]!r} is no name of this server: use another, or set web.names")
        origin = asker.headers.get("origin")
        is_read = asker.scope["type"] == "http" and asker.scope["method"] in _READS
        if origin is not None and not is_read and _split(origin.lower()).netloc != host:
            raise NotOursError("asked by a page of another site")

    async def viewer(self, asker: HTTPConnection) -> tuple[str | None, Viewer]:
        """What the login is known by, and who asks; RefusedError where nobody is logged in."""
        if self.logins is None:
            return None, NOBODY
        now = time.monotonic()
        found = self.logins.by_token(asker.cookies.get(cookie_name(asker), ""), now)
        credentials = _credentials(asker.headers.get("authorization", ""))
        if found is None and credentials is not None:
            found = self.logins.by_credentials(*credentials, now)
            if found is None:
                viewer = await self.check(self.logins, asker, *credentials)
                found = self.logins.begin_of_program(*credentials, viewer, now)
        if found is None:
            raise RefusedError("log in first")
        return found

    async def check(self, logins: Logins, asker: HTTPConnection, name: str, password: str) -> Viewer:
        """The viewer whose credentials these are. Raises what says why not, or why that cannot be told."""
        address = asker.client.host if asker.client else ""
        logins.take_try(address, time.monotonic())
        if self._waiting >= _MOST_WAITING:
            raise UnavailableError("too many log in at once: try again")
        self._waiting += 1
        try:
            async with self._checking:
                return await asyncio.to_thread(logins.check, name, password)
        except RefusedError:
            # Not the name: some type their password there.
            _log.warning("a login from %s was refused", address)
            raise
        finally:
            self._waiting -= 1


def cookie_name(asker: HTTPConnection) -> str:
    """The name of the cookie: over TLS one that nothing but this server over TLS can set."""
    return "__Host-telemetry" if is_secure(asker) else "telemetry"


def is_secure(asker: HTTPConnection) -> bool:
    """Whether it comes over TLS, up to us or to the proxy before us."""
    return asker.scope["scheme"] in {"https", "wss"}


def _split(url: str) -> SplitResult:
    try:
        found = urlsplit(url)
        _ = found.hostname
    except ValueError:
        return urlsplit("")
    return found


def _credentials(header: str) -> tuple[str, str] | None:
    """The user and password that a program sends along (RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


class Guarded:
    """An application behind a gate. What it gets of who asks stands in its scope: `viewer`, and `login`."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may be asked."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        safe_send = _safely(scope, send)
        try:
            asker = HTTPConnection(scope)
            self._gate.require_ours(asker)
            path = scope["path"]
            if path not in _OPEN_PATHS and not path.startswith(_PAGE):
                scope["login"], scope["viewer"] = await self._gate.viewer(asker)
        except TelemetryError as error:
            # Before a WebSocket is accepted it is refused as any other request.
            await error_response(error)(scope, receive, safe_send)
        else:
            await self._app(scope, receive, safe_send)


def _safely(scope: Scope, send: Send) -> Send:
    """Add to an answer what keeps browsers from doing more with it than is meant."""

    async def send_safely(message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers["Cache-Control"] = "no-cache" if scope["path"].startswith(_PAGE) else "no-store"
        await send(message)

    return send_safely
