"""A chunked body's bytes for a client that cannot read chunks: HTTP/1.0 (pure).

It is fed only bytes that http1's ChunkedBody has already found to be well-formed, so it checks nothing again.
"""


class Dechunker:
    """Takes validated chunked bytes in any pieces, gives the payload."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        """Bytes of the current chunk still to come, its CRLF included; 0: a size line comes next."""
        self._over = False

    def feed(self, framed: bytes) -> bytes:
        """The payload in these bytes; b"" when there is none."""
        payload = []
        position, end = 0, len(framed)
        while position < end and not self._over:
            if self._left > 0:
                taken = min(self._left, end - position)
                payload.append(framed[position : position + min(taken, max(0, self._left - 2))])
                self._left -= taken
                position += taken
                continue
            newline = framed.find(b"\n", position)
            if newline < 0:
                self._line += framed[position:]
                break
            size = int((self._line + framed[position:newline]).partition(b";")[0].strip(), 16)
            self._line = b""
            position = newline + 1
            self._left = size + 2
            self._over = size == 0
        return b"".join(payload)
