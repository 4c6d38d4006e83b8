"""Every query of our dashboards and of Fly.io's, asked as Grafana asks it, of a front door that has had some traffic.

The lists in grafana/*.txt hold one query a line with Grafana's variables in it; Grafana fills in what it knows (the
range, the width of the panel, the data source's step) by the rules of `Asked`.
"""

import asyncio
import json
import math
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

LISTS = sorted((Path(__file__).parent / "grafana").glob("*.txt"))
PUBLISHED = Path(__file__).parents[3] / "shared" / "fly_app_dashboard_2021.json"
"""Fly.io's own file, where it is at hand."""

TRAFFIC_S = 22.0
RATE_RPS = 30
REGIONS = ("ord", "fra")
INSTANCE = "3d8d9e27b24e89"
ANSWERS = ((200, 0), (200, 15), (200, 0), (304, 0), (200, 60), (404, 0), (200, 0), (200, 0), (500, 15), (204, 0))
"""(status, delay in ms), in turn."""

SOURCE_STEP_S = 15
"""jsonData.timeInterval of the data source."""
WIDTH = 1000
"""Points a panel has room for."""
ROUND_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)
"""Intervals Grafana rounds to."""
RANGES = {"15m": 900, "1h": 3600, "6h": 21600}


@dataclass(frozen=True)
class Asked:
    """One query of a panel, and what Grafana makes of it."""

    dashboard: str
    panel: str
    query: str
    range_s: int = 900
    variables: tuple[tuple[str, str], ...] = ()
    min_step_s: int = 0
    """The query's own `interval`."""
    least_interval_s: int = 0
    """The panel's."""
    instant: bool = False
    may_be_empty: str = ""
    """Why; "" when it must not be."""

    @property
    def step_s(self) -> int:
        """The query's own interval as it is, else what the width allows, rounded, and not less than the source's."""
        return self.min_step_s or self._interval_s

    @property
    def _interval_s(self) -> int:
        rounded = min(ROUND_S, key=lambda known: abs(known - self.range_s / WIDTH))
        return max(rounded, self.least_interval_s or SOURCE_STEP_S)

    @property
    def expression(self) -> str:
        """The query with every variable filled in."""
        scrape_s = self.min_step_s or SOURCE_STEP_S
        text = self.query
        for name, value in (
            ("__rate_interval", _duration(max(self._interval_s + scrape_s, 4 * scrape_s), whole=True)),
            ("__interval", _duration(self.step_s)),
            ("__range", f"{self.range_s}s"),
            *self.variables,
        ):
            text = text.replace(f"${name}", value)
        return text

    def form(self, until_s: float) -> dict[str, str]:
        """The parameters, the range's end brought to a whole step; the first one at or after `until_s`."""
        if self.instant:
            return {"query": self.expression, "time": f"{until_s:.3f}"}
        end = math.ceil(until_s / self.step_s) * self.step_s
        start = end - self.range_s // self.step_s * self.step_s
        return {"query": self.expression, "start": str(start), "end": str(end), "step": str(self.step_s)}

    def __str__(self) -> str:
        return f"{self.dashboard}/{self.panel}"


def _duration(seconds: int, whole: bool = False) -> str:
    """1m; in Go's own manner 1m0s."""
    if seconds % 60 or seconds < 60:
        return f"{seconds // 60}m{seconds % 60}s" if seconds > 60 else f"{seconds}s"
    return f"{seconds // 60}m0s" if whole else f"{seconds // 60}m"


def listed(path: Path) -> Iterator[Asked]:
    """The queries of one list."""
    header = panel = Asked("", "", "")
    for line in path.read_text().splitlines():
        key, _, value = line.partition(": ")
        if not line or line.startswith("#") or key == "label values":
            continue
        match key:
            case "dashboard":
                header = replace(header, dashboard=value)
            case "range":
                header = replace(header, range_s=RANGES[value])
            case "variables":
                pairs = [pair.partition("=") for pair in value.split()]
                header = replace(header, variables=tuple((name, text) for name, _, text in pairs))
            case "panel":
                panel = replace(header, panel=value)
            case "min step":
                panel = replace(panel, min_step_s=int(value.removesuffix("s").replace("1m", "60")))
            case "may be empty":
                panel = replace(panel, may_be_empty=value)
            case "query" | "instant query":
                yield replace(panel, query=value, instant=key.startswith("instant"))
            case _:
                raise AssertionError(f"{path.name}: {line}")


def variable_queries(path: Path) -> Iterator[tuple[str, str]]:
    """(selector or "", label) of each `label values` line, variables filled in."""
    variables = next(listed(path)).variables
    for line in path.read_text().splitlines():
        if line.startswith("label values: "):
            text = line.removeprefix("label values: label_values(").removesuffix(")")
            for name, value in variables:
                text = text.replace(f"${name}", value)
            selector, _, label = text.rpartition(", ")
            yield selector, label


ALL_LISTED = [asked for path in LISTS for asked in listed(path)]
ALL_VARIABLES = sorted({found for path in LISTS for found in variable_queries(path)})


@dataclass
class Stage:
    """A front door after its traffic."""

    door: Any
    account: Any
    began_s: float
    ended_s: float

    def ask(self, asked: Asked) -> Any:
        """The answer's data."""
        endpoint = "query" if asked.instant else "query_range"
        return self.post(endpoint, asked.form(self.ended_s))

    def post(self, endpoint: str, form: dict[str, str]) -> Any:
        answer = self.door.fetch(
            f"/prometheus/personal/api/v1/{endpoint}",
            token=self.door.token(),
            method="POST",
            data=urllib.parse.urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status == 200, answer.body
        assert answer.json()["status"] == "success"
        return answer.json()["data"]

    def series(self, asked: Asked, label: str = "") -> dict[str, list[tuple[float, float]]]:
        """Points by the value of one label."""
        return {
            series["metric"].get(label, ""): [
                (float(moment), float(value)) for moment, value in series.get("values") or [series["value"]]
            ]
            for series in self.ask(asked)["result"]
        }


@pytest.fixture(scope="module")
def stage(toolbox: dict[str, Any], start_shared_front_door: Any) -> Stage:
    return asyncio.run(performed(toolbox, start_shared_front_door))


async def performed(toolbox: dict[str, Any], start: Any) -> Stage:
    """Two regions, two instances, every class of status, some raw connections, then silence."""
    apps = [toolbox["ScriptedApp"]() for _ in REGIONS]
    try:
        for app in apps:
            await app.start()
        door = await asyncio.to_thread(start, configuration(toolbox, [app.port for app in apps]))
        account, aside = toolbox["Account"](), toolbox["Account"]()
        began = time.time()
        visitors = [visits(toolbox, door, account, began, index) for index in range(RATE_RPS)]
        await asyncio.gather(
            one_waits_in_vain(toolbox, door, account), raw_connections(toolbox, door, aside, began), *visitors
        )
        total, stored = account.answers.total(), "sum(fly_edge_http_responses_count)"
        await asyncio.to_thread(toolbox["eventually"], lambda: door.vector(stored)[()] == total, what="all is stored")
        return Stage(door, account, began, time.time())
    finally:
        for app in apps:
            await app.stop()


def configuration(toolbox: dict[str, Any], app_ports: list[int]) -> dict[str, Any]:
    http = [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS]
    raw = {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "sin", "handlers": [], "app": "hello"}
    instances = [
        {"address": f"127.0.0.1:{port}", "region": region} for port, region in zip(app_ports, REGIONS, strict=True)
    ]
    instances[0]["id"] = INSTANCE
    return {
        "edge": {"workers": 1, "region": "ord"},
        "listeners": [*http, raw],
        "timeouts": {"response": "1s"},
        "apps": [{"name": "hello", "hostnames": ["hello.localhost"], "instances": instances}],
    }


async def visits(toolbox: dict[str, Any], door: Any, account: Any, began: float, index: int) -> None:
    """One a second; every fourth visitor goes to fra, one in three keeps the connection."""
    region = REGIONS[index % 4 == 3]
    client = toolbox["Client"](account, region, door.doors[region])
    while (elapsed := time.time() - began) < TRAFFIC_S:
        status, delay_ms = ANSWERS[(index + int(elapsed)) % len(ANSWERS)]
        await client.request(status, delay_ms, keep=index % 3 == 0)
        await asyncio.sleep(1)
    await client.close()


async def one_waits_in_vain(toolbox: dict[str, Any], door: Any, account: Any) -> None:
    """A fault of the front door's own, in its answers and its error count."""
    client = toolbox["Client"](account, "ord", door.doors["ord"])
    assert await client.request(200, 3000, keep=False) == 504


async def raw_connections(toolbox: dict[str, Any], door: Any, account: Any, began: float) -> None:
    """Two a second, through the door that is no HTTP."""
    while time.time() - began < TRAFFIC_S:
        client = toolbox["Client"](account, "sin", door.doors["sin"])
        await client.request(200, 0)
        await client.close()
        await asyncio.sleep(0.5)


def values(data: Any) -> list[float]:
    """Every value of an answer."""
    if data["resultType"] == "scalar":
        return [float(data["result"][1])]
    pairs = [pair for series in data["result"] for pair in series.get("values") or [series["value"]]]
    return [float(value) for _, value in pairs]


def expect_finite(asked: Asked, data: Any) -> None:
    """Data, and of it only what no division by nothing made may be NaN."""
    found = values(data)
    assert not any(map(math.isinf, found)), asked.expression
    if "/" not in asked.query and "quantile" not in asked.query:
        assert not any(map(math.isnan, found)), asked.expression
    assert asked.may_be_empty or any(map(math.isfinite, found)), asked.expression


def own_queries(stage: Stage) -> Iterator[Asked]:
    """Those of every dashboard the front door serves."""
    for row in stage.door.fetch("/grafana/").json()["data"]:
        dashboard = stage.door.fetch(urllib.parse.urlsplit(row["url"]).path).json()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                assert "interval" not in target
                yield Asked(
                    row["name"],
                    panel["title"],
                    target["expr"],
                    variables=(("app", "hello"),),
                    least_interval_s={"1m": 60}[panel["interval"]] if "interval" in panel else 0,
                    instant=target["instant"],
                )


@pytest.mark.parametrize("asked", ALL_LISTED, ids=str)
def test_every_listed_query_is_answered_with_data(stage: Stage, asked: Asked) -> None:
    expect_finite(asked, stage.ask(asked))


@pytest.mark.parametrize("selector_and_label", ALL_VARIABLES, ids=", ".join)
def test_every_variable_finds_its_values(stage: Stage, selector_and_label: tuple[str, str]) -> None:
    selector, label = selector_and_label
    window = {"start": f"{stage.ended_s - 900:.0f}", "end": f"{stage.ended_s:.0f}"}
    matched = window | ({"match[]": selector} if selector else {})
    path = f"/prometheus/personal/api/v1/label/{label}/values?{urllib.parse.urlencode(matched)}"
    answer = stage.door.fetch(path, token=stage.door.token())
    assert answer.status == 200, answer.body
    found = answer.json()["data"]
    if selector:  # an older Grafana asks for the series
        series = stage.post("series", matched)
        assert sorted({one[label] for one in series if label in one}) == found
    regions = {"region": [*sorted(REGIONS), "sin"], "app": ["hello"]}
    assert (
        (set(found) <= {*regions[label]} and set(REGIONS) <= {*found, *regions["app"]}) if label == "region" else found
    )
    if label == "app":
        assert found == ["hello"]


def test_every_query_of_our_own_is_answered_with_data(stage: Stage) -> None:
    asked_all = list(own_queries(stage))
    assert len(asked_all) >= 7
    for asked in asked_all:
        expect_finite(asked, stage.ask(asked))
        expect_finite(asked, stage.ask(replace(asked, range_s=RANGES["6h"])))


def test_our_own_numbers_are_what_the_client_saw(stage: Stage) -> None:
    own = {(asked.panel, index): asked for index, asked in enumerate(own_queries(stage))}
    by_panel: dict[str, list[Asked]] = {}
    for (panel, _), asked in own.items():
        by_panel.setdefault(panel, []).append(asked)
    account, within = stage.account, 0.08  # the window's edges are guessed at, as Prometheus does

    # A window of a minute holds all the traffic.
    (by_status,) = by_panel["HTTP response codes"]
    last = {status: points[-1][1] * 60 for status, points in stage.series(by_status, "status").items()}
    assert last == pytest.approx({status: count for (status,), count in account.by("status").items()}, rel=within)

    (by_region,) = by_panel["Requests by region"]
    found = {region: points[0][1] * 60 for region, points in stage.series(by_region, "region").items()}
    assert found.pop("sin") == 0, "the raw door has no requests"
    assert found == pytest.approx({region: count for (region,), count in account.by("region").items()}, rel=within)

    (by_le,) = by_panel["Response times"]
    heat = {bound: points[-1][1] for bound, points in stage.series(by_le, "le").items()}
    ordered = [heat[bound] for bound in sorted(heat, key=float)]
    assert len(ordered) == 13
    assert ordered == sorted(ordered)
    assert heat["+Inf"] == pytest.approx(account.answers.total(), rel=within)
    slow = sum(count for (_, _, delay_ms), count in account.answers.items() if delay_ms == 60)
    assert heat["+Inf"] - heat["0.05"] >= slow * 0.95

    # Bars stand side by side: together they are everything that was counted.
    connects, disconnects = (
        sum(value for _, value in stage.series(asked)[""]) for asked in by_panel["TCP connections"]
    )
    counted = stage.door.exposed_sum("fly_app_tcp_connects_count", app="hello")[()]
    assert connects == pytest.approx(counted, rel=0.1)
    assert 0 < disconnects <= connects * 1.1

    # irate looks at two beats: near the mean, not at it.
    for asked, way in zip(by_panel["Network traffic"], ("sent", "recv"), strict=True):
        busy = [
            value / 8
            for moment, value in stage.series(asked)[""]
            if stage.began_s + 3 < moment < stage.began_s + TRAFFIC_S - 2
        ]
        family = f"fly_instance_net_{way}_bytes"
        carried = stage.door.exposed_sum(family, app="hello", device="eth0")[()]
        assert busy
        assert busy == pytest.approx([carried / TRAFFIC_S] * len(busy), rel=0.7)


def test_the_numbers_of_flys_own_queries_are_what_the_client_saw(stage: Stage) -> None:
    listed_in = {(asked.dashboard, asked.panel, asked.query): asked for asked in ALL_LISTED}

    def one(dashboard: str, panel: str, beginning: str, label: str = "") -> dict[str, list[float]]:
        (asked,) = [
            asked
            for key, asked in listed_in.items()
            if key[:2] == (dashboard, panel) and asked.query.startswith(beginning)
        ]
        return {name: [value for _, value in points] for name, points in stage.series(asked, label).items()}

    account = stage.account
    upper = {"ORD", "FRA"}

    out = one("Fly App", "Data Out, map", "label_uppercase(sum(rate(fly_edge_data_out", "region")
    assert upper <= set(out)
    assert sum(out[region][0] for region in upper) * 3600 == pytest.approx(account.bytes_in, rel=0.1)
    top = one("Fly App", "Data Out, table", "topk_avg(5, sum(rate(fly_edge_data_out", "region")
    assert {region: top[region.lower()] for region in upper} == {region: pytest.approx(out[region]) for region in upper}

    # A ratio to the largest: the most asked region is 1.
    shares = one(
        "Fly App",
        "Edge HTTP Response Count and Latency, map",
        "label_uppercase(sum(increase(fly_edge_http_response_time_seconds_count",
        "region",
    )
    by_region = {region.upper(): count for (region,), count in account.by("region").items()}
    for region in upper:
        assert shares[region][0] == pytest.approx(by_region[region] / max(by_region.values()), rel=0.1)

    # Steps of a window each, side by side: together every response.
    counted = one("Fly Edge", "Responses Count", "sum(increase(fly_edge_http_responses_count", "status")
    by_status = {status: count for (status,), count in account.by("status").items()}
    assert {status: sum(points) for status, points in counted.items()} == pytest.approx(by_status, rel=0.12)

    quantiles = one("Fly Edge", "Response Time", "histogram_quantiles", "p")
    assert set(quantiles) == {"0.5", "0.9", "0.99"}
    for p50, p90, p99 in zip(*(quantiles[p] for p in ("0.5", "0.9", "0.99")), strict=True):
        assert math.isnan(p50) or 0 < p50 <= p90 <= p99 <= 5

    memory = one("Fly App", "Memory Utilization", "mode(fly_instance_memory_mem_total")
    machine = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert {value for points in memory.values() for value in points} == {machine}

    cpus = one("Fly Instance", "CPU Utilization", "(sum(rate(fly_instance_cpu", "mode")
    assert "user" in cpus
    assert all(value > 0 for points in cpus.values() for value in points)


def test_the_list_of_the_published_dashboard_is_whole() -> None:
    known = {asked.query for asked in ALL_LISTED if asked.dashboard == "Fly App, 2021"}
    assert len(known) == 26
    if PUBLISHED.exists():
        assert known == {target["expr"] for target in targets_of(json.loads(PUBLISHED.read_text())["panels"])}


def targets_of(panels: list[Any]) -> Iterator[Any]:
    """Of panels and of rows."""
    for panel in panels:
        yield from panel.get("targets", [])
        yield from targets_of(panel.get("panels", []))


def test_variables_become_what_grafana_makes_of_them() -> None:
    asked = Asked("", "", "x[$__interval] $__rate_interval $__range $app", variables=(("app", "hello"),))
    assert asked.expression == "x[15s] 1m0s 900s hello"
    assert replace(asked, range_s=21600).expression == "x[20s] 1m0s 21600s hello"
    assert replace(asked, min_step_s=30).expression == "x[30s] 2m0s 900s hello"
    assert replace(asked, least_interval_s=60).expression == "x[1m] 1m15s 900s hello"
    assert replace(asked, min_step_s=30).form(1000.5)["end"] == "1020"
