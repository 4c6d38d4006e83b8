"""Places for those who give them back."""

import asyncio

import pytest

from flyproxy.scrape.turns import Turn, Turns


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


class Queue:
    """Takers, and the order in which they got their places."""

    def __init__(self, places: int, reserved: int = 0) -> None:
        self.turns = Turns(places, reserved)
        self.served: list[str] = []
        self.held: dict[str, Turn] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, trusted: bool = False) -> None:
        self.tasks[name] = asyncio.create_task(self._take(name, trusted))
        await settle()

    async def leave(self, name: str) -> None:
        self.held.pop(name).leave()
        await settle()

    async def _take(self, name: str, trusted: bool) -> None:
        self.held[name] = await self.turns.take(trusted)
        self.served.append(name)


async def test_who_comes_first_is_served_first() -> None:
    queue = Queue(2)
    for name in "abcd":
        await queue.come(name)
    assert queue.served == ["a", "b"]
    assert queue.turns.wanted
    await queue.leave("b")
    await queue.leave("a")
    assert queue.served == ["a", "b", "c", "d"]
    assert not queue.turns.wanted


async def test_who_is_trusted_is_served_before_the_others() -> None:
    queue = Queue(1)
    await queue.come("a")
    await queue.come("b")
    await queue.come("trusted", trusted=True)
    for name in ("a", "trusted"):
        await queue.leave(name)
    assert queue.served == ["a", "trusted", "b"]


async def test_the_reserved_places_are_for_the_trusted_alone() -> None:
    queue = Queue(2, reserved=1)
    await queue.come("a")
    await queue.come("b")
    await queue.come("trusted", trusted=True)
    assert queue.served == ["a", "trusted"]
    await queue.leave("trusted")
    assert queue.served == ["a", "trusted"]
    await queue.leave("a")
    assert queue.served == ["a", "trusted", "b"]


async def test_a_taker_that_gives_up_costs_no_place() -> None:
    queue = Queue(1)
    for name in "abc":
        await queue.come(name)
    queue.tasks["b"].cancel()
    await settle()
    await queue.leave("a")
    assert queue.served == ["a", "c"]


async def test_a_taker_that_gives_up_as_its_turn_comes_passes_it_on() -> None:
    queue = Queue(1)
    for name in "abc":
        await queue.come(name)
    queue.held.pop("a").leave()
    queue.tasks["b"].cancel()
    await settle()
    assert queue.served == ["a", "c"]
    with pytest.raises(asyncio.CancelledError):
        await queue.tasks["b"]


async def test_a_holder_is_told_when_somebody_begins_to_wait() -> None:
    turns = Turns(1, 0)
    told: list[str] = []
    turn = await turns.take(False, lambda: told.append("hurry"))
    waiting = asyncio.create_task(turns.take(False))
    await settle()
    assert told == ["hurry"]
    turn.leave()
    (await waiting).leave()
    assert told == ["hurry"]
