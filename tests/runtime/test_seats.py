"""Whose question the query workers get next."""

import asyncio

from flyproxy.runtime.seats import Seats


class Bench:
    """Questions that take a seat and answer when told; `order` is who got one."""

    def __init__(self, count: int = 1) -> None:
        self.seats = Seats(count)
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    async def question(self, name: str) -> None:
        await self.seats.take(name[0])
        try:
            self.order.append(name)
            await self.ends[name].wait()
        finally:
            self.seats.give_back(name[0])

    async def start(self, *names: str) -> "list[asyncio.Task[None]]":
        """Organization `a`'s first question is "a1"."""
        self.ends |= {name: asyncio.Event() for name in names}
        tasks = [asyncio.create_task(self.question(name)) for name in names]
        await settled()
        return tasks

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await settled()


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_organizations_take_turns_however_long_one_line_is() -> None:
    bench = Bench()
    tasks = await bench.start("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    await bench.end("a1", "a2", "b1", "c1", "a3", "b2", "a4")
    assert bench.order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await asyncio.gather(*tasks)


async def test_no_organization_gets_the_last_of_several_seats() -> None:
    bench = Bench(3)
    tasks = await bench.start("a1", "a2", "a3", "a4")
    assert bench.order == ["a1", "a2"]
    tasks += await bench.start("b1")
    assert bench.order == ["a1", "a2", "b1"]
    await bench.end("b1")
    assert bench.order == ["a1", "a2", "b1"]
    tasks += await bench.start("c1")
    await bench.end("a1")
    assert bench.order == ["a1", "a2", "b1", "c1", "a3"]
    await bench.end("a2", "c1", "a3", "a4")
    await asyncio.gather(*tasks)
    assert bench.seats.statistics() == {"seats_taken": 0, "seats_wanted": 0}


async def test_a_newcomer_waits_for_one_turn_of_each_other_at_most() -> None:
    bench = Bench(2)
    tasks = await bench.start("a1", "b1", "a2", "b2", "a3", "b3", "c1")
    assert bench.order == ["a1", "b1"]
    assert bench.seats.statistics() == {"seats_taken": 2, "seats_wanted": 5}
    await bench.end("b1", "a1")
    assert "c1" not in bench.order
    await bench.end("a2", "b2")
    assert "c1" in bench.order
    for name in bench.ends:
        await bench.end(name)
    await asyncio.gather(*tasks)


async def test_who_leaves_gives_the_turn_and_the_seat_back() -> None:
    bench = Bench()
    first, second, other, last = await bench.start("a1", "a2", "b1", "a3")
    second.cancel()
    await settled()
    bench.ends["a1"].set()
    await first
    other.cancel()  # in the moment it is given the seat, or just after
    await settled()
    assert bench.order[-1] == "a3"
    await bench.end("a3")
    await last
    (again,) = await bench.start("c1")
    await bench.end("c1")
    await again
    assert bench.seats.statistics() == {"seats_taken": 0, "seats_wanted": 0}
