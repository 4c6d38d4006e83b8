"""What needs no organization: the regions, health, readiness, reload, and the front page."""

import json
from collections.abc import Callable

from aiohttp import web

from flyproxy.api.access import asks_from_here, operator_grant
from flyproxy.api.faults import ApiFault
from flyproxy.api.ports import StatusPort
from flyproxy.api.tokens import TokenFile
from flyproxy.config.resolved import Region, Telemetry

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>flyproxy</title></head><body>
<h1>flyproxy</h1>
<p>This is the telemetry address of a flyproxy front door. It has no dashboard yet; these answer:</p>
<ul>
<li><a href="/metrics">/metrics</a>: this front door's own metrics</li>
<li>/prometheus/&lt;organization&gt;: a Prometheus data source (its whole query API, and /federate), with
<code>Authorization: Bearer TOKEN</code>; <code>flyproxy auth token</code> prints one</li>
<li><a href="/grafana">/grafana</a>: dashboards for Grafana</li>
<li><a href="/meta/regions.json">/meta/regions.json</a>: the regions and where they are</li>
<li><a href="/-/healthy">/-/healthy</a>, <a href="/-/ready">/-/ready</a>: this process and the front door</li>
</ul></body></html>
"""


class MetaHandlers:
    """The handlers; `telemetry` gives the configuration in force."""

    def __init__(self, status: StatusPort, telemetry: Callable[[], Telemetry], tokens: TokenFile) -> None:
        self._status = status
        self._telemetry = telemetry
        self._tokens = tokens

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.page),
            web.get("/meta/regions.json", self.regions),
            web.options("/meta/regions.json", self.preflight),
            web.get("/-/healthy", self.healthy),
            web.get("/-/ready", self.ready),
            web.post("/-/reload", self.reload),
            web.put("/-/reload", self.reload),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """A plain page that names what is here."""
        return web.Response(text=_PAGE, content_type="text/html", charset="utf-8")

    async def regions(self, request: web.Request) -> web.Response:
        """Public, for browsers of any origin: Grafana's map fetches it without a token."""
        return web.Response(
            body=regions_json(self._telemetry().regions),
            content_type="application/json",
            headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"},
        )

    async def preflight(self, request: web.Request) -> web.Response:
        """A browser that asks before it fetches may."""
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": "*",
            "Access-Control-Max-Age": "86400",
            "Allow": "GET, HEAD, OPTIONS",
        }
        return web.Response(status=204, headers=headers)

    async def healthy(self, request: web.Request) -> web.Response:
        """200 as long as this process answers at all."""
        return web.Response(text="flyproxy is healthy.\n")

    async def ready(self, request: web.Request) -> web.Response:
        """503 and the reason while it starts or drains; the reason's particulars only to who looks after it."""
        ready, reason = self._status.ready()
        if ready:
            return web.Response(text="flyproxy is ready.\n")
        trouble = self._status.trouble() if self._is_operator(request) else ""
        return web.Response(status=503, text=f"{reason}: {trouble}\n" if trouble else f"{reason}\n")

    def _is_operator(self, request: web.Request) -> bool:
        if asks_from_here(request):
            return True
        try:
            operator_grant(request, self._tokens)
        except ApiFault:
            return False
        return True

    async def reload(self, request: web.Request) -> web.Response:
        """Read the configuration again; from elsewhere only with an operator's token."""
        if not asks_from_here(request):
            operator_grant(request, self._tokens)
        done, sentence = await self._status.reload()
        return web.Response(status=200 if done else 500, text=f"{sentence}\n")


def regions_json(regions: tuple[Region, ...]) -> bytes:
    """The list Grafana's gazetteer reads. It recognises it by its first row, which must not lie at 0 degrees."""
    ordered = sorted(regions, key=lambda region: not (region.latitude and region.longitude))
    rows = [
        {
            "key": region.key,
            "latitude": region.latitude,
            "longitude": region.longitude,
            "name": region.name,
            "code": region.key,
            "geo_region": region.geo_region,
        }
        for region in ordered
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
