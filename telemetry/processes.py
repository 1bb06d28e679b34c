"""Processes that end with the one that started them, what a process uses, and ports that are free."""

import ctypes
import errno
import gc
import os
import signal
import socket
import sys
from pathlib import Path

from telemetry.errors import UsageError

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_libc = ctypes.CDLL(None, use_errno=True)


END_WITH_PARENT = "--end-with-parent"
"""The first option of `telemetry`, with the parent's pid: end when that process does, however it ends."""


def end_with_parent(parent: int) -> None:
    """Let the kernel send this process SIGTERM when its parent ends; end now when that has happened already."""
    _set_death_signal()
    if os.getppid() != parent:
        sys.exit(0)


def _set_death_signal() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _has_death_signal() -> bool:
    held = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(held))
    return held.value != 0


def become(user_id: int, group_id: int) -> None:
    """Give up root for good. The kernel forgets the parent's death signal with it; that is set again."""
    bound = _has_death_signal()
    os.setgroups([])
    os.setgid(group_id)
    os.setuid(user_id)
    if bound:
        _set_death_signal()


def keep_memory_small() -> None:
    """Have the C library give back what is freed: an agent holds large answers for a moment, and nothing for long.

    By itself glibc keeps an arena a thread, and after the first large block takes larger ones from them too. Elsewhere
    than on glibc this does nothing.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def give_memory_back() -> None:
    """Give back what start-up has left over."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def usage(process: int | str = "self") -> dict[str, float]:
    """The metrics `cpuSeconds` and `rssBytes` of a process, by its pid; nothing where the kernel does not tell."""
    try:
        # The name, in parentheses, may hold anything; behind it stand fields 3 and on of proc(5).
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return {}
    ticks = int(fields[11]) + int(fields[12])
    return {
        "cpuSeconds": ticks / os.sysconf("SC_CLK_TCK"),
        "rssBytes": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    }


def is_loopback(host: str) -> bool:
    """Whether a host, or an address, is this machine's own."""
    import ipaddress  # noqa: PLC0415  # memory: an agent does without

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_free(port: int) -> bool:
    """Whether a server can listen on the loopback port."""
    return _refusal(port) is None


def require_free(port: int, address: str = "127.0.0.1", option: str = "--port") -> None:
    """Raise UsageError when no server can listen on the port that the option named."""
    if not 0 < port < 65536:
        raise UsageError(f"port {port}: expected 1 to 65535")
    refusal = _refusal(port, address)
    if refusal is not None:
        reason = " is in use" if refusal.errno == errno.EADDRINUSE else f": {refusal.strerror}"
        raise UsageError(f"port {port}{reason}: give another {option}")


def _refusal(port: int, address: str = "127.0.0.1") -> OSError | None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error
    return None


def free_port(preferred: int) -> int:
    """The port, or the next free one above it, or any."""
    for port in range(preferred, min(preferred + 50, 65536)):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def answers(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
