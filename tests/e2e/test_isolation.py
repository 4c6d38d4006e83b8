"""One organization tries to look into two others, in every way we could think of, at a running front door. Whatever it
asks, no answer (status, headers, body) holds a name of theirs; and where it says such a name itself, the answer is the
same as for a name that nobody has."""

import base64
import gzip
import hashlib
import http.client
import http.server
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

ANSWER_S = 10.0
"""A bound against hanging, not a measure."""
NOBODY = {
    "quagga": "nobody",
    "Quagga": "Nobody",
    "QUAGGA": "NOBODY",
    "q-ledger": "n-nobody",
    "quagga_gold_total": "nobody_gold_total",
    "qshelf": "nshelf",
    "top7f3a91": "top000000",
    "5ec2e75ec2e75e": "00000000000000",
    "ledger.quagga.example": "nobody.nobody.example",
}
"""What only the neighbours have, and names of the same length that nobody has."""
SECRETS = ("quagga", "okapi", "ledger", "vault", "gold", "shelf", "7f3a91", "5ec2e7", "xylophone", "silver", "9d4b02")
PAGES = {
    "/personal": '# HELP own_things Mine.\n# TYPE own_things gauge\nown_things{kind="plain"} 1\n',
    "/quagga": (
        "# HELP quagga_gold_total The xylophone's gold.\n# TYPE quagga_gold_total counter\n"
        'quagga_gold_total{qshelf="top7f3a91"} 5\n'
    ),
    "/okapi": '# HELP okapi_silver Of the vault.\n# TYPE okapi_silver gauge\nokapi_silver{shelf="9d4b02"} 6\n',
}
OWN_METRIC = {"personal": "own_things", "quagga": "quagga_gold_total", "okapi": "okapi_silver"}
OPEN = ["/", "/metrics", "/meta/regions.json", "/-/ready", "/-/healthy", "/-/reload", "/grafana", "/grafana/fly.json"]
ENDPOINTS = [
    "api/v1/query?query=up",
    "api/v1/query_range?query=up&start=0&end=1&step=1",
    "api/v1/series?match[]=up",
    "api/v1/labels",
    "api/v1/label/app/values",
    "api/v1/metadata",
    "api/v1/rules",
    "api/v1/alerts",
    "api/v1/targets",
    "api/v1/scrape_pools",
    "api/v1/query_exemplars?query=up&start=0&end=1",
    "api/v1/format_query?query=up",
    "api/v1/parse_query?query=up",
    "api/v1/status/buildinfo",
    "api/v1/status/config",
    "api/v1/status/flags",
    "api/v1/status/runtimeinfo",
    "api/v1/status/tsdb",
    "api/v1/write",
    "federate?match[]=up",
    "",
    "api/v1/nothing",
]


class Reply(NamedTuple):
    status: int
    headers: tuple[tuple[str, str], ...]
    """Lower case, without the date."""
    body: bytes

    def text(self) -> str:
        return f"{self.status} {self.headers} {self.body.decode('utf-8', 'replace')}"


class _Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGES[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the test's own output is enough."""


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    """The port of the apps' own metrics."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def app(name: str, organization: str, port: int, pages: int, **instance: str) -> dict[str, Any]:
    return {
        "name": name,
        "organization": organization,
        "hostnames": [f"{name.rpartition('-')[2]}.{organization}.example"],
        "metrics": {"port": pages, "path": f"/{organization}"},
        "instances": [{"address": f"127.0.0.1:{port}", **instance}],
    }


@pytest.fixture(scope="module")
def door(toolbox: dict[str, Any], start_shared_front_door: Any, pages: int) -> Any:
    nowhere = toolbox["free_port"]()
    door = start_shared_front_door(
        {
            "edge": {"workers": 1, "region": "ord"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
            "telemetry": {"scrape_interval": "1s"},
            "organizations": [{"slug": "personal"}, {"slug": "quagga"}, {"slug": "okapi"}],
            "apps": [
                app("hello", "personal", nowhere, pages),
                app("q-ledger", "quagga", nowhere, pages, id="5ec2e75ec2e75e", region="nrt"),
                app("o-vault", "okapi", nowhere, pages, region="gru"),
            ],
        }
    )
    for organization, metric in OWN_METRIC.items():
        toolbox["eventually"](partial(has_samples, door, organization, metric))
    return door


def has_samples(door: Any, organization: str, metric: str) -> bool:
    return bool(door.query(f"count({metric})", organization=organization)["result"])


def ask(
    door: Any,
    path: str,
    *headers: tuple[str, str],
    method: str = "GET",
    body: bytes | None = None,
    token: str | None = None,
) -> Reply:
    """One request as it is written here, with the attacker's own token unless told otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", door.telemetry, timeout=ANSWER_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        names = {name.lower() for name, _ in headers}
        if "host" not in names:
            connection.putheader("Host", f"127.0.0.1:{door.telemetry}")
        if "authorization" not in names and token != "":
            connection.putheader("Authorization", f"Bearer {token or door.token()}")
        for header in headers:
            connection.putheader(*header)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        return _reply(reply.status, reply.getheaders(), reply.read())
    finally:
        connection.close()


def _reply(status: int, headers: list[tuple[str, str]], body: bytes) -> Reply:
    kept = sorted((name.lower(), value) for name, value in headers if name.lower() != "date")
    if ("content-encoding", "gzip") in kept:
        body = gzip.decompress(body)
        kept = [(name, value) for name, value in kept if name != "content-length"]
    return Reply(status, tuple(kept), body)


def raw(door: Any, request: bytes) -> bytes:
    """Everything that comes back for these bytes until the connection ends."""
    with socket.create_connection(("127.0.0.1", door.telemetry), timeout=ANSWER_S) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := sock.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


def shows_nothing(text: str, *, said: str = "") -> None:
    """No name of the neighbours, but for what the asker said itself."""
    found = [secret for secret in SECRETS if secret in text.lower() and secret not in said.lower()]
    assert not found, text


def nobodys(text: str) -> str:
    for secret, name in sorted(NOBODY.items(), key=lambda item: -len(item[0])):
        text = text.replace(secret, name)
    return text


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


# ---- what it asks without a name of theirs -----------------------------------------------------------------------

QUERIES = [
    '{__name__=~".+"}',
    '{__name__!=""}',
    '{app!="hello"}',
    '{app!~"hello|"}',
    '{organization!=""}',
    '{org=~".*",app=~".+"}',
    '{app=~".*"} or {instance=~".*"}',
    "up",
    "up unless on(app) up{app='hello'}",
    "group by (app) (up)",
    'count by (__name__) ({__name__=~".+"})',
    'count by (app, region, instance, host) ({__name__=~".+"})',
    'count_values("v", up)',
    'topk(1e6, {__name__=~".+"})',
    'label_replace(up, "other", "$1", "app", "(.*)")',
    'label_join(up, "all", "/", "app", "instance", "region")',
    'sort_by_label({__name__=~".+"}, "app")',
    'absent(up{app!="hello"})',
    'absent_over_time({app!="hello"}[1h])',
    '{__name__=~".+"} offset -1h',
    '{__name__=~".+"} @ end()',
    'last_over_time({__name__=~".+"}[1d])',
    '{__name__=~".+"}[1h]',
    'max_over_time(count({__name__=~".+"})[1h:10s])',
    "scalar(count(up))",
    "sum(flyproxy_queries_total)",
    "flyproxy_limit_reached_total",
    "process_resident_memory_bytes",
    'fly_edge_http_responses_count{app="_unmatched"}',
    'info(up, {__name__=~".+"})',
    "scrape_samples_scraped",
    'quantile_over_time(0.5, {app!="hello"}[5m])',
    "up{app=~'(?i)[^h].*'}",
]


@pytest.mark.parametrize("expression", QUERIES)
@pytest.mark.parametrize("ranged", [False, True], ids=["instant", "range"])
def test_no_query_shows_a_neighbour(door: Any, expression: str, ranged: bool) -> None:
    endpoint = "query_range?start=0&end=100000000000&step=36500d&" if ranged else "query?"
    reply = ask(door, f"/prometheus/personal/api/v1/{endpoint}query={quoted(expression)}")
    shows_nothing(reply.text())


WIDE = [
    "api/v1/series?match[]={__name__=~%22.%2B%22}",
    "api/v1/series?match[]={app!=%22hello%22}",
    "api/v1/series?match[]={__name__=~%22.%2B%22}&start=-1e15&end=1e15&limit=0",
    "api/v1/labels",
    "api/v1/labels?match[]={app!=%22hello%22}",
    "api/v1/label/__name__/values",
    "api/v1/label/app/values",
    "api/v1/label/instance/values",
    "api/v1/label/region/values",
    "api/v1/label/host/values",
    "api/v1/label/organization/values",
    "api/v1/label/job/values",
    "api/v1/label/__name__/values?match[]={app!=%22hello%22}&start=0&end=1e15",
    "api/v1/metadata",
    "api/v1/metadata?limit=100000",
    "api/v1/targets",
    "api/v1/targets?state=any",
    "api/v1/targets?state=dropped",
    "api/v1/scrape_pools",
    "api/v1/rules?type=alert",
    "api/v1/alerts",
    "api/v1/query_exemplars?query={__name__=~%22.%2B%22}&start=0&end=1e12",
    "api/v1/status/tsdb?limit=10000",
    "api/v1/status/config",
    "api/v1/status/flags",
    "api/v1/status/runtimeinfo",
    "federate?match[]={__name__=~%22.%2B%22}",
    "federate?match[]={app!=%22hello%22}",
    "federate?match[]={__name__=~%22.%2B%22}&match[]={instance=~%22.*%22}",
    "federate?match[]={}",
]


@pytest.mark.parametrize("path", WIDE)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_no_wide_question_shows_a_neighbour(door: Any, path: str, encoding: str) -> None:
    reply = ask(door, f"/prometheus/personal/{path}", ("Accept-Encoding", encoding))
    assert reply.status in (200, 400), reply
    shows_nothing(reply.text())


STEERING: list[tuple[str, str]] = [
    ("X-Scope-OrgID", "{}"),
    ("X-Org-Id", "{}"),
    ("X-Grafana-Org-Id", "2"),
    ("X-Prometheus-Organization", "{}"),
    ("X-Tenant", "{}"),
    ("Fly-Organization", "{}"),
    ("X-Forwarded-Prefix", "/prometheus/{}"),
    ("X-Forwarded-Host", "{}.example"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;host={}"),
    ("X-Original-URL", "/prometheus/{}/api/v1/labels"),
    ("X-Rewrite-URL", "/prometheus/{}/api/v1/labels"),
    ("X-HTTP-Method-Override", "PUT"),
    ("Referer", "http://127.0.0.1/prometheus/{}/"),
    ("Cookie", "organization={}; grafana_session=1"),
    ("Host", "{}.example"),
    ("Via", "1.1 {}"),
]


@pytest.mark.parametrize(("name", "value"), STEERING, ids=[name for name, _ in STEERING])
def test_no_header_leads_to_a_neighbour(door: Any, name: str, value: str) -> None:
    for path in ("api/v1/query?query=up", "api/v1/label/app/values", "api/v1/targets", "federate?match[]=up"):
        reply = ask(door, f"/prometheus/personal/{path}", (name, value.format("quagga")))
        assert reply.status == 200
        shows_nothing(reply.text())


PARAMETERS = [
    "org",
    "organization",
    "tenant",
    "X-Scope-OrgID",
    "extra_label",
    "extra_filters",
    "extra_filters[]",
    "db",
    "accountID",
    "__tenant_id__",
    "stats",
    "lookback_delta",
    "engine",
    "storeMatch[]",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_parameter_leads_to_a_neighbour(door: Any, name: str) -> None:
    for path in ("api/v1/query?query=count(up)&", "api/v1/series?match[]=up&", "federate?match[]=up&"):
        said = [f"{quoted(name)}={value}" for value in ("quagga", "organization%3Dquagga", "all")]
        for pair in said:
            reply = ask(door, f"/prometheus/personal/{path}{pair}")
            shows_nothing(reply.text())


# ---- what it asks by a name of theirs ----------------------------------------------------------------------------

PATHS = [
    *(f"/prometheus/quagga/{endpoint}" for endpoint in ENDPOINTS),
    "/prometheus/quagga",
    "/prometheus/personal/../quagga/api/v1/labels",
    "/prometheus/personal/%2e%2e/quagga/api/v1/labels",
    "/prometheus/personal/%2E./quagga/api/v1/labels",
    "/prometheus/personal%2F..%2Fquagga/api/v1/labels",
    "/prometheus/personal%252F..%252Fquagga/api/v1/labels",
    "/prometheus/personal%5C..%5Cquagga/api/v1/labels",
    "/prometheus/./quagga/api/v1/labels",
    "/prometheus//quagga/api/v1/labels",
    "//prometheus/quagga/api/v1/labels",
    "/prometheus/personal//../quagga/api/v1/labels",
    "/prometheus/personal/federate/../../quagga/federate?match[]=up",
    "/prometheus/personal/api/v1/../../../quagga/api/v1/labels",
    "/prometheus/personal/api/v1/label/../../../../quagga/api/v1/label/app/values",
    "/prometheus/personal/quagga/api/v1/labels",
    "/prometheus/personal,quagga/api/v1/labels",
    "/prometheus/personal|quagga/api/v1/labels",
    "/prometheus/quagga%00/api/v1/labels",
    "/prometheus/personal%00quagga/api/v1/labels",
    "/prometheus/quagga%20/api/v1/labels",
    "/prometheus/quagga./api/v1/labels",
    "/prometheus/quagga;personal/api/v1/labels",
    "/prometheus/QUAGGA/api/v1/labels",
    "/prometheus/Quagga/api/v1/labels",
    "/prometheus/%71uagga/api/v1/labels",
    "/prometheus/quagga%2F/api/v1/labels",
    "/prometheus/quagga%0d%0aX-Org:%20quagga/api/v1/labels",
    "/prometheus/quagga/api/v1/labels#/prometheus/personal",
    "/grafana/quagga.json",
    "/grafana/..%2Fquagga.json",
    "/meta/quagga.json",
    "/data/quagga",
    "/-/quagga",
    "/quagga",
    "/metrics/quagga",
    "/metrics?organization=quagga&app=q-ledger",
    "/prometheus/*/api/v1/labels?x=quagga",
]


def same_as_nobodys(door: Any, path: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"") -> Reply:
    """The answer, which is that for a name nobody has."""
    sent = body or None
    theirs = ask(door, path, *headers, method=method, body=sent)
    nobody = nobodys(body.decode()).encode() or None
    others = ask(door, nobodys(path), *((name, nobodys(value)) for name, value in headers), method=method, body=nobody)
    assert nobodys(theirs.text()) == others.text()
    return theirs


@pytest.mark.parametrize("path", PATHS)
def test_a_neighbours_path_is_nobodys(door: Any, path: str) -> None:
    outside = ("X-Forwarded-For", "203.0.113.9")  # else /metrics is this machine's to read
    reply = same_as_nobodys(door, path, outside)
    assert reply.status in (400, 401, 403, 404, 405), reply
    shows_nothing(reply.text(), said="quagga")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"])
def test_no_method_opens_a_neighbours_path(door: Any, method: str) -> None:
    for endpoint in ("api/v1/query", "api/v1/status/config", "federate"):
        reply = same_as_nobodys(door, f"/prometheus/quagga/{endpoint}", method=method, body=b"query=up")
        assert reply.status in (204, 401, 403, 405, 501), reply
        shows_nothing(reply.text(), said="quagga")


BY_NAME = [
    'api/v1/query?query={app="q-ledger"}',
    'api/v1/query?query=count({app="q-ledger"})&time=4',
    'api/v1/query?query=absent({app="q-ledger"})&time=4',
    "api/v1/query?query=quagga_gold_total",
    "api/v1/query?query=rate(quagga_gold_total[5m])",
    "api/v1/query?query=quagga_gold_total[1h]",
    'api/v1/query?query={qshelf="top7f3a91"}',
    'api/v1/query?query={instance="5ec2e75ec2e75e"}',
    'api/v1/query?query=up{app="q-ledger"} or up{instance="5ec2e75ec2e75e"}',
    'api/v1/query?query=fly_instance_up{app="q-ledger"}',
    "api/v1/query?query=sum(quagga_gold_total) by (",
    "api/v1/query?query=quagga_gold_total{",
    'api/v1/query?query=label_replace(up,"qshelf","$1","app","(")',
    "api/v1/query?query=quagga_gold_total * on(qshelf) group_left up",
    "api/v1/query?query=quagga_gold_total()",
    "api/v1/query_range?query=quagga_gold_total&start=0&end=10000000000&step=365d",
    "api/v1/series?match[]=quagga_gold_total",
    'api/v1/series?match[]={app="q-ledger"}',
    'api/v1/series?match[]={app="hello"}&match[]={app="q-ledger"}',
    "api/v1/labels?match[]=quagga_gold_total",
    "api/v1/label/qshelf/values",
    "api/v1/label/..%2F..%2F..%2F..%2Fquagga%2Fapi%2Fv1%2Flabel%2Fapp/values",
    "api/v1/label/app/values?match[]=quagga_gold_total",
    'api/v1/label/__name__/values?match[]={app="q-ledger"}',
    "api/v1/metadata?metric=quagga_gold_total",
    "api/v1/targets?scrapePool=q-ledger",
    "api/v1/rules?rule_group[]=quagga&file[]=quagga",
    'api/v1/rules?match[]={app="q-ledger"}',
    "api/v1/query_exemplars?query=quagga_gold_total&start=0&end=1e12",
    "api/v1/format_query?query=quagga_gold_total{app='q-ledger'}",
    "api/v1/format_query?query=quagga_gold_total{app='q-ledger'",
    "api/v1/parse_query?query=quagga_gold_total",
    "federate?match[]=quagga_gold_total",
    'federate?match[]={app="q-ledger"}',
    "api/v1/status/config?app=q-ledger&organization=quagga",
]


@pytest.mark.parametrize("path", BY_NAME)
def test_a_neighbours_name_is_nobodys(door: Any, path: str) -> None:
    escaped = urllib.parse.quote(path, safe="/?&=[]%")
    reply = same_as_nobodys(door, f"/prometheus/personal/{escaped}")
    shows_nothing(reply.text(), said=path + " quagga_gold_total")


# ---- with which tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_without_a_token_nobody_is_told_apart(door: Any, endpoint: str) -> None:
    replies = [
        ask(door, f"/prometheus/{organization}/{endpoint}", token="")
        for organization in ("personal", "quagga", "nobody", "_operator")
    ]
    assert len(set(replies)) == 1
    assert replies[0].status in (401, 404)
    shows_nothing(replies[0].text())


def forged(door: Any) -> dict[str, str]:
    """Authorization headers that are none, by how they were made."""
    own, theirs = door.token(), door.token("quagga")
    secret = own.rpartition("_")[2]
    basic = {name: base64.b64encode(value.encode()).decode() for name, value in {
        "organization": f"quagga:{secret}",
        "token as a name": f"{theirs}:",
        "two colons": f"a:{theirs}:",
    }.items()}  # fmt: skip
    return {
        "own secret, their name": f"Bearer fp_quagga_{secret}",
        "their secret's beginning": f"Bearer {theirs[:-1]}",
        "their secret and more": f"Bearer {theirs}0",
        "their secret upper case": f"Bearer {theirs.upper()}",
        "their hash": f"Bearer {hashlib.sha256(theirs.encode()).hexdigest()}",
        "both": f"Bearer {own},{theirs}",
        "both, spaced": f"Bearer {own} {theirs}",
        "nothing": "Bearer ",
        "a wildcard": "Bearer *",
        "null": "Bearer null",
        "no scheme": theirs,
        "digest": f"Digest {theirs}",
        "basic organization": f"Basic {basic['organization']}",
        "basic name": f"Basic {basic['token as a name']}",
        "basic two colons": f"Basic {basic['two colons']}",
        "long": f"Bearer {'f' * 8000}",
    }


FORGERIES = (
    "own secret, their name", "their secret's beginning", "their secret and more", "their secret upper case",
    "their hash", "both", "both, spaced", "nothing", "a wildcard", "null", "no scheme", "digest",
    "basic organization", "basic name", "basic two colons", "long",
)  # fmt: skip


@pytest.mark.parametrize("kind", FORGERIES)
def test_no_forged_token_opens_a_neighbours_door(door: Any, kind: str) -> None:
    header = ("Authorization", forged(door)[kind])
    theirs, nobody = (
        ask(door, f"/prometheus/{organization}/api/v1/labels", header) for organization in ("quagga", "nobody")
    )
    assert theirs == nobody
    assert theirs.status == 401
    shows_nothing(theirs.text())


@pytest.mark.parametrize("name", ["token", "access_token", "auth", "api_key", "Authorization"])
def test_a_token_elsewhere_than_in_its_header_is_none(door: Any, name: str) -> None:
    theirs = door.token("quagga")
    path = f"/prometheus/quagga/api/v1/labels?{name}={theirs}"
    for headers in ((), ((f"X-{name.title()}", theirs),), (("Cookie", f"{name}={theirs}"),)):
        assert ask(door, path, *headers, token="").status == 401
        assert ask(door, path, *headers).status == 403


def test_a_write_token_reads_no_neighbour_and_is_no_operators(door: Any) -> None:
    token = door.token("personal", "--write")
    outside = ("X-Forwarded-For", "203.0.113.9")
    for path in ("/prometheus/quagga/api/v1/labels", "/prometheus/_operator/api/v1/labels", "/metrics"):
        reply = ask(door, path, outside, token=token)
        assert reply.status == 403
        shows_nothing(reply.text())
    assert ask(door, "/-/reload", outside, method="POST", token=token).status == 403


@pytest.mark.parametrize("path", OPEN)
def test_what_is_open_to_strangers_shows_nobody(door: Any, path: str) -> None:
    outside = ("X-Forwarded-For", "203.0.113.9")
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        shows_nothing(ask(door, path, outside, method=method, body=b"").text())
        shows_nothing(ask(door, path, ("Host", "evil.example"), method=method, body=b"", token="").text())


# ---- what is left over -------------------------------------------------------------------------------------------


def smuggled(door: Any) -> dict[str, bytes]:
    """Bytes with a second request in them, or one that two readers read differently."""
    host = f"Host: 127.0.0.1:{door.telemetry}\r\n"
    own = f"{host}Authorization: Bearer {door.token()}\r\n"
    inner = f"GET /prometheus/quagga/api/v1/label/app/values HTTP/1.1\r\n{own}\r\n"
    post = f"POST /prometheus/personal/api/v1/labels HTTP/1.1\r\n{own}"
    get = "GET /prometheus/personal/api/v1/labels HTTP/1.1\r\n"
    made = {
        "pipelined": f"{get}{own}\r\n{inner}",
        "CL.TE": f"{post}Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        "TE.CL": f"{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{len(inner):x}\r\n{inner}\r\n0\r\n\r\n",
        "two lengths": f"{post}Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        "GET with a body": f"{get}{own}Content-Length: {len(inner)}\r\n\r\n{inner}",
        "absolute form": f"GET http://quagga.example/prometheus/quagga/api/v1/labels HTTP/1.1\r\n{own}\r\n",
        "no host": f"GET /prometheus/quagga/api/v1/labels HTTP/1.0\r\nAuthorization: Bearer {door.token()}\r\n\r\n",
        "two hosts": f"{get}{own}Host: quagga.example\r\n\r\n",
        "folded": f"{get}{host}Authorization: Bearer\r\n {door.token()}\r\n\r\n{inner}",
        "bare line feeds": f"{get}{own}\n{inner}".replace("\r\n", "\n"),
        "a space before the colon": f"{get}{host}Authorization : Bearer {door.token('quagga')}\r\n\r\n",
        "two tokens": f"{get}{own}Authorization: Bearer {door.token('quagga')}\r\n\r\n",
        "http 0.9": "GET /prometheus/quagga/api/v1/labels\r\n\r\n",
        "h2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "upgrade": f"{get}{own}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "connect": f"CONNECT quagga.example:443 HTTP/1.1\r\n{own}\r\n",
    }
    return {name: text.encode() for name, text in made.items()}


SMUGGLED = (
    "pipelined", "CL.TE", "TE.CL", "two lengths", "GET with a body", "absolute form", "no host", "two hosts", "folded",
    "bare line feeds", "a space before the colon", "two tokens", "http 0.9", "h2 preface", "upgrade", "connect",
)  # fmt: skip


@pytest.mark.parametrize("kind", SMUGGLED)
def test_nothing_is_smuggled_past_the_door(door: Any, kind: str) -> None:
    sent = smuggled(door)[kind]
    answer = raw(door, sent).decode("utf-8", "replace")
    shows_nothing(answer)
    assert "fp_" not in answer, "a token is never repeated"


def test_a_connection_does_not_remember_whose_it_was(door: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.telemetry, timeout=ANSWER_S)
    path = "/prometheus/quagga/api/v1/label/app/values"
    try:
        statuses = []
        for headers in (
            {"Authorization": f"Bearer {door.token('quagga')}"},
            {},
            {"Authorization": f"Bearer {door.token()}"},
        ):
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            body = reply.read().decode()
            statuses.append(reply.status)
            if reply.status != 200:
                shows_nothing(body)
    finally:
        connection.close()
    assert statuses == [200, 401, 403]


def test_the_same_question_of_two_organizations_is_two_questions(door: Any) -> None:
    """Whatever a query worker keeps from one is not the other's."""
    question = f"api/v1/query?query={quoted('count by (app) (up)')}"
    for _ in range(5):
        found = {}
        for organization in ("quagga", "personal", "okapi"):
            reply = ask(door, f"/prometheus/{organization}/{question}", token=door.token(organization))
            found[organization] = [one["metric"] for one in json.loads(reply.body)["data"]["result"]]
        assert found == {"quagga": [{"app": "q-ledger"}], "personal": [{"app": "hello"}], "okapi": [{"app": "o-vault"}]}


def test_counts_are_ones_own(door: Any) -> None:
    tables = json.loads(ask(door, "/prometheus/personal/api/v1/status/tsdb?limit=10000").body)["data"]
    series = json.loads(ask(door, "/prometheus/personal/api/v1/series?match[]={__name__!=%22%22}").body)["data"]
    assert tables["headStats"]["numSeries"] == len(series)
    assert sum(row["value"] for row in tables["seriesCountByMetricName"]) == len(series)
    assert {one.get("app") for one in series} == {"hello"}


def test_an_operator_may_look_everywhere_and_each_answer_is_of_the_organization_asked(door: Any) -> None:
    operator = door.token("_operator", "--operator")
    for organization, name in (("personal", "hello"), ("quagga", "q-ledger"), ("okapi", "o-vault")):
        reply = ask(door, f"/prometheus/{organization}/api/v1/label/app/values", token=operator)
        assert json.loads(reply.body)["data"] == [name]
        pools = ask(door, f"/prometheus/{organization}/api/v1/scrape_pools", token=operator)
        assert json.loads(pools.body)["data"] == {"scrapePools": [name]}


def test_the_operator_sees_that_somebody_tried(toolbox: dict[str, Any], door: Any) -> None:
    ask(door, "/prometheus/quagga/api/v1/labels")
    ask(door, "/prometheus/quagga/api/v1/labels", token="")
    toolbox["eventually"](lambda: set(door.exposed_sum("flyproxy_api_refused_total", "status")) >= {("401",), ("403",)})


def test_nothing_was_written_down(door: Any) -> None:
    """The log of the front door holds no token, and no name that a stranger asked for."""
    text = door.log.read_text()
    for organization in ("personal", "quagga"):
        assert door.token(organization) not in text
    assert "nobody" not in text
