"""Raw messages in plain files: read or refused as the file says, by every parser, however the bytes are cut."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyproxy.http1.body import ChunkedBody
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead, ResponseHead
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import (
    CachedRequestParser,
    CachedResponseParser,
    StrictRequestParser,
    StrictResponseParser,
)

MESSAGES = Path(__file__).parent / "messages"
LIMITS = HeadLimits()
OWNED = frozenset((b"x-forwarded-for", b"fly-client-ip"))
ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}

Outcome = RequestHead | ResponseHead | tuple[int, str] | None
Read = Callable[[bytes], Outcome]


@dataclass
class Golden:
    kind: str
    method: bytes
    expected: list[str]
    raw: bytes


def _load(path: Path) -> Golden:
    description, _, message = path.read_bytes().partition(b"\n---\n")
    first, *expected = description.decode().splitlines()
    kind, _, method = first.partition(" ")
    raw = re.sub(
        rb"\\(x[0-9a-f]{2}|.)",
        lambda match: ESCAPES.get(match[1]) or bytes.fromhex(match[1][1:].decode()),
        message.replace(b"\n", b""),
    )
    return Golden(kind, method.encode(), expected, raw)


def _goldens(folder: str, *kinds: str) -> list[object]:
    loaded = ((path.stem, _load(path)) for path in sorted((MESSAGES / folder).glob("*.txt")))
    return [pytest.param(golden, id=name) for name, golden in loaded if golden.kind in kinds]


def _readers(golden: Golden) -> Iterator[Read]:
    """The reference, the cache while it is empty, and the cache when it has seen the message."""
    if golden.kind == "request":
        strict, cached = StrictRequestParser(LIMITS, OWNED), CachedRequestParser(LIMITS, OWNED)
        yield _outcome(strict.parse)
        yield _outcome(cached.parse)
        yield _outcome(cached.parse)
    else:
        strict_response, cached_response = StrictResponseParser(LIMITS), CachedResponseParser(LIMITS)
        yield _outcome(lambda raw: strict_response.parse(raw, golden.method))
        yield _outcome(lambda raw: cached_response.parse(raw, golden.method))
        yield _outcome(lambda raw: cached_response.parse(raw, golden.method))


def _outcome(parse: Callable[[bytes], RequestHead | ResponseHead | None]) -> Read:
    def read(raw: bytes) -> Outcome:
        try:
            return parse(raw)
        except HttpFault as fault:
            return fault.status, fault.reason

    return read


@pytest.mark.parametrize("golden", _goldens("good", "request", "response"))
def test_a_good_head_says_what_its_file_says(golden: Golden) -> None:
    expected = {key: ast.literal_eval(value) for key, _, value in (line.partition(" = ") for line in golden.expected)}
    for read in _readers(golden):
        head = read(golden.raw)
        assert isinstance(head, RequestHead | ResponseHead)
        assert {key: getattr(head, key) for key in expected} == expected
        assert golden.raw[: head.size].endswith(b"\r\n\r\n")
        assert read(golden.raw[: head.size] + b"more\x00\nbytes") == head


@pytest.mark.parametrize("golden", _goldens("bad", "request", "response"))
def test_a_bad_head_is_refused_with_its_sentence(golden: Golden) -> None:
    status, _, reason = golden.expected[0].partition(" ")
    for read in _readers(golden):
        assert read(golden.raw) == (int(status), reason)


@pytest.mark.parametrize("golden", _goldens("good", "request", "response"))
def test_a_good_head_is_the_same_however_it_is_cut(golden: Golden) -> None:
    for read in _readers(golden):
        whole = read(golden.raw)
        assert isinstance(whole, RequestHead | ResponseHead)
        for length in range(len(golden.raw) + 1):
            assert read(golden.raw[:length]) == (whole if length >= whole.size else None)


@pytest.mark.parametrize("golden", _goldens("bad", "request", "response"))
def test_a_bad_head_has_the_same_status_however_it_is_cut(golden: Golden) -> None:
    for read in _readers(golden):
        whole = read(golden.raw)
        assert isinstance(whole, tuple)
        for length in range(len(golden.raw) + 1):
            early = read(golden.raw[:length])
            assert early is None or (isinstance(early, tuple) and early[0] == whole[0])


@pytest.mark.parametrize("golden", _goldens("good", "chunked"))
def test_a_good_chunked_body_ends_where_it_ends_however_it_is_cut(golden: Golden) -> None:
    expected = {key: ast.literal_eval(value) for key, _, value in (line.partition(" = ") for line in golden.expected)}
    size = len(golden.raw) - len(expected["after"])
    for cut in range(len(golden.raw) + 1):
        body = ChunkedBody(LIMITS, owned=OWNED)
        taken = body.feed(golden.raw[:cut])
        assert taken == min(cut, size)
        assert body.complete == (cut >= size)
        taken += body.feed(golden.raw[cut:]) if not body.complete else 0
        assert (taken, body.received, body.content) == (size, size, expected["content"])
        assert body.ends_well()
    assert _byte_by_byte(golden.raw) == size


@pytest.mark.parametrize("golden", _goldens("bad", "chunked"))
def test_a_bad_chunked_body_is_refused_however_it_is_cut(golden: Golden) -> None:
    status, _, reason = golden.expected[0].partition(" ")
    with pytest.raises(HttpFault) as refused:
        ChunkedBody(LIMITS, owned=OWNED).feed(golden.raw)
    assert (refused.value.status, refused.value.reason) == (int(status), reason)
    with pytest.raises(HttpFault) as refused:
        _byte_by_byte(golden.raw)
    assert refused.value.status == int(status)
    step = 1 + len(golden.raw) // 200
    for cut in range(0, len(golden.raw), step):
        body = ChunkedBody(LIMITS, owned=OWNED)
        with pytest.raises(HttpFault):
            body.feed(golden.raw[cut + body.feed(golden.raw[:cut]) - cut :])


def _byte_by_byte(raw: bytes) -> int:
    body = ChunkedBody(LIMITS, owned=OWNED)
    taken = 0
    for byte in raw:
        taken += body.feed(bytes((byte,)))
        if body.complete:
            break
    return taken
