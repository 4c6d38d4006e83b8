"""What is started is measured with its children, and ends."""

import os
import sys
from pathlib import Path

import pytest

from bench.edge.peers import connections_max, files_max
from bench.edge.processes import Cpu, Processes, cpu, memory_bytes, tree, wait_for

PARENT = (
    "import pathlib, subprocess, sys;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid));"
    "child.wait()"
)


def some_cpu() -> int:
    return min(os.sched_getaffinity(0))


@pytest.mark.peer("taskset")
def test_children_are_of_the_tree_and_end_with_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    with Processes() as processes:
        parent = processes.start(some_cpu(), [sys.executable, "-c", PARENT, str(pipe)], tmp_path / "log")
        child = int(pipe.read_text())
        assert tree(parent.pid) == [parent.pid, child]
        used = cpu(tree(parent.pid))
        assert used.total_s > cpu([child]).total_s > 0
        assert memory_bytes(tree(parent.pid)) > memory_bytes([child]) > 0
    assert parent.poll() is not None
    assert not os.path.exists(f"/proc/{child}") or _ended(child)


def _ended(pid: int) -> bool:
    """A process that nobody has waited for yet is a zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.peer("taskset")
def test_one_that_dies_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Processes() as processes:
        process = processes.start(some_cpu(), [sys.executable, "-c", "exit('no such port')"], tmp_path / "log")
        with pytest.raises(SystemExit, match=r"nothing answers on port 1\nno such port"):
            wait_for(1, process, tmp_path / "log")


def test_the_kernels_share_is_taken_from_the_ticks() -> None:
    used = Cpu(3.5, 2.0, 1.0).since(Cpu(0.5, 1.0, 0.5))
    assert used.total_s == 3.0
    assert used.user_s == pytest.approx(2.0)
    assert used.system_s == pytest.approx(1.0)
    assert Cpu(1.0, 0.0, 0.0).since(Cpu(0.5, 0.0, 0.0)) == Cpu(0.5, 0.5, 0.0)


def test_every_connection_a_proxy_may_hold_has_two_descriptors() -> None:
    assert 2 * connections_max() < files_max()
