"""targets, scrape_pools and metadata: an organization's own, in Prometheus' shape."""

import json
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.scrape.target import TargetState
from flyproxy.series.metadata import Metadata

BASE = "/prometheus/personal/api/v1"
UP = TargetState(
    organization="personal",
    app="hello",
    instance="3d8d9e27b24e89",
    region="ord",
    url="http://127.0.0.1:9091/metrics",
    health="up",
    since_ms=1_000,
    last_scrape_ms=16_000,
    duration_s=0.25,
    samples=7,
    refused=1,
    duplicates=2,
    beyond=3,
    last_warning="too many series",
    labels=(("app", "hello"), ("region", "ord"), ("host", "ab12"), ("instance", "3d8d9e27b24e89")),
    interval_s=15.0,
    timeout_s=10.0,
)
NEW = replace(UP, app="later", health="unknown", last_scrape_ms=None, samples=0)
OTHERS = replace(UP, organization="shop", app="till", last_error="connection refused", health="down")


async def ask(api: Any, path: str, organization: str = "personal") -> Any:
    url = f"{api.url}/prometheus/{organization}/api/v1/{path}"
    answer = json.loads(await (await api.client.get(url, headers=api.headers(organization))).read())
    assert answer["status"] == "success", answer
    return answer["data"]


async def test_targets_are_in_prometheus_shape_and_the_organizations_own(api: Any) -> None:
    api.runtime.targets_now = [UP, NEW, OTHERS]
    found = await ask(api, "targets")
    assert found["droppedTargets"] == []
    first, second = found["activeTargets"]
    assert first["labels"] == dict(UP.labels)
    assert first["discoveredLabels"]["__address__"] == "127.0.0.1:9091"
    assert (first["scrapePool"], first["scrapeUrl"], first["health"]) == ("hello", UP.url, "up")
    assert (first["lastScrape"], first["lastScrapeDuration"]) == ("1970-01-01T00:00:16.000Z", 0.25)
    assert (first["scrapeInterval"], first["scrapeTimeout"], first["since"]) == (
        "15s",
        "10s",
        "1970-01-01T00:00:01.000Z",
    )
    assert [first[f"samples{kind}"] for kind in ("", "Refused", "Duplicate", "Beyond")] == [7, 1, 2, 3]
    assert first["lastWarning"] == "too many series"
    assert (second["health"], second["lastScrape"]) == ("unknown", "0001-01-01T00:00:00Z")
    (theirs,) = (await ask(api, "targets", "shop"))["activeTargets"]
    assert theirs["lastError"] == "connection refused"


@pytest.mark.parametrize(
    ("query", "apps"),
    [
        ("state=active", ["hello", "later"]),
        ("state=ANY", ["hello", "later"]),
        ("state=dropped", []),
        ("state=nonsense", []),
        ("scrapePool=later", ["later"]),
        ("scrapePool=till", []),
    ],
)
async def test_targets_are_filtered_as_prometheus_does(api: Any, query: str, apps: list[str]) -> None:
    api.runtime.targets_now = [UP, NEW, OTHERS]
    found = await ask(api, f"targets?{query}")
    assert [target["scrapePool"] for target in found["activeTargets"]] == apps
    assert "till" not in json.dumps(found)


async def test_scrape_pools_are_the_apps(api: Any) -> None:
    api.runtime.targets_now = [UP, replace(UP, region="fra"), NEW, OTHERS]
    assert await ask(api, "scrape_pools") == {"scrapePools": ["hello", "later"]}


async def test_metadata_is_by_family_and_the_organizations_own(api: Any) -> None:
    api.runtime.metadata_now = {
        "personal": {"b": Metadata("gauge", "B.", ""), "a_seconds": Metadata("histogram", "A.", "seconds")},
        "shop": {"takings": Metadata("counter", "", "")},
    }
    everything = {
        "a_seconds": [{"type": "histogram", "help": "A.", "unit": "seconds"}],
        "b": [{"type": "gauge", "help": "B.", "unit": ""}],
    }
    assert await ask(api, "metadata") == everything
    assert await ask(api, "metadata?limit=-1&limit_per_metric=1") == everything
    assert list(await ask(api, "metadata?limit=1")) == ["a_seconds"]
    assert await ask(api, "metadata?limit=0") == {}
    assert list(await ask(api, "metadata?metric=b")) == ["b"]
    assert await ask(api, "metadata?metric=takings") == {}


@pytest.mark.parametrize("query", ["limit=x", "limit=1.5", "limit_per_metric=many"])
async def test_a_limit_that_is_no_number_is_refused(api: Any, query: str) -> None:
    response = await api.client.get(f"{api.url}{BASE}/metadata?{query}", headers=api.headers())
    answer = json.loads(await response.read())
    assert (response.status, answer["error"]) == (400, f"{query.partition('=')[0]} must be a number")
