"""The connection to the broker."""

from telemetry.mqtt.connection import (
    PROTOCOLS,
    Connected,
    Connection,
    Disconnected,
    Event,
    Messages,
    Will,
    retry_delay,
)
from telemetry.mqtt.packets import Message
from telemetry.mqtt.url import BrokerUrl

__all__ = [
    "PROTOCOLS",
    "BrokerUrl",
    "Connected",
    "Connection",
    "Disconnected",
    "Event",
    "Message",
    "Messages",
    "Will",
    "retry_delay",
]
