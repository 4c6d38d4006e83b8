"""Bytes to heads. Three implementations of one interface that must never disagree.

A forwarded head is an attack on whoever reads it next, so what goes on is only what a strict grammar matched, and every
doubt is a refusal (RFC 9112 11.2, request smuggling). A head is read once, in this order: bounds, first line, each
header line by itself, the lines against each other. So the fault that is told does not depend on how the bytes came.

  Strict    walks the head with one possessive pattern per line; remembers nothing. The reference.
  Cached    is told the last head of the same connection. The same bytes behind the request line mean the same; else the
            names of the lines, in their order, are looked up among those of heads it has read (a Shape): what depends
            on names alone is known, values are checked all at once, Host and Content-Length are read. Else each raw
            line is looked up in a bounded memory of verdicts, then its name; any other line is read as Strict does.
            The default where nothing is compiled.
  Typed     http1/typed.pyx: ordinary heads in one pass over their bytes, all others by Cached.

Measured (bench/http1_parse.py, 623 bytes, ten header lines): 12 µs strict; cached 1.0 when a connection repeats itself,
3.4 when only the names are known; typed 0.65, whatever is known; h11 28, httptools 1.7.
Worst case: every name new. Then each line costs its pattern and two insertions; a memory is emptied when full, so it
never holds more than LINES_REMEMBERED * LINE_BYTES_REMEMBERED bytes of lines. Secrets are in no memory that is shared.

Called again with a longer buffer until the head is there: parsers keep nothing about a connection, one serves all.
"""

import importlib
from dataclasses import replace
from itertools import filterfalse
from types import ModuleType
from typing import Protocol

from flyproxy import extension
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.fields import (
    CONNECTION,
    CONTENT_LENGTH_KIND,
    DROP,
    FORWARDED,
    HOST,
    SECRET,
    TRANSFER_ENCODING,
    Field,
    FieldReader,
)
from flyproxy.http1.framing import block_of, settle_request, settle_response
from flyproxy.http1.grammar import (
    CONTENT_LENGTH,
    EVERYDAY_METHODS,
    HEADER_LINE_IN_HEAD,
    ORIGIN_LINE,
    STATUS_LINE,
    VALUE_BYTES,
    Authority,
    check_method,
    unusual_request_line,
)
from flyproxy.http1.head import AnswerShape, RequestHead, ResponseHead, Shape
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.shape import check_begun_request, check_begun_response, check_bounds, start_of_request

LINES_REMEMBERED = 4096
LINE_BYTES_REMEMBERED = 512
REMEMBERED_ONE_IN = 8
"""Of the lines that are new but bear a known name, one in so many is remembered: what comes again will soon be, and ids
that never do hardly fill the memory."""
NAMES_REMEMBERED = 1024
NAME_BYTES_REMEMBERED = 64
STATUS_LINES_REMEMBERED = 256
SHAPES_REMEMBERED = 256
SHAPE_LEARNT_ONE_IN = 8
"""Of the requests that are read anew: clients of different kinds take turns."""
HOSTS_REMEMBERED = 1024
TAIL_BYTES_REMEMBERED = 2048
"""Of a connection's last head: what is longer is not compared with the next one."""

_CRLF = b"\r\n"
_END = b"\r\n\r\n"
_starts_with = bytes.startswith


TYPED: ModuleType | None = importlib.import_module("flyproxy.http1.typed") if extension.is_used() else None
"""The typed readers, where they were built of these sources (http1/typed.pyx) and FLYPROXY_PURE does not forbid it."""


class RequestParser(Protocol):
    """Reads requests' heads."""

    def parse(self, buffer: bytes | bytearray, before: RequestHead | None = None) -> RequestHead | None:
        """The head the buffer begins with, or None while it is incomplete. Raises HttpFault; then close.

        before   the last head of the same connection, given up: it may come back as this one
        """
        ...

    def statistics(self) -> dict[str, int]:
        """Lines remembered now, and how often the memory was full and emptied."""
        ...


class ResponseParser(Protocol):
    """Reads answers' heads."""

    def parse(
        self, buffer: bytes | bytearray, request_method: bytes, before: ResponseHead | None = None
    ) -> ResponseHead | None:
        """The answer to a request of this method the buffer begins with, or None while it is incomplete.

        Raises HttpFault, always with status 502: the connection must not be used again.

        before   the last head on the same connection; it may come back as this one
        """
        ...

    def statistics(self) -> dict[str, int]:
        """As a RequestParser's."""
        ...


def request_parser(limits: HeadLimits, owned: frozenset[bytes]) -> RequestParser:
    """The parser to use for requests; `owned` are the lower-case names of the headers only the front door may set."""
    careful = CachedRequestParser(limits, owned)
    return careful if TYPED is None else TYPED.TypedRequestParser(limits, owned, careful)


def response_parser(limits: HeadLimits, dropped: frozenset[bytes] = frozenset()) -> ResponseParser:
    """The parser to use for answers; `dropped` are the lower-case names of headers that do not go on."""
    careful = CachedResponseParser(limits, dropped)
    return careful if TYPED is None else TYPED.TypedResponseParser(limits, dropped, careful)


class _StrictLines:
    """Reads all header lines of a head by a walk of patterns."""

    def __init__(
        self, limits: HeadLimits, owned: frozenset[bytes], *, request: bool, dropped: frozenset[bytes] = frozenset()
    ) -> None:
        self._limits = limits
        self._reader = FieldReader(limits, owned, request=request, dropped=dropped)

    def statistics(self) -> dict[str, int]:
        return {"lines_remembered": 0, "memory_emptied": 0}

    def _read(self, head: bytes, position: int) -> tuple[list[bytes], list[Field]]:
        """What goes on and what is to be looked at, of the lines from `position` in a head that ends in CRLF."""
        lines: list[bytes] = []
        fields: list[Field] = []
        line_bytes = self._limits.line_bytes
        while position < len(head):
            match = HEADER_LINE_IN_HEAD.match(head, position)
            end = match.end() if match is not None else head.find(_CRLF, position) + 2
            line = head[position : end - 2]
            if match is None or len(line) > line_bytes:
                raise self._reader.fault(line)
            field = self._reader.field(match[1].lower(), match[2], line)
            if field is FORWARDED:
                lines.append(line)
            else:
                fields.append(field)
            position = end
        return lines, fields


class _CachedLines:
    """Reads all header lines of a head by looking them up."""

    def __init__(
        self, limits: HeadLimits, owned: frozenset[bytes], *, request: bool, dropped: frozenset[bytes] = frozenset()
    ) -> None:
        self._limits = limits
        self._small_bytes = min(limits.line_bytes, limits.head_bytes)
        """A head up to here has no line and is no head beyond a bound."""
        self._header_count = limits.header_count
        self._reader = FieldReader(limits, owned, request=request, dropped=dropped)
        self._passing: set[bytes] = set()
        """Lines that go on as they are."""
        self._passes = self._passing.__contains__
        self._verdicts: dict[bytes, Field] = {}
        """Lines that somebody has to look at."""
        self._names: dict[bytes, bool] = {}
        """Names, as spelled, whose good lines always go on; whether such a line may be remembered."""
        self._unremembered = 0
        self._emptied = 0

    def statistics(self) -> dict[str, int]:
        return {"lines_remembered": len(self._passing) + len(self._verdicts), "memory_emptied": self._emptied}

    def _sort_out(self, lines: list[bytes], others: list[bytes]) -> list[Field]:
        """Take out of `lines` what does not simply go on, and return it; `others` are those not known to go on."""
        fields: list[Field] = []
        verdicts, names = self._verdicts, self._names
        for line in others:
            field = verdicts.get(line)
            if field is None:
                name, colon, value = line.partition(b":")
                may_be_remembered = names.get(name) if colon else None
                if may_be_remembered is not None and not value.translate(None, VALUE_BYTES):
                    if len(line) > self._limits.line_bytes:
                        raise self._reader.fault(line)
                    if may_be_remembered:
                        self._unremembered += 1
                        if self._unremembered >= REMEMBERED_ONE_IN:
                            self._remember(line, FORWARDED)
                    continue
                field = self._learn(line)
                if field is FORWARDED:
                    continue
            fields.append(field)
            lines.remove(line)
        return fields

    def _learn(self, line: bytes) -> Field:
        """The verdict on a line whose name is new, or that does not simply go on, or that is refused."""
        field, name = self._reader.read(line)
        secret = name in SECRET
        if field is FORWARDED and len(name) <= NAME_BYTES_REMEMBERED:
            if len(self._names) >= NAMES_REMEMBERED:
                self._names.clear()
                self._emptied += 1
            self._names[line[: len(name)]] = not secret
        if not secret:
            self._remember(line, field)
        return field

    def _remember(self, line: bytes, field: Field) -> None:
        if len(line) > LINE_BYTES_REMEMBERED:
            return
        self._unremembered = 0
        if len(self._passing) + len(self._verdicts) >= LINES_REMEMBERED:
            self._passing.clear()
            self._verdicts.clear()
            self._emptied += 1
        if field is FORWARDED:
            self._passing.add(line)
        else:
            self._verdicts[line] = field


class StrictRequestParser(_StrictLines):
    """The reference."""

    def __init__(self, limits: HeadLimits, owned: frozenset[bytes]) -> None:
        super().__init__(limits, owned, request=True)

    def parse(self, buffer: bytes | bytearray, before: RequestHead | None = None) -> RequestHead | None:
        limits = self._limits
        start = start_of_request(buffer, limits)
        end = buffer.find(_END, start)
        if end < 0:
            check_begun_request(buffer, start, limits)
            return None
        head = bytes(buffer[start : end + 2])
        first = head.find(_CRLF)
        check_bounds(head[:-2], first, end + 4, limits)
        method, target, minor, authority = _request_line(head[:first])
        lines, fields = self._read(head, first + 2)
        return settle_request(method, target, minor, authority, lines, fields, end + 4)


class CachedRequestParser(_CachedLines):
    """The default where nothing is compiled."""

    def __init__(self, limits: HeadLimits, owned: frozenset[bytes]) -> None:
        super().__init__(limits, owned, request=True)
        self._shapes: dict[int, Shape] = {}
        """The last one of every number of lines."""
        self._hosts: dict[bytes, Field] = {}
        self._unshaped = SHAPE_LEARNT_ONE_IN

    def parse(self, buffer: bytes | bytearray, before: RequestHead | None = None) -> RequestHead | None:
        head = self._as_before(buffer, before) if type(buffer) is bytes else None
        return head if head is not None else self._anew(buffer)

    def _as_before(self, buffer: bytes, before: RequestHead | None) -> RequestHead | None:
        """The head of a client that asks as it asked before, or with names that somebody asked with before; None: read
        it anew."""
        end = buffer.find(_CRLF)
        match = ORIGIN_LINE.fullmatch(buffer, 0, end) if end > 0 else None
        if match is None:
            return None
        method, target, digit = match.groups()
        if digit != b"1" or method not in EVERYDAY_METHODS:
            return None
        end += 2
        if before is not None and before.reader is not self:
            before = None
        if before is None or not before.tail or not buffer.startswith(before.tail, end):
            return self._by_names(buffer, end, method, target, before)
        size = end + len(before.tail)
        if size > self._small_bytes:
            return None
        before.size, before.method, before.target = size, method, target
        return before

    def _by_names(
        self, buffer: bytes, begin: int, method: bytes, target: bytes, before: RequestHead | None
    ) -> RequestHead | None:
        """The head whose lines begin there, if they have the names of a shape, and good values."""
        end = buffer.find(_END, begin)
        if end < 0 or end > self._small_bytes - 4:
            return None
        raw = buffer[begin:end]
        lines = raw.split(_CRLF)
        shape = self._shapes.get(len(lines))
        if (
            shape is None
            or not all(map(_starts_with, lines, shape.names))
            or len(raw.translate(None, VALUE_BYTES)) != 2 * len(lines) - 2
        ):
            return None
        for number, line in shape.same:
            if lines[number] != line:
                return None
        host = self._hosts.get(lines[shape.host_at]) or self._learn_host(lines[shape.host_at])
        if host is None:
            return None
        length = -1
        if shape.length_at >= 0:
            value = lines[shape.length_at][len(shape.names[shape.length_at]) :].strip(b" \t")
            if CONTENT_LENGTH.fullmatch(value) is None:
                return None
            length = int(value)
        if shape.dropped == (0,) and host.number:
            block = raw + _CRLF
        else:
            for number in shape.dropped:
                del lines[number]
            block = block_of(host.value, lines)
        plain = length < 0
        tail = raw + _END if plain and len(raw) <= TAIL_BYTES_REMEMBERED else b""
        if before is not None and plain and before.plain:
            before.method, before.target, before.host, before.block = method, target, host.meaning, block
            before.keep_alive, before.size, before.tail = shape.keep_alive, end + 4, tail
            return before
        return RequestHead(
            method, target, 1, host.meaning, block, None, length, False, shape.keep_alive, False, None, False, end + 4,
            plain, tail, self,
        )  # fmt: skip

    def _learn_host(self, line: bytes) -> Field | None:
        """What a Host line says, with `number` 1 if it is spelled as we spell it; None: nothing good."""
        try:
            host = self._reader.read(line)[0]
        except HttpFault:
            return None
        if line == b"Host: " + host.value:
            host = replace(host, number=1)
        if len(self._hosts) >= HOSTS_REMEMBERED:
            self._hosts.clear()
            self._emptied += 1
        if len(line) <= LINE_BYTES_REMEMBERED:
            self._hosts[line] = host
        return host

    def _anew(self, buffer: bytes | bytearray) -> RequestHead | None:
        start = start_of_request(buffer, self._limits) if buffer.startswith(_CRLF) else 0
        end = buffer.find(_END, start)
        if end < 0:
            check_begun_request(buffer, start, self._limits)
            return None
        size = end + 4
        raw = bytes(buffer[start:end])
        lines = raw.split(_CRLF)
        first = lines.pop(0)
        if size > self._small_bytes or len(lines) > self._header_count:
            check_bounds(raw, len(first), size, self._limits)
        match = ORIGIN_LINE.fullmatch(first)
        if match is None:
            method, target, minor, authority = unusual_request_line(first)
        else:
            method, target, digit = match.groups()
            minor, authority = int(digit == b"1"), None
            if method not in EVERYDAY_METHODS:
                check_method(method)
        came = list(lines)
        fields = self._sort_out(lines, list(filterfalse(self._passes, lines)))
        head = settle_request(method, target, minor, authority, lines, fields, size)
        if minor and authority is None:
            if head.plain and size <= TAIL_BYTES_REMEMBERED:
                head.tail, head.reader = raw[len(first) + 2 :] + _END, self
            self._unshaped += 1
            if self._unshaped >= SHAPE_LEARNT_ONE_IN:
                self._learn_shape(head, came, fields)
        return head

    def _learn_shape(self, head: RequestHead, came: list[bytes], fields: list[Field]) -> None:
        """Remember how the lines of an HTTP/1.1 head were read, if it was by their names."""
        said = all(
            field.kind in (HOST, DROP, CONTENT_LENGTH_KIND) or (field.kind == CONNECTION and not field.names)
            for field in fields
        )
        apart = {field.line: field.kind for field in fields}
        numbers = [number for number, line in enumerate(came) if line in apart]
        if not said or len(numbers) != len(fields):
            return
        self._unshaped = 0
        at = {apart[came[number]]: number for number in numbers}
        kept = (at[HOST], at.get(CONTENT_LENGTH_KIND, -1))
        if len(self._shapes) >= SHAPES_REMEMBERED:
            self._shapes.clear()
        self._shapes[len(came)] = Shape(
            tuple(line[: line.index(b":") + 1] for line in came),
            tuple((number, came[number]) for number in numbers if number not in kept),
            *kept,
            tuple(reversed(numbers)),
            head.keep_alive,
        )


class StrictResponseParser(_StrictLines):
    """The reference for answers."""

    def __init__(self, limits: HeadLimits, dropped: frozenset[bytes] = frozenset()) -> None:
        super().__init__(limits, frozenset(), request=False, dropped=dropped)

    def parse(
        self, buffer: bytes | bytearray, request_method: bytes, before: ResponseHead | None = None
    ) -> ResponseHead | None:
        limits = self._limits
        end = buffer.find(_END)
        try:
            if end < 0:
                check_begun_response(buffer, limits)
                return None
            head = bytes(buffer[: end + 2])
            first = head.find(_CRLF)
            check_bounds(head[:-2], first, end + 4, limits)
            status, reason, minor = _status_line(head[:first])
            lines, fields = self._read(head, first + 2)
            return settle_response(status, reason, minor, lines, fields, end + 4, request_method)
        except HttpFault as fault:
            raise HttpFault(502, fault.reason, fault.limit) from None


class CachedResponseParser(_CachedLines):
    """The default for answers where nothing is compiled."""

    def __init__(self, limits: HeadLimits, dropped: frozenset[bytes] = frozenset()) -> None:
        super().__init__(limits, frozenset(), request=False, dropped=dropped)
        self._status_lines: dict[bytes, tuple[int, bytes, int]] = {}
        self._shapes: dict[AnswerShape, AnswerShape] = {}

    def _learn_status_line(self, line: bytes) -> tuple[int, bytes, int]:
        read = _status_line(line)
        if len(line) <= LINE_BYTES_REMEMBERED:
            if len(self._status_lines) >= STATUS_LINES_REMEMBERED:
                self._status_lines.clear()
                self._emptied += 1
            self._status_lines[line] = read
        return read

    def parse(
        self, buffer: bytes | bytearray, request_method: bytes, before: ResponseHead | None = None
    ) -> ResponseHead | None:
        comparable = before is not None and before.raw and before.reader is self and request_method != b"HEAD"
        if before is not None and comparable and (buffer.startswith(before.raw) or self._same_names(buffer, before)):
            return before
        end = buffer.find(_END)
        try:
            if end < 0:
                check_begun_response(buffer, self._limits)
                return None
            size = end + 4
            raw = bytes(buffer[:end])
            lines = raw.split(_CRLF)
            first = lines.pop(0)
            if size > self._small_bytes or len(lines) > self._header_count:
                check_bounds(raw, len(first), size, self._limits)
            status, reason, minor = self._status_lines.get(first) or self._learn_status_line(first)
            fields = self._sort_out(lines, list(filterfalse(self._passes, lines)))
            head = settle_response(status, reason, minor, lines, fields, size, request_method)
            if status >= 200 and status != 204 and request_method != b"HEAD" and size <= TAIL_BYTES_REMEMBERED:
                head.raw, head.reader = raw + _END, self
            return head
        except HttpFault as fault:
            raise HttpFault(502, fault.reason, fault.limit) from None

    def _same_names(self, buffer: bytes | bytearray, before: ResponseHead) -> bool:
        """Whether this head has the status and the names of that before, and good values; then `before` has them."""
        end = buffer.find(_END)
        shape = before.shape or self._learn_shape(before)
        if shape is None or end < 0 or end > self._small_bytes - 4:
            return False
        raw = bytes(buffer[:end])
        lines = raw.split(_CRLF)
        if (
            len(lines) != len(shape.names)
            or not all(map(_starts_with, lines, shape.names))
            or len(raw.translate(None, VALUE_BYTES)) != 2 * len(lines) - 2
        ):
            return False
        for number, line in shape.special:
            if lines[number] != line:
                return False
        if shape.length_at >= 0:
            value = lines[shape.length_at][len(shape.names[shape.length_at]) :].strip(b" \t")
            if CONTENT_LENGTH.fullmatch(value) is None:
                return False
            before.content_length = int(value)
            before.framing = b"Content-Length: %d\r\n" % before.content_length
        for number in shape.dropped:
            del lines[number]
        lines.append(b"")
        before.start = _CRLF.join(lines)
        before.raw = raw + _END
        before.size = end + 4
        if before.extent >= 0:
            before.extent = before.size + (before.content_length if before.has_body else 0)
        return True

    def _learn_shape(self, head: ResponseHead) -> AnswerShape | None:
        """How the lines of an answer were read; None: not by their names."""
        first, *came = head.raw[:-4].split(_CRLF)
        fields = self._sort_out(list(came), list(filterfalse(self._passes, came)))
        by_name = (DROP, CONTENT_LENGTH_KIND, TRANSFER_ENCODING)
        said = all(field.kind in by_name or (field.kind == CONNECTION and not field.names) for field in fields)
        if not said or not head.start.startswith(first + _CRLF):
            head.raw = b""  # not to be asked again
            return None
        names = (first, *(line[: line.index(b":") + 1] for line in came))
        apart = {field.line: field.kind for field in fields}
        numbers = [number for number, line in enumerate(came, 1) if line in apart]
        length_at = next((number for number in numbers if apart[came[number - 1]] == CONTENT_LENGTH_KIND), -1)
        same = ((number, came[number - 1]) for number in numbers if number != length_at)
        shape = AnswerShape(names, ((0, first), *same), length_at, tuple(reversed(numbers)))
        if len(self._shapes) >= SHAPES_REMEMBERED:
            self._shapes.clear()
        shape = head.shape = self._shapes.setdefault(shape, shape)
        return shape


def _request_line(line: bytes) -> tuple[bytes, bytes, int, Authority | None]:
    match = ORIGIN_LINE.fullmatch(line)
    if match is None:
        return unusual_request_line(line)
    method, target, minor = match.groups()
    if method not in EVERYDAY_METHODS:
        check_method(method)
    return method, target, 1 if minor == b"1" else 0, None


def _status_line(line: bytes) -> tuple[int, bytes, int]:
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        raise HttpFault(400, "the answer's status line is not `HTTP/1.1 200 reason`")
    minor, status, reason = match.groups()
    return int(status), reason or b"", 0 if minor == b"0" else 1
