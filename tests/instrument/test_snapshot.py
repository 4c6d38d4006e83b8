"""All segments in one batch per organization; counters never go back, and what is gone ends once."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyproxy.instrument.cells import Segment
from flyproxy.instrument.own_metrics import OwnMetrics
from flyproxy.instrument.recorder import EdgeRecorder, InstanceRecorder, Recorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample
from flyproxy.series.frame import is_stale
from flyproxy.series.labels import METRIC_NAME, label_value, labels_from
from flyproxy.series.samples import Batch

MakeWorker = Callable[..., Recorder]
MS = 1_000_000
NOW_MS = 1_700_000_000_000


@pytest.fixture
def snapshot(run_dir: Path) -> Snapshot:
    return Snapshot(str(run_dir), interval_ms=5000)


def edge_of(recorder: Recorder, app: str = "hello") -> EdgeRecorder:
    return recorder.edge(app, "personal", "ord", "2bc3")


def instance_of(recorder: Recorder, app: str = "hello", instance: str = "3d8d9e27b24e89") -> InstanceRecorder:
    return recorder.instance(app, "personal", "fra", "033a", instance)


def owned(organization: str = "personal", **apps: list[str]) -> set[tuple[str, str, str]]:
    """What `keep` takes: these apps with the ids of their instances."""
    return {(organization, app, id) for app, ids in apps.items() for id in ("", *ids)}


def batch_of(snapshot: Snapshot, organization: str = "personal") -> Batch:
    batches = {batch.organization: batch for batch in snapshot.take(NOW_MS)}
    return batches[organization]


def value(batch: Batch, name: str, **labels: str) -> float:
    """The sum over the series of this name with these labels."""
    found = [
        batch.values[row]
        for row, series in enumerate(batch.layout.series)
        if label_value(series, METRIC_NAME) == name
        and all(label_value(series, label) == wanted for label, wanted in labels.items())
    ]
    assert found, f"no {name}{labels}"
    return float(np.sum(found))


def names(batch: Batch) -> set[str]:
    return {label_value(series, METRIC_NAME) for series in batch.layout.series}


def test_it_sums_all_workers(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    for worker in range(3):
        recorder = make_worker(f"edge-{worker}.cells", worker)
        for duration_ms in (1, 150, 150):
            edge_of(recorder).response(200, duration_ms * MS, 100, 1000 + worker)
        instance_of(recorder).started()
        recorder.fold()
    batch = batch_of(snapshot)
    assert (batch.organization, batch.target, batch.timestamp_ms, batch.interval_ms) == (
        "personal",
        "own",
        NOW_MS,
        5000,
    )
    assert value(batch, "fly_edge_http_responses_count", status="200", region="ord", proxy_id="blue") == 9
    assert value(batch, "fly_edge_http_response_time_seconds_count") == 9
    assert value(batch, "fly_edge_http_response_time_seconds_bucket", le="0.1") == 3
    assert value(batch, "fly_edge_http_response_time_seconds_bucket", le="0.2") == 9
    assert value(batch, "fly_edge_http_response_time_seconds_sum") == 0.903
    assert value(batch, "fly_edge_data_in") == 900
    assert value(batch, "fly_edge_data_out") == 9009
    assert value(batch, "fly_app_concurrency") == 3
    assert value(batch, "fly_instance_up") == 1


def test_series_have_exactly_the_labels_of_the_catalog(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge_of(recorder)
    instance_of(recorder)
    edge = {"app": "hello", "region": "ord", "host": "2bc3", "proxy_id": "blue"}
    instance = {"app": "hello", "region": "fra", "host": "033a", "instance": "3d8d9e27b24e89"}
    series = batch_of(snapshot).layout.series
    for expected in (
        {METRIC_NAME: "fly_edge_data_in", **edge},
        {METRIC_NAME: "fly_edge_http_responses_count", "status": "200", **edge},
        {METRIC_NAME: "fly_edge_http_response_time_seconds_bucket", "status": "200", "le": "0.005", **edge},
        {METRIC_NAME: "fly_app_concurrency", "proxy_id": "blue", **instance},
        {METRIC_NAME: "fly_app_connect_time_seconds_bucket", "proxy_id": "blue", "le": "+Inf", **instance},
        {METRIC_NAME: "fly_instance_up", **instance},
        {METRIC_NAME: "fly_instance_net_recv_bytes", "device": "eth0", **instance},
    ):
        assert labels_from(expected) in series
    assert len(set(series)) == len(series)


def test_an_organization_sees_only_its_own(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    recorder.edge("one", "first", "ord", "2bc3")
    recorder.edge("other", "second", "ord", "2bc3")
    recorder.edge("_unmatched", "_operator", "ord", "2bc3")
    batches = {batch.organization: batch for batch in snapshot.take(NOW_MS)}
    assert set(batches) == {"first", "second", "_operator"}
    apps = {name: {label_value(labels, "app") for labels in batch.layout.series} for name, batch in batches.items()}
    assert apps == {"first": {"one"}, "second": {"other"}, "_operator": {"", "_unmatched"}}
    assert "flyproxy_cells_used" in names(batches["_operator"])


def test_the_layout_is_the_same_object_until_a_new_label_set_appears(
    snapshot: Snapshot, make_worker: MakeWorker
) -> None:
    recorder = make_worker()
    edge_of(recorder).response(200, MS, 1, 1)
    recorder.fold()
    first, second = batch_of(snapshot), batch_of(snapshot)
    assert first.layout is second.layout
    assert first.values is not second.values
    edge_of(recorder).response(500, MS, 1, 1)
    recorder.fold()
    third = batch_of(snapshot)
    assert third.layout is not first.layout
    assert third.layout.series[: len(first.layout.series)] == first.layout.series
    assert value(third, "fly_edge_http_responses_count", status="500") == 1
    assert not is_stale(third.values).any()
    assert batch_of(snapshot).layout is third.layout


def test_a_worker_that_comes_later_adds_to_the_same_series(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    edge_of(make_worker("edge-0.cells", 0))
    before = batch_of(snapshot)
    later = make_worker("edge-1.cells", 1)
    edge_of(later).connected()
    later.fold()
    after = batch_of(snapshot)
    assert after.layout is before.layout
    assert value(after, "fly_edge_tcp_connects_count") == 1


def test_the_mask_says_which_series_only_grow(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge_of(recorder)
    instance_of(recorder)
    layout = batch_of(snapshot).layout
    gauges = {
        label_value(series, METRIC_NAME)
        for series, grows in zip(layout.series, layout.counters, strict=True)
        if not grows
    }
    assert gauges == {"fly_app_concurrency", "fly_instance_up"}


def test_a_retired_workers_counters_stay_and_its_gauges_go(
    snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path
) -> None:
    recorder = make_worker("edge-0.cells", 0)
    edge_of(recorder).response(200, 150 * MS, 10, 20)
    instance_of(recorder).started()
    recorder.process().connections(9)
    recorder.process().limit_reached("head_bytes")
    recorder.fold()
    before = batch_of(snapshot)
    assert value(before, "fly_app_concurrency") == 1
    snapshot.retire(recorder.segment.path)
    assert not Path(recorder.segment.path).exists()
    after = batch_of(snapshot)
    assert value(after, "fly_app_concurrency") == 0
    assert value(after, "fly_instance_up") == 1
    for batch in (after, batch_of(Snapshot(str(run_dir), interval_ms=5000))):
        assert value(batch, "fly_edge_http_response_time_seconds_bucket", le="0.2") == 1
        assert value(batch, "fly_edge_http_responses_count") == 1
        assert value(batch, "fly_edge_data_out") == 20
    operator = batch_of(Snapshot(str(run_dir), interval_ms=5000), "_operator")
    assert value(operator, "flyproxy_limit_reached_total", limit="head_bytes", worker="0") == 1
    assert "flyproxy_edge_connections" not in names(operator)


def test_a_restarted_worker_goes_on_where_its_predecessor_ended(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    seen = []
    for life in range(4):
        recorder = make_worker(f"edge-0-{life}.cells", 0)
        edge_of(recorder).response(200, MS, 10, 20)
        recorder.fold()
        seen.append(value(batch_of(snapshot), "fly_edge_http_responses_count"))
        if life % 2:
            snapshot.take(NOW_MS)
        snapshot.retire(recorder.segment.path)
        seen.append(value(batch_of(snapshot), "fly_edge_http_responses_count"))
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4]


def test_what_was_counted_after_the_last_beat_is_retired_too(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge_of(recorder)
    snapshot.take(NOW_MS)
    edge_of(recorder).response(500, MS, 1, 1)
    recorder.fold()
    snapshot.retire(recorder.segment.path)
    assert value(batch_of(snapshot), "fly_edge_http_responses_count", status="500") == 1


def test_retiring_twice_or_what_never_was_is_no_fault(
    snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make_worker()
    edge_of(recorder).response(200, MS, 1, 1)
    recorder.fold()
    monkeypatch.chdir(run_dir)
    snapshot.take(NOW_MS)
    for path in ("edge-0.cells", recorder.segment.path, str(run_dir / "never.cells")):
        snapshot.retire(path)
    assert value(batch_of(snapshot), "fly_edge_http_responses_count") == 1


def test_a_rotated_segment_is_counted_once(snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path) -> None:
    recorder = make_worker()
    edge_of(recorder).response(200, MS, 1, 1)
    instance_of(recorder).started()
    old = recorder.segment
    recorder.rotate(Segment.create(str(run_dir / "edge-0-b.cells"), 0))
    edge_of(recorder).response(200, MS, 1, 1)
    recorder.fold()
    for retired in (False, True):
        if retired:
            snapshot.retire(old.path)
        batch = batch_of(snapshot)
        assert value(batch, "fly_edge_http_responses_count") == 2
        assert value(batch, "fly_app_concurrency") == 1
    recorder.segment.close()


def test_a_final_segment_is_folded_away_with_what_does_not_exist_any_more(
    snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path
) -> None:
    recorder = make_worker()
    edge_of(recorder).response(200, MS, 1, 1)
    edge_of(recorder, "bye").response(200, MS, 1, 1)
    snapshot.keep(owned(hello=["3d8d9e27b24e89"]))
    old = recorder.segment
    recorder.rotate(Segment.create(str(run_dir / "edge-0.1.cells"), 0))
    assert os.path.exists(old.path)
    old.finish()
    edge_of(recorder).response(200, MS, 1, 1)
    recorder.fold()
    assert value(batch_of(snapshot), "fly_edge_http_responses_count") == 2
    assert not os.path.exists(old.path)
    assert value(batch_of(snapshot), "fly_edge_http_responses_count") == 2
    snapshot.keep(owned(hello=["3d8d9e27b24e89"], bye=[]))
    names = {label_value(series, "app") for series in batch_of(snapshot).layout.series}
    assert "bye" not in names
    recorder.segment.close()


def test_a_final_segment_goes_on_counting_while_there_is_no_room_for_a_base(
    snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path
) -> None:
    recorder = make_worker()
    edge_of(recorder).response(200, MS, 1, 1)
    old = recorder.segment
    recorder.rotate(Segment.create(str(run_dir / "edge-0.1.cells"), 0))
    old.finish()
    (run_dir / "base.json.new").mkdir()
    assert value(batch_of(snapshot), "fly_edge_http_responses_count") == 1
    assert os.path.exists(old.path)
    (run_dir / "base.json.new").rmdir()
    assert value(batch_of(snapshot), "fly_edge_http_responses_count") == 1
    assert not os.path.exists(old.path)
    recorder.segment.close()


def test_series_of_removed_apps_and_instances_end_once_and_vanish(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    for app in ("hello", "bye"):
        edge_of(recorder, app).response(200, MS, 1, 1)
        for instance in ("aaaa", "bbbb"):
            instance_of(recorder, app, f"{app}-{instance}").response(200, MS)
    recorder.fold()
    before = batch_of(snapshot)
    snapshot.keep(owned(hello=["hello-aaaa"]))
    farewell, after = batch_of(snapshot), batch_of(snapshot)
    assert set(farewell.layout.series) == set(before.layout.series)
    for series, stale in zip(farewell.layout.series, is_stale(farewell.values), strict=True):
        gone = label_value(series, "app") == "bye" or label_value(series, "instance") == "hello-bbbb"
        assert stale == gone
    assert {label_value(series, "app") for series in after.layout.series} == {"hello"}
    assert {label_value(series, "instance") for series in after.layout.series} == {"", "hello-aaaa"}
    assert not is_stale(after.values).any()
    assert batch_of(snapshot).layout is after.layout
    snapshot.keep(owned(hello=["hello-aaaa", "hello-bbbb"], bye=["bye-aaaa", "bye-bbbb"]))
    assert value(batch_of(snapshot), "fly_edge_http_responses_count", app="bye") == 1


def test_an_organization_whose_last_app_is_removed_says_farewell(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    edge_of(make_worker())
    edge = batch_of(snapshot)
    snapshot.keep(())
    farewell = batch_of(snapshot)
    assert farewell.layout.series == edge.layout.series
    assert is_stale(farewell.values).all()
    assert [batch.organization for batch in snapshot.take(NOW_MS)] == ["_operator"]


def test_an_app_that_another_organization_has_now_ends_for_the_one_before(
    snapshot: Snapshot, make_worker: MakeWorker
) -> None:
    recorder = make_worker()
    for organization in ("personal", "other"):
        recorder.edge("hello", organization, "ord", "2bc3").response(200, MS, 1, 1)
        recorder.instance("hello", organization, "ord", "2bc3", "hello-aaaa").response(200, MS)
    recorder.fold()
    snapshot.keep(owned("personal", hello=["hello-aaaa"]))
    assert "other" not in {batch.organization for batch in snapshot.take(NOW_MS)}
    snapshot.keep(owned("other", hello=["hello-aaaa"]))
    assert is_stale(batch_of(snapshot).values).all()
    assert {batch.organization for batch in snapshot.take(NOW_MS)} == {"_operator", "other"}


def test_an_instance_id_that_another_app_has_now_ends_for_the_one_before(
    snapshot: Snapshot, make_worker: MakeWorker
) -> None:
    recorder = make_worker()
    for app in ("hello", "bye"):
        instance_of(recorder, app, "aaaa").response(200, MS)
    recorder.fold()
    snapshot.keep(owned(hello=["aaaa"], bye=[]))
    assert {label_value(series, "app") for series in batch_of(snapshot).layout.series} == {"hello"}


def test_the_operators_own_apps_are_always_kept(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    make_worker().edge("_unmatched", "_operator", "ord", "2bc3")
    snapshot.keep(())
    assert value(batch_of(snapshot, "_operator"), "fly_edge_data_in", app="_unmatched") == 0


def test_a_removed_apps_counts_leave_the_base_unless_a_living_worker_still_has_them(
    snapshot: Snapshot, make_worker: MakeWorker
) -> None:
    dead, living, last = (make_worker(f"edge-{number}.cells", number) for number in range(3))
    for recorder, apps in ((dead, ("one", "two")), (living, ("one",))):
        for app in apps:
            edge_of(recorder, app).transferred(5, 0)
        recorder.fold()
    snapshot.take(NOW_MS)
    snapshot.keep(owned(another=[]))
    snapshot.retire(dead.segment.path)
    snapshot.retire(last.segment.path)
    snapshot.take(NOW_MS)
    snapshot.keep(owned(one=[], two=[]))
    batch = batch_of(snapshot)
    assert value(batch, "fly_edge_data_in", app="one") == 10
    assert {label_value(series, "app") for series in batch.layout.series} == {"one"}


def test_a_file_that_is_no_segment_is_counted_and_in_nobodys_way(
    snapshot: Snapshot, make_worker: MakeWorker, run_dir: Path
) -> None:
    (run_dir / "strange.cells").write_bytes(b"hello")
    edge_of(make_worker())
    assert value(batch_of(snapshot), "fly_edge_data_in") == 0
    assert snapshot.statistics()["segments_unreadable"] == 1
    assert snapshot.statistics()["segments"] == 1


def test_the_segments_there_are_and_who_writes_them(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    path = make_worker().segment.path
    (found,) = snapshot.segments()
    assert found[0] == path
    assert found[1] > 1


def test_families_are_what_a_batch_has(snapshot: Snapshot, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    edge_of(recorder).response(404, MS, 1, 2)
    instance_of(recorder)
    recorder.fold()
    exposed = {
        labels_from((*sample.labels, (METRIC_NAME, sample.name))): sample.value
        for family in snapshot.families()
        for sample in family.samples
    }
    taken = {
        series: float(number)
        for batch in snapshot.take(NOW_MS)
        for series, number in zip(batch.layout.series, batch.values, strict=True)
    }
    assert exposed == taken


def own_of(run_dir: Path, name: str) -> OwnMetrics:
    return OwnMetrics(Segment.create(str(run_dir / name), process="telemetry"))


def test_telemetrys_own_numbers_are_in_the_operators_batch(run_dir: Path) -> None:
    own = own_of(run_dir, "telemetry-0.cells")
    snapshot = Snapshot(str(run_dir), interval_ms=5000, own=own)
    own.count("flyproxy_store_rows_appended_total", 3)
    own.set("flyproxy_build_info", 1, version="0.1.0", python="3.11")
    snapshot.take(NOW_MS)
    batch = batch_of(snapshot, "_operator")
    assert value(batch, "flyproxy_store_rows_appended_total") == 3
    assert value(batch, "flyproxy_build_info", version="0.1.0") == 1
    assert value(batch, "flyproxy_segments") == 1
    assert value(batch, "flyproxy_snapshot_duration_seconds_count") == 1


def test_a_new_telemetry_goes_on_with_its_predecessors_counters_and_not_with_its_gauges(run_dir: Path) -> None:
    for life, name in enumerate(("telemetry-0.cells", "telemetry-1.cells")):
        own = own_of(run_dir, name)
        snapshot = Snapshot(str(run_dir), interval_ms=5000, own=own)
        own.set("flyproxy_config_generation", 7)
        own.set("flyproxy_child_restarts_total", 4, process="edge")
        own.count("flyproxy_store_rows_appended_total", 10)
        batch = batch_of(snapshot, "_operator")
        assert value(batch, "flyproxy_config_generation") == 7
        assert value(batch, "flyproxy_store_rows_appended_total") == 10 * (life + 1)
        assert value(batch, "flyproxy_child_restarts_total") == 4, "the supervisor keeps it and tells it anew"
    assert not (run_dir / "telemetry-0.cells").exists()


def test_families_from_outside_are_the_operators_and_end_when_they_are_gone(
    run_dir: Path, make_worker: MakeWorker
) -> None:
    samples: list[ExposedSample] = []

    def outside() -> list[ExposedFamily]:
        return [ExposedFamily("process_open_fds", "gauge", "Open file descriptors.", "", tuple(samples))]

    edge_of(make_worker())
    snapshot = Snapshot(str(run_dir), interval_ms=5000, outside=(outside,))
    assert "process_open_fds" not in names(batch_of(snapshot, "_operator"))
    samples.append(ExposedSample("process_open_fds", (("process", "edge"), ("worker", "0")), 17))
    batch = batch_of(snapshot, "_operator")
    assert value(batch, "process_open_fds", worker="0") == 17
    assert not batch.layout.counters[-1]
    assert batch_of(snapshot, "_operator").layout is batch.layout
    assert "process_open_fds" in {family.name for family in snapshot.families()}
    samples.clear()
    farewell, after = batch_of(snapshot, "_operator"), batch_of(snapshot, "_operator")
    assert np.flatnonzero(is_stale(farewell.values)).tolist() == [len(farewell.values) - 1]
    assert "process_open_fds" not in names(after)


def test_an_empty_directory_has_nothing_to_say(snapshot: Snapshot) -> None:
    assert snapshot.take(NOW_MS) == []
    assert snapshot.families() == []
