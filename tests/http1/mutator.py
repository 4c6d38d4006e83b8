"""Good and evil messages, broken at random: the same seed gives the same messages."""

import random
from pathlib import Path

from tests.http1.case_files import CASES, load_all, unescape

BYTES_MAX = 3000
"""Longer messages are no seeds: they cost much and say little."""
GOLDENS = CASES.parent / "messages"
EVIL = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\x00",
        b" ",
        b"\t",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b":",
        b",",
        b";",
        b'"',
        b"%",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b.test\r\n"),
    *(b"Connection: close\r\n", b"Connection: X-A, X-B\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n"),
    *(
        b"X-Forwarded-For: 1.2.3.4\r\n",
        b"TE: trailers\r\n",
        b"Content_Length: 5\r\n",
        b"X-A: b\r\n",
        b"Cookie: a=b\r\n",
    ),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"0x", b"+", b"-", b"chunked", b"identity", b"gzip, ", b" HTTP/1.0", b"1.2"),
    *(
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"99999999999999999999",
        b"#",
        b"\\",
    ),
)


def seeds(kind: str) -> list[bytes]:
    """All cases and golden messages of `requests` or `responses`."""
    raws = [case.raw for case in load_all(kind)]
    for path in sorted(GOLDENS.rglob("*.txt")):
        description, _, message = path.read_bytes().partition(b"\n---\n")
        if description.startswith(kind[:-1].encode()):
            raws.append(unescape(message))
    return [raw for raw in raws if len(raw) <= BYTES_MAX]


def found(kind: str) -> list[tuple[str, bytes, bytes]]:
    """What fuzzing found before: file, method (of an answer's request), message."""
    messages = []
    for path in sorted((CASES / "found").glob("*.txt")):
        description, _, message = path.read_bytes().partition(b"\n---\n")
        said, _, method = description.decode().partition(" ")
        if said == kind:
            messages.append((path.name, method.encode(), unescape(message)))
    return messages


class Mutator:
    """Takes one of the seeds, and breaks it in one to four places."""

    def __init__(self, seeds: list[bytes], seed: int) -> None:
        self._seeds = seeds
        self._random = random.Random(seed)
        self._ways = (
            self._flip,
            self._insert,
            self._remove,
            self._double,
            self._splice,
            self._lines,
            self._case,
            self._again,
        )

    def next(self) -> bytes:
        raw = self._random.choice(self._seeds)
        for _ in range(self._random.randint(1, 4)):
            raw = self._random.choice(self._ways)(raw)
        return raw[:BYTES_MAX]

    def _place(self, raw: bytes) -> int:
        return self._random.randrange(len(raw) + 1)

    def _flip(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + bytes((self._random.randrange(256),)) + raw[at + 1 :]

    def _insert(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + self._random.choice(EVIL) + raw[at:]

    def _remove(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + raw[at + self._random.randint(1, 8) :]

    def _double(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + raw[at : at + self._random.randint(1, 40)] + raw[at:]

    def _splice(self, raw: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return raw[: self._place(raw)] + other[self._place(other) :]

    def _lines(self, raw: bytes) -> bytes:
        """Shuffle, drop, double or borrow whole lines."""
        lines = raw.split(b"\r\n")
        at = self._random.randrange(len(lines))
        way = self._random.randrange(4)
        if way == 0:
            other = self._random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif way == 1:
            del lines[at]
        elif way == 2:
            lines.insert(at, lines[at])
        else:
            lines.insert(at, self._random.choice(self._random.choice(self._seeds).split(b"\r\n")))
        return b"\r\n".join(lines)

    def _again(self, raw: bytes) -> bytes:
        """The same once more on the same connection, but for one byte: the readers compare it with what came before."""
        return raw + self._flip(raw)

    def _case(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + raw[at : at + 20].swapcase() + raw[at + 20 :]


def found_file(kind: str, method: bytes, raw: bytes) -> Path:
    """Where a message that fuzzing found is kept."""
    return CASES / "found" / f"{kind}-{random.Random(raw + method).randrange(1 << 32):08x}.txt"
