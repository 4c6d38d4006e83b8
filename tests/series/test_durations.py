import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.durations import (
    DURATION_MS_MAX,
    BadDurationError,
    format_duration,
    parse_duration_ms,
    parse_seconds_or_duration,
    seconds_to_ms,
)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("0", 0),
        ("0s", 0),
        ("100ms", 100),
        ("15s", 15_000),
        ("90s", 90_000),
        ("1m0s", 60_000),
        ("1h30m", 5_400_000),
        ("15d", 1_296_000_000),
        ("1y2w3d4h5m6s7ms", 33_019_506_007),
    ],
)
def test_a_duration_is_read(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty duration string"),
        ("5", 'not a valid duration string: "5"'),
        ("-5m", 'not a valid duration string: "-5m"'),
        ("5 m", 'not a valid duration string: "5 m"'),
        ("1.5h", 'not a valid duration string: "1.5h"'),
        ("1m1h", 'not a valid duration string: "1m1h"'),
        ("5m5m", 'not a valid duration string: "5m5m"'),
        ("1h2", 'not a valid duration string: "1h2"'),
        ("5m\n", 'not a valid duration string: "5m\n"'),
        ("٥m", 'not a valid duration string: "٥m"'),
        ("300y", "duration out of range"),
        ("9" * 5000 + "m", "duration out of range"),
    ],
)
def test_what_is_no_duration_gets_prometheus_sentence(text: str, told: str) -> None:
    with pytest.raises(BadDurationError) as caught:
        parse_duration_ms(text)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (1500, "1s500ms"),
        (60_000, "1m"),
        (5_400_000, "1h30m"),
        (86_400_000, "1d"),
        (90_000_000, "25h"),
        (604_800_000, "1w"),
        (31_536_000_000, "1y"),
        (-300_000, "-5m"),
    ],
)
def test_a_duration_is_written_as_prometheus_does(duration_ms: int, text: str) -> None:
    assert format_duration(duration_ms) == text


@given(st.integers(0, DURATION_MS_MAX))
def test_what_is_written_is_read_back(duration_ms: int) -> None:
    assert parse_duration_ms(format_duration(duration_ms)) == duration_ms


@pytest.mark.parametrize(("text", "duration_ms"), [("15", 15_000), ("0.5", 500), ("1e1", 10_000), ("1m30s", 90_000)])
def test_a_step_is_seconds_or_a_duration(text: str, duration_ms: int) -> None:
    assert parse_seconds_or_duration(text) == duration_ms


@pytest.mark.parametrize("text", ["inf", "nan", "-inf", "1e300", "x", ""])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadDurationError):
        parse_seconds_or_duration(text)


def test_seconds_are_cut_to_whole_milliseconds() -> None:
    assert seconds_to_ms(1.0009) == 1000
    assert seconds_to_ms(-1.0009) == -1000
