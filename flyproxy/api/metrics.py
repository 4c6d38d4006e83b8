"""/metrics: this front door's own families, in the format and the coding the client asks for."""

import asyncio
import gzip

from aiohttp import web

from flyproxy.api.access import asks_from_here, operator_grant
from flyproxy.api.negotiation import accepts_gzip, joined
from flyproxy.api.ports import ExposePort
from flyproxy.api.tokens import TokenFile
from flyproxy.series.exposition_writer import chosen_by

GZIP_LEVEL = 3
"""Metrics are repetitive: level 3 is within a tenth of level 9 in size, in a quarter of its time."""


class MetricsHandlers:
    """The handler of /metrics."""

    def __init__(self, expose: ExposePort, tokens: TokenFile) -> None:
        self._expose = expose
        self._tokens = tokens

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """Open to this machine; from elsewhere only with an operator's token, as it shows all organizations."""
        if not asks_from_here(request):
            operator_grant(request, self._tokens)
        content_type, rendered = chosen_by(joined(request, "Accept"))
        body = rendered(self._expose.families())
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(joined(request, "Accept-Encoding")):
            body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)
