"""Every card is read by itself: what one card, or one call, does not give costs the others nothing."""

import ctypes
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias

from telemetry.errors import SourceError
from telemetry.fields import Value
from telemetry.sources import Reading

_LIBRARY = "libnvidia-ml.so.1"
_RETRY_SECONDS = 600.0

_Members: TypeAlias = dict[str, Value]
_Call: TypeAlias = Callable[[ModuleType, Any], _Members]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """A card that NVML has opened: its handle, and the members that stay as they are while it is open."""

    handle: Any
    fixed: _Members


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cards:
    """One reading of all cards: those that answered, and one line for each that is lost and each call that failed."""

    answered: list[_Members] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Gpu:
    """The NVIDIA cards of the host. A host without NVIDIA's driver has none, and that is no fault."""

    name = "gpu"
    fields = ("gpuInfo", "gpuTemper", "gpuLoad", "gpuMemory")
    host_fields = ()

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._installed = False
        self._probe_at = -math.inf
        self._renew_at = -math.inf
        self._session: _Session | None = None

    def sample(self) -> Reading:
        """Read all cards once. Raises SourceError when NVML gives none of those that it counts."""
        if not self._is_installed():
            return Reading(values={})
        import pynvml  # noqa: PLC0415  # 5 MB that a host without cards need not hold

        try:
            return _reading(self._read(pynvml))
        except pynvml.NVMLError as error:
            self._close()
            raise SourceError(f"NVML: {error}") from error

    def _is_installed(self) -> bool:
        if not self._installed and self._clock() >= self._probe_at:
            self._installed = _can_load(_LIBRARY)
            self._probe_at = self._clock() + _RETRY_SECONDS
        return self._installed

    def _read(self, nvml: ModuleType) -> _Cards:
        if self._session is None:
            self._session = _Session(nvml)
        cards = self._session.read()
        if cards.lost and not cards.answered:
            self._close()
            raise SourceError("; ".join(cards.lost))
        if cards.lost and self._clock() >= self._renew_at:
            # A new session may bring the card back, but a card that stays dead until the host is booted
            # must not make NVML open all the others anew in every sample.
            self._close()
            self._renew_at = self._clock() + _RETRY_SECONDS
        return cards

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None


class _Session:
    """NVML from its initialisation to its shutdown; no handle outlives it."""

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        self._opened: dict[int, _Card] = {}
        # Codes after which no call of this session can succeed, and those that are one card's end.
        self._driver_gone = {
            nvml.NVML_ERROR_UNINITIALIZED,
            nvml.NVML_ERROR_DRIVER_NOT_LOADED,
            nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        }
        self._card_gone = {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}
        nvml.nvmlInit()

    def close(self) -> None:
        """Shut NVML down, as far as it still answers."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def read(self) -> _Cards:
        """Read each card. Raises NVMLError when the driver itself is gone."""
        cards = _Cards()
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                cards.answered.append(self._read_card(index, cards.failed))
            except self._nvml.NVMLError as error:
                if error.value in self._driver_gone:
                    raise
                self._opened.pop(index, None)
                cards.lost.append(f"GPU {index}: {error}")
        return cards

    def _read_card(self, index: int, failed: list[str]) -> _Members:
        failures: list[str] = []
        card = self._opened.get(index)
        if card is None:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            card = _Card(handle=handle, fixed=self._members(_FIXED, handle, failures))
            if not failures:
                self._opened[index] = card
        members = {"index": index} | card.fixed | self._members(_CHANGING, card.handle, failures)
        failed.extend(f"GPU {index}: {failure}" for failure in failures)
        return members

    def _members(self, calls: Mapping[str, _Call], handle: object, failures: list[str]) -> _Members:
        members: _Members = {}
        for name, call in calls.items():
            try:
                members |= call(self._nvml, handle)
            except self._nvml.NVMLError as error:
                if error.value in self._driver_gone | self._card_gone:
                    raise
                if error.value != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                    failures.append(f"{name}: {error}")
        return members


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _name(nvml: ModuleType, handle: object) -> _Members:
    return {"name": _text(nvml.nvmlDeviceGetName(handle))}


def _uuid(nvml: ModuleType, handle: object) -> _Members:
    return {"uuid": _text(nvml.nvmlDeviceGetUUID(handle))}


def _temper(nvml: ModuleType, handle: object) -> _Members:
    return {"temper": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)}


def _load(nvml: ModuleType, handle: object) -> _Members:
    return {"load": nvml.nvmlDeviceGetUtilizationRates(handle).gpu}


def _memory(nvml: ModuleType, handle: object) -> _Members:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {"useMemory": memory.used, "totalMemory": memory.total}


def _power(nvml: ModuleType, handle: object) -> _Members:
    return {"power": round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1)}


def _text(value: str | bytes) -> str:
    """The text of a name, which older releases of nvidia-ml-py give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


_FIXED: Mapping[str, _Call] = {"name": _name, "uuid": _uuid}
_CHANGING: Mapping[str, _Call] = {"temper": _temper, "load": _load, "memory": _memory, "power": _power}


def _mean(numbers: Sequence[int]) -> float:
    return round(sum(numbers) / len(numbers), 1)


# A flat field, the member that it is made of, and how.
_FLAT: Sequence[tuple[str, str, Callable[[list[Any]], Value]]] = (
    ("gpuTemper", "temper", max),
    ("gpuLoad", "load", _mean),
    ("gpuMemory", "useMemory", sum),
)


def _reading(cards: _Cards) -> Reading:
    values: _Members = {"gpuInfo": cards.answered}
    problems = {"gpuInfo": "; ".join(cards.lost + cards.failed)} if cards.lost or cards.failed else {}
    for name, member, combine in _FLAT:
        readings = [card[member] for card in cards.answered if member in card]
        if readings:
            values[name] = combine(readings)
        elif cards.answered:
            problems[name] = f"no card gives its {member}"
    return Reading(values=values, problems=problems)
