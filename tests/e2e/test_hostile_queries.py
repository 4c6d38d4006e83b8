"""Questions meant to harm: each gets Prometheus' status and errorType within its deadline, takes no more memory than a
query worker may have, and no neighbour's question waits for it or fails."""

import http.client
import http.server
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DEADLINE_S = 2.0
ANSWER_S = DEADLINE_S + 4.0
"""The deadline, the second until a worker is killed, and this machine's own slowness: a bound against hanging."""
MEMORY_MIB = 256
"""telemetry.query_memory, the least there is."""
GROWTH_MIB = 128
"""What all processes together may have grown by in the end."""
SERIES = 4000
TYPES = {400: {"bad_data"}, 413: {"bad_data"}, 414: {"bad_data"}, 422: {"execution"}, 503: {"timeout", "canceled"}}
ANY = {"success", "bad_data", "execution", "timeout"}


class Case(NamedTuple):
    parameters: list[tuple[str, str]]
    outcomes: set[str]
    """"success" or errorTypes."""
    endpoint: str = "query"


def query(expression: str, *outcomes: str, **parameters: str) -> Case:
    endpoint = "query_range" if "step" in parameters else "query"
    return Case([("query", expression), *parameters.items()], set(outcomes) or ANY, endpoint)


def nested(open_: str, close: str, depth: int, inner: str = "1") -> str:
    return open_ * depth + inner + close * depth


OK, BAD, EXECUTION, TIMEOUT = "success", "bad_data", "execution", "timeout"
ALL = '{__name__=~".+"}'
RECENT = {"start": "NOW-11000", "end": "NOW-0", "step": "1"}
"""11,000 steps up to now; NOW is said when it is asked."""
YEARS = {"start": "-3155760000", "end": "3155760000"}
CASES: dict[str, Case] = {
    # the text itself
    "10,000 parentheses": query(nested("(", ")", 10_000), BAD),
    "unclosed parentheses": query("(" * 60_000, BAD),
    "20,000 terms": query("+".join(["1"] * 20_000), BAD),
    "20,000 selectors": query("+".join(["h"] * 20_000), BAD),
    "20,000 signs": query("-" * 20_000 + "1", BAD),
    "powers": query("^".join(["2"] * 5_000), BAD),
    "2,000 comparisons": query(" == bool ".join(["1"] * 2_000), BAD),
    "199 nested calls": query(nested("abs(", ")", 199, "h")),
    "nested aggregations": query(nested("sum(", ")", 3_000, "h"), BAD),
    "1 MB query": query("h" * 1_000_000, BAD),
    "a body beyond the bound": query("h" * 1_048_600, BAD),
    "a giant string": query('"' + "x" * 60_000 + '"', OK),
    "a giant name": query("h" * 60_000, OK),
    "a giant number": query("9" * 60_000, OK, BAD),
    "10,000 matchers": query("h{" + ",".join(['a!="b"'] * 6_000) + "}"),
    "an escape bomb": query('"' + "\\u0041" * 10_000 + '"', OK, BAD),
    "comments": query("# a comment\n" * 5_000 + "1 # )", OK),
    "a comment to the end": query("sum( # h)", BAD),
    "NUL bytes": query("h\x00{}", BAD),
    "NUL in a label value": query('h{a="\\x00"}', OK),
    "unicode confusables": query('һ{a="b"}', BAD, OK),
    "text that runs backwards": query('h{a="\u202e\u2066b"}', OK),
    "zero-width names": query("h\u200b", BAD),
    "many labels to group by": query(f"sum by ({','.join(f'l{n}' for n in range(5_000))}) (h)"),
    # regular expressions
    "a backtracking bomb": query('h{a=~"(x+x+)+y"}', OK),
    "counted repetitions": query('h{a=~"((x{1000}){1000}){1000}"}', BAD),
    "nested counted repetitions": query('h{a=~"(((a{30}){30}){30}){30}"}', BAD, OK),
    "a giant alternation": query('h{a=~"' + "|".join(f"v{n}" for n in range(8_000)) + '"}', OK),
    "a giant alternation of patterns": query('h{a=~"' + "|".join(f"v{n}.*" for n in range(6_000)) + '"}'),
    "unicode classes": query('h{a=~"' + "\\\\p{L}*" * 3_000 + '"}'),
    "broken pattern": query('h{a=~"("}', BAD),
    "one pattern a term": query(" or ".join(f'h{{a=~"v{n}.*[0-9]+"}}' for n in range(90))),
    # times
    "11,001 points": query("h", BAD, start="0", end="11001", step="1"),
    "11,000 points of everything": query(ALL, **RECENT),
    "steps of 1 ms": query("h", BAD, start="0", end="3600", step="0.001"),
    "200 years": query(f"sum(rate({ALL}[100y]))", step="1000000", **YEARS),
    "a window of 290 years": query(f"sum_over_time({ALL}[290y])"),
    "a window that overflows": query("rate(h[99999999999y])", BAD),
    "an offset that overflows": query("h offset 99999999999y", BAD),
    "a great offset": query("h offset 290y", OK),
    "a negative offset": query("h offset -290y", OK),
    "@ of the far future": query("h @ 9223372036854775", OK, BAD),
    "@ NaN": query("h @ NaN", BAD),
    "@ infinity": query("h @ Inf", BAD),
    "NaN time": query("h", BAD, time="NaN"),
    "infinite time": query("h", BAD, time="+Inf"),
    "1e308 time": query("h", OK, BAD, time="1e308"),
    "infinite range": query("h", BAD, start="-Inf", end="Inf", step="1"),
    "a negative window": query("rate(h[-5m])", BAD),
    "a window of nothing": query("rate(h[0s])", BAD),
    # subqueries
    "subqueries in subqueries": query(nested("max_over_time(", "[1h:1s])", 8, "h"), EXECUTION, TIMEOUT, BAD, OK),
    "a subquery of a year by ms": query("max_over_time(h[1y:1ms])", EXECUTION),
    "30 slow subqueries": query("+".join(["quantile_over_time(0.9,vector(time())[1d:1s])"] * 30)),
    "a subquery at every step": query("max_over_time(rate(h[5m])[1h:1s])", **RECENT),
    "the slowest we know": query(
        "+".join(["quantile_over_time(0.9,quantile_over_time(0.9,vector(time())[1h:1s])[1h:1s])"] * 20), TIMEOUT, OK
    ),
    # explosions
    "many to many": query("h * on() h", EXECUTION),
    "cartesian": query("h * on() group_left() h", EXECUTION),
    "a cartesian or": query("h or on() h"),
    "grown labels": query(nested("label_replace(", ', "a", "$1$1", "a", "(.*)")', 30, "h"), EXECUTION, TIMEOUT, OK),
    "joined labels": query(nested("label_join(", ', "a", "aa", "a", "a", "a", "a")', 20, "h"), EXECUTION, TIMEOUT, OK),
    "a giant replacement": query(f'label_replace(h, "a", "{"$1" * 5_000}", "a", "(.*)")', EXECUTION, TIMEOUT, OK),
    "a hostile replacement pattern": query('label_replace(h, "b", "$1", "a", "((((x+)+)+)+)+")', OK),
    "an invalid label": query('label_replace(h, "\\xff", "$1", "a", "(.*)")', BAD, EXECUTION),
    "counted values": query('count_values("v", time() * h + h)', **RECENT),
    "counted values of counted values": query('count_values("v", count_values("w", h))', OK),
    "topk of 1e18": query("topk(1e18, h)", OK, EXECUTION),
    "topk of infinity": query("topk(Inf, h)", OK, EXECUTION),
    "topk of NaN": query("topk(NaN, h)", OK, EXECUTION),
    "bottomk of -1e308": query("bottomk(-1e308, h)", OK, EXECUTION),
    "limitk of everything": query("limitk(1e18, h)", OK, EXECUTION, BAD),
    "quantile of NaN": query("quantile(NaN, h)", OK),
    "quantile of infinity": query("quantile(-Inf, h)", OK),
    "predict_linear into infinity": query("predict_linear(h[1h], Inf)", OK),
    "smoothing by nothing": query("holt_winters(h[1h], 0, 2)", OK, EXECUTION, BAD),
    "histogram_quantile on junk": query("histogram_quantile(NaN, h)", OK),
    "histogram_quantile of everything": query(f"histogram_quantile(0.9, {ALL})", OK, EXECUTION),
    "clamp by infinity": query("clamp(h, Inf, -Inf)", OK),
    "round to 5e-324": query("round(h, 5e-324)", OK),
    "rounded to zero": query("round(h, 0)", OK),
    "dates beyond the calendar": query("year(vector(1e300)) + month(vector(-1e300))", OK),
    "vector of time to a power": query("vector(time())^vector(1e308)", OK),
    "modulo zero": query("h % 0", OK),
    "absent of everything": query(f"absent({ALL})", OK, EXECUTION),
    "sorted everything": query(f"sort_desc({ALL})", OK),
    "everything, a day": query(f"{ALL}[1d]", OK, EXECUTION),
    "everything against itself": query(f"{ALL} and {ALL} unless {ALL} or {ALL}", OK),
    # elsewhere than in a query
    "10,000 match[]": Case([("match[]", "h")] * 10_000, {BAD}, "series"),
    "100 wide match[]": Case([("match[]", ALL)] * 100, {OK}, "series"),
    "100 hostile match[]": Case([("match[]", f'{{a=~"(v{n}x+)+y"}}') for n in range(100)], {OK, TIMEOUT}, "series"),
    "a wide match[] of labels": Case([("match[]", ALL), ("start", "-1e15"), ("end", "1e15")], {OK}, "labels"),
    "a tree of 199": Case([("query", nested("(", ")", 199))], {OK, BAD}, "parse_query"),
    "a tree of 20,000": Case([("query", "+".join(["1"] * 20_000))], {BAD}, "parse_query"),
    "formatting 60,000 characters": Case([("query", "h" * 60_000)], {OK}, "format_query"),
    "exemplars of everything": Case([("query", ALL), *YEARS.items()], {OK}, "query_exemplars"),
    "500 parameters": Case([(f"p{n}", "x") for n in range(600)], {BAD}, "labels"),
    "one parameter many times": Case([("query", "1"), ("query", "2")], {BAD}),
}


class _Page(http.server.BaseHTTPRequestHandler):
    page = "# TYPE h gauge\n" + "".join(f'h{{a="v{number}",b="{number % 7}"}} {number}\n' for number in range(SERIES))

    def do_GET(self) -> None:
        body = self.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the test's own output is enough."""


@pytest.fixture(scope="module")
def page() -> Iterator[int]:
    """The port of an app with many series."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def door(toolbox: dict[str, Any], start_shared_front_door: Any, page: int) -> Any:
    nowhere = f"127.0.0.1:{toolbox['free_port']()}"
    door = start_shared_front_door(
        {
            "edge": {"workers": 1, "region": "ord"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
            "telemetry": {
                "scrape_interval": "1s",
                "query_timeout": f"{DEADLINE_S:g}s",
                "query_memory": f"{MEMORY_MIB}MiB",
            },
            "organizations": [{"slug": "hostile"}, {"slug": "neighbour"}],
            "apps": [
                {
                    "name": "many",
                    "organization": "hostile",
                    "hostnames": ["many.localhost"],
                    "metrics": {"port": page, "path": "/metrics"},
                    "instances": [{"address": nowhere}],
                },
                {
                    "name": "quiet",
                    "organization": "neighbour",
                    "hostnames": ["quiet.localhost"],
                    "instances": [{"address": nowhere}],
                },
            ],
        }
    )
    toolbox["eventually"](lambda: door.vector("count(h)", organization="hostile") == {(): SERIES})
    toolbox["eventually"](lambda: neighbours(door) == 200)
    door.memory_mib = memory_mib(door)
    return door


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def post(door: Any, case: Case) -> tuple[int, dict[str, Any]]:
    """Status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", door.telemetry, timeout=ANSWER_S)
    try:
        connection.request(
            "POST",
            f"/prometheus/hostile/api/v1/{case.endpoint}",
            urllib.parse.urlencode([(name, moment(value)) for name, value in case.parameters]),
            {
                "Authorization": f"Bearer {door.token('hostile')}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Connection": "close",
            },
        )
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def moment(text: str) -> str:
    return f"{time.time() - float(text[4:]):.3f}" if text.startswith("NOW-") else text


def neighbours(door: Any) -> int:
    """The status of another organization's question, whose answer must be right."""
    reply = door.fetch("/prometheus/neighbour/api/v1/query?query=fly_instance_up", token=door.token("neighbour"))
    if reply.status == 200:
        (one,) = reply.json()["data"]["result"]
        assert one["metric"]["app"] == "quiet"
    return int(reply.status)


def anonymous_mib(pid: int) -> float:
    """What a process holds itself; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def memory_mib(door: Any) -> float:
    pids = [pid for kind in ("telemetry", "query_worker", "edge_worker") for pid in door.children(kind)]
    return sum(anonymous_mib(pid) for pid in pids)


def checked(outcome: tuple[int, dict[str, Any]], case: Case) -> None:
    status, answer = outcome
    if answer["status"] == "success":
        assert (status, "success" in case.outcomes) == (200, True), str(answer)[:300]
        return
    assert answer["errorType"] in TYPES[status], answer
    assert answer["errorType"] in case.outcomes, str(answer)[:300]
    assert len(answer["error"]) < 600, "a sentence, not the question again"


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_question_harms_nobody(door: Any, pool: ThreadPoolExecutor, name: str) -> None:
    case = CASES[name]
    asking = pool.submit(post, door, case)
    while True:
        assert neighbours(door) == 200
        assert max(map(anonymous_mib, door.children("query_worker")), default=0.0) <= MEMORY_MIB
        if asking.done():
            break
    checked(asking.result(), case)


def test_a_query_that_is_no_utf_8_is_refused(door: Any) -> None:
    headers = {"Authorization": f"Bearer {door.token('hostile')}"}
    for body in (b"query=%ff%fe", b"query=\xff\xfe", b'{"query": "\xff"}', b"query=%ed%a0%80"):
        reply = door.fetch("/prometheus/hostile/api/v1/query", method="POST", data=body, headers=headers)
        assert (reply.status, reply.json()["errorType"]) == (400, "bad_data")


def test_a_body_that_unpacks_to_much_more_is_refused(door: Any) -> None:
    import gzip

    headers = {"Authorization": f"Bearer {door.token('hostile')}", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b"query=1&x=" + b"0" * 100_000_000)
    assert len(bomb) < 1 << 20
    reply = door.fetch("/prometheus/hostile/api/v1/query", method="POST", data=bomb, headers=headers)
    assert (reply.status, reply.json()["errorType"]) in ((413, "bad_data"), (400, "bad_data"))


def test_many_at_once_keep_no_neighbour_waiting(door: Any) -> None:
    slow = CASES["the slowest we know"]
    with ThreadPoolExecutor(12) as many:
        asking = [many.submit(post, door, slow) for _ in range(12)]
        while not all(one.done() for one in asking):
            assert neighbours(door) == 200
        for one in asking:
            checked(one.result(), slow)


def test_who_asks_and_leaves_keeps_no_worker_from_a_neighbour(door: Any) -> None:
    body = urllib.parse.urlencode(CASES["the slowest we know"].parameters).encode()
    head = (
        f"POST /prometheus/hostile/api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {door.token('hostile')}\r\n\r\n"
    ).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", door.telemetry)) as sock:
            sock.sendall(head + body)
        assert neighbours(door) == 200


def test_patterns_leave_no_memory_behind(door: Any) -> None:
    """RE2 keeps 16 MB of each of these as long as it is remembered."""
    for number in range(20):
        for expression in ('h{{a=~"{}"}}', 'label_replace(h, "b", "$1", "a", "{}")'):
            hostile = f"{number}" + "\\\\p{L}*" * 3_000
            checked(post(door, query(expression.format(hostile))), CASES["unicode classes"])
        assert max(map(anonymous_mib, door.children("query_worker"))) <= MEMORY_MIB * 3 / 4


def test_in_the_end_all_is_as_it_was(toolbox: dict[str, Any], door: Any) -> None:
    toolbox["eventually"](lambda: len(door.children("query_worker")) == 2)
    toolbox["eventually"](lambda: door.vector("count(h)", organization="hostile") == {(): SERIES})
    toolbox["eventually"](lambda: memory_mib(door) - door.memory_mib < GROWTH_MIB)
    assert door.process.poll() is None
    assert door.exposed_sum("flyproxy_child_restarts_total", "process").get(("telemetry",), 0) == 0
    assert door.vector("min_over_time(up[5m])", "app", organization="hostile") == {("many",): 1.0}
