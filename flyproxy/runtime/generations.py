"""From one configuration to the next: every child prepares, then all commit, or none does.

A generation is in force in the supervisor before it is committed to the children; a child that is born in between
starts with the newest, and one that says it is ready with an older one is brought up to date.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from flyproxy.config.resolved import Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.runtime.doors import Doors
from flyproxy.runtime.messages import Abort, Commit, Message, Prepare, Prepared, Refused
from flyproxy.runtime.slots import Slot

PREPARE_TIMEOUT_S = 15.0
"""How long the children may take to prepare a generation; a query worker finishes its query first."""


class GenerationError(FlyproxyError):
    """A configuration that cannot take the running one's place; the old one stays in force."""


class Generations:
    """The configuration in force, and the way to the next."""

    def __init__(self, resolved: Resolved, doors: Doors) -> None:
        self.number = 1
        self.resolved = resolved
        self._doors = doors
        self._waiting: dict[str, asyncio.Future[str]] = {}

    def descriptors(self, slot: Slot, resolved: Resolved) -> list[int]:
        """The door sockets of an edge worker; nothing for others (their sockets never change)."""
        if slot.kind != "edge":
            return []
        return self._doors.descriptors(slot.worker, resolved.edge.listeners)

    async def change(self, wanted: Resolved, slots: Sequence[Slot]) -> None:
        """Bring `wanted` into force; raises GenerationError or DoorError and leaves everything as it was."""
        refuse_what_needs_a_restart(self.resolved, wanted)
        listeners, added = self._doors.open(wanted.edge.listeners)
        wanted = replace(wanted, edge=replace(wanted.edge, listeners=listeners))
        number = self.number + 1
        alive = [slot for slot in slots if slot.ready]
        try:
            await self._prepare(number, wanted, alive)
        except GenerationError:
            for slot in alive:
                slot.send(Abort(number))
            self._doors.close(added)
            raise
        self.number = number
        self.resolved = wanted
        for slot in alive:
            if slot.ready:
                slot.send(Commit(number))
                slot.generation = number
        self._doors.keep_only(listeners)

    async def _prepare(self, number: int, wanted: Resolved, slots: Sequence[Slot]) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = {slot.name: loop.create_future() for slot in slots}
        waiting = dict(self._waiting)
        for slot in slots:
            slot.send(Prepare(number, wanted), self.descriptors(slot, wanted))
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                reasons = await asyncio.gather(*waiting.values())
        except TimeoutError:
            late = ", ".join(name for name, answer in waiting.items() if not answer.done())
            raise GenerationError(f"{late} did not prepare within {PREPARE_TIMEOUT_S:.0f} s") from None
        finally:
            self._waiting = {}
        refused = [f"{name}: {reason}" for name, reason in zip(waiting, reasons, strict=True) if reason]
        if refused:
            raise GenerationError("; ".join(refused))

    def heard(self, slot: Slot, message: Message) -> None:
        """A child's answer to Prepare."""
        answer = self._waiting.get(slot.name)
        if answer is None or answer.done():
            return
        if isinstance(message, Prepared):
            answer.set_result("")
        elif isinstance(message, Refused):
            answer.set_result(message.reason)

    def gone(self, name: str) -> None:
        """A child died while preparing: its successor starts with whatever is then in force."""
        answer = self._waiting.get(name)
        if answer is not None and not answer.done():
            answer.set_result("")

    def catch_up(self, slot: Slot) -> None:
        """Bring a child that became ready with an older generation to the one in force."""
        if slot.generation != self.number:
            slot.send(Prepare(self.number, self.resolved), self.descriptors(slot, self.resolved))
            slot.send(Commit(self.number))
            slot.generation = self.number


def refuse_what_needs_a_restart(current: Resolved, wanted: Resolved) -> None:
    """Settings that children are born with; raises GenerationError naming all that changed."""
    fixed = {
        "edge.workers": (current.workers, wanted.workers),
        "edge.loop": (current.edge.loop, wanted.edge.loop),
        "telemetry.bind": (
            (current.telemetry.host, current.telemetry.port),
            (wanted.telemetry.host, wanted.telemetry.port),
        ),
        "telemetry.data_dir": (current.telemetry.data_dir, wanted.telemetry.data_dir),
        "telemetry.query_workers": (current.telemetry.query_workers, wanted.telemetry.query_workers),
        "telemetry.query_memory": (current.telemetry.query_memory_bytes, wanted.telemetry.query_memory_bytes),
    }
    changed = [name for name, (now, then) in fixed.items() if now != then]
    if changed:
        raise GenerationError(f"{', '.join(changed)}: cannot change while running; restart the front door for that")
