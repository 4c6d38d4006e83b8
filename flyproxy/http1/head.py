"""What a head says. A head exists only when all its lines were checked, so whoever holds one may pass its bytes on."""

from dataclasses import dataclass, field

CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """How the lines of a request were read: by their names alone, but for a few. Holds nothing a client is known by."""

    names: tuple[bytes, ...]
    """Every line's name with its colon, as spelled."""
    same: tuple[tuple[int, bytes], ...]
    """The lines that must be the same again, and do not go on: Connection, and what is dropped."""
    host_at: int
    """Which line is Host."""
    length_at: int
    """Which line is Content-Length; -1: none."""
    dropped: tuple[int, ...]
    """All these, the last first."""
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """As Shape, of an answer that is not to HEAD."""

    names: tuple[bytes, ...]
    """The status line, then every line's name with its colon, as spelled."""
    special: tuple[tuple[int, bytes], ...]
    """The lines that must be the same again, the status line first, which goes on, then those that do not."""
    length_at: int
    """Which line is Content-Length; -1: none."""
    dropped: tuple[int, ...]
    """The lines that do not go on as they are, the last first."""


@dataclass(slots=True)
class RequestHead:
    """One request's head (RFC 9112 3), taken apart as a front door needs it."""

    method: bytes
    target: bytes
    """As it goes on: origin-form, or b"*" for OPTIONS. An absolute-form was turned into one of these."""
    minor: int
    """The 1 in HTTP/1.1, or 0."""
    host: bytes
    """Lower case, without port or final dot, IPv6 in brackets; b"" only for HTTP/1.0 without Host."""
    block: bytes
    """Header lines that may go on, each with its CRLF: `Host: ` with its value as it was sent (unless there was none),
    then the others as they were sent, in order: nothing hop-by-hop or named by Connection, no framing, nothing
    proxy-owned. `Expect: 100-continue` is among them when `expect_continue` is."""
    owned: dict[bytes, bytes] | None
    """Proxy-owned headers the client sent: lower-case name to the last value (lists such as X-Forwarded-For: all
    values joined by ", "); None when there were none."""
    content_length: int
    """Bytes; -1 without a Content-Length."""
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    """The client waits for a 100 before it sends its body; never for HTTP/1.0 or without a body."""
    upgrade: bytes | None
    """Lower-case Upgrade value, e.g. b"websocket"; only with `Connection: upgrade`, HTTP/1.1 and no body."""
    te_trailers: bool
    """The client said `TE: trailers`."""
    size: int
    """Bytes of the head in the buffer: empty lines in front and the empty line behind included."""
    plain: bool
    """Nothing but a question: HTTP/1.1, no body, nothing upgraded, expected or claimed."""
    tail: bytes = field(default=b"", compare=False, repr=False)
    """All bytes behind the request line as they came, if the connection's next head may be compared with them."""
    reader: object = field(default=None, compare=False, repr=False)
    """Whose bounds they were found good by."""

    @property
    def host_line_value(self) -> bytes:
        """The Host value as it was sent, to go on."""
        return self.block[len(b"Host: ") : self.block.index(CRLF)] if self.host else b""

    @property
    def lines(self) -> list[bytes]:
        """What goes on besides Host, a line each, without CRLF."""
        return self.block.split(CRLF)[1 if self.host else 0 : -1]


@dataclass(slots=True)
class ResponseHead:
    """One answer's head (RFC 9112 4), read against the request it answers."""

    status: int
    """100 to 599."""
    reason: bytes
    minor: int
    start: bytes
    """The status line, rebuilt, and the header lines that may go on as they were sent, in order, each with its CRLF."""
    content_length: int
    """As announced, -1 if it was not; with `has_body` false it only tells what a GET would have got."""
    chunked: bool
    """As announced; see content_length."""
    keep_alive: bool
    """The connection may serve another request after this answer; false for a body that ends at close, and for 101."""
    upgrade: bytes | None
    """Lower-case Upgrade value of a 101, else None."""
    size: int
    has_body: bool
    """False for answers to HEAD and for 1xx, 204 and 304: no body byte may follow. True with neither length nor
    chunked: the body ends when the connection does."""
    extent: int
    """Bytes of the whole answer, head and body; -1: only its end tells, or it is not the final one."""
    framing: bytes
    """The line that says how long the body is, with its CRLF; b"" when nothing does."""
    dated: bool
    """It says when it was made (RFC 9110 6.6.1: whoever passes on one that does not must say it)."""
    raw: bytes = field(default=b"", compare=False, repr=False)
    """The head as it came, if the next answer on the same connection may be compared with it; b"": it may not."""
    reader: object = field(default=None, compare=False, repr=False)
    """Whose bounds it was found good by."""
    shape: "AnswerShape | None" = field(default=None, compare=False, repr=False)
    """How these lines were read, if the connection's next head may be read in the same way."""

    @property
    def lines(self) -> list[bytes]:
        """What goes on, a line each, without CRLF."""
        return self.start.split(CRLF)[1:-1]
