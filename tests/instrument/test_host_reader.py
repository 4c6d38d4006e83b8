"""This machine, read: whole where it can be, never waiting for what does not answer."""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from flyproxy.instrument.host_reader import DISKS_MAX, INTERFACES_MAX, MOUNTS_MAX, HostReader, statvfs_of_directory
from flyproxy.instrument.procfs import Reading

MACHINES = Path(__file__).parent / "proc"
WHERE = {
    "pressure-memory": "pressure/memory",
    "net-dev": "net/dev",
    "file-nr": "sys/fs/file-nr",
    "mounts": "self/mounts",
}
FULL = os.statvfs_result((4096, 4096, 1000, 600, 500, 10, 9, 9, 0, 255))

MakeProc = Callable[..., str]


@pytest.fixture
def reached() -> Counter[str]:
    return Counter()


@pytest.fixture
def make_proc(tmp_path: Path) -> MakeProc:
    """make_proc("linux-2.6.32", mounts="..."): a /proc as that machine's, some files replaced."""

    def make(machine: str, **files: str) -> str:
        for source in (MACHINES / machine).iterdir():
            target = tmp_path / "proc" / WHERE.get(source.name, source.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        for name, text in files.items():
            (tmp_path / "proc" / WHERE.get(name, name)).write_text(text)
        return str(tmp_path / "proc")

    return make


def by_family(readings: list[Reading]) -> Counter[str]:
    return Counter(reading.family for reading in readings)


def mounts_of(readings: list[Reading]) -> list[str]:
    return [dict(labels)["mount"] for family, labels, _ in readings if family == "fly_instance_filesystem_blocks"]


def test_everything_of_a_machine_is_read(make_proc: MakeProc, reached: Counter[str]) -> None:
    reader = HostReader(lambda limit: reached.update([limit]), proc=make_proc("linux-6.18-vm"), measure=lambda _: FULL)
    readings = reader.read()
    assert mounts_of(readings) == ["/", "/srv/two words\\and\tmore"]
    expected = (MACHINES / "linux-6.18-vm" / "readings.txt").read_text().splitlines()
    assert len(readings) == len(expected) + 8
    assert not reached


def test_this_very_machine_is_read() -> None:
    reached: Counter[str] = Counter()
    found = by_family(HostReader(lambda limit: reached.update([limit]), deadline_s=60).read())
    assert found["fly_instance_memory_mem_total"] == found["fly_instance_filefd_allocated"] == 1
    assert found["fly_instance_load_average"] == 3
    assert found["fly_instance_cpu"] >= 10


def test_a_machine_without_proc_says_nothing(tmp_path: Path) -> None:
    reader = HostReader(lambda limit: None, proc=str(tmp_path / "none"), measure=lambda _: FULL)
    assert reader.read() == []


def test_a_filesystem_is_shown_once_at_its_shortest_directory(make_proc: MakeProc) -> None:
    files = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    reader = HostReader(
        lambda limit: None, proc=make_proc("container"), measure=lambda path: None if path in files else FULL
    )
    assert mounts_of(reader.read()) == ["/", "/data/up"]


def test_a_filesystem_that_refuses_or_has_no_size_is_left_out(make_proc: MakeProc) -> None:
    def measure(path: str) -> os.statvfs_result:
        if path == "/":
            raise PermissionError(13, "Permission denied")
        return os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))

    assert mounts_of(HostReader(lambda limit: None, proc=make_proc("linux-2.6.32"), measure=measure).read()) == []


def test_a_filesystem_that_does_not_answer_takes_nothing_else_with_it(
    make_proc: MakeProc, reached: Counter[str]
) -> None:
    back, answered = threading.Event(), threading.Event()

    def measure(path: str) -> os.statvfs_result:
        back.wait()
        answered.set()
        return FULL

    reader = HostReader(
        lambda limit: reached.update([limit]), proc=make_proc("linux-6.18-vm"), measure=measure, deadline_s=0.001
    )
    threads = threading.active_count()
    for _ in range(3):
        found = by_family(reader.read())
        assert found["fly_instance_filesystem_blocks"] == 0
        assert found["fly_instance_cpu"] == 20
    assert reached == {"host_filesystem_time": 3}
    assert threading.active_count() == threads + 1, "one thread waits, not one a beat"
    stuck = next(thread for thread in threading.enumerate() if thread.name == "filesystems")
    back.set()
    stuck.join()
    patient = HostReader(lambda limit: reached.update([limit]), proc=make_proc("linux-6.18-vm"), measure=measure)
    assert len(mounts_of(patient.read())) == 2
    assert answered.is_set()


def test_it_is_asked_again_once_it_answers(make_proc: MakeProc, reached: Counter[str]) -> None:
    back = threading.Event()

    def measure(path: str) -> os.statvfs_result:
        back.wait()
        return FULL

    reader = HostReader(
        lambda limit: reached.update([limit]), proc=make_proc("linux-6.18-vm"), measure=measure, deadline_s=0.001
    )
    reader.read()
    stuck = next(thread for thread in threading.enumerate() if thread.name == "filesystems")
    back.set()
    stuck.join()
    reader._deadline_s = 60.0
    assert len(mounts_of(reader.read())) == 2


def test_a_machine_with_more_than_the_bounds_is_cut_and_counted(make_proc: MakeProc, reached: Counter[str]) -> None:
    numbers = range(100)
    proc = make_proc(
        "linux-6.18-vm",
        stat="".join(f"cpu{number} 1 2 3 4 5 6 7 8 9 10\n" for number in numbers),
        diskstats="".join(f"8 0 dm-{number} 1 2 3 4 5 6 7 8 9 10 11\n" for number in numbers),
        **{"net-dev": "".join(f"br{number}: {'1 ' * 16}\n" for number in numbers)},
        mounts="".join(f"/dev/dm-{number} /mnt/{number} ext4 rw 0 0\n" for number in numbers),
    )
    found = by_family(HostReader(lambda limit: reached.update([limit]), proc=proc, measure=lambda _: FULL).read())
    assert found["fly_instance_cpu"] == 640
    assert found["fly_instance_disk_time_io"] == DISKS_MAX
    assert found["fly_instance_net_recv_packets"] == INTERFACES_MAX
    assert found["fly_instance_filesystem_blocks"] == MOUNTS_MAX
    assert reached == {"host_cpus": 1, "host_disks": 1, "host_interfaces": 1, "host_mounts": 1}


def test_cpu_times_do_not_go_back_a_little_between_two_reads(make_proc: MakeProc) -> None:
    reader = HostReader(lambda limit: None, proc=make_proc("linux-6.18-vm", stat="cpu0 1 1 1 500\n"))
    reader.read()
    make_proc("linux-6.18-vm", stat="cpu0 2 1 1 490\n")
    values = [value for family, _, value in reader.read() if family == "fly_instance_cpu"]
    assert values == [2.0, 1.0, 1.0, 500.0]


def test_only_directories_are_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert statvfs_of_directory(str(tmp_path / "file")) is None
    assert statvfs_of_directory(str(tmp_path)) is not None
