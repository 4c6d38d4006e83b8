"""Kernels old and new, machines and containers: what their /proc says, as plain files, and the readings of it."""

from pathlib import Path

import pytest

from flyproxy.instrument import procfs
from flyproxy.instrument.catalog import FAMILIES
from flyproxy.instrument.procfs import Mount, Reading

MACHINES = sorted(path.name for path in (Path(__file__).parent / "proc").iterdir())
PARSERS = {
    "meminfo": procfs.memory,
    "pressure-memory": procfs.memory_pressure,
    "loadavg": procfs.load_average,
    "stat": procfs.cpu,
    "diskstats": procfs.disks,
    "net-dev": procfs.interfaces,
    "file-nr": procfs.open_files,
    "uptime": procfs.uptime,
}


def text(machine: str, name: str) -> str:
    """A file of a machine's /proc; "" where it has none."""
    path = Path(__file__).parent / "proc" / machine / name
    return path.read_text() if path.exists() else ""


def everything(machine: str) -> list[Reading]:
    return [reading for name, parse in PARSERS.items() for reading in parse(text(machine, name))]


def written(reading: Reading) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in reading.labels)
    return f"{reading.family}{{{labels}}} {reading.value!r}"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_says_what_its_golden_file_has(machine: str) -> None:
    expected = text(machine, "readings.txt").splitlines()
    assert [written(reading) for reading in everything(machine)] == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_every_reading_is_of_a_family_with_those_labels(machine: str) -> None:
    for family, labels, _ in everything(machine):
        own = set(FAMILIES[family].labels) - {"app", "region", "host", "instance"}
        assert own == {name for name, _ in labels}, family


def test_the_proxys_eth0_is_never_the_machines() -> None:
    devices = {dict(labels)["device"] for _, labels, _ in procfs.interfaces(text("linux-6.18-vm", "net-dev"))}
    assert devices == {"host-eth0"}


def test_ticks_become_centiseconds() -> None:
    assert procfs.cpu("cpu0 1000", ticks_per_second=250) == [
        Reading("fly_instance_cpu", (("cpu_id", "0"), ("mode", "user")), 400.0)
    ]


def test_cpu_time_that_goes_back_a_little_stands_still_and_a_restart_is_one() -> None:
    before = procfs.by_labels(procfs.cpu("cpu0 5 0 0 1000 500\ncpu1 9000"))
    now = procfs.held(procfs.cpu("cpu0 6 0 0 999 202\ncpu1 7\ncpu2 1"), before)
    assert [reading.value for reading in now] == [6.0, 0.0, 0.0, 1000.0, 500.0, 7.0, 1.0]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            "linux-6.18-vm",
            [Mount("/dev/vda", "/"), Mount("/dev/sdb1", "/srv/two words\\and\tmore")],
        ),
        ("linux-2.6.32", [Mount("/dev/mapper/vg-root", "/"), Mount("/dev/sda1", "/boot")]),
        (
            "container",
            [
                Mount("overlay", "/"),
                Mount("/dev/nvme0n1p2", "/data/up"),
                Mount("/dev/nvme0n1p2", "/etc/hosts"),
                Mount("/dev/nvme0n1p2", "/etc/hostname"),
                Mount("/dev/nvme0n1p2", "/data/deep/down"),
                Mount("/dev/nvme0n1p2", "/etc/resolv.conf"),
            ],
        ),
        ("nonsense", []),
    ],
)
def test_only_local_filesystems_are_asked_and_short_paths_first(machine: str, expected: list[Mount]) -> None:
    assert procfs.local_mounts(text(machine, "mounts")) == expected


def test_a_filesystem_is_as_large_as_its_blocks() -> None:
    readings = procfs.filesystem("/srv/\udcff", 1000, 4096, 600, 500)
    assert [(reading.family, reading.value) for reading in readings] == [
        ("fly_instance_filesystem_blocks", 1000.0),
        ("fly_instance_filesystem_block_size", 4096.0),
        ("fly_instance_filesystem_blocks_free", 600.0),
        ("fly_instance_filesystem_blocks_avail", 500.0),
    ]
    assert readings[0].labels == (("mount", "/srv/\N{REPLACEMENT CHARACTER}"),)


def test_many_cpus_are_cut_at_a_bound_whole() -> None:
    readings = procfs.cpu("\n".join(f"cpu{number} 1 2 3 4 5 6 7 8 9 10" for number in range(256)))
    assert len(readings) == 2560
    few = procfs.first_few(readings, "cpu_id", 64)
    assert few == readings[:640]
    assert procfs.first_few(few, "cpu_id", 64) is few


def test_disks_are_whole_ones() -> None:
    names = (
        "sda sda1 hdb hdb2 vdc vdc15 xvda xvda1 nvme0n1 nvme0n1p3 mmcblk0 mmcblk0p1 loop7 ram15 zram0 sr0 fd0 md127 "
        "dm-12 nbd0 sdaa sdaa1"
    )
    lines = "\n".join(f" 8 0 {name} 1 2 3 4 5 6 7 8 9 10 11" for name in names.split())
    found = dict.fromkeys(dict(reading.labels)["device"] for reading in procfs.disks(lines))
    assert list(found) == ["sda", "hdb", "vdc", "xvda", "nvme0n1", "mmcblk0", "md127", "dm-12", "sdaa"]
