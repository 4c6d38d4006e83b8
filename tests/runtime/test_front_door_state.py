"""What telemetry knows of the whole front door."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.runtime import front_door_state
from flyproxy.runtime.front_door_state import FrontDoorState
from flyproxy.runtime.messages import Child, Children, Message, ReloadAsked
from flyproxy.runtime.store_thread import StoreThread

Until = Callable[..., Any]


@pytest.fixture
def said() -> list[Message]:
    return []


@pytest.fixture
def store(own: ProcessRecorder) -> StoreThread:
    return StoreThread(own)


@pytest.fixture
def state(own: ProcessRecorder, store: StoreThread, said: list[Message]) -> FrontDoorState:
    return FrontDoorState(own, store, said.append)


def child(kind: str, worker: int = 0, *, ready: bool = True, pid: int = 1, restarts: int = 0) -> Child:
    return Child(kind, worker, f"{kind}-{worker}-1", pid, 0, restarts, ready)


def alive(*children: Child) -> Children:
    return Children(children, (), 3, True, 1000)


def test_ready_means_traffic_queries_and_storage_and_if_not_why(state: FrontDoorState, store: StoreThread) -> None:
    assert state.ready() == (False, "an edge worker is not ready yet")
    state.children_changed(alive(child("edge"), child("edge", 1, ready=False), child("query")))
    assert state.ready() == (False, "an edge worker is not ready yet")
    state.children_changed(alive(child("edge"), child("query", ready=False)))
    assert state.ready() == (False, "no query worker is ready yet")
    state.children_changed(alive(child("edge"), child("query", ready=False), child("query", 1)))
    assert (state.ready(), state.trouble()) == ((True, ""), "")
    store.fault = "store.db: no room left"
    assert state.ready() == (False, "the store does not take samples now; the operator's log says why")
    assert state.trouble() == "store.db: no room left"
    state.draining()
    assert state.ready() == (False, "the front door is draining")


async def test_who_asks_during_a_reload_shares_the_next_one(
    state: FrontDoorState, said: list[Message], until: Until
) -> None:
    """The one under way may have read the file before the others wrote theirs."""
    first = asyncio.create_task(state.reload())
    await until(lambda: said)
    later = [asyncio.create_task(state.reload()) for _ in range(5)]
    await asyncio.sleep(0)
    assert said == [ReloadAsked()]
    state.reloaded(True, "generation 2")
    assert await first == (True, "generation 2")
    assert said == [ReloadAsked(), ReloadAsked()]
    assert not any(task.done() for task in later)
    state.reloaded(False, "line 7")
    assert await asyncio.gather(*later) == [(False, "line 7")] * 5
    state.reloaded(True, "nobody asked")
    assert len(said) == 2


async def test_a_reload_without_an_answer_ends_and_its_answer_is_not_the_next_ones(
    state: FrontDoorState, said: list[Message], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door_state, "RELOAD_TIMEOUT_S", 0.01)
    assert (await state.reload())[0] is False
    monkeypatch.setattr(front_door_state, "RELOAD_TIMEOUT_S", 10.0)
    again = asyncio.create_task(state.reload())
    await asyncio.sleep(0)
    state.reloaded(True, "of the first")
    assert not again.done()
    state.reloaded(True, "of the second")
    assert await again == (True, "of the second")


def test_each_process_is_named_once(state: FrontDoorState) -> None:
    state.children_changed(alive(child("edge", pid=11), child("query", pid=12)))
    assert [(process.name, process.pid) for process in state.processes()] == [
        ("supervisor", os.getppid()), ("edge", 11), ("query", 12),
    ]  # fmt: skip
    here = os.getpid()
    state.children_changed(alive(child("telemetry", pid=here), child("edge", pid=here), child("query", pid=here)))
    assert [(process.name, process.pid) for process in state.processes()] == [("supervisor", here)]
