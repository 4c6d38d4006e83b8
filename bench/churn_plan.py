"""What one connection of the churn carries and how each side ends it (pure), drawn from a seed: a run can be repeated.

Every connection's bytes are a window of their own into one block of noise. So whoever gets a byte of another
connection, or one of its own at another place, sees it.
"""

import random
from dataclasses import dataclass

NOISE = random.Random(4).randbytes(2 << 20)
WINDOWS = 1 << 20
STRIDE_BYTES = 4099
"""Between the windows of two neighbours; odd, so that WINDOWS connections have different ones."""
LARGE_BYTES = 256 << 10
"""Bodies above it may be spliced."""
CHUNK_BYTES = 20_000
KINDS = ("down", "chunked-down", "until-close", "up", "chunked-up", "tunnel", "raw")
WEIGHTS = (4, 2, 1, 3, 2, 2, 3)


def payload(number: int, size: int) -> bytes:
    """The bytes of this connection, at most 1 MiB."""
    start = number * STRIDE_BYTES % WINDOWS
    return NOISE[start : start + size]


def chunked(body: bytes) -> bytes:
    """A body in chunks, whole."""
    pieces = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, or one raw connection."""

    number: int
    kind: str
    size: int
    client_end: str
    """whole: everything is said and read; else at `client_at`: reset, close, or half: says no more, and reads on."""
    client_at: int
    """Bytes of the conversation, sent or (beyond the request) received, after which the client ends it."""
    app_end: str
    """stay; or at `app_at` of its answer: reset, close, half."""
    app_at: int

    @property
    def tame(self) -> bool:
        """Nobody breaks it off, so it must succeed."""
        return self.client_end == "whole" and self.app_end == "stay"

    @property
    def path(self) -> str:
        """All the app needs to know."""
        return f"/{self.kind}/{self.number}/{self.size}/{self.app_end}/{self.app_at}"

    def request(self) -> bytes:
        """Every byte the client says if it is not ended."""
        body = payload(self.number, self.size)
        if self.kind == "raw":
            return f"GET {self.path}\r\n\r\n".encode() + body
        upload, lines = self.kind in ("up", "chunked-up"), b""
        if self.kind == "up":
            lines = b"Content-Length: %d\r\n" % self.size
        elif self.kind == "chunked-up":
            lines, body = b"Transfer-Encoding: chunked\r\n", chunked(body)
        elif self.kind == "tunnel":
            lines = b"Connection: upgrade\r\nUpgrade: noise\r\n"
        else:
            body = b""
        method = "POST" if upload else "GET"
        return f"{method} {self.path} HTTP/1.1\r\nHost: churn.test\r\n".encode() + lines + b"\r\n" + body

    def answer(self) -> bytes:
        """Every byte the app answers if it is not ended; `X-Number` says whose answer it is."""
        body = payload(self.number, self.size)
        lines = b"X-Number: %d\r\n" % self.number
        if self.kind == "raw":
            return body
        if self.kind == "tunnel":
            return b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: noise\r\n" + lines + b"\r\n" + body
        if self.kind in ("up", "chunked-up"):
            body = payload(self.number, 100)
        if self.kind == "chunked-down":
            lines, body = lines + b"Transfer-Encoding: chunked\r\n", chunked(body)
        elif self.kind == "until-close":
            lines += b"Connection: close\r\n"
        else:
            lines += b"Content-Length: %d\r\n" % len(body)
        return b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n" + body

    def answer_body(self) -> bytes:
        """What must follow the answer's head, to the byte, at the client too."""
        return self.answer() if self.kind == "raw" else self.answer().partition(b"\r\n\r\n")[2]


def draw(number: int, dice: random.Random) -> Plan:
    """A plan."""
    (kind,) = dice.choices(KINDS, WEIGHTS)
    size = dice.randint(LARGE_BYTES + 1, 3 * LARGE_BYTES) if dice.random() < 0.1 else dice.randint(0, 40_000)
    client_end = dice.choices(("whole", "reset", "close", "half"), (4, 4, 1, 2))[0]
    app_end = dice.choices(("stay", "reset", "close", "half"), (6, 1, 1, 1))[0]
    # half of the ends come near the heads, where states change; the others anywhere
    whole = 2 * size + 600
    client_at = dice.randint(0, 500) if dice.random() < 0.5 else dice.randint(0, whole)
    app_at = dice.randint(0, 200) if dice.random() < 0.5 else dice.randint(0, size + 200)
    return Plan(number, kind, size, client_end, client_at, app_end, app_at)


def read(path: str) -> Plan:
    """The plan of a path, as its app sees it."""
    _, kind, number, size, app_end, app_at = path.split("/")
    return Plan(int(number), kind, int(size), "whole", 0, app_end, int(app_at))
