"""/grafana/: the dashboards, with the address this very reader reached us by inside them. Public: nothing in them is a
secret, and Grafana, a browser and curl each fetch them without a token.

Whose word is taken for that address: the request's one `Host`, if it is a plain host[:port]. A proxy on this machine
that ends TLS for us says `X-Forwarded-Proto` and `X-Forwarded-Host`; they are believed from a loopback peer only, and
by the same grammar. Anything else, and the address the connection was made to is taken. A wrong word can mislead nobody
but the one who sent it: the answer is not kept by caches.
"""

import ipaddress
import re

from aiohttp import web

from flyproxy.api.access import comes_from_here
from flyproxy.api.faults import ApiFault
from flyproxy.api.grafana_dashboards import DASHBOARDS, dashboard_json
from flyproxy.api.render import data_json

_PUBLIC = {"Access-Control-Allow-Origin": "*"}
_HOST_BYTES_MAX = 261
"""A name of 253, a colon and a port, with some room."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|[0-9A-Za-z][0-9A-Za-z._-]*)(?::([0-9]{1,5}))?", re.ASCII)


class GrafanaHandlers:
    """The handlers."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/grafana", self.names),
            web.get("/grafana/", self.names),
            web.get("/grafana/{name}.json", self.dashboard),
            web.get("/grafana/{other:.*}", self.unknown),
        ]

    async def names(self, request: web.Request) -> web.Response:
        """What there is: name, title and URL of each."""
        base_url = base_url_of(request)
        rows = [
            {"name": found.name, "title": found.title, "url": f"{base_url}/grafana/{found.name}.json"}
            for found in DASHBOARDS.values()
        ]
        return web.Response(body=data_json(rows), content_type="application/json", headers=_PUBLIC)

    async def dashboard(self, request: web.Request) -> web.Response:
        """One, for this reader's address."""
        name = request.match_info["name"]
        if name not in DASHBOARDS:
            raise _unknown()
        body = dashboard_json(name, base_url_of(request))
        return web.Response(body=body, content_type="application/json", headers=_PUBLIC)

    async def unknown(self, request: web.Request) -> web.Response:
        """Any other path below: 404 that says what there is."""
        raise _unknown()


def base_url_of(request: web.Request) -> str:
    """Where the sender of a request finds us, as http://host[:port], without a slash at the end."""
    scheme, host = "http", _said(request, "Host") if request.raw_path.startswith("/") else None
    if request.transport is not None and comes_from_here(request.transport):
        if _only(request, "X-Forwarded-Proto") == "https":
            scheme = "https"
        host = _said(request, "X-Forwarded-Host") or host
    return f"{scheme}://{host or _reached(request)}"


def sane_host(text: str) -> str | None:
    """`host[:port]` as it was, if it is one: a name of letters, digits, `-`, `_` and dots, or an IP address."""
    found = _HOST.fullmatch(text) if len(text) <= _HOST_BYTES_MAX else None
    if found is None or not 0 < int(found[2] or 1) < 65536:
        return None
    if found[1]:
        try:
            ipaddress.IPv6Address(found[1])
        except ValueError:
            return None
    return text


def _said(request: web.Request, header: str) -> str | None:
    said = _only(request, header)
    return None if said is None else sane_host(said)


def _only(request: web.Request, header: str) -> str | None:
    """The header's value if it stands there exactly once."""
    values = request.headers.getall(header, [])
    return values[0] if len(values) == 1 else None


def _reached(request: web.Request) -> str:
    """The address on our side of the connection."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return "localhost"
    host, port = str(name[0]).partition("%")[0], int(name[1])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unknown() -> ApiFault:
    there = ", ".join(f"/grafana/{name}.json" for name in DASHBOARDS)
    return ApiFault(404, "not_found", f"there is no such dashboard; there is {there}", dict(_PUBLIC))
