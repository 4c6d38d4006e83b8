"""The API from outside: routes, tokens, bounds, sentences. `api` is conftest's Api (test files cannot import it)."""

import asyncio
import base64
import io
import json
import logging
from typing import Any

import pytest

from flyproxy.api import asking
from flyproxy.api.parameters import BODY_BYTES_MAX, TIME_MS_BOUND, URL_BYTES_MAX
from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.tokens import Scope
from flyproxy.clock import ManualClock
from flyproxy.errors import NotReadyError

NOW_MS = ManualClock().now_ms()
BASE = "/prometheus/personal/api/v1"


async def refusal(response: Any, status: int, error_type: str) -> str:
    """The sentence of an error that must have this status and type."""
    answer = json.loads(await response.read())
    assert (response.status, answer["status"], answer["errorType"]) == (status, "error", error_type), answer
    assert response.content_type == "application/json"
    return str(answer["error"])


async def test_a_query_by_get_and_by_post_is_the_same_question(api: Any) -> None:
    headers = api.headers()
    await api.client.get(f"{api.url}{BASE}/query?query=1%2B1&time=4", headers=headers)
    await api.client.post(f"{api.url}{BASE}/query", data={"query": "1+1", "time": "4"}, headers=headers)
    assert api.runtime.asked == [QueryRequest("query", "personal", expression="1+1", time_ms=4000)] * 2


async def test_a_query_without_a_time_is_asked_for_now(api: Any) -> None:
    await api.client.get(f"{api.url}{BASE}/query?query=up", headers=api.headers())
    assert api.runtime.asked[0].time_ms == NOW_MS


async def test_vmalert_sends_its_parameters_in_the_url_of_a_json_post(api: Any) -> None:
    response = await api.client.post(
        f"{api.url}{BASE}/query_range?query=up&start=0&end=600&step=300s",
        data=b"{}",
        headers={**api.headers(), "Content-Type": "application/json"},
    )
    assert response.status == 200
    assert (api.runtime.asked[0].end_ms, api.runtime.asked[0].step_ms) == (600_000, 300_000)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "nonsense"])
async def test_a_form_is_read_whatever_its_type_is_called(api: Any, content_type: str) -> None:
    headers = {**api.headers(), "Content-Type": content_type}
    await api.client.post(f"{api.url}{BASE}/query", data=b"query=up&time=4", headers=headers)
    assert api.runtime.asked[0].expression == "up"


async def test_a_multipart_form_is_read_too(api: Any) -> None:
    import aiohttp

    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("query", 'up{ü="ö"}')
    await api.client.post(f"{api.url}{BASE}/query", data=form, headers=api.headers())
    assert api.runtime.asked[0].expression == 'up{ü="ö"}'


@pytest.mark.parametrize("body", [b"", b"--b\r\n", b"--b\r\n\r\nx", b"nothing"])
async def test_a_broken_multipart_form_is_refused(api: Any, body: bytes) -> None:
    headers = {**api.headers(), "Content-Type": "multipart/form-data; boundary=b"}
    response = await api.client.post(f"{api.url}{BASE}/query", data=body, headers=headers)
    assert response.status == 400


async def test_metadata_questions_carry_their_span_limit_and_selectors(api: Any) -> None:
    headers = api.headers()
    for path in ("series", "labels", "label/region/values"):
        url = f"{api.url}{BASE}/{path}?match[]=up&match[]=%7Ba%3D%22b%22%7D&start=1&end=2.5&limit=3"
        assert (await api.client.get(url, headers=headers)).status == 200
    assert [request.kind for request in api.runtime.asked] == ["series", "labels", "label_values"]
    assert api.runtime.asked[2] == QueryRequest(
        "label_values", "personal", matches=("up", '{a="b"}'), label="region", start_ms=1000, end_ms=2500, limit=3
    )
    await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    assert (api.runtime.asked[3].start_ms, api.runtime.asked[3].end_ms) == (-TIME_MS_BOUND, NOW_MS)


async def test_the_deadline_and_the_dialect_travel_with_the_question(api: Any) -> None:
    url = f"{api.url}{BASE}/query?query=up&timeout=1s&dialect=promql"
    await api.client.get(url, headers=api.headers())
    assert (api.runtime.asked[0].timeout_s, api.runtime.asked[0].metricsql) == (1.0, False)


async def test_the_answer_of_a_worker_is_passed_on_as_it_is(api: Any) -> None:
    async def failing(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(422, b'{"status":"error","errorType":"execution","error":"no"}')

    api.runtime.answer = failing
    response = await api.client.get(f"{api.url}{BASE}/query?query=up", headers=api.headers())
    assert await refusal(response, 422, "execution") == "no"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("query", 'invalid parameter "query": 1:1: parse error: no expression found in input'),
        ("query?query=up&time=x", 'invalid parameter "time": cannot parse "x" to a valid timestamp'),
        ("query?query=up&time=NaN", 'invalid parameter "time": "NaN" is not a moment; a timestamp must be finite'),
        ("query?query=%zz", 'the URL has a broken escape "%zz"'),
        ("query?query=%ff", "the URL holds a value that is not UTF-8"),
        ("query_range?query=up&start=0&end=1&step=0", 'invalid parameter "step": zero or negative query resolution'),
        ("series", "no match[] parameter provided"),
        ("label/%01/values", "invalid label name: '\\x01'"),
    ],
)
async def test_a_bad_request_has_its_sentence(api: Any, path: str, expected: str) -> None:
    from yarl import URL

    response = await api.client.get(URL(f"{api.url}{BASE}/{path}", encoded=True), headers=api.headers())
    assert (await refusal(response, 400, "bad_data")).startswith(expected)
    assert api.runtime.asked == []


async def test_buildinfo_names_a_version_and_no_features_and_refuses_post(api: Any) -> None:
    headers = api.headers()
    posted = await api.client.post(f"{api.url}{BASE}/status/buildinfo", headers=headers)
    assert posted.status == 405
    assert "GET" in posted.headers["Allow"]
    answer = json.loads(await (await api.client.get(f"{api.url}{BASE}/status/buildinfo", headers=headers)).read())
    assert answer["data"]["version"] == "2.55.0"
    assert "features" not in answer["data"]


async def test_a_wrong_method_is_told_the_right_ones(api: Any) -> None:
    response = await api.client.put(f"{api.url}{BASE}/query", headers=api.headers())
    assert await refusal(response, 405, "bad_data") == "the method is not one of GET, HEAD, POST"
    assert response.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("path", ["/nothing", "/prometheus", "/api/v1/query", "//", f"{BASE}/nothing"])
async def test_elsewhere_there_is_nothing(api: Any, path: str) -> None:
    assert await refusal(await api.client.get(api.url + path), 404, "not_found") == "there is no such endpoint here"


async def test_a_client_that_knocks_at_the_base_is_let_in(api: Any) -> None:
    for path in ("/prometheus/personal", "/prometheus/personal/"):
        assert (await api.client.get(api.url + path, headers=api.headers())).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "FlyV1", "Basic"])
async def test_each_scheme_brings_a_token(api: Any, scheme: str) -> None:
    token = api.tokens.mint("personal", Scope.READ)
    sent = base64.b64encode(f"anybody:{token}".encode()).decode() if scheme == "Basic" else token
    response = await api.client.get(f"{api.url}{BASE}/labels", headers={"Authorization": f"{scheme} {sent}"})
    assert response.status == 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, "no token: send `Authorization: Bearer TOKEN`; `flyproxy auth token` prints one"),
        ("", "the Authorization scheme is not one of Bearer, FlyV1 and Basic"),
        ("Digest abc", "the Authorization scheme is not one of Bearer, FlyV1 and Basic"),
        ("fp_personal_0", "the scheme is missing before the token: send"),
        ("Bearer", "the token after Bearer is empty: send"),
        ("Bearer a b", "what follows Bearer is more than one word; a token has no spaces"),
        ("Bearer fp_personal_0", "the token is not known here: "),
        ("FlyV1 fm2_abc,fm2_def", "the token is not known here: "),
        ("Basic ???", "what follows Basic is not base64 of name:password"),
        ("Basic", "nothing follows Basic: "),
        ("Basic " + base64.b64encode(b"token").decode(), "what follows Basic holds no colon; "),
        ("Basic " + base64.b64encode(b"token:").decode(), "the token after Basic is empty: "),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), "what follows Basic is not base64 of name:password"),
    ],
)
async def test_a_401_says_what_was_wrong_with_the_token(api: Any, authorization: str | None, expected: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    assert (await refusal(response, 401, "unauthorized")).startswith(expected)
    assert "Bearer" in response.headers["WWW-Authenticate"]


async def test_two_tokens_are_one_too_many(api: Any) -> None:
    headers = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    response = await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    assert await refusal(response, 401, "unauthorized") == "more than one Authorization header"


async def test_a_token_learns_nothing_of_other_organizations(api: Any) -> None:
    headers = api.headers("personal")
    answers = [
        await refusal(
            await api.client.get(f"{api.url}/prometheus/{name}/api/v1/{path}", headers=headers), 403, "forbidden"
        )
        for name in ("shop", "unknown", "_operator", "%00", "personal%2F")
        for path in ("labels", "status/buildinfo")
    ]
    assert set(answers) == {"this token is for another organization than the one in the path"}
    assert api.runtime.asked == []


async def test_an_operator_asks_every_organization(api: Any) -> None:
    headers = api.headers("_operator", Scope.OPERATOR)
    for name in ("personal", "shop", "_operator"):
        assert (await api.client.get(f"{api.url}/prometheus/{name}/api/v1/labels", headers=headers)).status == 200
    assert [request.organization for request in api.runtime.asked] == ["personal", "shop", "_operator"]
    response = await api.client.get(f"{api.url}/prometheus/unknown/api/v1/labels", headers=headers)
    assert "no such organization" in await refusal(response, 404, "not_found")


async def test_a_removed_organizations_token_is_refused(api: Any) -> None:
    response = await api.client.get(f"{api.url}/prometheus/gone/api/v1/labels", headers=api.headers("gone"))
    assert "not in the configuration any more" in await refusal(response, 403, "forbidden")


async def test_damaged_tokens_are_no_reason_to_let_anybody_in(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    headers = api.headers()
    api.tokens.path.write_text("damaged\n")
    response = await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    await refusal(response, 401, "unauthorized")
    api.tokens.path.unlink()
    api.tokens.path.mkdir()
    response = await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    assert str(api.tokens.path) not in await refusal(response, 503, "unavailable")
    assert [record.getMessage() for record in caplog.records] == [
        f"{api.tokens.path}:1: not a token's record; take the line out",
        f"cannot read {api.tokens.path}: it is not a file",
    ]


async def test_a_long_url_is_refused_with_the_mend(api: Any) -> None:
    response = await api.client.get(f"{api.url}{BASE}/query?query={'x' * URL_BYTES_MAX}", headers=api.headers())
    assert "send the parameters as a POST form" in await refusal(response, 414, "bad_data")
    assert api.runtime.limits == ["api_url_bytes"]


async def test_a_large_body_is_refused(api: Any) -> None:
    body = io.BytesIO(b"query=" + b"x" * BODY_BYTES_MAX)
    response = await api.client.post(f"{api.url}{BASE}/query", data=body, headers=api.headers())
    assert "the body is larger than 1048576 bytes" in await refusal(response, 413, "bad_data")
    assert api.runtime.limits == ["api_body_bytes"]


async def test_a_late_answer_is_a_timeout(api: Any) -> None:
    async def late(request: QueryRequest) -> QueryAnswer:
        raise TimeoutError

    api.runtime.answer = late
    response = await api.client.get(f"{api.url}{BASE}/query?query=up&timeout=2", headers=api.headers())
    assert await refusal(response, 503, "timeout") == "query timed out after 2 s"
    assert api.runtime.limits == ["api_query_timeout"]


async def test_nobody_there_to_answer_is_said_so(api: Any) -> None:
    async def absent(request: QueryRequest) -> QueryAnswer:
        raise NotReadyError("the query worker is starting")

    api.runtime.answer = absent
    response = await api.client.get(f"{api.url}{BASE}/query?query=up", headers=api.headers())
    assert await refusal(response, 503, "unavailable") == "the query worker is starting"


async def test_a_bug_shows_and_logs_nothing_of_the_question(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: QueryRequest) -> QueryAnswer:
        raise RuntimeError(f"bad {request.expression}")

    api.runtime.answer = broken
    headers = api.headers()
    with caplog.at_level(logging.DEBUG):
        response = await api.client.get(f"{api.url}{BASE}/query?query=secret_metric", headers=headers)
    assert await refusal(response, 500, "internal") == "an internal error; the operator's log has its place"
    assert "RuntimeError" in caplog.text
    assert "secret_metric" not in caplog.text
    assert headers["Authorization"].split()[1] not in caplog.text


async def test_queries_beyond_the_limit_wait_their_turn(api: Any) -> None:
    running, most = 0, 0
    go, two = asyncio.Event(), asyncio.Event()

    async def slow(request: QueryRequest) -> QueryAnswer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if most == 2:
            two.set()
        await go.wait()
        running -= 1
        return QueryAnswer(200, b"{}")

    api.runtime.answer = slow
    headers = api.headers()
    asking = [asyncio.create_task(api.client.get(f"{api.url}{BASE}/query?query=up", headers=headers)) for _ in range(6)]
    await two.wait()
    go.set()
    assert [response.status for response in await asyncio.gather(*asking)] == [200] * 6
    assert most == 2


async def test_a_client_that_goes_away_takes_its_question_back(api: Any) -> None:
    started, canceled = asyncio.Event(), asyncio.Event()

    async def slow(request: QueryRequest) -> QueryAnswer:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()
        raise AssertionError

    api.runtime.answer = slow
    asking = asyncio.create_task(api.client.get(f"{api.url}{BASE}/query?query=up", headers=api.headers()))
    await started.wait()
    asking.cancel()
    async with asyncio.timeout(5):
        await canceled.wait()


async def test_every_answer_is_safe_for_a_browser(api: Any) -> None:
    for path in ("/", "/nothing", "/metrics", f"{BASE}/labels"):
        response = await api.client.get(api.url + path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "flyproxy"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_waiting_for_a_turn_counts_against_the_deadline(api: Any) -> None:
    end, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def waits(request: QueryRequest) -> QueryAnswer:
        asked.release()
        await end.wait()
        return QueryAnswer(200, b"{}")

    api.runtime.answer = waits
    url, headers = f"{api.url}{BASE}/query?query=1", api.headers()
    first = [asyncio.create_task(api.client.get(url, headers=headers)) for _ in range(2)]
    for _ in first:
        await asked.acquire()
    response = await api.client.get(f"{url}&timeout=50ms", headers=headers)
    assert "timed out after 0.05 s" in await refusal(response, 503, "timeout")
    assert len(api.runtime.asked) == 2
    neighbour = asyncio.create_task(
        api.client.get(f"{api.url}/prometheus/shop/api/v1/query?query=1", headers=api.headers("shop"))
    )
    await asked.acquire()  # another organization's line is another line
    end.set()
    assert (await neighbour).status == 200
    await asyncio.gather(*first)
    assert (await api.client.get(url, headers=headers)).status == 200


@pytest.mark.parametrize("path", ["query", "series", "label/a/values", "status/buildinfo", "rules"])
async def test_options_name_the_methods_and_allow_no_other_origin(api: Any, path: str) -> None:
    response = await api.client.options(f"{api.url}{BASE}/{path}", headers={"Origin": "http://elsewhere.example"})
    assert (response.status, await response.read()) == (204, b"")
    assert {"GET", "HEAD", "OPTIONS"} <= set(response.headers["Allow"].split(", "))
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("write", "the remote-write receiver is not built yet"),
        ("read", "remote read is not built"),
        ("otlp/v1/metrics", "the OTLP receiver is not built"),
        ("admin/tsdb/snapshot", "the admin API is not built"),
    ],
)
async def test_what_is_not_built_says_so(api: Any, path: str, sentence: str) -> None:
    for organization in ("personal", "unknown"):
        url = f"{api.url}/prometheus/{organization}/api/v1/{path}"
        everybody: tuple[dict[str, str], ...] = ({}, api.headers(scope=Scope.WRITE))
        for headers in everybody:
            response = await api.client.post(url, data=b"\xff\x06\x00", headers=headers)
            assert (await refusal(response, 404, "not_found")).startswith(sentence)


async def test_a_large_answer_is_compressed_for_who_can_read_it(api: Any) -> None:
    for size, is_compressed in ((100, False), (4_000, True), (400_000, True)):
        body = b'{"status":"success","data":"%s"}' % (b"x" * size)

        async def large(request: QueryRequest, body: bytes = body) -> QueryAnswer:
            return QueryAnswer(200, body)

        api.runtime.answer = large
        headers = {**api.headers(), "Accept-Encoding": "gzip"}
        async with api.client.get(f"{api.url}{BASE}/query?query=1", headers=headers) as response:
            assert response.headers.get("Content-Encoding") == ("gzip" if is_compressed else None)
            assert await response.read() == body
            assert response.headers["Vary"] == "Accept-Encoding"
        async with api.client.get(
            f"{api.url}{BASE}/query?query=1", headers={**headers, "Accept-Encoding": "identity"}
        ) as response:
            assert "Content-Encoding" not in response.headers
            assert await response.read() == body


async def test_a_large_answer_is_its_organizations_until_it_is_read(api: Any) -> None:
    """Two run at once; two readers that do not read keep the third question waiting, and nobody else's."""
    body = b'{"status":"success","data":"%s"}' % (b"x" * 30_000_000)

    async def large(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(200, b"{}" if request.expression == "small" else body)

    api.runtime.answer = large
    url, headers = f"{api.url}{BASE}/query", {**api.headers(), "Accept-Encoding": "identity"}
    unread = [await api.client.get(f"{url}?query=large", headers=headers) for _ in range(2)]
    waiting = await api.client.get(f"{url}?query=small&timeout=100ms", headers=headers)
    assert "timed out" in await refusal(waiting, 503, "timeout")
    neighbours = f"{api.url}/prometheus/shop/api/v1/query?query=small"
    assert (await api.client.get(neighbours, headers=api.headers("shop"))).status == 200
    for response in unread:
        assert await response.read() == body
    assert (await api.client.get(f"{url}?query=small", headers=headers)).status == 200


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_large_answer_is_whole_and_a_head_of_it_has_its_length(api: Any, coding: str) -> None:
    body = b'{"status":"success","data":"%s"}' % (b"xyz" * 1_000_000)

    async def large(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(200, body)

    api.runtime.answer = large
    url, headers = f"{api.url}{BASE}/query?query=1", {**api.headers(), "Accept-Encoding": coding}
    for _ in range(2):
        answer = await api.client.get(url, headers=headers)
        head = await api.client.head(url, headers=headers)
        assert await answer.read() == body
        assert await head.read() == b""
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_bound_that_a_worker_met_is_counted(api: Any) -> None:
    async def beyond(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(422, b"{}", limit="query_samples")

    api.runtime.answer = beyond
    assert (await api.client.get(f"{api.url}{BASE}/query?query=1", headers=api.headers())).status == 422
    assert api.runtime.limits == ["query_samples"]


async def test_who_was_sent_away_is_counted(api: Any) -> None:
    for headers in ({"Authorization": "Bearer nobody"}, api.headers("shop"), api.headers()):
        await api.client.get(f"{api.url}{BASE}/labels", headers=headers)
    assert api.runtime.refusals == [401, 403]


async def test_answers_that_nobody_reads_do_not_pile_up(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "UNREAD_BYTES_MAX", 40_000_000)
    body = b'{"status":"success","data":"%s"}' % (b"x" * 30_000_000)

    async def large(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(200, body)

    api.runtime.answer = large
    url, headers = f"{api.url}{BASE}/query?query=1", {**api.headers(), "Accept-Encoding": "identity"}
    unread = await api.client.get(url, headers=headers)
    second = await api.client.get(url, headers=headers)
    assert "wait to be read" in await refusal(second, 429, "unavailable")
    assert api.runtime.limits == ["api_unread_bytes"]
    assert await unread.read() == body
    assert await (await api.client.get(url, headers=headers)).read() == body
