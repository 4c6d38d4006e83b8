"""The front door's own counters, sampled into the store on their beat.

Every start of the front door is a target of its own, `own/<boot>`: its counters began at 0, so the first row of an
organization gets a row of zeros one beat before it, and increase() sees what happened before the first beat. What
stands in the run directory says which organizations have begun, so that a telemetry process that was killed in the
middle goes on instead of beginning again.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flyproxy.clock import Clock
from flyproxy.instrument.snapshot import TARGET, Snapshot
from flyproxy.runtime.store_thread import StoreThread
from flyproxy.series.frame import ABSENT
from flyproxy.series.samples import Batch

OWN_PREFIX = f"{TARGET}/"


class OwnBeat:
    """Takes snapshots and appends them."""

    def __init__(self, snapshot: Snapshot, store: StoreThread, run_dir: Path, boot_id: str, clock: Clock) -> None:
        self._snapshot = snapshot
        self._store = store
        self._run_dir = run_dir
        self._target = f"{OWN_PREFIX}{boot_id}"
        self._clock = clock
        self._last_ms = 0
        self._begun = {path.name.removeprefix("begun-") for path in run_dir.glob("begun-*")}

    @property
    def target(self) -> str:
        """Where this boot's samples go."""
        return self._target

    async def sample(self, timestamp_ms: int | None = None) -> bool:
        """One beat, stamped with its nominal time (default: now). Whether it is on the disk."""
        stamp_ms = max(timestamp_ms or self._clock.now_ms(), self._last_ms + 1)
        self._last_ms = stamp_ms
        batches = [replace(batch, target=self._target) for batch in self._snapshot.take(stamp_ms)]
        beginning = [batch for batch in batches if batch.organization not in self._begun]
        if not await self._store.append([*map(row_of_zeros, beginning), *batches]):
            return False
        for batch in beginning:
            self._begun.add(batch.organization)
            (self._run_dir / f"begun-{batch.organization}").touch()
        return True


def row_of_zeros(batch: Batch) -> Batch:
    """One beat earlier: every counter at 0, nothing said about the rest."""
    bits = np.where(batch.layout.counters, np.uint64(0), ABSENT.view(np.uint64))  # as bits: ABSENT is a NaN's payload
    return replace(batch, timestamp_ms=batch.timestamp_ms - batch.interval_ms, values=bits.view(np.float64))
