"""/grafana/: public dashboards that carry the address their reader used, and nothing a stranger put there."""

import json
from typing import Any

import pytest

from flyproxy.api.grafana import sane_host

SANE = ["proxy.example", "proxy.example:9290", "a_b-c.example:1", "10.0.0.7:65535", "[::1]:9290", "[2001:db8::7]"]
HOSTILE = [
    "",
    "evil.example/x",
    'evil.example"',
    "evil.example:9290:1",
    "evil.example:0",
    "evil.example:65536",
    "evil.example:123456",
    "me@evil.example",
    "evil example",
    "evil.example?x",
    "evil.example#x",
    "evil.example\\",
    ".evil.example",
    "-evil.example",
    "${evil}",
    "[::1",
    "[:::1]",
    "[12345::]",
    "[::1%25eth0]",
    "ëvil.example",
    "evil.example\n",
    "a" * 300,
]


def gazetteer(dashboard: Any) -> str:
    (layer,) = [layer for panel in dashboard["panels"] for layer in panel["options"].get("layers", [])]
    return str(layer["location"]["gazetteer"])


@pytest.mark.parametrize("host", SANE)
def test_a_plain_host_is_taken_as_it_is(host: str) -> None:
    assert sane_host(host) == host


@pytest.mark.parametrize("host", HOSTILE)
def test_anything_else_is_not_a_host(host: str) -> None:
    assert sane_host(host) is None


async def test_a_dashboard_needs_no_token_and_is_for_every_origin(api: Any) -> None:
    response = await api.client.get(f"{api.url}/grafana/fly.json", headers={"Origin": "https://grafana.example"})
    assert (response.status, response.content_type) == (200, "application/json")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cache-Control"] == "no-store"
    dashboard = await response.json()
    assert gazetteer(dashboard) == f"{api.url}/meta/regions.json"


@pytest.mark.parametrize("host", SANE)
async def test_the_readers_own_address_stands_in_it(api: Any, host: str) -> None:
    response = await api.client.get(f"{api.url}/grafana/fly.json", headers={"Host": host})
    assert gazetteer(await response.json()) == f"http://{host}/meta/regions.json"


@pytest.mark.parametrize("host", [host for host in HOSTILE if host.isascii() and "\n" not in host and len(host) < 300])
async def test_a_hostile_host_is_not_believed(api: Any, host: str) -> None:
    response = await api.client.get(f"{api.url}/grafana/fly.json", headers={"Host": host})
    if response.status != 400:  # aiohttp refuses some of them itself
        text = await response.text()
        assert "evil" not in text
        assert gazetteer(json.loads(text)) == f"{api.url}/meta/regions.json"


async def test_a_proxy_on_this_machine_may_say_what_it_stands_for(api: Any) -> None:
    headers = {"Host": "127.0.0.1:9290", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "metrics.example"}
    response = await api.client.get(f"{api.url}/grafana/fly.json", headers=headers)
    assert gazetteer(await response.json()) == "https://metrics.example/meta/regions.json"


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-Host"])
@pytest.mark.parametrize("value", ["java script", "HTTPS ://x", "a, b", 'x"', "https://evil.example"])
async def test_a_forwarding_header_that_says_anything_else_is_not_believed(api: Any, name: str, value: str) -> None:
    response = await api.client.get(f"{api.url}/grafana/fly.json", headers={name: value})
    assert gazetteer(await response.json()) == f"{api.url}/meta/regions.json"


@pytest.mark.parametrize("path", ["/grafana", "/grafana/"])
async def test_the_list_says_what_there_is(api: Any, path: str) -> None:
    response = await api.client.get(api.url + path)
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    rows = (await response.json())["data"]
    assert {"name": "fly", "title": "Fly app", "url": f"{api.url}/grafana/fly.json"} in rows
    for row in rows:
        assert (await api.client.get(row["url"])).status == 200


@pytest.mark.parametrize("path", ["nothing.json", "fly", "fly.json/x", "..%2Ffly.json", "%22.json"])
async def test_an_unknown_dashboard_is_a_404_that_names_the_known(api: Any, path: str) -> None:
    response = await api.client.get(f"{api.url}/grafana/{path}")
    fault = await response.json()
    assert (response.status, fault["errorType"]) == (404, "not_found")
    assert fault["error"] == "there is no such dashboard; there is /grafana/fly.json"
