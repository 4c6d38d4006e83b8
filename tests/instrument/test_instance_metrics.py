"""The machine's readings as series of the instances on it."""

import numpy as np

from flyproxy.instrument.instance_metrics import HOST_TARGET, InstanceMetrics, LocalInstance
from flyproxy.instrument.procfs import Reading
from flyproxy.series.frame import is_stale
from flyproxy.series.samples import Batch

ONE = LocalInstance("personal", "hello", "ord", "2bc3", "3d8d9e27b24e89")
TWO = LocalInstance("personal", "other", "ams", "2bc3", "4d8d9e27b24e89")
SHOP = LocalInstance("shop", "cart", "ord", "2bc3", "5d8d9e27b24e89")
READINGS = [
    Reading("fly_instance_memory_mem_total", (), 1e9),
    Reading("fly_instance_cpu", (("cpu_id", "0"), ("mode", "idle")), 123456789.0),
]
LATER = [reading._replace(value=reading.value + 1) for reading in READINGS]


def series_of(batch: Batch) -> dict[str, float]:
    return {
        " ".join(f"{name}={value}" for name, value in labels): value
        for labels, value in zip(batch.layout.series, batch.values.tolist(), strict=True)
    }


def make(*instances: LocalInstance, **bounds: int) -> tuple[InstanceMetrics, list[str]]:
    reached: list[str] = []
    metrics = InstanceMetrics(reached.append, **bounds)
    metrics.keep(instances)
    return metrics, reached


def test_every_instance_has_every_reading_in_its_organization() -> None:
    metrics, reached = make(TWO, SHOP, ONE)
    personal, shop = metrics.take(READINGS, 5000, 5000)
    assert (personal.organization, personal.target, personal.timestamp_ms) == ("personal", HOST_TARGET, 5000)
    cpu, memory = "__name__=fly_instance_cpu", "__name__=fly_instance_memory_mem_total"
    assert series_of(personal) == {
        f"{memory} app=hello host=2bc3 instance=3d8d9e27b24e89 region=ord": 1e9,
        f"{cpu} app=hello cpu_id=0 host=2bc3 instance=3d8d9e27b24e89 mode=idle region=ord": 123456789.0,
        f"{memory} app=other host=2bc3 instance=4d8d9e27b24e89 region=ams": 1e9,
        f"{cpu} app=other cpu_id=0 host=2bc3 instance=4d8d9e27b24e89 mode=idle region=ams": 123456789.0,
    }
    assert {dict(labels)["app"] for labels in shop.layout.series} == {"cart"}
    assert not reached


def test_the_kernels_counters_are_never_born_at_zero() -> None:
    metrics, _ = make(ONE)
    assert not metrics.take(READINGS, 5000, 5000)[0].layout.counters.any()


def test_labels_are_made_once() -> None:
    metrics, _ = make(ONE, SHOP)
    first, second = metrics.take(READINGS, 5000, 5000), metrics.take(LATER, 10_000, 5000)
    assert [batch.layout for batch in first] == [batch.layout for batch in second]
    assert second[0].values.tolist() == [1e9 + 1, 123456790.0]


def test_the_same_instances_are_no_change() -> None:
    metrics, _ = make(ONE, SHOP)
    assert not metrics.keep([SHOP, ONE])
    assert metrics.keep([SHOP])


def test_a_new_reading_is_a_new_layout() -> None:
    metrics, _ = make(ONE)
    before = metrics.take(READINGS, 5000, 5000)[0].layout
    after = metrics.take([*READINGS, Reading("fly_instance_uptime_seconds", (), 5.0)], 10_000, 5000)[0]
    assert after.layout is not before
    assert after.values.tolist() == [1e9, 123456789.0, 5.0]


def test_an_organization_whose_last_instance_left_is_stale_once() -> None:
    metrics, _ = make(ONE, SHOP)
    metrics.take(READINGS, 5000, 5000)
    metrics.keep([SHOP])
    shop, personal = metrics.take(LATER, 10_000, 5000)
    assert (shop.organization, personal.organization) == ("shop", "personal")
    assert is_stale(personal.values).all()
    assert personal.values.size == 2
    assert [batch.organization for batch in metrics.take(LATER, 15_000, 5000)] == ["shop"]
    metrics.keep([])
    assert [batch.organization for batch in metrics.take(LATER, 20_000, 5000)] == ["shop"]
    assert metrics.take(LATER, 25_000, 5000) == []


def test_a_machine_that_says_nothing_ends_what_was_said() -> None:
    metrics, _ = make(ONE)
    metrics.take(READINGS, 5000, 5000)
    assert np.array_equal(is_stale(metrics.take([], 10_000, 5000)[0].values), [True, True])
    assert metrics.take([], 15_000, 5000) == []
    assert metrics.families() == []


def test_instances_beyond_the_bound_have_no_series_and_that_is_counted_once() -> None:
    metrics, reached = make(ONE, TWO, SHOP, series_max=5)
    for at in (5000, 10_000):
        (batch,) = metrics.take(READINGS, at, 5000)
        assert batch.organization == "personal"
        assert batch.values.size == 4
    assert reached == ["host_series"]


def test_the_metrics_page_has_them_by_family() -> None:
    metrics, _ = make(ONE, SHOP)
    assert metrics.families() == []
    metrics.take(READINGS, 5000, 5000)
    memory, cpu = metrics.families()
    assert (memory.name, memory.type) == ("fly_instance_memory_mem_total", "gauge")
    assert (cpu.name, cpu.type) == ("fly_instance_cpu", "counter")
    assert [dict(sample.labels) for sample in cpu.samples] == [
        {**ONE.labels(), "cpu_id": "0", "mode": "idle"},
        {**SHOP.labels(), "cpu_id": "0", "mode": "idle"},
    ]
    assert [sample.value for sample in memory.samples] == [1e9, 1e9]
