"""How many queries run, wait, or are refused."""

import asyncio

import pytest

from flyproxy.api.admission import Admission
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
