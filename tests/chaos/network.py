"""The network between the broker and its clients, in our hands: each gate is a TCP proxy that can be cut or frozen."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Gate:
    """A port that leads to the broker. All but `port` belongs to the thread of the network."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._moving = asyncio.Event()
        self._moving.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        """Begin to listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, with what is on its way, and every new one."""
        self._is_cut = True
        for writer in list(self._writers):
            _reset(writer)
        self._moving.set()

    def freeze(self) -> None:
        """Hold every byte, both ways."""
        self._moving.clear()

    def heal(self) -> None:
        """Let all pass again; what was held too."""
        self._is_cut = False
        self._moving.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._moving.wait()
        if self._is_cut:
            _reset(writer)
            return
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        pair = {writer, to_there}
        self._writers |= pair
        pumps = [asyncio.create_task(self._pump(reader, to_there)), asyncio.create_task(self._pump(there, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self._writers -= pair
        for one in pair:
            one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(65536)
                await self._moving.wait()
                if not data or self._is_cut:
                    return
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Network:
    """Gates to one broker, served by a thread of their own until `close`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._gates: list[Gate] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def gate(self) -> Gate:
        """A new gate, open."""
        return self._wait(self._make())

    def call(self, act: Callable[[], None]) -> None:
        """Do something to a gate."""

        async def do() -> None:
            act()

        self._wait(do())

    def close(self) -> None:
        """End every connection, and the thread."""
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _make(self) -> Gate:
        gate = Gate(self._target)
        await gate.open()
        self._gates.append(gate)
        return gate

    async def _end(self) -> None:
        for gate in self._gates:
            gate.cut()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=2)

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
