"""`flyproxy query` against a running API."""

import asyncio
import csv
import io
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from flyproxy.api.application import build_application, build_runner
from flyproxy.api.ports import Ports, QueryAnswer, QueryRequest
from flyproxy.api.tokens import Scope, TokenFile
from flyproxy.cli.main import run
from flyproxy.cli.query import formatted
from flyproxy.clock import SystemClock
from flyproxy.config.load import load_file
from flyproxy.config.resolve import resolve
from flyproxy.series.exposition_writer import ExposedFamily

VECTOR = (
    b'{"status":"success","data":{"resultType":"vector","result":['
    b'{"metric":{"status":"200","__name__":"a"},"value":[4,"41.2"]},{"metric":{"status":"404"},"value":[4,"0.3"]}]}}'
)
MATRIX = (
    b'{"status":"success","data":{"resultType":"matrix","result":['
    b'{"metric":{"status":"200"},"values":[[0,"1"],[15.5,"2"]]}]},"warnings":["results truncated due to limit"]}'
)


class Runtime:
    """Behind the API: one answer, and what was asked."""

    def __init__(self) -> None:
        self.answer = QueryAnswer(200, VECTOR)
        self.asked: list[QueryRequest] = []

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        self.asked.append(request)
        return self.answer

    def families(self) -> Iterable[ExposedFamily]:
        return ()

    def ready(self) -> tuple[bool, str]:
        return True, ""

    def trouble(self) -> str:
        return ""

    async def reload(self) -> tuple[bool, str]:
        return True, ""

    def limit_reached(self, limit: str) -> None:
        raise AssertionError(limit)

    def refused(self, status: int) -> None:
        """Nobody looks here."""


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """An API on its own thread, as configured by flyproxy.yaml in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLYPROXY_TOKEN", raising=False)
    (tmp_path / "data").mkdir()
    runtime, loop = Runtime(), asyncio.new_event_loop()
    sock = socket.create_server(("127.0.0.1", 0))
    bind = f"127.0.0.1:{sock.getsockname()[1]}"
    (tmp_path / "flyproxy.yaml").write_text(f"organizations: [{{slug: personal}}]\ntelemetry: {{bind: {bind}}}\n")
    telemetry = resolve(load_file("flyproxy.yaml")).telemetry
    runner = build_runner(build_application(Ports(runtime, runtime, runtime), lambda: telemetry, SystemClock()))

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, sock).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield runtime
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the verb; standard output, or the error output when it must fail."""

    def command(*arguments: str, code: int = 0) -> str:
        assert run(["query", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return command


def test_a_table_of_labels_and_values(proxy: Runtime, printed: Callable[..., str]) -> None:
    assert printed("sum by (status) (x)", "--time", "4").splitlines() == [
        "metric  status  value",
        "a       200      41.2",
        "        404       0.3",
    ]
    assert proxy.asked[0].time_ms == 4000


def test_a_range_as_csv(proxy: Runtime, printed: Callable[..., str]) -> None:
    proxy.answer = QueryAnswer(200, MATRIX)
    shown = printed("x", "--range", "1h", "--step", "1m", "--time", "7200", "-o", "csv")
    assert list(csv.reader(io.StringIO(shown))) == [
        ["status", "time", "value"],
        ["200", "0", "1"],
        ["200", "15.5", "2"],
    ]
    asked = proxy.asked[0]
    assert (asked.kind, asked.start_ms, asked.end_ms, asked.step_ms) == ("query_range", 3_600_000, 7_200_000, 60_000)


def test_a_range_as_a_table_shows_the_times(proxy: Runtime, printed: Callable[..., str]) -> None:
    proxy.answer = QueryAnswer(200, MATRIX)
    lines = printed("x", "--range", "1h").splitlines()
    assert lines[1].split() == ["200", "1970-01-01T00:00:00Z", "1"]
    assert lines[2].split() == ["200", "1970-01-01T00:00:15.500Z", "2"]
    assert proxy.asked[0].step_ms == 15_000


def test_json_is_the_answers_data(proxy: Runtime, printed: Callable[..., str]) -> None:
    assert json.loads(printed("x", "-o", "json"))["resultType"] == "vector"


def test_strict_is_plain_promql(proxy: Runtime, printed: Callable[..., str]) -> None:
    printed("x", "--strict")
    assert proxy.asked[0].metricsql is False


def test_no_token_is_left_behind(proxy: Runtime, printed: Callable[..., str]) -> None:
    printed("x")
    assert TokenFile(Path("data/tokens"), SystemClock()).list() == ()


def test_a_given_token_is_used(proxy: Runtime, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    token = TokenFile(Path("data/tokens"), SystemClock()).mint("personal", Scope.READ)
    printed("x", "--token", token)
    monkeypatch.setenv("FLYPROXY_TOKEN", "fp_wrong")
    assert "the token is not known here" in printed("x", code=1)


def test_a_parse_error_points_at_its_place(proxy: Runtime, printed: Callable[..., str]) -> None:
    fault = 'invalid parameter "query": 1:6: parse error: rate() needs a range, e.g. rate(x[5m])'
    proxy.answer = QueryAnswer(400, json.dumps({"status": "error", "errorType": "bad_data", "error": fault}).encode())
    assert printed("rate(x)", code=1).splitlines() == [
        "Error: rate() needs a range, e.g. rate(x[5m])",
        "       rate(x)",
        "            ^",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--time", "x"], '"--time": cannot parse "x" to a valid timestamp'),
        (["--range", "x"], '"--range": cannot parse "x" to a valid duration'),
        (["--range", "1h", "--step", "x"], '"--step": cannot parse "x" to a valid duration'),
        (["--step", "1m"], "--step is for --range"),
        (["--url", "http://127.0.0.1:1"], "--url needs --token"),
        (["--org", "persnal"], "did you mean 'personal'?"),
    ],
)
def test_wrong_usage_is_told(proxy: Runtime, printed: Callable[..., str], arguments: list[str], expected: str) -> None:
    assert expected in printed("x", *arguments, code=2)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b'{"resultType":"vector","result":[1]}'])
def test_an_answer_to_something_else_is_told(proxy: Runtime, printed: Callable[..., str], data: bytes) -> None:
    proxy.answer = QueryAnswer(200, b'{"status":"success","data":%s}' % data)
    assert "not one to a query" in printed("x", code=1)


def test_nobody_there_is_told(proxy: Runtime, printed: Callable[..., str]) -> None:
    shown = printed("x", "--url", "http://127.0.0.1:1", "--token", "t", code=1)
    assert "nobody answers at 127.0.0.1:1" in shown


def test_without_a_data_directory_the_mend_is_told(
    printed: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLYPROXY_TOKEN", raising=False)
    assert "use -c FILE, or --token" in printed("x", code=1)


def test_a_label_cannot_steer_the_terminal() -> None:
    from flyproxy.api.client import ApiResult

    data: Any = {"resultType": "vector", "result": [{"metric": {"a": "\x1b[31m"}, "value": [1, "2"]}]}
    assert "\x1b" not in formatted(ApiResult(data, (), ()), "table")


def test_nothing_found_is_said() -> None:
    from flyproxy.api.client import ApiResult

    assert formatted(ApiResult({"resultType": "vector", "result": []}, (), ()), "table") == "no data\n"


def test_a_scalar_is_one_number() -> None:
    from flyproxy.api.client import ApiResult

    assert formatted(ApiResult({"resultType": "scalar", "result": [4, "2"]}, (), ()), "table") == "value\n    2\n"
