"""From one configuration to the next: all or none, whoever dies or comes meanwhile."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from flyproxy.config.resolved import Listener, Resolved
from flyproxy.runtime import generations
from flyproxy.runtime.doors import DoorError, Doors
from flyproxy.runtime.generations import GenerationError, Generations
from flyproxy.runtime.messages import Abort, Commit, Message, Prepare, Prepared, Refused

Until = Callable[..., Any]


@dataclass
class Place:
    """A slot as Generations sees it, and what was said to the child in it."""

    kind: str
    worker: int = 0
    name: str = ""
    ready: bool = True
    generation: int = 1
    said: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"{self.kind}-{self.worker}-1"

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self.said.append(message)

    def replaced(self, *, ready: bool = True) -> None:
        """The child died and another one is here."""
        self.name += "0"
        self.ready = ready
        self.said = []

    def prepares(self) -> list[int]:
        return [message.generation for message in self.said if isinstance(message, Prepare)]

    def commits(self) -> list[int]:
        return [message.generation for message in self.said if isinstance(message, Commit)]

    def aborts(self) -> list[int]:
        return [message.generation for message in self.said if isinstance(message, Abort)]


class Table:
    """Generations, the places it talks to, and a change under way."""

    def __init__(self, resolved: Resolved) -> None:
        self.doors = Doors(2)
        listeners, _ = self.doors.open(resolved.edge.listeners)
        self.resolved = replace(resolved, edge=replace(resolved.edge, listeners=listeners))
        self.generations = Generations(self.resolved, self.doors)
        self.edges = [Place("edge", worker) for worker in range(2)]
        self.query = Place("query")
        self.places = [Place("telemetry"), self.query, *self.edges]

    def change(self, wanted: Resolved | None = None) -> asyncio.Task[None]:
        slots = cast(Any, self.places)
        return asyncio.create_task(self.generations.change(wanted or self.resolved, slots))

    def answer(self, place: Place, message: Message) -> None:
        self.generations.heard(cast(Any, place), message)

    def answer_all(self, generation: int) -> None:
        for place in self.places:
            self.answer(place, Prepared(generation))

    def catch_up(self, place: Place) -> None:
        self.generations.catch_up(cast(Any, place))


@pytest.fixture
def table(resolved: Resolved) -> Iterator[Table]:
    made = Table(resolved)
    yield made
    made.doors.close()


async def test_all_prepare_then_all_commit(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    assert not any(place.commits() for place in table.places)
    table.answer_all(2)
    await change
    assert [place.commits() for place in table.places] == [[2]] * 4
    assert [place.generation for place in table.places] == [2] * 4
    assert table.generations.number == 2


async def test_one_refusal_and_the_old_one_stays_everywhere(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    table.answer(table.places[0], Prepared(2))
    table.answer(table.edges[0], Prepared(2))
    table.answer(table.edges[1], Refused(2, "two apps have that name"))
    with pytest.raises(GenerationError, match="edge-1-1: two apps have that name"):
        await change
    assert [place.aborts() for place in table.places] == [[2]] * 4
    assert not any(place.commits() for place in table.places)
    assert table.generations.number == 1


async def test_who_does_not_answer_in_time_is_named(
    table: Table, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "PREPARE_TIMEOUT_S", 0.05)
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    table.answer(table.places[0], Prepared(2))
    table.answer(table.edges[0], Prepared(2))
    with pytest.raises(GenerationError, match=r"^edge-1-1 did not prepare"):
        await change


async def test_a_query_worker_busy_with_a_long_query_holds_nobody_up(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    for place in table.places:
        if place is not table.query:
            table.answer(place, Prepared(2))
    await change
    assert (table.query.prepares(), table.query.commits()) == ([2], [2])


async def test_a_late_answer_to_a_try_that_was_given_up_does_not_pass_for_the_next(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    for place in table.places[:-1]:
        table.answer(place, Refused(2, "no"))
    table.generations.gone(table.edges[1].name)
    with pytest.raises(GenerationError):
        await change
    again = table.change()
    await until(lambda: len(table.edges[1].prepares()) == 2)
    second = table.edges[1].prepares()[1]
    assert second != 2
    for place in table.places[:-1]:
        table.answer(place, Prepared(second))
    table.answer(table.edges[1], Prepared(2))
    table.answer(table.edges[1], Refused(second, "this one I cannot take"))
    with pytest.raises(GenerationError, match="this one I cannot take"):
        await again


async def test_a_child_that_dies_while_preparing_holds_nobody_up(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    table.edges[1].ready = False
    table.generations.gone(table.edges[1].name)
    table.answer_all(2)
    await change
    assert table.edges[0].commits() == [2]
    assert table.edges[1].commits() == []


async def test_a_successor_that_is_ready_before_the_commit_is_asked_to_prepare_too(table: Table, until: Until) -> None:
    change = table.change()
    await until(lambda: table.edges[1].prepares())
    table.generations.gone(table.edges[1].name)
    table.edges[1].replaced()
    table.catch_up(table.edges[1])
    table.answer_all(2)
    await change
    assert (table.edges[1].prepares(), table.edges[1].commits()) == ([2], [2])
    assert table.edges[1].generation == 2


async def test_a_child_that_becomes_ready_while_others_prepare_is_not_left_behind(table: Table, until: Until) -> None:
    table.edges[1].ready = False
    change = table.change()
    await until(lambda: table.edges[0].prepares())
    table.edges[1].ready = True
    table.catch_up(table.edges[1])
    table.answer_all(2)
    await change
    assert (table.edges[1].prepares(), table.edges[1].commits()) == ([2], [2])


async def test_a_child_born_with_the_old_one_is_brought_up_to_date(table: Table, until: Until) -> None:
    table.edges[1].ready = False
    change = table.change()
    await until(lambda: table.edges[0].prepares())
    table.answer_all(2)
    await change
    assert table.edges[1].said == []
    table.edges[1].ready = True
    table.catch_up(table.edges[1])
    assert (table.edges[1].prepares(), table.edges[1].commits()) == ([2], [2])
    table.catch_up(table.edges[1])
    assert table.edges[1].commits() == [2]


async def test_a_door_of_a_refused_generation_is_closed_again(table: Table, until: Until) -> None:
    more = Listener(host="127.0.0.1", port=0, http=True, region="ord", app=None)
    listeners = (*table.resolved.edge.listeners, more)
    change = table.change(replace(table.resolved, edge=replace(table.resolved.edge, listeners=listeners)))
    await until(lambda: table.edges[1].prepares())
    assert len(table.doors._sockets) == 2
    for place in table.places:
        table.answer(place, Refused(2, "no"))
    with pytest.raises(GenerationError):
        await change
    assert len(table.doors._sockets) == 1


async def test_a_door_that_a_worker_has_not_closed_yet_can_be_opened_again(table: Table, until: Until) -> None:
    """Removed by one reload and back in the next, before the worker got to its Commit."""
    (kept,) = table.resolved.edge.listeners
    (gone,), _ = table.doors.open([Listener(host="127.0.0.1", port=0, http=True, region="ord", app=None)])
    held = socket.socket(fileno=socket.dup(table.doors.descriptors(0, [gone])[0]))
    table.doors.keep_only([kept])
    with pytest.raises(DoorError):
        table.doors.open([gone])
    change = table.change(replace(table.resolved, edge=replace(table.resolved.edge, listeners=(kept, gone))))
    await asyncio.sleep(0)
    held.close()
    await until(lambda: table.edges[1].prepares())
    table.answer_all(2)
    await change


async def test_what_children_are_born_with_needs_a_restart_and_all_of_it_is_named(table: Table) -> None:
    wanted = replace(
        table.resolved, workers=5, telemetry=replace(table.resolved.telemetry, data_dir="elsewhere", query_workers=9)
    )
    with pytest.raises(GenerationError, match=r"edge\.workers, telemetry\.data_dir, telemetry\.query_workers: cannot"):
        await table.change(wanted)
    assert not any(place.said for place in table.places)
