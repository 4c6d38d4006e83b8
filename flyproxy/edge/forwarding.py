"""The head that goes on (pure): a rebuilt first line, the lines that were validated, then ours.

To the instance: what Fly's proxy says about the client (fly.md 6.3). Nobody in front of us is believed yet, so
whatever a client claims in one of `OWNED` is dropped and said anew. `Via` is a list: the client's stays, ours follows
(RFC 9110 7.6.3). To the client: `Server` is ours, `Via` is appended, and the request's id, so that a page and a log
line can be matched.
"""

from email.utils import formatdate

from flyproxy import __version__
from flyproxy.edge.faults import Fault
from flyproxy.http1.head import RequestHead, ResponseHead
from flyproxy.http1.writer import response_bytes

OWNED = frozenset(
    (
        b"fly-client-ip",
        b"fly-dispatch-start",
        b"fly-forwarded-port",
        b"fly-forwarded-proto",
        b"fly-forwarded-ssl",
        b"fly-preferred-instance-unavailable",
        b"fly-region",
        b"fly-replay-cache-status",
        b"fly-replay-failed",
        b"fly-replay-src",
        b"fly-request-id",
        b"fly-traceparent",
        b"fly-tracestate",
        b"forwarded",
        b"traceparent",
        b"x-forwarded-by",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-original-url",
        b"x-real-ip",
        b"x-request-start",
        b"x-rewrite-url",
    )
)
"""Request headers that only a front door may set; lower case."""

REPLACED = frozenset((b"server",))
"""Response headers that are not passed on, because we say them ourselves; lower case."""

SERVER = b"flyproxy/" + __version__.encode()
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
"""Methods that may be sent again when nothing came back (RFC 9110 9.2.2); only ever done without a body."""


def suffix_template(door_port: int, region: str) -> bytes:
    """The lines every request through one door gets, each with its CRLF, and the beginning of the
    last, whose value is the request's id; `% (ip, ip)` makes them a connection's."""
    named = region.encode("ascii", "replace").replace(b"%", b"%%")
    return (
        b"Fly-Client-IP: %%b\r\n"
        b"Fly-Forwarded-Port: %d\r\n"
        b"Fly-Forwarded-Proto: http\r\n"
        b"Fly-Forwarded-Ssl: off\r\n"
        b"Fly-Region: %b\r\n"
        b"X-Forwarded-For: %%b\r\n"
        b"X-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Port: %d\r\n"
        b"X-Forwarded-SSL: off\r\n"
        b"Via: 1.1 flyproxy\r\n"
        b"Fly-Request-Id: "
    ) % (door_port, named, door_port)


def request_head(head: RequestHead, suffix: bytes, request_id: bytes, start_us: int, trace_lines: bytes) -> bytes:
    """The request head for the instance, always HTTP/1.1 on a connection that stays open.

    suffix        as of suffix_template, the connection's
    trace_lines   as of RequestIds.trace_lines: they end the head
    """
    pieces = (
        head.method, b" ", head.target, b" HTTP/1.1\r\n", head.block, b"" if head.plain else _framing(head), suffix,
        request_id, b"\r\nX-Request-Start: t=%d" % start_us, trace_lines,
    )  # fmt: skip
    return b"".join(pieces)


def _framing(head: RequestHead) -> bytes:
    """The lines that say what a request carries or wants besides the question."""
    if head.content_length >= 0:
        framing = b"Content-Length: %d\r\n" % head.content_length
    elif head.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b""
    if head.upgrade is not None:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    elif head.te_trailers:
        framing += b"Connection: TE\r\nTE: trailers\r\n"
    return framing


OURS = b"Server: %b\r\nVia: 1.1 flyproxy\r\nFly-Request-Id: " % SERVER
"""What every answer that goes on gets, behind its own lines; the request's id follows."""


def response_head(
    head: ResponseHead,
    request_id: bytes,
    body: bytes = b"",
    *,
    date_line: bytes,
    close: bool,
    keep_alive_said: bool,
    dechunk: bool,
) -> bytes:
    """The final response head for the client, with what is there of the body.

    `date_line` is for an answer that has none (RFC 9110 6.6.1). `close` says `Connection: close`; `keep_alive_said`
    answers an HTTP/1.0 client that asked to stay; `dechunk` leaves out a chunked framing that the client cannot read.
    """
    if head.upgrade is not None:
        connection = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % head.upgrade
    elif close:
        connection = b"Connection: close\r\n\r\n"
    elif keep_alive_said:
        connection = b"Connection: keep-alive\r\n\r\n"
    else:
        connection = b"\r\n"
    framing = b"" if dechunk else head.framing
    date = b"" if head.dated else date_line
    return b"".join((head.start, date, OURS, request_id, b"\r\n", framing, connection, body))


def is_event_stream(lines: list[bytes]) -> bool:
    """Whether an answer is a stream of server-sent events, by its header lines."""
    for line in lines:
        if line[:13].lower() == b"content-type:":
            return b"text/event-stream" in line.lower()
    return False


def interim_head(head: ResponseHead) -> bytes:
    """A 1xx answer on its way to the client."""
    return head.start + b"\r\n"


def own_response(
    fault: Fault, content_type: bytes, body: bytes, request_id: bytes, unix_s: int, *, close: bool, head_only: bool
) -> bytes:
    """An answer of our own; `head_only` for HEAD: the length stands, the body does not come."""
    headers = [
        (b"Date", formatdate(unix_s, usegmt=True).encode()),
        (b"Content-Type", content_type),
        (b"Cache-Control", b"no-store"),
        (b"Flyproxy-Error", fault.code.encode()),
        (b"Fly-Request-Id", request_id),
        (b"Server", SERVER),
        (b"Via", b"1.1 flyproxy"),
    ]
    if close:
        headers.append((b"Connection", b"close"))
    return response_bytes(fault.status, headers, body, head_only=head_only)
