"""Passwords as Mosquitto keeps them: `$7$`, PBKDF2 with SHA-512."""

import hashlib
import os
import secrets
from base64 import b64encode

_ITERATIONS = 101
"""Mosquitto's own number. Our passwords are 256 bits of chance: nobody guesses them, however fast a guess is, and the
broker hashes one at each connect, thousands of them after an outage."""

_SALT_BYTES, _HASH_BYTES = 12, 64


def new_password() -> str:
    """A password that nobody guesses."""
    return secrets.token_urlsafe(32)


def hash_password(password: str, salt: bytes | None = None) -> str:
    """The hash of a password for Mosquitto's password file."""
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS, _HASH_BYTES)
    return f"$7${_ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"
