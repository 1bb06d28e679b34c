"""How full the filesystems are: one entry for each that holds data, however often it is mounted.

A network filesystem whose server is gone blocks its reader in the kernel for ever, so each such mount is asked in a
thread of its own and left out until it answers; local ones are asked directly, which costs least.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

from telemetry.errors import SourceError
from telemetry.fields import Value
from telemetry.sources import Reading

StatVfs: TypeAlias = Callable[[str], os.statvfs_result]

_LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs zfs bcachefs f2fs nilfs2 jfs reiserfs vfat exfat ntfs ntfs3 hfsplus".split()  # noqa: SIM905
)
_NETWORK = frozenset(
    "nfs nfs4 cifs smb3 ceph glusterfs lustre beegfs gpfs afs orangefs pvfs2 ocfs2 gfs2 9p virtiofs".split()  # noqa: SIM905
)
_FUSE = re.compile(r"fuseblk|fuse\.(?!gvfsd-fuse|portal|lxcfs|snapfuse|squashfuse|fuse-overlayfs)|fuse$")
_CONTAINER_ROOT = frozenset(("overlay", "aufs", "fuse.fuse-overlayfs"))
_INTEGER_LIMIT = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo. `number` is the filesystem's, `root` the directory of it that is mounted."""

    id: int
    number: str
    root: str
    point: str
    filesystem: str
    device: str

    @property
    def may_hang(self) -> bool:
        """Whether somebody outside the kernel answers for it."""
        return self.filesystem in _NETWORK or _FUSE.match(self.filesystem) is not None

    @property
    def holds_data(self) -> bool:
        """Whether it is storage, and not a view of the kernel, an image or the layers of a container."""
        in_container = self.point == "/" and self.filesystem in _CONTAINER_ROOT
        return self.filesystem in _LOCAL or self.may_hang or in_container


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes of a filesystem. `available` is what is free less what is reserved for root."""

    total: int
    used: int
    available: int


_Answer: TypeAlias = Space | OSError


class Disks:
    """The space of every filesystem that holds data; one that does not answer costs the others nothing."""

    name = "disks"
    fields = ("useDisk", "diskUsedPercent")
    host_fields = ()

    def __init__(
        self,
        *,
        mountinfo: Path = Path("/proc/self/mountinfo"),
        statvfs: StatVfs = os.statvfs,
        is_directory: Callable[[str], bool] = os.path.isdir,
        deadline_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mountinfo = mountinfo
        self._statvfs = statvfs
        self._is_directory = is_directory
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._filesystems = lru_cache(maxsize=1)(filesystems)  # mounts change seldom, parsing costs most
        self._askers: dict[Mount, _Asker] = {}

    def sample(self) -> Reading:
        """Read every filesystem once. Raises SourceError when the list of mounts cannot be read."""
        mounts = self._mounts()
        answers = {mount: _ask(self._statvfs, mount) for mount in mounts if not mount.may_hang}
        answers |= self._ask_those_that_may_hang([mount for mount in mounts if mount.may_hang])
        spaces = {mount: answer for mount, answer in answers.items() if isinstance(answer, Space)}
        silent = f"no answer for {self._deadline_seconds:g} s"
        failed = {mount: _reason(answers.get(mount), silent) for mount in mounts if mount not in spaces}
        return reading(spaces, {mount: reason for mount, reason in failed.items() if reason})

    def _mounts(self) -> list[Mount]:
        try:
            text = self._mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise SourceError(f"{self._mountinfo}: {error.strerror}") from error
        found = (self._shown(mounts) for mounts in self._filesystems(text))
        return [mount for mount in found if mount is not None]

    def _shown(self, mounts: Iterable[Mount]) -> Mount | None:
        # Containers have single files such as /etc/hosts mounted from the disk of their host.
        directories = (
            mount for mount in mounts if mount.root == "/" or mount.may_hang or self._is_directory(mount.point)
        )
        return next(directories, None)

    def _ask_those_that_may_hang(self, mounts: Collection[Mount]) -> dict[Mount, _Answer]:
        """The answers that came in time. A mount that still owes an answer is not asked, nor waited for, again."""
        for gone in self._askers.keys() - set(mounts):
            self._askers.pop(gone).end()
        for new in set(mounts) - self._askers.keys():
            self._askers[new] = _Asker(self._statvfs, new)
        asked = {mount: self._askers[mount] for mount in mounts if self._askers[mount].ask()}
        until = self._clock() + self._deadline_seconds
        answers = {mount: asker.answer(max(0.0, until - self._clock())) for mount, asker in asked.items()}
        return {mount: answer for mount, answer in answers.items() if answer is not None}


class _Asker:
    """A thread that asks one mount whenever it is told to: to start one for each question costs seven times more."""

    def __init__(self, statvfs: StatVfs, mount: Mount) -> None:
        self._questions: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        self._owes_answer = False
        arguments = (statvfs, mount, self._questions, self._answers)
        threading.Thread(target=_answer_questions, args=arguments, name=f"statvfs {mount.id}", daemon=True).start()

    def ask(self) -> bool:
        """Ask, unless the last question hangs. An answer that came too late is dropped: the next one is newer."""
        if self._owes_answer and self.answer(0.0) is None:
            return False
        self._questions.put(True)
        self._owes_answer = True
        return True

    def answer(self, seconds: float) -> _Answer | None:
        """The answer, or None when there is none after `seconds`."""
        try:
            answer = self._answers.get(timeout=seconds)
        except Empty:
            return None
        self._owes_answer = False
        return answer

    def end(self) -> None:
        """End the thread, as soon as it does not hang."""
        self._questions.put(False)


def _answer_questions(
    statvfs: StatVfs, mount: Mount, questions: SimpleQueue[bool], answers: SimpleQueue[_Answer]
) -> None:
    while questions.get():
        answers.put(_ask(statvfs, mount))


def filesystems(mountinfo: str) -> list[list[Mount]]:
    """The mounts that hold data, by filesystem, the shortest mount point of each first.

    All mounts of a filesystem have the same space: bind mounts, and subvolumes of btrfs too.
    """
    visible = {mount.point: mount for mount in map(_mount, mountinfo.split("\n")) if mount is not None}
    found: dict[str, list[Mount]] = {}
    for mount in sorted(visible.values(), key=lambda mount: (len(mount.point), mount.point)):
        if mount.holds_data:
            found.setdefault(mount.number, []).append(mount)
    return list(found.values())


def space(found: os.statvfs_result) -> Space:
    """The space as df counts it."""
    return Space(
        total=found.f_blocks * found.f_frsize,
        used=max(0, found.f_blocks - found.f_bfree) * found.f_frsize,
        available=found.f_bavail * found.f_frsize,
    )


def reading(spaces: Mapping[Mount, Space], failed: Mapping[Mount, str]) -> Reading:
    """The reading of the mounts that gave their space, with one line for those that did not."""
    # Some filesystems in user space have no size, or one that they made up.
    sized = {mount: space for mount, space in spaces.items() if 0 < space.total < _INTEGER_LIMIT}
    entries = [_entry(mount, space) for mount, space in sorted(sized.items(), key=lambda item: item[0].point)]
    percents = [100 * s.used / (s.used + s.available) for s in sized.values() if s.used + s.available]
    values: dict[str, Value] = {"useDisk": entries}
    if percents:
        values["diskUsedPercent"] = round(max(percents), 1)
    lines = sorted(f"{_printable(mount.point)}: {reason}" for mount, reason in failed.items())
    return Reading(values=values, problems={"useDisk": "; ".join(lines)} if lines else {})


def _mount(line: str) -> Mount | None:
    left, _, right = line.partition(" - ")
    before, after = left.split(" "), right.split(" ")
    if len(before) < 6 or len(after) < 2:
        return None
    return Mount(
        id=int(before[0]),
        number=before[2],
        root=_unescaped(before[3]),
        point=_unescaped(before[4]),
        filesystem=after[0],
        device=_unescaped(after[1]),
    )


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _printable(text: str) -> str:
    """The text with what is not UTF-8 replaced: a mount point is bytes, a message is not."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _entry(mount: Mount, space: Space) -> dict[str, Value]:
    return {
        "mount": _printable(mount.point),
        "device": _printable(mount.device),
        "filesystem": mount.filesystem,
        "total": space.total,
        "used": space.used,
    }


def _ask(statvfs: StatVfs, mount: Mount) -> _Answer:
    try:
        return space(statvfs(mount.point))
    except OSError as error:
        return error


def _reason(answer: _Answer | None, silent: str) -> str:
    """Why there is no space; empty for a mount that went away after the list was read."""
    if isinstance(answer, OSError):
        return "" if isinstance(answer, FileNotFoundError) else answer.strerror or str(answer)
    return silent
