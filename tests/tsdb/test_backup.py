"""A copy of a store: whole and usable, or not there at all."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.backup import backup
from flyproxy.tsdb.check import check
from flyproxy.tsdb.db import Reader, StoreDamagedError, StoreError, StoreMissingError, Writer
from flyproxy.tsdb.log import KEY_ROWS

BEAT_MS = 15_000
ROWS = 4 * KEY_ROWS

MakeBatch = Callable[..., Batch]
MakeLayout = Callable[..., Layout]


@pytest.fixture
def filled(
    open_writer: Callable[..., Writer], layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> Writer:
    writer = open_writer()
    wide = layout(*(f"s{place}" for place in range(300)))
    random = np.random.default_rng(1)
    writer.append([batch(beat * BEAT_MS, wide, random.random(300)) for beat in range(ROWS)])
    assert seal_all(writer, ROWS * BEAT_MS, KEY_ROWS * BEAT_MS)
    return writer


@pytest.fixture
def destination(tmp_path: Path) -> str:
    (tmp_path / "copies").mkdir()
    return str(tmp_path / "copies" / "copy.db")


def test_a_copy_made_beside_the_writer_is_a_sound_store_of_its_moment(
    filled: Writer,
    store_path: str,
    destination: str,
    layout: MakeLayout,
    batch: MakeBatch,
    samples: Callable[..., object],
) -> None:
    assert backup(store_path, destination) == os.path.getsize(destination)
    assert check(destination, print) == check(store_path, print)
    original, copy = Reader.open(store_path), Reader.open(destination)
    both = [reader.organization("personal").select((), 0, 2**60) for reader in (original, copy)]
    assert samples(both[0]) == samples(both[1])
    original.close()
    copy.close()
    filled.append([batch(ROWS * BEAT_MS, layout("s0"), [1])])
    assert check(destination, print).rows < check(store_path, print).rows


def test_a_copy_can_be_written_to(
    filled: Writer, store_path: str, destination: str, layout: MakeLayout, batch: MakeBatch
) -> None:
    backup(store_path, destination)
    writer = Writer.open(destination)
    assert writer.append([batch(ROWS * BEAT_MS, layout("s0"), [1])]) == []
    writer.close()
    assert check(destination, print).faults == 0


def test_a_copy_has_the_permissions_of_the_original(filled: Writer, store_path: str, destination: str) -> None:
    os.chmod(store_path, 0o640)
    backup(store_path, destination)
    assert os.stat(destination).st_mode & 0o777 == 0o640


def test_nothing_is_overwritten(filled: Writer, store_path: str, destination: str) -> None:
    Path(destination).write_text("mine")
    with pytest.raises(StoreError, match="is there already"):
        backup(store_path, destination)
    assert Path(destination).read_text() == "mine"
    with pytest.raises(StoreError, match="is there already"):
        backup(store_path, store_path)


def test_a_missing_folder_is_named(filled: Writer, store_path: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere is not there; make it first"):
        backup(store_path, str(tmp_path / "nowhere" / "copy.db"))


def test_without_a_store_there_is_no_copy(store_path: str, destination: str) -> None:
    with pytest.raises(StoreMissingError):
        backup(store_path, destination)
    assert os.listdir(os.path.dirname(destination)) == []


def test_a_disk_that_is_full_leaves_no_half_copy(filled: Writer, store_path: str, destination: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StoreError, match=r"copy\.db: .* while writing the copy; .*free space"):
            backup(store_path, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(os.path.dirname(destination)) == []
    assert backup(store_path, destination) > 20_000


def test_a_damaged_original_is_named_and_leaves_no_copy(filled: Writer, store_path: str, destination: str) -> None:
    filled.close()
    whole = bytearray(Path(store_path).read_bytes())
    for page in range(4, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    Path(store_path).write_bytes(whole)
    with pytest.raises(StoreDamagedError, match=r"metrics\.db: damaged .* while copying it"):
        backup(store_path, destination)
    assert os.listdir(os.path.dirname(destination)) == []
