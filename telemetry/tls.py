"""TLS of a connection: whom it trusts, who it is, and what its errors mean to a person."""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from telemetry.errors import UsageError

_BEGIN = "-----BEGIN "

_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER = {18, 19, 20, 21}
_OTHER_NAME = {62, 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """PEM texts, or the names of files with them: an authority (empty: those of the system), a client's certificate."""

    ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)

    @property
    def is_set(self) -> bool:
        """Whether anything differs from what the system trusts."""
        return bool(self.ca or self.cert or self.key)

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, the broker's name verified; UsageError when a text is not what it should be."""
        try:
            context = ssl.create_default_context(cadata=_text(self.ca, "tls.ca") or None)
        except ssl.SSLError:
            raise UsageError("tls.ca: not a certificate in PEM; get a new bundle") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert or self.key:
            pair = _text(self.cert, "tls.cert") + "\n" + _text(self.key, "tls.key")
            _load_pair(context, pair, "tls.cert, tls.key", "; get a new bundle")
        return context


def server_context(cert: str, key: str, settings: str) -> ssl.SSLContext:
    """TLS 1.2 or newer of a server, from PEM texts or files; `settings` names the two where they are wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_pair(context, _text(cert, settings) + "\n" + _text(key, settings), settings)
    return context


def _text(value: str, setting: str) -> str:
    if not value or _BEGIN in value:
        return value
    try:
        return Path(value).read_text()
    except (OSError, ValueError) as error:
        # A text that is neither PEM nor the name of a file is not shown: it may be part of a key.
        reason = error.strerror if isinstance(error, OSError) else "not a file"
        raise UsageError(f"{setting}: neither PEM nor a file that can be read: {reason}") from None


def _load_pair(context: ssl.SSLContext, pem: str, settings: str, advice: str = "") -> None:
    """OpenSSL takes a key from a file only: one that has no name, and is in memory."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        # An empty passphrase instead of a question on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, OSError, ValueError):
        text = f"{settings}: not a certificate in PEM and its private key without a passphrase{advice}"
        raise UsageError(text) from None
    finally:
        os.close(descriptor)


def explain(error: ssl.SSLError) -> str:
    """What went wrong in a handshake, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error.verify_code, error.verify_message)
    reason = error.reason or ""
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return "no TLS there: is it the port of mqtts://?"
    if "PROTOCOL" in reason:
        return "it speaks no TLS 1.2 or newer: upgrade the broker"
    if "ALERT" in reason:
        return explain_alert(reason)
    return f"TLS: {reason.replace('_', ' ').lower() or 'the handshake was broken off'}"


def explain_alert(text: str) -> str:
    """What a broker means that breaks TLS off."""
    said = text.upper().replace(" ", "_")
    if "CERTIFICATE_EXPIRED" in said:
        return "this client's certificate has expired: get a new bundle (`telemetry rotate` on the broker's machine)"
    if "CERTIFICATE_REVOKED" in said:
        return "this client's certificate was revoked: get a new bundle (`telemetry enroll` on the broker's machine)"
    if "CERTIFICATE_REQUIRED" in said or "HANDSHAKE_FAILURE" in said:
        return "the broker wants a client's certificate: set tls.cert and tls.key, or get a new bundle"
    if "UNKNOWN_CA" in said or "BAD_CERTIFICATE" in said:
        return "the broker does not know who signed this client's certificate: get a new bundle"
    return f"the broker broke TLS off: {said.replace('_', ' ').lower()}"


def _explain_certificate(code: int, message: str) -> str:
    if code == _EXPIRED:
        return "the broker's certificate has expired: `telemetry broker renew` on its machine; or this clock is wrong"
    if code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet: set this machine's clock"
    if code in _UNKNOWN_ISSUER:
        return "the broker's certificate is signed by another authority than tls.ca: is it that broker? get its bundle"
    if code in _OTHER_NAME:
        return "the broker's certificate is for another name than the URL's: use the name given to `broker init`"
    return f"the broker's certificate was refused: {message}"
