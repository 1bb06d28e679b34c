"""Files that are there as a whole or not at all, and how far their making is."""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from telemetry.errors import TelemetryError

Advance = Callable[[int, int], None]
"""Tell that so much more is done, of how much in all."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside the one to be made, which takes its place once all is written, and goes if it is not."""
    # As root another file would take even the place of /dev/null.
    if path.exists() and not path.is_file():
        raise TelemetryError(f"{path} is no file, so it stays: give another")
    # Ends as Ctrl-C does: by an exception, so that the temporary file goes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise TelemetryError(f"{path}: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _keep(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _keep(temporary: Path, path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def progress(what: str, *, beside_output: bool = False) -> Iterator[Advance]:
    """A bar on standard error, on a terminal; none where the output itself goes there."""
    # A dumb one can take nothing back.
    is_crossed = beside_output and sys.stdout.isatty()
    if is_crossed or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415  # for a terminal only
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    out = Console(stderr=True)
    with Progress(*columns, console=out, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
