import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import SourceError
from telemetry.fields import fits
from telemetry.records import WORKER_INFO
from telemetry.sources import Reading, Source
from telemetry.sources.host import CpuTemperature, Pair, System, cpu_load, package_inputs, rates
from telemetry.sources.mounts import Disks, Mount, filesystems

_GIB = 1024**3

BARE_METAL = r"""
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
24 28 0:5 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=131893456k,nr_inodes=32973364,mode=755
26 28 0:23 / /run rw,nosuid,nodev,noexec,relatime shared:5 - tmpfs tmpfs rw,size=26388152k,mode=755
28 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/ubuntu--vg-ubuntu--lv rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw
31 23 0:27 / /proc/sys/fs/binfmt_misc rw,relatime shared:14 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0
40 28 7:0 / /snap/core20/1828 ro,nodev,relatime shared:33 - squashfs /dev/loop0 ro
41 28 259:2 / /boot rw,relatime shared:35 - ext4 /dev/nvme0n1p2 rw
42 41 259:1 / /boot/efi rw,relatime shared:37 - vfat /dev/nvme0n1p1 rw,fmask=0022
43 28 9:127 / /data/my\040cache rw,relatime shared:39 - xfs /dev/md127 rw,attr2,inode64
44 28 9:127 /sealing /srv/sealing rw,relatime shared:39 - xfs /dev/md127 rw,attr2,inode64
45 28 9:127 / /x rw,relatime shared:39 - xfs /dev/md127 rw,attr2,inode64
46 28 0:48 / /mnt/store rw,relatime shared:41 - nfs4 10.0.0.5:/export/store rw,vers=4.2,hard
47 28 0:49 / /mnt/s3 rw,relatime shared:42 - fuse.juicefs JuiceFS:store rw,user_id=0
48 26 0:50 / /run/user/1000/gvfs rw,relatime shared:43 - fuse.gvfsd-fuse gvfsd-fuse rw,user_id=1000
49 28 0:51 / /auto rw,relatime shared:44 - autofs auto.direct rw,direct
50 49 0:52 / /auto rw,relatime shared:45 - nfs 10.0.0.6:/auto rw
51 28 0:53 / /var/lib/docker/overlay2/ab/merged rw,relatime shared:46 - overlay overlay rw,lowerdir=/l
"""

BTRFS = """
28 1 0:25 /@ / rw,relatime shared:1 - btrfs /dev/nvme0n1p2 rw,subvolid=256,subvol=/@
44 28 0:25 /@home /home rw,relatime shared:31 - btrfs /dev/nvme0n1p2 rw,subvolid=257,subvol=/@home
"""

CONTAINER = """
711 585 0:68 / / rw,relatime master:226 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A,upperdir=/u
712 711 0:71 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
713 711 0:72 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
715 711 0:74 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
716 713 0:70 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
718 711 259:2 /var/lib/docker/containers/0f/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/nvme0n1p2 rw
719 711 259:2 /var/lib/docker/containers/0f/hostname /etc/hostname rw,relatime - ext4 /dev/nvme0n1p2 rw
720 711 259:2 /var/lib/docker/containers/0f/hosts /etc/hosts rw,relatime - ext4 /dev/nvme0n1p2 rw
"""

CONTAINER_WITH_VOLUME = CONTAINER + "721 711 259:2 /srv/long-data /srv/long-data rw,relatime - ext4 /dev/nvme0n1p2 rw\n"

ONE_LOCAL_TWO_NETWORK = """
28 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
46 28 0:48 / /mnt/dead rw,relatime shared:41 - nfs4 10.0.0.5:/dead rw,hard
47 28 0:49 / /mnt/live rw,relatime shared:41 - nfs4 10.0.0.6:/live rw,hard
"""


def _fits(reading: Reading) -> bool:
    declared = WORKER_INFO.by_name
    return all(fits(declared[name].type, value) for name, value in reading.values.items())


def _statvfs(*, blocks: int = 1000, free: int = 400, available: int = 350) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, available, 0, 0, 0, 0, 255))


# --- the host that the tests run on


@pytest.mark.parametrize("source", [System(), CpuTemperature(), Disks()], ids=lambda source: source.name)
def test_what_this_host_gives_has_the_declared_types(source: Source) -> None:
    for reading in (source.sample(), source.sample()):
        assert _fits(reading)
        assert {*reading.values, *reading.problems} <= {*source.fields}


def test_memory_of_this_host_is_what_free_shows() -> None:
    values = System().sample().values
    shown = subprocess.run(["free", "-b"], capture_output=True, text=True, check=True).stdout.split("\n")[1].split()
    total, available = int(shown[1]), int(shown[6])
    assert values["totalMemory"] == total
    assert values["useMemory"] == pytest.approx(total - available, abs=_GIB // 4)


def test_disks_of_this_host_have_the_totals_of_statvfs() -> None:
    entries = Disks().sample().values["useDisk"]
    assert isinstance(entries, list)
    assert entries
    for entry in entries:
        found = os.statvfs(entry["mount"])
        assert entry["total"] == found.f_blocks * found.f_frsize


# --- rates

_COUNTERS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
)
_SECONDS = st.floats(0.001, 1e6)


@given(_COUNTERS, _COUNTERS, st.one_of(_SECONDS, st.floats(-10, 0)))
def test_no_rate_is_negative_nor_more_than_the_counters_explain(
    before: Mapping[str, Pair], now: Mapping[str, Pair], seconds: float
) -> None:
    for name, pair in rates(before, now, seconds).items():
        for rate, counter in zip(pair, now[name], strict=True):
            assert 0 <= rate <= counter / seconds + 0.5


@given(
    st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 600)), min_size=1),
)
def test_rates_times_seconds_add_up_to_the_difference_of_counters_that_were_not_reset(
    start: Pair, steps: list[tuple[int, int, int]]
) -> None:
    counter, carried, rounding = start, [0.0, 0.0], 0.0
    for first, second, seconds in steps:
        later = counter[0] + first, counter[1] + second
        pair = rates({"eth0": counter}, {"eth0": later}, seconds)["eth0"]
        carried = [sum_ + rate * seconds for sum_, rate in zip(carried, pair, strict=True)]
        counter, rounding = later, rounding + seconds / 2
    assert carried == [pytest.approx(end - begin, abs=rounding) for begin, end in zip(start, counter, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 2**33), st.integers(0, 2**33)), min_size=2, max_size=20))
def test_a_counter_that_wraps_at_32_bits_has_no_rate_only_in_the_sample_of_the_wrap(readings: list[Pair]) -> None:
    wrapped = [(first % 2**32, second % 2**32) for first, second in readings]
    for before, now in pairwise(wrapped):
        went_back = now[0] < before[0] or now[1] < before[1]
        assert ("eth0" in rates({"eth0": before}, {"eth0": now}, 10)) is not went_back


# --- System with given counters

_IDLE_CPU = {"user": 0.0, "system": 0.0, "idle": 1.0}


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _sysfs(root: Path, *, disks: Iterable[str] = (), virtual: Iterable[str] = (), cards: Iterable[str] = ()) -> Path:
    (root / "block").mkdir(parents=True)
    for folder, names in (("pci0000:00", disks), ("virtual/block", virtual)):
        for name in names:
            (root / "devices" / folder / name).mkdir(parents=True)
            (root / "block" / name).symlink_to(root / "devices" / folder / name)
    for card in cards:
        (root / "class/net" / card / "device").mkdir(parents=True)
    return root


def _samples(
    sysfs: Path,
    *,
    disks: Iterable[Mapping[str, Pair]] = (),
    interfaces: Iterable[Mapping[str, Pair]] = (),
    seconds: float = 10.0,
) -> Iterator[Reading]:
    """One reading for each of the given counters, `seconds` apart."""
    clock, disk, interface = _Clock(), [*disks], [*interfaces]
    count = max(len(disk), len(interface))
    disk_bytes, interface_bytes = iter(disk or [{}] * count), iter(interface or [{}] * count)
    system = System(
        clock=clock,
        sysfs=sysfs,
        cpu_times=lambda: _IDLE_CPU,
        memory=lambda: (4 * _GIB, 3 * _GIB),
        disk_bytes=lambda: next(disk_bytes),
        interface_bytes=lambda: next(interface_bytes),
    )
    for _ in range(count):
        yield system.sample()
        clock.now += seconds


def test_the_first_sample_has_memory_but_no_rate_and_no_problem_for_it(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, disks=["vda"], cards=["eth0"])
    (first,) = _samples(sysfs, disks=[{"vda": (1, 1)}], interfaces=[{"eth0": (1, 1)}])
    assert first == Reading(values={"totalMemory": 4 * _GIB, "useMemory": _GIB})


def test_only_whole_physical_disks_are_counted(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, disks=["sda", "nvme0n1", "cciss!c0d0"], virtual=["loop0", "dm-0", "md127", "zram0"])
    names = ("sda", "sda1", "nvme0n1", "nvme0n1p1", "cciss/c0d0", "loop0", "dm-0", "md127", "zram0")
    *_, last = _samples(sysfs, disks=[dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (1000, 2000))])
    assert (last.values["diskR"], last.values["diskW"]) == (300, 600)


def test_traffic_is_listed_by_name_for_hardware_only_and_summed(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, cards=["eth1", "eth0"])
    names = ("lo", "eth1", "eth0", "docker0", "veth12", "bond0", "bond0.5")
    *_, last = _samples(sysfs, interfaces=[dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (1000, 50))])
    assert last.values["netIO"] == [
        {"interface": "eth0", "rx": 100, "tx": 5},
        {"interface": "eth1", "rx": 100, "tx": 5},
    ]
    assert (last.values["netRx"], last.values["netTx"]) == (200, 10)
    assert _fits(last)


def test_an_interface_above_a_counted_one_is_left_out(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, cards=["eth0", "enP1s1"])
    (sysfs / "class/net/eth0/lower_enP1s1").symlink_to(sysfs / "class/net/enP1s1")
    counters = [{"eth0": (0, 0), "enP1s1": (0, 0)}, {"eth0": (90, 90), "enP1s1": (80, 80)}]
    *_, last = _samples(sysfs, interfaces=counters)
    assert last.values["netIO"] == [{"interface": "enP1s1", "rx": 8, "tx": 8}]


def test_in_a_container_its_end_of_the_veth_is_shown(tmp_path: Path) -> None:
    names = ("lo", "eth0", "tunl0", "docker0", "br-1f2e")
    *_, last = _samples(tmp_path, interfaces=[dict.fromkeys(names, (0, 0)), dict.fromkeys(names, (10, 20))])
    assert last.values["netIO"] == [{"interface": "eth0", "rx": 1, "tx": 2}]


def test_a_reset_interface_is_left_out_of_one_sample_and_the_others_stay(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, cards=["eth0", "eth1"])
    counters = [
        {"eth0": (5000, 5000), "eth1": (0, 0)},
        {"eth0": (10, 10), "eth1": (100, 100)},
        {"eth0": (110, 10), "eth1": (200, 200)},
    ]
    _, reset, after = _samples(sysfs, interfaces=counters)
    assert reset.values["netIO"] == [{"interface": "eth1", "rx": 10, "tx": 10}]
    assert reset.values["netRx"] == 10
    assert after.values["netIO"] == [
        {"interface": "eth0", "rx": 10, "tx": 0},
        {"interface": "eth1", "rx": 10, "tx": 10},
    ]


def test_a_new_interface_with_old_counters_makes_no_spike(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, cards=["eth0", "eth1"])
    *_, last = _samples(sysfs, interfaces=[{"eth0": (0, 0)}, {"eth0": (10, 10), "eth1": (10**12, 10**12)}])
    assert last.values["netRx"] == 1


def test_a_replaced_disk_has_no_rate_in_one_sample(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, disks=["sda"])
    _, replaced, after = _samples(sysfs, disks=[{"sda": (10**9, 10**9)}, {"sda": (10, 0)}, {"sda": (110, 50)}])
    assert not {"diskR", "diskW"} & {*replaced.values, *replaced.problems}
    assert (after.values["diskR"], after.values["diskW"]) == (10, 5)


def test_a_rate_is_over_the_time_that_has_passed(tmp_path: Path) -> None:
    sysfs = _sysfs(tmp_path, disks=["sda"])
    *_, last = _samples(sysfs, disks=[{"sda": (0, 0)}, {"sda": (36_000, 0)}], seconds=3600)
    assert last.values["diskR"] == 10


def test_a_part_that_cannot_be_read_costs_the_others_nothing() -> None:
    def fails() -> NoReturn:
        raise NotImplementedError("no /proc/diskstats")

    reading = System(disk_bytes=fails).sample()
    assert reading.problems == {"diskR": "no /proc/diskstats", "diskW": "no /proc/diskstats"}
    assert "useMemory" in reading.values


def test_when_nothing_can_be_read_the_source_fails_with_the_reason() -> None:
    def fails() -> NoReturn:
        raise PermissionError(13, "Permission denied", "/proc")

    system = System(cpu_times=fails, memory=fails, disk_bytes=fails, interface_bytes=fails)
    with pytest.raises(SourceError, match="Permission denied"):
        system.sample()


# --- load

_NO_TIME = dict.fromkeys(
    ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"), 0.0
)


@pytest.mark.parametrize(
    ("spent", "load"),
    [
        ({"user": 30.0, "idle": 60.0, "iowait": 10.0}, 30.0),
        ({"user": 50.0, "guest": 50.0, "nice": 10.0, "guest_nice": 10.0, "idle": 40.0}, 60.0),
        ({"steal": 25.0, "idle": 75.0}, 25.0),
        ({"irq": 1.0, "softirq": 1.0, "system": 1.0, "idle": 6.0}, 33.3),
        ({"idle": 10.0}, 0.0),
        ({}, None),
        ({"user": 10.0, "iowait": -1.0}, None),
        ({"steal": -1000.0, "idle": 10.0}, None),
    ],
)
def test_load_is_the_share_of_time_that_is_not_idle(spent: Mapping[str, float], load: float | None) -> None:
    before = dict.fromkeys(_NO_TIME, 2000.0)
    assert cpu_load(before, {name: 2000.0 + spent.get(name, 0.0) for name in _NO_TIME}) == load


@given(
    st.fixed_dictionaries({name: st.floats(0, 1e9) for name in _NO_TIME}),
    st.fixed_dictionaries({name: st.floats(0, 1e9) for name in _NO_TIME}),
)
def test_load_is_never_outside_of_0_to_100(before: Mapping[str, float], now: Mapping[str, float]) -> None:
    load = cpu_load(before, now)
    assert load is None or 0 <= load <= 100


def test_load_comes_with_the_second_sample() -> None:
    readings = iter([_IDLE_CPU, {"user": 1.0, "system": 0.0, "idle": 4.0}])
    system = System(cpu_times=lambda: next(readings))
    assert "cpuLoad" not in system.sample().values
    assert system.sample().values["cpuLoad"] == 25.0


# --- temperature


def _chip(sysfs: Path, number: int, chip: str, inputs: Mapping[str, int | str]) -> Path:
    """A hwmon chip with the given inputs by label; a label "" is not written."""
    path = sysfs / "devices" / f"{chip}.{number}" / f"hwmon{number}"
    path.mkdir(parents=True)
    (path / "name").write_text(f"{chip}\n")
    for position, (label, value) in enumerate(inputs.items(), start=1):
        (path / f"temp{position}_input").write_text(f"{value}\n")
        if label:
            (path / f"temp{position}_label").write_text(f"{label}\n")
    (sysfs / "class/hwmon").mkdir(parents=True, exist_ok=True)
    (sysfs / "class/hwmon" / f"hwmon{number}").symlink_to(path)
    return path


def _intel(sysfs: Path) -> None:
    _chip(sysfs, 0, "acpitz", {"": 99000})
    _chip(sysfs, 1, "nvme", {"Composite": 98000})
    _chip(sysfs, 2, "coretemp", {"Package id 0": 51000, "Core 0": 97000})
    _chip(sysfs, 3, "coretemp", {"Package id 1": 56250, "Core 0": 40000})
    _chip(sysfs, 4, "pch_lewisburg", {"": 96000})


def _amd(sysfs: Path) -> None:
    _chip(sysfs, 0, "k10temp", {"Tctl": 95000, "Tdie": 68040, "Tccd1": 99000})
    _chip(sysfs, 1, "mlx5", {"asic": 99000})


def _amd_without_tdie(sysfs: Path) -> None:
    _chip(sysfs, 0, "k10temp", {"Tctl": 61500, "Tccd1": 99000})


def _old_amd(sysfs: Path) -> None:
    _chip(sysfs, 0, "k10temp", {"": 44000})


def _arm(sysfs: Path) -> None:
    _chip(sysfs, 0, "soc_thermal", {"": 70000})
    _chip(sysfs, 1, "cpu_thermal", {"": 48312})


@pytest.mark.parametrize(
    ("build", "celsius"), [(_intel, 56.2), (_amd, 68.0), (_amd_without_tdie, 61.5), (_old_amd, 44.0), (_arm, 48.3)]
)
def test_the_temperature_is_that_of_the_hottest_package(
    tmp_path: Path, build: Callable[[Path], None], celsius: float
) -> None:
    build(tmp_path)
    assert CpuTemperature(sysfs=tmp_path).sample() == Reading(values={"cpuTemper": celsius})


def test_a_vm_with_only_acpitz_has_no_temperature_and_says_so(tmp_path: Path) -> None:
    _chip(tmp_path, 0, "acpitz", {"": 27800})
    assert CpuTemperature(sysfs=tmp_path).sample() == Reading(
        values={}, problems={"cpuTemper": "no CPU package sensor"}
    )


def test_a_host_without_hwmon_has_no_temperature_and_says_so(tmp_path: Path) -> None:
    assert CpuTemperature(sysfs=tmp_path).sample().problems == {"cpuTemper": "no CPU package sensor"}


def test_a_socket_that_gives_no_number_leaves_the_other(tmp_path: Path) -> None:
    _chip(tmp_path, 0, "coretemp", {"Package id 0": "broken"})
    _chip(tmp_path, 1, "coretemp", {"Package id 1": 50000})
    assert CpuTemperature(sysfs=tmp_path).sample().values == {"cpuTemper": 50.0}


def test_a_chip_that_comes_back_under_another_number_is_found_again(tmp_path: Path) -> None:
    old = _chip(tmp_path, 0, "coretemp", {"Package id 0": 50000})
    temperature = CpuTemperature(sysfs=tmp_path)
    assert temperature.sample().values == {"cpuTemper": 50.0}
    old.rename(tmp_path / "gone")
    (tmp_path / "class/hwmon/hwmon0").unlink()
    nvme = _chip(tmp_path, 5, "nvme", {"Composite": 90000})
    (tmp_path / "class/hwmon/hwmon0").symlink_to(nvme)
    _chip(tmp_path, 6, "coretemp", {"Package id 0": 55000})
    assert temperature.sample().values == {"cpuTemper": 55.0}


def test_only_the_inputs_of_the_package_are_read(tmp_path: Path) -> None:
    _intel(tmp_path)
    assert [path.parent.name for path in package_inputs(tmp_path / "class/hwmon")] == ["hwmon2", "hwmon3"]


# --- mounts


def _points(mountinfo: str) -> list[list[str]]:
    return sorted([mount.point for mount in mounts] for mounts in filesystems(mountinfo))


def test_on_bare_metal_every_filesystem_with_data_counts_once_by_its_shortest_mount_point() -> None:
    assert _points(BARE_METAL) == [
        ["/"],
        ["/auto"],
        ["/boot"],
        ["/boot/efi"],
        ["/mnt/s3"],
        ["/mnt/store"],
        ["/x", "/srv/sealing", "/data/my cache"],
    ]


def test_of_two_mounts_on_one_point_the_upper_one_is_seen() -> None:
    (upper,) = (mount for mounts in filesystems(BARE_METAL) for mount in mounts if mount.point == "/auto")
    assert (upper.device, upper.filesystem) == ("10.0.0.6:/auto", "nfs")


def test_subvolumes_of_btrfs_are_one_filesystem() -> None:
    assert _points(BTRFS) == [["/", "/home"]]


def _disks(
    tmp_path: Path,
    mountinfo: str,
    statvfs: Callable[[str], os.statvfs_result] = lambda _: _statvfs(),
    *,
    deadline_seconds: float = 60.0,
    is_directory: Callable[[str], bool] = lambda point: not point.startswith("/etc/"),
) -> Disks:
    path = tmp_path / "mountinfo"
    path.write_text(mountinfo, encoding="utf-8", errors="surrogateescape")
    return Disks(mountinfo=path, statvfs=statvfs, is_directory=is_directory, deadline_seconds=deadline_seconds)


def _listed(reading: Reading) -> list[str]:
    entries = reading.values["useDisk"]
    assert isinstance(entries, list)
    return [entry["mount"] for entry in entries]


def test_a_container_shows_its_root_and_no_single_files(tmp_path: Path) -> None:
    assert _listed(_disks(tmp_path, CONTAINER).sample()) == ["/"]


def test_a_container_shows_a_volume_that_is_on_the_disk_of_its_single_files(tmp_path: Path) -> None:
    assert _listed(_disks(tmp_path, CONTAINER_WITH_VOLUME).sample()) == ["/", "/srv/long-data"]


def test_space_is_counted_as_df_does_and_the_fullest_mount_gives_the_percentage(tmp_path: Path) -> None:
    found = {"/": _statvfs(blocks=1000, free=400, available=350), "/home": _statvfs()}
    fuller = "29 28 8:1 / /full rw - xfs /dev/sda1 rw\n"
    found["/full"] = _statvfs(blocks=10, free=1, available=1)
    reading = _disks(tmp_path, BTRFS + fuller, found.__getitem__).sample()
    assert reading.values == {
        "useDisk": [
            {"mount": "/", "device": "/dev/nvme0n1p2", "filesystem": "btrfs", "total": 4096000, "used": 2457600},
            {"mount": "/full", "device": "/dev/sda1", "filesystem": "xfs", "total": 40960, "used": 36864},
        ],
        "diskUsedPercent": 90.0,
    }


def test_space_reserved_for_root_counts_as_neither_used_nor_available(tmp_path: Path) -> None:
    reading = _disks(tmp_path, BTRFS, lambda _: _statvfs(blocks=1000, free=400, available=350)).sample()
    assert reading.values["diskUsedPercent"] == 63.2


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_mount_that_hangs_is_left_out_and_costs_the_others_nothing(tmp_path: Path, released: threading.Event) -> None:
    def statvfs(point: str) -> os.statvfs_result:
        if point == "/mnt/dead":
            released.wait()
        return _statvfs()

    reading = _disks(tmp_path, ONE_LOCAL_TWO_NETWORK, statvfs, deadline_seconds=0.5).sample()
    assert _listed(reading) == ["/", "/mnt/live"]
    assert reading.problems == {"useDisk": "/mnt/dead: no answer for 0.5 s"}


def test_a_mount_that_hangs_is_asked_once_until_it_answers(tmp_path: Path, released: threading.Event) -> None:
    asked: list[str] = []

    def statvfs(point: str) -> os.statvfs_result:
        asked.append(point)
        if point == "/mnt/dead":
            released.wait()
        return _statvfs()

    disks = _disks(tmp_path, ONE_LOCAL_TWO_NETWORK, statvfs, deadline_seconds=0.5)
    readings = [disks.sample() for _ in range(3)]
    assert [_listed(reading) for reading in readings] == [["/", "/mnt/live"]] * 3
    assert asked.count("/mnt/dead") == 1
    released.set()
    while "/mnt/dead" not in _listed(disks.sample()):
        pass


def test_mounts_that_hang_are_waited_for_together_and_only_once(tmp_path: Path, released: threading.Event) -> None:
    many = "".join(f"{n} 28 0:{n} / /mnt/{n} rw - nfs4 10.0.0.5:/{n} rw,hard\n" for n in range(50, 70))

    def statvfs(_: str) -> os.statvfs_result:
        released.wait()
        return _statvfs()

    disks = _disks(tmp_path, many, statvfs, deadline_seconds=0.5)
    begin = time.monotonic()
    for _ in range(3):
        assert _listed(disks.sample()) == []
    assert time.monotonic() - begin < 20 * 0.5


def test_a_mount_is_asked_by_one_thread_that_ends_when_the_mount_is_gone(tmp_path: Path) -> None:
    askers: list[threading.Thread] = []

    def statvfs(point: str) -> os.statvfs_result:
        if point == "/mnt/live":
            askers.append(threading.current_thread())
        return _statvfs()

    disks = _disks(tmp_path, ONE_LOCAL_TWO_NETWORK, statvfs)
    disks.sample()
    disks.sample()
    assert len(askers) == 2
    assert len({*askers}) == 1
    (tmp_path / "mountinfo").write_text(BTRFS)
    disks.sample()
    askers[0].join(60)
    assert not askers[0].is_alive()


def test_only_mounts_that_may_hang_are_asked_in_a_thread(tmp_path: Path) -> None:
    asked: dict[str, threading.Thread] = {}

    def statvfs(point: str) -> os.statvfs_result:
        asked[point] = threading.current_thread()
        return _statvfs()

    _disks(tmp_path, BARE_METAL, statvfs).sample()
    elsewhere = {point for point, thread in asked.items() if thread is not threading.current_thread()}
    assert elsewhere == {"/auto", "/mnt/s3", "/mnt/store"}


def test_a_mount_with_an_error_is_named_with_the_reason(tmp_path: Path) -> None:
    def statvfs(point: str) -> os.statvfs_result:
        if point == "/mnt/dead":
            raise OSError(107, "Transport endpoint is not connected")
        return _statvfs()

    reading = _disks(tmp_path, ONE_LOCAL_TWO_NETWORK, statvfs).sample()
    assert _listed(reading) == ["/", "/mnt/live"]
    assert reading.problems == {"useDisk": "/mnt/dead: Transport endpoint is not connected"}


def test_a_mount_that_went_away_meanwhile_is_no_problem(tmp_path: Path) -> None:
    def statvfs(point: str) -> os.statvfs_result:
        if point == "/mnt/live":
            raise FileNotFoundError(2, "No such file or directory")
        return _statvfs()

    reading = _disks(tmp_path, ONE_LOCAL_TWO_NETWORK, statvfs).sample()
    assert (_listed(reading), reading.problems) == (["/", "/mnt/dead"], {})


@pytest.mark.parametrize("blocks", [0, 2**62])
def test_a_mount_without_a_size_or_with_an_impossible_one_is_not_listed(tmp_path: Path, blocks: int) -> None:
    reading = _disks(tmp_path, BTRFS, lambda _: _statvfs(blocks=blocks, free=0, available=0)).sample()
    assert reading == Reading(values={"useDisk": []})


def test_a_new_mount_is_seen_in_the_next_sample(tmp_path: Path) -> None:
    disks = _disks(tmp_path, BTRFS)
    assert _listed(disks.sample()) == ["/"]
    (tmp_path / "mountinfo").write_text(BTRFS + "29 28 8:1 / /new rw - xfs /dev/sda1 rw\n")
    assert _listed(disks.sample()) == ["/", "/new"]


def test_a_mount_point_that_is_not_utf_8_is_asked_by_its_bytes_and_shown_readable(tmp_path: Path) -> None:
    asked: list[str] = []

    def statvfs(point: str) -> os.statvfs_result:
        asked.append(point)
        return _statvfs()

    reading = _disks(tmp_path, "29 28 8:1 / /caf\udce9\\040x rw - xfs /dev/sda1 rw\n", statvfs).sample()
    assert [os.fsencode(point) for point in asked] == [b"/caf\xe9 x"]
    assert _listed(reading) == ["/caf\ufffd x"]


def test_a_list_of_mounts_that_cannot_be_read_fails_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        Disks(mountinfo=tmp_path / "missing").sample()


@given(st.text().filter(lambda text: " - " not in text and "\n" not in text))
def test_a_line_that_is_no_mount_is_passed_over(line: str) -> None:
    root: list[list[Mount]] = filesystems(BTRFS)
    assert filesystems(f"{line}\n{BTRFS}") == root
