"""What a process counts about itself, by the catalog's names."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flyproxy.instrument.allotment import Allotment
from flyproxy.instrument.base import segment_cells
from flyproxy.instrument.cells import Segment, SegmentReader
from flyproxy.instrument.gc_pauses import GcPauses
from flyproxy.instrument.own_metrics import OwnMetrics, ProcessRecorder
from flyproxy.instrument.recorder import Recorder

MakeWorker = Callable[..., Recorder]


def series_of(path: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[int]]:
    reader = SegmentReader(path)
    records, cells = reader.new_records(), segment_cells(reader).tolist()
    return {
        (record.families[0][0], record.labels): cells[record.first : record.first + record.count] for record in records
    }


@pytest.fixture
def path(run_dir: Path) -> str:
    return str(run_dir / "telemetry.cells")


def test_counters_gauges_and_histograms_stand_in_the_cells_at_once(path: str) -> None:
    own = OwnMetrics(Segment.create(path, process="telemetry"))
    own.count("flyproxy_store_rows_appended_total", 3)
    own.count("flyproxy_store_rows_appended_total")
    own.count("flyproxy_child_restarts_total", process="edge")
    own.set("flyproxy_store_series", 17)
    own.set_seconds("flyproxy_config_last_reload_success_timestamp_seconds", 1_700_000_000.25)
    own.observe("flyproxy_query_duration_seconds", 5_000_000, kind="query_range")
    own.observe("flyproxy_query_duration_seconds", 40_000_000_000, kind="query_range")
    series = series_of(path)
    assert series["flyproxy_store_rows_appended_total", ()] == [4]
    assert series["flyproxy_child_restarts_total", (("process", "edge"),)] == [1]
    assert series["flyproxy_store_series", ()] == [17]
    assert series["flyproxy_config_last_reload_success_timestamp_seconds", ()] == [1_700_000_000_250_000_000]
    histogram = series["flyproxy_query_duration_seconds", (("kind", "query_range"),)]
    assert histogram == [0, 1, *[0] * 9, 1, 40_005_000_000]


def test_a_workers_own_series_say_which_worker(make_worker: MakeWorker) -> None:
    recorder = make_worker("edge-4.cells", 4)
    process = recorder.process()
    process.limit_reached("head_bytes")
    process.limit_reached("head_bytes", 2)
    process.connections(12)
    process.loop_lag(3_000_000)
    process.access_log_dropped(5)
    series = series_of(recorder.segment.path)
    who = (("process", "edge"), ("worker", "4"))
    assert series["flyproxy_limit_reached_total", (("limit", "head_bytes"), *who)] == [3]
    assert series["flyproxy_edge_connections", who] == [12]
    assert series["flyproxy_event_loop_lag_seconds", who][3] == 1
    assert series["flyproxy_access_log_dropped_total", who] == [5]


def test_the_garbage_collectors_own_numbers_are_taken_over(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    before = gc.get_stats()[2]["collections"]
    pauses = GcPauses()
    gc.collect()
    recorder.process().sample_gc(pauses)
    who = (("generation", "2"), ("process", "edge"), ("worker", "0"))
    series = series_of(recorder.segment.path)
    assert series["python_gc_collections_total", who][0] > before
    for name in ("python_gc_objects_collected_total", "python_gc_objects_uncollectable_total"):
        assert (name, who) in series


def test_the_garbage_collectors_numbers_are_not_told_twice_when_the_segment_is_renewed(run_dir: Path) -> None:
    paths = [str(run_dir / f"query-{number}.cells") for number in range(2)]
    own = ProcessRecorder(Segment.create(paths[0], 3, process="query"))
    pauses = GcPauses()
    own.sample_gc(pauses)
    own.move(Allotment(Segment.create(paths[1], 3, process="query")))
    gc.collect()
    own.sample_gc(pauses)
    who = (("generation", "2"), ("process", "query"), ("worker", "3"))
    told = [series_of(path)["python_gc_collections_total", who][0] for path in paths]
    assert sum(told) == gc.get_stats()[2]["collections"]


def test_the_collectors_pauses_are_a_histogram_by_generation(run_dir: Path) -> None:
    path = str(run_dir / "query.cells")
    own = ProcessRecorder(Segment.create(path, 3, process="query"))
    pauses = GcPauses()
    pauses.start()
    try:
        gc.collect(2)
        gc.collect(2)
        gc.collect(0)
    finally:
        pauses.stop()
    gc.collect(2)
    own.sample_gc(pauses)
    for generation, least in (("0", 1), ("2", 2)):
        who = (("generation", generation), ("process", "query"), ("worker", "3"))
        *buckets, sum_ns = series_of(path)["flyproxy_gc_pause_seconds", who]
        assert sum(buckets) >= least
        assert sum_ns > 0
    before = series_of(path)
    assert sum(sum(cells) for cells in pauses.take()) == 0
    own.sample_gc(pauses)
    assert {key: cells for key, cells in series_of(path).items() if "pause" in key[0]} == {
        key: cells for key, cells in before.items() if "pause" in key[0]
    }


def test_a_name_that_is_not_in_the_catalog_is_our_mistake(path: str) -> None:
    own = OwnMetrics(Segment.create(path))
    with pytest.raises(KeyError):
        own.count("flyproxy_made_up_total")
    with pytest.raises(AssertionError, match="has the labels"):
        own.count("flyproxy_store_rows_appended_total", colour="blue")


def test_a_full_segment_harms_nobody(path: str) -> None:
    own = OwnMetrics(Segment.create(path, cells_max=3))
    own.count("flyproxy_store_rows_appended_total")
    own.set("flyproxy_store_series", 1)
    own.observe("flyproxy_query_duration_seconds", 1, kind="query")
    refused = [cells for (name, _), cells in series_of(path).items() if name == "flyproxy_limit_reached_total"]
    assert refused == [[3]]


def test_threads_do_not_lose_each_others_counts(path: str) -> None:
    own = OwnMetrics(Segment.create(path, process="telemetry"))

    def count() -> None:
        for _ in range(2000):
            own.count("flyproxy_store_rows_appended_total")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert series_of(path)["flyproxy_store_rows_appended_total", ()] == [8000]
