"""A query worker, asked over its socket as telemetry asks it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyproxy.api.ports import QueryRequest
from flyproxy.config.resolved import Resolved
from flyproxy.promql.errors import QueryCanceled, QueryTimeout
from flyproxy.runtime.doors import listen_unix
from flyproxy.runtime.messages import Start
from flyproxy.runtime.places import database_path
from flyproxy.runtime.query_client import QueryClient
from flyproxy.runtime.query_worker import QueryWorker, asker_is_gone, checkpoint_until
from flyproxy.series.labels import labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer

Until = Callable[..., Any]
SERIES = 50
LAYOUT = Layout(
    tuple(labels_from({"__name__": "a_total", "i": str(number)}) for number in range(SERIES)), np.full(SERIES, True)
)


@pytest.fixture
def store(resolved: Resolved) -> Iterator[Writer]:
    path = database_path(resolved.telemetry.data_dir)
    os.makedirs(resolved.telemetry.data_dir)
    writer = Writer.open(path)
    writer.append([
        Batch("personal", "x", 1000 * beat, LAYOUT, np.full(SERIES, float(beat)), 1000) for beat in range(1, 101)
    ])  # fmt: skip
    yield writer
    writer.close()


@pytest.fixture
async def worker(resolved: Resolved, tmp_path: Path) -> AsyncIterator[QueryWorker]:
    made = QueryWorker()
    sock = listen_unix(str(tmp_path / "query-0.sock"))
    await made.start(Start("query", 0, "query-0-1", 1, resolved, str(tmp_path), "blue", "boot", True), [sock])
    yield made
    await made.drain(0.0)


@pytest.fixture
async def client(worker: QueryWorker, tmp_path: Path) -> AsyncIterator[QueryClient]:
    made = QueryClient([str(tmp_path / "query-0.sock")], lambda: None)
    yield made
    made.close()
    await asyncio.sleep(0.02)


def request(expression: str, organization: str = "personal") -> QueryRequest:
    return QueryRequest("query", organization, expression, time_ms=101_000)


async def ask(client: QueryClient, expression: str, organization: str = "personal") -> tuple[int, Any]:
    answer = await client.ask(request(expression, organization))
    return answer.status, json.loads(answer.body)


async def test_before_there_is_a_store_the_answer_says_so_and_afterwards_it_answers(
    client: QueryClient, resolved: Resolved, request: pytest.FixtureRequest
) -> None:
    status, words = await ask(client, "sum(a_total)")
    assert status == 503
    assert "the store cannot be read" in words["error"]
    request.getfixturevalue("store")
    status, words = await ask(client, "sum(a_total)")
    assert (status, words["data"]["result"][0]["value"][1]) == (200, "5000")


async def test_rows_that_came_since_are_seen_and_other_organizations_never(client: QueryClient, store: Writer) -> None:
    assert (await ask(client, "max(a_total)"))[1]["data"]["result"][0]["value"][1] == "100"
    store.append([Batch("acme", "x", 100_000, LAYOUT, np.full(SERIES, 7.0), 1000)])
    store.append([Batch("personal", "x", 101_000, LAYOUT, np.full(SERIES, 999.0), 1000)])
    assert (await ask(client, "max(a_total)"))[1]["data"]["result"][0]["value"][1] == "999"
    assert (await ask(client, "max(a_total)", "acme"))[1]["data"]["result"][0]["value"][1] == "7"


async def test_an_answer_that_is_no_json_travels_with_its_type(client: QueryClient, store: Writer) -> None:
    federated = QueryRequest("federate", "personal", matches=('a_total{i="7"}',), time_ms=101_000)
    answer = await client.ask(replace(federated, types=(("a_total", "counter"),)))
    assert (answer.status, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert answer.body == b'# TYPE a_total counter\na_total{i="7"} 100 100000\n'
    assert (await client.ask(replace(federated, organization="acme"))).body == b""


async def test_no_memory_is_an_answer_and_what_was_half_grown_is_read_again(
    client: QueryClient, store: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask(client, "sum(a_total)"))[0] == 200
    readers: list[Reader] = []
    refresh = Reader.refresh

    def run_out(reader: Reader) -> None:
        readers.append(reader)
        if len(readers) == 1:
            raise MemoryError
        refresh(reader)

    monkeypatch.setattr(Reader, "refresh", run_out)
    answer = await client.ask(request("sum(a_total)"))
    assert (answer.status, answer.limit) == (422, "query_memory")
    assert "query_memory" in json.loads(answer.body)["error"]
    assert (await ask(client, "sum(a_total)"))[0] == 200
    assert readers[-1] is not readers[0]


async def test_a_fault_of_ours_is_an_answer_and_the_worker_lives(
    client: QueryClient, store: Writer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reader: Reader) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(Reader, "refresh", fail)
        status, words = await ask(client, "sum(a_total)")
    assert (status, words["error"]) == (500, "an internal error; the operator's log has its place")
    assert "a query failed: RuntimeError at " in caplog.text
    assert "a_total" not in caplog.text
    assert (await ask(client, "sum(a_total)"))[0] == 200


async def test_a_new_generation_changes_how_it_answers(
    worker: QueryWorker, client: QueryClient, store: Writer, resolved: Resolved
) -> None:
    assert (await ask(client, "rate(a_total)"))[0] == (200 if resolved.telemetry.metricsql else 400)
    other = replace(resolved.telemetry, metricsql=not resolved.telemetry.metricsql)
    await worker.commit(replace(resolved, telemetry=other), [])
    assert (await ask(client, "rate(a_total)"))[0] == (200 if other.metricsql else 400)


def test_a_checkpoint_ends_a_query_at_its_deadline_or_without_its_asker() -> None:
    checkpoint_until(time.monotonic() + 100, lambda: False)()
    with pytest.raises(QueryTimeout):
        checkpoint_until(time.monotonic() - 1, lambda: False)()
    with pytest.raises(QueryCanceled):
        checkpoint_until(time.monotonic() + 100, lambda: True)()


def test_an_asker_is_gone_when_it_closed_its_end() -> None:
    ours, theirs = socket.socketpair()
    assert not asker_is_gone(ours)
    theirs.close()
    assert asker_is_gone(ours)
    ours.close()


def test_the_memory_limit_is_the_kernels_and_what_is_within_it_still_works() -> None:
    script = (
        "import numpy as np\n"
        "from flyproxy.runtime.query_worker import limit_memory\n"
        "limit_memory(256 << 20)\n"
        "try:\n"
        "    np.ones(64 << 20)\n"
        "except MemoryError:\n"
        "    print('refused', int(np.ones(1 << 20).sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", str(1 << 20)]
