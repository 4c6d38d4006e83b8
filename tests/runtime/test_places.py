"""The folders of a front door: locked, swept, and no reason not to serve."""

import os
import tempfile
from pathlib import Path

import pytest

from flyproxy.clock import ManualClock
from flyproxy.runtime import places
from flyproxy.runtime.places import DataDir, PlacesError, RunDir, database_path, new_boot_id


def test_a_data_directory_is_made_and_held_by_one(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    first = DataDir(path)
    with pytest.raises(PlacesError, match="another front door uses the data directory"):
        DataDir(path)
    first.release()
    DataDir(path).release()


def test_colors_alternate(tmp_path: Path) -> None:
    folder = DataDir(str(tmp_path))
    assert [folder.next_proxy_id() for _ in range(4)] == ["blue", "green", "blue", "green"]
    (tmp_path / "proxy_id").write_text("green\n")
    assert folder.next_proxy_id() == "blue"
    folder.release()


def test_a_directory_that_is_there_and_cannot_be_written_is_said_and_used_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("lock", "proxy_id"):  # as a disk that takes no files: root may write anywhere else
        (tmp_path / name).mkdir()
    folder = DataDir(str(tmp_path))
    assert folder.next_proxy_id() == "blue"
    assert "cannot be written" in caplog.text
    assert "cannot write" in caplog.text
    folder.release()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlacesError, match="cannot use the data directory"):
        DataDir(str(tmp_path / "file" / "data"))
    with pytest.raises(PlacesError, match="cannot use the data directory"):
        DataDir(str(tmp_path / "file"))


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_a_run_directory_is_gone_with_its_front_door(shared_memory: Path) -> None:
    run = RunDir()
    assert run.path.parent == shared_memory
    assert run.path.stat().st_mode & 0o777 == 0o700
    (run.path / "edge-0-1.cells").touch()
    run.remove()
    assert list(shared_memory.iterdir()) == []


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_what_a_killed_front_door_left_is_swept_and_nothing_else(shared_memory: Path) -> None:
    living = RunDir()
    prefix = f"{places.RUN_PREFIX}{os.getuid()}"
    dead = shared_memory / f"{prefix}-{dead_pid()}-abc"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "base.json").touch()
    strangers = shared_memory / "flyproxy-somebody-else"
    strangers.mkdir()
    mine = RunDir()
    assert {folder.name for folder in shared_memory.iterdir()} == {living.path.name, mine.path.name, strangers.name}
    living.remove()
    mine.remove()


def test_a_front_door_of_another_container_is_not_swept(shared_memory: Path) -> None:
    """Its pid means nobody here; its lock is held all the same."""
    theirs = RunDir()
    unknown = shared_memory / f"{places.RUN_PREFIX}{os.getuid()}-{dead_pid()}-theirs"
    theirs.path.rename(unknown)
    mine = RunDir()
    assert unknown.exists()
    theirs.remove()
    mine.remove()


def test_no_room_for_a_run_directory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(PlacesError, match="No space left on device"):
        RunDir()


def test_boots_sort_by_time_and_the_store_has_one_name() -> None:
    clock = ManualClock()
    first = new_boot_id(clock)
    clock.advance(1)
    assert first < new_boot_id(clock)
    assert database_path("data") == "data/store.db"
