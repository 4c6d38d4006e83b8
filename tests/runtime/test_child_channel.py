"""A child's side of the control channel: every step in order, each to its end."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from flyproxy.config.resolved import Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.runtime.child_channel import EXIT_CANNOT_START, ChildChannel
from flyproxy.runtime.control import Channel, channel_pair
from flyproxy.runtime.messages import (
    Abort,
    Beat,
    Commit,
    Drain,
    Drained,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Start,
)

Until = Callable[..., Any]


class Part:
    """Notes each step; refuses what it is told to."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.sockets: list[socket.socket] = []
        self.refusing = ""

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if self.refusing:
            raise FlyproxyError(self.refusing)

    async def start(self, start: Start, sockets: list[socket.socket]) -> None:
        self.sockets += sockets
        self._step(f"start {start.name}")

    async def prepare(self, resolved: Resolved) -> None:
        self._step("prepare")

    async def commit(self, resolved: Resolved, sockets: list[socket.socket]) -> None:
        self.sockets += sockets
        self._step("commit")

    async def drain(self, timeout_s: float) -> None:
        self._step(f"drain {timeout_s:.0f}")

    async def other(self, message: Message) -> None:
        self._step(type(message).__name__)


class Talk:
    """The supervisor's end, a child served at the other, and what came back."""

    def __init__(self, resolved: Resolved, *, threaded: bool = True) -> None:
        ours, theirs = channel_pair()
        self.heard: list[Message] = []
        self.part = Part()
        self.supervisor = Channel(ours, lambda message, _: self.heard.append(message), lambda: None)
        self.served = asyncio.create_task(self._serve(theirs, threaded))
        self._resolved = resolved

    async def _serve(self, sock: socket.socket, threaded: bool) -> None:
        await ChildChannel(sock, threaded).serve(self.part)

    def start(self, descriptors: list[int]) -> None:
        start = Start("edge", 0, "edge-0-1", 3, self._resolved, "/nowhere", "blue", "boot", True)
        self.supervisor.send(start, descriptors)

    def prepare(self, generation: int, descriptors: list[int]) -> None:
        self.supervisor.send(Prepare(generation, self._resolved), descriptors)

    async def end(self) -> None:
        self.supervisor.send(Drain(2.0))
        async with asyncio.timeout(10):
            await self.served
        self.supervisor.close()
        for sock in self.part.sockets:
            sock.close()


@pytest.fixture
def listening() -> Any:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


async def test_a_life_from_start_to_drain(resolved: Resolved, until: Until, listening: socket.socket) -> None:
    talk = Talk(resolved)
    talk.start([listening.fileno()])
    talk.supervisor.send(Beat())
    talk.prepare(4, [listening.fileno()])
    talk.supervisor.send(Commit(4))
    await talk.end()
    assert talk.part.steps == ["start edge-0-1", "Beat", "prepare", "commit", "drain 2"]
    assert talk.heard == [Ready(3), Prepared(4), Drained()]
    assert len(talk.part.sockets) == 2


async def test_a_refused_or_aborted_generation_leaves_no_socket_and_no_commit(
    resolved: Resolved, until: Until, listening: socket.socket
) -> None:
    talk = Talk(resolved)
    talk.start([])
    await until(lambda: talk.heard)
    before = len(os.listdir("/proc/self/fd"))
    talk.part.refusing = "no such region"
    talk.prepare(4, [listening.fileno()])
    await until(lambda: len(talk.heard) == 2)
    assert talk.heard[1] == Refused(4, "no such region")
    talk.part.refusing = ""
    talk.prepare(5, [listening.fileno()])
    talk.supervisor.send(Abort(5))
    talk.prepare(6, [listening.fileno()])
    talk.prepare(7, [listening.fileno()])  # without an abort: the newest one counts
    talk.supervisor.send(Commit(6))
    talk.supervisor.send(Abort(7))
    await until(lambda: talk.heard[-1] == Prepared(7))
    talk.supervisor.send(Beat())
    await until(lambda: talk.part.steps[-1] == "Beat")
    assert "commit" not in talk.part.steps
    assert len(os.listdir("/proc/self/fd")) == before
    await talk.end()


async def test_a_part_that_cannot_start_says_why_and_leaves(
    resolved: Resolved, caplog: pytest.LogCaptureFixture
) -> None:
    talk = Talk(resolved)
    talk.part.refusing = "no room"
    talk.start([])
    async with asyncio.timeout(10):
        await talk.served
    assert talk.heard == []
    assert "edge-0-1 cannot start: no room" in caplog.text
    talk.supervisor.close()


async def test_a_process_that_cannot_start_has_an_exit_code_and_no_traceback(
    resolved: Resolved, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = channel_pair()
    supervisor = Channel(ours, lambda message, _: None, lambda: None)
    part = Part()
    part.refusing = "no room"
    supervisor.send(Start("edge", 0, "edge-0-1", 3, resolved, "/nowhere", "blue", "boot", False))
    left = 0
    try:
        await ChildChannel(theirs, threaded=False).serve(part)
    except SystemExit as leaving:
        left = int(str(leaving.code))
    assert left == EXIT_CANNOT_START
    assert "Traceback" not in caplog.text
    supervisor.close()


async def test_a_thread_whose_supervisor_is_gone_is_drained_at_once(resolved: Resolved, until: Until) -> None:
    talk = Talk(resolved)
    talk.start([])
    await until(lambda: talk.heard)
    talk.supervisor.close()
    async with asyncio.timeout(10):
        await talk.served
    assert talk.part.steps == ["start edge-0-1", "drain 0"]
