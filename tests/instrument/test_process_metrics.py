"""process_* of each process, with who it is."""

import os

from flyproxy.instrument.process_metrics import Process, ProcessMetrics

OURSELVES = Process("telemetry", None, os.getpid())


def test_every_process_has_its_own_series_with_its_name_and_number() -> None:
    metrics = ProcessMetrics(lambda: [OURSELVES, Process("edge", 3, os.getppid())])
    families = {family.name: family for family in metrics()}
    assert {
        "process_cpu_seconds_total",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    } == set(families)
    resident = families["process_resident_memory_bytes"]
    assert resident.type == "gauge"
    labels = [sample.labels for sample in resident.samples]
    assert labels == [(("process", "telemetry"),), (("process", "edge"), ("worker", "3"))]
    assert all(sample.value > 1_000_000 for sample in resident.samples[:1])
    assert families["process_cpu_seconds_total"].type == "counter"


def test_a_process_that_is_gone_has_no_samples() -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    assert ProcessMetrics(lambda: [Process("edge", 0, gone)])() == []
    assert len(ProcessMetrics(lambda: [Process("edge", 0, gone), OURSELVES])()[0].samples) == 1
