"""A child's segment, wherever there is room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyproxy.instrument.cells import Segment, SegmentReader
from flyproxy.instrument.recorder import Recorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.runtime import segment
from flyproxy.runtime.segment import OwnSegment

Until = Callable[..., Any]


def seen(run_dir: Path) -> float:
    families = Snapshot(str(run_dir), interval_ms=1000).families()
    return sum(sample.value for family in families if family.name == "fly_edge_data_in" for sample in family.samples)


async def test_it_is_shared_where_there_is_room(run_dir: Path) -> None:
    own = OwnSegment(str(run_dir / "edge-0-1.cells"), 0, "edge")
    assert own.shared
    own.keep_trying(lambda segment: pytest.fail("it has one"))
    Recorder(own.segment, proxy_id="blue").edge("hello", "personal", "ord", "0000")
    assert seen(run_dir) == 0.0
    own.stop()


async def test_without_room_it_counts_on_and_is_seen_again_when_there_is_some(
    run_dir: Path, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segment, "RETRY_EVERY_S", 0.001)
    folder = run_dir / "later"
    own = OwnSegment(str(folder / "edge-0-1.cells"), 0, "edge")
    assert not own.shared
    assert "cannot make the segment" in caplog.text
    recorder = Recorder(own.segment, proxy_id="blue")
    edge = recorder.edge("hello", "personal", "ord", "0000")
    edge.transferred(5, 0)
    recorder.fold()
    own.keep_trying(recorder.rotate)
    folder.mkdir()
    await until(lambda: own.shared)
    edge.transferred(7, 0)
    recorder.fold()
    assert seen(folder) == 7.0


def test_a_private_segment_takes_what_a_shared_one_takes() -> None:
    private = Segment.private(3, process="edge", cells_max=100)
    assert (private.worker, private.process, private.capacity) == (3, "edge", 100)
    recorder = Recorder(private, proxy_id="blue")
    edge = recorder.edge("hello", "personal", "ord", "0000")
    for status in range(100, 600):
        edge.response(status, 1, 1, 1)
    recorder.fold()
    assert private.used <= 100
    private.close()


async def test_a_renewed_one_is_of_the_next_name_and_the_one_before_is_final(run_dir: Path) -> None:
    own = OwnSegment(str(run_dir / "edge-0-1.cells"), 0, "edge")
    recorder = Recorder(own.segment, proxy_id="blue")
    recorder.edge("hello", "personal", "ord", "0000").transferred(5, 0)
    for number in (1, 2):
        assert own.renew(recorder.rotate)
        assert own.segment.path == str(run_dir / f"edge-0-1.{number}.cells")
        assert recorder.segment is own.segment
    assert SegmentReader(str(run_dir / "edge-0-1.cells")).final
    assert not SegmentReader(own.segment.path).final
    assert seen(run_dir) == 5.0
    left = run_dir.glob("*.cells")  # noqa: ASYNC240
    assert [path.name for path in left] == ["edge-0-1.2.cells"]


async def test_without_room_for_a_fresh_one_it_goes_on_in_the_old_one(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnSegment(str(run_dir / "edge-0-1.cells"), 0, "edge")
    (run_dir / "edge-0-1.1.cells").touch()
    before = own.segment
    assert not own.renew(lambda segment: pytest.fail("it has none"))
    assert own.segment is before
    assert "going on in" in caplog.text


async def test_one_that_nobody_sees_is_not_renewed(run_dir: Path) -> None:
    own = OwnSegment(str(run_dir / "later" / "edge-0-1.cells"), 0, "edge")
    assert not own.renew(lambda segment: pytest.fail("it has none"))
