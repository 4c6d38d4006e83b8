"""The store, the shared memory or the whole front door in trouble: traffic goes on, and somebody says why."""

import asyncio
import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest


def configuration(toolbox: dict[str, Any], app_port: int, workers: int = 1, **telemetry: Any) -> dict[str, Any]:
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
        "timeouts": {"drain": "3s"},
        "telemetry": telemetry,
    }


async def ask(toolbox: dict[str, Any], door: Any, times: int = 1) -> None:
    client = toolbox["Client"](toolbox["Account"](), "ord", door.doors["ord"])
    for _ in range(times):
        assert await client.request(200, 0) == 200
    await client.close()


def is_running(pid: int) -> bool:
    """A process that only waits for init to take note of its end is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def eventually(toolbox: dict[str, Any], check: Any, what: str = "") -> Any:
    return await asyncio.to_thread(toolbox["eventually"], check, 15.0, what)


async def test_a_store_that_cannot_be_opened_stops_no_traffic_says_why_and_begins_when_it_can(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "store.db").write_text("Dear diary, " * 1000)
    config = configuration(toolbox, scripted_app.port, data_dir=str(data))
    door = await asyncio.to_thread(lambda: start_front_door(config, wait=False))
    try:
        answer = await eventually(toolbox, lambda: door.fetch("/-/ready"))
    except AssertionError:
        raise AssertionError(f"exit {door.process.poll()}: {door.log.read_text()}") from None
    await eventually(toolbox, lambda: b"not a flyproxy store" in door.fetch("/-/ready").body, "readiness says why")
    assert answer.status == 503
    await ask(toolbox, door, 5)
    counted = {("200",): 5.0}
    await eventually(
        toolbox, lambda: door.exposed_sum("fly_edge_http_responses_count", "status") == counted, "/metrics is there"
    )
    assert door.log.read_text().count("not a flyproxy store") <= 2
    (data / "store.db").unlink()
    await eventually(toolbox, lambda: door.fetch("/-/ready").status == 200, "it takes samples")
    query = "sum(increase(fly_edge_http_responses_count[1h]))"
    await eventually(toolbox, lambda: door.vector(query)[()] >= 4.9, "what was counted meanwhile is there")


@pytest.mark.parametrize("workers", [2, 0])
@pytest.mark.parametrize("delay_s", [0.25, 0.35, 0.5])
async def test_a_signal_at_any_moment_of_the_start_ends_it_cleanly(
    workers: int, delay_s: float, toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(
        lambda: start_front_door(configuration(toolbox, scripted_app.port, workers), wait=False)
    )
    await asyncio.sleep(delay_s)  # not a condition: some moment of its start, another one on every machine
    assert await asyncio.to_thread(door.stop, 15.0) in (0, -signal.SIGTERM)


async def test_settings_of_the_store_change_with_a_reload(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, own_interval="5m"))
    running = json.loads(door.config.read_text())
    running["telemetry"]["own_interval"] = "200ms"
    door.config.write_text(json.dumps(running))
    assert (await asyncio.to_thread(door.reload)).status == 200
    await ask(toolbox, door, 3)
    query = "count_over_time(fly_edge_tcp_connects_count[1m])"
    await eventually(toolbox, lambda: door.vector(query)[()] >= 5, "the new beat is in force without the old one's end")


async def test_reloads_and_kills_leave_no_descriptor_and_no_counter_behind(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port, workers=2))
    await ask(toolbox, door, 10)
    running = json.loads(door.config.read_text())
    extra = {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "fra"}

    def held() -> dict[str, int]:
        pids = {"supervisor": [door.process.pid]}
        pids |= {kind: door.children(kind) for kind in ("edge_worker", "telemetry", "query_worker")}
        return {kind: max(len(os.listdir(f"/proc/{pid}/fd")) for pid in found) for kind, found in pids.items()}

    before = held()
    for number in range(60):
        listeners = running["listeners"] + ([extra] if number % 2 == 0 else [])
        door.config.write_text(json.dumps({**running, "listeners": listeners}))
        answer = await asyncio.to_thread(door.reload)
        assert answer.status == 200, answer.body
    for _ in range(100):
        door.process.send_signal(signal.SIGHUP)
    requests = 10
    for kind in ("edge_worker", "telemetry", "query_worker") * 3:
        for pid in door.children(kind):
            os.kill(pid, signal.SIGKILL)
        await ask(toolbox, door, 5)
        requests += 5
        await eventually(
            toolbox,
            lambda wanted=requests: sum(door.exposed_sum("fly_edge_http_responses_count").values()) == wanted,
            "every answer is counted, once",
        )
    await eventually(toolbox, lambda: door.fetch("/-/ready").status == 200)

    def as_before() -> bool:
        return all(count <= before[kind] + 2 for kind, count in held().items())

    await eventually(toolbox, as_before, "no descriptor leaked")
    history = (await asyncio.to_thread(door.query, "fly_edge_http_responses_count[5m]"))["result"]
    for series in history:
        values = [float(value) for _, value in series["values"]]
        assert values == sorted(values), "a counter went backwards"


async def test_a_front_door_that_was_killed_starts_again_on_the_same_data_directory(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port)
    config["telemetry"]["bind"] = f"127.0.0.1:{toolbox['free_port']()}"
    door = await asyncio.to_thread(start_front_door, config)
    await ask(toolbox, door, 4)
    await eventually(toolbox, lambda: door.vector("sum(fly_edge_http_responses_count)")[()] == 4)
    for _ in range(3):
        children = [pid for kind in ("edge_worker", "telemetry", "query_worker") for pid in door.children(kind)]
        door.process.kill()
        door.process.wait()
        await eventually(toolbox, lambda gone=children: not any(map(is_running, gone)))
        door = await asyncio.to_thread(start_front_door, config)
    await ask(toolbox, door, 2)

    def counted() -> float:
        """By hand, since increase() extrapolates: what every series grew by, from the zero of each life on."""
        grown = 0.0
        for series in door.query("fly_edge_http_responses_count[1h]")["result"]:
            values = [float(value) for _, value in series["values"]]
            grown += sum(now - then if now >= then else now for then, now in pairwise(values))
        return grown

    await eventually(toolbox, lambda: counted() == 6, "both lives are in it, and each once")


async def test_a_query_that_wants_too_much_memory_is_refused_and_its_worker_lives(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port, query_memory="256MiB", query_timeout="20s")
    door = await asyncio.to_thread(start_front_door, config)
    await ask(toolbox, door)
    await eventually(toolbox, lambda: door.vector("sum(fly_edge_http_responses_count)")[()] == 1)
    before = door.children("query_worker")
    token = await asyncio.to_thread(door.token)
    bomb = "%2B".join(["sum_over_time({__name__=~%22.%2B%22}[40000s:1s])"] * 3)
    answer = await asyncio.to_thread(
        lambda: door.fetch(f"/prometheus/personal/api/v1/query?query={bomb}&timeout=15s", token=token)
    )
    assert answer.status in (422, 503), answer.body
    await eventually(toolbox, lambda: door.vector("sum(fly_edge_http_responses_count)")[()] == 1)
    if answer.status == 422:
        assert door.children("query_worker") == before
