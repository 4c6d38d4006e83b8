"""Parts of Prometheus' API that are not built, and say so. With 404, not 501: a Prometheus that writes here tries again
for ever after a 5xx, and gives up with this sentence in its log after a 4xx."""

from aiohttp import web

from flyproxy.api.faults import ApiFault

_SENTENCES = {
    "write": "the remote-write receiver is not built yet; apps' metrics are scraped (`metrics:` of an app)",
    "read": "remote read is not built; ask query_range or /federate",
    "otlp/v1/metrics": "the OTLP receiver is not built; apps' metrics are scraped (`metrics:` of an app)",
    "admin/tsdb/{what}": "the admin API is not built; `flyproxy tsdb` works on the store's file",
}


def unbuilt_routes() -> list[web.RouteDef]:
    """The same answer for everybody, with any token or none: it says nothing about who is here."""
    return [web.route("*", f"/prometheus/{{organization}}/api/v1/{path}", _not_built) for path in _SENTENCES]


async def _not_built(request: web.Request) -> web.StreamResponse:
    resource = request.match_info.route.resource
    assert resource is not None
    raise ApiFault(404, "not_found", _SENTENCES[resource.canonical.partition("/api/v1/")[2]])
