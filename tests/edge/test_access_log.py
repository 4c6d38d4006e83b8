import json
from dataclasses import replace

from flyproxy.edge import access_log
from flyproxy.edge.access_log import AccessLog, Entry, console_line, json_line

ENTRY = Entry(
    unix_ms=1_700_000_000_123,
    app="hello",
    region="ord",
    client="192.0.2.1",
    method=b"GET",
    host=b"hello.test",
    target=b"/a?token=secret",
    status=200,
    bytes_in=10,
    bytes_out=20,
    duration_ns=1_500_000,
    instance="3d8d9e27b24e89",
    instance_ns=1_000_000,
    request_id="01X-ord",
    code=None,
    why=None,
)


def test_a_json_line_says_everything_and_no_query() -> None:
    line = json_line(ENTRY)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.123Z",
        "app": "hello",
        "region": "ord",
        "client": "192.0.2.1",
        "method": "GET",
        "host": "hello.test",
        "path": "/a",
        "status": 200,
        "bytes_in": 10,
        "bytes_out": 20,
        "dur_ms": 1.5,
        "request_id": "01X-ord",
        "instance": "3d8d9e27b24e89",
        "instance_ms": 1.0,
    }


def test_a_fault_and_its_reason_are_in_the_line() -> None:
    entry = replace(ENTRY, status=502, code="PC01", why="127.0.0.1:1: refused", instance=None, instance_ns=None)
    fields = json.loads(json_line(entry))
    assert fields["fault"] == "PC01"
    assert fields["why"] == "127.0.0.1:1: refused"
    assert "instance" not in fields
    assert b" 502 GET hello.test/a 1.5ms 10/20B 192.0.2.1 - PC01 127.0.0.1:1: refused\n" in console_line(entry)


def test_odd_bytes_and_long_paths_stay_one_line() -> None:
    entry = replace(ENTRY, target=b"/" + b"x" * 5000, host=b"\xff\n")
    assert json_line(entry).count(b"\n") == 1
    assert len(json_line(entry)) < 2000
    assert console_line(entry).count(b"\n") == 1 or b"\\n" not in console_line(entry)


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    dropped: list[int] = []
    log = AccessLog(lambda lines: None, dropped.append, "json")
    fits = access_log.BUFFER_BYTES_MAX // len(json_line(ENTRY))
    for _ in range(fits + 3):
        log.add(ENTRY)
    assert sum(dropped) == 3
    assert log.statistics()["access_log_lines_waiting"] == fits


def test_lines_are_kept_while_the_reader_does_not_take_them() -> None:
    taken: list[bytes] = []
    blocked = True

    def write(lines: bytes) -> None:
        if blocked:
            raise BlockingIOError
        taken.append(lines)

    log = AccessLog(write, lambda lines: None, "json")
    log.add(ENTRY)
    log.flush()
    assert taken == []
    blocked = False
    log.add(ENTRY)
    log.flush()
    log.flush()
    assert taken == [json_line(ENTRY) * 2]
