"""How many queries run, wait, or are refused."""

import asyncio

import pytest

from flyproxy.api.admission import Admission, Seats
from flyproxy.api.faults import ApiFault


class Line:
    """Queries that run until they are told to end."""

    def __init__(self, concurrency: int = 1, waiting_max: int = 2) -> None:
        self.concurrency = concurrency
        self.admission = Admission(lambda: self.concurrency, waiting_max)
        self.running: list[str] = []

    async def query(self, name: str, end: asyncio.Event, organization: str = "personal") -> None:
        async with self.admission.turn(organization):
            self.running.append(name)
            try:
                await end.wait()
            finally:
                self.running.remove(name)

    async def start(self, name: str, end: asyncio.Event, organization: str = "personal") -> "asyncio.Task[None]":
        task = asyncio.create_task(self.query(name, end, organization))
        await settled()
        return task

    def counts(self) -> tuple[int, int]:
        statistics = self.admission.statistics()
        return statistics["queries_running"], statistics["queries_waiting"]


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_above_the_limit_waits_in_order() -> None:
    line = Line()
    ends = [asyncio.Event() for _ in range(3)]
    tasks = [await line.start(str(number), end) for number, end in enumerate(ends)]
    assert (line.running, line.counts()) == (["0"], (1, 2))
    ends[0].set()
    await settled()
    assert line.running == ["1"]
    ends[1].set()
    ends[2].set()
    await asyncio.gather(*tasks)
    assert line.counts() == (0, 0)


async def test_a_full_line_is_a_refusal() -> None:
    line, end = Line(), asyncio.Event()
    tasks = [await line.start(str(number), end) for number in range(3)]
    with pytest.raises(ApiFault) as fault:
        await line.query("late", end)
    assert (fault.value.status, fault.value.limit) == (429, "api_queries_waiting")
    assert fault.value.headers == {"Retry-After": "1"}
    end.set()
    await asyncio.gather(*tasks)


async def test_organizations_do_not_wait_for_each_other() -> None:
    line, end = Line(), asyncio.Event()
    tasks = [await line.start("a", end, "personal"), await line.start("b", end, "shop")]
    assert line.running == ["a", "b"]
    end.set()
    await asyncio.gather(*tasks)


async def test_who_leaves_the_line_is_passed_over() -> None:
    line = Line()
    first, rest = asyncio.Event(), asyncio.Event()
    one, two, three = [await line.start(name, end) for name, end in (("1", first), ("2", rest), ("3", rest))]
    two.cancel()
    await settled()
    assert line.counts() == (1, 1)
    first.set()
    await settled()
    assert line.running == ["3"]
    rest.set()
    await asyncio.gather(one, three)
    assert line.counts() == (0, 0)


@pytest.mark.parametrize("leaving_first", [True, False])
async def test_a_turn_given_to_who_leaves_goes_to_the_next(leaving_first: bool) -> None:
    line = Line()
    first, rest = asyncio.Event(), asyncio.Event()
    one, two, three = [await line.start(name, end) for name, end in (("1", first), ("2", rest), ("3", rest))]
    if leaving_first:
        two.cancel()
        one.cancel()
    else:
        first.set()
        await one
        two.cancel()
    await settled()
    assert line.running == ["3"]
    rest.set()
    await three
    assert line.counts() == (0, 0)


async def test_a_raised_limit_is_in_force_at_once() -> None:
    line = Line()
    first, rest = asyncio.Event(), asyncio.Event()
    tasks = [await line.start(name, end) for name, end in (("1", first), ("2", rest), ("3", rest))]
    line.concurrency = 3
    first.set()
    await settled()
    assert line.running == ["2", "3"]
    rest.set()
    await asyncio.gather(*tasks)


class Bench:
    """Queries that take a seat and answer when told; `order` is who got one."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.seats = Seats(lambda: self.count)
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    async def query(self, name: str) -> None:
        async with self.seats.taken(name[0]):
            self.order.append(name)
            await self.ends[name].wait()

    async def start(self, *names: str) -> "list[asyncio.Task[None]]":
        """Organization `a`'s first query is "a1"."""
        self.ends |= {name: asyncio.Event() for name in names}
        tasks = [asyncio.create_task(self.query(name)) for name in names]
        await settled()
        return tasks

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await settled()


async def test_organizations_take_turns_however_long_one_line_is() -> None:
    bench = Bench()
    tasks = await bench.start("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    await bench.end("a1", "a2", "b1", "c1", "a3", "b2", "a4")
    assert bench.order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await asyncio.gather(*tasks)


async def test_a_newcomer_waits_for_one_turn_of_each_other_at_most() -> None:
    bench = Bench(2)
    tasks = await bench.start(*(f"a{number}" for number in range(9)))
    tasks += await bench.start("b1")
    assert bench.order == ["a0", "a1"]
    await bench.end("a1", "a2")
    assert bench.order == ["a0", "a1", "a2", "b1"]
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


async def test_more_workers_are_more_seats_from_the_next_query_on() -> None:
    bench = Bench()
    tasks = await bench.start("a1", "a2", "a3")
    bench.count = 3
    tasks += await bench.start("a4")
    assert bench.order == ["a1", "a2", "a3"]
    for name in bench.ends:
        await bench.end(name)
    await asyncio.gather(*tasks)
