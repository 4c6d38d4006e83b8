from random import Random

import pytest

from flyproxy.edge.request_ids import TRACE_CONTEXTS_DRAWN, RequestIds, base32, is_traceparent, trace_lines


def _traceparent(ids: RequestIds) -> bytes:
    """The context in the next lines, which say it twice and end the head."""
    lines = ids.trace_lines()
    said = lines.rpartition(b"Traceparent: ")[2].removesuffix(b"\r\n\r\n")
    assert lines == trace_lines(said)
    return said


def test_ids_are_26_characters_and_grow_with_time() -> None:
    ids = RequestIds(Random(1).getrandbits)
    made = [ids.ulid(1_700_000_000_000 + n // 1000) for n in range(5000)]
    assert len(set(made)) == len(made)
    assert all(len(one) == 26 for one in made)
    for start in range(0, 5000, 1000):
        assert made[start : start + 1000] == sorted(made[start : start + 1000])
    assert made[0][:10] == base32(1_700_000_000_000, 10)


def test_ids_stay_unique_when_the_counter_wraps() -> None:
    ids = RequestIds(lambda bits: (1 << bits) - 1)
    first = [ids.ulid(7) for _ in range(3)]
    ids._counter = (1 << 20) - 1
    ids._getrandbits = lambda bits: 5
    assert ids.ulid(7) not in first


def test_base32_is_crockfords() -> None:
    assert base32(0, 3) == b"000"
    assert base32(32**3 - 1, 3) == b"ZZZ"
    assert base32(10, 1) == b"A"
    assert base32(18, 1) == b"J"


def test_a_new_traceparent_is_one_even_from_no_chance_at_all() -> None:
    assert is_traceparent(_traceparent(RequestIds(lambda bits: 0)))
    assert is_traceparent(_traceparent(RequestIds(Random(2).getrandbits)))


def test_no_two_trace_contexts_are_the_same_and_all_are_ones() -> None:
    ids = RequestIds(Random(3).getrandbits)
    made = [_traceparent(ids) for _ in range(3 * TRACE_CONTEXTS_DRAWN)]
    assert len(set(made)) == len(made)
    assert all(is_traceparent(one) for one in made)
    assert all(is_traceparent(_traceparent(RequestIds(lambda bits: 1 << bits - 1))) for _ in range(2))


def test_ids_of_one_second_share_their_chance_and_still_differ() -> None:
    ids = RequestIds(Random(4).getrandbits)
    made = [ids.ulid(unix_ms) for unix_ms in (1_000, 1_001, 1_001, 1_000, 5_000)]
    assert len(set(made)) == len(made)
    assert [one[:10] for one in made] == [base32(unix_ms, 10) for unix_ms in (1_000, 1_001, 1_001, 1_000, 5_000)]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-00",
        b"00-" + b"1" * 32 + b"-" + b"0" * 16 + b"-00",
        b"ff-" + b"1" * 32 + b"-" + b"1" * 16 + b"-00",
        b"00-" + b"A" * 32 + b"-" + b"1" * 16 + b"-00",
        b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-00-x",
    ],
)
def test_a_faulty_traceparent_does_not_go_on(value: bytes) -> None:
    assert not is_traceparent(value)
