"""The verbs count what their names say, and nothing is written before the fold."""

from collections.abc import Callable

import pytest

from flyproxy.instrument.base import segment_cells
from flyproxy.instrument.catalog import BUCKETS
from flyproxy.instrument.cells import Segment, SegmentReader
from flyproxy.instrument.recorder import EdgeRecorder, InstanceRecorder, Recorder

MakeWorker = Callable[..., Recorder]
MS = 1_000_000


def cells_of(recorder: Recorder) -> dict[str, list[int]]:
    """What stands in the segment: {"family{status or code}": its cells}."""
    reader = SegmentReader(recorder.segment.path)
    found: dict[str, list[int]] = {}
    records, cells = reader.new_records(), segment_cells(reader).tolist()
    for record in records:
        labels = dict(record.labels)
        word = labels.get("status") or labels.get("code") or labels.get("limit") or ""
        at = record.first
        for name, count in record.families:
            found[f"{name}{{{word}}}"] = cells[at : at + count]
            at += count
    return found


def edge_of(recorder: Recorder) -> EdgeRecorder:
    return recorder.edge("hello", "personal", "ord", "2bc3")


def instance_of(recorder: Recorder) -> InstanceRecorder:
    return recorder.instance("hello", "personal", "fra", "033a", "3d8d9e27b24e89")


def test_a_new_child_stands_at_zero_with_status_200_only(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge_of(recorder)
    instance_of(recorder)
    cells = cells_of(recorder)
    assert cells["fly_edge_http_response_time_seconds{200}"] == [0] * 14
    assert cells["fly_app_http_response_time_seconds{200}"] == [0] * 14
    assert cells["fly_app_concurrency{}"] == [0]
    assert cells["fly_edge_data_in{}"] == [0]
    assert not any("{404}" in name or "{500}" in name for name in cells)


def test_edge_verbs_count_what_they_say(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge = edge_of(recorder)
    edge.connected()
    edge.connected()
    edge.disconnected()
    edge.response(200, 12 * MS, 623, 1300)
    edge.response(503, 1 * MS, 100, 200)
    edge.transferred(10, 20)
    edge.error("PR01")
    edge.error("PR01")
    recorder.fold()
    cells = cells_of(recorder)
    assert cells["fly_edge_tcp_connects_count{}"] == [2]
    assert cells["fly_edge_tcp_disconnects_count{}"] == [1]
    assert cells["fly_edge_data_in{}"] == [733]
    assert cells["fly_edge_data_out{}"] == [1520]
    assert cells["fly_edge_error_count{PR01}"] == [2]
    assert cells["fly_edge_http_response_time_seconds{200}"] == [0, 1, *[0] * 11, 12 * MS]
    assert cells["fly_edge_http_response_time_seconds{503}"] == [1, *[0] * 12, MS]


def test_instance_verbs_count_what_they_say(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    instance = instance_of(recorder)
    instance.dialled(30 * MS)
    instance.dialled(2 * MS)
    instance.hung_up()
    instance.started()
    instance.started()
    instance.finished()
    instance.response(404, 400 * MS)
    instance.transferred(700, 1250)
    recorder.fold()
    cells = cells_of(recorder)
    assert instance.in_flight == 1
    assert cells["fly_app_concurrency{}"] == [1]
    assert cells["fly_app_tcp_connects_count{}"] == [2]
    assert cells["fly_app_tcp_disconnects_count{}"] == [1]
    assert cells["fly_app_connect_time_seconds{}"] == [1, 0, 1, *[0] * 10, 32 * MS]
    assert cells["fly_app_http_response_time_seconds{404}"] == [*[0] * 5, 1, *[0] * 7, 400 * MS]
    assert cells["fly_instance_net_recv_bytes{}"] == [700]
    assert cells["fly_instance_net_sent_bytes{}"] == [1250]


@pytest.mark.parametrize("index", range(12))
def test_a_bucket_includes_its_bound_and_not_a_nanosecond_more(make_worker: MakeWorker, index: int) -> None:
    recorder = make_worker()
    bound_ns = round(BUCKETS[index] * 1e9)
    edge_of(recorder).response(200, bound_ns, 0, 0)
    edge_of(recorder).response(200, bound_ns + 1, 0, 0)
    recorder.fold()
    histogram = cells_of(recorder)["fly_edge_http_response_time_seconds{200}"]
    assert [place for place, count in enumerate(histogram[:13]) if count] == [index, index + 1]
    assert histogram[13] == 2 * bound_ns + 1


def test_nothing_is_in_the_segment_before_the_fold_and_all_of_it_after(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge = edge_of(recorder)
    for duration_ms in (1, 10, 10, 300, 3, 200_000):
        edge.response(200, duration_ms * MS, 1, 1)
    assert cells_of(recorder)["fly_edge_http_response_time_seconds{200}"] == [0] * 14
    recorder.fold()
    expected = [2, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 200_324 * MS]
    assert cells_of(recorder)["fly_edge_http_response_time_seconds{200}"] == expected
    edge.response(200, 30 * MS, 1, 1)
    recorder.fold()
    expected[2], expected[13] = 1, 200_354 * MS
    assert cells_of(recorder)["fly_edge_http_response_time_seconds{200}"] == expected


def test_the_fold_is_asked_for_once_per_turn(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge, instance = edge_of(recorder), instance_of(recorder)
    asked: list[str] = []
    recorder.on_dirty = lambda: asked.append("fold")
    edge.response(200, MS, 1, 1)
    instance.response(200, MS)
    edge.connected()
    assert asked == ["fold"]
    recorder.fold()
    recorder.fold()
    instance.started()
    assert asked == ["fold", "fold"]


def test_children_are_the_same_objects_after_a_reload(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    assert edge_of(recorder) is edge_of(recorder)
    assert instance_of(recorder) is instance_of(recorder)
    assert recorder.process() is recorder.process()
    assert recorder.edge("hello", "personal", "fra", "2bc3") is not edge_of(recorder)
    assert recorder.edge("hello", "another", "ord", "2bc3") is not edge_of(recorder)


def test_a_status_that_is_none_counts_as_the_last_there_is(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    for status in (0, 600, 599, 999):
        edge_of(recorder).response(status, MS, 0, 0)
    recorder.fold()
    statuses = [name for name in cells_of(recorder) if name.startswith("fly_edge_http_response_time_seconds")]
    assert statuses == [f"fly_edge_http_response_time_seconds{{{status}}}" for status in (200, 599)]
    assert cells_of(recorder)["fly_edge_http_response_time_seconds{599}"][0] == 4


def test_a_full_segment_counts_what_fits_says_so_and_harms_no_request(make_worker: MakeWorker) -> None:
    recorder = make_worker(cells_max=3 + 4 + 14)
    edge, refused = edge_of(recorder), instance_of(recorder)
    for recorded in (edge, refused):
        recorded.transferred(5, 6)
    edge.response(200, MS, 1, 1)
    edge.response(500, MS, 1, 1)
    edge.error("PR01")
    refused.response(200, MS)
    refused.dialled(MS)
    refused.started()
    recorder.fold()
    cells = cells_of(recorder)
    assert cells["fly_edge_http_response_time_seconds{200}"][0] == 1
    assert cells["fly_edge_data_in{}"] == [7]
    assert "fly_app_concurrency{}" not in cells
    assert cells["flyproxy_limit_reached_total{cells}"][0] >= 5
    assert cells["flyproxy_cells_used{}"] == cells["flyproxy_cells_capacity{}"] == [21]
    assert refused.in_flight == 1


def test_rotation_goes_on_from_zero_in_a_fresh_segment_and_moves_the_gauges(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge, instance, idle = edge_of(recorder), instance_of(recorder), recorder.edge("idle", "personal", "ord", "2bc3")
    edge.response(200, 12 * MS, 5, 6)
    edge.error("PC02")
    edge.connected()
    idle.connected()
    instance.started()
    instance.dialled(MS)
    recorder.process().connections(17)
    old = recorder.segment
    recorder.rotate(Segment.create(old.path.replace("edge-0", "edge-0-b"), 0))
    edge.response(200, 12 * MS, 7, 8)
    edge.error("PC02")
    instance.response(200, MS)
    instance.dialled(MS)
    recorder.fold()
    new = cells_of(recorder)
    assert new["fly_edge_http_response_time_seconds{200}"] == [0, 1, *[0] * 11, 12 * MS]
    assert new["fly_edge_data_in{}"] == [7]
    assert new["fly_edge_tcp_connects_count{}"] == [0]
    assert new["fly_edge_error_count{PC02}"] == [1]
    assert new["fly_app_concurrency{}"] == [1]
    assert new["fly_app_connect_time_seconds{}"][0] == 1
    assert new["flyproxy_edge_connections{}"] == [17]
    recorder.segment.close()
    reader = SegmentReader(old.path)
    cells = dict(zip(range(reader.used), segment_cells(reader).tolist(), strict=True))
    gauges = ("fly_app_concurrency", "flyproxy_edge_connections", "flyproxy_cells_used", "flyproxy_cells_capacity")
    for record in reader.new_records():
        if record.families[0][0] in gauges:
            assert cells[record.first] == 0
        if record.families[0][0] == "fly_edge_error_count":
            assert cells[record.first] == 1
    assert not any(
        dict(record.labels).get("app") == "idle" for record in SegmentReader(recorder.segment.path).new_records()
    )


def test_rotation_forgets_who_is_held_by_nobody_and_who_comes_back_counts_on_from_there(
    make_worker: MakeWorker,
) -> None:
    recorder = make_worker(cells_max=200)
    kept = instance_of(recorder)
    for number in range(3):
        recorder.instance("gone", "personal", "ord", "2bc3", f"gone-{number}").transferred(1, 1)
    assert recorder.segment.fullness > 0.5
    assert recorder.mostly_gone(1)
    assert not recorder.mostly_gone(2), "half of four is not most"
    recorder.rotate(Segment.create(recorder.segment.path.replace("edge-0", "edge-0-b"), 0))
    assert recorder.segment.fullness < 0.5
    assert not recorder.mostly_gone(0)
    assert instance_of(recorder) is kept
    recorder.instance("gone", "personal", "ord", "2bc3", "gone-0").transferred(7, 8)
    recorder.fold()
    assert cells_of(recorder)["fly_instance_net_recv_bytes{}"] == [7]
    recorder.segment.close()


def test_a_small_or_well_used_segment_is_not_left(make_worker: MakeWorker) -> None:
    recorder = make_worker()
    for number in range(10):
        recorder.instance("gone", "personal", "ord", "2bc3", f"gone-{number}")
    assert not recorder.mostly_gone(1)
