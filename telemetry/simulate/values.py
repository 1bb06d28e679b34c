"""How Go writes values: times, content ids and bitfields."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b

ZERO_UUID = "00000000-0000-0000-0000-000000000000"
FIL = 10**18


def go_time(moment: float, zone_hours: int) -> str:
    """A moment as RFC 3339 with as many digits of the second as it needs, in a zone."""
    zone = timezone(timedelta(hours=zone_hours)) if zone_hours else UTC
    whole, part = divmod(round(moment * 1_000_000), 1_000_000)
    # A clock of nanoseconds: digits beyond the microsecond, which many a reader cannot take.
    digits = f"{part:06}{part % 997:03}".rstrip("0")
    text = datetime.fromtimestamp(whole, zone).strftime("%Y-%m-%dT%H:%M:%S")
    offset = f"+{zone_hours:02}:00" if zone_hours > 0 else f"-{-zone_hours:02}:00" if zone_hours else "Z"
    return f"{text}.{digits}{offset}" if part else f"{text}{offset}"


def cid(*what: object) -> Mapping[str, str]:
    """The content id of something."""
    digest = blake2b(repr(what).encode(), digest_size=32).digest()
    return {"/": "bafy2bzace" + base64.b32encode(digest).decode().lower().rstrip("=")}


def base64_bytes(length: int, *what: object) -> str:
    """Some bytes of something."""
    digest = blake2b(repr(what).encode(), digest_size=64).digest()
    return base64.b64encode((digest * (length // 64 + 1))[:length]).decode()


def bitfield(numbers: Iterable[int]) -> list[int]:
    """Runs of numbers not in and in the set, by turns; the first run is of those not in it."""
    runs, end = [0], 0
    for number in sorted(numbers):
        if number == end and len(runs) > 1:
            runs[-1] += 1
        elif number == 0:
            runs.append(1)
        else:
            runs[-1:] = [number, 1] if len(runs) == 1 else [runs[-1], number - end, 1]
        end = number + 1
    return runs


def bits(runs: Sequence[int]) -> Iterator[int]:
    """The numbers of a bitfield."""
    position = 0
    for index, length in enumerate(runs):
        if index % 2:
            yield from range(position, position + length)
        position += length


def go_number(value: float) -> int | float:
    """A float as Go writes it: without a fraction that is zero."""
    return int(value) if value == int(value) else value
