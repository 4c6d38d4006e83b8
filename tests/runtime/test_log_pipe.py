"""Lines to a shared descriptor that never make the edge wait."""

import os

from flyproxy.runtime.log_pipe import PIECE_BYTES_MAX, LogPipe


def test_lines_arrive_as_they_were() -> None:
    readable, writable = os.pipe()
    lines = b"".join(b"line %d\n" % number for number in range(2000))
    LogPipe(writable).write(lines)
    os.close(writable)
    with os.fdopen(readable, "rb") as reader:
        assert reader.read() == lines


def test_a_full_pipe_is_refused_instead_of_waited_for_and_nothing_is_torn() -> None:
    readable, writable = os.pipe()
    pipe = LogPipe(writable)
    line = b"x" * 99 + b"\n"
    accepted = 0
    for _ in range(10_000):
        try:
            pipe.write(line * 50)
        except BlockingIOError:
            break
        accepted += 50
    assert 0 < accepted < 50 * 10_000
    received = b""
    while len(received) < accepted * 100:
        received += os.read(readable, 1 << 20)
        pipe.write(b"")
    assert received == line * accepted
    os.close(readable)
    os.close(writable)


def test_a_line_longer_than_a_piece_goes_out_whole() -> None:
    readable, writable = os.pipe()
    line = b"y" * (3 * PIECE_BYTES_MAX) + b"\n"
    LogPipe(writable).write(line)
    os.close(writable)
    with os.fdopen(readable, "rb") as reader:
        assert reader.read() == line


def test_a_reader_that_is_gone_is_no_error() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    LogPipe(writable).write(b"into the void\n")
    os.close(writable)
