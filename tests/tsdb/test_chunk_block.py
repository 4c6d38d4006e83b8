"""A block that its codec would get wrong is stored as plain bits, and hostile tables are damage."""

import numpy as np
import pytest

from flyproxy.tsdb.chunk_block import decode_rows, encode_plain, encode_rows
from flyproxy.tsdb.log import DamagedError, Place, sealed

PLACE = Place(7, 15_000, 0)


def test_plain_bits_come_back() -> None:
    bits = np.random.default_rng(1).integers(0, 2**64, (5, 33), dtype=np.uint64)
    bits[2] = 9
    assert np.array_equal(decode_rows(PLACE, 5, 33, encode_plain(PLACE, bits)), bits)


def test_another_shape_than_the_heads_is_damage() -> None:
    bits = np.arange(40, dtype=np.float64).reshape(4, 10).view(np.uint64)
    blob = encode_rows(PLACE, bits, np.zeros(4, np.bool_))
    for rows, columns in ((3, 10), (4, 11), (40, 1)):
        with pytest.raises(DamagedError, match="rows"):
            decode_rows(PLACE, rows, columns, blob)


def test_a_block_of_another_codec_is_damage() -> None:
    bits = np.arange(10, dtype=np.float64).reshape(1, 10).view(np.uint64)
    rest = bytearray(encode_rows(PLACE, bits, np.zeros(1, np.bool_))[4:])
    rest[1] = 2
    with pytest.raises(DamagedError, match="codec 2"):
        decode_rows(PLACE, 1, 10, sealed(PLACE, bytes(rest)))
