"""The request is the one that is said, and a varied one repeats nothing."""

import re

from bench.edge.load import HEAD_BYTES, MARK, VARIED_LINES, Ask, head, script


def test_the_small_get_has_623_bytes_and_ten_header_lines() -> None:
    raw = head(Ask())
    assert len(raw) == HEAD_BYTES == 623
    assert raw.endswith("\r\n\r\n")
    assert raw.count("\r\n") == 1 + 10 + 1
    assert raw.startswith("GET /path/to/resource?item=00000000 HTTP/1.1\r\nHost: hello.test\r\n")


def test_every_value_but_hosts_is_new_in_a_varied_request() -> None:
    lines = head(Ask(path="/varied?item=", vary=True)).split("\r\n")[1:-2]
    assert sum(MARK in line for line in lines) == VARIED_LINES == len(lines) - 1
    text = script(Ask(path="/varied?item=", vary=True))
    assert MARK not in text
    assert len(re.findall(r"\.\. mark\b", text)) == VARIED_LINES


def test_a_fixed_request_has_no_mark() -> None:
    assert MARK not in script(Ask())
    assert "mark" not in script(Ask())


def test_the_target_is_numbered_and_hosts_take_turns() -> None:
    text = script(Ask(hosts=10_000, of=10_000))
    assert 'string.format("%08d", n)' in text
    assert "% hosts .." in text
    assert "local run, n, hosts = 0, 0, 10000" in text


def test_an_upload_sends_its_length_and_its_body() -> None:
    ask = Ask(path="/upload", upload_bytes=65536)
    assert head(ask).startswith("POST /upload HTTP/1.1\r\n")
    assert "\r\nContent-Length: 65536\r\n" in head(ask)
    assert 'string.rep("x", 65536)' in script(ask)
    assert ".. body" in script(ask)
