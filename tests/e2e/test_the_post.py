"""The queries of the post, as it wrote them, with `$__interval` of 15 s and the default beat of 5 s."""

import asyncio
import math
import time
from typing import Any

import pytest

RATE_RPS = 40.0
TRAFFIC_S = 42.0
REGIONS = ("ord", "fra")


def configuration(toolbox: dict[str, Any], app_port: int) -> dict[str, Any]:
    return {
        "edge": {"workers": 2, "region": "ord"},
        "telemetry": {"own_interval": "5s"},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "instances": [{"address": f"127.0.0.1:{app_port}", "region": region} for region in REGIONS[:1]],
            }
        ],
    }


async def steady_traffic(toolbox: dict[str, Any], door: Any, account: Any) -> None:
    """RATE_RPS requests a second on the clock, three of four to ord, each on a connection of its own."""
    begun = time.monotonic()
    visits = []

    async def visit(index: int) -> None:
        region = REGIONS[index % 4 == 3]
        client = toolbox["Client"](account, region, door.doors[region])
        await client.request(200, 15, keep=False)

    for index in range(int(RATE_RPS * TRAFFIC_S)):
        await asyncio.sleep(max(0.0, begun + index / RATE_RPS - time.monotonic()))
        visits.append(asyncio.create_task(visit(index)))
    await asyncio.gather(*visits)


@pytest.mark.timeout(150)
async def test_the_queries_of_the_post_say_what_the_client_sent(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    door = await asyncio.to_thread(start_front_door, configuration(toolbox, scripted_app.port))
    account = toolbox["Account"]()
    await steady_traffic(toolbox, door, account)
    now = time.time()

    async def last_point(query: str, *labels: str) -> dict[Any, float]:
        """The query over the steady time at a 15 s step, as Grafana asks it: the newest point of each series."""
        end = math.floor((now - 4) / 5) * 5
        data = await asyncio.to_thread(door.query_range, query, end - 15, end, 15)
        assert data["resultType"] == "matrix"
        found = {}
        for series in data["result"]:
            assert all(math.isfinite(float(value)) for _, value in series["values"])
            found[tuple(series["metric"].get(label, "") for label in labels)] = float(series["values"][-1][1])
        return found

    by_region = await last_point('sum(rate(fly_edge_http_responses_count{app=~"^hello$"}[15s])) by (region)', "region")
    assert by_region == pytest.approx({("ord",): RATE_RPS * 3 / 4, ("fra",): RATE_RPS / 4}, rel=0.02)

    by_status = await last_point('sum(rate(fly_edge_http_responses_count{app="hello"}[15s])) by (status)', "status")
    assert by_status == pytest.approx({("200",): RATE_RPS}, rel=0.02)

    by_le = await last_point(
        'sum(increase(fly_edge_http_response_time_seconds_bucket{app=~"^hello$"}[15s])) by (le)', "le"
    )
    assert len(by_le) == 13
    assert by_le[("+Inf",)] == pytest.approx(RATE_RPS * 15, rel=0.02)
    assert by_le[("0.005",)] == 0

    sent = account.bytes_out / account.answers.total()
    for query, per_request in (
        ('sum(irate(fly_instance_net_recv_bytes{app="hello"}[5m]))', None),
        ('sum(irate(fly_instance_net_sent_bytes{app="hello"}[5m]))', None),
        ('sum(irate(fly_edge_data_in{app="hello"}[5m]))', sent),
    ):
        found = (await last_point(query))[()]
        assert found > 0
        if per_request is not None:
            assert found == pytest.approx(RATE_RPS * per_request, rel=0.05)  # irate: one beat only

    connects = await last_point('sum(increase(fly_edge_tcp_connects_count{app="hello"}[15s]))')
    disconnects = await last_point('sum(increase(fly_edge_tcp_disconnects_count{app="hello"}[15s]))')
    assert connects[()] == pytest.approx(RATE_RPS * 15, rel=0.02)
    assert disconnects[()] == pytest.approx(RATE_RPS * 15, rel=0.02)
    app_connects = await last_point('sum(increase(fly_app_tcp_connects_count{app="hello"}[15s]))')
    assert math.isfinite(app_connects[()])

    # The app picker, and MetricsQL's window that is left out, as Fly's own dashboards write it.
    assert await last_point("count by (app) (fly_app_concurrency)", "app") == {("hello",): 1.0}
    no_window = await last_point("sum(rate(fly_edge_http_responses_count)) by (region)", "region")
    assert no_window == pytest.approx({("ord",): RATE_RPS * 3 / 4, ("fra",): RATE_RPS / 4}, rel=0.02)


async def test_the_first_error_an_app_ever_answers_shows_in_increase(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port)
    config["telemetry"]["own_interval"] = "1s"
    door = await asyncio.to_thread(start_front_door, config)
    account = toolbox["Account"]()
    client = toolbox["Client"](account, "ord", door.doors["ord"])
    await client.request(500, 0, keep=False)  # maybe before the first beat
    query = 'sum(increase(fly_edge_http_responses_count{status="500"}[1m]))'
    await asyncio.to_thread(toolbox["eventually"], lambda: door.vector(query)[()] > 0.9, 10.0, "the first 500")
    await asyncio.sleep(2)
    client = toolbox["Client"](account, "fra", door.doors["fra"])
    await client.request(503, 0, keep=False)  # a new label set in the middle of the day
    query = 'sum(increase(fly_edge_http_responses_count{status="503"}[1m]))'
    await asyncio.to_thread(toolbox["eventually"], lambda: door.vector(query)[()] > 0.9, 10.0, "the first 503")


async def test_the_first_error_after_a_restart_shows_too(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    config = configuration(toolbox, scripted_app.port)
    config["telemetry"]["own_interval"] = "1s"
    account = toolbox["Account"]()
    boots = 'sum(increase(fly_edge_http_responses_count{status="500"}[1m]))'
    for _ in range(3):  # blue, green, and blue again
        door = await asyncio.to_thread(start_front_door, config)
        client = toolbox["Client"](account, "ord", door.doors["ord"])
        await client.request(500, 0, keep=False)
        before = account.answers[("ord", 500, 0)]
        await asyncio.to_thread(
            toolbox["eventually"], lambda d=door, n=before: d.vector(boots)[()] > 0.9 * n, 10.0, "every first 500"
        )
        assert await asyncio.to_thread(door.stop) == 0
