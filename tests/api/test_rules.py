"""rules and alerts: empty, and what is asked is checked."""

import json
from typing import Any

import pytest

from flyproxy.api.ports import QueryAnswer, QueryRequest

BASE = "/prometheus/personal/api/v1"


async def test_there_are_none(api: Any) -> None:
    for path, name in (("rules", "groups"), ("alerts", "alerts")):
        response = await api.client.get(f"{api.url}{BASE}/{path}", headers=api.headers())
        assert json.loads(await response.read()) == {"status": "success", "data": {name: []}}
    assert api.runtime.asked == []


@pytest.mark.parametrize(
    "query",
    [
        "type=alert",
        "type=record",
        "rule_name[]=a&rule_name[]=b&rule_group[]=c&file[]=d",
        "exclude_alerts=t",
        "group_limit=5",
    ],
)
async def test_every_filter_is_taken(api: Any, query: str) -> None:
    assert (await api.client.get(f"{api.url}{BASE}/rules?{query}", headers=api.headers())).status == 200


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("type=both", 'invalid parameter "type": not supported value "both"'),
        ("exclude_alerts=maybe", 'invalid parameter "exclude_alerts": cannot parse "maybe" to true or false'),
        ("group_limit=0", 'invalid parameter "group_limit": group_limit needs to be a valid number, greater than 0'),
        ("group_limit=x", 'invalid parameter "group_limit": group_limit needs to be a valid number, greater than 0'),
        (
            "group_next_token=abc",
            'invalid parameter "group_limit": group_limit needs to be present in order to paginate over the groups',
        ),
        (
            "group_limit=1&group_next_token=abc",
            'invalid parameter "group_next_token": no group of rules has such a token',
        ),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(api: Any, query: str, sentence: str) -> None:
    response = await api.client.get(f"{api.url}{BASE}/rules?{query}", headers=api.headers())
    assert (response.status, json.loads(await response.read())["error"]) == (400, sentence)


async def test_a_match_is_checked_where_queries_are(api: Any) -> None:
    async def refuses(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(400, b'{"status":"error","errorType":"bad_data","error":"no selector"}')

    url = f"{api.url}{BASE}/rules?match[]=up"
    assert (await api.client.get(url, headers=api.headers())).status == 200
    api.runtime.answer = refuses
    response = await api.client.get(url, headers=api.headers())
    answer = json.loads(await response.read())
    assert (response.status, answer["errorType"], answer["error"]) == (400, "bad_data", "no selector")
    assert api.runtime.asked == [QueryRequest("check_matches", "personal", matches=("up",))] * 2
