"""The names, types, labels and buckets others rely on."""

import re
from pathlib import Path

import pytest

from flyproxy.instrument import catalog
from flyproxy.instrument.catalog import BUCKETS, FAMILIES, LIMITS, le_text

ROOT = Path(__file__).parents[2]

EDGE = ("app", "region", "host", "proxy_id")
APP = ("app", "region", "host", "instance", "proxy_id")
INSTANCE = ("app", "region", "host", "instance")

FLY = {
    "fly_edge_http_responses_count": ("counter", (*EDGE, "status")),
    "fly_edge_http_response_time_seconds": ("histogram", (*EDGE, "status")),
    "fly_edge_tcp_connects_count": ("counter", EDGE),
    "fly_edge_tcp_disconnects_count": ("counter", EDGE),
    "fly_edge_data_out": ("counter", EDGE),
    "fly_edge_data_in": ("counter", EDGE),
    "fly_edge_error_count": ("counter", (*EDGE, "code")),
    "fly_app_concurrency": ("gauge", APP),
    "fly_app_http_responses_count": ("counter", (*APP, "status")),
    "fly_app_http_response_time_seconds": ("histogram", (*APP, "status")),
    "fly_app_connect_time_seconds": ("histogram", APP),
    "fly_app_tcp_connects_count": ("counter", APP),
    "fly_app_tcp_disconnects_count": ("counter", APP),
    "fly_instance_up": ("gauge", ("app", "region", "host", "instance")),
    "fly_instance_net_recv_bytes": ("counter", ("app", "region", "host", "instance", "device")),
    "fly_instance_net_sent_bytes": ("counter", ("app", "region", "host", "instance", "device")),
    **{
        f"fly_instance_memory_{name}": ("gauge", INSTANCE)
        for name in (
            "mem_total", "mem_free", "mem_available", "buffers", "cached", "swap_cached", "active", "inactive",
            "swap_total", "swap_free", "dirty", "writeback", "slab", "shmem", "vmalloc_total", "vmalloc_used",
            "vmalloc_chunk",
        )
    },
    "fly_instance_memory_pressure_some": ("gauge", (*INSTANCE, "pressure_duration")),
    "fly_instance_memory_pressure_full": ("gauge", (*INSTANCE, "pressure_duration")),
    "fly_instance_load_average": ("gauge", (*INSTANCE, "minutes")),
    "fly_instance_cpu": ("counter", (*INSTANCE, "cpu_id", "mode")),
    **{
        f"fly_instance_disk_{name}": ("counter", (*INSTANCE, "device"))
        for name in (
            "reads_completed", "reads_merged", "sectors_read", "time_reading", "writes_completed", "writes_merged",
            "sectors_written", "time_writing", "time_io", "time_io_weighted",
        )
    },
    "fly_instance_disk_io_in_progress": ("gauge", (*INSTANCE, "device")),
    **{
        f"fly_instance_net_{name}": ("counter", (*INSTANCE, "device"))
        for name in (
            "recv_packets", "recv_errs", "recv_drop", "recv_fifo", "recv_frame", "recv_compressed", "recv_multicast",
            "sent_packets", "sent_errs", "sent_drop", "sent_fifo", "sent_colls", "sent_carrier", "sent_compressed",
        )
    },
    "fly_instance_filefd_allocated": ("gauge", INSTANCE),
    "fly_instance_filefd_maximum": ("gauge", INSTANCE),
    **{
        f"fly_instance_filesystem_{name}": ("gauge", (*INSTANCE, "mount"))
        for name in ("blocks", "block_size", "blocks_free", "blocks_avail")
    },
    "fly_instance_uptime_seconds": ("gauge", INSTANCE),
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "labels"), [(name, *rest) for name, rest in FLY.items()])
def test_flys_families_keep_their_name_type_and_labels(name: str, kind: str, labels: tuple[str, ...]) -> None:
    assert (FAMILIES[name].type, FAMILIES[name].labels) == (kind, labels)


def test_there_is_no_other_family_named_like_flys() -> None:
    assert {name for name in FAMILIES if name.startswith("fly_")} == set(FLY)


def test_the_buckets_are_flys_and_spelled_as_fly_spells_them() -> None:
    spelled = "0.005 0.025 0.05 0.1 0.2 0.5 1 5 15 30 60 120"
    assert " ".join(le_text(bound) for bound in BUCKETS) == spelled
    for name, (kind, _) in FLY.items():
        assert FAMILIES[name].buckets == (BUCKETS if kind == "histogram" else None)


def test_our_own_counters_end_in_total_and_our_units_are_in_the_name() -> None:
    for family in FAMILIES.values():
        if not family.name.startswith("fly_"):
            assert (family.type == "counter") == family.name.endswith("_total"), family.name
            assert not family.unit or family.name.removesuffix("_total").endswith(family.unit), family.name


def test_what_is_derived_is_derived_from_a_histogram_with_the_same_labels() -> None:
    assert len(catalog.DERIVED) == 2
    for source, counter in catalog.DERIVED.items():
        assert FAMILIES[source].labels == counter.labels
        assert counter.cell_count == 0
        assert FAMILIES[source].cell_count == 14


def test_the_metrics_page_is_the_catalog() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == catalog.markdown(), "python -m flyproxy.instrument.catalog > docs/metrics.md"
    for name in (*FAMILIES, *LIMITS):
        assert f"`{name}`" in page


def test_every_limit_that_is_counted_is_in_the_catalog() -> None:
    for path in (ROOT / "flyproxy").rglob("*.py"):
        for limit in re.findall(r"""limit_reached\(\s*["']([^"']*)["']""", path.read_text()):
            assert limit in LIMITS, f"{path.relative_to(ROOT)}: {limit}"


def test_nothing_is_in_the_catalog_that_nobody_counts() -> None:
    sources = [path for path in (ROOT / "flyproxy").rglob("*.py") if path.name != "catalog.py"]
    code = "\n".join(path.read_text() for path in sources)
    elsewhere = {family.name for family in catalog.DERIVED.values()}
    for family in FAMILIES.values():
        if family.name not in elsewhere and not family.name.startswith(("process_", "python_gc_objects_")):
            assert f'"{family.name}"' in code, family.name
    for limit in LIMITS:
        assert f'"{limit}"' in code, limit
