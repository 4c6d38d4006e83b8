"""A target's connection, bounded in what the HTTP client itself does not bound.

aiohttp waits as long for an answer as there are interim (1xx) ones, and takes any framing there is around a body: a
target that sends nothing else keeps the loop at work for its whole timeout (measured: 1.8 s of CPU of 2 s). So both are
counted where bytes come in, and no more are taken where there are too many.
"""

import asyncio
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from flyproxy.scrape.faults import FetchError

INTERIM_ANSWERS_MAX = 8
FRAMING_BYTES_MAX = 1024 * 1024
"""Heads, chunk sizes and trailers of one answer, beside one byte for each of the body."""
_INTERIM = range(100, 200)


class BoundedConnection(ResponseHandler):
    """Counts from each request on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0
        self._wire_bytes = 0
        self._given_up = False

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be sent."""
        self._interim = 0
        self._wire_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """From the transport."""
        if self._given_up:
            return
        self._wire_bytes += len(data)
        body_bytes = 0 if self._payload is None else self._payload.total_bytes
        if self._wire_bytes - len(data) > 2 * body_bytes + FRAMING_BYTES_MAX:
            self._give_up(f"{self._wire_bytes} bytes came for {body_bytes} bytes of body")
            return
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """A head was parsed."""
        if data[0].code in _INTERIM:
            self._interim += 1
            if self._interim > INTERIM_ANSWERS_MAX:
                self._give_up(f"more than {INTERIM_ANSWERS_MAX} interim (1xx) answers")
        if not self._given_up:
            super().feed_data(data, size)

    def _give_up(self, why: str) -> None:
        if self._given_up:
            return
        self._given_up = True
        fault = FetchError(why, "scrape_framing")
        self.set_exception(fault)
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(fault)
        if self.transport is not None:
            self.transport.pause_reading()  # whoever waits for the answer gets the fault, and closes the connection


class BoundedConnector(aiohttp.TCPConnector):
    """Makes such connections. (`_factory` is not aiohttp's public word; a test watches that it is still heard.)"""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._factory = cast("partial[ResponseHandler]", partial(BoundedConnection, loop=self._loop))
