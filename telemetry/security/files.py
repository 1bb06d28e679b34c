"""Files with secrets in them: for one user only, and whole or not there."""

import contextlib
import os
import secrets
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_private(path: Path, text: str, *, owner: os.stat_result | None = None) -> None:
    """Put a file, 0600, in the place of what is there; `owner` is whom it shall belong to, as root may say."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(beside, text, owner)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def create_private(path: Path, text: str) -> None:
    """Write a file, 0600, where there is none; FileExistsError where there is one."""
    _write_new(path, text, None)


def _write_new(path: Path, text: str, owner: os.stat_result | None) -> None:
    with os.fdopen(os.open(path, _FLAGS, 0o600), "w") as file:
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
