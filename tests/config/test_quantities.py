"""Sizes and durations."""

import pytest

from flyproxy.config.quantities import BadQuantityError, parse_seconds, parse_size, written_seconds, written_size
from flyproxy.config.scalars import plain_value


@pytest.mark.parametrize(
    ("text", "size"),
    [("32KiB", 32768), ("1MB", 1_000_000), ("65536", 65536), ("2 GiB", 2 * 1024**3), ("10kB", 10_000), ("0", 0),
     ("7B", 7)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(plain_value(text)) == size


@pytest.mark.parametrize("value", ["", "KiB", "1.5KiB", "-1", "1Kb", "1 2", "1" * 20, True, None, [1], 1.5])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(BadQuantityError):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("1h30m", 5400), ("15d", 1_296_000), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "10", "0", "1.5", "s", "10 s", "30m1h", "1.5s", "-1s", "9" * 40 + "s", 10, True, None, {}]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(BadQuantityError):
        parse_seconds(value)


def test_quantities_are_written_as_they_are_read() -> None:
    assert [written_size(size) for size in (0, 100, 1024, 1536, 2 * 1024**3)] == ["0B", "100B", "1KiB", "1536B", "2GiB"]
    assert [written_seconds(seconds) for seconds in (0, 0.001, 60, 5400)] == ["0s", "1ms", "1m", "1h30m"]
