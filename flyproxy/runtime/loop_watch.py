"""How late an event loop runs its timers, and what the garbage collector did: of every process, always."""

import asyncio

from flyproxy.instrument.own_metrics import ProcessRecorder

BEAT_S = 0.1
GC_EVERY_BEATS = 10


class LoopWatch:
    """A timer that measures its own lateness; must be started on the loop it watches."""

    def __init__(self, recorder: ProcessRecorder) -> None:
        self._recorder = recorder
        self._handle: asyncio.TimerHandle | None = None
        self._beats = 0

    def start(self) -> None:
        """Begin; the first measure comes after one beat."""
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        self._recorder.loop_lag(max(0, round((now - self._due) * 1e9)))
        self._beats += 1
        if self._beats % GC_EVERY_BEATS == 0:
            self._recorder.sample_gc()
        self._due = now + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)
