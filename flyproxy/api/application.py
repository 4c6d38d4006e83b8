"""Routes and middleware, put together.

Every answer passes `_guarded`: bounds of the URL before anything is looked at, faults turned into Prometheus' JSON,
headers that keep browsers from misreading. Nothing of a request (no query, no token, no path) is ever logged.
"""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from flyproxy.api.asking import Asking
from flyproxy.api.connections import ApiRunner
from flyproxy.api.faults import ApiFault, error_json
from flyproxy.api.grafana import GrafanaHandlers
from flyproxy.api.meta import MetaHandlers
from flyproxy.api.metrics import MetricsHandlers
from flyproxy.api.parameters import BODY_BYTES_MAX, URL_BYTES_MAX
from flyproxy.api.ports import REFUSALS, Ports
from flyproxy.api.prometheus import PrometheusHandlers
from flyproxy.api.rules import RulesHandlers
from flyproxy.api.status import StatusHandlers
from flyproxy.api.targets import TargetsHandlers
from flyproxy.api.tokens import TokenFile
from flyproxy.api.unbuilt import unbuilt_routes
from flyproxy.clock import Clock
from flyproxy.config.resolved import Telemetry

HEADER_BYTES_MAX = 16 * 1024
"""One header line; aiohttp refuses longer ones with 400."""
TOKENS_FILE = "tokens"
"""Its name in the data directory."""
KEEPALIVE_S = 75.0
"""From one answer to the end of the next head."""

_LOG = logging.getLogger("flyproxy.api")
_REACHED: web.AppKey[Callable[[str], None]] = web.AppKey("reached")

_HEADERS = {
    "Server": "flyproxy",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}


def build_application(ports: Ports, telemetry: Callable[[], Telemetry], clock: Clock) -> web.Application:
    """The whole API. `telemetry` gives the configuration in force at each request, so a reload needs no new
    application; the tokens are read from its data directory as of now."""
    tokens = TokenFile(Path(telemetry().data_dir) / TOKENS_FILE, clock)
    application = web.Application(middlewares=[_guarded(ports)], client_max_size=BODY_BYTES_MAX)
    application[_REACHED] = ports.status.limit_reached
    application.add_routes(MetaHandlers(ports.status, telemetry, tokens).routes())
    application.add_routes(GrafanaHandlers().routes())
    application.add_routes(MetricsHandlers(ports.expose, tokens).routes())
    asking = Asking(ports, telemetry, tokens, clock)
    for handlers in (PrometheusHandlers, StatusHandlers, TargetsHandlers, RulesHandlers):
        application.add_routes(handlers(asking).routes())
    application.add_routes(unbuilt_routes())
    application.on_response_prepare.append(_add_headers)
    return application


def build_runner(application: web.Application) -> web.AppRunner:
    """How the application is to be served: no access log (it would hold queries), a query is cancelled when its
    client goes away, connections are bounded, and lines are long enough that we can refuse them with a sentence."""
    return ApiRunner(
        application,
        application[_REACHED],
        access_log=None,
        logger=_http_log(),
        handler_cancellation=True,
        max_line_size=2 * URL_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        keepalive_timeout=KEEPALIVE_S,
    )


def _http_log() -> logging.Logger:
    log = logging.getLogger("flyproxy.api.http")
    if not log.filters:
        log.addFilter(_without_requests)
    return log


def _without_requests(record: logging.LogRecord) -> bool:
    """aiohttp says a traceback for each request it cannot parse, and quotes it: anybody could fill the log, and find a
    neighbour's token there. Such a request is answered with 400; only a fault of ours is said, by its place."""
    fault = record.exc_info[1] if record.exc_info else None
    if isinstance(fault, HttpProcessingError):
        return False
    if fault is not None:
        _log_frames(fault)
        return False
    return True


def _guarded(ports: Ports) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if len(request.raw_path) > URL_BYTES_MAX:
                raise ApiFault(
                    414,
                    "bad_data",
                    f"the URL is longer than {URL_BYTES_MAX} bytes; send the parameters as a POST form",
                    limit="api_url_bytes",
                )
            return await handler(request)
        except ApiFault as fault:
            return _refusal(ports, fault)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(
                ports,
                ApiFault(413, "bad_data", f"the body is larger than {BODY_BYTES_MAX} bytes", limit="api_body_bytes"),
            )
        except web.HTTPMethodNotAllowed as fault:
            allowed = ", ".join(sorted(fault.allowed_methods))
            if request.method == "OPTIONS":
                return web.Response(status=204, headers={"Allow": f"{allowed}, OPTIONS"})
            return _refusal(ports, ApiFault(405, "bad_data", f"the method is not one of {allowed}", {"Allow": allowed}))
        except web.HTTPNotFound:
            return _refusal(ports, ApiFault(404, "not_found", "there is no such endpoint here"))
        except web.HTTPException:
            raise
        except Exception as fault:
            _log_frames(fault)
            return _refusal(ports, ApiFault(500, "internal", "an internal error; the operator's log has its place"))

    return guarded


def _refusal(ports: Ports, fault: ApiFault) -> web.Response:
    if fault.limit:
        ports.status.limit_reached(fault.limit)
    if fault.status in REFUSALS:
        ports.status.refused(fault.status)
    return web.Response(
        status=fault.status,
        body=error_json(fault.error_type, str(fault)),
        content_type="application/json",
        headers=fault.headers,
    )


def _log_frames(fault: BaseException) -> None:
    """Where it happened, not what was in it: messages of exceptions may quote a query."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(fault.__traceback__)]
    _LOG.error("api: %s at %s", type(fault).__name__, " < ".join(reversed(frames)))


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
