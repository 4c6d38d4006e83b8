"""What reading a request's head costs: microseconds per head, strict reference, the cached reader, the typed one.

    python bench/http1_parse.py [--json FILE]

One 623-byte GET with ten header lines, read again and again, flatters a cache. So it is also read with lines that
change from request to request: the target always, two lines (a request id and a trace), and all ten, which the cache
has never seen. h11 and httptools read the same bytes in the same turns, for the ratio. Best and median of the rounds.
"""

import argparse
import json
import platform
import statistics
import timeit
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import h11
import httptools

from flyproxy.http1.head import RequestHead
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import TYPED, CachedRequestParser, StrictRequestParser, request_parser

ROUNDS = 7
HEADS = 2_000
VARIANTS = 20_000
"""Different heads in a varying work load: five times what the cache remembers."""
OWNED = frozenset((b"fly-client-ip", b"fly-region", b"x-forwarded-for", b"x-forwarded-proto", b"via"))


def head(target: bytes, mark: bytes, everywhere: bytes = b"") -> bytes:
    """A 623-byte GET; `mark` (16 bytes) makes two lines new, `everywhere` (before each value) all of them."""
    lines = [
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126 Safari/537.36",
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7",
        b"Cache-Control: no-cache",
        b"Referer: http://hello.localhost:8080/items?page=2",
        b"X-Request-Id: " + mark,
        b"Traceparent: 00-" + mark + b"0123456789abcdef-" + mark + b"-01",
    ]
    if everywhere:
        lines = [line.replace(b": ", b": " + everywhere, 1) for line in lines]
    start = [b"GET " + target + b" HTTP/1.1", b"Host: hello.localhost:8080", *lines, b"Connection: keep-alive"]
    raw = b"\r\n".join([*start, b"", b""])
    return raw if everywhere else raw.replace(b"no-cache\r\n", b"no-cache" + b" " * (623 - len(raw)) + b"\r\n")


def loads() -> dict[str, list[bytes]]:
    """Heads by what changes from one to the next."""
    numbers = range(VARIANTS)
    return {
        "fixed": [head(b"/items/%010d" % 0, b"%016x" % 0)],
        "target changes": [head(b"/items/%010d" % number, b"%016x" % 0) for number in numbers],
        "target and 2 lines change": [head(b"/items/%010d" % number, b"%016x" % number) for number in numbers],
        "all lines change but Host": [head(b"/items/%010d" % 0, b"%016x" % 0, b"%x" % number) for number in numbers],
    }


def readers() -> dict[str, Callable[[bytes], object]]:
    """What reads a head, by name."""
    typed = {} if TYPED is None else {"typed": request_parser(HeadLimits(), OWNED).parse}
    return {
        "strict": StrictRequestParser(HeadLimits(), OWNED).parse,
        "cached": CachedRequestParser(HeadLimits(), OWNED).parse,
        "one connection": OneConnection().parse,
        **typed,
        "httptools": with_httptools,
        "h11": with_h11,
    }


class OneConnection:
    """All heads as those of one connection: each is compared with the last."""

    def __init__(self) -> None:
        self._parser = CachedRequestParser(HeadLimits(), OWNED)
        self._before: RequestHead | None = None

    def parse(self, raw: bytes) -> object:
        self._before = self._parser.parse(raw, self._before)
        return self._before


class Collector:
    """What an application on httptools keeps at least."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.target = b""

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def with_httptools(raw: bytes) -> object:
    collector = Collector()
    httptools.HttpRequestParser(collector).feed_data(raw)
    return collector


def with_h11(raw: bytes) -> object:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    return connection.next_event()


def rounds_us(read: Callable[[bytes], object], heads: list[bytes]) -> list[float]:
    """Microseconds per head, a figure a round; the heads go on from round to round."""
    following = cycle(heads).__next__
    iterating = min(timeit.repeat(following, number=HEADS, repeat=ROUNDS))
    return [
        (s - iterating) / HEADS * 1e6 for s in timeit.repeat(lambda: read(following()), number=HEADS, repeat=ROUNDS)
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", type=Path, help="write raw rounds here")
    path: Path | None = arguments.parse_args().json
    measured: dict[str, dict[str, list[float]]] = {}
    print(f"{'µs per head: best (median)':28}" + "".join(f"{name:>16}" for name in readers()))
    for load, heads in loads().items():
        measured[load] = {name: rounds_us(read, heads) for name, read in readers().items()}
        cells = [f"{min(us):6.2f} ({statistics.median(us):6.2f})" for us in measured[load].values()]
        print(f"{load:28}" + "".join(f"{cell:>16}" for cell in cells))
    ratios = ", ".join(f"{load} {min(us['strict']) / min(us['cached']):.1f}" for load, us in measured.items())
    print(f"strict to cached: {ratios}")
    if path is not None:
        versions = {"python": platform.python_version(), "h11": version("h11"), "httptools": version("httptools")}
        path.write_text(json.dumps({"unit": "us per head", "rounds": measured, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
