"""What the machine says, as series of every instance on it: one batch per organization, and families for /metrics.

All instances of a machine have the same values: a beat makes one array of them and repeats it. Labels are made once,
when the instances or what the machine has to say change; until then a batch carries the same Layout object.

The kernel's counters did not begin at 0 when an instance appeared, so in these layouts no series counts as one whose
birth is worth a zero: increase() must not take a machine's whole past for a jump.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, groupby
from typing import NamedTuple

import numpy as np

from flyproxy.instrument.catalog import FAMILIES
from flyproxy.instrument.procfs import Reading
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample
from flyproxy.series.frame import STALE
from flyproxy.series.labels import METRIC_NAME, Labels, labels_from
from flyproxy.series.samples import Batch, Floats, Layout

HOST_TARGET = "host"
"""Stable over starts of the front door, as the kernel's counters are."""
SERIES_MAX = 100_000

_Key = tuple[str, Labels]
"""(family, labels beyond the instance's)"""


class LocalInstance(NamedTuple):
    """An instance on this machine, by its labels."""

    organization: str
    app: str
    region: str
    host: str
    instance: str

    def labels(self) -> dict[str, str]:
        """As every fly_instance_* has them."""
        return {"app": self.app, "region": self.region, "host": self.host, "instance": self.instance}


class InstanceMetrics:
    """One thread owns it."""

    def __init__(self, limit_reached: Callable[[str], None], *, series_max: int = SERIES_MAX) -> None:
        self._limit_reached = limit_reached
        self._series_max = series_max
        self._instances: tuple[LocalInstance, ...] = ()
        self._keys: tuple[_Key, ...] = ()
        self._values: Floats = np.empty(0, np.float64)
        self._layouts: dict[str, Layout] | None = None
        """By organization; None: to be made anew."""
        self._taken: dict[str, Layout] = {}

    def keep(self, instances: Iterable[LocalInstance]) -> bool:
        """The instances on this machine from now on; series of others end with the next batches. Whether they are
        others than before."""
        wanted = tuple(sorted(instances))
        changed = wanted != self._instances
        if changed:
            self._instances = wanted
            self._layouts = None
        return changed

    @property
    def count(self) -> int:
        """Instances on this machine."""
        return len(self._instances)

    def take(self, readings: Sequence[Reading], timestamp_ms: int, interval_ms: int) -> list[Batch]:
        """One batch per organization that has an instance here; one of STALE for one that has none any more."""
        keys = tuple((reading.family, reading.labels) for reading in readings)
        if keys != self._keys:
            self._keys, self._layouts = keys, None
        self._values = np.array([reading.value for reading in readings], np.float64)
        layouts = self._arranged()
        batches = [
            Batch(organization, HOST_TARGET, timestamp_ms, layout, self._repeated(layout), interval_ms)
            for organization, layout in layouts.items()
        ]
        for organization in self._taken.keys() - layouts.keys():
            layout = self._taken[organization]
            stale = np.repeat(STALE, len(layout.series))
            batches.append(Batch(organization, HOST_TARGET, timestamp_ms, layout, stale, interval_ms))
        self._taken = layouts
        return batches

    def families(self) -> list[ExposedFamily]:
        """As of the last batches, all organizations."""
        samples: dict[str, list[ExposedSample]] = {}
        values = self._values.tolist()
        for layout in self._taken.values():
            for (name, *labels), value in zip(layout.series, cycle(values), strict=False):
                samples.setdefault(name[1], []).append(ExposedSample(name[1], tuple(labels), value))
        families = [FAMILIES[name] for name in samples]
        return [ExposedFamily(one.name, one.type, one.help, one.unit, samples[one.name]) for one in families]

    def _arranged(self) -> dict[str, Layout]:
        if self._layouts is None:
            kept = self._bounded()
            if len(kept) < len(self._instances):
                self._limit_reached("host_series")
            self._layouts = {
                organization: self._layout(list(instances))
                for organization, instances in groupby(kept, key=lambda instance: instance.organization)
            }
        return self._layouts

    def _bounded(self) -> tuple[LocalInstance, ...]:
        return self._instances[: self._series_max // len(self._keys)] if self._keys else ()

    def _layout(self, instances: list[LocalInstance]) -> Layout:
        """The metric's name is the first of each series' labels, as in every sorted label set of ours."""
        series = tuple(
            labels_from({**labels, **dict(more), METRIC_NAME: family})
            for labels in [instance.labels() for instance in instances]
            for family, more in self._keys
        )
        return Layout(series, np.zeros(len(series), np.bool_))

    def _repeated(self, layout: Layout) -> Floats:
        return np.tile(self._values, len(layout.series) // len(self._values))
