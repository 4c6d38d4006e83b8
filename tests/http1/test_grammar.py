"""Single pieces: targets, hosts, methods; and that no pattern can be led astray."""

import re
from pathlib import Path

import pytest

import flyproxy.http1
from flyproxy.http1 import grammar
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.grammar import HEADER_LINE, ORIGIN_LINE, check_method, host_and_port, unusual_request_line

PATH_REFUSED = b"#<>\\%"


@pytest.mark.parametrize("form", [b"GET /a%bc HTTP/1.1", b"GET http://a.example/a%bc HTTP/1.1"])
def test_every_byte_in_a_path_is_decided(form: bytes) -> None:
    for byte in range(256):
        line = form.replace(b"%b", bytes((byte,)))
        allowed = 0x21 <= byte <= 0x7E and byte not in PATH_REFUSED
        assert _reads(line) == allowed, line


@pytest.mark.parametrize("form", [b"GET /a?b%bc HTTP/1.1", b"GET http://a.example/a?b%bc HTTP/1.1"])
def test_every_byte_in_a_query_is_decided(form: bytes) -> None:
    for byte in range(256):
        line = form.replace(b"%b", bytes((byte,)))
        allowed = 0x21 <= byte <= 0x7E and byte != ord("#")
        assert _reads(line) == allowed, line


@pytest.mark.parametrize("form", [b"GET /a%b/c HTTP/1.1", b"GET http://a.example/a%b/c HTTP/1.1"])
def test_a_percent_in_a_path_begins_an_octet(form: bytes) -> None:
    for digits, allowed in ((b"%41", True), (b"%c3%A4", True), (b"%4", False), (b"%4g", False), (b"%%41", False)):
        assert _reads(form.replace(b"%b", digits)) == allowed, digits


def test_every_byte_in_a_header_line_is_decided() -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for byte in range(256):
        one = bytes((byte,))
        in_name = HEADER_LINE.fullmatch(b"a" + one + b"b:c")
        assert (in_name is not None) == (one in token or one == b":"), one
        in_value = HEADER_LINE.fullmatch(b"a:b" + one + b"c")
        assert (in_value is not None) == (one == b"\t" or (byte >= 0x20 and byte != 0x7F)), one


def test_every_byte_in_a_method_is_decided() -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for byte in range(256):
        one = bytes((byte,))
        assert _reads(b"G" + one + b"T / HTTP/1.1") == (one in token), one


@pytest.mark.parametrize("method", [b"CONNECT", b"connect", b"Trace", b"TRACE"])
def test_tunnels_and_echoes_are_refused_in_any_case(method: bytes) -> None:
    with pytest.raises(HttpFault) as refused:
        check_method(method)
    assert refused.value.status == 501


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (b"A.Example", b"a.example", b""),
        (b"a.example.:80", b"a.example", b"80"),
        (b"a", b"a", b""),
        (b"_dmarc.x", b"_dmarc.x", b""),
        (b"127.0.0.1:0", b"127.0.0.1", b"0"),
        (b"a.example:", b"a.example", b""),
        (b"[::]", b"[::]", b""),
        (b"[::FFFF:1.2.3.4]:443", b"[::ffff:1.2.3.4]", b"443"),
        (b"x" * 63 + b".y", b"x" * 63 + b".y", b""),
    ],
)
def test_a_host_is_read(value: bytes, host: bytes, port: bytes) -> None:
    assert host_and_port(value) == (host, port)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b":80", b"a::", b"a:080808", b"[", b"[]", b"[::1", b"::1]", b"[::1]x", b"[v1.x]", b"[1.2.3.4]", b"a\n"),
        *(b"a/", b"a?", b"a#b", b"a\\b", b"a@b", b"a%00", b"a;b", b"*", b"a..", b"\xff", b"x" * 64),
        b".".join([b"x" * 60] * 5),
    ],
)
def test_what_is_no_host_is_refused(value: bytes) -> None:
    with pytest.raises(HttpFault) as refused:
        host_and_port(value)
    assert refused.value.status == 400


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python 3.11.2 takes half a group as matched there (cpython#106052): a check that silently lets things in."""
    sources = list(Path(flyproxy.http1.__path__[0]).glob("*.py"))
    assert len(sources) > 8
    for source in sources:
        for line in source.read_text().splitlines():
            if 'rb"' in line:
                assert re.search(r"\)(?:[*+?]|\{[0-9,]+\})\+", line) is None, line


def test_hostile_lines_take_linear_work() -> None:
    """Each of these would make a pattern that goes back take the square of its length, or more."""
    hostile_lines = [b"GET /" + b"?" * 100_000 + b"\x00", b"GET " + b"a:" * 50_000, b"/" * 100_000, b" " * 100_000]
    for hostile in (*hostile_lines, b"GET /" + b"%41" * 50_000):
        assert not _reads(hostile)
    assert HEADER_LINE.fullmatch(b"a:" + b" \t" * 50_000 + b"\x00") is None
    assert grammar.STATUS_LINE.fullmatch(b"HTTP/1.1 200 " + b" " * 100_000 + b"\x00") is None


def _reads(line: bytes) -> bool:
    if ORIGIN_LINE.fullmatch(line) is not None:
        return True
    try:
        unusual_request_line(line)
    except HttpFault:
        return False
    return True
