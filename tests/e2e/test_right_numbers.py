"""Right numbers: a front door's own samples, exported while it runs, in a real Prometheus (Debian's 2.42, through
promtool's backfill). Both are asked the same questions and must give the same answers: the same series, the same
times, values within 1e-9, nothing skipped."""

import asyncio
import json
import math
import random
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.peer("prometheus"), pytest.mark.peer("promtool")]

REGIONS = ["ord", "fra", "sin", "syd"]
PHASES_S = 5.0
PHASES = [[200], [200, 204, 404], [200, 404, 503], [200, 201, 500, 503]]
"""Statuses of each stretch of the traffic: most counters are born while it runs. The last region never gets the last
of them, so its series are others."""
BEAT_S = 0.2
POINTS_MIN = 10_000
TOLERANCE = 1e-9
WAIT_S = 20.0
"""A bound against hanging, not a measure."""

COUNTS = 'fly_edge_http_responses_count{app="hello"}'
BUCKETS = 'fly_edge_http_response_time_seconds_bucket{app="hello"}'
APP_BUCKETS = 'fly_app_http_response_time_seconds_bucket{app="hello"}'
QUESTIONS = [
    COUNTS,
    f"rate({COUNTS}[2s])",
    f"rate({BUCKETS}[3s])",
    f"increase({COUNTS}[1s])",
    f"increase({COUNTS}[10s])",
    f"increase({APP_BUCKETS}[2s])",
    f"irate({COUNTS}[1s])",
    f"irate({BUCKETS}[5s])",
    'irate(fly_edge_data_out{app="hello"}[2s])',
    f"sum by (region) (rate({COUNTS}[3s]))",
    f"sum by (status) (increase({COUNTS}[5s]))",
    f"sum without (le, status) (rate({BUCKETS}[2s]))",
    f"sum by (le) (increase({BUCKETS}[1s]))",
    f"sum({COUNTS})",
    f"sum(rate({COUNTS}[4s])) by (region) / ignoring (region) group_left () sum(rate({COUNTS}[4s]))",
    'sum(rate(fly_edge_data_in{app="hello"}[3s])) + sum(rate(fly_edge_data_out{app="hello"}[3s]))',
    'sum by (instance) (irate(fly_app_tcp_connects_count{app="hello"}[2s]))',
    *[f"histogram_quantile({q}, sum by (le, region) (rate({BUCKETS}[3s])))" for q in ("0.5", "0.9", "0.99")],
    f"histogram_quantile(0.95, rate({BUCKETS}[2s]))",
    f"histogram_quantile(0.9, sum by (le) (increase({APP_BUCKETS}[5s])))",
    f"max_over_time(sum by (status) (rate({COUNTS}[2s]))[4s:600ms])",
    'sum_over_time(fly_app_concurrency{app="hello"}[3s])',
    f'sum(rate({BUCKETS[:-1]},le="0.2"}}[3s])) / sum(rate({BUCKETS[:-1]},le="+Inf"}}[3s]))',
]


async def traffic(toolbox: dict[str, Any], door: Any, account: Any) -> None:
    """Phase after phase, three visitors to every region, a new connection now and then."""

    async def visitor(index: int) -> None:
        dice = random.Random(index)
        region = REGIONS[index % len(REGIONS)]
        client = toolbox["Client"](account, region, door.doors[region])
        begun = time.monotonic()
        for phase, statuses in enumerate(PHASES):
            while time.monotonic() - begun < (phase + 1) * PHASES_S:
                status = dice.choice(statuses if region != REGIONS[-1] else statuses[:-1] or statuses)
                await client.request(status, dice.choice([0, 10, 30, 70, 150]), keep=dice.random() > 0.1)
        await client.close()

    await asyncio.gather(*(visitor(index) for index in range(3 * len(REGIONS))))


def exported(door: Any, file: Path) -> str:
    """By the command line, beside the running front door."""
    command = [sys.executable, "-m", "flyproxy", "tsdb", "export", "-c", str(door.config), "-o", str(file)]
    done = subprocess.run([*command, "--match", '{__name__=~"fly_.+"}'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return file.read_text()


def imported_and_exported(file: Path, folder: Path) -> str:
    """Into a fresh data directory and out again."""
    said = ""
    for arguments in (["import", str(file)], ["export"]):
        command = [sys.executable, "-m", "flyproxy", "tsdb", *arguments, "--data", str(folder)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return said


@contextmanager
def prometheus(text: Path, folder: Path, port: int) -> Iterator[str]:
    """One that has the text's samples in its blocks; its URL."""
    blocks = folder / "blocks"
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "prometheus.yml").write_text("{}\n")
    options = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={blocks}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(WAIT_S)


Answers = dict[frozenset[tuple[str, str]], list[tuple[float, float]]]


def answers(data: Any) -> Answers:
    assert data["resultType"] == "matrix"
    return {
        frozenset(series["metric"].items()): [(at, float(value)) for at, value in series["values"]]
        for series in data["result"]
    }


def compared(expression: str, ours: Answers, theirs: Answers) -> int:
    """How many points agree; AssertionError at the first that does not."""
    assert ours.keys() == theirs.keys(), expression
    points = 0
    for labels, wanted in theirs.items():
        got = ours[labels]
        assert [at for at, _ in got] == [at for at, _ in wanted], (expression, labels)
        for (at, value), (_, other) in zip(got, wanted, strict=True):
            same = value == other or (math.isnan(value) and math.isnan(other))
            assert same or math.isclose(value, other, rel_tol=TOLERANCE), (expression, labels, at, value, other)
        points += len(wanted)
    return points


@pytest.mark.timeout(150)
async def test_prometheus_answers_the_same_from_the_same_samples(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any, tmp_path: Path
) -> None:
    config = {
        "edge": {"workers": 2, "region": "ord"},
        "telemetry": {"own_interval": f"{round(BEAT_S * 1000)}ms"},
        "promql": {"mode": "prometheus2", "metricsql": False},  # windows closed on both sides, as 2.42 has them
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "instances": [
                    {"address": f"127.0.0.1:{scripted_app.port}", "region": region, "id": f"{number:014x}"}
                    for number, region in enumerate(REGIONS[:2], 1)
                ],
            }
        ],
    }
    door = await asyncio.to_thread(start_front_door, config)
    account = toolbox["Account"]()
    await traffic(toolbox, door, account)
    file = tmp_path / "samples.txt"
    text = await asyncio.to_thread(exported, door, file)
    stamps = sorted(
        {float(found) for found in re.findall(r"^fly_edge_tcp_connects_count\{.*\} \S+ (\S+)$", text, re.M)}
    )
    assert_first_zeros(text)
    assert await asyncio.to_thread(imported_and_exported, file, tmp_path / "again") == text
    # A step stands exactly on a sample, every other one on the edge of a window. The end is a second before the last
    # sample: the zero of a counter that is born after the export may stand at the sample before.
    start = stamps[5]
    steps = int((stamps[-1] - 1 - start) / (BEAT_S / 2))
    asked = {"start": f"{start:.3f}", "end": f"{start + steps * BEAT_S / 2:.3f}", "step": f"{BEAT_S / 2}"}
    token = await asyncio.to_thread(door.token)

    def ours(expression: str) -> Answers:
        query = urllib.parse.urlencode({"query": expression, "dialect": "promql", **asked})
        answer = door.fetch(f"/prometheus/personal/api/v1/query_range?{query}", token=token)
        assert answer.status == 200, answer.body
        return answers(answer.json()["data"])

    def theirs(url: str, expression: str) -> Answers:
        query = urllib.parse.urlencode({"query": expression, **asked})
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=WAIT_S) as reply:
            return answers(json.load(reply)["data"])

    def ready(url: str) -> bool:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=WAIT_S) as reply:
            return bool(reply.status == 200)

    def all_compared() -> dict[str, int]:
        with prometheus(file, tmp_path, toolbox["free_port"]()) as url:
            toolbox["eventually"](lambda: ready(url), what="Prometheus over the blocks")
            return {each: compared(each, ours(each), theirs(url, each)) for each in QUESTIONS}

    points = await asyncio.to_thread(all_compared)
    assert all(points.values()), points
    assert sum(points.values()) >= POINTS_MIN, points
    print(f"{sum(points.values()):,} points compared")


def assert_first_zeros(text: str) -> None:
    """Every status that came while the traffic ran begins with a 0, in the text as in the store."""
    first: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("fly_edge_http_responses_count{"):
            series, value, _ = line.rsplit(" ", 2)
            first.setdefault(series, float(value))
    born = {series: value for series, value in first.items() if 'status="503"' in series}
    assert len(born) == len(REGIONS) - 1
    assert set(born.values()) == {0.0}
