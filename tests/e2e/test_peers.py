"""Debian's own Prometheus and promtool against a running front door: what it reads from our /metrics is what we count,
what we answer is what it answers, and its command line finds in our API what it would find in its own."""

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

pytestmark = pytest.mark.peer("prometheus")

REGIONS = ("ord", "fra")
STATUSES = (200, 200, 200, 404, 503)
RATE_RPS = 40.0
TRAFFIC_S = 13.0
DELAY_MS = 150
"""In the middle of the bucket from 0.1 s to 0.2 s."""
STEP_S = 20.0
"""A bound against hanging, not a measure."""
TEXT = "text/plain;version=0.0.4"


QUESTIONS = {
    "requests": ('sum by (region) (rate(fly_edge_http_responses_count{app="hello"%s}[10s]))', 0.2),
    "errors": ('sum by (region) (rate(fly_edge_http_responses_count{app="hello",status=~"4..|5.."%s}[10s]))', 0.2),
    "the app's": ('sum by (region) (rate(fly_app_http_responses_count{app="hello"%s}[10s]))', 0.2),
    "connections": ('sum by (region) (rate(fly_edge_tcp_connects_count{app="hello"%s}[10s]))', 0.2),
    "bytes": ('sum by (region) (rate(fly_edge_data_out{app="hello"%s}[10s]))', 400.0),
    "p90": (
        "histogram_quantile(0.9, sum by (le, region) "
        '(rate(fly_edge_http_response_time_seconds_bucket{app="hello"%s}[10s])))',
        0.01,
    ),
}
"""Expression with a place for a matcher, and how far two answers may be apart beside 5 %: a rate by two requests of the
window, since the two look at slightly different moments."""


class Shim:
    """Stands before the telemetry address and says what promtool and Prometheus 2.42 cannot say themselves: a token;
    and for /text/metrics that it wants the text format."""

    def __init__(self, door: Any) -> None:
        self._behind = f"http://127.0.0.1:{door.telemetry}"
        self._token = door.token()
        self.asked: Counter[tuple[str, str]] = Counter()
        """(method, the path's last word)."""

    async def carry(self, request: web.Request) -> web.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        if content_type := request.headers.get("Content-Type"):
            headers["Content-Type"] = content_type
        path = request.raw_path
        if path == "/text/metrics":
            path, headers = "/metrics", {"Accept": TEXT}
        body = await request.read() or None
        self.asked[(request.method, request.path.rpartition("/")[2])] += 1
        async with self._session.request(request.method, self._behind + path, headers=headers, data=body) as reply:
            kind = {"Content-Type": reply.headers["Content-Type"]}
            return web.Response(status=reply.status, body=await reply.read(), headers=kind)

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=STEP_S))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.carry)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()


@pytest.fixture
async def door(toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any) -> Any:
    config = {
        "edge": {"workers": 2, "region": "ord"},
        "promql": {"mode": "prometheus2"},  # windows closed on both sides, as 2.42 has them
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "instances": [{"address": f"127.0.0.1:{scripted_app.port}", "region": "ord"}],
            }
        ],
    }
    return await asyncio.to_thread(start_front_door, config)


@pytest.fixture
async def shim(door: Any) -> AsyncIterator[Shim]:
    shim = await asyncio.to_thread(Shim, door)
    await shim.start()
    yield shim
    await shim.stop()


class Prometheus:
    """A running one; asked over its API."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, **parameters: str) -> Any:
        async with aiohttp.request("GET", f"{self.base}/api/v1/{path}", params=parameters) as reply:
            answer = await reply.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def vector(self, expression: str, *labels: str, **parameters: str) -> dict[Any, float]:
        """An instant vector as {label values: value}."""
        found = (await self.get("query", query=expression, **parameters))["result"]
        return {tuple(one["metric"].get(name, "") for name in labels): float(one["value"][1]) for one in found}


@pytest.fixture
def prometheus_process(toolbox: dict[str, Any], door: Any, shim: Shim, tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes /metrics every second, twice: in OpenMetrics, which it prefers, and in text, through the shim."""
    jobs: list[dict[str, Any]] = [
        {"job_name": "openmetrics", "static_configs": [{"targets": [f"127.0.0.1:{door.telemetry}"]}]},
        {
            "job_name": "text",
            "metrics_path": "/text/metrics",
            "static_configs": [{"targets": [f"127.0.0.1:{shim.port}"]}],
        },
    ]
    for job in jobs:
        job["honor_labels"] = True  # `instance` is the app's machine
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(config))  # YAML reads JSON
    port = toolbox["free_port"]()
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    yield Prometheus(port)
    process.terminate()
    process.wait(10)


async def steady_traffic(toolbox: dict[str, Any], door: Any, account: Any, duration_s: float) -> None:
    """RATE_RPS requests a second on the clock, three of four to ord."""
    begun = time.monotonic()
    visits = []

    async def visit(index: int) -> None:
        region = REGIONS[index % 4 == 3]
        client = toolbox["Client"](account, region, door.doors[region])
        await client.request(STATUSES[index % len(STATUSES)], DELAY_MS, post=index % 3 == 0, keep=False)

    for index in range(int(RATE_RPS * duration_s)):
        await asyncio.sleep(max(0.0, begun + index / RATE_RPS - time.monotonic()))
        visits.append(asyncio.create_task(visit(index)))
    await asyncio.gather(*visits)


async def until_equal(wanted: Any, found: Any) -> None:
    """Wait until the coroutine function `found` returns `wanted`."""
    last = None
    deadline = time.monotonic() + STEP_S
    while time.monotonic() < deadline:
        last = await found()
        if last == wanted:
            return
        await asyncio.sleep(0.1)
    assert last == wanted


def own_labels(metric: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Without what Prometheus adds: the job, and where a series has no `instance` of its own, the target's address."""
    return frozenset(
        (name, value) for name, value in metric.items() if name != "job" and not (name == "instance" and ":" in value)
    )


def counted(account: Any) -> dict[Any, float]:
    """By (region, status), with the 200 that stands at 0 from the start."""
    seen: dict[Any, float] = account.by("region", "status")
    return {(region, "200"): 0.0 for region in REGIONS} | seen


@pytest.mark.timeout(90)
async def test_prometheus_stores_what_we_count_and_answers_as_we_do(
    toolbox: dict[str, Any], door: Any, shim: Shim, prometheus_process: Prometheus
) -> None:
    peer = prometheus_process

    async def up() -> Any:
        try:
            return await peer.vector("up", "job")
        except (OSError, aiohttp.ClientError, AssertionError):
            return {}

    await until_equal({("openmetrics",): 1, ("text",): 1}, up)
    account = toolbox["Account"]()
    traffic = asyncio.create_task(steady_traffic(toolbox, door, account, TRAFFIC_S))
    await asyncio.wait([traffic], timeout=TRAFFIC_S - 1.5)

    # The same question of both, about the same ten seconds.
    now = f"{time.time() - 1:.3f}"
    for name, (expression, tolerance) in QUESTIONS.items():
        ours = await asyncio.to_thread(door.query, expression % "", time=now)
        mine = {(one["metric"]["region"],): float(one["value"][1]) for one in ours["result"]}
        for job in ("openmetrics", "text"):
            theirs = await peer.vector(expression % f',job="{job}"', "region", time=now)
            assert mine == pytest.approx(theirs, rel=0.05, abs=tolerance), (name, job)
        if name == "requests":
            assert mine == pytest.approx({("ord",): RATE_RPS * 3 / 4, ("fra",): RATE_RPS / 4}, rel=0.05, abs=tolerance)

    # Afterwards, to the request: the client's own log, our API, and both of Prometheus' jobs.
    await traffic
    wanted = counted(account)
    by = "sum by (region, status) (fly_edge_http_responses_count{app='hello'%s})"
    for job in ("openmetrics", "text"):
        await until_equal(wanted, lambda job=job: peer.vector(by % f",job='{job}'", "region", "status"))
    assert await asyncio.to_thread(door.vector, by % "", "region", "status") == wanted

    # In both formats it read every series, and the types it was meant to read.
    assert await peer.vector("count by (job) (scrape_samples_scraped)", "job") == {("openmetrics",): 1, ("text",): 1}
    stored = {}
    for job in ("openmetrics", "text"):
        series = (await peer.get("query", query=f'{{job="{job}",__name__!~"up|scrape_.*"}}'))["result"]
        stored[job] = {own_labels(one["metric"]) for one in series}
    assert stored["openmetrics"] == stored["text"]
    exposed = await asyncio.to_thread(door.exposed)
    assert stored["text"] == {own_labels({"__name__": name, **dict(labels)}) for name, labels in exposed}
    types = {
        job: (
            await peer.get("targets/metadata", match_target=f'{{job="{job}"}}', metric="fly_edge_http_responses_count")
        )
        for job in stored
    }
    assert [one["type"] for one in types["openmetrics"]] == ["unknown"]
    assert [one["type"] for one in types["text"]] == ["counter"]


async def promtool(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """(exit code, what it printed, what it complained)."""
    process = await asyncio.create_subprocess_exec(
        "promtool",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(stdin), STEP_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


async def some_traffic(toolbox: dict[str, Any], door: Any) -> Any:
    account = toolbox["Account"]()
    for region in REGIONS:
        client = toolbox["Client"](account, region, door.doors[region])
        for status in (200, 200, 404):
            await client.request(status, 0)
        await client.close()

    def stored() -> bool:
        found = door.vector("sum by (region, status) (fly_edge_http_responses_count)", "region", "status")
        return bool(found == counted(account))

    await asyncio.to_thread(toolbox["eventually"], stored, STEP_S, "the beat after the last request")
    return account


@pytest.mark.peer("promtool")
async def test_promtool_finds_fault_with_flys_names_only(toolbox: dict[str, Any], door: Any) -> None:
    """Fly's counters have no _total and its histograms' neighbours end in _count; all that is ours is by the rules."""
    await some_traffic(toolbox, door)
    page = (await asyncio.to_thread(door.fetch, "/metrics")).body
    code, out, complaints = await promtool("check", "metrics", stdin=page)
    assert code in (0, 3), complaints  # 3: read, but with remarks; 1: not read
    remarks = [line for line in (out + complaints).splitlines() if line]
    assert remarks
    assert [line for line in remarks if not line.startswith("fly_")] == []


@pytest.mark.peer("promtool")
async def test_promtool_queries_our_api(toolbox: dict[str, Any], door: Any, shim: Shim) -> None:
    account = await some_traffic(toolbox, door)
    server = f"http://127.0.0.1:{shim.port}/prometheus/personal"
    now = int(time.time()) + 1

    async def query(*arguments: str) -> Any:
        code, out, complaints = await promtool("query", "-o", "json", *arguments)
        assert code == 0, complaints
        return json.loads(out)

    expression = "sum by (region, status) (fly_edge_http_responses_count)"
    instant = await query("instant", "--time", str(now), server, expression)
    assert instant == (await asyncio.to_thread(door.query, expression, time=str(now)))["result"]
    assert {(one["metric"]["region"], one["metric"]["status"]): float(one["value"][1]) for one in instant} == counted(
        account
    )

    start, end = now - 60, now
    ranged = await query("range", "--start", str(start), "--end", str(end), "--step", "5s", server, expression)
    ours = await asyncio.to_thread(door.query_range, expression, start, end, 5)
    assert ranged == ours["result"]
    assert ranged

    series = await query("series", "--match", '{__name__=~"fly_edge_.*_count"}', server)
    found = {frozenset(one.items()) for one in series}
    path = "/prometheus/personal/api/v1/series?match[]=%7B__name__%3D~%22fly_edge_.*_count%22%7D"
    answer = await asyncio.to_thread(lambda: door.fetch(path, token=door.token()))
    assert found == {frozenset(one.items()) for one in answer.json()["data"]}
    assert {dict(one)["region"] for one in found} == set(REGIONS)

    assert await query("labels", server, "region") == sorted(REGIONS)
    assert await query("labels", server, "status") == ["200", "404"]

    code, _, complaints = await promtool("query", "instant", server, "sum(")
    assert code == 1
    assert "parse error: unclosed left parenthesis" in complaints
    assert {name for _, name in shim.asked} >= {"query", "query_range", "series", "values"}
