"""What telemetry knows of the whole front door, as the supervisor tells it: for readiness, /metrics and reloads."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator

from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.instrument.process_metrics import Process
from flyproxy.runtime.messages import Children, Message, ReloadAsked
from flyproxy.runtime.store_thread import StoreThread

RELOAD_TIMEOUT_S = 60.0

_Asked = asyncio.Future[tuple[bool, str]]


class FrontDoorState:
    """The API's StatusPort."""

    def __init__(self, own: ProcessRecorder, store: StoreThread, say: Callable[[Message], None]) -> None:
        self._own = own
        self._store = store
        self._say = say
        self._children = Children((), (), 0, True, 0)
        self._draining = False
        self._asking = False
        self._under_way: list[_Asked] = []
        """Whom the supervisor's next answer is for."""
        self._next: list[_Asked] = []
        """Who came later: the reload under way may have read the file before they wrote it."""

    @property
    def dead(self) -> tuple[str, ...]:
        """Names of children whose segments are to be folded away."""
        return self._children.dead

    def ready(self) -> tuple[bool, str]:
        """Requests and queries are served, and samples are kept; if not, why."""
        if self._draining:
            return False, "the front door is draining"
        edges = [child.ready for child in self._children.children if child.kind == "edge"]
        if not edges or not all(edges):
            return False, "an edge worker is not ready yet"
        if not any(child.ready for child in self._children.children if child.kind == "query"):
            return False, "no query worker is ready yet"
        if self._store.fault:
            return False, "the store does not take samples now; the operator's log says why"
        return True, ""

    def trouble(self) -> str:
        """The store's own words, which name its file."""
        return self._store.fault

    async def reload(self) -> tuple[bool, str]:
        """Ask the supervisor; those who ask while a reload is under way share the next one."""
        asked: _Asked = asyncio.get_running_loop().create_future()
        self._next.append(asked)
        if not self._asking:
            self._ask_next()
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                return await asked
        except TimeoutError:
            return False, f"the reload did not end within {RELOAD_TIMEOUT_S:.0f} s"

    def _ask_next(self) -> None:
        self._under_way, self._next = self._next, []
        self._asking = True
        self._say(ReloadAsked())

    def limit_reached(self, limit: str) -> None:
        self._own.limit_reached(limit)

    def refused(self, status: int) -> None:
        self._own.count("flyproxy_api_refused_total", status=str(status))

    def processes(self) -> Iterator[Process]:
        """The supervisor and its children, each process once."""
        seen: set[int] = set()
        supervisor = Process("supervisor", None, os.getppid())
        listed = [Process(child.kind, child.worker, child.pid) for child in self._children.children]
        if any(process.pid == os.getpid() and process.name == "edge" for process in listed):
            supervisor = Process("supervisor", None, os.getpid())  # everything in one process
        for process in (supervisor, *listed):
            if process.pid not in seen:
                seen.add(process.pid)
                yield process

    def draining(self) -> None:
        """The end has begun."""
        self._draining = True

    def reloaded(self, ok: bool, text: str) -> None:
        """The supervisor's answer to all who asked."""
        for one in self._under_way:
            if not one.done():  # else it left
                one.set_result((ok, text))
        self._under_way, self._asking = [], False
        if self._next:
            self._ask_next()

    def children_changed(self, children: Children) -> None:
        """Who is alive now, and the gauges that follow from it."""
        self._children = children
        self._own.set("flyproxy_config_generation", children.generation)
        self._own.set("flyproxy_config_last_reload_successful", int(children.last_reload_ok))
        self._own.set_seconds("flyproxy_config_last_reload_success_timestamp_seconds", children.last_reload_ms / 1000)
        restarts: Counter[str] = Counter()
        for child in children.children:
            restarts[child.kind] += child.restarts
        for kind, count in restarts.items():
            self._own.set("flyproxy_child_restarts_total", count, process=kind)
