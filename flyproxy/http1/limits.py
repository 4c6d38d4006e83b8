"""The bounds of one message: each has a name and a unit; what is beyond one is refused, no bound is ever stretched."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What a parser and a chunked body will take; the defaults are those of the configuration's `limits`."""

    head_bytes: int = 32 * 1024
    """A whole head: empty lines in front, every line end and the empty line behind it included."""
    line_bytes: int = 8 * 1024
    """One line without its CRLF; the request line beyond it is a 414, a header line a 431."""
    header_count: int = 100
    chunk_line_bytes: int = 256
    """A chunk's size line with its extensions, without CRLF."""
    trailer_bytes: int = 8192
    """The whole trailer section of one body."""
    leading_empty_lines: int = 2
    """Empty lines tolerated before a request line (RFC 9112 2.2)."""
    chunk_extension_bytes: int = 4096
    """All chunk extensions of one body together: 1-byte chunks must not carry megabytes nobody reads."""
