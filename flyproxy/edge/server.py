"""The edge as its process sees it: started with sockets, given new generations, drained.

A new generation changes what the doors point at and nothing else: requests under way keep the route they were given,
unchanged instances keep their connections, recorders keep counting. Nothing is closed that could go on.
"""

import asyncio
import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial

from flyproxy.clock import Clock
from flyproxy.config import resolved
from flyproxy.edge.client import Asker, ClientConnection
from flyproxy.edge.generation import Generation, announce, check
from flyproxy.edge.lane import Lane
from flyproxy.edge.listener import Door
from flyproxy.edge.route import Doorway
from flyproxy.edge.worker import DRAIN_GRACE_NS, NEVER, Worker
from flyproxy.errors import NotReadyError
from flyproxy.http1.parser import TYPED
from flyproxy.instrument.recorder import Recorder

DRAIN_GRACE_S = DRAIN_GRACE_NS / 1e9
FOLD_S = 0.02
"""How late a counter may be in shared memory: a loop that turns once a request would fold once a request, a sixth of
its work."""


class EdgeServer:
    """The room's one door."""

    def __init__(self, recorder: Recorder, clock: Clock, log: Callable[[bytes], None]) -> None:
        """`log` takes whole lines; it may raise BlockingIOError and is then asked again later."""
        self._recorder = recorder
        self._clock = clock
        self._log = log
        self._worker: Worker | None = None
        self._folding: asyncio.TimerHandle | None = None
        self._generation: Generation | None = None
        self._doors: list[Door] = []

    async def start(self, edge: resolved.Edge, sockets: Sequence[socket.socket]) -> None:
        """Serve; `sockets[i]` is bound for `edge.listeners[i]` and owned by the edge from now on. RoutingError."""
        check(edge)
        worker = self._worker = Worker(self._recorder, self._clock, self._log, edge)
        worker.lane = lanes(worker)
        self._recorder.on_dirty = self._fold_soon
        worker.on_tick = self._tidy
        worker.start()
        await self.commit(edge, sockets)

    async def prepare(self, edge: resolved.Edge) -> None:
        """Whether this generation could be served, before or after the start: RoutingError if not. Changes nothing
        but that its counters stand at 0 from now on."""
        check(edge)
        announce(self._recorder, edge)

    async def commit(self, edge: resolved.Edge, sockets: Sequence[socket.socket | None]) -> None:
        """Serve this generation from the next request on. A door whose listener is in it stays open as it is (its
        entry in `sockets` may be None, any other socket is closed); new doors open, gone ones close."""
        worker = self._running()
        check(edge)
        before = self._generation.instances if self._generation is not None else {}
        generation = Generation(worker, edge, before)
        gone, doors, new = list(self._doors), [], []
        for listener, listening in zip(edge.listeners, sockets, strict=True):
            door = next((one for one in gone if one.listener == listener), None)
            if door is not None:
                gone.remove(door)
                door.use_or_close(listening)
            elif listening is None:
                raise NotReadyError(f"no socket for the new door {listener.host}:{listener.port}")
            else:
                door = Door(worker, listener, listening)
                new.append(door)
            doors.append(door)
        # from here on nothing is refused any more
        worker.settle(edge)
        for door in doors:
            generation.lead(door.way, door.listener)
        self._generation, self._doors = generation, doors
        for door in new:
            await door.open()
        for door in gone:
            await door.close()
        for key, instance in before.items():
            if key not in generation.instances:
                instance.retire()

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, say `Connection: close`, finish what is under way; after `timeout_s` cut off the rest."""
        worker = self._running()
        worker.draining = True
        for door in self._doors:
            await door.close()
        soon_ns = worker.monotonic_ns() + DRAIN_GRACE_NS
        for client in list(worker.clients):
            client.leave_soon(soon_ns)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.empty.wait(), timeout_s)
        if worker.clients:
            worker.process.limit_reached("drain_timeout", len(worker.clients))
            for client in list(worker.clients):
                worker.guarded(client.cut_off)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.empty.wait(), DRAIN_GRACE_S)
        for instance in self._generation.instances.values() if self._generation is not None else ():
            instance.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_GRACE_S):
                while worker.upstreams:  # noqa: ASYNC110  # their ends are counted as the loop tells of them
                    await asyncio.sleep(0.005)
        worker.stop()
        self._recorder.on_dirty = None
        if self._folding is not None:
            self._folding.cancel()

    def statistics(self) -> dict[str, int]:
        """How much of what is held right now."""
        worker, generation = self._running(), self._generation
        instances = list(generation.instances.values()) if generation is not None else []
        return {
            "clients": len(worker.clients),
            "connections_max": worker.connections_max,
            "upstream_connections": len(worker.upstreams),
            "upstream_connections_idle": sum(len(instance.pool) for instance in instances),
            "in_flight": sum(instance.load for instance in instances),
            "tunnels": len(worker.tunnels),
            "stalled": len(worker.stalled),
            **worker.pipes.statistics(),
            "doors": len(self._doors),
            "instances": len(instances),
            **worker.log.statistics(),
        }

    def _running(self) -> Worker:
        if self._worker is None:
            raise NotReadyError("the edge has not been started")
        return self._worker

    def _fold_soon(self) -> None:
        """Counters reach shared memory FOLD_S after they moved."""
        self._folding = self._running().loop.call_later(FOLD_S, self._recorder.fold)

    def _tidy(self, now_ns: int) -> None:
        if self._generation is not None:
            until_ns = now_ns if _descriptors_left() else NEVER
            if until_ns == NEVER:
                self._running().process.limit_reached("descriptors")
                self._running().pipes.close()
            for instance in self._generation.instances.values():
                instance.tidy(until_ns)


def _descriptors_left() -> bool:
    """Whether anything could be opened now; else what is only kept for later is in the way of who comes now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def lanes(worker: Worker) -> Callable[[Doorway, ClientConnection], Asker]:
    """Makes what takes a connection's usual requests: the typed kind, where it was built and typed readers are used."""
    if TYPED is None:
        return partial(Lane, worker)
    return importlib.import_module("flyproxy.edge.typed_lane").Lanes(worker).lane  # type: ignore[no-any-return]
