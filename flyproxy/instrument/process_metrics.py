"""`process_*` of every process of the front door, read by telemetry from the outside.

(`python_gc_*` cannot be read from the outside: each process puts them into its cells, ProcessRecorder.sample_gc.)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import ProcessCollector

from flyproxy.instrument.catalog import FAMILIES
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample
from flyproxy.series.labels import labels_from


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the supervisor knows it."""

    name: str
    """"edge", "telemetry", "query" or "supervisor"."""
    worker: int | None
    pid: int


class ProcessMetrics:
    """An `outside` of Snapshot. A process that is gone meanwhile has no samples."""

    def __init__(self, processes: Callable[[], Iterable[Process]]) -> None:
        self._processes = processes
        self._pid = 0
        self._collector = ProcessCollector(pid=lambda: self._pid, registry=None)

    def __call__(self) -> list[ExposedFamily]:
        """The families of the catalog that there are samples for, labels process and worker."""
        samples: dict[str, list[ExposedSample]] = {}
        for process in self._processes():
            worker = "" if process.worker is None else str(process.worker)
            labels = labels_from({"process": process.name, "worker": worker})
            for name, value in self._read(process.pid):
                samples.setdefault(name, []).append(ExposedSample(name, labels, value))
        families = [FAMILIES[name] for name in samples]
        return [ExposedFamily(one.name, one.type, one.help, one.unit, samples[one.name]) for one in families]

    def _read(self, pid: int) -> list[tuple[str, float]]:
        self._pid = pid
        found = [(sample.name, sample.value) for metric in self._collector.collect() for sample in metric.samples]
        return [(name, value) for name, value in found if name in FAMILIES]
