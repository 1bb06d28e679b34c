"""The socket of a connection, and the one that paho takes it for."""

import contextlib
import socket
import ssl
from typing import Final

_CHUNK: Final = 256 * 1024
"""Bytes taken in at once: beside a thread that computes, each call to the system waits for that one's turn to end."""

_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Link:
    """A connected socket that never blocks. For one thread.

    `receive` has the bytes as they come. To paho, `recv` shows only the packets that were handed to it, and `send`
    takes everything at once.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._handed = bytearray()
        self._unsent = memoryview(b"")
        self._is_broken = False
        self.is_closed = False
        self.alert: ssl.SSLError | None = None
        """How the other end broke TLS off, which after TLS 1.3's handshake is told to who reads."""

    @property
    def is_blocked(self) -> bool:
        """Whether something waits for the network to take it."""
        return bool(self._unsent)

    @property
    def has_handed(self) -> bool:
        """Whether there is something that paho has to read: a packet, or that the connection broke."""
        return not self.is_closed and (self._is_broken or bool(self._handed))

    def receive(self) -> bytes:
        """What came in; nothing where nothing did, or where the connection broke."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return self._receive_piece()
        # TLS gives one record at a time, 16 KiB at most and always to its end: a selector sees that there are more.
        pieces, size = [], 0
        while size < _CHUNK and (piece := self._receive_piece()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def hand(self, packet: bytes) -> None:
        """Let paho read a whole packet."""
        self._handed += packet

    def transmit(self) -> None:
        """Send what waits, as far as the network takes it."""
        try:
            while self._unsent and not self._is_broken:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except _NOT_NOW:
            return
        except OSError:
            self._is_broken = True

    def recv(self, size: int) -> bytes:
        """Give paho what was handed to it; nothing, at the end of the connection."""
        if not self._handed and not self._is_broken:
            raise BlockingIOError
        taken = bytes(self._handed[:size])
        del self._handed[:size]
        return taken

    def send(self, data: bytes | bytearray) -> int:
        """Send now, or as soon as the network takes it, behind what waits already."""
        self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        self.transmit()
        return len(data)

    def close(self) -> None:
        """Close, once what waits has had a last chance."""
        if not self.is_closed:
            self.transmit()
            self.is_closed = True
            with contextlib.suppress(OSError):
                self._sock.close()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # as a socket has it
        """Let calls wait, or not."""
        self._sock.setblocking(flag)

    def _receive_piece(self) -> bytes:
        try:
            piece = self._sock.recv(_CHUNK)
        except _NOT_NOW:
            return b""
        except OSError as error:
            piece = b""
            self.alert = error if isinstance(error, ssl.SSLError) else None
        if not piece:
            self._is_broken = True
        return piece
