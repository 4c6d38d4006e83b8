"""What a loop says about its lateness, and a process about its garbage collector."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyproxy.instrument.base import segment_cells
from flyproxy.instrument.cells import Segment, SegmentReader
from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.runtime import loop_watch
from flyproxy.runtime.loop_watch import LoopWatch


def buckets_of(path: str) -> dict[str, int]:
    """Measures by name, of histograms."""
    reader = SegmentReader(path)
    records, cells = reader.new_records(), segment_cells(reader).tolist()
    sums: dict[str, int] = {}
    for record in records:
        name = record.families[0][0]
        sums[name] = sums.get(name, 0) + sum(cells[record.first : record.first + record.count - 1])
    return sums


@pytest.mark.parametrize("whole_process", [True, False])
async def test_it_measures_the_loop_always_and_the_collector_where_the_process_is_its_own(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any], whole_process: bool
) -> None:
    monkeypatch.setattr(loop_watch, "BEAT_S", 0.001)
    path = str(run_dir / "query-0-1.cells")
    watched = list(gc.callbacks)
    watch = LoopWatch(ProcessRecorder(Segment.create(path, 0, process="query")), whole_process=whole_process)
    watch.start()
    gc.collect()
    await until(lambda: buckets_of(path).get("flyproxy_event_loop_lag_seconds", 0) >= 3)
    watch.stop()
    watch.stop()
    assert gc.callbacks == watched
    assert (buckets_of(path).get("flyproxy_gc_pause_seconds", 0) > 0) == whole_process
