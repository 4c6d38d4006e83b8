"""A slot is filled again whenever its child is gone, and emptied when told to."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flyproxy.clock import ManualClock
from flyproxy.config.resolved import Resolved
from flyproxy.runtime import slots
from flyproxy.runtime.control import Channel
from flyproxy.runtime.messages import Beaten, Drain, Message, Ready, Start
from flyproxy.runtime.slots import RESTART_DELAY_MAX_S, Slot, restart_delay_s

Until = Callable[..., Any]


class Child:
    """A child that lives in this test: it hears what it is told and ends when it is told to, or killed."""

    def __init__(self, sock: socket.socket) -> None:
        self.pid = os.getpid()
        self.killed = False
        self.heard: list[Message] = []
        self._ended = asyncio.Event()
        self.channel = Channel(sock, lambda message, _: self.heard.append(message), self.end)

    def kill(self) -> None:
        self.killed = True
        self.end()

    def end(self) -> None:
        self.channel.close()
        self._ended.set()

    async def wait_gone(self) -> int | None:
        await self._ended.wait()
        return -9 if self.killed else 0


class Nursery:
    """What `start_child` is here: refuses as often as told, waits until it is let go."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.refusals = 0
        self.asked = 0
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def start(self, kind: str, sock: socket.socket, loop_name: str, *, threaded: bool) -> Child:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise OSError(11, "Resource temporarily unavailable")
        await self.let_go.wait()
        self.children.append(Child(sock))
        return self.children[-1]


class Front:
    """The supervisor, as one slot sees it."""

    def __init__(self, resolved: Resolved, clock: ManualClock) -> None:
        self.heard: list[tuple[str, Message]] = []
        self.changes: list[tuple[str, bool]] = []
        self._resolved = resolved
        self.slot = Slot("edge", 0, "asyncio", False, clock, self.begin, self.hear, self.changed)

    def begin(self, slot: Slot) -> tuple[Start, Sequence[int]]:
        start = Start("edge", 0, slot.name, 7, self._resolved, "/nowhere", "blue", "boot", False)
        return start, []

    def hear(self, slot: Slot, message: Message) -> None:
        self.heard.append((slot.name, message))
        if isinstance(message, Ready):
            slot.set_ready(True)

    def changed(self, slot: Slot) -> None:
        self.changes.append((slot.name, slot.describe() is not None))

    async def empty(self) -> None:
        self.slot.stop_filling()
        self.slot.kill()
        await self.slot.wait_gone()


@pytest.fixture
async def nursery(monkeypatch: pytest.MonkeyPatch) -> Nursery:
    made = Nursery()
    monkeypatch.setattr(slots, "start_child", made.start)
    monkeypatch.setattr(slots, "RESTART_DELAY_FIRST_S", 0.001)
    return made


@pytest.fixture
async def front(resolved: Resolved, clock: ManualClock, nursery: Nursery) -> Front:
    return Front(resolved, clock)


async def test_a_child_hears_who_it_is_first_and_is_ready_when_it_says_so(
    front: Front, nursery: Nursery, until: Until
) -> None:
    front.slot.start()
    await until(lambda: nursery.children and nursery.children[0].heard)
    (child,) = nursery.children
    first = child.heard[0]
    assert isinstance(first, Start)
    assert first.name == "edge-0-1"
    assert front.slot.generation == 7
    assert not front.slot.ready
    child.channel.send(Ready(7))
    async with asyncio.timeout(10):
        await front.slot.wait_ready()
    described = front.slot.describe()
    assert described is not None
    assert (described.name, described.ready, described.restarts) == ("edge-0-1", True, 0)
    await front.empty()
    assert front.slot.describe() is None


async def test_a_child_that_dies_is_followed_by_one_of_another_name(
    front: Front, nursery: Nursery, until: Until
) -> None:
    front.slot.start()
    await until(lambda: nursery.children)
    nursery.children[0].kill()
    await until(lambda: len(nursery.children) == 2)
    assert front.slot.name == "edge-0-2"
    assert front.slot.restarts == 1
    assert not front.slot.ready
    assert front.changes == [("edge-0-1", True), ("edge-0-1", False), ("edge-0-2", True)]
    await front.empty()


async def test_a_start_that_fails_is_tried_again_and_leaks_nothing(
    front: Front, nursery: Nursery, until: Until
) -> None:
    nursery.refusals = 3
    before = len(os.listdir("/proc/self/fd"))
    front.slot.start()
    await until(lambda: nursery.children)
    assert nursery.asked == 4
    await front.empty()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_child_that_is_just_being_started_is_killed_when_it_is_there(
    front: Front, nursery: Nursery, until: Until
) -> None:
    nursery.let_go.clear()
    front.slot.start()
    await until(lambda: nursery.asked)
    front.slot.stop_filling()
    front.slot.kill()
    nursery.let_go.set()
    async with asyncio.timeout(10):
        await front.slot.wait_gone()
    assert nursery.children[0].killed
    assert len(nursery.children) == 1


async def test_a_slot_that_is_told_to_stop_does_not_sleep_out_its_pause(
    front: Front, nursery: Nursery, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "restart_delay_s", lambda quick_ends: 3600.0)
    front.slot.start()
    await until(lambda: nursery.children)
    nursery.children[0].kill()
    await until(lambda: ("edge-0-1", False) in front.changes)
    front.slot.stop_filling()
    async with asyncio.timeout(10):
        await front.slot.wait_gone()


async def test_a_child_that_hangs_after_closing_its_channel_is_killed(
    front: Front, nursery: Nursery, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "LEAVE_TIMEOUT_S", 0.01)
    front.slot.start()
    await until(lambda: nursery.children)
    nursery.children[0].channel.close()
    await until(lambda: len(nursery.children) == 2)
    assert nursery.children[0].killed
    await front.empty()


async def test_a_child_that_is_never_ready_is_killed(
    front: Front, nursery: Nursery, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "START_TIMEOUT_S", 0.01)
    front.slot.start()
    await until(lambda: len(nursery.children) == 2)
    assert nursery.children[0].killed
    await front.empty()


async def test_a_child_that_leaves_as_told_is_not_followed(front: Front, nursery: Nursery, until: Until) -> None:
    front.slot.start()
    await until(lambda: nursery.children)
    front.slot.stop_filling()
    front.slot.send(Drain(1.0))
    await until(lambda: Drain(1.0) in nursery.children[0].heard)
    nursery.children[0].end()
    async with asyncio.timeout(10):
        await front.slot.wait_gone()
    assert len(nursery.children) == 1
    front.slot.send(Beaten())  # nobody is there: silent


def test_the_pause_grows_to_its_bound_and_stays_there_for_ever() -> None:
    delays = [restart_delay_s(ends) for ends in range(5000)]
    assert delays[:5] == [0.0, 0.0, 0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == RESTART_DELAY_MAX_S
