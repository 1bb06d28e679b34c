"""What `broker init` makes, and what it is given instead by those who have a PKI."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from telemetry.errors import UsageError
from telemetry.security.certificates import Authority, Identity, expiry, new_authority, require_pair
from telemetry.security.registry import Registry, Served


@dataclass(frozen=True, slots=True)
class Made:
    """A broker's certificate, whom its clients trust for it (empty: whom their system trusts), and who signed it."""

    server: Identity
    trusted: str
    authority: Identity | None

    def described(self, served: Served) -> Served:
        """What is served, with when the certificates end, and whether there is an authority of its own."""
        return replace(
            served,
            server_expires=expiry(self.server.certificate, "--cert"),
            authority_expires=expiry(self.trusted, "--ca") if self.trusted else 0,
            has_authority=self.authority is not None,
        )


def new_identity(served: Served) -> Made:
    """A new authority, and a certificate by it."""
    authority = new_authority(served.names[0])
    return Made(Authority(authority).server(served.names), authority.certificate, authority)


def renewed_identity(registry: Registry, served: Served) -> Made:
    """Another certificate by the same authority."""
    authority = load_authority(registry)
    return Made(Authority(authority).server(served.names), authority.certificate, authority)


def web_identity(registry: Registry, names: Sequence[str]) -> Identity:
    """A certificate of the same authority for the page, reached by these names, or by the broker's."""
    return Authority(load_authority(registry)).server(names or registry.served().names)


def load_authority(registry: Registry) -> Identity:
    """The private authority of a data directory."""
    return Identity(registry.read("ca.crt"), registry.read("ca.key"))


def own_identity(*, cert: str | None, key: str | None, ca: str | None) -> Made:
    """The certificate that a user brings, in files."""
    if not cert or not key:
        raise UsageError("--cert, --key: expected both")
    server = Identity(_read(cert, "--cert"), _read(key, "--key"))
    require_pair(server.certificate, server.key)
    return Made(server, _read(ca, "--ca") if ca else "", None)


def _read(file: str, option: str) -> str:
    try:
        return Path(file).read_text()
    except OSError as error:
        raise UsageError(f"{option} {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} {file}: not a file in PEM") from None
