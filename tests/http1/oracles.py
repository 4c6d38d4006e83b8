"""What must hold for any bytes at all: all implementations agree, however the bytes are cut and whatever came before on
the connection or is remembered; and where h11 or llhttp refuse, we refuse.

Where we take what they refuse, the reason stands here.
"""

import random
import re
from typing import Any

import h11
import httptools

from flyproxy.edge.forwarding import OWNED, REPLACED
from tests.http1.reading import FAULT, Codec, Said, byte_by_byte, values_of

CUTS = 3
"""Random ways to cut each message, besides byte by byte."""
BYTEWISE_MAX = 600
LLHTTP_ONLY = (
    httptools.HttpParserInvalidMethodError,  # it knows a list of methods; RFC 9110 9.1 leaves the list open
)
LLHTTP_IS_WRONG = (
    re.compile(
        rb"(?:[^\r\n]* )?HTTP/1\.[2-9][ \r]"
    ),  # it knows a list of versions; a later 1.x is a 1.1 (RFC 9110 2.5)
    re.compile(rb"(?is).*\r\nTransfer-Encoding:[ \t]*chunked[ \t]*\t[ \t]*\r\n"),  # OWS may be a tab (RFC 9110 5.6.3)
)


class Oracle:
    """One reader of each kind that lives through all messages, so that what one leaves behind meets the next."""

    def __init__(self, codec: Codec, seed: int = 0, **limits: int) -> None:
        self._codec = codec
        self._limits = codec.HeadLimits(**limits)
        self._requests = {name: make(self._limits, OWNED) for name, make in codec.request_parsers.items()}
        self._responses = {name: make(self._limits, REPLACED) for name, make in codec.response_parsers.items()}
        self._random = random.Random(seed)
        self._befores: dict[str, Any] = dict.fromkeys(self._requests)

    def request(self, raw: bytes) -> str:
        """What is wrong with how a client's bytes are read; "" for nothing."""
        codec, limits = self._codec, self._limits
        said = {name: codec.requests(parser, [raw], limits) for name, parser in self._requests.items()}
        reference = said["strict"]
        if odd := [name for name, other in said.items() if other != reference]:
            return f"{odd[0]} says {said[odd[0]]}, strict {reference}"
        heads = {name: self._head(parser, raw, self._befores[name]) for name, parser in self._requests.items()}
        if odd := [name for name, (value, _) in heads.items() if value != heads["strict"][0]]:
            return f"after another head {odd[0]} says {heads[odd[0]][0]}, strict {heads['strict'][0]}"
        self._befores = {name: head if getattr(head, "plain", False) else None for name, (_, head) in heads.items()}
        for pieces in self._cuts(raw):
            for name, parser in self._requests.items():
                if (other := codec.requests(parser, pieces, limits)) != reference and not _earlier(other, reference):
                    return f"{name} says {other} of {pieces}, {reference} of the whole"
        return self._request_by_others(raw, reference)

    def answer(self, raw: bytes, method: bytes = b"GET") -> str:
        """What is wrong with how an instance's bytes are read."""
        codec, limits = self._codec, self._limits
        said = {name: codec.answer(parser, [raw], method, limits) for name, parser in self._responses.items()}
        reference = said["strict"]
        if odd := [name for name, other in said.items() if other != reference]:
            return f"{odd[0]} says {said[odd[0]]}, strict {reference}"
        for pieces in self._cuts(raw):
            for name, parser in self._responses.items():
                other = codec.answer(parser, pieces, method, limits)
                if other != reference and not _earlier(other, reference):
                    return f"{name} says {other} of {pieces}, {reference} of the whole"
        return self._answer_by_others(raw, method, reference)

    def _head(self, parser: Any, raw: bytes, before: Any) -> tuple[Any, Any]:
        """What one look at the beginning says, with its words, and the head."""
        try:
            head = parser.parse(raw, before)
        except self._codec.HttpFault as fault:
            return (fault.status, fault.reason, fault.limit), None
        return (None, None) if head is None else (values_of(head), head)

    def _cuts(self, raw: bytes) -> list[list[bytes]]:
        cuts = [byte_by_byte(raw)] if len(raw) <= BYTEWISE_MAX else []
        for _ in range(CUTS):
            places = sorted(self._random.randrange(len(raw) + 1) for _ in range(self._random.randint(1, 3)))
            cuts.append([raw[begin:end] for begin, end in zip([0, *places], [*places, len(raw)], strict=True)])
        return cuts

    def _request_by_others(self, raw: bytes, said: list[Said]) -> str:
        if not said or said[0][0] != "head":
            return ""
        head = said[0][1]
        body = said[1] if len(said) > 1 and said[1][0] == "body" else None
        whole = body is not None or (head["content_length"] <= 0 and not head["chunked"])
        if not whole:
            raw = raw[: head["size"]]  # its body is refused, or still to come
        # empty lines in front: h11 refuses them, RFC 9112 2.2 asks to ignore at least one; they never go on
        seen = _h11(h11.Connection(h11.SERVER), raw.lstrip(b"\r\n"))
        if isinstance(seen, str):
            return f"h11 refuses a request we take: {seen}"
        if seen[0].method != head["method"]:
            return "h11 reads another method"
        if whole and seen[1:] != (_content(head, body), True):
            return f"h11 reads a body of {seen[1:]}, we {body}"
        size = head["size"] + (body[1] if body is not None else 0)
        collected = _Collected()
        fault = _llhttp(httptools.HttpRequestParser(collected), collected, raw[:size].lstrip(b"\r\n"))
        if isinstance(fault, httptools.HttpParserUpgrade):
            return ""  # it reads no further
        if fault is not None:
            return f"llhttp refuses a request we take: {fault!r}"
        if whole and not collected.excused and collected.content != _content(head, body):
            return f"llhttp reads a body of {collected.content} bytes, we {body}"
        return ""

    def _answer_by_others(self, raw: bytes, method: bytes, said: list[Said]) -> str:
        if not said or said[0][0] != "head" or said[0][1]["status"] < 200:
            return ""  # a 101 that nobody asked for h11 refuses; that is the edge's to know
        head = said[0][1]
        raw = raw[: head["size"]]
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
        connection.send(h11.EndOfMessage())
        seen = _h11(connection, raw)
        if isinstance(seen, str):
            return f"h11 refuses an answer we take: {seen}"
        if seen[0].status_code != head["status"]:
            return "h11 reads another status"
        collected = _Collected()
        fault = _llhttp(httptools.HttpResponseParser(collected), collected, raw)
        if fault is not None and not isinstance(fault, httptools.HttpParserUpgrade):
            return f"llhttp refuses an answer we take: {fault!r}"
        return ""


def _earlier(other: list[Said], reference: list[Said]) -> bool:
    """A fault may be seen before all that is wrong is there: then another fault is told."""
    both = bool(other and reference) and other[-1][0] == reference[-1][0] == FAULT
    return both and other[:-1] == reference[:-1]


def _content(head: dict[str, Any], body: Said | None) -> int:
    if body is None:
        return 0
    return int(body[2]) if head["chunked"] else int(head["content_length"])


def _h11(connection: h11.Connection, raw: bytes) -> Any:
    """(head, bytes of content, whether it was whole), or why it is refused."""
    content, first = 0, None
    try:
        connection.receive_data(raw)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
                first = event
            elif isinstance(event, h11.Data):
                content += len(event.data)
            else:
                return (first, content, isinstance(event, h11.EndOfMessage)) if first is not None else "nothing read"
    except h11.RemoteProtocolError as refused:
        return str(refused)


class _Collected:
    """What llhttp tells of a body."""

    def __init__(self) -> None:
        self.content = 0
        self.excused = False

    def on_body(self, piece: bytes) -> None:
        self.content += len(piece)


def _llhttp(parser: Any, collected: _Collected, raw: bytes) -> Exception | None:
    """Why it refuses these bytes; HttpParserUpgrade where it reads no further; None if it takes them, or is wrong."""
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError) as said:
        if isinstance(said, httptools.HttpParserUpgrade):
            return said
        collected.excused = isinstance(said, LLHTTP_ONLY) or any(wrong.match(raw) for wrong in LLHTTP_IS_WRONG)
        return None if collected.excused else said
    return None
