"""What the files of /proc say, as readings of the catalog's fly_instance_* families. Pure: text in, values out.

Kernels differ in what they have: a field, a column or a line that is missing or is not as expected has no reading,
and nothing here raises. The formats are those of proc(5), Documentation/admin-guide/iostats.rst and
Documentation/accounting/psi.rst of the Linux kernel.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flyproxy.instrument.catalog import HOST_ETH0, PROXY_DEVICE
from flyproxy.series.labels import Labels, label_value

CENTISECONDS = 100
BACK_CENTISECONDS_MAX = 300
"""Idle and iowait of the kernel may go back a little, which is no restart; by more than this it is one."""

_MEMORY = {
    "MemTotal": "fly_instance_memory_mem_total",
    "MemFree": "fly_instance_memory_mem_free",
    "MemAvailable": "fly_instance_memory_mem_available",
    "Buffers": "fly_instance_memory_buffers",
    "Cached": "fly_instance_memory_cached",
    "SwapCached": "fly_instance_memory_swap_cached",
    "Active": "fly_instance_memory_active",
    "Inactive": "fly_instance_memory_inactive",
    "SwapTotal": "fly_instance_memory_swap_total",
    "SwapFree": "fly_instance_memory_swap_free",
    "Dirty": "fly_instance_memory_dirty",
    "Writeback": "fly_instance_memory_writeback",
    "Slab": "fly_instance_memory_slab",
    "Shmem": "fly_instance_memory_shmem",
    "VmallocTotal": "fly_instance_memory_vmalloc_total",
    "VmallocUsed": "fly_instance_memory_vmalloc_used",
    "VmallocChunk": "fly_instance_memory_vmalloc_chunk",
}
_PRESSURE = {"some": "fly_instance_memory_pressure_some", "full": "fly_instance_memory_pressure_full"}
_CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_DISK = (
    "fly_instance_disk_reads_completed",
    "fly_instance_disk_reads_merged",
    "fly_instance_disk_sectors_read",
    "fly_instance_disk_time_reading",
    "fly_instance_disk_writes_completed",
    "fly_instance_disk_writes_merged",
    "fly_instance_disk_sectors_written",
    "fly_instance_disk_time_writing",
    "fly_instance_disk_io_in_progress",
    "fly_instance_disk_time_io",
    "fly_instance_disk_time_io_weighted",
)
_NET = (
    "",  # bytes: PROXY_DEVICE alone has them, counted by the front door
    "fly_instance_net_recv_packets",
    "fly_instance_net_recv_errs",
    "fly_instance_net_recv_drop",
    "fly_instance_net_recv_fifo",
    "fly_instance_net_recv_frame",
    "fly_instance_net_recv_compressed",
    "fly_instance_net_recv_multicast",
    "",
    "fly_instance_net_sent_packets",
    "fly_instance_net_sent_errs",
    "fly_instance_net_sent_drop",
    "fly_instance_net_sent_fifo",
    "fly_instance_net_sent_colls",
    "fly_instance_net_sent_carrier",
    "fly_instance_net_sent_compressed",
)
_NOT_A_DISK = re.compile(r"(?:z?ram|loop|fd|nbd|sr)\d+|(?:[hsv]|xv)d[a-z]+\d+|(?:nvme\d+n|mmcblk|nbd)\d+p\d+")
_NOT_AN_INTERFACE = re.compile(r"lo|veth.*")
_LOCAL = frozenset(
    (
        "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "jfs", "nilfs2", "ntfs", "ntfs3",
        "reiserfs", "vfat", "xfs", "zfs",
    )
)  # fmt: skip
"""Filesystems on a disk of this machine: asking them how full they are does not wait for a network."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Reading(NamedTuple):
    """One value the machine has, for every instance on it."""

    family: str
    labels: Labels
    """Beyond those of the instance."""
    value: float


class Mount(NamedTuple):
    """One mounted filesystem."""

    device: str
    path: str
    """As the kernel has it: may hold surrogates (os.fsdecode)."""


def memory(meminfo: str) -> list[Reading]:
    """/proc/meminfo, bytes. (MemAvailable is there since Linux 3.14.)"""
    found = []
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        family = _MEMORY.get(name)
        number, _, unit = rest.strip().partition(" ")
        if family is not None and _is_number(number) and unit in ("", "kB"):
            found.append(Reading(family, (), float(int(number) * (1024 if unit else 1))))
    return found


def memory_pressure(pressure: str) -> list[Reading]:
    """/proc/pressure/memory: avg10, avg60, avg300 in percent, total in microseconds."""
    found = []
    for line in pressure.splitlines():
        kind, _, rest = line.partition(" ")
        for pair in rest.split() if kind in _PRESSURE else ():
            name, _, number = pair.partition("=")
            if _is_number(number.replace(".", "", 1)):
                found.append(Reading(_PRESSURE[kind], (("pressure_duration", name),), float(number)))
    return found


def load_average(loadavg: str) -> list[Reading]:
    """/proc/loadavg."""
    return [
        Reading("fly_instance_load_average", (("minutes", minutes),), float(number))
        for minutes, number in zip(("1", "5", "15"), loadavg.split(), strict=False)
        if _is_number(number.replace(".", "", 1))
    ]


def cpu(stat: str, ticks_per_second: int = CENTISECONDS) -> list[Reading]:
    """The `cpu<n>` lines of /proc/stat, centiseconds. A CPU that is off has no line; old kernels have fewer modes."""
    found = []
    for line in stat.splitlines():
        name, *ticks = line.split() or [""]
        if not name.startswith("cpu"):
            break  # they come first, and what follows is long on a large machine
        number = name.removeprefix("cpu")
        for mode, spent in zip(_CPU_MODES, ticks, strict=False):
            if _is_number(number) and _is_number(spent):
                labels = (("cpu_id", number), ("mode", mode))
                found.append(Reading("fly_instance_cpu", labels, int(spent) * CENTISECONDS / ticks_per_second))
    return found


def held(readings: list[Reading], before: Mapping[Labels, float]) -> list[Reading]:
    """CPU times that went back a little stay where they were: a rate would take it for a restart from 0."""
    return [
        reading._replace(value=before[reading.labels])
        if 0 < before.get(reading.labels, 0.0) - reading.value < BACK_CENTISECONDS_MAX
        else reading
        for reading in readings
    ]


def disks(diskstats: str) -> list[Reading]:
    """/proc/diskstats: whole disks. Sectors are of 512 bytes, times milliseconds, whatever the device."""
    found = []
    for line in diskstats.splitlines():
        fields = line.split()
        # Kernels before 2.6.25 give a partition 7 columns.
        if len(fields) < 3 + len(_DISK) or _NOT_A_DISK.fullmatch(fields[2]) or not all(map(_is_number, fields[3:])):
            continue
        labels = (("device", fields[2]),)
        found += [Reading(family, labels, float(count)) for family, count in zip(_DISK, fields[3:], strict=False)]
    return found


def interfaces(net_dev: str) -> list[Reading]:
    """/proc/net/dev without `lo` and the outer ends of containers' interfaces. There are no bytes: every dashboard's
    sum over an app's devices would count the whole machine's traffic as the app's."""
    found = []
    for line in net_dev.splitlines():
        name, _, rest = line.rpartition(":")  # no space after the colon where a count is wide
        name, counts = name.strip(), rest.split()
        if not name or _NOT_AN_INTERFACE.fullmatch(name) or len(counts) < len(_NET) or not all(map(_is_number, counts)):
            continue
        labels = (("device", HOST_ETH0 if name == PROXY_DEVICE else name),)
        found += [Reading(family, labels, float(n)) for family, n in zip(_NET, counts, strict=False) if family]
    return found


def open_files(file_nr: str) -> list[Reading]:
    """/proc/sys/fs/file-nr: allocated, unused (0 since Linux 2.6), maximum."""
    counts = file_nr.split()
    if len(counts) != 3 or not all(map(_is_number, counts)):
        return []
    return [
        Reading("fly_instance_filefd_allocated", (), float(counts[0])),
        Reading("fly_instance_filefd_maximum", (), float(counts[2])),
    ]


def uptime(text: str) -> list[Reading]:
    """/proc/uptime, seconds."""
    number = text.partition(" ")[0].strip()
    return [Reading("fly_instance_uptime_seconds", (), float(number))] if _is_number(number.replace(".", "", 1)) else []


def local_mounts(mounts: str) -> list[Mount]:
    """/proc/self/mounts: filesystems on local disks, and a container's root; the shortest path of a device first,
    since the same filesystem may be bound to many."""
    found = []
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Mount(_unescaped(fields[0]), _unescaped(fields[1]))
        if fields[2] in _LOCAL or (fields[2] == "overlay" and mount.path == "/"):
            found.append(mount)
    return sorted(found, key=lambda mount: len(mount.path))


def filesystem(mount: str, blocks: int, block_bytes: int, free: int, available: int) -> list[Reading]:
    """What statvfs says of a mount: f_blocks, f_frsize, f_bfree, f_bavail."""
    labels = (("mount", mount.encode("utf-8", "surrogateescape").decode("utf-8", "replace")),)
    return [
        Reading("fly_instance_filesystem_blocks", labels, float(blocks)),
        Reading("fly_instance_filesystem_block_size", labels, float(block_bytes)),
        Reading("fly_instance_filesystem_blocks_free", labels, float(free)),
        Reading("fly_instance_filesystem_blocks_avail", labels, float(available)),
    ]


def first_few(readings: list[Reading], label: str, most: int) -> list[Reading]:
    """The readings of the first `most` values of a label; the same list when there are no more."""
    values = dict.fromkeys(label_value(reading.labels, label) for reading in readings)
    if len(values) <= most:
        return readings
    kept = set(list(values)[:most])
    return [reading for reading in readings if label_value(reading.labels, label) in kept]


def by_labels(readings: Iterable[Reading]) -> dict[Labels, float]:
    """Values of one family's readings, for `held`."""
    return {reading.labels: reading.value for reading in readings}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _unescaped(text: str) -> str:
    """A blank, tab, newline or backslash of a path is written \\040, \\011, \\012, \\134."""
    return _ESCAPED.sub(lambda digits: chr(int(digits[1], 8)), text)
