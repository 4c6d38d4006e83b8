"""A row comes back bit for bit, or is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.frame import ABSENT_BITS, NAN_BITS, STALE_BITS
from flyproxy.tsdb.log import Births, DamagedError, Place, decode_row, encode_row

KEY = Place(frame=7, timestamp_ms=1000, key_ms=1000)
NEXT = Place(frame=7, timestamp_ms=2000, key_ms=1000)

ODD_VALUES = [0.0, -0.0, 1.0, -1.0, 127.0, 128.0, -129.0, 32768.0, 2.0**31, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63)]
ODD_BITS = [STALE_BITS, ABSENT_BITS, NAN_BITS, 0xFFF8000000000123, 0x7FF0000000000000, 0xFFF0000000000000, 1]

any_bits = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from(ODD_BITS),
    st.sampled_from(ODD_VALUES).map(lambda value: int(np.array([value]).view(np.uint64)[0])),
    st.integers(-(2**40), 2**40).map(lambda value: int(np.array([value], np.float64).view(np.uint64)[0])),
)


@given(st.lists(any_bits, max_size=70))
def test_any_key_row_comes_back_bit_for_bit(row: list[int]) -> None:
    bits = np.array(row, np.uint64)
    back, births = decode_row(KEY, 0, encode_row(KEY, 0, bits, None), None)
    assert back.tolist() == row
    assert births is None


@given(st.lists(st.tuples(any_bits, any_bits), max_size=70), st.lists(any_bits, max_size=5))
def test_any_row_after_any_row_comes_back_bit_for_bit(pairs: list[tuple[int, int]], added: list[int]) -> None:
    before = np.array([old for old, _ in pairs], np.uint64)
    bits = np.array([new for _, new in pairs] + added, np.uint64)
    back, _ = decode_row(NEXT, 1, encode_row(NEXT, 1, bits, before), before)
    assert back.tolist() == bits.tolist()


def test_births_come_back() -> None:
    bits = np.array([1.0, 2.0, 3.0]).view(np.uint64)
    blob = encode_row(NEXT, 1, bits, bits[:1], Births(-5, np.array([1, 2])))
    back, births = decode_row(NEXT, 1, blob, bits[:1])
    assert back.tolist() == bits.tolist()
    assert births is not None
    assert (births.at_ms, births.rows.tolist()) == (-5, [1, 2])


def test_every_flipped_bit_is_noticed() -> None:
    bits = np.arange(40.0).view(np.uint64)
    blob = encode_row(KEY, 0, bits, None)
    for place in range(len(blob) * 8):
        broken = bytearray(blob)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedError, match="checksum"):
            decode_row(KEY, 0, bytes(broken), None)


def test_every_torn_row_is_noticed() -> None:
    blob = encode_row(KEY, 0, np.arange(40.0).view(np.uint64), None)
    for length in range(len(blob)):
        with pytest.raises(DamagedError):
            decode_row(KEY, 0, blob[:length], None)


def test_a_row_that_turns_up_elsewhere_is_noticed() -> None:
    blob = encode_row(KEY, 0, np.arange(4.0).view(np.uint64), None)
    for place in (Place(8, 1000, 1000), Place(7, 1001, 1000), Place(7, 1000, 999)):
        with pytest.raises(DamagedError, match="checksum"):
            decode_row(place, 0, blob, None)


def test_a_row_whose_predecessor_is_missing_is_noticed() -> None:
    before = np.arange(4.0).view(np.uint64)
    blob = encode_row(NEXT, 2, before, before)
    with pytest.raises(DamagedError, match="row 2 of its chain where row 1 belongs"):
        decode_row(NEXT, 1, blob, before)


def test_a_row_that_hardly_changed_is_small() -> None:
    before = np.arange(5000.0)
    after = before.copy()
    after[:10] += 3
    assert len(encode_row(NEXT, 1, after.view(np.uint64), before.view(np.uint64))) < 100
