"""What went wrong, whose fault it is, what the client reads (pure).

Every answer the front door makes itself has a code: in the header `Flyproxy-Error`, in the log line, and as
`fly_edge_error_count{code}`. Codes follow Fly's where Fly has one (its PC, PR and PL families); the PP and PU
families are ours: PP is about the client's message, PU about the instance's.
"""

from dataclasses import dataclass
from enum import Enum
from html import escape

import orjson

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left before its answer; counted and logged, never sent."""


class Blame(Enum):
    """Whose fault it is."""

    CLIENT = "client"
    INSTANCE = "instance"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of failure."""

    code: str
    status: int
    blame: Blame
    title: str
    sentence: str
    """For whoever reads the page: what happened, and where to look."""


def _table(*faults: Fault) -> dict[str, Fault]:
    return {fault.code: fault for fault in faults}


MALFORMED = Fault("PP01", 400, Blame.CLIENT, "Bad Request", "The request is not well-formed HTTP/1.1.")
UNKNOWN_HOST = Fault("PP02", 404, Blame.CLIENT, "Not Found", "No app answers to this host name here.")
HEAD_TIMEOUT = Fault("PP03", 408, Blame.CLIENT, "Request Timeout", "The request head did not arrive in time.")
BODY_TIMEOUT = Fault("PP04", 408, Blame.CLIENT, "Request Timeout", "The request body came too slowly.")
BODY_TOO_LARGE = Fault("PP05", 413, Blame.CLIENT, "Content Too Large", "The request body is larger than allowed here.")
TARGET_TOO_LONG = Fault("PP06", 414, Blame.CLIENT, "URI Too Long", "The request line is longer than allowed here.")
HEAD_TOO_LARGE = Fault(
    "PP07", 431, Blame.CLIENT, "Request Header Fields Too Large", "The request head is larger than allowed here."
)
NOT_IMPLEMENTED = Fault(
    "PP08", 501, Blame.CLIENT, "Not Implemented", "This method or transfer coding is not served here."
)
VERSION = Fault("PP09", 505, Blame.CLIENT, "HTTP Version Not Supported", "This version of HTTP is not served here.")
SLOW_READER = Fault("PP10", 408, Blame.CLIENT, "Request Timeout", "The client took no byte of its answer for too long.")
EXPECTATION = Fault("PP11", 417, Blame.CLIENT, "Expectation Failed", "This expectation cannot be met here.")
MISDIRECTED = Fault("PP12", 421, Blame.CLIENT, "Misdirected Request", "This connection does not serve that host.")

BAD_PROXY_HEADER = Fault(
    "PP13", 400, Blame.CLIENT, "Bad Request", "The connection does not begin with a whole and valid PROXY header."
)
UNTRUSTED_PROXY = Fault(
    "PP14", 403, Blame.CLIENT, "Forbidden", "This door is for the proxies in front of it; trusted_proxies names them."
)

NO_INSTANCE = Fault("PR01", 503, Blame.OPERATOR, "Service Unavailable", "The app has no instance that could answer.")

REFUSED = Fault(
    "PC01", 502, Blame.INSTANCE, "Bad Gateway", "The instance refused the connection: nothing listens there."
)
UNREACHABLE = Fault("PC02", 502, Blame.INSTANCE, "Bad Gateway", "The instance could not be reached.")
RESET = Fault("PC03", 502, Blame.INSTANCE, "Bad Gateway", "The instance closed the connection without an answer.")
ABORTED = Fault("PC04", 502, Blame.INSTANCE, "Bad Gateway", "The instance broke off in the middle of its answer.")
CONNECT_TIMEOUT = Fault(
    "PC05", 504, Blame.INSTANCE, "Gateway Timeout", "The instance did not take the connection in time."
)
CONNECT_IO = Fault("PC06", 502, Blame.OPERATOR, "Bad Gateway", "The front door could not open a connection.")
TRIES_EXHAUSTED = Fault(
    "PC07", 502, Blame.INSTANCE, "Bad Gateway", "Several instances were tried; none could be reached."
)

BAD_RESPONSE = Fault("PU01", 502, Blame.INSTANCE, "Bad Gateway", "The instance's answer is not well-formed HTTP/1.1.")
RESPONSE_TIMEOUT = Fault("PU02", 504, Blame.INSTANCE, "Gateway Timeout", "The instance did not answer in time.")
RESPONSE_STALLED = Fault(
    "PU03", 504, Blame.INSTANCE, "Gateway Timeout", "The instance stopped in the middle of its answer."
)
REQUEST_STALLED = Fault(
    "PU04", 504, Blame.INSTANCE, "Gateway Timeout", "The instance stopped taking the request's body."
)

CONNECTION_LIMIT = Fault(
    "PL01", 503, Blame.OPERATOR, "Service Unavailable", "The front door holds as many connections as it may."
)
DRAINED = Fault(
    "PL02", 503, Blame.OPERATOR, "Service Unavailable", "The front door is going down and could not wait any longer."
)
MISTAKE = Fault(
    "PL03", 500, Blame.OPERATOR, "Internal Server Error", "The front door made a mistake; its log says which."
)

FAULTS = _table(
    MALFORMED, UNKNOWN_HOST, HEAD_TIMEOUT, BODY_TIMEOUT, BODY_TOO_LARGE, TARGET_TOO_LONG, HEAD_TOO_LARGE,
    NOT_IMPLEMENTED, VERSION, SLOW_READER, EXPECTATION, MISDIRECTED, BAD_PROXY_HEADER, UNTRUSTED_PROXY,
    NO_INSTANCE, REFUSED, UNREACHABLE, RESET, ABORTED, CONNECT_TIMEOUT, CONNECT_IO, TRIES_EXHAUSTED, BAD_RESPONSE,
    RESPONSE_TIMEOUT, RESPONSE_STALLED, REQUEST_STALLED, CONNECTION_LIMIT, DRAINED, MISTAKE,
)  # fmt: skip
"""Every code, once."""

_BY_STATUS = {
    400: MALFORMED,
    413: BODY_TOO_LARGE,
    414: TARGET_TOO_LONG,
    417: EXPECTATION,
    421: MISDIRECTED,
    431: HEAD_TOO_LARGE,
    501: NOT_IMPLEMENTED,
    505: VERSION,
}


def fault_of_status(status: int) -> Fault:
    """The fault of a request that http1 refused with this status."""
    return _BY_STATUS.get(status, MALFORMED)


def wants_html(lines: list[bytes]) -> bool:
    """Whether the raw header lines ask for a page: browsers name text/html, programs get JSON."""
    return any(line[:7].lower() == b"accept:" and b"text/html" in line.lower() for line in lines)


def body(fault: Fault, *, reason: str, request_id: str, html: bool) -> tuple[bytes, bytes]:
    """Content type and body of an answer we make ourselves; `reason` is the case at hand, or empty."""
    if html:
        page = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{fault.status} {escape(fault.title)}</title>"
            "<body style='font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em'>"
            f"<h1>{fault.status} {escape(fault.title)}</h1><p>{escape(fault.sentence)}</p>"
            + (f"<p>{escape(reason)}</p>" if reason else "")
            + f"<p><small>{fault.code} &middot; {escape(request_id)}</small></p></body></html>\n"
        )
        return b"text/html; charset=utf-8", page.encode()
    error = {"code": fault.code, "status": fault.status, "message": fault.sentence, "request_id": request_id}
    if reason:
        error["reason"] = reason
    return b"application/json", orjson.dumps({"error": error}, option=orjson.OPT_APPEND_NEWLINE)


def markdown() -> str:
    """docs/faults.md."""
    lines = [
        "# Fault codes",
        "",
        "Made by `python -m flyproxy.edge.faults`; a test compares. The code is in the header `Flyproxy-Error`, in",
        "the body (HTML or JSON by `Accept`), in the log line (`fault`, the case at hand in `why`), and counted in",
        "`fly_edge_error_count{code}`. When the answer has already begun it breaks off instead, and only the log and",
        "the counter tell. On a raw TCP door the client sees a reset. A client that leaves before its answer has begun",
        f"is counted and logged with status {CLIENT_CLOSED_REQUEST} and no code. One that only says it sends no more",
        "(`nc -N`) looks the same at first: its answer has a second to begin, and whether it was taken tells.",
        "",
        "| code | status | whose fault | what happened |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{f.code}` | {f.status} | {f.blame.value} | {f.sentence} |" for f in FAULTS.values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
