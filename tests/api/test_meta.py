"""What needs no organization: regions, health, readiness, reload, /metrics, and who counts as being from here."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flyproxy.api.tokens import Scope

FORWARDED = [
    {"X-Forwarded-For": "1.2.3.4"},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=1.2.3.4"},
    {"Via": "1.1 proxy"},
    {"X-Real-IP": "1.2.3.4"},
    {"Fly-Client-IP": "1.2.3.4"},
    {"X-Forwarded": "for=1.2.3.4"},
    {"X-Original-Forwarded-For": "1.2.3.4"},
    {"X-Cluster-Client-IP": "1.2.3.4"},
    {"X-Envoy-External-Address": "1.2.3.4"},
    {"Fastly-Client-IP": "1.2.3.4"},
    {"CDN-Loop": "cdn"},
    {"Host": "[::1].evil.example"},
    {"Host": "localhost:evil"},
    {"Host": "localhost:80:80"},
    {"Host": "me@localhost"},
    {"Host": "127.1"},
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example:9290"},
    {"Host": "localhost.evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
]


async def test_regions_are_public_and_for_every_origin(api: Any) -> None:
    response = await api.client.get(f"{api.url}/meta/regions.json", headers={"Origin": "http://grafana.example"})
    rows = json.loads(await response.read())
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.content_type == "application/json"
    assert rows[0] == {
        "key": "ams",
        "latitude": 52.37,
        "longitude": 4.89,
        "name": "Amsterdam, Netherlands",
        "code": "ams",
        "geo_region": "europe",
    }
    assert [row["key"] for row in rows] == ["ams", "bog", "zero"], "the first row must not lie at 0 degrees"
    assert rows[1]["name"] == "Bogotá, Colombia"


async def test_health_is_always_well(api: Any) -> None:
    api.runtime.ready_now = (False, "starting")
    response = await api.client.get(f"{api.url}/-/healthy")
    assert (response.status, await response.text()) == (200, "flyproxy is healthy.\n")


async def test_readiness_says_why_not(api: Any) -> None:
    response = await api.client.get(f"{api.url}/-/ready")
    assert (response.status, await response.text()) == (200, "flyproxy is ready.\n")
    api.runtime.ready_now = (False, "draining: 3 requests in flight")
    response = await api.client.get(f"{api.url}/-/ready")
    assert (response.status, await response.text()) == (503, "draining: 3 requests in flight\n")


async def test_what_is_wrong_in_particular_is_for_who_looks_after_it(api: Any) -> None:
    api.runtime.ready_now, api.runtime.trouble_now = (False, "the store is full"), "/srv/secret/store.db: no room"
    url, elsewhere = f"{api.url}/-/ready", {"X-Forwarded-For": "10.0.0.1"}
    assert await (await api.client.get(url)).text() == "the store is full: /srv/secret/store.db: no room\n"
    for headers in ({}, api.headers(), api.headers(scope=Scope.WRITE), {"Authorization": "Bearer nobody"}):
        response = await api.client.get(url, headers=elsewhere | headers)
        assert (response.status, await response.text()) == (503, "the store is full\n")
    operating = elsewhere | api.headers("_operator", Scope.OPERATOR)
    assert "/srv/secret" in await (await api.client.get(url, headers=operating)).text()


async def test_a_browser_may_ask_before_it_fetches_the_regions(api: Any) -> None:
    response = await api.client.options(f"{api.url}/meta/regions.json", headers={"Origin": "https://grafana.example"})
    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, "*")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_reload_from_here_needs_no_token(api: Any, method: str) -> None:
    response = await api.client.request(method, f"{api.url}/-/reload")
    assert (response.status, await response.text()) == (200, "generation 2 is in force\n")
    assert api.runtime.reloads == 1


async def test_a_reload_is_not_a_get(api: Any) -> None:
    response = await api.client.get(f"{api.url}/-/reload")
    assert response.status == 405
    assert response.headers["Allow"] == "POST, PUT"
    assert api.runtime.reloads == 0


async def test_a_failed_reload_says_why(api: Any) -> None:
    api.runtime.reload_result = (False, "flyproxy.yaml:3:5: error: unknown key")
    response = await api.client.post(f"{api.url}/-/reload")
    assert (response.status, await response.text()) == (500, "flyproxy.yaml:3:5: error: unknown key\n")


@pytest.mark.parametrize("headers", FORWARDED, ids=lambda headers: "-".join(headers))
async def test_who_was_forwarded_or_led_here_is_not_from_here(api: Any, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/-/reload"), ("GET", "/metrics")):
        assert (await api.client.request(method, api.url + path, headers=headers)).status == 401
        reading = headers | api.headers("personal", Scope.WRITE)
        assert (await api.client.request(method, api.url + path, headers=reading)).status == 403
        operating = headers | api.headers("_operator", Scope.OPERATOR)
        assert (await api.client.request(method, api.url + path, headers=operating)).status == 200
    assert api.runtime.reloads == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /metrics HTTP/1.0\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n",
    ],
)
async def test_a_request_that_says_two_things_is_not_from_here(api: Any, head: bytes) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + b"Connection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.split()[1] == b"401"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9290", "127.0.0.1:9290", "127.8.8.8", "[::1]:9290"])
async def test_every_name_of_loopback_is_from_here(api: Any, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert (await api.client.get(f"{api.url}/metrics", headers=headers)).status == 200


async def test_metrics_in_both_formats(api: Any) -> None:
    response = await api.client.get(f"{api.url}/metrics", headers={"Accept": "*/*"})
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    (family,) = parse_text(await response.text())
    assert (family.type, family.samples[0].value) == ("counter", 7.0)
    response = await api.client.get(f"{api.url}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    (family,) = parse_openmetrics(await response.text())  # type: ignore[no-untyped-call]
    assert (family.type, family.samples[0].value) == ("unknown", 7.0)


async def test_metrics_are_compressed_for_who_can_read_it(api: Any) -> None:
    async with api.client.get(f"{api.url}/metrics", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert b"fly_edge_data_out" in await response.read()
    async with api.client.get(f"{api.url}/metrics", headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        assert not (await response.read()).startswith(gzip.compress(b"")[:2])


async def test_the_front_page_names_what_is_there(api: Any) -> None:
    response = await api.client.get(api.url)
    assert response.content_type == "text/html"
    page = await response.text()
    for path in ("/metrics", "/prometheus/", "/meta/regions.json", "/-/healthy", "/-/ready"):
        assert path in page
