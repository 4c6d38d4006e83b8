"""Our families for any prometheus_client registry.

The client adds `_total` to every counter it makes itself; these are handed over as ready samples, so Fly's names
stay as they are. Where a counter does not end in `_total` the client has no word for it but `unknown`, and it wants
bucket bounds as floats (`1.0`) to write valid OpenMetrics; flyproxy's own /metrics says `counter` and `1`.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from flyproxy.series.exposition_writer import ExposedFamily


class FamiliesCollector(Collector):
    """Register one of these to have `fly_*` and `flyproxy_*` beside a program's own metrics."""

    def __init__(self, families: Callable[[], Iterable[ExposedFamily]]) -> None:
        """`families` is asked on every scrape, as Snapshot.families. What it has of processes is left out: the
        registry has that of its own."""
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All families as of now."""
        for family in self._families():
            if family.name.startswith("fly"):
                yield metric(family)


def metric(family: ExposedFamily) -> Metric:
    """One family as the client has it."""
    name, kind = family.name, family.type
    if kind == "counter":
        name, kind = (name.removesuffix("_total"), "counter") if name.endswith("_total") else (name, "unknown")
    unit = family.unit if family.unit and name.endswith(f"_{family.unit}") else ""
    made = Metric(name, family.help, kind, unit)
    for sample in family.samples:
        labels = dict(sample.labels)
        if "le" in labels and labels["le"] != "+Inf":
            labels["le"] = repr(float(labels["le"]))
        seconds = None if sample.timestamp_ms is None else sample.timestamp_ms / 1000
        made.add_sample(sample.name, labels, sample.value, seconds)
    return made
