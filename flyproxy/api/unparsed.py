"""What is said to bytes that are no HTTP request. aiohttp would quote the line it could not read, which may hold a
token, and name itself and its version."""

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from flyproxy.api.faults import error_json

_SENTENCE = "this is no HTTP/1.1 request, or one that two readers could read differently"


class PlainRefusals(RequestHandler):
    """aiohttp's own protocol of one connection, but for these words."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; a fault of ours that nobody caught keeps aiohttp's words."""
        theirs = super().handle_error(request, status, exc, message)
        if status != 400:
            theirs.headers["Server"] = "flyproxy"
            return theirs
        answer = web.Response(
            status=400,
            body=error_json("bad_data", _SENTENCE),
            content_type="application/json",
            headers={"Server": "flyproxy", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
        answer.force_close()
        return answer


def awaits_request(protocol: asyncio.Protocol) -> bool:
    """Whether a connection has no request under way: it is answered, or was never asked anything."""
    return isinstance(protocol, RequestHandler) and protocol._waiter is not None and not protocol._waiter.done()
