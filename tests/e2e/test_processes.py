"""What happens when a part of the front door dies, is told to stop, or is given another configuration."""

import asyncio
import json
import os
import signal
import socket
import time
from typing import Any

import pytest


def configuration(toolbox: dict[str, Any], app_port: int, workers: int = 2) -> dict[str, Any]:
    return {
        "edge": {"workers": workers},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "instances": [{"address": f"127.0.0.1:{app_port}", "region": "ord"}],
            }
        ],
        "timeouts": {"drain": "5s"},
    }


async def ask(toolbox: dict[str, Any], door: Any, status: int = 200, delay_ms: int = 0, region: str = "ord") -> int:
    client = toolbox["Client"](toolbox["Account"](), region, door.doors[region])
    try:
        got: int = await client.request(status, delay_ms)
    finally:
        await client.close()
    return got


@pytest.mark.parametrize("kind", ["telemetry", "query_worker"])
async def test_the_front_door_does_not_notice_the_death_of(
    kind: str, toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    for _ in range(20):
        await ask(toolbox, door)
    await asyncio.to_thread(
        toolbox["eventually"], lambda: sum(door.vector("fly_edge_http_responses_count", "status").values()) == 20
    )
    failures = 0
    stop = asyncio.Event()

    async def traffic() -> int:
        nonlocal failures
        sent = 0
        while not stop.is_set():
            sent += 1
            try:
                failures += await ask(toolbox, door) != 200
            except (OSError, asyncio.IncompleteReadError):
                failures += 1
        return sent

    task = asyncio.create_task(traffic())
    for victim in await asyncio.to_thread(door.children, kind):
        os.kill(victim, signal.SIGKILL)
    query = "sum(fly_edge_http_responses_count)"

    def answers_again() -> bool:
        return bool(door.vector(query)[()] >= 20)

    await asyncio.to_thread(toolbox["eventually"], answers_again, 10.0, "queries are answered again")
    stop.set()
    sent = await task
    assert failures == 0

    def all_counted() -> bool:
        return bool(door.vector(query)[()] == 20 + sent)

    await asyncio.to_thread(toolbox["eventually"], all_counted, 10.0, "nothing was lost")
    history = (await asyncio.to_thread(door.query, "fly_edge_http_responses_count[2m]"))["result"]
    for series in history:
        values = [float(value) for _, value in series["values"]]
        assert values == sorted(values), "a counter went backwards"


async def test_a_stopping_front_door_finishes_what_is_in_flight(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    account = toolbox["Account"]()
    clients = [toolbox["Client"](account, "ord", door.doors["ord"]) for _ in range(50)]
    asking = [asyncio.create_task(client.request(200, 1000)) for client in clients]
    await asyncio.to_thread(toolbox["eventually"], lambda: sum(door.exposed_sum("fly_app_concurrency").values()) == 50)
    door.process.send_signal(signal.SIGTERM)
    assert await asyncio.gather(*asking) == [200] * 50
    assert await asyncio.to_thread(door.process.wait, 10) == 0


async def test_a_keyboard_interrupt_drains_too_and_the_exit_code_tells_it(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    client = toolbox["Client"](toolbox["Account"](), "ord", door.doors["ord"])
    asking = asyncio.create_task(client.request(200, 700))
    await asyncio.to_thread(toolbox["eventually"], lambda: sum(door.exposed_sum("fly_app_concurrency").values()) == 1)
    door.process.send_signal(signal.SIGINT)
    assert await asking == 200
    assert await asyncio.to_thread(door.process.wait, 10) == 130


async def test_a_second_signal_leaves_at_once(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    client = toolbox["Client"](toolbox["Account"](), "ord", door.doors["ord"])
    asking = asyncio.create_task(client.request(200, 30_000))
    await asyncio.to_thread(toolbox["eventually"], lambda: sum(door.exposed_sum("fly_app_concurrency").values()) == 1)
    door.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert door.process.poll() is None
    door.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(door.process.wait, 4)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await asking
    client.abandon()


async def test_children_leave_when_the_supervisor_is_killed(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    children = [pid for kind in ("edge_worker", "telemetry", "query_worker") for pid in door.children(kind)]
    assert len(children) == 5  # of the query workers one stands by
    door.process.kill()
    door.process.wait()

    def all_gone() -> bool:
        return not any(os.path.exists(f"/proc/{pid}") for pid in children)

    await asyncio.to_thread(toolbox["eventually"], all_gone, 5.0, "no child outlives the supervisor")


async def test_a_reload_brings_the_new_generation_and_a_bad_file_leaves_the_old(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port)
    door = await asyncio.to_thread(start_front_door, config)
    assert await ask(toolbox, door) == 200
    running = json.loads(door.config.read_text())
    extra = {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "fra"}
    running["listeners"].append(extra)
    door.config.write_text(json.dumps(running))
    reply = await asyncio.to_thread(door.reload)
    assert reply.status == 200, reply.body
    door.doors["fra"] = int(extra["bind"].rpartition(":")[2])
    assert await ask(toolbox, door, region="fra") == 200
    assert await asyncio.to_thread(door.exposed_sum, "flyproxy_config_generation") == {(): 2}

    running["apps"][0]["instnces"] = []
    door.config.write_text(json.dumps(running))
    reply = await asyncio.to_thread(door.reload)
    assert reply.status == 500
    assert b"instnces" in reply.body
    assert b"did you mean" in reply.body
    assert await ask(toolbox, door, region="fra") == 200
    assert await asyncio.to_thread(door.exposed_sum, "flyproxy_config_last_reload_successful") == {(): 0}

    del running["apps"][0]["instnces"]
    running["listeners"].pop()
    door.config.write_text(json.dumps(running))
    door.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(toolbox["eventually"], lambda: door.exposed_sum("flyproxy_config_generation") == {(): 3})
    assert await asyncio.to_thread(door.exposed_sum, "flyproxy_config_last_reload_successful") == {(): 1}
    with pytest.raises((OSError, asyncio.IncompleteReadError)):  # refused, or reset while the last worker closes it
        await ask(toolbox, door, region="fra")
    assert await ask(toolbox, door) == 200


async def test_a_killed_edge_worker_is_back_and_its_queue_waited(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, workers=1))
    (worker,) = door.children("edge_worker")
    os.kill(worker, signal.SIGKILL)
    started = time.monotonic()
    assert await ask(toolbox, door) == 200  # no connection is refused meanwhile
    assert time.monotonic() - started < 15  # a bound against hanging, not a measure
    restarts = await asyncio.to_thread(door.exposed_sum, "flyproxy_child_restarts_total", "process")
    assert restarts[("edge",)] == 1


async def test_two_front_doors_do_not_share_a_data_directory(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port)
    door = await asyncio.to_thread(start_front_door, config)
    config["listeners"][0]["bind"] = f"127.0.0.1:{toolbox['free_port']()}"
    second = await asyncio.to_thread(lambda: start_front_door(config, wait=False))
    assert await asyncio.to_thread(second.process.wait, 10) == 1
    assert "another front door uses the data directory" in second.log.read_text()
    assert door.process.poll() is None


async def test_a_taken_port_is_named(toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any) -> None:
    config = configuration(toolbox, scripted_app.port)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{1}".format(*taken.getsockname())
        config["listeners"][0]["bind"] = address
        door = await asyncio.to_thread(lambda: start_front_door(config, wait=False))
        assert await asyncio.to_thread(door.process.wait, 10) == 1
    assert f"cannot listen on {address}" in door.log.read_text()


@pytest.mark.parametrize("workers", [1, 0])
async def test_traffic_goes_first_where_processes_share_a_cpu(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any, workers: int
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, workers))
    ours = os.getpriority(os.PRIO_PROCESS, door.process.pid)

    def behind(kind: str) -> set[int]:
        """By how much each thread of these processes stands behind."""
        tasks = [task for pid in door.children(kind) for task in os.listdir(f"/proc/{pid}/task")]
        return {os.getpriority(os.PRIO_PROCESS, int(task)) - ours for task in tasks}

    found = {kind: behind(kind) for kind in ("edge_worker", "telemetry", "query_worker")}
    if workers:
        lowest = 19 - ours
        assert found == {"edge_worker": {0}, "telemetry": {min(5, lowest)}, "query_worker": {min(10, lowest)}}
    else:  # threads of one process, all alike: one that held the interpreter and got no CPU would stop them all
        tasks = os.listdir(f"/proc/{door.process.pid}/task")
        assert {os.getpriority(os.PRIO_PROCESS, int(task)) for task in tasks} == {ours}
