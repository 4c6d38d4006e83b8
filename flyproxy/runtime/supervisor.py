"""The supervisor: owns sockets and children, carries no traffic.

Start: sockets, then telemetry and query workers, then edge workers; when the edge workers' counters stand at zero
and telemetry has sampled them once, the doors open. SIGHUP reloads, SIGTERM and SIGINT drain, a second one leaves
at once. A child that dies is replaced within a second, by one that knows the configuration in force.
"""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from flyproxy.clock import SystemClock
from flyproxy.config.resolved import Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.instrument.allotment import Allotment
from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.runtime.doors import Doors, listen, listen_unix
from flyproxy.runtime.generations import Generations
from flyproxy.runtime.loop_watch import LoopWatch
from flyproxy.runtime.messages import (
    Beat,
    Beaten,
    Children,
    Drain,
    Drained,
    Draining,
    Message,
    Open,
    Prepared,
    Ready,
    Refused,
    ReloadAsked,
    Reloaded,
    Start,
)
from flyproxy.runtime.places import DataDir, RunDir, new_boot_id
from flyproxy.runtime.segment import OwnSegment
from flyproxy.runtime.slots import Slot

log = logging.getLogger("flyproxy.supervisor")

FIRST_BEAT_TIMEOUT_S = 5.0
"""How long the doors wait for telemetry before they open without it: traffic never depends on it for longer."""
TELEMETRY_STOP_TIMEOUT_S = 10.0
DRAIN_GRACE_S = 0.5
"""Beyond `timeouts.drain`, for the workers to say that they are done."""

Load = Callable[[], Resolved]
Announce = Callable[[Resolved], None]


class Supervisor:
    """One front door. `load` reads the configuration anew (raises FlyproxyError); `announce` is called once, with
    the real ports, when the doors are open."""

    def __init__(self, resolved: Resolved, load: Load, announce: Announce) -> None:
        self._load = load
        self._announce = announce
        self._clock = SystemClock()
        self._threaded = resolved.workers == 0
        self._first = resolved
        self._boot_id = new_boot_id(self._clock)
        self._dead: list[str] = []
        self._last_reload_ok = True
        self._last_reload_ms = self._clock.now_ms()
        self.interrupted = False
        """It was told to stop by a ^C."""
        self._open = False
        self._slots: list[Slot] = []
        self._own_sockets: list[socket.socket] = []
        """Telemetry's and the query workers'."""
        self._run_dir_held: RunDir | None = None
        self._watch: LoopWatch | None = None
        self._beaten = asyncio.Event()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._next_reload: asyncio.Task[tuple[bool, str]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until told to stop; raises FlyproxyError when it cannot start."""
        self._data_dir = DataDir(self._first.telemetry.data_dir)
        self._doors = Doors(max(1, self._first.workers))
        try:
            self._run_dir_held = RunDir()
            self._run_dir = self._run_dir_held.path
            self._proxy_id = self._data_dir.next_proxy_id()
            self._watch_itself()
            self._bind(self._first)
            self._make_slots()
            self._take_signals()
            for slot in self._slots:
                slot.start()
            opening = asyncio.create_task(self._open_doors())
            await self._stop.wait()
            opening.cancel()
            await self._drain()
        finally:
            for slot in self._slots:
                slot.stop_filling()
                slot.kill()
            await self._all_gone(self._slots)
            if self._watch is not None:
                self._segment.stop()
                self._watch.stop()
            self._doors.close()
            for sock in self._own_sockets:
                sock.close()
            if self._run_dir_held is not None:
                self._run_dir_held.remove()
            self._data_dir.release()

    def stop(self, interrupted: bool = False) -> None:
        """Drain and leave; called twice: leave at once. `interrupted`: by a ^C."""
        if self._stop.is_set():
            self._now.set()
        else:
            self.interrupted = interrupted
        self._stop.set()

    async def reload(self) -> tuple[bool, str]:
        """Read the configuration and bring it into force. (went well, what happened in words). Whoever asks while one
        is under way shares the next one, which reads the file after everybody's question."""
        if self._next_reload is None:
            self._next_reload = asyncio.create_task(self._reload_in_turn())
        return await asyncio.shield(self._next_reload)

    async def _reload_in_turn(self) -> tuple[bool, str]:
        async with self._reloading:
            self._next_reload = None
            try:
                wanted = await asyncio.to_thread(self._load)
                wanted = self._keep_bound_port(wanted)
                await self._generations.change(wanted, self._slots)
            except (FlyproxyError, OSError) as fault:
                self._last_reload_ok = False
                log.error("reload refused, generation %d stays: %s", self._generations.number, fault)
                self._tell_children()
                return False, str(fault)
            except Exception as fault:
                self._last_reload_ok = False
                log.exception("a reload failed")
                return False, f"{type(fault).__name__}: {fault}"
            self._last_reload_ok = True
            self._last_reload_ms = self._clock.now_ms()
            log.info("generation %d is in force", self._generations.number)
            self._tell_children()
            return True, f"generation {self._generations.number} is in force"

    def _watch_itself(self) -> None:
        self._segment = segment = OwnSegment(str(self._run_dir / "supervisor.cells"), None, "supervisor")
        own = ProcessRecorder(segment.segment)
        segment.keep_trying(lambda shared: own.move(Allotment(shared)))
        self._watch = LoopWatch(own, whole_process=True)
        self._watch.start()

    def _bind(self, resolved: Resolved) -> None:
        listeners, _ = self._doors.open(resolved.edge.listeners)
        self._got_ports = {
            asked: got for asked, got in zip(resolved.edge.listeners, listeners, strict=True) if asked.port == 0
        }
        telemetry = resolved.telemetry
        if telemetry.port:
            listen(telemetry.host, telemetry.port, shared=False).close()
        self._telemetry_socket = listen(telemetry.host, telemetry.port, shared=False)
        self._asked_port = telemetry.port
        bound = replace(telemetry, port=self._telemetry_socket.getsockname()[1])
        resolved = replace(resolved, edge=replace(resolved.edge, listeners=listeners), telemetry=bound)
        self._generations = Generations(resolved, self._doors)
        self._own_sockets.append(self._telemetry_socket)
        self._query_sockets: list[socket.socket] = []
        for worker in range(telemetry.query_processes):
            self._query_sockets.append(listen_unix(str(self._run_dir / f"query-{worker}.sock")))
            self._own_sockets.append(self._query_sockets[-1])

    def _keep_bound_port(self, wanted: Resolved) -> Resolved:
        """Port 0 means "the one it got" when the file is read again."""
        if wanted.telemetry.port == self._asked_port:
            port = self._generations.resolved.telemetry.port
            wanted = replace(wanted, telemetry=replace(wanted.telemetry, port=port))
        listeners = tuple(self._got_ports.get(door, door) for door in wanted.edge.listeners)
        return replace(wanted, edge=replace(wanted.edge, listeners=listeners))

    def _make_slots(self) -> None:
        resolved = self._generations.resolved
        kinds = [("telemetry", 0, "asyncio")]
        kinds += [("query", worker, "asyncio") for worker in range(resolved.telemetry.query_processes)]
        kinds += [("edge", worker, resolved.edge.loop) for worker in range(max(1, resolved.workers))]
        self._slots = [
            Slot(kind, worker, loop, self._threaded, self._clock, self._begin, self._heard, self._changed)
            for kind, worker, loop in kinds
        ]

    def _begin(self, slot: Slot) -> tuple[Start, Sequence[int]]:
        resolved = self._generations.resolved
        start = Start(
            kind=slot.kind,
            worker=slot.worker,
            name=slot.name,
            generation=self._generations.number,
            resolved=resolved,
            run_dir=str(self._run_dir),
            proxy_id=self._proxy_id,
            boot_id=self._boot_id,
            threaded=self._threaded,
        )
        if slot.kind == "telemetry":
            return start, [self._telemetry_socket.fileno()]
        if slot.kind == "query":
            return start, [self._query_sockets[slot.worker].fileno()]
        return start, self._generations.descriptors(slot, resolved)

    def _of_kind(self, kind: str) -> list[Slot]:
        return [slot for slot in self._slots if slot.kind == kind]

    async def _open_doors(self) -> None:
        """Once every edge worker stands at zero and telemetry has seen it (or is late), traffic may come."""
        edges, (telemetry,) = self._of_kind("edge"), self._of_kind("telemetry")
        await asyncio.gather(*(slot.wait_ready() for slot in edges))
        try:
            async with asyncio.timeout(FIRST_BEAT_TIMEOUT_S):
                await telemetry.wait_ready()
                telemetry.send(Beat())
                await self._beaten.wait()
        except TimeoutError:
            log.warning("telemetry is not there after %.0f s; the doors open without it", FIRST_BEAT_TIMEOUT_S)
        self._open = True
        for slot in edges:
            slot.send(Open())
        await asyncio.to_thread(self._announce, self._generations.resolved)

    def _heard(self, slot: Slot, message: Message) -> None:
        match message:
            case Ready():
                self._became_ready(slot)
            case Prepared() | Refused():
                self._generations.heard(slot, message)
            case Beaten():
                self._beaten.set()
            case ReloadAsked():
                self._spawn(self._reload_for(slot))
            case Drained():
                slot.set_ready(False)
            case _:
                log.error("%s said %r, which is not for the supervisor", slot.name, message)

    def _became_ready(self, slot: Slot) -> None:
        slot.set_ready(True)
        self._generations.catch_up(slot)
        if slot.kind == "edge" and self._open:
            slot.send(Open())
        self._tell_children()

    async def _reload_for(self, slot: Slot) -> None:
        ok, text = await self.reload()
        slot.send(Reloaded(ok, text))

    def _changed(self, slot: Slot) -> None:
        """A child was started or is gone."""
        if slot.describe() is None:
            self._generations.gone(slot.name)
            self._dead.append(slot.name)
        self._tell_children()

    def _tell_children(self) -> None:
        self._dead = [name for name in self._dead if (self._run_dir / f"{name}.cells").exists()]
        alive = tuple(child for slot in self._slots if (child := slot.describe()) is not None)
        message = Children(
            alive, tuple(self._dead), self._generations.number, self._last_reload_ok, self._last_reload_ms
        )
        for slot in self._of_kind("telemetry"):
            slot.send(message)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number == signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_quietly()))

    async def _reload_quietly(self) -> None:
        await self.reload()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        """Doors first, then the store: the last counts of every worker are in the last beat."""
        timeout_s = self._generations.resolved.edge.timeouts.drain_s
        started = time.monotonic()
        log.info("draining: at most %.0f s for what is in flight; a second signal leaves at once", timeout_s)
        for slot in self._slots:
            slot.stop_filling()
            if slot.kind == "telemetry":
                slot.send(Draining())
        self._doors.close()  # the workers close theirs: who comes now is refused, not left waiting in a queue
        await self._leave(self._of_kind("edge"), timeout_s, DRAIN_GRACE_S)
        self._tell_children()
        await self._leave(self._of_kind("telemetry"), TELEMETRY_STOP_TIMEOUT_S, 0.0)
        await self._leave(self._of_kind("query"), 0.0, 0.2)
        log.info("stopped after %.1f s", time.monotonic() - started)

    async def _all_gone(self, slots: Sequence[Slot]) -> None:
        await asyncio.gather(*(slot.wait_gone() for slot in slots))

    async def _wait_now(self) -> None:
        await self._now.wait()

    async def _leave(self, slots: Sequence[Slot], timeout_s: float, grace_s: float) -> None:
        for slot in slots:
            slot.send(Drain(timeout_s))
        gone = asyncio.create_task(self._all_gone(slots))
        at_once = asyncio.create_task(self._wait_now())
        await asyncio.wait({gone, at_once}, timeout=timeout_s + grace_s, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        for slot in slots:
            slot.kill()
        await gone


def supervise(resolved: Resolved, load: Load, announce: Announce) -> bool:
    """Run a front door on this thread until it is told to stop. Whether that was by a ^C; raises FlyproxyError when it
    cannot start."""
    _take_all_descriptors()

    async def run() -> bool:
        supervisor = Supervisor(resolved, load, announce)
        await supervisor.run()
        return supervisor.interrupted

    return asyncio.run(run())


def _take_all_descriptors() -> None:
    """Raise this process' own bound of open files, which its children inherit, to the most it may have: a shell's usual
    1,024 would be 480 clients a worker."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
