"""A slot: the place of one child in the front door, filled again whenever its child is gone."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial

from flyproxy.clock import Clock
from flyproxy.runtime.children import Running, start_child
from flyproxy.runtime.control import Channel, channel_pair
from flyproxy.runtime.messages import Child, Message, Start

log = logging.getLogger("flyproxy.supervisor")

STABLE_AFTER_S = 5.0
"""A child that lived this long is started again at once; one that did not waits longer each time."""
RESTART_DELAY_FIRST_S = 0.1
RESTART_DELAY_MAX_S = 5.0
START_TIMEOUT_S = 20.0
"""A child that is not ready after this long is killed and started again."""
LEAVE_TIMEOUT_S = 2.0
"""How long a child whose channel closed may take to end before it is killed."""

Say = Callable[["Slot", Message], None]


class Slot:
    """One place for a child; `begin` makes the Start message and the sockets for each new one."""

    def __init__(
        self,
        kind: str,
        worker: int,
        loop_name: str,
        threaded: bool,
        clock: Clock,
        begin: Callable[["Slot"], tuple[Start, Sequence[int]]],
        heard: Say,
        changed: Callable[["Slot"], None],
    ) -> None:
        self.kind = kind
        self.worker = worker
        self.restarts = 0
        self._ready = asyncio.Event()
        self.generation = 0
        self.name = ""
        self.channel: Channel | None = None
        self._stopping = asyncio.Event()
        self._ending = False
        self._loop_name = loop_name
        self._threaded = threaded
        self._clock = clock
        self._begin = begin
        self._heard = heard
        self._changed = changed
        self._running: Running | None = None
        self._count = 0
        self._quick_ends = 0
        self._started_ns = 0
        self._started_ms = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    def start(self) -> None:
        """Fill the slot, and keep it filled until `stop`."""
        self._task = asyncio.create_task(self._keep_filled(), name=f"slot {self.kind}-{self.worker}")

    @property
    def ready(self) -> bool:
        """The child said so, and is still there."""
        return self._ready.is_set()

    def set_ready(self, ready: bool) -> None:
        if ready:
            self._ready.set()
        else:
            self._ready.clear()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Say something to the child, if there is one."""
        if self.channel is not None:
            self.channel.send(message, descriptors)

    def describe(self) -> Child | None:
        """The living child, or None."""
        if self._running is None:
            return None
        return Child(self.kind, self.worker, self.name, self._running.pid, self._started_ms, self.restarts, self.ready)

    @property
    def stopping(self) -> bool:
        """No child follows the one that is there."""
        return self._stopping.is_set()

    def stop_filling(self) -> None:
        """The child that is there is the last."""
        self._stopping.set()

    async def wait_gone(self) -> None:
        """Wait until the child has left and none follows (after `stop_filling`)."""
        if self._task is not None:
            await self._task

    def kill(self) -> None:
        """End the child at once; while not stopping, another one follows."""
        self._ending = True  # a child that is just being started is ended when it is there
        if self._running is not None:
            self._running.kill()
        if self._threaded and self.channel is not None:
            self.channel.close()
            self._closed.set()

    async def _keep_filled(self) -> None:
        while not self.stopping:
            try:
                await self._live_once()
            except OSError as fault:  # no more processes, descriptors or memory: it may be better in a moment
                log.error("%s cannot be started: %s", self.name, fault.strerror or fault)
            if self.stopping:
                return
            self.restarts += 1
            lived_s = (self._clock.monotonic_ns() - self._started_ns) / 1e9
            self._quick_ends = 0 if lived_s >= STABLE_AFTER_S else self._quick_ends + 1
            await self._pause(restart_delay_s(self._quick_ends))

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    async def _live_once(self) -> None:
        self._count += 1
        self.name = f"{self.kind}-{self.worker}-{self._count}"
        self._started_ns = self._clock.monotonic_ns()
        self._started_ms = self._clock.now_ms()
        self._closed = asyncio.Event()
        self._ending = False
        ours, theirs = channel_pair()
        self.channel = Channel(ours, partial(self._on_message, self.name), self._closed.set)
        watchdog: asyncio.Task[None] | None = None
        try:
            start, sockets = self._begin(self)  # before anything else can be said to the child
            self.generation = start.generation
            self.channel.send(start, sockets)
            self._running = await start_child(self.kind, theirs, self._loop_name, threaded=self._threaded)
            if self._ending:
                self.kill()
            self._changed(self)
            watchdog = asyncio.create_task(self._kill_unless_ready())
            await self._closed.wait()
        finally:
            if watchdog is not None:
                watchdog.cancel()
            self.set_ready(False)
            self.channel.close()
            self.channel = None
            if self._running is None:
                theirs.close()
            else:
                await self._wait_end(self._running)
                self._running = None
            self._changed(self)

    async def _wait_end(self, running: Running) -> None:
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                code = await running.wait_gone()
        except TimeoutError:
            running.kill()
            code = None if self._threaded else await running.wait_gone()
        if not self.stopping:
            how = "is gone" if code is None else f"ended with signal {-code}" if code < 0 else f"ended with code {code}"
            log.warning("%s %s; another one is started", self.name, how)

    async def _kill_unless_ready(self) -> None:
        await asyncio.sleep(START_TIMEOUT_S)
        if not self.ready:
            log.error("%s was not ready after %.0f s and is killed", self.name, START_TIMEOUT_S)
            self.kill()

    def _on_message(self, name: str, message: Message, descriptors: list[int]) -> None:
        for number in descriptors:  # children send none
            socket.close(number)
        if name == self.name:
            self._heard(self, message)


def restart_delay_s(quick_ends: int) -> float:
    """The pause before the next child, after so many in a row that did not live long: none after the first."""
    if quick_ends < 2:
        return 0.0
    doublings = min(quick_ends - 2, 16)  # far beyond the bound, and far from what a float can hold
    return min(RESTART_DELAY_FIRST_S * float(1 << doublings), RESTART_DELAY_MAX_S)
