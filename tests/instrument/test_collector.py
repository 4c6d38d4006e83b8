"""Our families in somebody else's registry."""

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, Metric, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flyproxy.instrument.collector import FamiliesCollector
from flyproxy.instrument.gc_pauses import GcPauses
from flyproxy.instrument.recorder import Recorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample, openmetrics, text

MakeWorker = Callable[..., Recorder]
MS = 1_000_000


def parse_openmetrics(words: str) -> list[Metric]:
    return list(text_string_to_metric_families(words))  # type: ignore[no-untyped-call]  # the client has no types here


def openmetrics_of(registry: CollectorRegistry) -> str:
    rendered: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]  # the client has no types here
    return rendered.decode()


def as_the_client_says(family: ExposedFamily, sample: ExposedSample) -> str:
    """Its parser adds `_total` to every counter it reads."""
    return f"{sample.name.removesuffix('_total')}_total" if family.type == "counter" else sample.name


def busy(make_worker: MakeWorker, run_dir: Path) -> Snapshot:
    recorder = make_worker()
    recorder.edge('he"l\\lo', "personal", "ord", "2bc3").response(404, 150 * MS, 10, 20)
    recorder.instance("hello", "personal", "fra", "033a", "3d8d9e27b24e89").dialled(2 * MS)
    recorder.process().loop_lag(MS)
    recorder.process().sample_gc(GcPauses())
    recorder.fold()
    return Snapshot(str(run_dir), interval_ms=5000)


def test_flys_names_stay_as_they_are(make_worker: MakeWorker, run_dir: Path) -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(FamiliesCollector(busy(make_worker, run_dir).families))
    rendered = generate_latest(registry).decode()
    assert "_count_total" not in rendered
    assert (
        registry.get_sample_value(
            "fly_edge_http_responses_count",
            {"app": 'he"l\\lo', "region": "ord", "host": "2bc3", "proxy_id": "blue", "status": "404"},
        )
        == 1
    )
    assert "# TYPE fly_edge_http_response_time_seconds histogram" in rendered
    assert "# TYPE flyproxy_limit_reached_total counter" in rendered
    assert list(parse_text(rendered))


def test_it_stands_beside_the_clients_own_collectors_and_is_valid_openmetrics(
    make_worker: MakeWorker, run_dir: Path
) -> None:
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(FamiliesCollector(busy(make_worker, run_dir).families))
    names = {metric.name for metric in parse_openmetrics(openmetrics_of(registry))}
    assert {"fly_edge_data_in", "flyproxy_event_loop_lag_seconds", "process_open_fds"} <= names


def test_timestamps_are_seconds_there() -> None:
    dated = ExposedFamily("fly_x", "gauge", "X.", "", [ExposedSample("fly_x", (), 1, 1500)])
    (metric,) = FamiliesCollector(lambda: [dated]).collect()
    assert metric.samples[0].timestamp == 1.5


def test_everything_we_count_is_valid_in_both_of_our_own_formats(make_worker: MakeWorker, run_dir: Path) -> None:
    families = busy(make_worker, run_dir).families()
    rendered = text(families).decode()
    expected = sorted(
        (as_the_client_says(family, sample), sample.labels, sample.value)
        for family in families
        for sample in family.samples
    )
    read = sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for metric in parse_text(rendered)
        for sample in metric.samples
    )
    assert read == expected
    in_openmetrics = {metric.name: metric for metric in parse_openmetrics(openmetrics(families).decode())}
    assert in_openmetrics["fly_edge_http_responses_count"].type == "unknown"
    assert in_openmetrics["flyproxy_limit_reached"].type == "counter"
    assert in_openmetrics["fly_edge_http_response_time_seconds"].type == "histogram"
    assert sum(len(metric.samples) for metric in in_openmetrics.values()) == len(expected)
    bounds = [
        part.split('"')[0] for part in rendered.split("fly_app_connect_time_seconds_bucket{")[1].split('le="')[1:2]
    ]
    assert bounds == ["0.005"]
    assert 'le="1",' in rendered
    assert 'le="120",' in rendered
