"""A child's side of the control channel: the first word, then generations, then the end.

Every child follows the same steps; what differs is handed in as a Part. Messages are handled one after the other,
each to its end before the next.
"""

import asyncio
import logging
import os
import socket
from typing import Protocol

from flyproxy.config.resolved import Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.runtime.control import Channel
from flyproxy.runtime.messages import Abort, Commit, Drain, Drained, Message, Prepare, Prepared, Ready, Refused, Start

log = logging.getLogger("flyproxy.child")

EXIT_ORPHANED = 3
EXIT_CANNOT_START = 4


class Part(Protocol):
    """What one kind of child does at each step."""

    async def start(self, start: Start, sockets: list[socket.socket]) -> None:
        """Be ready to serve when this returns."""
        ...

    async def prepare(self, resolved: Resolved) -> None:
        """Check a coming generation; raises FlyproxyError when it cannot be taken."""
        ...

    async def commit(self, resolved: Resolved, sockets: list[socket.socket]) -> None:
        """Bring it into force."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Finish and leave nothing behind."""
        ...

    async def other(self, message: Message) -> None:
        """A message that only this kind of child understands."""
        ...


class ChildChannel:
    """The control channel of one child, served until the end. `threaded`: the child is a thread of the supervisor's
    process, which must not be ended with it."""

    def __init__(self, sock: socket.socket, threaded: bool) -> None:
        self._inbox: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
        self._channel = Channel(
            sock, lambda message, descriptors: self._inbox.put_nowait((message, descriptors)), self._orphaned
        )
        self._prepared: tuple[int, Resolved, list[socket.socket]] | None = None
        self._threaded = threaded

    def send(self, message: Message) -> None:
        """Say something to the supervisor."""
        self._channel.send(message)

    async def serve(self, part: Part) -> None:
        """Until drained (returns after saying so) or until the supervisor is gone (a thread is drained, a process ends
        at once). Exits with EXIT_CANNOT_START when the part cannot start; its reason is in the log."""
        while (item := await self._inbox.get()) is not None:
            message, descriptors = item
            sockets = [socket.socket(fileno=number) for number in descriptors]
            match message:
                case Start():
                    if not await self._start(part, message, sockets):
                        return
                case Prepare():
                    await self._prepare(part, message, sockets)
                case Commit():
                    await self._commit(part, message.generation)
                case Abort():
                    self._forget()
                case Drain():
                    await part.drain(message.timeout_s)
                    self.send(Drained())
                    self._channel.close()
                    return
                case _:
                    await part.other(message)
        await part.drain(0.0)

    def _orphaned(self) -> None:
        """The supervisor is gone, whatever this child is in the middle of."""
        if not self._threaded:
            # Nobody is left to drain for, and what was acknowledged is on the disk.
            log.warning("the supervisor is gone; leaving (pid %d)", os.getpid())
            os._exit(EXIT_ORPHANED)
        self._inbox.put_nowait(None)

    async def _start(self, part: Part, start: Start, sockets: list[socket.socket]) -> bool:
        try:
            await part.start(start, sockets)
        except FlyproxyError as fault:
            log.error("%s cannot start: %s", start.name, fault)
            self._channel.close()
            if not self._threaded:
                raise SystemExit(EXIT_CANNOT_START) from None
            return False
        self.send(Ready(start.generation))
        return True

    async def _prepare(self, part: Part, message: Prepare, sockets: list[socket.socket]) -> None:
        self._forget()
        try:
            await part.prepare(message.resolved)
        except FlyproxyError as fault:
            for sock in sockets:
                sock.close()
            self.send(Refused(message.generation, str(fault)))
            return
        self._prepared = (message.generation, message.resolved, sockets)
        self.send(Prepared(message.generation))

    async def _commit(self, part: Part, generation: int) -> None:
        if self._prepared is None or self._prepared[0] != generation:
            return
        _, resolved, sockets = self._prepared
        self._prepared = None
        await part.commit(resolved, sockets)

    def _forget(self) -> None:
        if self._prepared is not None:
            for sock in self._prepared[2]:
                sock.close()
            self._prepared = None
