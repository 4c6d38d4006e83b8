"""A body, collected up to a bound that counts what it is unpacked to. Pure.

A gzip bomb is noticed STEP_BYTES beyond the bound, whatever it would have become. What comes packed is bounded too, and
so are the members of a gzip stream (RFC 1952 2.2): an empty one is 20 bytes and unpacks to nothing one could count.

A large body lies in a mapping of its own, whose untouched pages cost nothing: so it is never moved as it grows, and all
of it goes back to the system at once. (On the heap, bodies of 16 MiB that come and go left 60 MiB behind.)
"""

import mmap
import zlib
from collections.abc import Iterator

from flyproxy.scrape.faults import FetchError

GZIP_MEMBERS_MAX = 1024
STEP_BYTES = 64 * 1024
"""Unpacked at once."""
SMALL_BYTES = 256 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = zlib.MAX_WBITS | 16


class Unpacker:
    """Collects a body, packed or not."""

    def __init__(self, body_bytes_max: int) -> None:
        self.size = 0
        """Bytes, unpacked so far."""
        self.received = 0
        """Bytes, packed as they come."""
        self._max = body_bytes_max
        self._small = bytearray()
        self._large: mmap.mmap | None = None
        self._members_left = GZIP_MEMBERS_MAX
        self._gzip: zlib._Decompress | None = None

    def expect_gzip(self) -> None:
        """It comes packed; said before anything came."""
        self._gzip = zlib.decompressobj(_GZIP)

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Take what came, in steps between which others may go ahead. Raises FetchError."""
        self.received += len(chunk)
        if self.received > self._max:
            raise self._too_large()
        if self._gzip is None:
            self._take(chunk)
            yield
            return
        while chunk:
            if self._gzip.eof:
                self._members_left -= 1
                if self._members_left <= 0:
                    raise FetchError(f"more than {GZIP_MEMBERS_MAX} gzip members in one body", "scrape_body_bytes")
                self._gzip = zlib.decompressobj(_GZIP)
            try:
                piece = self._gzip.decompress(chunk, STEP_BYTES)
            except zlib.error:
                raise FetchError("the body is not gzip, as its Content-Encoding says") from None
            self._take(piece)
            chunk = self._gzip.unconsumed_tail or self._gzip.unused_data
            yield

    def whole(self) -> bytearray | memoryview:
        """The body, when there is no more. Raises FetchError."""
        if self._gzip is not None and not self._gzip.eof:
            raise FetchError("the gzip body was cut short")
        body = self._small if self._large is None else memoryview(self._large)[: self.size]
        if bytes(body[:2]) == _GZIP_MAGIC:
            if self._gzip is not None:
                raise FetchError("the page is gzip within gzip")
            raise FetchError("the page is gzip and does not say so (Content-Encoding: gzip)")
        return body

    def _take(self, piece: bytes) -> None:
        end = self.size + len(piece)
        if end > self._max:
            raise self._too_large()
        if self._large is None and end > SMALL_BYTES:
            self._large = mmap.mmap(-1, self._max)
            self._large[: self.size] = bytes(self._small)
            self._small = bytearray()
        if self._large is None:
            self._small += piece
        else:
            self._large[self.size : end] = piece
        self.size = end

    def _too_large(self) -> FetchError:
        return FetchError(
            f"the page is larger than the {self._max} bytes of scrape_limits.body_bytes", "scrape_body_bytes"
        )
