"""Wrong questions and wrong files: every bad token, query, time, step and path gets its own sentence and the right
status from a running front door, and none of them shows another organization's names."""

import base64
import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ANSWER_S = 10.0
"""A bound against hanging, not a measure."""
SECRETS = ("vault", "nrt", "5ec2e75ec2e75e")
"""Names only the organization `rival` may read: its app, region and instance."""
API = "/prometheus/personal/api/v1/"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def fault(self) -> tuple[int, str, str]:
        """(status, errorType, sentence) of Prometheus' error JSON."""
        answer = json.loads(self.body)
        assert answer["status"] == "error", answer
        assert self.headers["content-type"].startswith("application/json")
        return self.status, answer["errorType"], answer["error"]


@pytest.fixture(scope="module")
def door(toolbox: dict[str, Any], start_shared_front_door: Any) -> Any:
    nowhere = toolbox["free_port"]()
    door = start_shared_front_door(
        {
            "edge": {"workers": 2, "region": "ord"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
            "telemetry": {"query_timeout": "2s"},
            "organizations": [{"slug": "personal"}, {"slug": "rival"}],
            "apps": [
                {"name": "hello", "hostnames": ["hello.localhost"], "instances": [{"address": f"127.0.0.1:{nowhere}"}]},
                {
                    "name": "vault",
                    "organization": "rival",
                    "hostnames": ["vault.localhost"],
                    "instances": [{"address": f"127.0.0.1:{nowhere}", "region": "nrt", "id": SECRETS[2]}],
                },
            ],
        }
    )
    # Both organizations have samples, and each sees its own.
    own = "fly_instance_up"
    toolbox["eventually"](lambda: door.vector(f"count by (app) ({own})", "app") == {("hello",): 1})
    there = toolbox["eventually"](lambda: door.vector(own, "app", "region", "instance", organization="rival"))
    assert list(there) == [SECRETS]
    return door


def ask(
    door: Any, path: str, *headers: tuple[str, str], method: str = "GET", body: bytes | None = None, host: str = ""
) -> Reply:
    """One request as it is written here; says nothing by itself but Host and Content-Length."""
    connection = http.client.HTTPConnection("127.0.0.1", door.telemetry, timeout=ANSWER_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{door.telemetry}")
        for header in headers:
            connection.putheader(*header)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def query_path(endpoint: str, organization: str = "personal", **parameters: str) -> str:
    return f"/prometheus/{organization}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"


def no_secrets(reply: Reply) -> None:
    text = (reply.body.decode() + repr(reply.headers)).lower()
    assert not [secret for secret in SECRETS if secret in text], text


UP = query_path("query", query="up")
BASIC_NO_COLON = "Basic " + base64.b64encode(b"nothing").decode()
BASIC_WRONG = "Basic " + base64.b64encode(b"me:fp_personal_00").decode()
BAD_TOKENS = {
    "none": ([], "no token"),
    "unknown": (["Bearer fp_personal_00"], "not known here"),
    "unknown-flyv1": (["FlyV1 fm2_00"], "not known here"),
    "unknown-password": ([BASIC_WRONG], "not known here"),
    "no-scheme": (["fp_personal_00"], "the scheme is missing"),
    "wrong-scheme": (['Digest username="x"'], "not one of Bearer, FlyV1 and Basic"),
    "no-token": (["Bearer"], "is empty"),
    "two-words": (["Bearer fp_personal_00 fp_rival_00"], "more than one word"),
    "no-base64": (["Basic fp_personal_00!"], "not base64"),
    "no-colon": ([BASIC_NO_COLON], "no colon"),
    "two-headers": (["Bearer fp_personal_00", "Bearer fp_personal_01"], "more than one Authorization"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_bad_token_is_told_what_is_wrong_with_it(kind: str, door: Any) -> None:
    sent, sentence = BAD_TOKENS[kind]
    reply = ask(door, UP, *(("Authorization", value) for value in sent))
    status, error_type, error = reply.fault()
    assert (status, error_type) == (401, "unauthorized")
    assert sentence in error
    assert "Bearer" in reply.headers["www-authenticate"]
    assert "fp_" not in error, "a token is never repeated"
    no_secrets(reply)


def test_every_form_of_a_good_token_is_taken(door: Any) -> None:
    token = door.token()
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()
    for value in (f"Bearer {token}", f"bearer  {token}", f"FlyV1 {token}", f"Basic {basic}"):
        assert ask(door, UP, ("Authorization", value)).status == 200


@pytest.mark.parametrize("endpoint", ["query?query=up", "labels", "series?match[]=up", "label/app/values", "nothing"])
def test_another_organizations_token_is_refused_and_learns_nothing(endpoint: str, door: Any) -> None:
    """Not even whether the organization, or the endpoint, exists."""
    for organization in ("rival", "_operator", "no-such-organization"):
        path = f"/prometheus/{organization}/api/v1/{endpoint}"
        reply = ask(door, path, bearer(door.token()))
        if endpoint == "nothing":
            assert reply.fault()[:2] == (404, "not_found")
        else:
            assert reply.fault()[:2] == (403, "forbidden")
        no_secrets(reply)


def test_the_operators_token_may_ask_everywhere(door: Any) -> None:
    operator = door.token("_operator", "--operator")
    for organization in ("personal", "rival", "_operator"):
        assert ask(door, query_path("query", organization, query="up"), bearer(operator)).status == 200
    reply = ask(door, query_path("query", "no-such", query="up"), bearer(operator))
    assert reply.fault()[:2] == (404, "not_found")


def test_a_revoked_token_is_refused_at_once(door: Any) -> None:
    token = door.token("personal", "--write")
    assert ask(door, UP, bearer(token)).status == 200
    command = [sys.executable, "-m", "flyproxy", "auth", "revoke", token, "-c", str(door.config)]
    subprocess.run(command, check=True, capture_output=True)
    assert ask(door, UP, bearer(token)).fault()[0] == 401


FROM_ELSEWHERE: list[tuple[str, list[tuple[str, str]]]] = [
    ("evil.example", []),
    ("", [("X-Forwarded-For", "10.0.0.1")]),
    ("", [("Forwarded", "for=10.0.0.1")]),
    ("", [("Fly-Client-IP", "10.0.0.1")]),
    ("", [("Origin", "http://evil.example")]),
    ("", [("Sec-Fetch-Site", "cross-site")]),
]


@pytest.mark.parametrize(("host", "headers"), FROM_ELSEWHERE)
@pytest.mark.parametrize(("path", "method"), [("/-/reload", "POST"), ("/metrics", "GET")])
def test_what_only_looks_like_loopback_needs_an_operators_token(
    path: str, method: str, host: str, headers: list[tuple[str, str]], door: Any
) -> None:
    def status(*more: tuple[str, str]) -> int:
        reply = ask(door, path, *headers, *more, method=method, host=host)
        if reply.status in (401, 403):
            assert reply.fault()[1] == {401: "unauthorized", 403: "forbidden"}[reply.status]
            no_secrets(reply)
        return reply.status

    assert status() == 401
    assert status(bearer(door.token())) == 403
    assert status(bearer(door.token("rival", "--write"))) == 403
    assert status(bearer(door.token("_operator", "--operator"))) == 200


SLOW = "%2B".join(["quantile_over_time(0.9,quantile_over_time(0.9,vector(time())[1h:1s])[1h:1s])"] * 20)
"""Seconds of work."""
BAD_QUESTIONS: dict[str, tuple[str, int, str, str]] = {
    "no-query": ("query", 400, "bad_data", "no expression found"),
    "empty-query": ("query?query=", 400, "bad_data", "no expression found"),
    "unclosed": ("query?query=sum(", 400, "bad_data", "unclosed left parenthesis"),
    "unknown-function": ("query?query=rat(up)", 400, "bad_data", "unknown function"),
    "type-error": ("query?query=sum(1)", 400, "bad_data", "expected type instant vector"),
    "no-window": ("query?query=rate(up)&dialect=promql", 400, "bad_data", "rate(up[5m])"),
    "bad-window": ("query?query=up[5x]", 400, "bad_data", "parse error"),
    "zero-window": ("query?query=up[0s]", 400, "bad_data", "duration must be greater than 0"),
    "bad-regex": ("query?query=up{app=~%22(%22}", 400, "bad_data", "missing"),
    "empty-selector": ("query?query={}", 400, "bad_data", "at least one non-empty matcher"),
    "deep": ("query?query=" + "(" * 300 + "1" + ")" * 300, 400, "bad_data", "deep"),
    "long": ("query?query=" + "1%2B" * 15_000 + "1", 400, "bad_data", "parse error"),
    "bad-time": ("query?query=1&time=noon", 400, "bad_data", 'invalid parameter "time": cannot parse "noon"'),
    "nan-time": ("query?query=1&time=NaN", 400, "bad_data", "must be finite"),
    "infinite-time": ("query?query=1&time=Inf", 400, "bad_data", "must be finite"),
    "bad-date": ("query?query=1&time=2026-02-30T00:00:00Z", 400, "bad_data", "valid timestamp"),
    "time-twice": ("query?query=1&time=1&time=2", 400, "bad_data", "more than once"),
    "bad-timeout": ("query?query=1&timeout=soon", 400, "bad_data", 'invalid parameter "timeout"'),
    "no-timeout": ("query?query=1&timeout=0", 400, "bad_data", "no time at all"),
    "bad-limit": ("query?query=1&limit=few", 400, "bad_data", 'invalid parameter "limit"'),
    "negative-limit": ("query?query=1&limit=-1", 400, "bad_data", "non-negative"),
    "bad-dialect": ("query?query=1&dialect=sql", 400, "bad_data", 'invalid parameter "dialect"'),
    "bad-escape": ("query?query=%zz", 400, "bad_data", "broken escape"),
    "not-utf-8": ("query?query=%ff", 400, "bad_data", "not UTF-8"),
    "no-start": ("query_range?query=1&end=1&step=1", 400, "bad_data", 'invalid parameter "start"'),
    "bad-end": ("query_range?query=1&start=0&end=y&step=1", 400, "bad_data", 'invalid parameter "end"'),
    "backwards": ("query_range?query=1&start=5&end=1&step=1", 400, "bad_data", "must not be before start"),
    "no-step": ("query_range?query=1&start=0&end=1", 400, "bad_data", 'invalid parameter "step"'),
    "zero-step": ("query_range?query=1&start=0&end=1&step=0", 400, "bad_data", "zero or negative"),
    "negative-step": ("query_range?query=1&start=0&end=1&step=-5", 400, "bad_data", "zero or negative"),
    "tiny-step": ("query_range?query=1&start=0&end=1&step=0.0001", 400, "bad_data", "one millisecond"),
    "nan-step": ("query_range?query=1&start=0&end=1&step=NaN", 400, "bad_data", "must be finite"),
    "huge-step": ("query_range?query=1&start=0&end=1&step=1e30", 400, "bad_data", "overflows int64"),
    "too-many-points": ("query_range?query=1&start=0&end=11001&step=1", 400, "bad_data", "11,000 points"),
    "too-many-inner-points": ("query?query=max_over_time(vector(1)[3y:1s])", 422, "execution", ""),
    "matrix-over-a-range": (
        "query_range?query=up[5m]&start=0&end=1&step=1&dialect=promql",
        400,
        "bad_data",
        "must be Scalar",
    ),
    "no-match": ("series", 400, "bad_data", "no match[]"),
    "bad-match": ("series?match[]=sum(up)", 400, "bad_data", 'invalid parameter "match[]"'),
    "match-of-nothing": ("series?match[]={}", 400, "bad_data", "at least one non-empty matcher"),
    "too-many-matches": ("series?" + "match[]=up&" * 101, 400, "bad_data", "at most 100"),
    "too-many-parameters": ("labels?" + "a[]=1&" * 513, 400, "bad_data", "at most 512"),
    "bad-label-match": ("labels?match[]={", 400, "bad_data", 'invalid parameter "match[]"'),
    "long-label": ("label/" + "a" * 1025 + "/values", 400, "bad_data", "invalid label name"),
    "long-url": ("query?query=" + "1" * 66_000, 414, "bad_data", "send the parameters as a POST form"),
    "no-such-endpoint": ("quary?query=1", 404, "not_found", "no such endpoint"),
    "slow": (f"query?timeout=100ms&query={SLOW}", 503, "timeout", "timed out"),
}


@pytest.mark.parametrize("kind", BAD_QUESTIONS)
def test_a_bad_question_is_told_what_is_wrong_with_it(kind: str, door: Any) -> None:
    path, status, error_type, sentence = BAD_QUESTIONS[kind]
    reply = ask(door, API + path, bearer(door.token()))
    found = reply.fault()
    assert found[:2] == (status, error_type), found
    assert sentence in found[2], found
    assert len(found[2]) < 400, "a sentence, not the question again"
    no_secrets(reply)


FORM = ("Content-Type", "application/x-www-form-urlencoded")
JSON = ("Content-Type", "application/json")
BAD_BODIES: dict[str, tuple[tuple[str, str], bytes, int, str]] = {
    "too-large": (FORM, b"query=" + b"1" * 1_048_576, 413, "larger than 1048576 bytes"),
    "not-utf-8": (FORM, b"query=\xff", 400, "the body is not UTF-8"),
    "broken-json": (JSON, b'{"query": ', 400, "begins like JSON"),
    "json-list": (JSON, b'["up"]', 400, "must be an object"),
    "json-of-objects": (JSON, b'{"query": {"a": 1}}', 400, 'invalid parameter "query"'),
    "broken-multipart": (("Content-Type", "multipart/form-data; boundary=x"), b"--y\r\n\r\n", 400, "multipart"),
    "multipart-without-boundary": (("Content-Type", "multipart/form-data"), b"--y\r\n\r\n", 400, "multipart"),
    "nothing": (FORM, b"", 400, "no expression found"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_bad_body_is_told_what_is_wrong_with_it(kind: str, door: Any) -> None:
    content_type, body, status, sentence = BAD_BODIES[kind]
    reply = ask(door, f"{API}query", bearer(door.token()), content_type, method="POST", body=body)
    found = reply.fault()
    assert found[:2] == (status, "bad_data"), found
    assert sentence in found[2], found


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", f"{API}query", "GET"),
        ("PUT", f"{API}series", "POST"),
        ("POST", f"{API}status/buildinfo", "GET"),
        ("POST", f"{API}label/app/values", "GET"),
        ("POST", "/metrics", "GET"),
        ("GET", "/-/reload", "POST"),
        ("PATCH", "/-/ready", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: str, door: Any) -> None:
    reply = ask(door, path, bearer(door.token()), method=method, body=b"")
    status, error_type, error = reply.fault()
    assert (status, error_type) == (405, "bad_data")
    assert allowed in reply.headers["allow"].split(", ")
    assert allowed in error


@pytest.mark.parametrize("path", ["/nowhere", "/prometheus", "/prometheus/personal/api/v2/query", "/-/quit", "/%2e%2e"])
def test_an_unknown_path_is_no_endpoint(path: str, door: Any) -> None:
    reply = ask(door, path, bearer(door.token()))
    assert reply.fault()[:2] == (404, "not_found")
    no_secrets(reply)


ANSWERS = [
    query_path("query", query='{__name__!=""}'),
    query_path("query", query='{app=~"va.*"}'),
    query_path("query", query="count by (app, region, instance) ({__name__=~'.+'})"),
    query_path("query", query="label_replace(up, 'x', '$1', 'app', '(.*)')"),
    query_path("query", query="absent(fly_instance_up{region=~'n.t'})"),
    query_path("series", **{"match[]": '{__name__=~".+"}'}),
    query_path("series", **{"match[]": '{region=~"n.*"}'}),
    query_path("labels"),
    query_path("label/app/values"),
    query_path("label/region/values"),
    query_path("label/instance/values"),
    query_path("label/__name__/values"),
    query_path("status/buildinfo"),
    "/prometheus/personal",
]


@pytest.mark.parametrize("path", ANSWERS)
def test_no_answer_shows_another_organizations_names(path: str, door: Any) -> None:
    reply = ask(door, path, bearer(door.token()))
    assert reply.status == 200
    no_secrets(reply)


def test_what_goes_wrong_with_their_query_is_not_said_to_us(door: Any) -> None:
    """A fault that names series (many-to-many) names only ours, even when theirs would clash too."""
    query = "fly_edge_error_count * on () fly_instance_up"
    for expression in (query, f"count({query})", "fly_instance_up + on () group_left fly_edge_tcp_connects_count"):
        reply = ask(door, query_path("query", query=expression, time=str(time.time())), bearer(door.token()))
        assert reply.status in (200, 422), reply.body
        no_secrets(reply)


def test_a_metric_of_the_faults_shows_that_bounds_were_reached(door: Any, toolbox: dict[str, Any]) -> None:
    ask(door, f"{API}query_range?query=1&start=0&end=11001&step=1", bearer(door.token()))
    reached = toolbox["eventually"](lambda: door.exposed_sum("flyproxy_limit_reached_total", "limit"))
    assert reached[("api_points",)] >= 1


BAD_FILES = {
    "unknown-key": ("apps:\n  - name: hello\n    instnces: []\n", 3, 5, "instnces", "did you mean"),
    "bad-port": ("listeners:\n  - bind: 127.0.0.1:99999\n", 2, 11, "listeners[0].bind", "99999"),
    "bad-duration": ("timeouts:\n  head: soon\n", 2, 9, "timeouts.head", "soon"),
    "bad-yaml": ("apps: [\n", 2, 1, "", ""),
    "tab": ("edge:\n\tregion: ord\n", 2, 1, "", "tab"),
    "not-built": ("rule_files: [a.yml]\n", 1, 13, "rule_files", "not built"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("verb", [("run", "-c"), ("check",)], ids=["run", "check"])
def test_a_bad_file_is_refused_at_its_place(verb: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    text, line, column, where, sentence = BAD_FILES[kind]
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = subprocess.run([sys.executable, "-m", "flyproxy", *verb, str(file)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"{file}:{line}:{column}: error: " in said
    assert where in said
    assert sentence in said
    assert "Traceback" not in said


def test_every_fault_of_a_file_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("".join(text for text, *_ in (BAD_FILES["unknown-key"], BAD_FILES["bad-duration"])))
    done = subprocess.run([sys.executable, "-m", "flyproxy", "check", str(file)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert [f"{file}:{place}: error" in said for place in ("3:5", "5:9")] == [True, True], said


def test_the_front_door_outlives_all_these_questions(door: Any) -> None:
    steps: list[Callable[[], bool]] = [
        lambda: door.process.poll() is None,
        lambda: door.vector("fly_instance_up", "app") == {("hello",): 1},
        lambda: sum(door.exposed_sum("flyproxy_child_restarts_total").values()) == 0,
    ]
    assert [step() for step in steps] == [True] * len(steps)
