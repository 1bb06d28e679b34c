"""X.509: a private authority and what it signs. The only file that imports cryptography."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from telemetry.errors import UsageError

AUTHORITY_DAYS, CERTIFICATE_DAYS = 3650, 730

_SKEW = timedelta(days=1)
"""A certificate is valid from a day ago: a host's clock may be behind."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


def new_authority(name: str) -> Identity:
    """A private authority, for one broker and its clients."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"telemetry {name}")
    usage = _key_usage(signs_certificates=True)
    builder = (
        _builder(subject, key.public_key(), AUTHORITY_DAYS)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _signed(builder, key, key)


class Authority:
    """A private authority that signs."""

    def __init__(self, identity: Identity) -> None:
        self._certificate = _load_certificate(identity.certificate, "the authority's certificate")
        key = serialization.load_pem_private_key(identity.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def server(self, names: Sequence[str]) -> Identity:
        """A certificate for a broker that is reached by these names or addresses."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return self._issue(names[0], ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def client(self, user: str) -> Identity:
        """A certificate for a user of the broker, which is its common name."""
        return self._issue(user, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self, name: str, purpose: x509.ObjectIdentifier, alternatives: x509.SubjectAlternativeName | None
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._key.public_key()
        builder = (
            _builder(_subject(name), key.public_key(), CERTIFICATE_DAYS)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return _signed(builder, key, self._key)


def expiry(pem: str, what: str) -> int:
    """When a certificate ends, in Unix seconds; UsageError when the text is none."""
    return int(_load_certificate(pem, what).not_valid_after_utc.timestamp())


def require_pair(certificate: str, key: str) -> None:
    """Raise UsageError unless the key is that of the certificate, and has no passphrase."""
    try:
        loaded = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError):
        raise UsageError("--key: not a private key in PEM without a passphrase") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = _load_certificate(certificate, "--cert").public_key()
    if loaded.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise UsageError("--key: not the key of the certificate that --cert names")


def _load_certificate(pem: str, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem.encode())[0]
    except ValueError:
        raise UsageError(f"{what}: not a certificate in PEM") from None


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Identity:
    certificate = builder.sign(signer, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def _subject(name: str) -> x509.Name:
    # A common name has room for 64 characters; who a server is stands in its alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
