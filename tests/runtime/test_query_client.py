"""Telemetry's side of the query workers, against workers that do what a test tells them."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.errors import NotReadyError
from flyproxy.runtime import query_client
from flyproxy.runtime.query_channel import Hello, read_value, write_answer, write_value
from flyproxy.runtime.query_client import QueryClient

Until = Callable[..., Any]


def request(expression: str = "up", timeout_s: float = 10.0) -> QueryRequest:
    return QueryRequest("query", "personal", expression, timeout_s=timeout_s)


class ScriptedWorker:
    """One query worker's socket. `says` decides: an answer, None to hang up, or what to wait for first."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.pid = 0
        self.threaded = True
        self.asked: list[str] = []
        self.connections = 0
        self.hung_up = 0
        self.busy: asyncio.Event = asyncio.Event()
        """Cleared: like a worker in the middle of a computation, it does not even say hello."""
        self.busy.set()
        self.deaths = 0

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._converse, self.path)

    async def stop(self) -> None:
        self.busy.set()
        self._server.close()
        await asyncio.sleep(0)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.busy.wait()
            self.connections += 1
            write_value(writer, Hello(self.pid, self.threaded))
            while True:
                question, _ = await read_value(reader)
                self.asked.append(question.expression)
                if question.expression == "hang":
                    self.busy.clear()
                if self.deaths:
                    self.deaths -= 1
                    break
                await self.busy.wait()
                await write_answer(writer, QueryAnswer(200, question.expression.encode() * 3))
        self.hung_up += 1
        writer.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[ScriptedWorker]:
    made = ScriptedWorker(tmp_path / "query-0.sock")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def killed() -> list[str]:
    return []


@pytest.fixture
async def client(worker: ScriptedWorker, killed: list[str]) -> AsyncIterator[QueryClient]:
    made = QueryClient([worker.path], lambda: killed.append("killed"))
    yield made
    made.close()
    await asyncio.sleep(0.01)  # closed transports say so in the next turns


@pytest.fixture
def process() -> Any:
    """Somebody a test may kill."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


async def test_questions_share_a_connection_and_are_answered_in_turn(
    client: QueryClient, worker: ScriptedWorker
) -> None:
    answers = await asyncio.gather(*(client.ask(request(f"q{number}")) for number in range(20)))
    assert [answer.body for answer in answers] == [f"q{number}".encode() * 3 for number in range(20)]
    assert worker.connections == 1


async def test_a_large_answer_comes_whole(client: QueryClient) -> None:
    text = "x" * 3_000_001
    assert (await client.ask(request(text))).body == text.encode() * 3


async def test_two_workers_answer_at_the_same_time(tmp_path: Path) -> None:
    workers = [ScriptedWorker(tmp_path / f"query-{number}.sock") for number in (1, 2)]
    for one in workers:
        await one.start()
    both = QueryClient([one.path for one in workers], lambda: None)
    hanging = asyncio.create_task(both.ask(request("hang")))
    neighbours = replace(request("quick"), organization="shop")
    assert [(await both.ask(neighbours)).status for _ in range(5)] == [200] * 5
    with pytest.raises(TimeoutError):  # one worker is left, and that is not for who has the other
        await both.ask(request("quick", timeout_s=0.01))
    assert not hanging.done()
    for one in workers:
        one.busy.set()
    assert (await hanging).status == 200
    both.close()
    for one in workers:
        await one.stop()


async def test_a_question_taken_back_counts_until_its_worker_lets_go(tmp_path: Path, until: Until) -> None:
    """Else who asks and leaves, again and again, could have every worker."""
    workers = [ScriptedWorker(tmp_path / f"query-{number}.sock") for number in (1, 2)]
    for one in workers:
        await one.start()
    both = QueryClient([one.path for one in workers], lambda: None)
    asking = asyncio.create_task(both.ask(request("hang")))
    await until(lambda: any(one.asked for one in workers))
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    with pytest.raises(TimeoutError):
        await both.ask(request("too early", timeout_s=0.02))
    assert (await both.ask(replace(request("quick"), organization="shop"))).status == 200
    for one in workers:
        one.busy.set()
    assert (await both.ask(request("now"))).status == 200
    both.close()
    for one in workers:
        await one.stop()


async def test_a_fresh_successor_is_asked_last(tmp_path: Path) -> None:
    """The other worker answers at once, while that one may still be starting."""
    workers = [ScriptedWorker(tmp_path / f"query-{number}.sock") for number in (1, 2)]
    for one in workers:
        await one.start()
    both = QueryClient([one.path for one in workers], lambda: None)
    await both.ask(request("first"))
    (used,) = [one for one in workers if one.asked]
    used.deaths = 2
    with pytest.raises(NotReadyError):
        await both.ask(request("deadly"))
    await both.ask(request("second"))
    await both.ask(request("third"))
    assert used.asked == ["first", "deadly", "deadly"]
    both.close()
    for one in workers:
        await one.stop()


async def test_who_waits_in_line_beyond_its_deadline_is_told_and_the_worker_is_not_killed(
    client: QueryClient, worker: ScriptedWorker, killed: list[str], until: Until
) -> None:
    first = asyncio.create_task(client.ask(request("hang")))
    await until(lambda: worker.asked)
    with pytest.raises(TimeoutError):
        await client.ask(request("late", timeout_s=0.01))
    worker.busy.set()
    assert (await first).status == 200
    assert killed == []


async def test_a_worker_that_overruns_is_killed_and_its_successor_answers(
    client: QueryClient,
    worker: ScriptedWorker,
    killed: list[str],
    process: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(query_client, "DEADLINE_GRACE_S", 0.01)
    worker.pid, worker.threaded = process.pid, False
    with pytest.raises(TimeoutError):
        await client.ask(request("hang", timeout_s=0.05))
    assert killed == ["killed"]
    assert await asyncio.to_thread(process.wait, 10) == -9
    worker.pid, worker.threaded = 0, True
    worker.busy.set()
    assert (await client.ask(request("again"))).status == 200


async def test_a_question_taken_back_is_hung_up_on_and_the_worker_free_when_it_lets_go(
    client: QueryClient, worker: ScriptedWorker, killed: list[str], until: Until
) -> None:
    asking = asyncio.create_task(client.ask(request("hang")))
    await until(lambda: worker.asked)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    with pytest.raises(TimeoutError):
        await client.ask(request("too early", timeout_s=0.02))
    assert worker.asked == ["hang"]
    worker.busy.set()
    await until(lambda: worker.hung_up)
    assert (await client.ask(request("now"))).status == 200
    assert killed == []


async def test_a_question_taken_back_does_not_keep_its_worker_beyond_its_deadline(
    client: QueryClient,
    worker: ScriptedWorker,
    killed: list[str],
    process: "subprocess.Popen[bytes]",
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a visitor who asks something endless and leaves would own the worker."""
    monkeypatch.setattr(query_client, "DEADLINE_GRACE_S", 0.01)
    worker.pid, worker.threaded = process.pid, False
    asking = asyncio.create_task(client.ask(request("hang", timeout_s=0.1)))
    await until(lambda: worker.asked)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(process.wait, 10) == -9
    await until(lambda: killed == ["killed"])


async def test_a_worker_that_dies_under_a_question_is_followed_once(
    client: QueryClient, worker: ScriptedWorker
) -> None:
    worker.deaths = 1
    assert (await client.ask(request("once"))).status == 200
    assert worker.asked == ["once", "once"]
    worker.deaths = 2
    with pytest.raises(NotReadyError, match="ended while answering"):
        await client.ask(request("deadly"))
    assert (await client.ask(request("next"))).status == 200


async def test_no_worker_at_all_is_not_ready(tmp_path: Path) -> None:
    nobody = QueryClient([str(tmp_path / "nobody.sock")], lambda: None)
    with pytest.raises(NotReadyError):
        await nobody.ask(request())
    nobody.close()


async def test_nothing_stays_open(worker: ScriptedWorker, process: "subprocess.Popen[bytes]", until: Until) -> None:
    before = len(os.listdir("/proc/self/fd"))
    worker.pid, worker.threaded = process.pid, False
    for _ in range(5):
        one = QueryClient([worker.path], lambda: None)
        await one.ask(request())
        worker.deaths = 1
        await one.ask(request())
        one.close()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
