"""The front door's own counters, sampled into the store on their beat.

Every start of the front door is a target of its own, `own/<boot>`: its counters began at 0, so the first row of an
organization gets a row of zeros one beat before the first that was due, and increase() sees what happened before it.
The run directory, and the store itself, say which organizations have begun, so that a telemetry process that was
killed in the middle goes on instead of beginning again: a second row of zeros would count everything twice.
"""

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from flyproxy.clock import Clock
from flyproxy.instrument.snapshot import TARGET, Snapshot
from flyproxy.runtime.host_beat import HostBeat
from flyproxy.runtime.store_thread import StoreThread
from flyproxy.series.frame import ABSENT
from flyproxy.series.samples import Batch

log = logging.getLogger("flyproxy.telemetry")

OWN_PREFIX = f"{TARGET}/"
BEGUN_PREFIX = "begun-"


class OwnBeat:
    """Takes snapshots and appends them, with what the host's beat has to add."""

    def __init__(
        self,
        snapshot: Snapshot,
        store: StoreThread,
        run_dir: Path,
        boot_id: str,
        clock: Clock,
        host: HostBeat | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._store = store
        self._run_dir = run_dir
        self._target = f"{OWN_PREFIX}{boot_id}"
        self._clock = clock
        self._host = host
        self._last_ms = 0
        self._begun = {path.name.removeprefix(BEGUN_PREFIX) for path in run_dir.glob(f"{BEGUN_PREFIX}*")}
        self._wanted_ms: dict[str, int] = {}
        """When each organization that has not begun was to begin."""
        self._waiting_for_ms = 0
        self._one_at_a_time = asyncio.Lock()

    @property
    def target(self) -> str:
        """Where this boot's samples go."""
        return self._target

    async def sample(self, timestamp_ms: int | None = None) -> bool:
        """One beat, stamped with its nominal time (default: now). Whether it is on the disk.

        A beat that is not after the last one is left out: the wall clock was set back, and rows a millisecond apart
        until it has caught up would say nothing true about time. A sample that was asked for by itself is kept."""
        async with self._one_at_a_time:
            if timestamp_ms is None:
                timestamp_ms = max(self._clock.now_ms(), self._last_ms + 1)
            elif timestamp_ms <= self._last_ms:
                self._say_waiting(timestamp_ms)
                return False
            return await self._sample(timestamp_ms)

    async def _sample(self, stamp_ms: int) -> bool:
        self._last_ms = stamp_ms
        self._waiting_for_ms = 0
        batches = [replace(batch, target=self._target) for batch in self._snapshot.take(stamp_ms)]
        beginning = [batch for batch in batches if batch.organization not in self._begun]
        if beginning:
            # A telemetry that was killed after its append and before it could make a note of it.
            self._begun |= await self._store.organizations_of(self._target)
            beginning = [batch for batch in beginning if batch.organization not in self._begun]
        zeros = [row_of_zeros(batch, self._wanted_ms.setdefault(batch.organization, stamp_ms)) for batch in beginning]
        of_the_host = await self._host.take(stamp_ms) if self._host is not None else []
        if not await self._store.append([*zeros, *batches, *of_the_host]):
            return False
        for batch in beginning:
            self._begun.add(batch.organization)
            with contextlib.suppress(OSError):  # the store knows too
                (self._run_dir / f"{BEGUN_PREFIX}{batch.organization}").touch()
        return True

    def _say_waiting(self, due_ms: int) -> None:
        if self._waiting_for_ms != self._last_ms:
            self._waiting_for_ms = self._last_ms
            behind_s = (self._last_ms - due_ms) / 1000
            log.warning("the clock was set back: no own samples for %.0f s, until it is past the last one", behind_s)


def row_of_zeros(batch: Batch, first_ms: int) -> Batch:
    """One beat before the first that was due, at `first_ms`: every counter at 0, nothing said about the rest."""
    bits = np.where(batch.layout.counters, np.uint64(0), ABSENT.view(np.uint64))  # as bits: ABSENT is a NaN's payload
    return replace(batch, timestamp_ms=first_ms - batch.interval_ms, values=bits.view(np.float64))
