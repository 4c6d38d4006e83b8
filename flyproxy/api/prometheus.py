"""/prometheus/<org>/api/v1/...: the token first, then the bounds, then the question to whoever answers queries."""

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import web
from aiohttp.multipart import BodyPartReader

import flyproxy
from flyproxy.api.access import organization_grant
from flyproxy.api.admission import Admission, Seats
from flyproxy.api.faults import ApiFault, bad_data
from flyproxy.api.parameters import BODY_BYTES_MAX, Parameters, body_pairs, form_pairs
from flyproxy.api.ports import Ports, QueryRequest
from flyproxy.api.render import data_json
from flyproxy.api.tokens import OPERATOR_ORGANIZATION, Scope, TokenFile
from flyproxy.clock import Clock
from flyproxy.config.resolved import Telemetry
from flyproxy.errors import NotReadyError

COMPATIBLE_VERSION = "2.55.0"
"""The Prometheus whose API this is, for clients that decide by a version."""
LABEL_NAME_BYTES_MAX = 1024
BODY_TIMEOUT_S = 30.0
"""For the whole body of a POST."""
GRACE_S = 3.0
"""What an answer may come after its deadline, so that the query worker's own sentence arrives: a last guard, the
deadline itself is kept by whoever answers."""


@dataclass(frozen=True, slots=True)
class _Asked:
    organization: str
    parameters: Parameters


class PrometheusHandlers:
    """The handlers of every organization; `telemetry` gives the configuration in force."""

    def __init__(self, ports: Ports, telemetry: Callable[[], Telemetry], tokens: TokenFile, clock: Clock) -> None:
        self._ports = ports
        self._telemetry = telemetry
        self._tokens = tokens
        self._clock = clock
        self._admission = Admission(lambda: telemetry().query_concurrency)
        self._seats = Seats(lambda: telemetry().query_workers)

    def routes(self) -> list[web.RouteDef]:
        base = "/prometheus/{organization}"
        both = [("query", self.query), ("query_range", self.query_range), ("series", self.series)]
        both.append(("labels", self.labels))
        routes = [web.get(f"{base}/api/v1/{name}", handler) for name, handler in both]
        routes += [web.post(f"{base}/api/v1/{name}", handler) for name, handler in both]
        return [
            *routes,
            web.get(f"{base}/api/v1/label/{{label}}/values", self.label_values),
            web.get(f"{base}/api/v1/status/buildinfo", self.buildinfo),
            web.get(base, self.root),
            web.get(f"{base}/", self.root),
        ]

    async def query(self, request: web.Request) -> web.StreamResponse:
        """One moment; now, when no time is given."""
        asked = await self._asked(request)
        parameters, now_ms = asked.parameters, self._clock.now_ms()
        return await self._answered(
            QueryRequest(
                "query",
                asked.organization,
                expression=parameters.expression(),
                time_ms=parameters.time_ms("time", now_ms),
                limit=parameters.limit(),
                metricsql=parameters.metricsql(),
                timeout_s=self._timeout_s(parameters),
            )
        )

    async def query_range(self, request: web.Request) -> web.StreamResponse:
        """Every step from start to end."""
        asked = await self._asked(request)
        parameters = asked.parameters
        start_ms, end_ms, step_ms = parameters.range_ms()
        return await self._answered(
            QueryRequest(
                "query_range",
                asked.organization,
                expression=parameters.expression(),
                start_ms=start_ms,
                end_ms=end_ms,
                step_ms=step_ms,
                limit=parameters.limit(),
                metricsql=parameters.metricsql(),
                timeout_s=self._timeout_s(parameters),
            )
        )

    async def series(self, request: web.Request) -> web.StreamResponse:
        """Label sets that match."""
        return await self._answered(self._metadata(QueryRequest("series", ""), await self._asked(request), needed=True))

    async def labels(self, request: web.Request) -> web.StreamResponse:
        """Label names."""
        return await self._answered(self._metadata(QueryRequest("labels", ""), await self._asked(request)))

    async def label_values(self, request: web.Request) -> web.StreamResponse:
        """Values of one label."""
        asked = await self._asked(request)
        name = request.match_info["label"]
        if len(name.encode("utf-8", "replace")) > LABEL_NAME_BYTES_MAX or not name.isprintable():
            raise bad_data(f"invalid label name: {name[:64]!r}")
        return await self._answered(self._metadata(QueryRequest("label_values", "", label=name), asked))

    async def buildinfo(self, request: web.Request) -> web.StreamResponse:
        """Which API this is. No `features`: with them Grafana takes it for Mimir."""
        self._organization(request)
        build = {
            "version": COMPATIBLE_VERSION,
            "revision": flyproxy.__version__,
            "branch": f"flyproxy-{flyproxy.__version__}",
            "buildUser": "",
            "buildDate": "",
            "goVersion": f"python{platform.python_version()}",
        }
        return web.Response(body=data_json(build), content_type="application/json")

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Some clients knock here first to see that somebody lives here."""
        self._organization(request)
        return web.Response(text="flyproxy: the Prometheus API of this organization is below api/v1/\n")

    def _metadata(self, kind: QueryRequest, asked: _Asked, *, needed: bool = False) -> QueryRequest:
        parameters = asked.parameters
        matches = parameters.matches(needed=needed)
        start_ms, end_ms = parameters.span_ms(self._clock.now_ms())
        return QueryRequest(
            kind.kind,
            asked.organization,
            label=kind.label,
            matches=matches,
            start_ms=start_ms,
            end_ms=end_ms,
            limit=parameters.limit(),
            timeout_s=self._timeout_s(parameters),
        )

    async def _asked(self, request: web.Request) -> _Asked:
        organization = self._organization(request)
        _, _, query = request.raw_path.partition("?")
        url = form_pairs(query, "URL")
        return _Asked(organization, Parameters(await _body_parameters(request), url))

    def _organization(self, request: web.Request) -> str:
        """The organization of the path, when the token may read it."""
        organization = request.match_info["organization"]
        grant = organization_grant(request, self._tokens, organization)
        if organization not in self._telemetry().organizations and organization != OPERATOR_ORGANIZATION:
            if grant.scope is Scope.OPERATOR:
                raise ApiFault(404, "not_found", "there is no such organization in the configuration")
            raise ApiFault(403, "forbidden", "this token's organization is not in the configuration any more")
        return organization

    def _timeout_s(self, parameters: Parameters) -> float:
        return parameters.timeout_s(self._telemetry().query_timeout_s)

    async def _answered(self, question: QueryRequest) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + question.timeout_s
        organization = question.organization
        try:
            async with (
                asyncio.timeout_at(deadline) as waiting,
                self._admission.turn(organization),
                self._seats.taken(organization),
            ):
                waiting.reschedule(deadline + GRACE_S)
                left_s = max(0.001, deadline - loop.time())
                answer = await self._ports.query.ask(replace(question, timeout_s=left_s))
        except TimeoutError:
            raise ApiFault(
                503,
                "timeout",
                f"query timed out after {question.timeout_s:g} s",
                limit="api_query_timeout",
            ) from None
        except NotReadyError as fault:
            raise ApiFault(503, "unavailable", str(fault), {"Retry-After": "1"}) from None
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")


async def _body_parameters(request: web.Request) -> list[tuple[str, str]]:
    """Parameters of a POST's body; a GET's body is not looked at."""
    if request.method != "POST":
        return []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if request.content_type == "multipart/form-data":
                return await _multipart_parameters(request)
            return body_pairs(await request.read())
    except TimeoutError:
        raise ApiFault(
            408, "timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s", limit="api_body_timeout"
        ) from None


async def _multipart_parameters(request: web.Request) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    left = BODY_BYTES_MAX
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name or part.filename:
                raise bad_data("a multipart body may hold plain fields only")
            value = await part.read()
            left -= len(value)
            if left < 0:
                raise ApiFault(
                    413, "bad_data", f"the body is larger than {BODY_BYTES_MAX} bytes", limit="api_body_bytes"
                )
            pairs.append((part.name, value.decode("utf-8")))
    except UnicodeDecodeError:
        raise bad_data("the body holds a value that is not UTF-8") from None
    except (ValueError, AssertionError):
        raise bad_data("the multipart body is broken") from None
    return pairs
