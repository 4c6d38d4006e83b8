"""/prometheus/<org>/api/v1/: the questions about samples, each checked here and answered by a query worker; and
/prometheus/<org>/federate, which is one of them.
"""

from aiohttp import web

from flyproxy.api.asking import Asked, Asking
from flyproxy.api.faults import bad_data
from flyproxy.api.negotiation import joined
from flyproxy.api.ports import QueryKind, QueryRequest

LABEL_NAME_BYTES_MAX = 1024


class PrometheusHandlers:
    """The handlers of every organization."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def routes(self) -> list[web.RouteDef]:
        base = "/prometheus/{organization}"
        both = {
            "query": self.query,
            "query_range": self.query_range,
            "series": self.series,
            "labels": self.labels,
            "query_exemplars": self.query_exemplars,
            "format_query": self.format_query,
            "parse_query": self.parse_query,
        }
        routes = [web.get(f"{base}/api/v1/{name}", handler) for name, handler in both.items()]
        routes += [web.post(f"{base}/api/v1/{name}", handler) for name, handler in both.items()]
        return [
            *routes,
            web.get(f"{base}/api/v1/label/{{label}}/values", self.label_values),
            web.get(f"{base}/federate", self.federate),
            web.get(base, self.root),
            web.get(f"{base}/", self.root),
        ]

    async def query(self, request: web.Request) -> web.StreamResponse:
        """One moment; now, when no time is given."""
        asked = await self._asking.asked(request)
        parameters, now_ms = asked.parameters, self._asking.clock.now_ms()
        return await self._asking.answer(
            request,
            QueryRequest(
                "query",
                asked.organization,
                expression=parameters.expression(),
                time_ms=parameters.time_ms("time", now_ms),
                limit=parameters.limit(),
                metricsql=parameters.metricsql(),
                timeout_s=self._asking.timeout_s(parameters),
            ),
        )

    async def query_range(self, request: web.Request) -> web.StreamResponse:
        """Every step from start to end."""
        asked = await self._asking.asked(request)
        parameters = asked.parameters
        start_ms, end_ms, step_ms = parameters.range_ms()
        return await self._asking.answer(
            request,
            QueryRequest(
                "query_range",
                asked.organization,
                expression=parameters.expression(),
                start_ms=start_ms,
                end_ms=end_ms,
                step_ms=step_ms,
                limit=parameters.limit(),
                metricsql=parameters.metricsql(),
                timeout_s=self._asking.timeout_s(parameters),
            ),
        )

    async def series(self, request: web.Request) -> web.StreamResponse:
        """Label sets that match."""
        return await self._selected(request, "series", needed=True)

    async def labels(self, request: web.Request) -> web.StreamResponse:
        """Label names."""
        return await self._selected(request, "labels")

    async def label_values(self, request: web.Request) -> web.StreamResponse:
        """Values of one label."""
        return await self._selected(request, "label_values")

    async def query_exemplars(self, request: web.Request) -> web.StreamResponse:
        """None are kept; what is asked is checked all the same."""
        asked = await self._asking.asked(request)
        parameters = asked.parameters
        start_ms, end_ms = parameters.time_ms("start"), parameters.time_ms("end")
        if end_ms < start_ms:
            raise bad_data("end timestamp must not be before start timestamp")
        return await self._parsed(request, asked, "query_exemplars")

    async def format_query(self, request: web.Request) -> web.StreamResponse:
        """The expression as this front door would write it."""
        return await self._parsed(request, await self._asking.asked(request), "format_query")

    async def parse_query(self, request: web.Request) -> web.StreamResponse:
        """The expression's tree."""
        return await self._parsed(request, await self._asking.asked(request), "parse_query")

    async def federate(self, request: web.Request) -> web.StreamResponse:
        """The newest sample of every series that matches, as a page for another Prometheus to scrape."""
        asked = await self._asking.asked(request)
        known = self._asking.ports.targets.metadata(asked.organization)
        return await self._asking.answer(
            request,
            QueryRequest(
                "federate",
                asked.organization,
                matches=asked.parameters.matches(needed=True),
                time_ms=self._asking.clock.now_ms(),
                timeout_s=self._asking.timeout_s(asked.parameters),
                types=tuple((name, metadata.type) for name, metadata in known.items()),
                utf8_names="escaping=allow-utf-8" in joined(request, "Accept").replace(" ", "").lower(),
            ),
        )

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Some clients knock here first to see that somebody lives here."""
        self._asking.organization(request)
        return web.Response(text="flyproxy: the Prometheus API of this organization is below api/v1/\n")

    async def _selected(self, request: web.Request, kind: QueryKind, *, needed: bool = False) -> web.StreamResponse:
        asked = await self._asking.asked(request)
        parameters = asked.parameters
        label = request.match_info.get("label", "")
        if len(label.encode("utf-8", "replace")) > LABEL_NAME_BYTES_MAX or not label.isprintable():
            raise bad_data(f"invalid label name: {label[:64]!r}")
        matches = parameters.matches(needed=needed)
        start_ms, end_ms = parameters.span_ms(self._asking.clock.now_ms())
        return await self._asking.answer(
            request,
            QueryRequest(
                kind,
                asked.organization,
                label=label,
                matches=matches,
                start_ms=start_ms,
                end_ms=end_ms,
                limit=parameters.limit(),
                timeout_s=self._asking.timeout_s(parameters),
            ),
        )

    async def _parsed(self, request: web.Request, asked: Asked, kind: QueryKind) -> web.StreamResponse:
        parameters = asked.parameters
        return await self._asking.answer(
            request,
            QueryRequest(
                kind,
                asked.organization,
                expression=parameters.expression(),
                metricsql=parameters.metricsql(),
                timeout_s=self._asking.timeout_s(parameters),
            ),
        )
