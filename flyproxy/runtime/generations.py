"""From one configuration to the next: every child prepares, then all commit, or none does.

A generation is in force in the supervisor before it is committed to the children; a child that is born in between
starts with the newest, and one that says it is ready with an older one is brought up to date.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flyproxy.config.resolved import Listener, Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.runtime.doors import Address, DoorError, Doors
from flyproxy.runtime.messages import Abort, Commit, Message, Prepare, Prepared, Refused
from flyproxy.runtime.slots import Slot

log = logging.getLogger("flyproxy.supervisor")

PREPARE_TIMEOUT_S = 15.0
"""How long the children may take to prepare a generation."""
NEVER_REFUSE = frozenset({"query"})
"""Kinds of children whose answer is not waited for: a query worker finishes its query first, which may take as long as
telemetry.query_timeout, and has no reason to refuse."""

DOOR_RETRY_S = 0.05
DOOR_TRIES = 40


class GenerationError(FlyproxyError):
    """A configuration that cannot take the running one's place; the old one stays in force."""


class Generations:
    """The configuration in force, and the way to the next."""

    def __init__(self, resolved: Resolved, doors: Doors) -> None:
        self.number = 1
        self.resolved = resolved
        self._doors = doors
        self._tried = 1
        """Numbers are never used twice: an answer to a try that was given up must not pass for one to the next."""
        self._preparing = 0
        self._waiting: dict[str, asyncio.Future[str]] = {}

    def descriptors(self, slot: Slot, resolved: Resolved) -> list[int]:
        """The door sockets of an edge worker; nothing for others (their sockets never change)."""
        if slot.kind != "edge":
            return []
        return self._doors.descriptors(slot.worker, resolved.edge.listeners)

    async def change(self, wanted: Resolved, slots: Sequence[Slot]) -> None:
        """Bring `wanted` into force; raises GenerationError or DoorError and leaves everything as it was."""
        refuse_what_needs_a_restart(self.resolved, wanted)
        listeners, added = await self._open_doors(wanted.edge.listeners)
        wanted = replace(wanted, edge=replace(wanted.edge, listeners=listeners))
        self._tried = number = max(self._tried, self.number) + 1
        prepared = {slot.name: slot for slot in slots if slot.ready}
        try:
            await self._prepare(number, wanted, prepared)
        except BaseException:
            for name, slot in prepared.items():
                if slot.name == name:
                    slot.send(Abort(number))
            self._doors.close(added)
            raise
        self.number = number
        self.resolved = wanted
        for slot in slots:
            if not slot.ready:
                continue  # it starts with this one, or is brought up to date when it is ready
            if slot.name in prepared:
                slot.send(Commit(number))
                slot.generation = number
            else:  # a successor that became ready meanwhile was never asked to prepare
                self.catch_up(slot)
        self._doors.keep_only(listeners)

    async def _open_doors(self, listeners: Sequence[Listener]) -> tuple[tuple[Listener, ...], list[Address]]:
        """Doors.open; a door that the generation before closed may still be open in a worker that has not got to its
        Commit yet, so it is given a moment."""
        for _ in range(DOOR_TRIES):
            if not self._doors.closed_lately(listeners):
                break
            try:
                return self._doors.open(listeners)
            except DoorError:
                await asyncio.sleep(DOOR_RETRY_S)
        return self._doors.open(listeners)

    async def _prepare(self, number: int, wanted: Resolved, slots: Mapping[str, Slot]) -> None:
        loop = asyncio.get_running_loop()
        waiting = {name: loop.create_future() for name, slot in slots.items() if slot.kind not in NEVER_REFUSE}
        self._preparing, self._waiting = number, dict(waiting)
        try:
            for slot in slots.values():
                slot.send(Prepare(number, wanted), self.descriptors(slot, wanted))
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                reasons = await asyncio.gather(*waiting.values())
        except TimeoutError:
            late = ", ".join(name for name, answer in waiting.items() if answer.cancelled() or not answer.done())
            raise GenerationError(f"{late} did not prepare within {PREPARE_TIMEOUT_S:.0f} s") from None
        finally:
            self._waiting = {}
        refused = [f"{name}: {reason}" for name, reason in zip(waiting, reasons, strict=True) if reason]
        if refused:
            raise GenerationError("; ".join(refused))

    def heard(self, slot: Slot, message: Message) -> None:
        """A child's answer to Prepare (Prepared or Refused)."""
        assert isinstance(message, Prepared | Refused)
        answer = self._waiting.get(slot.name)
        if answer is None or answer.done() or message.generation != self._preparing:
            if isinstance(message, Refused) and message.generation == self.number:
                log.error("%s cannot take the generation in force: %s", slot.name, message.reason)
            return
        answer.set_result(message.reason if isinstance(message, Refused) else "")

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
