"""A child's segment of counters, wherever there is room for it.

Traffic must not wait for room in shared memory: a child that finds none counts in its own memory, says so, and moves
to a shared segment as soon as there is one. What it counted until then is not seen by anybody.
"""

import asyncio
import logging
import os
from collections.abc import Callable

from flyproxy.instrument.cells import CellsError, Segment

log = logging.getLogger("flyproxy.child")

RETRY_EVERY_S = 5.0


class OwnSegment:
    """Makes the segment, and goes on trying to share it."""

    def __init__(self, path: str, worker: int | None, process: str) -> None:
        self._path = path
        self._worker = worker
        self._process = process
        self._handle: asyncio.TimerHandle | None = None
        self._renewals = 0
        self.shared = False
        try:
            self.segment = self._create()
        except CellsError as fault:
            log.error("%s; counting on, but nobody will see it until there is room", fault)
            self.segment = Segment.private(worker, process=process)

    def keep_trying(self, move: Callable[[Segment], None]) -> None:
        """On the running loop: hand a shared segment to `move` once there is one, if it is not shared already."""
        if not self.shared:
            self._handle = asyncio.get_running_loop().call_later(RETRY_EVERY_S, self._retry, move)

    def renew(self, move: Callable[[Segment], None]) -> bool:
        """Go on in a fresh segment of the next name, through `move`; the one before is final. Whether there was room:
        if not, nothing changed."""
        if not self.shared:
            return False
        before, self._renewals = self.segment, self._renewals + 1
        stem, suffix = os.path.splitext(self._path)
        try:
            fresh = Segment.create(f"{stem}.{self._renewals}{suffix}", self._worker, process=self._process)
        except CellsError as fault:
            log.error("%s; going on in %s", fault, before.path)
            return False
        self.segment = fresh
        move(fresh)
        before.finish()
        return True

    def stop(self) -> None:
        """Try no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _retry(self, move: Callable[[Segment], None]) -> None:
        try:
            self.segment = self._create()
        except CellsError:
            self.keep_trying(move)
            return
        move(self.segment)
        log.info("%s: there is room, counters are seen again", self._path)

    def _create(self) -> Segment:
        segment = Segment.create(self._path, self._worker, process=self._process)
        self.shared = True
        return segment
