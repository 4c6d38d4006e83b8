"""What this machine says of itself, for the instances on it: read every few of the own beats, in the same transaction.

/proc is read once for all instances, and on a thread: the API's loop must not wait for a kernel with hundreds of CPUs.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from flyproxy.config.machine import is_own
from flyproxy.config.resolved import App
from flyproxy.instrument.instance_metrics import InstanceMetrics, LocalInstance
from flyproxy.instrument.procfs import Reading
from flyproxy.series.exposition_writer import ExposedFamily
from flyproxy.series.samples import Batch

log = logging.getLogger("flyproxy.telemetry")

READ_EVERY_MS = 5000
"""At most: a slower own beat reads once a beat."""


class HostBeat:
    """Decides when the machine is read."""

    def __init__(self, metrics: InstanceMetrics, read: Callable[[], Sequence[Reading]]) -> None:
        self._metrics = metrics
        self._read = read
        self._interval_ms = READ_EVERY_MS
        self._next_ms = 0
        self._idle = True

    def keep(self, instances: Iterable[LocalInstance], interval_ms: int) -> None:
        """The instances on this machine from now on, and how far own beats are apart. When others go or come, the
        next beat says so."""
        instances = list(instances)
        self._interval_ms = interval_ms
        if self._metrics.keep(instances):
            self._next_ms = 0
            self._idle = False

    async def take(self, stamp_ms: int) -> list[Batch]:
        """The batches of an own beat; none when the machine was read not long ago, or has no instance."""
        if self._idle or stamp_ms < self._next_ms:
            return []
        every_ms = max(READ_EVERY_MS, self._interval_ms)
        self._next_ms = stamp_ms - stamp_ms % self._interval_ms + every_ms
        try:
            readings = await asyncio.to_thread(self._read)
        except Exception:  # a machine that surprises us must not cost the front door's own counters their beat
            log.exception("this machine could not be read")
            return []
        self._idle = not self._metrics.count
        return self._metrics.take(readings, stamp_ms, every_ms)

    def families(self) -> list[ExposedFamily]:
        """As of the last beat that read it, for /metrics."""
        return self._metrics.families()


def instances_here(apps: Iterable[App]) -> list[LocalInstance]:
    """The instances whose address is one of this machine's own."""
    apps = list(apps)
    addresses = {instance.host for app in apps for instance in app.instances}
    own = {address for address in addresses if is_own(address)}
    return [
        LocalInstance(app.organization, app.name, instance.region, instance.worker_host, instance.id)
        for app in apps
        for instance in app.instances
        if instance.host in own
    ]
