"""Connections read without I/O, by every implementation there is, as flyproxy.http1 or as a copy of it reads them.

What is said of a connection is a plain value: one entry for each message, then how it stands at the end. Two readers,
or two ways to cut the same bytes, agree when these are equal.
"""

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

from flyproxy.edge.forwarding import OWNED

OPEN, COMPLETE, FAULT, SURPLUS = "open", "complete", "fault", "surplus"
Said = tuple[Any, ...]
"""A head's values; what its body was; ("fault", status), ("open",), ("complete",) or ("surplus",) at the end."""


class Codec:
    """http1, imported as `package`: the modules of a mutated copy are of other types, hence Any."""

    def __init__(self, package: str = "flyproxy.http1") -> None:
        def module(name: str) -> Any:
            return importlib.import_module(f"{package}.{name}")

        parser = module("parser")
        self.ChunkedBody: Any = module("body").ChunkedBody
        self.CountedBody: Any = module("body").CountedBody
        self.HttpFault: Any = module("faults").HttpFault
        self.HeadLimits: Any = module("limits").HeadLimits
        self.request_parsers: dict[str, Any] = {
            "strict": parser.StrictRequestParser,
            "cached": parser.CachedRequestParser,
        }
        self.response_parsers: dict[str, Any] = {
            "strict": parser.StrictResponseParser,
            "cached": parser.CachedResponseParser,
        }
        if package == "flyproxy.http1" and parser.TYPED is not None:
            self.request_parsers["typed"] = parser.request_parser
            self.response_parsers["typed"] = parser.response_parser

    def requests(self, parser: Any, pieces: Iterator[bytes] | list[bytes], limits: Any) -> list[Said]:
        """What a client's connection says; the last head is handed on, as the edge does it."""
        said: list[Said] = []
        buffer, body, before = b"", None, None
        try:
            for piece in pieces:
                buffer += piece
                while buffer or body is not None:
                    if body is None:
                        head = parser.parse(buffer, before)
                        if head is None:
                            break
                        said.append(values_of(head))
                        before = head if head.plain else None
                        buffer = buffer[head.size :]
                        if head.chunked:
                            body = self.ChunkedBody(limits, owned=OWNED)
                        elif head.content_length > 0:
                            body = self.CountedBody(head.content_length)
                        else:
                            continue
                    if not buffer:
                        break
                    buffer = buffer[body.feed(buffer) :]
                    if not body.complete:
                        break
                    said.append(("body", body.received, getattr(body, "content", None)))
                    body = None
        except self.HttpFault as fault:
            return [*said, (FAULT, fault.status)]
        return [*said, (OPEN,)] if buffer or body is not None else said

    def answer(self, parser: Any, pieces: list[bytes], method: bytes, limits: Any) -> list[Said]:
        """What an instance's connection says to one request of this method."""
        said: list[Said] = []
        buffer, body, final = b"", None, False
        try:
            for piece in pieces:
                buffer += piece
                while not final and buffer:
                    head = parser.parse(buffer, method)
                    if head is None:
                        break
                    said.append(values_of(head))
                    buffer = buffer[head.size :]
                    final = head.status >= 200 or head.status == 101
                    if final and head.has_body:
                        if head.chunked:
                            body = self.ChunkedBody(limits, fault_status=502)
                        elif head.content_length >= 0:
                            body = self.CountedBody(head.content_length)
                if body is not None and not body.complete:
                    buffer = buffer[body.feed(buffer) :]
        except self.HttpFault as fault:
            return [*said, (FAULT, fault.status)]
        if not final or (body is not None and not body.complete):
            return [*said, (OPEN,)]
        if buffer and (body is not None or not said[-1][-1]["has_body"]):
            return [*said, (SURPLUS,)]
        return [*said, (COMPLETE, getattr(body, "content", None))]


def values_of(head: Any) -> Said:
    """A head as a value: it may be changed when it is handed on."""
    named = {field.name: getattr(head, field.name) for field in dataclasses.fields(head) if field.compare}
    return ("head", named)


def byte_by_byte(raw: bytes) -> list[bytes]:
    return [raw[position : position + 1] for position in range(len(raw))]


def splits(raw: bytes, most: int = 400) -> Iterator[list[bytes]]:
    """Every way to cut these bytes in two; of long ones `most` of them."""
    for cut in range(0, len(raw), 1 + len(raw) // most):
        yield [raw[:cut], raw[cut:]]
