"""Why there is no page, in the words of whoever runs the app.

A target may answer anything, so what it said is quoted, and cut to a length that fits a line on `targets`.
"""

import errno
import os
import ssl
from http import HTTPStatus

import aiohttp

from flyproxy.errors import FlyproxyError

QUOTE_CHARACTERS = 64

_MENDS = {
    HTTPStatus.UNAUTHORIZED: "a scrape has no credentials",
    HTTPStatus.FORBIDDEN: "a scrape has no credentials",
    HTTPStatus.NOT_FOUND: "is `path` in its metrics right?",
}
_CONNECT = {
    errno.ECONNREFUSED: "connection refused (is it listening on 0.0.0.0:{port}?)",
    errno.ECONNRESET: "the connection was reset before it was made",
    errno.EHOSTUNREACH: "no way to the host {host}",
    errno.ENETUNREACH: "no way to the network of {host}",
    errno.EMFILE: "the front door has no file descriptor left",
}
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


class FetchError(FlyproxyError):
    """No page. `limit` names the bound when one was reached."""

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


def status_fault(response: aiohttp.ClientResponse) -> FetchError:
    """Of an answer that is not 200."""
    status = response.status
    if 300 <= status < 400:
        place = response.headers.get("Location")
        return FetchError(
            f"HTTP status {status}: redirects are not followed" + (f" (to {quoted(place)})" if place else "")
        )
    try:
        known = HTTPStatus(status)
    except ValueError:
        return FetchError(f"HTTP status {status}")
    mend = f" ({_MENDS[known]})" if known in _MENDS else ""
    return FetchError(f"HTTP status {status} {known.phrase}{mend}")


def timeout_fault(connected: bool, received: int, timeout_s: float) -> FetchError:
    """Of a scrape that took too long: how far it came."""
    if received:
        sentence = f"no complete answer within {timeout_s:g} s ({received} bytes of the page had come)"
    elif connected:
        sentence = f"connected, but no answer within {timeout_s:g} s"
    else:
        sentence = f"no connection within {timeout_s:g} s (is there a firewall in between?)"
    return FetchError(sentence, "scrape_timeout")


def client_fault(fault: aiohttp.ClientError | OSError | ValueError, tls: bool) -> FetchError:
    """Of whatever else the HTTP client says."""
    match fault:
        case aiohttp.ClientSSLError():
            return FetchError(_tls_sentence(fault.os_error))
        case aiohttp.ClientConnectorError():
            return FetchError(_connect_sentence(fault, tls))
        case aiohttp.ServerDisconnectedError():
            return FetchError("the connection was closed without an answer")
        case aiohttp.ClientPayloadError():
            return FetchError("the connection was closed, or the framing broke, in the middle of the answer")
        case ssl.SSLError():
            return FetchError(_tls_sentence(fault))
        case OSError():
            return FetchError(f"the connection broke: {_words(fault)}")
        case aiohttp.ClientResponseError():
            hint = "" if tls else " (if it speaks TLS, give its metrics `https: true`)"
            return FetchError(f"not an HTTP answer: {quoted(_first_line(fault.message))}{hint}")
    return FetchError(f"not an HTTP answer: {type(fault).__name__}")


def quoted(text: str) -> str:
    """What a target said, short enough for a sentence."""
    return repr(text if len(text) <= QUOTE_CHARACTERS else text[: QUOTE_CHARACTERS - 3] + "...")


def _connect_sentence(fault: aiohttp.ClientConnectorError, tls: bool) -> str:
    broken = fault.os_error
    number = broken.errno
    if number in _CONNECT and not (tls and number == errno.ECONNRESET):
        return _CONNECT[number].format(host=fault.host, port=fault.port)
    if tls:
        return f"the TLS handshake failed: {_words(broken)}"
    return f"cannot connect: {_words(broken)}"


def _tls_sentence(fault: OSError) -> str:
    reason = getattr(fault, "reason", None) or ""
    if reason in _NOT_TLS:
        return "the TLS handshake failed: it answers in something else (if that is plain HTTP, leave out `https`)"
    return f"the TLS handshake failed: {reason.replace('_', ' ').lower() or _words(fault)}"


def _words(fault: OSError) -> str:
    if fault.errno and fault.errno > 0:
        return os.strerror(fault.errno).lower()
    return str(fault.strerror or fault or type(fault).__name__).lower()[:QUOTE_CHARACTERS]


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip(" :^")), "").strip().rstrip(":")
