"""A server and its client on either end of a cable of their own, whose every IP byte is counted.

Two namespaces joined by a veth pair, without IPv6, ARP or segments above the MTU: what crosses the cable is what the
two say to each other. Needs root and `ip`; without them a `Network` is this machine's loopback, and nothing is counted.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DEVICE = "eth0"  # the agent takes an interface named veth for a container's
_SERVER, _CLIENT = "10.99.0.1", "10.99.0.2"
_SERVER_MAC, _CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_ETHERNET_HEADER = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Two ends: the words before a command that runs there, and the address on which a server is reached."""

    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    server_address: str = "127.0.0.1"
    client_address: str = "127.0.0.1"
    is_counted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What has crossed the cable, in both directions; `size` in bytes from the IP header on."""

    size: int
    packets: int


def obstacle() -> str:
    """Why no cable can be laid here; empty when one can."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no `ip`: apt-get install iproute2"
    try:
        with cable("trial"):
            return ""
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"


@contextlib.contextmanager
def cable(name: str) -> Iterator[Network]:
    """A new cable, removed at the end together with its namespaces."""
    server, client = (f"bench-{os.getpid()}-{name}-{end}" for end in ("server", "client"))
    try:
        _add(server, client)
        yield Network(
            server=("ip", "netns", "exec", server),
            client=("ip", "netns", "exec", client),
            server_address=_SERVER,
            client_address=_CLIENT,
            is_counted=True,
        )
    finally:
        for namespace in (client, server):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def traffic_of(process_id: int) -> Traffic:
    """What has crossed the cable whose end a process is at."""
    lines = Path(f"/proc/{process_id}/net/dev").read_text().splitlines()
    columns = next(line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{_DEVICE}:"))
    packets = int(columns[1]) + int(columns[9])
    return Traffic(size=int(columns[0]) + int(columns[8]) - _ETHERNET_HEADER * packets, packets=packets)


def _add(server: str, client: str) -> None:
    for namespace in (server, client):
        _ip("netns", "add", namespace)
    peer = ("peer", "name", _DEVICE, "address", _CLIENT_MAC, "netns", client)
    _ip("-n", server, "link", "add", _DEVICE, "address", _SERVER_MAC, "type", "veth", *peer)
    _set_up(server, address=_SERVER, other=_CLIENT, other_mac=_CLIENT_MAC)
    _set_up(client, address=_CLIENT, other=_SERVER, other_mac=_SERVER_MAC)


def _set_up(namespace: str, *, address: str, other: str, other_mac: str) -> None:
    without_ipv6 = ["ip", "-n", namespace, "link", "set", _DEVICE, "addrgenmode", "none"]
    subprocess.run(without_ipv6, capture_output=True, check=False)  # refused where the kernel has no IPv6 at all
    _ip("-n", namespace, "link", "set", _DEVICE, "mtu", "1500", "gso_max_segs", "1", "up")
    _ip("-n", namespace, "link", "set", "lo", "up")
    _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", _DEVICE)
    _ip("-n", namespace, "neigh", "replace", other, "lladdr", other_mac, "dev", _DEVICE, "nud", "permanent")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
