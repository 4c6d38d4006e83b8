"""One page over HTTP, within its bounds. Every way it can fail is a FetchError with a sentence for `targets`."""

import asyncio
import ssl
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from flyproxy import __version__
from flyproxy.scrape.connection import BoundedConnector
from flyproxy.scrape.faults import FetchError, client_fault, quoted, status_fault, timeout_fault
from flyproxy.scrape.large_pages import Place
from flyproxy.scrape.unpack import SMALL_BYTES, Unpacker

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.7,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
CONNECT_SHARE = 0.5
"""Of a scrape's timeout, for the connection, TLS included."""
KEEPALIVE_S = 90.0
HEADER_BYTES_MAX = 16 * 1024
"""One header line of an answer."""
HEADERS_MAX = 128


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page as it came, decompressed."""

    body: bytes | bytearray | memoryview
    openmetrics: bool


def open_session() -> aiohttp.ClientSession:
    """The client of all scrapes: no cookies, no proxy of the environment, and certificates are not verified, since
    a target is an address and not a name (docs/decisions/0005)."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return aiohttp.ClientSession(
        headers={"User-Agent": f"flyproxy/{__version__}"},
        connector=BoundedConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ssl=tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
        trace_configs=[_noting_connections()],
    )


async def fetch(
    session: aiohttp.ClientSession, url: str, timeout_s: float, body_bytes_max: int, place: Place
) -> Fetched:
    """The page at `url`; a large one holds `place` on return, and may hold it when this raises.

    Redirects are not followed: an app must not send us elsewhere. Raises FetchError."""
    headers = {
        "Accept": ACCEPT,
        "Accept-Encoding": "gzip",
        "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_s:g}",
    }
    tls = url.startswith("https:")
    unpacker = Unpacker(body_bytes_max)
    progress = SimpleNamespace(connected=False)
    connect = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s * CONNECT_SHARE)
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            try:
                async with session.get(
                    url, headers=headers, allow_redirects=False, timeout=connect, trace_request_ctx=progress
                ) as response:
                    openmetrics = _check_head(response, unpacker)
                    await _collect(response, unpacker, deadline, timeout_s, place)
                    return Fetched(unpacker.whole(), openmetrics)
            finally:
                place.fetched()
    except aiohttp.ConnectionTimeoutError:
        raise timeout_fault(False, 0, timeout_s * CONNECT_SHARE) from None
    except TimeoutError:
        if place.hurried:
            raise FetchError(
                f"a page of more than {SMALL_BYTES} bytes came too slowly while other large pages waited",
                "scrape_large_pages",
            ) from None
        raise timeout_fault(progress.connected, unpacker.received, timeout_s) from None
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        raise client_fault(fault, tls) from None


def _check_head(response: aiohttp.ClientResponse, unpacker: Unpacker) -> bool:
    """Whether the page is OpenMetrics. Raises FetchError for what cannot be a page."""
    if response.status != 200:
        raise status_fault(response)
    coding = ",".join(response.headers.getall("Content-Encoding", ())).strip().lower()
    if coding in ("gzip", "x-gzip"):
        unpacker.expect_gzip()
    elif coding not in ("identity", ""):
        raise FetchError(f"content coding {quoted(coding)} was not asked for (only gzip is read)")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in ("", "text/plain", "application/openmetrics-text"):
        raise FetchError(f"content type {quoted(kind)} is no format of metrics")
    return kind == "application/openmetrics-text"


async def _collect(
    response: aiohttp.ClientResponse, unpacker: Unpacker, deadline: asyncio.Timeout, timeout_s: float, place: Place
) -> None:
    async for chunk in response.content.iter_any():
        for _ in unpacker.feed(chunk):
            if unpacker.size > SMALL_BYTES:
                await place.take(deadline, timeout_s)
            await asyncio.sleep(0)  # a bomb unpacks to the bound in one go otherwise, and the loop stands still


def _noting_connections() -> aiohttp.TraceConfig:
    """Tells `trace_request_ctx.connected` once there is a connection."""

    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        if isinstance(context.trace_request_ctx, SimpleNamespace):
            context.trace_request_ctx.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    trace.on_connection_reuseconn.append(note)
    return trace
