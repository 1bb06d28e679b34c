"""Where a broker is, as a URL."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from telemetry.errors import UsageError
from telemetry.tls import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """Where a broker is, `mqtt://` or `mqtts://user:password@host:port`. Its text never shows the password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    trust: Trust = field(default_factory=Trust)

    @classmethod
    def parse(cls, text: str) -> "BrokerUrl":
        """Read a URL, or raise UsageError."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
            parts = urlsplit("")
        if parts.scheme not in {"mqtt", "mqtts"} or not host:
            raise UsageError("broker URL: expected mqtt://HOST[:PORT] or mqtts://USER:PASSWORD@HOST[:PORT]")
        tls = parts.scheme == "mqtts"
        return cls(
            host=host,
            port=port or (8883 if tls else 1883),
            tls=tls,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def advice(self, code: int) -> str:
        """What to do about a CONNACK of this code, by MQTT 5's numbers."""
        if code not in {0x86, 0x87}:
            return ""
        if self.username is None:
            return ": the broker wants a user name and password: give --bundle"
        return ": its password is wrong, was renewed or revoked: get a new bundle (`telemetry rotate` or `enroll`)"

    @property
    def turned_away(self) -> str:
        """What it means that the broker ends a connection without a word, before it is one."""
        no_tls = "; or is it not the port of mqtts://?" if self.tls else ""
        return f"closed before it said a word: it may have as many connections as it takes (broker.connections){no_tls}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"
