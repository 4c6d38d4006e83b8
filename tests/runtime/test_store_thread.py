"""The store's thread: a store that cannot be opened or written is said, and tried again."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.runtime.store_thread import StoreThread
from flyproxy.series.labels import labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer

LAYOUT = Layout((labels_from({"__name__": "a_total"}),), np.array([True]))


def batch(timestamp_ms: int, value: float, target: str = "x") -> Batch:
    return Batch("personal", target, timestamp_ms, LAYOUT, np.array([value]), 1000)


def counted(run_dir: Path, name: str) -> float:
    (found,) = [family for family in Snapshot(str(run_dir), interval_ms=1000).families() if family.name == name]
    return sum(sample.value for sample in found.samples)


@pytest.fixture
async def store(own: ProcessRecorder) -> AsyncIterator[StoreThread]:
    made = StoreThread(own)
    yield made
    await made.close()


async def test_what_was_appended_is_on_the_disk(store: StoreThread, tmp_path: Path, run_dir: Path) -> None:
    path = str(tmp_path / "store.db")
    assert await store.open(path, first_zero=True, retention_s=3600.0)
    assert await store.append([batch(1000, 1.0), batch(2000, 2.0)])
    assert store.fault == ""
    reader = Reader.open(path)
    (frame,) = reader.organization("personal").select([], 0, 10_000)
    assert frame.values.tolist() == [[1.0, 2.0]]
    reader.close()
    assert counted(run_dir, "flyproxy_store_rows_appended_total") == 2
    assert await store.organizations_of("x") == {"personal"}
    assert await store.organizations_of("y") == set()


async def test_a_batch_that_is_refused_is_said_and_not_counted_as_stored(
    store: StoreThread, tmp_path: Path, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.open(str(tmp_path / "store.db"), first_zero=True, retention_s=3600.0)
    assert await store.append([batch(2000, 1.0)])
    assert await store.append([batch(1000, 2.0), batch(1000, 2.0, "y")])
    assert "samples are left out: target 'x' of 'personal'" in caplog.text
    assert counted(run_dir, "flyproxy_store_rows_appended_total") == 2


async def test_a_foreign_file_is_named_once_and_its_going_away_is_noticed(
    store: StoreThread, tmp_path: Path, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    path.write_text("Dear diary, " * 1000)
    assert not await store.open(str(path), first_zero=True, retention_s=3600.0)
    for beat in range(3):
        assert not await store.append([batch(beat, 1.0)])
        await store.expire(beat)
    assert "not a flyproxy store" in store.fault
    assert caplog.text.count("not a flyproxy store") == 1
    assert counted(run_dir, "flyproxy_store_append_failures_total") == 3
    path.unlink()
    assert await store.append([batch(9000, 1.0)])
    assert store.fault == ""


async def test_targets_that_were_to_end_do_so_when_the_store_can_be_opened(store: StoreThread, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    other = Writer.open(path)
    other.append([batch(1000, 1.0, "gone"), batch(1000, 1.0, "kept")])
    assert not await store.open(path, first_zero=True, retention_s=3600.0)
    assert "already writes this store" in store.fault
    await store.end_targets(2000, lambda target: target == "gone")
    other.close()
    assert await store.append([batch(3000, 2.0, "kept")])
    await store.close()
    again = Writer.open(path)
    assert again.live_targets() == [("personal", "kept")]
    again.close()


async def test_a_changed_retention_is_what_the_next_expiry_goes_by(store: StoreThread, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    await store.open(path, first_zero=True, retention_s=1e6)
    for beat in range(100):
        await store.append([batch(beat * 1000, 1.0)])
    await store.expire(100_000)
    reader = Reader.open(path)
    assert reader.statistics()["rows"] == 100
    store.adjust(first_zero=True, retention_s=10.0)
    await store.expire(100_000)
    reader.refresh()
    assert reader.statistics()["rows"] < 40
    reader.close()


async def test_what_is_ready_is_sealed_and_counted(store: StoreThread, tmp_path: Path, run_dir: Path) -> None:
    path = str(tmp_path / "store.db")
    await store.open(path, first_zero=True, retention_s=1000.0)  # so a stretch is 100 s
    await store.append([batch(beat * 1000, float(beat)) for beat in range(400)])
    await store.seal(400_000)
    assert counted(run_dir, "flyproxy_store_rows_sealed_total") == 288  # three times the chains within 100 s
    assert counted(run_dir, "flyproxy_store_chunks_sealed_total") == 3
    assert counted(run_dir, "flyproxy_store_samples_sealed_total") == 288
    assert 0 < counted(run_dir, "flyproxy_store_chunk_bytes_total") < 288 * 8
    await store.expire(400_000)
    assert counted(run_dir, "flyproxy_store_log_rows") == 400 - 288
    assert counted(run_dir, "flyproxy_store_chunks") == 3
    assert counted(run_dir, "flyproxy_store_frames") == 1
    await store.expire(1_100_000)
    assert counted(run_dir, "flyproxy_store_chunks_deleted_total") == 1
    reader = Reader.open(path)
    (frame,) = reader.organization("personal").select([], 0, 10**6)
    assert frame.timestamps_ms.tolist() == [beat * 1000 for beat in range(96, 400)]
    reader.close()


async def test_a_store_beyond_its_size_shrinks(store: StoreThread, tmp_path: Path, run_dir: Path) -> None:
    path = str(tmp_path / "store.db")
    await store.open(path, first_zero=True, retention_s=1e6)
    random = np.random.default_rng(1)
    wide = Layout(tuple(labels_from({"__name__": f"s{place}"}) for place in range(300)), np.zeros(300, np.bool_))
    for beat in range(200):
        await store.append([Batch("personal", "x", beat * 1000, wide, random.random(300), 1000)])
    await store.expire(200_000)
    before = counted(run_dir, "flyproxy_store_bytes")
    store.adjust(first_zero=True, retention_s=1e6, retention_bytes=int(before) // 2)
    await store.expire(200_000)
    used = counted(run_dir, "flyproxy_store_bytes") - counted(run_dir, "flyproxy_store_free_bytes")
    assert used <= before / 2
    assert counted(run_dir, "flyproxy_store_size_retentions_total") == 1
    assert counted(run_dir, "flyproxy_store_rows_deleted_total") > 0


async def test_first_zero_can_be_switched_while_open(store: StoreThread, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    await store.open(path, first_zero=False, retention_s=1e6)
    names = [labels_from({"__name__": f"c{number}_total"}) for number in range(3)]

    def wider(count: int) -> Layout:
        return Layout(tuple(names[:count]), np.full(count, True))

    for count, first_zero in ((1, False), (2, False), (3, True)):
        store.adjust(first_zero=first_zero, retention_s=1e6)
        assert await store.append([Batch("personal", "x", count * 1000, wider(count), np.ones(count), 1000)])
    reader = Reader.open(path)
    (frame,) = reader.organization("personal").select([], 0, 10_000)
    assert frame.values[1][0] != 0.0
    assert frame.values[2][1] == 0.0
    reader.close()


async def test_after_its_end_nothing_is_stored(store: StoreThread, tmp_path: Path) -> None:
    await store.open(str(tmp_path / "store.db"), first_zero=True, retention_s=3600.0)
    await store.close()
    Writer.open(str(tmp_path / "store.db")).close()
