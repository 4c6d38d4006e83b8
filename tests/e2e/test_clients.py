"""Everybody who is known to ask such an API, at a running front door: what Grafana sends, recorded; and promtool,
prometheus-api-client, vmalert and Prometheus themselves, as they are installed."""

import asyncio
import gzip
import json
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

STEP_S = 20.0
"""A bound against hanging, not a measure."""
REGIONS = ("ord", "fra")
REQUESTS = 12
COUNT = "fly_edge_http_responses_count"


@pytest.fixture(scope="module")
def door(toolbox: dict[str, Any], start_shared_front_door: Any) -> Any:
    """With two organizations; of `personal` the account below is stored."""
    app = toolbox["ScriptedApp"]()

    async def visits(door: Any) -> None:
        for region in REGIONS:
            client = toolbox["Client"](toolbox["Account"](), region, door.doors[region])
            for _ in range(REQUESTS):
                await client.request(200, 0)
            await client.request(404, 0)
            await client.close()

    async def visited() -> Any:
        await app.start()
        door = await asyncio.to_thread(start_shared_front_door, configuration(toolbox, app.port))
        await visits(door)
        await app.stop()
        return door

    door = asyncio.run(visited())
    wanted = {(region,): float(REQUESTS) for region in REGIONS}
    ours = f'sum by (region) ({COUNT}{{status="200"}})'
    toolbox["eventually"](lambda: door.vector(ours, "region") == wanted)
    return door


def configuration(toolbox: dict[str, Any], port: int) -> dict[str, Any]:
    def app(name: str, organization: str) -> dict[str, Any]:
        return {
            "name": name,
            "organization": organization,
            "hostnames": [f"{name}.localhost"],
            "instances": [{"address": f"127.0.0.1:{port}", "region": "ord"}],
        }

    return {
        "edge": {"workers": 1, "region": "ord"},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": region} for region in REGIONS],
        "organizations": [{"slug": "personal"}, {"slug": "shop"}],
        "apps": [app("hello", "personal"), app("till", "shop")],
    }


# ---- Grafana, as recorded ----------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """One request of Grafana's; `form` makes it a POST. NOW, AGO stand for seconds."""

    path: str
    form: dict[str, str] | None = None


def panel(expression: str, step: str) -> Sent:
    return Sent("query_range", {"query": expression, "start": "AGO", "end": "NOW", "step": step})


GRAFANA: dict[str, list[Sent]] = {
    "save and test": [
        Sent("query", {"query": "1+1", "time": "4"}),
        Sent("status/buildinfo", {}),
        Sent("status/buildinfo"),
    ],
    "variables": [
        Sent('label/app/values?match[]={region=~".*"}&start=AGO&end=NOW'),
        Sent(f"label/region/values?match[]={COUNT}&start=AGO.5&end=NOW.25&limit=40000"),
        Sent("label/__name__/values?start=AGO&end=NOW&limit=40000"),
        Sent("series", {"match[]": f'{COUNT}{{app=~"hello"}}', "start": "AGO", "end": "NOW"}),
        Sent("labels", {"start": "AGO", "end": "NOW"}),
        Sent("query", {"query": f"count by (app) ({COUNT})", "time": "NOW"}),
    ],
    "explore": [
        Sent("label/__name__/values?start=AGO&end=NOW"),
        Sent("metadata?limit=40000"),
        Sent("labels", {"match[]": COUNT, "start": "AGO", "end": "NOW"}),
        Sent("series", {"match[]": "up", "start": "AGO", "end": "NOW", "limit": "40000"}),
        Sent("rules"),
        Sent("query_exemplars", {"query": COUNT, "start": "AGO", "end": "NOW"}),
        Sent(f"parse_query?query=sum({COUNT})"),
        Sent(f"format_query?query=sum({COUNT})by(app)"),
    ],
    "panels": [
        panel(f"sum by (status) (rate({COUNT}[1m0s]))", "15"),
        panel(f"sum by (status) (increase({COUNT}[15s]))", "0.5"),
        panel("sum by (le) (increase(fly_edge_http_response_time_seconds_bucket[1m]))", "60"),
        Sent("query_range", {"query": COUNT, "start": "AGO.125", "end": "NOW.875", "step": "1m0s"}),
        Sent("query", {"query": f"sum by (region) ({COUNT})", "time": "NOW"}),
    ],
    "annotations": [
        panel('changes(up{app="hello"}[1m]) > 0', "60s"),
        panel('ALERTS{alertstate="firing"}', "1m"),
    ],
    "alerting": [Sent("rules?type=alert"), Sent("alerts"), Sent("targets?state=active"), Sent("status/config")],
}


def answered(door: Any, sent: Sent) -> tuple[int, Any]:
    """Status and JSON; the form as Grafana's backend posts it."""
    now = int(time.time())

    def filled(text: str) -> str:
        return text.replace("NOW", str(now)).replace("AGO", str(now - 300))

    headers = {"User-Agent": "Grafana/13.3.0", "Accept-Encoding": "gzip", "X-Grafana-Org-Id": "1"}
    path = f"/prometheus/personal/api/v1/{urllib.parse.quote(filled(sent.path), safe='/?&=[]')}"
    data = None
    if sent.form is not None:
        data = urllib.parse.urlencode({name: filled(value) for name, value in sent.form.items()}).encode()
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    method = "GET" if data is None else "POST"
    reply = door.fetch(path, token=door.token(), method=method, data=data, headers=headers)
    body = gzip.decompress(reply.body) if reply.headers.get("Content-Encoding") == "gzip" else reply.body
    return reply.status, json.loads(body)


@pytest.mark.parametrize("doing", GRAFANA)
def test_grafana_is_answered(door: Any, doing: str) -> None:
    for sent in GRAFANA[doing]:
        status, answer = answered(door, sent)
        if sent == Sent("status/buildinfo", {}):
            assert status == 405
        else:
            assert (status, answer["status"]) == (200, "success"), (sent, answer)


def test_grafana_takes_us_for_a_prometheus(door: Any) -> None:
    test, _, build = GRAFANA["save and test"]
    assert answered(door, test)[1]["data"] == {"resultType": "scalar", "result": [4, "2"]}
    data = answered(door, build)[1]["data"]
    assert tuple(int(part) for part in data["version"].split(".")) >= (2, 42, 0)
    assert "features" not in data


def test_grafanas_variables_and_explorer_have_what_they_list(door: Any) -> None:
    apps, regions, names, series, labels, _ = [answered(door, sent)[1]["data"] for sent in GRAFANA["variables"]]
    assert (apps, regions) == (["hello"], sorted(REGIONS))
    assert COUNT in names
    assert names == sorted(names)
    assert {one["region"] for one in series} == set(REGIONS)
    assert {"__name__", "app", "region", "status"} <= set(labels)
    metadata, *_, tree, text = [answered(door, sent)[1]["data"] for sent in GRAFANA["explore"][1:]]
    assert set(metadata[COUNT][0]) == {"type", "help", "unit"}
    assert (tree["type"], tree["op"], text) == ("aggregation", "sum", f"sum by (app) ({COUNT})")


def test_grafanas_panels_say_what_kind_of_result_comes_first(door: Any) -> None:
    path = f"/prometheus/personal/api/v1/query?query={COUNT}"
    body = door.fetch(path, token=door.token()).body
    assert body.index(b'"resultType"') < body.index(b'"result"')


# ---- promtool ----------------------------------------------------------------------------------------------------


def promtool(*arguments: str) -> tuple[int, str, str]:
    """(exit code, what it printed, what it complained)."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=STEP_S, check=False)
    return done.returncode, done.stdout, done.stderr


def basic_url(door: Any, organization: str = "personal", *, token: str = "") -> str:
    return f"http://any:{token or door.token()}@127.0.0.1:{door.telemetry}/prometheus/{organization}"


@pytest.mark.peer("promtool")
def test_promtool_brings_its_token_in_the_url(door: Any) -> None:
    server = basic_url(door)
    code, out, complaints = promtool("query", "instant", "-o", "json", server, f"sum by (region) ({COUNT})")
    assert code == 0, complaints
    found = {one["metric"]["region"]: float(one["value"][1]) for one in json.loads(out)}
    assert found == dict.fromkeys(REGIONS, REQUESTS + 1.0)
    now = int(time.time())
    span = ("--start", str(now - 60), "--end", str(now), "--step", "60s")
    for arguments in (
        ("query", "range", *span, server, COUNT),
        ("query", "series", "--match", COUNT, server),
        ("query", "labels", server, "region"),
    ):
        code, out, complaints = promtool(*arguments)
        assert (code, bool(out)) == (0, True), complaints


@pytest.mark.peer("promtool")
def test_promtool_is_told_why_not(door: Any) -> None:
    for server in (basic_url(door, "shop"), basic_url(door, token="fp_personal_0")):
        code, out, _ = promtool("query", "instant", server, "up")
        assert (code, out) == (1, "")


# ---- prometheus-api-client ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python_client(door: Any) -> Iterator[Any]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its own dependencies deprecate is not our mistake
        from prometheus_api_client import PrometheusConnect
    client = PrometheusConnect(
        url=f"http://127.0.0.1:{door.telemetry}/prometheus/personal",
        headers={"Authorization": f"Bearer {door.token()}"},
    )
    yield client
    client._session.close()


def test_the_python_client_finds_us_and_what_we_have(door: Any, python_client: Any) -> None:
    assert python_client.check_prometheus_connection()
    assert COUNT in python_client.all_metrics()
    assert python_client.get_label_values("region") == sorted(REGIONS)
    assert set(python_client.get_label_names()) >= {"app", "region"}
    series = python_client.get_series(datetime.fromtimestamp(0, UTC), datetime.now(UTC), params={"match[]": COUNT})
    assert {one["region"] for one in series} == set(REGIONS)


def test_the_python_client_asks_for_a_range_at_an_instant(door: Any, python_client: Any) -> None:
    now = datetime.now(UTC)
    began = datetime.fromtimestamp(now.timestamp() - 600, UTC)
    found = python_client.get_metric_range_data(
        COUNT, label_config={"app": "hello", "status": "200"}, start_time=began, end_time=now
    )
    assert {one["metric"]["region"]: float(one["values"][-1][1]) for one in found} == dict.fromkeys(REGIONS, REQUESTS)
    current = python_client.get_current_metric_value(COUNT, label_config={"status": "404"})
    assert [float(one["value"][1]) for one in current] == [1.0, 1.0]
    ranged = python_client.custom_query_range(f"sum({COUNT})", began, now, "15")
    assert float(ranged[0]["values"][-1][1]) == 2 * (REQUESTS + 1)
    assert python_client.custom_query("vector(1)")[0]["value"][1] == "1"
    assert python_client.get_metric_aggregation(f"sum({COUNT})", ["max"], start_time=began, end_time=now, step="15")


# ---- vmalert -----------------------------------------------------------------------------------------------------


@pytest.mark.peer("vmalert")
def test_vmalert_evaluates_rules_over_us(toolbox: dict[str, Any], door: Any, tmp_path: Path) -> None:
    rule = {"alert": "Visited", "expr": f'sum by (region) ({COUNT}{{status="404"}}) > 0'}
    rules = tmp_path / "rules.yaml"
    rules.write_text(json.dumps({"groups": [{"name": "g", "interval": "1s", "rules": [rule]}]}))
    port = toolbox["free_port"]()
    with (tmp_path / "vmalert.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "vmalert",
                f"-rule={rules}",
                f"-datasource.url=http://127.0.0.1:{door.telemetry}/prometheus/personal",
                f"-datasource.bearerToken={door.token()}",
                f"-notifier.url=http://127.0.0.1:{toolbox['free_port']()}",
                f"-httpListenAddr=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        toolbox["eventually"](lambda: alerting_regions(port) == set(REGIONS), STEP_S)
    finally:
        process.terminate()
        process.wait(10)


def alerting_regions(port: int) -> set[str]:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=STEP_S) as reply:
        alerts = json.load(reply)["data"]["alerts"] or ()
    return {alert["labels"]["region"] for alert in alerts if alert["state"] == "firing"}


# ---- Prometheus --------------------------------------------------------------------------------------------------


@pytest.fixture
def prometheus(toolbox: dict[str, Any], door: Any, tmp_path: Path) -> Iterator[str]:
    """One that scrapes /metrics and federates an organization with its token; the base of its API."""
    target = {"static_configs": [{"targets": [f"127.0.0.1:{door.telemetry}"]}], "honor_labels": True}
    jobs = [
        {"job_name": "front door", **target},
        {
            "job_name": "federated",
            "metrics_path": "/prometheus/personal/federate",
            "params": {"match[]": ['{__name__=~"fly_.+"}']},
            "authorization": {"credentials": door.token()},
            **target,
        },
        {
            "job_name": "fly",
            "metrics_path": "/prometheus/personal/federate",
            "params": {"match[]": ['{__name__=~"fly_.+"}']},
            "authorization": {"type": "FlyV1", "credentials": door.token()},
            **target,
        },
        {
            "job_name": "others",
            "metrics_path": "/prometheus/shop/federate",
            "params": {"match[]": ['{__name__=~"fly_.+"}']},
            "authorization": {"credentials": door.token()},
            **target,
        },
    ]
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}))
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
    yield f"http://127.0.0.1:{port}/api/v1"
    process.terminate()
    process.wait(10)


async def asked(base: str, path: str, **parameters: str) -> Any:
    async with aiohttp.request("GET", f"{base}/{path}", params=parameters) as reply:
        return (await reply.json())["data"]


@pytest.mark.peer("prometheus")
async def test_a_prometheus_scrapes_us_and_federates_an_organization(door: Any, prometheus: str) -> None:
    async def up() -> dict[str, str]:
        try:
            found = await asked(prometheus, "query", query="up")
        except (OSError, aiohttp.ClientError, KeyError):
            return {}
        return {one["metric"]["job"]: one["value"][1] for one in found["result"]}

    deadline = time.monotonic() + STEP_S
    wanted = {"front door": "1", "federated": "1", "fly": "1", "others": "0"}
    while await up() != wanted:
        assert time.monotonic() < deadline, await up()
        await asyncio.sleep(0.2)

    expression = f"sum by (job, region) ({COUNT}{{app='hello'}})"
    found = (await asked(prometheus, "query", query=expression))["result"]
    by_job = {(one["metric"]["job"], one["metric"]["region"]): float(one["value"][1]) for one in found}
    assert by_job == {(job, region): REQUESTS + 1.0 for job in ("front door", "federated", "fly") for region in REGIONS}

    # With our own time stamps, and with the types we said.
    theirs = (await asked(prometheus, "query", query=f'timestamp({COUNT}{{job="federated",status="404"}})'))["result"]
    ours = door.query(f'timestamp({COUNT}{{status="404"}})', time=str(time.time()))["result"]
    assert {float(one["value"][1]) % 1 for one in theirs} == {float(one["value"][1]) % 1 for one in ours}
    types = await asked(
        prometheus,
        "targets/metadata",
        match_target='{job="federated"}',
        metric="fly_edge_http_response_time_seconds",
    )
    assert {one["type"] for one in types} == {"histogram"}
    (others,) = [
        target for target in (await asked(prometheus, "targets"))["activeTargets"] if target["scrapePool"] == "others"
    ]
    assert "403" in others["lastError"]
