"""One page over HTTP, within its bounds; every way it can fail has a sentence for `targets`."""

import asyncio
import errno
import os
import zlib
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from flyproxy.errors import FlyproxyError

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.7,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
BODY_BYTES_MAX = 16 * 1024 * 1024
"""Of one page, decompressed and as it came: Fly's own cap."""
GZIP_MEMBERS_MAX = 1024
"""Of one page. An empty member is 20 bytes, and unpacks to nothing that could be counted."""
CHUNK_BYTES = 64 * 1024
"""Decompressed at once: a gzip bomb is noticed this far beyond the bound."""


class FetchError(FlyproxyError):
    """No page. `limit` names the bound when one was reached."""

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page as it came, decompressed."""

    body: bytes
    openmetrics: bool


async def fetch(session: aiohttp.ClientSession, url: str, timeout_s: float, body_bytes_max: int) -> Fetched:
    """The page at `url`. Redirects are not followed: an app must not send us elsewhere. Raises FetchError."""
    headers = {
        "Accept": ACCEPT,
        "Accept-Encoding": "gzip",
        "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_s:g}",
    }
    try:
        async with asyncio.timeout(timeout_s), session.get(url, headers=headers, allow_redirects=False) as response:
            _check_status(response)
            openmetrics = _is_openmetrics(response.headers.get("Content-Type", ""))
            return Fetched(await _body(response, body_bytes_max), openmetrics)
    except TimeoutError:
        raise FetchError(f"no complete answer within {timeout_s:g} s", "scrape_timeout") from None
    except aiohttp.ClientConnectorError as fault:
        raise FetchError(_connect_sentence(fault)) from None
    except aiohttp.ServerDisconnectedError:
        raise FetchError("the connection was closed without an answer") from None
    except aiohttp.ClientPayloadError:
        raise FetchError("the connection was closed in the middle of the answer") from None
    except aiohttp.ClientOSError as fault:
        raise FetchError((fault.strerror or "the connection broke").lower()) from None
    except (aiohttp.ClientError, ValueError) as fault:
        raise FetchError(f"not an HTTP answer: {type(fault).__name__}") from None
    except OSError as fault:
        raise FetchError((fault.strerror or str(fault)).lower()) from None


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == HTTPStatus.OK:
        return
    if 300 <= response.status < 400:
        raise FetchError(f"HTTP status {response.status}: redirects are not followed")
    try:
        words = f" {HTTPStatus(response.status).phrase}"
    except ValueError:
        words = ""
    raise FetchError(f"HTTP status {response.status}{words}")


def _is_openmetrics(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/openmetrics-text":
        return True
    if kind in ("", "text/plain"):
        return False
    raise FetchError(f"content type {kind[:64]!r} is no format of metrics")


async def _body(response: aiohttp.ClientResponse, body_bytes_max: int) -> bytes:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip"):
        raise FetchError(f"content coding {coding[:64]!r} was not asked for")
    unpack = _Unpacker(body_bytes_max, gzip=coding.endswith("gzip"))
    async for chunk in response.content.iter_any():
        unpack.feed(chunk)
    return unpack.whole()


class _Unpacker:
    """Collects a body up to a bound that counts what it is unpacked to."""

    def __init__(self, body_bytes_max: int, *, gzip: bool) -> None:
        self._left = body_bytes_max
        self._raw_left = body_bytes_max
        self._members_left = GZIP_MEMBERS_MAX
        self._max = body_bytes_max
        self._body = bytearray()
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if gzip else None

    def feed(self, chunk: bytes) -> None:
        if self._gzip is None:
            self._take(chunk)
            return
        self._raw_left -= len(chunk)
        if self._raw_left < 0:
            raise self._too_large()
        try:
            while chunk:
                if self._gzip.eof:  # another member follows (RFC 1952 2.2)
                    self._members_left -= 1
                    if self._members_left <= 0:
                        raise FetchError(f"more than {GZIP_MEMBERS_MAX} gzip members", "scrape_body_bytes")
                    self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
                self._take(self._gzip.decompress(chunk, CHUNK_BYTES))
                chunk = self._gzip.unconsumed_tail or self._gzip.unused_data
        except zlib.error:
            raise FetchError("the body is not gzip, as it says it is") from None

    def whole(self) -> bytes:
        if self._gzip is not None and not self._gzip.eof:
            raise FetchError("the gzip body was cut short")
        return bytes(self._body)

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        self._body += piece

    def _too_large(self) -> FetchError:
        return FetchError(f"the page is larger than {self._max} bytes", "scrape_body_bytes")


def _connect_sentence(fault: aiohttp.ClientConnectorError) -> str:
    number = fault.os_error.errno
    if number == errno.ECONNREFUSED:
        return f"connection refused (is it listening on 0.0.0.0:{fault.port}?)"
    if isinstance(fault, aiohttp.ClientSSLError):
        return "the TLS handshake failed"
    return os.strerror(number).lower() if number else "cannot connect"
