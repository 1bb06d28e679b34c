"""A web page's server as a real process, and browsers that read as fast or as slowly as a test wants."""

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from telemetry.processes import answers
from tests.parts import Process, own_port, wait_for


class Web:
    """`telemetry web` on a free port."""

    def __init__(self, place: Path, *options: str, scheme: str = "http", **client: Any) -> None:
        self.port = own_port(38)
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.process = Process(place, "web", "--port", str(self.port), *options)
        self.client = httpx.Client(base_url=self.url, timeout=30, **client)

    def start(self) -> "Web":
        self.process.start()
        wait_for(self._answers, seconds=30, what=f"the web page answers: {self.process.text}")
        return self

    def end(self) -> None:
        self.client.close()
        self.process.end()

    def get(self, path: str, **query: Any) -> Any:
        """What a path answers, in JSON."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def rss(self) -> int:
        """Bytes of memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))

    def _answers(self) -> bool:
        assert self.process.is_running, self.process.text
        return answers(self.port)


class Browser:
    """One WebSocket, and what its page would hold of each miner."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.records: dict[str, dict[str, dict[str, Any]]] = {}
        self.broker = ""
        self.snapshots = self.changes = 0
        self.errors: list[str] = []

    async def subscribe(self, miner: str) -> None:
        await self.connection.send(json.dumps({"subscribe": miner}))

    async def unsubscribe(self, miner: str) -> None:
        await self.connection.send(json.dumps({"unsubscribe": miner}))

    async def take(self) -> dict[str, Any]:
        """Take in the next message."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 30))
        self.apply(message)
        return message

    async def until(self, is_reached: Any, *, seconds: float = 30.0) -> None:
        """Take in messages until a condition holds."""
        async with asyncio.timeout(seconds):
            while not is_reached():
                await self.take()

    async def closed(self) -> int:
        """Take in messages until the connection is closed; with which code."""
        try:
            async with asyncio.timeout(30):
                while True:
                    await self.take()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code

    def apply(self, message: dict[str, Any]) -> None:
        """Take in a message as a page does."""
        match message:
            case {"snapshot": miner, "part": part, "records": records}:
                self.snapshots += part == 0
                held = self.records.setdefault(miner, {})
                if part == 0:
                    held.clear()
                held.update({one.get("hostName", ""): one for one in records})
            case {"change": miner, "records": records}:
                self.changes += 1
                for one in records:
                    self._change(self.records[miner], one)
            case {"broker": state}:
                self.broker = state
            case {"error": text}:
                self.errors.append(text)

    @staticmethod
    def _change(held: dict[str, dict[str, Any]], line: dict[str, Any]) -> None:
        name = line.get("hostName", "")
        if line.get("_forgotten"):
            held.pop(name, None)
            return
        record = held.setdefault(name, {})
        record.update({key: value for key, value in line.items() if key != "_gone"})
        for gone in line.get("_gone", ()):
            record.pop(gone, None)


@contextlib.asynccontextmanager
async def browser(web: Web, **options: Any) -> AsyncIterator[Browser]:
    """A browser that reads when it is told to."""
    url = web.url.replace("http", "ws", 1) + "/api/live"
    async with connect(url, max_size=None, compression=None, ping_interval=None, **options) as connection:
        yield Browser(connection)


def sleeping_browser(web: Web, miner: str) -> socket.socket:
    """A browser that subscribes, and then never takes in a byte."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", web.port))
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        "GET /api/live HTTP/1.1", f"Host: 127.0.0.1:{web.port}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "",
    ]  # fmt: skip
    sock.sendall("\r\n".join(head).encode())
    assert b"101" in sock.recv(12)
    text = json.dumps({"subscribe": miner}).encode()
    sock.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return sock
