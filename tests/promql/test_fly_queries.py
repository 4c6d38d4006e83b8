"""Every query of Fly's dashboards is answered with data where its families have some, at every step Grafana may ask."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flyproxy.promql.engine import Engine
from flyproxy.promql.parse import ParseError
from flyproxy.series.frame import Frame, Storage
from flyproxy.series.labels import Labels, labels_from

StorageOf = Callable[[Sequence[Frame]], Storage]
EXPRESSIONS = (Path(__file__).parent / "expressions" / "fly.txt").read_text().split("\n")
QUERIES = [line for line in EXPRESSIONS if line and not line.startswith("# ")]
BEAT_MS = 15_000
BEATS = 241
"""An hour."""

PROXY_COUNTERS = ["data_in", "data_out", "tcp_connects_count", "tcp_disconnects_count", "error_count"]
MEMORY_KB = {"mem_total": 4000.0, "mem_available": 3000.0, "mem_free": 3100.0}
MODES = ["user", "system", "idle", "iowait", "irq", "softirq", "steal"]


def families() -> list[tuple[Labels, float | None]]:
    """Series of one app in two regions, each with its instance; a number for a gauge, None for a counter."""
    found: list[tuple[Labels, float | None]] = []

    def add(name: str, value: float | None = None, /, **labels: str) -> None:
        found.append((labels_from({"__name__": name, "app": "hello", **labels}), value))

    for region, host, instance in (("ord", "2bc3", "i"), ("fra", "033a", "j")):
        edge = {"region": region, "host": host}
        mine = {**edge, "instance": instance}
        for name in PROXY_COUNTERS:
            add(f"fly_edge_{name}", **edge)
        for prefix, where in (("fly_edge", edge), ("fly_app", mine)):
            for status in ("200", "404"):
                add(f"{prefix}_http_responses_count", **where, status=status)
                for le in ("0.1", "0.5", "+Inf"):
                    add(f"{prefix}_http_response_time_seconds_bucket", **where, status=status, le=le)
                add(f"{prefix}_http_response_time_seconds_count", **where, status=status)
                add(f"{prefix}_http_response_time_seconds_sum", **where, status=status)
        add("fly_edge_tls_handshake_errors", **edge, servername="a")
        add("fly_edge_tls_queue_time_seconds_bucket", **edge, le="+Inf")
        for name in ("tcp_connects_count", "soft_limit_reached_count"):
            add(f"fly_app_{name}", **mine)
        add("fly_app_concurrency", 3.0, **mine)
        for name in ("up", "exit_oom", "cpu_baseline", "cpu_balance"):
            add(f"fly_instance_{name}", 1.0, **mine)
        for name, size in MEMORY_KB.items():
            add(f"fly_instance_memory_{name}", size, **mine)
        for minutes in ("1", "5", "15"):
            add("fly_instance_load_average", 0.5, **mine, minutes=minutes)
        for mode in MODES:
            add("fly_instance_cpu", **mine, cpu_id="0", mode=mode)
        for name in ("cpu_throttle", "disk_sectors_read"):
            add(f"fly_instance_{name}", **mine)
        for name in ("recv_bytes", "sent_bytes"):
            add(f"fly_instance_net_{name}", **mine, device="eth0")
        for name in ("blocks", "block_size", "blocks_avail"):
            add(f"fly_instance_filesystem_{name}", 64.0, **mine, mount="/.fly-upper-layer")
    return found


def frame() -> Frame:
    series = families()
    rising = np.arange(BEATS, dtype=np.float64) * 40
    rows = [
        rising * (place % 5 + 1) if value is None else np.full(BEATS, value) for place, (_, value) in enumerate(series)
    ]
    return Frame([labels for labels, _ in series], np.arange(BEATS, dtype=np.int64) * BEAT_MS, np.stack(rows))


@pytest.mark.parametrize("step_ms", [BEAT_MS, 5_000, 60_000])
@pytest.mark.parametrize("expression", QUERIES)
def test_it_is_answered_over_a_range(storage_of: StorageOf, expression: str, step_ms: int) -> None:
    result = Engine().query_range(expression, storage_of([frame()]), 600_000, 1_800_000, step_ms)
    assert result.present.any()
    assert np.isfinite(result.values[result.present]).all()


@pytest.mark.parametrize("expression", QUERIES)
def test_it_is_answered_at_an_instant(storage_of: StorageOf, expression: str) -> None:
    assert Engine().query(expression, storage_of([frame()]), 1_800_000).present.any()


def test_the_data_out_map_and_table_say_what_was_sent(storage_of: StorageOf) -> None:
    rate = 'sum(rate(fly_edge_data_out{app="hello"}[10m]))by(region)'
    upper = Engine().query(f'label_uppercase({rate}, "region") > 0', storage_of([frame()]), 1_800_000)
    assert [dict(labels)["region"] for labels in upper.labels] == ["FRA", "ORD"]
    table = Engine().query(f'topk_avg(1, {rate}, "region=other")', storage_of([frame()]), 1_800_000)
    assert [dict(labels)["region"] for labels in table.labels][1] == "other"
    assert table.values.sum() == pytest.approx(upper.values.sum())


def test_what_is_used_of_memory_is_never_less_than_nothing(storage_of: StorageOf) -> None:
    """total - max(available, free) + max(0, free - available) = 4000 - 3100 + 100."""
    (used,) = [query for query in QUERIES if "max(0," in query]
    assert Engine().query(used, storage_of([frame()]), 1_800_000).values.tolist() == [[1000.0]]


@pytest.mark.parametrize("expression", QUERIES)
def test_without_metricsql_it_is_answered_or_told_with_its_place_and_mend(
    storage_of: StorageOf, expression: str
) -> None:
    told = ""
    try:
        Engine().query(expression, storage_of([frame()]), 1_800_000, metricsql=False)
    except ParseError as fault:
        told = str(fault)
    assert not told or re.match(r"1:\d+: .*(MetricsQL, which is off here|e\.g\. |a subquery is written)", told)
