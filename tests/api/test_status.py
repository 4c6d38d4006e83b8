"""status/*: what every tenant may know, and what only an operator may."""

import json
import os
import platform
from typing import Any

import pytest

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.tokens import Scope
from flyproxy.clock import ManualClock

BASE = "/prometheus/personal/api/v1/status"


async def data(response: Any) -> Any:
    answer = json.loads(await response.read())
    assert (response.status, answer["status"]) == (200, "success"), answer
    return answer["data"]


async def test_flags_are_prometheus_names_and_show_no_place(api: Any) -> None:
    flags = await data(await api.client.get(f"{api.url}{BASE}/flags", headers=api.headers()))
    assert flags["query.timeout"] == "5s"
    assert flags["storage.tsdb.retention.time"] == "1h"
    assert flags["query.lookback-delta"] == "5m"
    assert all(isinstance(value, str) for value in flags.values())
    assert not [name for name in flags if "path" in name or "address" in name or "file" in name]


async def test_runtime_information_of_a_tenant_names_no_machine(api: Any) -> None:
    api.runtime.trouble_now = "/srv/secret/store.db: no room"
    response = await api.client.get(f"{api.url}{BASE}/runtimeinfo", headers=api.headers(scope=Scope.WRITE))
    info = await data(response)
    assert (info["CWD"], info["hostname"], info["storageRetention"]) == ("", "", "1h")
    assert info["startTime"] == info["serverTime"]
    assert info["startTime"].endswith("Z")
    assert not {"trouble"} & set(info)
    operators = await data(
        await api.client.get(f"{api.url}{BASE}/runtimeinfo", headers=api.headers("_operator", Scope.OPERATOR))
    )
    assert (operators["CWD"], operators["hostname"]) == (os.getcwd(), platform.node())
    assert operators["trouble"] == "/srv/secret/store.db: no room"


async def test_the_configuration_is_the_organizations_own_part(api: Any) -> None:
    shown = []
    for organization, token in (
        ("personal", api.headers("personal")),
        ("personal", api.headers("_operator", Scope.OPERATOR)),
        ("_operator", api.headers("_operator", Scope.OPERATOR)),
        ("_operator", api.headers("_operator", Scope.READ)),
    ):
        url = f"{api.url}/prometheus/{organization}/api/v1/status/config"
        shown.append((await data(await api.client.get(url, headers=token)))["yaml"])
    assert shown == ["of: personal\n", "of: personal\n", "of: None\n", "of: _operator\n"]


async def test_tables_of_the_store_are_asked_of_a_query_worker(api: Any) -> None:
    async def tables(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(200, b'{"status":"success","data":{"headStats":{}}}')

    api.runtime.answer = tables
    for query in ("", "?limit=3"):
        assert await data(await api.client.get(f"{api.url}{BASE}/tsdb{query}", headers=api.headers())) == {
            "headStats": {}
        }
    now_ms = ManualClock().now_ms()
    assert api.runtime.asked == [
        QueryRequest("status_tsdb", "personal", time_ms=now_ms, limit=limit) for limit in (10, 3)
    ]


@pytest.mark.parametrize("limit", ["0", "10001", "-1", "x"])
async def test_a_limit_of_no_rows_is_refused(api: Any, limit: str) -> None:
    response = await api.client.get(f"{api.url}{BASE}/tsdb?limit={limit}", headers=api.headers())
    assert (response.status, json.loads(await response.read())["errorType"]) == (400, "bad_data")


@pytest.mark.parametrize("name", ["buildinfo", "config", "flags", "runtimeinfo", "tsdb"])
async def test_nothing_is_said_without_a_token_or_by_post(api: Any, name: str) -> None:
    assert (await api.client.get(f"{api.url}{BASE}/{name}")).status == 401
    assert (await api.client.get(f"{api.url}{BASE}/{name}", headers=api.headers("shop"))).status == 403
    assert (await api.client.post(f"{api.url}{BASE}/{name}", headers=api.headers())).status == 405
