"""The telemetry process: the only writer of the store, and the API. It carries no traffic.

On its beats it sums the cells of all workers and fetches the apps' own metrics; every batch goes to the store's
thread. Questions go to the query workers; here they only wait.
"""

import asyncio
import contextlib
import logging
import platform
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from flyproxy import __version__, extension
from flyproxy.api.application import build_application, build_runner
from flyproxy.api.ports import Ports, QueryAnswer, QueryRequest
from flyproxy.clock import SystemClock
from flyproxy.config.resolved import Resolved
from flyproxy.config.show import running_yaml
from flyproxy.discovery.static import static_generation
from flyproxy.errors import FlyproxyError
from flyproxy.instrument.allotment import Allotment
from flyproxy.instrument.cells import CellsError
from flyproxy.instrument.host_reader import HostReader
from flyproxy.instrument.instance_metrics import HOST_TARGET, InstanceMetrics
from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.instrument.process_metrics import ProcessMetrics
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.runtime.child_channel import ChildChannel
from flyproxy.runtime.entry import enter, give_way, return_large_blocks
from flyproxy.runtime.front_door_state import FrontDoorState
from flyproxy.runtime.host_beat import HostBeat, instances_here
from flyproxy.runtime.known_metadata import known_metadata
from flyproxy.runtime.loop_watch import LoopWatch
from flyproxy.runtime.messages import Beat, Beaten, Children, Draining, Message, Reloaded, Start
from flyproxy.runtime.own_beat import OwnBeat
from flyproxy.runtime.places import database_path
from flyproxy.runtime.query_client import QueryClient
from flyproxy.runtime.segment import OwnSegment
from flyproxy.runtime.store_thread import StoreThread
from flyproxy.scrape.manager import ScrapeManager
from flyproxy.scrape.target import TargetState, target_name
from flyproxy.series.exposition_writer import ExposedFamily
from flyproxy.series.metadata import Metadata

log = logging.getLogger("flyproxy.telemetry")

EXPIRE_EVERY_S = 60.0
STEPS_OF_RETENTION = 10
"""A short retention is looked after so many times in its length."""
SEAL_EVERY_S = 10.0
NICE = 5
"""Behind the edge workers, before the query workers: beats are short and due, questions can wait."""
API_BACKLOG = 1024
"""Connections the kernel holds until they are accepted: beyond, it leaves a caller to try again after a second."""


class Telemetry:
    """The part of this process that is not the channel."""

    def __init__(self, say: Callable[[Message], None]) -> None:
        self._say = say
        self._clock = SystemClock()
        self._generation = 0
        self._asking = 0
        self._retire_fault = ""
        self._interval_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, start: Start, sockets: list[socket.socket]) -> None:
        if not start.threaded:
            return_large_blocks()
            give_way(NICE)
        telemetry = start.resolved.telemetry
        run_dir = Path(start.run_dir)
        segment = OwnSegment(str(run_dir / f"{start.name}.cells"), None, "telemetry")
        self._run_dir = run_dir
        self._own = ProcessRecorder(segment.segment)
        segment.keep_trying(lambda shared: self._own.move(Allotment(shared)))
        self._own.set(
            "flyproxy_build_info", 1, version=__version__, python=platform.python_version(), path=extension.path()
        )
        self._store = StoreThread(self._own)
        self._state = FrontDoorState(self._own, self._store, self._say)
        self._snapshot = Snapshot(
            start.run_dir,
            interval_ms=round(telemetry.own_interval_s * 1000),
            own=self._own,
            outside=[ProcessMetrics(self._state.processes)],
        )
        limit_reached = self._own.limit_reached
        self._host = HostBeat(InstanceMetrics(limit_reached), HostReader(limit_reached).read)
        self._use(start.resolved)
        await self._store.open(
            database_path(telemetry.data_dir),
            first_zero=telemetry.first_zero,
            retention_s=telemetry.retention_s,
            retention_bytes=telemetry.retention_size_bytes,
        )
        self._beat = OwnBeat(self._snapshot, self._store, run_dir, start.boot_id, self._clock, self._host)
        await self._end_what_is_gone()
        self._scrape = ScrapeManager(self._clock, self._store.append, self._own)
        await self._scrape.update(self._instances, telemetry)
        self._queries = QueryClient(
            [str(run_dir / f"query-{worker}.sock") for worker in range(telemetry.query_processes)],
            lambda: self._own.limit_reached("query_timeout"),
        )
        await self._serve_api(sockets[0])
        self._watch = LoopWatch(self._own, whole_process=not start.threaded)
        self._watch.start()
        self._tasks = [
            asyncio.create_task(self._forever(self._beat_on), name="own beat"),
            asyncio.create_task(self._forever(self._expire), name="retention"),
            asyncio.create_task(self._forever(self._seal), name="sealing"),
        ]

    async def prepare(self, resolved: Resolved) -> None:
        """Everything that could be refused was refused by the supervisor."""

    async def commit(self, resolved: Resolved, sockets: list[socket.socket]) -> None:
        self._use(resolved)
        telemetry = resolved.telemetry
        self._snapshot.beat_every(round(telemetry.own_interval_s * 1000))
        self._interval_changed.set()
        self._store.adjust(
            first_zero=telemetry.first_zero,
            retention_s=telemetry.retention_s,
            retention_bytes=telemetry.retention_size_bytes,
        )
        await self._scrape.update(self._instances, telemetry)

    async def other(self, message: Message) -> None:
        match message:
            case Beat():
                await self._beat.sample()
                self._say(Beaten())
            case Children():
                self._state.children_changed(message)
                self._retire(message.dead)
            case Draining():
                self._state.draining()
            case Reloaded():
                self._state.reloaded(message.ok, message.text)
            case _:
                log.error("%r is not for telemetry", message)

    async def drain(self, timeout_s: float) -> None:
        """The last counts of every worker go to the store, then their series end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._scrape.stop()
        await self._beat.sample()
        await self._store.end_targets(
            self._clock.now_ms() + 1, lambda target: target in (self._beat.target, HOST_TARGET)
        )
        await self._runner.cleanup()
        self._queries.close()
        self._watch.stop()
        await self._store.close()

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        """The API's QueryPort, measured."""
        begun_ns = self._clock.monotonic_ns()
        status = "canceled"
        self._asking += 1
        try:
            answer = await self._queries.ask(request)
            status = str(answer.status)
            return answer
        except TimeoutError:
            status = "timeout"
            raise
        finally:
            self._asking -= 1
            self._own.set("flyproxy_queries_in_flight", self._asking)
            self._own.count("flyproxy_queries_total", kind=request.kind, status=status)
            self._own.observe(
                "flyproxy_query_duration_seconds", self._clock.monotonic_ns() - begun_ns, kind=request.kind
            )

    def families(self) -> Iterable[ExposedFamily]:
        """The API's ExposePort."""
        return [*self._snapshot.families(), *self._host.families()]

    def targets(self, organization: str | None = None) -> Sequence[TargetState]:
        """The API's TargetsPort."""
        return self._scrape.targets(organization)

    def metadata(self, organization: str) -> Mapping[str, Metadata]:
        """The API's TargetsPort."""
        scraped = self._scrape.metadata(organization)
        return known_metadata(organization, scraped, has_targets=bool(self._scrape.targets(organization)))

    def yaml(self, organization: str | None) -> str:
        """The API's ConfigurationPort, written once for each who asks."""
        resolved, shown = self._resolved, self._shown
        if organization not in shown:
            shown[organization] = running_yaml(resolved, organization)
        return shown[organization]

    async def _serve_api(self, sock: socket.socket) -> None:
        ports = Ports(query=self, expose=self, status=self._state, targets=self, configuration=self)
        application = build_application(ports, lambda: self._resolved.telemetry, self._clock)
        self._runner = build_runner(application)
        await self._runner.setup()
        await web.SockSite(self._runner, sock, backlog=API_BACKLOG).start()

    def _use(self, resolved: Resolved) -> None:
        """The series of apps and instances that are not in this configuration end with the next beat."""
        self._resolved = resolved
        self._shown: dict[str | None, str] = {}
        self._generation += 1
        self._instances = static_generation(self._generation, resolved)
        self._snapshot.keep(self._instances.owned())
        telemetry = resolved.telemetry
        here = instances_here(self._instances.apps) if telemetry.instance_metrics else []
        self._host.keep(here, round(telemetry.own_interval_s * 1000))

    async def _end_what_is_gone(self) -> None:
        """After a crash: series of earlier boots, and of scrape targets that are not configured any more."""
        configured = {target_name(target) for target in self._instances.targets} | {self._beat.target}
        await self._store.end_targets(self._clock.now_ms(), lambda target: target not in configured)

    def _retire(self, names: Iterable[str]) -> None:
        """`<name>.cells`, and the `<name>.<number>.cells` it went on in."""
        dead = frozenset(names)
        for path in sorted(self._run_dir.glob("*.cells")) if dead else ():
            if path.name.partition(".")[0] not in dead:
                continue
            try:
                self._snapshot.retire(str(path))
            except CellsError as fault:
                if str(fault) != self._retire_fault:
                    log.error("%s", fault)
                self._retire_fault = str(fault)

    async def _forever(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """A beat that fails is said, and the next one comes."""
        while True:
            try:
                await work()
            except FlyproxyError as fault:
                log.error("%s", fault)
            except Exception:
                log.exception("a beat failed")

    async def _beat_on(self) -> None:
        """Sleep to the next multiple of the interval, then sample, stamped with that multiple; a new generation's
        interval does not wait for the old one's end."""
        interval_ms = round(self._resolved.telemetry.own_interval_s * 1000)
        now_ms = self._clock.now_ms()
        due_ms = (now_ms // interval_ms + 1) * interval_ms
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((due_ms - now_ms) / 1000):
                await self._interval_changed.wait()
                self._interval_changed.clear()
                return
        self._retire(self._state.dead)  # what could not be folded away when it was told (no room) may be now
        await self._beat.sample(due_ms)

    async def _expire(self) -> None:
        await self._store.expire(self._clock.now_ms())
        await asyncio.sleep(min(EXPIRE_EVERY_S, self._resolved.telemetry.retention_s / STEPS_OF_RETENTION))

    async def _seal(self) -> None:
        await self._store.seal(self._clock.now_ms())
        await asyncio.sleep(SEAL_EVERY_S)


async def serve(sock: socket.socket, threaded: bool) -> None:
    """Telemetry's life."""
    part: Telemetry
    channel = ChildChannel(sock, threaded)
    part = Telemetry(channel.send)
    await channel.serve(part)


if __name__ == "__main__":
    enter(serve)
