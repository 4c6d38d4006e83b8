"""The same requests to a real Prometheus and to us, both without any samples: the same statuses, error types, data,
and for every malformed parameter the same sentence."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.query_service import MatcherSets, answer
from flyproxy.promql.engine import Engine, Options
from flyproxy.series.frame import Frame
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher

pytestmark = pytest.mark.peer("prometheus")

READY_S = 30.0

SAME_ANSWER = [
    "query?query=1%2B1&time=4",
    "query?query=1e21&time=1.5",
    "query?query=-0&time=1.05",
    "query?query=0.0000001&time=1435781451.781",
    "query?query=Inf&time=2015-07-01T20:10:51.781Z",
    "query?query=NaN&time=2015-07-01T22:10:51.5%2B02:00",
    "query?query=%22a%22&time=4",
    "query?query=vector(NaN)&time=4",
    "query?query=vector(1e21)&time=4",
    "query?query=vector(0.00000012)&time=4",
    "query?query=vector(0.000001)&time=4",
    "query?query=vector(0.00002)&time=4",
    "query?query=vector(12345678901234567)&time=4",
    "query?query=vector(-1/0)&time=4",
    "query?query=up%5B5m%5D&time=4",
    "query?query=up&time=4",
    "query_range?query=1&start=0&end=2&step=1",
    "query_range?query=time()/3&start=0&end=2&step=0.5",
    "query_range?query=vector(1e21)&start=0&end=60&step=1m",
    "query_range?query=vector(time()*1e-7)&start=1&end=2&step=300ms",
    "query_range?query=up&start=0&end=1m&step=1",
    "query_range?query=up&start=0&end=11000&step=1",
    "series?match[]=up",
    "labels?start=0&end=1",
    "label/app/values",
    "query_exemplars?query=up&start=0&end=1",
    "format_query?query=sum(+up)by(app)",
    "format_query?query=1%2B1",
    "format_query?query=rate(up%7Ba%3D%22b%22%7D%5B5m%5D+offset+1h)",
    "rules",
    "rules?type=alert",
    "alerts",
    "metadata",
    "metadata?limit=1&metric=up",
    "targets?state=active",
]
SAME_REFUSAL = [
    "query",
    "query?query=",
    "query?query=up&timeout=x",
    "query_range?query=1",
    "query_range?query=1&start=0&end=1&step=0",
    "query_range?query=1&start=0&end=1&step=-1",
    "query_range?query=1&start=0&end=1&step=x",
    "query_range?query=1&start=0&end=1",
    "query_range?query=1&start=x&end=1&step=1",
    "query_range?query=1&start=0&end=y&step=1",
    "query_range?query=1&start=5&end=1&step=1",
    "query_range?query=1&start=0&end=11001&step=1",
    "query_range?query=up%5B5m%5D&start=0&end=1&step=1",
    "query_range?query=%22a%22&start=0&end=1&step=1",
    "series",
    "series?match[]={}",
    "rules?type=both",
    "metadata?limit=x",
    "query_exemplars?query=up&start=5&end=1",
]
SAME_KIND = [
    "query?query=sum(",
    "query?query=1&time=x",
    "query?query=up{",
    "query?query=rate(up)",
    "query?query=up*on()up%20bool",
    "series?match[]=sum(up)",
    "series?match[]={",
    "labels?start=x",
    "labels?match[]={",
    "label/app/values?end=x",
    "format_query?query=sum(",
    "query_exemplars?query=sum(&start=0&end=1",
    "query_exemplars?query=up&start=x&end=1",
]
"""The same status and type; the sentence differs in words or in where it points."""


class Nothing:
    """A store without samples."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        return []

    def series(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[Labels]:
        return []

    def label_names(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        return []

    def label_values(self, name: str, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        return []


async def answered(request: QueryRequest) -> QueryAnswer:
    """Plain PromQL, as the other one speaks it."""
    return answer(request, Engine(Options(metricsql=False, mode="prometheus2")), Nothing(), lambda: None)


def asked(url: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=READY_S) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes nothing; the base of its API."""
    program = shutil.which("prometheus")
    assert program is not None
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("global: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Server is ready" in line:
            break
    yield f"http://{address}/api/v1"
    process.terminate()
    process.stderr.read()
    process.stderr.close()
    process.wait()


async def both(api: Any, prometheus: str, path: str) -> tuple[tuple[int, Any], tuple[int, Any]]:
    """(Prometheus' status and JSON, ours)."""
    api.runtime.answer = answered
    ours = f"{api.url}/prometheus/personal/api/v1/{path}"
    return (
        await asyncio.to_thread(asked, f"{prometheus}/{path}"),
        await asyncio.to_thread(asked, ours, api.headers()),
    )


@pytest.mark.parametrize("path", SAME_ANSWER)
async def test_the_same_answer(api: Any, prometheus: str, path: str) -> None:
    theirs, ours = await both(api, prometheus, path)
    assert ours == theirs


@pytest.mark.parametrize("path", SAME_REFUSAL)
async def test_the_same_refusal(api: Any, prometheus: str, path: str) -> None:
    theirs, ours = await both(api, prometheus, path)
    assert ours == theirs


@pytest.mark.parametrize("path", SAME_KIND)
async def test_the_same_kind_of_refusal(api: Any, prometheus: str, path: str) -> None:
    (their_status, theirs), (our_status, ours) = await both(api, prometheus, path)
    assert (our_status, ours["errorType"]) == (their_status, theirs["errorType"])
    assert re.match(r'invalid parameter "(query|time|start|end|match\[\])": ', ours["error"])
