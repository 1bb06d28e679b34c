"""How this machine's aggregator and commands connect to the broker beside them, once it wants credentials."""

import fcntl
import os
from dataclasses import replace
from pathlib import Path

from telemetry.access import OPERATOR_PLACES, Role, User
from telemetry.errors import TelemetryError
from telemetry.mqtt import BrokerUrl
from telemetry.security.registry import Registry


def aggregator(url: BrokerUrl, data: Path, name: str) -> BrokerUrl:
    """The broker, as the aggregator of this machine."""
    registry = Registry(data)
    if not registry.exists:
        return url
    user = str(User(Role.AGGREGATOR, name))
    password = registry.local_passwords().get(user)
    if password is None:
        text = f"{data}: no credentials for aggregator {name}: `telemetry enroll --aggregator {name}`, and --bundle"
        raise TelemetryError(text)
    return replace(url, username=user, password=password)


def operator(url: BrokerUrl, data: Path) -> BrokerUrl:
    """The broker, as an operator of this machine: one that no other command is, until this process ends."""
    registry = Registry(data)
    if not registry.exists:
        return url
    passwords = registry.local_passwords()
    for number in range(OPERATOR_PLACES):
        user = str(User(Role.OPERATOR, str(number + 1)))
        if _takes(registry.directory / f"{user}.lock"):
            return replace(url, username=user, password=passwords[user])
    raise TelemetryError(f"{data}: {OPERATOR_PLACES} commands are connected to its broker; end one of them first")


def _takes(path: Path) -> bool:
    """Whether the lock is ours now; the descriptor that holds it stays open with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
