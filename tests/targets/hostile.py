"""Targets that answer everything but what they should. A program of its own, so that they cost nobody else's loop:

    python hostile.py

It prints one JSON object, {name: {port, https, up, reason, large, slow}}, and serves until it is killed. `reason` is a
regular expression for what must stand on `targets`; where the page is up it is that of the warning, "" for none. One
that is `large` may also be too slow, since so many others are there at once: `slow`.
"""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Behaviour = Callable[[Reader, Writer], Awaitable[None]]

SLOW = r"^(no complete answer within|connected, but no answer within|a page of more than)"
TOO_LARGE = r"^the page is larger than the \d+ bytes of scrape_limits\.body_bytes$"
NOT_HTTP = r"^not an HTTP answer: "
BROKEN = r"^the connection was closed, or the framing broke, in the middle of the answer$"


@dataclass(frozen=True)
class Hostile:
    behave: Behaviour
    up: bool
    reason: str
    https: bool = False
    """The front door is told to use TLS."""
    tls: bool = False
    """The target does."""
    greets: bool = False
    """Does not wait for a request."""


TARGETS: dict[str, Hostile] = {}
LARGE = {
    "gzip_bomb", "gzip_members", "endless_body", "endless_line", "chunks_of_one_byte", "huge_line", "a_million_labels",
    "long_label_value", "two_million_samples", "too_many_samples", "only_newlines", "megabytes_of_help",
}  # fmt: skip


def hostile(
    reason: str, *, up: bool = False, https: bool = False, tls: bool = False, greets: bool = False
) -> Callable[[Behaviour], Behaviour]:
    def register(behave: Behaviour) -> Behaviour:
        TARGETS[behave.__name__] = Hostile(behave, up, reason, https, tls, greets)
        return behave

    return register


async def send(writer: Writer, *pieces: bytes) -> None:
    for piece in pieces:
        writer.write(piece)
    await writer.drain()


async def page(writer: Writer, body: bytes | str, *fields: str, status: str = "200 OK") -> None:
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", *fields]
    await send(writer, "\r\n".join([*lines, "", ""]).encode(), raw)


async def forever(writer: Writer, piece: bytes, pause_s: float = 0.0) -> None:
    while True:
        await send(writer, piece)
        await asyncio.sleep(pause_s)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
OM = "Content-Type: application/openmetrics-text; version=1.0.0"
GZIP = "Content-Encoding: gzip"


# --- bodies without an end ---


@hostile(TOO_LARGE)
async def gzip_bomb(reader: Reader, writer: Writer) -> None:
    """10 GB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    await send(writer, HEAD, b"Content-Encoding: gzip\r\n\r\n", start)
    for _ in range(10_000):
        await send(writer, block)


@hostile(r"^more than 1024 gzip members in one body$|" + TOO_LARGE)
async def gzip_members(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Content-Encoding: gzip\r\n\r\n")
    await forever(writer, gzip.compress(b"") * 1000)


@hostile(TOO_LARGE)
async def endless_body(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"\r\n")
    await forever(writer, b"# nothing to see here\n" * 3000)


@hostile(TOO_LARGE)
async def endless_line(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"\r\n")
    await forever(writer, b"a" * 65536)


@hostile(SLOW)
async def slow_drip(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"\r\n")
    await forever(writer, b"a 1\n", 0.05)


@hostile(SLOW)
async def large_slow_drip(reader: Reader, writer: Writer) -> None:
    """Takes as much memory as it may without an end, and holds it."""
    await send(writer, HEAD, b"\r\n", b"# words\n" * 1_900_000)
    await forever(writer, b"a 1\n", 0.05)


@hostile(SLOW)
async def another_large_slow_drip(reader: Reader, writer: Writer) -> None:
    await large_slow_drip(reader, writer)


@hostile(SLOW)
async def a_third_large_slow_drip(reader: Reader, writer: Writer) -> None:
    await large_slow_drip(reader, writer)


# --- heads ---


@hostile(NOT_HTTP)
async def endless_headers(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD)
    await forever(writer, b"X-More: and more\r\n" * 100)


@hostile(NOT_HTTP)
async def endless_header_line(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"X-More: ")
    await forever(writer, b"a" * 65536)


@hostile(NOT_HTTP)
async def set_cookie_flood(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Set-Cookie: a=b; Path=/\r\n" * 5000, b"Content-Length: 4\r\n\r\na 1\n")


@hostile(SLOW)
async def slow_head(reader: Reader, writer: Writer) -> None:
    for byte in count():
        await send(writer, HEAD[byte % len(HEAD) : byte % len(HEAD) + 1])
        await asyncio.sleep(0.1)


@hostile("^more than 8 interim")
async def interim_flood(reader: Reader, writer: Writer) -> None:
    await forever(writer, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)


@hostile(NOT_HTTP)
async def http_0_9(reader: Reader, writer: Writer) -> None:
    await send(writer, b"a 1\n")


@hostile(NOT_HTTP)
async def not_http_at_all(reader: Reader, writer: Writer) -> None:
    await send(writer, b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await asyncio.sleep(60)


@hostile(f"{NOT_HTTP}|{BROKEN}")
async def header_injection(reader: Reader, writer: Writer) -> None:
    await send(writer, b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\x00d\r\n\x0b: e\r\nContent-Length: 4\r\n\r\na 1\n")


# --- connections ---


@hostile("^connected, but no answer within")
async def silence(reader: Reader, writer: Writer) -> None:
    await asyncio.sleep(60)


@hostile("^the connection was closed without an answer$")
async def close_at_once(reader: Reader, writer: Writer) -> None:
    pass


@hostile("^the connection (broke: connection reset by peer|was closed without an answer)$")
async def reset(reader: Reader, writer: Writer) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@hostile("", up=True, greets=True)
async def answers_before_it_is_asked(reader: Reader, writer: Writer) -> None:
    await page(writer, "a 1\n")
    await asyncio.sleep(0.2)


@hostile("", up=True)
async def leftover_bytes(reader: Reader, writer: Writer) -> None:
    """A second answer that nobody asked for, kept for the next scrape of whoever gets the connection."""
    await page(writer, "a 1\n")
    await page(writer, "smuggled 1\n")
    await asyncio.sleep(60)


# --- framing and coding ---


@hostile(BROKEN)
async def content_length_too_long(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Content-Length: 100\r\n\r\na 1\n")


@hostile(f"^line 1: not `name{{labels}} value`: 'a'$|{NOT_HTTP}")
async def content_length_too_short(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Content-Length: 1\r\n\r\na 1\n")


@hostile(f"{NOT_HTTP}|{BROKEN}")
async def two_content_lengths(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Content-Length: 4\r\nContent-Length: 8\r\n\r\na 1\nb 1\n")


@hostile(f"{NOT_HTTP}|{BROKEN}")
async def negative_content_length(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Content-Length: -1\r\n\r\na 1\n")


@hostile(f"{NOT_HTTP}|{BROKEN}")
async def chunks_that_lie(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\nb 1\n\r\nffffffffffffffffff\r\n")


@hostile(f"{BROKEN}|{SLOW}")
async def chunks_without_an_end(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n")


@hostile(f"{TOO_LARGE}|{SLOW}|^\\d+ bytes came for \\d+ bytes of body")
async def chunks_of_one_byte(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Transfer-Encoding: chunked\r\n\r\n")
    await forever(writer, b"1\r\na\r\n" * 10_000)


@hostile(f"{NOT_HTTP}|{BROKEN}|{SLOW}|^\\d+ bytes came for \\d+ bytes of body")
async def chunk_extension_without_an_end(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Transfer-Encoding: chunked\r\n\r\n1;")
    await forever(writer, b"a" * 65536)


@hostile(f"{NOT_HTTP}|{BROKEN}|{SLOW}|^\\d+ bytes came for \\d+ bytes of body")
async def trailers_without_an_end(reader: Reader, writer: Writer) -> None:
    await send(writer, HEAD, b"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n0\r\n")
    await forever(writer, b"X-More: and more\r\n" * 1000)


@hostile("^the body is not gzip, as its Content-Encoding says$")
async def gzip_that_is_none(reader: Reader, writer: Writer) -> None:
    await page(writer, "a 1\n", GZIP)


@hostile("^the gzip body was cut short$")
async def gzip_cut_short(reader: Reader, writer: Writer) -> None:
    await page(writer, gzip.compress(b"a 1\n" * 1000)[:-4], GZIP)


@hostile("^the page is gzip within gzip$")
async def gzip_in_gzip(reader: Reader, writer: Writer) -> None:
    await page(writer, gzip.compress(gzip.compress(b"a 1\n")), GZIP)


@hostile("^content coding 'gzip, ?gzip' was not asked for")
async def gzip_twice(reader: Reader, writer: Writer) -> None:
    await page(writer, gzip.compress(gzip.compress(b"a 1\n")), "Content-Encoding: gzip, gzip")


@hostile("^the page is gzip and does not say so")
async def gzip_that_says_identity(reader: Reader, writer: Writer) -> None:
    await page(writer, gzip.compress(b"a 1\n"), "Content-Encoding: identity")


@hostile("^content coding 'br' was not asked for")
async def brotli(reader: Reader, writer: Writer) -> None:
    await page(writer, "a 1\n", "Content-Encoding: br")


@hostile("^content coding 'deflate' was not asked for")
async def deflate(reader: Reader, writer: Writer) -> None:
    await page(writer, zlib.compress(b"a 1\n"), "Content-Encoding: deflate")


@hostile("^content coding 'zstd' was not asked for")
async def zstandard(reader: Reader, writer: Writer) -> None:
    await page(writer, b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd")


# --- statuses and types ---


def answers(name: str, reason: str, status: str, *fields: str, body: bytes | str = "") -> None:
    async def behave(reader: Reader, writer: Writer) -> None:
        await page(writer, body, *fields, status=status)

    TARGETS[name] = Hostile(behave, False, reason)


answers("status_204", "^HTTP status 204 No Content$", "204 No Content")
answers("status_206", "^HTTP status 206 Partial Content$", "206 Partial Content", body="a 1\n")
answers("status_304", "^HTTP status 304: redirects are not followed$", "304 Not Modified")
answers("status_401", r"^HTTP status 401 Unauthorized \(a scrape has no credentials\)$", "401 Unauthorized")
answers("status_404", r"^HTTP status 404 Not Found \(is `path` in its metrics right\?\)$", "404 Not Found")
answers("status_500", "^HTTP status 500 Internal Server Error$", "500 Oops", body="a 1\n")
answers("status_999", "^HTTP status 999$|" + NOT_HTTP, "999 Odd", body="a 1\n")
for name, place in {
    "redirect_to_itself": "/metrics",
    "redirect_to_another_host": "http://192.0.2.1/metrics",
    "redirect_to_link_local": "http://169.254.169.254/latest/meta-data/",
    "redirect_to_a_file": "file:///etc/passwd",
}.items():
    answers(name, f"^HTTP status 302: redirects are not followed .to '{place}'.$", "302 Found", f"Location: {place}")
for name, kind in {
    "html": "text/html",
    "protobuf": "application/vnd.google.protobuf",
    "json": "application/json",
}.items():
    answers(f"type_{name}", f"^content type '{kind}' is no format of metrics$", "200 OK", f"Content-Type: {kind}")


# --- pages ---


def pages(name: str, reason: str, body: bytes | str, *fields: str, up: bool = False) -> None:
    async def behave(reader: Reader, writer: Writer) -> None:
        await page(writer, body, *fields)

    TARGETS[name] = Hostile(behave, up, reason)


pages("bad_utf8", "^line 2: not UTF-8 at byte 9$", b'a 1\na{b="\xff"} 1\n')
pages("nul_bytes", "^line 1: not `name{labels} value`", b"\0" * 5000)
pages("byte_order_mark", "^line 1: a byte order mark", "\ufeffa 1\n")
pages("huge_line", r"^a line of more than \d+ bytes \(scrape_limits\.", "a" * 8_000_000 + " 1\n1")
pages("many_labels", r"^line 1: 10000 labels, at most 64 are accepted \(scrape_limits\.labels\)$",
      "a{" + ",".join(f'l{n}="1"' for n in range(10_000)) + "} 1\n")  # fmt: skip
pages(
    "a_million_labels",
    r"^a line of more than \d+ bytes",
    "a{" + ",".join(f'l{n}="1"' for n in range(1_000_000)) + "} 1\n",
)
pages("long_label_value", r"^line 1: the value of the label 'b' has 1000000 characters, at most 8192",
      'a{b="' + "x" * 1_000_000 + '"} 1\n')  # fmt: skip
pages("long_label_name", r"^line 1: the name of the label '.*' has 1000 characters, at most 512",
      "a{" + "x" * 1000 + '="b"} 1\n')  # fmt: skip
pages("label_given_twice", "^line 1: a label is given twice", 'a{b="1",b="2"} 1\n')
pages("empty_label_name", "^line 1: a label is given twice, is empty", 'a{""="1"} 1\n')
pages("empty_metric_name", "^line 1: a sample without a metric name$", '{""} 1\n')
pages("two_million_samples", r"^\d+ (samples|lines), at most \d+ are accepted \(scrape_limits\.(samples|lines)\)$",
      "a 1\n" * 2_000_000)  # fmt: skip
pages("too_many_samples", r"^150000 samples, at most 100000 are accepted \(scrape_limits\.samples\)$",
      "".join(f'a{{b="{n}"}} 1\n' for n in range(150_000)))  # fmt: skip
pages("only_newlines", "^2000000 lines, at most", "\n" * 2_000_000)
pages("value_1e400", "", "a 1e400\nb -1e400\nc 1e-400\n", up=True)
pages("values_not_finite", "", "a NaN\nb +Inf\nc -Inf\nd nan\ne inf\n", up=True)
pages("value_hexadecimal", "^line 1: '0x10' is no number$", "a 0x10\n")
pages("value_with_underscores", "^line 1: '1_000' is no number$", "a 1_000\n")
pages("value_missing", "^line 2: not `name{labels} value`", "a 1\nb\n")
pages("far_future", "", "a 1 99999999999999999\nb 1 -99999999999999999\nc 1 0\n", up=True)
pages("time_stamp_that_is_none", "^line 1: 'yesterday' is no time stamp$", "a 1 yesterday\n")
pages("same_series_twice", "^1 samples left out: another one is the same series$", "a 1\na 2\n", up=True)
pages("same_series_at_two_times", "^1 samples left out: another one", "a 1 1000\na 2 2000\n", up=True)
pages("type_after_samples", "", "a 1\n# TYPE a counter\n# TYPE a gauge\n# TYPE a gauge\n", up=True)
pages(
    "le_that_is_odd", "", '# TYPE h histogram\nh_bucket{le="x"} 1\nh_bucket{le=""} 1\nh_bucket{le="NaN"} 2\n', up=True
)
pages("names_that_are_ours", "^5 samples left out: their names begin with",
      "fly_edge_http_responses_count 9\nflyproxy_x 1\nup 0\nscrape_duration_seconds 9\nfly_instance_up 0\nmine 1\n",
      up=True)  # fmt: skip
pages("labels_that_are_ours", "",
      'spoof{app="shop",region="mars",host="x",instance="y",exported_app="z",organization="other"} 1\n',
      up=True)  # fmt: skip
pages("quoted_names", "", '{"a.b","other-label"="x"} 1\n{"ünïcode \\"q\\"",app="x"} 2\n', up=True)
pages("exemplar_that_is_none", "^line 2: unexpected", "# TYPE a counter\na_total 1 # {oops\n# EOF\n", OM)
pages("openmetrics_without_end", "^no `# EOF` at the end", "a 1\n", OM)
pages("openmetrics_beyond_its_end", "^no `# EOF` at the end", "a 1\n# EOF\nb 1\n", OM)
pages("megabytes_of_help", "", "".join(f"# HELP a{n} {'words ' * 100}\n" for n in range(25_000)) + "a 1\n", up=True)

_scrapes = count()


@hostile("", up=True)
async def another_layout_each_time(reader: Reader, writer: Writer) -> None:
    scrape = next(_scrapes)
    await page(writer, "".join(f'a{scrape}{{b="{n}"}} 1\n' for n in range(5_000)))


@hostile("", up=True)
async def flapping(reader: Reader, writer: Writer) -> None:
    """Up first; who looks later may find it down."""
    flapping_scrapes.append(time.monotonic())
    await page(writer, "a 1\n", status="200 OK" if len(flapping_scrapes) % 2 else "503 Down")


flapping_scrapes: list[float] = []


# --- TLS ---


@hostile("", up=True, https=True, tls=True)
async def expired_self_signed(reader: Reader, writer: Writer) -> None:
    await page(writer, "a 1\n")


@hostile("^the TLS handshake failed: it answers in something else", https=True, greets=True)
async def plain_where_tls_is_meant(reader: Reader, writer: Writer) -> None:
    await reader.read(1)
    await page(writer, "a 1\n", status="400 Bad Request")
    await asyncio.sleep(0.2)


@hostile("^(the connection was closed without an answer|not an HTTP answer|the connection broke)", tls=True)
async def tls_where_plain_is_meant(reader: Reader, writer: Writer) -> None:
    await page(writer, "a 1\n")


@hostile("^(no connection within|the TLS handshake failed)", https=True, greets=True)
async def silence_where_tls_is_meant(reader: Reader, writer: Writer) -> None:
    await asyncio.sleep(60)


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parent / "expired_self_signed.pem")
    return context


def served(target: Hostile) -> Callable[[Reader, Writer], Awaitable[None]]:
    async def converse(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ssl.SSLError):
            if not target.greets:
                await reader.readuntil(b"\r\n\r\n")
            await target.behave(reader, writer)
        writer.close()

    return converse


@contextlib.asynccontextmanager
async def nobody_there() -> AsyncIterator[tuple[int, int]]:
    """(a port that refuses, a port that does not even do that: its queue is full)."""
    with socket.socket() as refusing, socket.socket() as full, contextlib.ExitStack() as stack:
        refusing.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield refusing.getsockname()[1], full.getsockname()[1]


async def main() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    told = {}
    for name, target in TARGETS.items():
        server = await asyncio.start_server(
            served(target), "127.0.0.1", 0, ssl=tls_context() if target.tls else None, limit=1 << 20
        )
        port = server.sockets[0].getsockname()[1]
        told[name] = {
            "port": port,
            "https": target.https,
            "up": target.up,
            "reason": target.reason,
            "large": name in LARGE,
            "slow": SLOW,
        }
    async with nobody_there() as (refusing, full):
        nobody = {"https": False, "up": False, "large": False, "slow": SLOW}
        reason = rf"^connection refused \(is it listening on 0\.0\.0\.0:{refusing}\?\)$"
        told["refused"] = {**nobody, "port": refusing, "reason": reason}
        told["black_hole"] = {**nobody, "port": full, "reason": "^no connection within"}
        print(json.dumps(told), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
