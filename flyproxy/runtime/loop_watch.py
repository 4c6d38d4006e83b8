"""How late an event loop runs its timers, and what the garbage collector did: of every process, always."""

import asyncio

from flyproxy.instrument.gc_pauses import GcPauses
from flyproxy.instrument.own_metrics import ProcessRecorder

BEAT_S = 0.1
GC_EVERY_BEATS = 10


class LoopWatch:
    """A timer that measures its own lateness; must be started on the loop it watches. `whole_process`: it says of the
    process' garbage collector, too; of the loops that share a process (`workers: 0`) only one may."""

    def __init__(self, recorder: ProcessRecorder, *, whole_process: bool) -> None:
        self._recorder = recorder
        self._pauses = GcPauses() if whole_process else None
        self._handle: asyncio.TimerHandle | None = None
        self._beats = 0

    def start(self) -> None:
        """Begin; the first measure comes after one beat."""
        if self._pauses is not None:
            self._pauses.start()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """End; what the collector did until now is counted."""
        if self._handle is None:
            return
        self._handle.cancel()
        self._handle = None
        if self._pauses is not None:
            self._pauses.stop()
            self._recorder.sample_gc(self._pauses)

    def _beat(self) -> None:
        now = self._loop.time()
        self._recorder.loop_lag(max(0, round((now - self._due) * 1e9)))
        self._beats += 1
        if self._pauses is not None and self._beats % GC_EVERY_BEATS == 0:
            self._recorder.sample_gc(self._pauses)
        self._due = now + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)
