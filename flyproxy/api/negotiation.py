"""Whether an answer may be compressed (RFC 9110 12.5.3), and doing it without holding up the loop."""

import asyncio
import gzip

from aiohttp import web

GZIP_BYTES_MIN = 1024
"""A smaller body goes out as it is: its packet would not get smaller."""
GZIP_INLINE_BYTES = 16 * 1024
"""A larger one is compressed on a thread (10 ms a megabyte)."""
GZIP_BYTES_MAX = 64 * 1024 * 1024
"""A larger one goes out as it is: it would keep a thread for seconds."""
GZIP_LEVEL = 1
"""Answers are digits between repeated labels: level 6 is a fifth smaller in five times the time."""


async def compressed(request: web.Request, status: int, body: bytes, content_type: str) -> web.Response:
    """An answer, with gzip when the client takes it and it is worth it."""
    headers = {"Content-Type": content_type, "Vary": "Accept-Encoding"}
    if GZIP_BYTES_MIN <= len(body) <= GZIP_BYTES_MAX and accepts_gzip(joined(request, "Accept-Encoding")):
        headers["Content-Encoding"] = "gzip"
        if len(body) > GZIP_INLINE_BYTES:
            body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL)
        else:
            body = gzip.compress(body, GZIP_LEVEL)
    return web.Response(status=status, body=body, headers=headers)


def joined(request: web.Request, name: str) -> str:
    """All fields of one name as the list they are."""
    return ",".join(request.headers.getall(name, []))


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named, or else `*` is, with a quality above 0."""
    qualities = dict(_coding(item) for item in accept_encoding.split(","))
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _coding(item: str) -> tuple[str, float]:
    """Name and quality; one whose quality is no number between 0 and 1 counts as refused."""
    name, _, rest = item.partition(";")
    _, equals, weight = rest.partition("=")
    try:
        quality = float(weight) if equals else 1.0
    except ValueError:
        quality = 0.0
    return name.strip().lower(), quality if 0 <= quality <= 1 else 0.0
