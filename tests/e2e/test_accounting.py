"""The accounting is exact: what a client logged is what the front door counted, to the request and to the byte."""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

REGIONS = ["ord", "fra", "sin", "syd"]
STATUSES = [200, 201, 204, 301, 404, 500]
DELAYS_MS = [350, 750, 2500]
"""In the middle of wide buckets, so that a busy machine's jitter does not carry a request over an edge."""
DELAY_WEIGHTS = [60, 37, 3]
CONNECTIONS = 500


def configuration(toolbox: dict[str, Any], app_port: int, workers: int) -> dict[str, Any]:
    return {
        "edge": {"workers": workers, "region": "ord"},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "instances": [{"address": f"127.0.0.1:{app_port}", "region": region} for region in REGIONS[:1]],
            }
        ],
        "timeouts": {"drain": "2s"},
    }


def two_organizations(toolbox: dict[str, Any], app_port: int, workers: int) -> dict[str, Any]:
    """An app each, the same instances behind the same doors."""
    config = configuration(toolbox, app_port, workers)
    (hello,) = config["apps"]
    shop = {**hello, "name": "shop", "hostnames": ["shop.localhost"], "organization": "acme"}
    config["organizations"] = [{"slug": "personal"}, {"slug": "acme"}]
    config["apps"] = [{**hello, "organization": "personal"}, shop]
    return config


async def send(
    toolbox: dict[str, Any],
    door: Any,
    account: Any,
    requests: int,
    *,
    host: str = "hello.localhost",
    seed: int = 7,
) -> None:
    """`requests` requests over all doors, by CONNECTIONS clients, a tenth of them one request a connection."""
    dice = random.Random(seed)
    plan = [
        (dice.choice(STATUSES), dice.choices(DELAYS_MS, DELAY_WEIGHTS)[0], dice.random() < 0.3, dice.random() > 0.1)
        for _ in range(requests)
    ]

    async def one(index: int) -> None:
        region = REGIONS[index % len(REGIONS)]
        client = toolbox["Client"](account, region, door.doors[region], host)
        await asyncio.sleep(index / CONNECTIONS)  # a crowd, not a stampede
        for status, delay, post, keep in plan[index::CONNECTIONS]:
            assert await client.request(status, delay, post=post, keep=keep) == status
        await client.close()

    await asyncio.gather(*(one(index) for index in range(CONNECTIONS)))


def check_account(door: Any, account: Any, app: str = "hello") -> None:
    """Everything the client knows, against /metrics."""

    def exposed(name: str, *by: str) -> dict[Any, float]:
        found: dict[Any, float] = door.exposed_sum(name, *by, app=app)
        return found

    compare(account, exposed)


def check_stored_account(door: Any, account: Any, app: str, organization: str) -> None:
    """The same, against what the API gives for the organization's own token: nobody else's app is in it."""

    def stored(name: str, *by: str) -> dict[Any, float]:
        query = f"sum by ({', '.join(by)}) ({name})"
        found: dict[Any, float] = door.vector(query, *by, organization=organization)
        return found

    compare(account, stored)
    names = door.query('count by (app) ({__name__=~"fly_.+"})', organization)["result"]
    assert [sample["metric"] for sample in names] == [{"app": app}]


def compare(account: Any, told: Callable[..., dict[Any, float]]) -> None:
    """The client's log against `told(family, *labels)`, a family's sums by labels. Only status 200 stands at 0 from
    the start."""
    by = account.by
    for name, labels in (
        ("fly_edge_http_responses_count", ("region", "status")),
        ("fly_edge_http_response_time_seconds_count", ("region", "status")),
        ("fly_app_http_responses_count", ("status",)),
    ):
        found = told(name, *labels)
        zeros = {key for key, value in found.items() if value == 0}
        assert all(key[-1] == "200" for key in zeros), name
        assert {key: value for key, value in found.items() if value} == by(*labels), name
    assert sum(told("fly_edge_data_in").values()) == account.bytes_out
    assert sum(told("fly_edge_data_out").values()) == account.bytes_in
    connects = sum(told("fly_edge_tcp_connects_count").values())
    disconnects = sum(told("fly_edge_tcp_disconnects_count").values())
    assert (connects, connects - disconnects) == (account.connects, 0)
    compare_times(account, told)


def compare_times(account: Any, told: Callable[..., dict[Any, float]]) -> None:
    """A request took at least what the app slept, and at most what its client waited: between the two a busy machine
    may carry it over a bucket's edge."""
    slept_s = [int(delay) / 1000 for (delay,), count in account.by("delay").items() for _ in range(int(count))]
    cumulative = told("fly_edge_http_response_time_seconds_bucket", "le")
    assert cumulative.pop(("+Inf",)) == len(slept_s)
    assert len(cumulative) == 12
    for (le,), count in cumulative.items():
        surely = sum(took <= float(le) for took in account.took_s)
        perhaps = sum(slept <= float(le) for slept in slept_s)
        assert surely <= count <= perhaps, le
    assert sum(slept_s) <= sum(told("fly_edge_http_response_time_seconds_sum").values()) <= sum(account.took_s)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("workers", "requests"), [(1, 3000), (2, 20000), (4, 3000), (0, 1500)])
async def test_every_request_and_every_byte_is_counted_once(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any, workers: int, requests: int
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, workers))
    account = toolbox["Account"]()
    sending = asyncio.create_task(send(toolbox, door, account, requests))
    await asyncio.sleep(1.0)
    assert (await asyncio.to_thread(door.reload)).status == 200  # in the middle of the traffic
    await sending
    total = sum(account.answers.values())
    assert total == requests

    await asyncio.to_thread(toolbox["eventually"], lambda: is_through(door, account, "hello"))
    await asyncio.to_thread(check_account, door, account)

    def stored() -> bool:
        query = "sum by (region, status) (fly_edge_http_responses_count) > 0"
        return bool(door.vector(query, "region", "status") == account.by("region", "status"))

    await asyncio.to_thread(toolbox["eventually"], stored, 10.0, "the beat after")


def is_through(door: Any, account: Any, app: str) -> bool:
    """Everything is folded, and the last connection is known to be closed."""
    seen = sum(door.exposed_sum("fly_edge_http_responses_count", app=app).values())
    closed = sum(door.exposed_sum("fly_edge_tcp_disconnects_count", app=app).values())
    return bool(seen >= sum(account.answers.values()) and closed >= account.connects)


@pytest.mark.timeout(180)
async def test_two_organizations_are_counted_each_by_itself(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, two_organizations(toolbox, scripted_app.port, 2))
    hello, shop = toolbox["Account"](), toolbox["Account"]()
    sending = [
        asyncio.create_task(send(toolbox, door, hello, 6000)),
        asyncio.create_task(send(toolbox, door, shop, 4000, host="shop.localhost", seed=11)),
    ]
    await asyncio.sleep(1.0)
    assert (await asyncio.to_thread(door.reload)).status == 200
    await asyncio.gather(*sending)
    for account, app, organization in ((hello, "hello", "personal"), (shop, "shop", "acme")):
        await asyncio.to_thread(toolbox["eventually"], lambda account=account, app=app: is_through(door, account, app))
        await asyncio.to_thread(check_account, door, account, app)

        def stored(account: Any = account, organization: str = organization) -> bool:
            closed = door.vector("sum(fly_edge_tcp_disconnects_count)", organization=organization)
            answers = door.vector("sum(fly_edge_http_responses_count)", organization=organization)
            return bool(closed == {(): account.connects} and answers == {(): sum(account.answers.values())})

        await asyncio.to_thread(toolbox["eventually"], stored, 10.0, "the beat after")
        await asyncio.to_thread(check_stored_account, door, account, app, organization)


async def test_connects_minus_disconnects_is_what_is_open(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, 2))
    account = toolbox["Account"]()
    clients = [toolbox["Client"](account, region, door.doors[region]) for region in REGIONS for _ in range(5)]
    for client in clients:
        await client.request(200, 0)
    for client in clients[:8]:
        await client.close()

    def open_now() -> float:
        connects = sum(door.exposed_sum("fly_edge_tcp_connects_count", app="hello").values())
        disconnects = sum(door.exposed_sum("fly_edge_tcp_disconnects_count", app="hello").values())
        return float(connects - disconnects)

    await asyncio.to_thread(toolbox["eventually"], lambda: open_now() == len(clients) - 8)
    for client in clients[8:]:
        await client.close()
    await asyncio.to_thread(toolbox["eventually"], lambda: open_now() == 0)


async def test_a_visitor_who_leaves_while_the_app_sleeps_is_a_499(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, 2))
    account = toolbox["Account"]()
    clients = [toolbox["Client"](account, "fra", door.doors["fra"]) for _ in range(40)]
    asking = [asyncio.create_task(client.request(200, 400)) for client in clients]
    await asyncio.sleep(0.15)
    for task, client in zip(asking[:25], clients[:25], strict=True):
        task.cancel()
        client.abandon()
    await asyncio.gather(*asking[25:])
    for client in clients[25:]:
        await client.close()

    def counted() -> dict[Any, float]:
        found: dict[Any, float] = door.exposed_sum("fly_edge_http_responses_count", "status", app="hello")
        return found

    await asyncio.to_thread(
        toolbox["eventually"], lambda: counted() == {("200",): 15, ("499",): 25}, what="25 times 499, 15 times 200"
    )
    concurrency = await asyncio.to_thread(door.exposed_sum, "fly_app_concurrency")
    assert sum(concurrency.values()) == 0
    received = await asyncio.to_thread(door.exposed_sum, "fly_edge_data_in", app="hello")
    sent = await asyncio.to_thread(door.exposed_sum, "fly_edge_data_out", app="hello")
    assert (sum(received.values()), sum(sent.values())) == (account.bytes_out, account.bytes_in)


@pytest.mark.timeout(120)
async def test_a_killed_worker_loses_only_what_it_had_in_its_hands(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    in_flight, delay_ms = 32, 25
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, 1))
    account = toolbox["Account"]()
    stop = asyncio.Event()
    lowest_seen: list[float] = []

    async def keep_asking(index: int) -> None:
        region = REGIONS[index % len(REGIONS)]
        client = toolbox["Client"](account, region, door.doors[region])
        while not stop.is_set():
            try:
                await client.request(200, delay_ms)
            except (OSError, asyncio.IncompleteReadError):
                client.abandon()
                await asyncio.sleep(0.02)
        await client.close()

    async def watch() -> None:
        while not stop.is_set():
            seen = await asyncio.to_thread(door.exposed_sum, "fly_edge_http_responses_count", app="hello")
            lowest_seen.append(sum(seen.values()))
            await asyncio.sleep(0.1)

    work = [asyncio.create_task(keep_asking(index)) for index in range(in_flight)] + [asyncio.create_task(watch())]
    await asyncio.sleep(2.0)
    (worker,) = await asyncio.to_thread(door.children, "edge_worker")
    os.kill(worker, signal.SIGKILL)
    await asyncio.sleep(2.5)
    stop.set()
    await asyncio.gather(*work)
    await asyncio.sleep(0.5)
    counted = sum((await asyncio.to_thread(door.exposed_sum, "fly_edge_http_responses_count", app="hello")).values())
    answered = sum(account.answers.values())
    assert lowest_seen == sorted(lowest_seen), "a counter went backwards"
    # At most the requests in its hands, and those of the one loop turn that was not folded yet.
    assert answered - 2 * in_flight <= counted <= answered + in_flight
    assert await asyncio.to_thread(door.children, "edge_worker") != [worker]
