"""Chunks: every bit comes back, and damage is known as damage."""

import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyproxy.series.frame import ABSENT_BITS, NAN_BITS, STALE_BITS
from flyproxy.tsdb.chunk import BLOCK_SERIES, ChunkHead, EncodedChunk, decode_block, encode_chunk, open_head
from flyproxy.tsdb.log import DamagedError

FRAME = 7
STEP_MS = 15_000

Bits = npt.NDArray[np.uint64]


def times(columns: int) -> npt.NDArray[np.int64]:
    return np.arange(columns, dtype=np.int64) * STEP_MS + 1_795_334_400_123


def of(values: npt.ArrayLike) -> Bits:
    return np.ascontiguousarray(np.atleast_2d(np.asarray(values, np.float64))).view(np.uint64)


def apart(series: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    return np.arange(series, dtype=np.int32), np.full(series, np.nan)


def encoded(bits: Bits, groups: tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]] | None = None) -> EncodedChunk:
    return encode_chunk(FRAME, times(bits.shape[1]), bits, *(groups or apart(len(bits))))


def headed(chunk: EncodedChunk, columns: int) -> ChunkHead:
    ts = times(columns)
    return open_head(FRAME, int(ts[0]), int(ts[-1]), chunk.head)


def decoded(chunk: EncodedChunk, columns: int) -> Bits:
    head = headed(chunk, columns)
    blocks = [decode_block(head, block, blob) for block, blob in enumerate(chunk.blocks)]
    return np.array([blocks[b][s] for b, s in zip(head.block_of, head.slot_of, strict=True)])


def assert_round_trip(bits: Bits, groups: tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]] | None = None) -> int:
    """The bytes it took."""
    chunk = encoded(bits, groups)
    head = headed(chunk, bits.shape[1])
    assert head.times_ms.tolist() == times(bits.shape[1]).tolist()
    assert (head.series, head.blocks, head.frame) == (len(bits), len(chunk.blocks), FRAME)
    assert np.array_equal(decoded(chunk, bits.shape[1]), bits)
    return len(chunk.head) + sum(map(len, chunk.blocks))


def histogram(random: np.random.Generator, columns: int, buckets: int = 13) -> npt.NDArray[np.float64]:
    """[buckets + 1, columns] cumulative, `_count` last."""
    split = random.poisson(2.0, (buckets, columns))
    rows = np.cumsum(np.cumsum(split, axis=0), axis=1).astype(np.float64)
    return np.vstack((rows, rows[-1:]))


# Every bit ----------------------------------------------------------------------------------------------------------

AWKWARD = [
    0x0000000000000000, 0x8000000000000000, 0x0000000000000001, 0x800FFFFFFFFFFFFF, 0x7FF0000000000000,
    0xFFF0000000000000, STALE_BITS, ABSENT_BITS, NAN_BITS, 0x7FF0000000000001, 0xFFF0000000000002,
    0x7FFFFFFFFFFFFFFF, 0x4340000000000000, 0x433FFFFFFFFFFFFF, 0x4340000000000001, 0xC340000000000000,
    0xC3E0000000000000, 0x43E0000000000000, 0x3FB999999999999A, 0x7FEFFFFFFFFFFFFF, 0x3FF0000000000000,
]  # fmt: skip

cells = st.one_of(
    st.sampled_from(AWKWARD),
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False).map(lambda value: struct.unpack("<Q", struct.pack("<d", value))[0]),
    st.integers(-(2**53) - 2, 2**53 + 2).map(lambda value: struct.unpack("<Q", struct.pack("<d", float(value)))[0]),
    st.integers(0, 400).map(lambda value: struct.unpack("<Q", struct.pack("<d", value / 100))[0]),
)


@given(st.data(), st.integers(1, 6), st.integers(1, 9))
def test_any_bits_come_back(data: st.DataObject, series: int, columns: int) -> None:
    rows = data.draw(st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=series, max_size=series))
    assert_round_trip(np.array(rows, np.uint64))


@given(st.data(), st.integers(2, 9), st.integers(1, 20))
def test_any_bits_come_back_as_a_histogram(data: st.DataObject, series: int, columns: int) -> None:
    cell = st.one_of(cells, st.integers(0, 50).map(lambda value: int(of(value)[0, 0])))
    rows = data.draw(st.lists(st.lists(cell, min_size=columns, max_size=columns), min_size=series, max_size=series))
    bounds = np.append(np.arange(series - 1, dtype=np.float64), np.nan)
    assert_round_trip(np.array(rows, np.uint64), (np.zeros(series, np.int32), bounds))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 130), st.integers(1, 60))
def test_counters_with_gaps_ends_births_and_resets_come_back(seed: int, series: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    values = np.cumsum(random.poisson(random.random((series, 1)) * 9, (series, columns)), axis=1).astype(np.float64)
    values[random.random(series) < 0.2] /= 1000
    reset = random.integers(0, columns)
    values[:, reset:] -= values[:, reset : reset + 1] * (random.random((series, 1)) < 0.3)
    bits = values.view(np.uint64).copy()
    bits[random.random(bits.shape) < 0.03] = ABSENT_BITS
    bits[random.random(bits.shape) < 0.01] = STALE_BITS
    for row in np.flatnonzero(random.random(series) < 0.2).tolist():
        born = int(random.integers(0, columns + 1))
        bits[row, :born] = ABSENT_BITS
        if born:
            bits[row, born - 1] = 0
    groups = np.sort(random.integers(0, max(1, series // 5), series)).astype(np.int32)
    assert_round_trip(bits, (groups, np.arange(series, dtype=np.float64)))


@pytest.mark.parametrize("cell", AWKWARD)
def test_one_awkward_value_among_integers_comes_back(cell: int) -> None:
    bits = of(np.arange(40.0))
    bits[0, 17] = cell
    assert_round_trip(bits)
    assert_round_trip(np.full((3, 40), cell, np.uint64))


def test_the_largest_integers_keep_every_bit_through_differences() -> None:
    top = float(2**53 - 1)
    rows = [[top, -top, top, 0, 1], [-top, top, 0, top, -1], [0, top, -top, 1, 2], [top - 2, 5, -top, top, 9]]
    assert_round_trip(of(rows), (np.zeros(4, np.int32), np.arange(4.0)))
    assert_round_trip(of(rows))


def test_changes_of_every_width_come_back() -> None:
    rows = [[0.0, 2.0**width, 2.0**width + 1, 7.0, 2.0**width - 1] for width in range(53)]
    assert_round_trip(of(rows))


def test_one_column_and_one_series_are_a_chunk() -> None:
    assert_round_trip(of([[3.0]]))
    assert_round_trip(np.array([[ABSENT_BITS]], np.uint64))


def test_uneven_times_come_back() -> None:
    ts = np.array([-5, 0, 1, 15_000, 15_001, 2**60], np.int64)
    bits = of(np.arange(6.0))
    chunk = encode_chunk(FRAME, ts, bits, *apart(1))
    head = open_head(FRAME, -5, 2**60, chunk.head)
    assert head.times_ms.tolist() == ts.tolist()
    assert np.array_equal(decode_block(head, 0, chunk.blocks[0]), bits)


# What it costs ------------------------------------------------------------------------------------------------------


def test_rows_that_do_not_change_cost_next_to_nothing() -> None:
    series, columns = 640, 480
    zeros = assert_round_trip(np.zeros((series, columns), np.uint64))
    assert zeros < 100 * series // BLOCK_SERIES + 200
    assert assert_round_trip(of(np.repeat(np.arange(series) * 0.37, columns).reshape(series, columns))) < 10 * series


def test_a_row_with_a_gap_is_not_stored_raw() -> None:
    random = np.random.default_rng(3)
    bits = of(np.cumsum(random.poisson(5.0, (32, 480)), axis=1).astype(np.float64))
    whole = assert_round_trip(bits)
    bits[:, 100:104] = ABSENT_BITS
    bits[5, 300] = STALE_BITS
    bits[5, 301:] = ABSENT_BITS
    assert assert_round_trip(bits) < whole * 1.05


def test_a_histogram_costs_less_when_its_buckets_are_known_as_such() -> None:
    random = np.random.default_rng(4)
    rows = np.vstack([histogram(random, 480) for _ in range(4)])
    groups = np.repeat(np.arange(4, dtype=np.int32), 14)
    bounds = np.tile(np.append(np.arange(13.0), np.nan), 4)
    assert assert_round_trip(of(rows), (groups, bounds)) < 0.75 * assert_round_trip(of(rows))


def test_decimals_cost_what_their_digits_do() -> None:
    random = np.random.default_rng(5)
    cents = np.cumsum(random.integers(0, 100, (16, 480)), axis=1)
    assert assert_round_trip(of(cents / 100)) < 1.1 * assert_round_trip(of(cents.astype(np.float64)))


def test_changes_in_pages_cost_what_pages_do() -> None:
    random = np.random.default_rng(6)
    pages = np.cumsum(random.integers(-9, 10, (16, 480)), axis=1).astype(np.float64)
    assert assert_round_trip(of(2e8 // 4096 * 4096 + pages * 4096)) < 1.1 * assert_round_trip(of(pages))


def test_noise_costs_no_more_than_its_bits() -> None:
    random = np.random.default_rng(7)
    bits = random.integers(0, 2**64, (64, 100), dtype=np.uint64)
    assert assert_round_trip(bits) < bits.nbytes + 400


# Blocks -------------------------------------------------------------------------------------------------------------


def test_a_block_is_read_without_the_others() -> None:
    bits = of(np.cumsum(np.random.default_rng(8).poisson(3.0, (200, 30)), axis=1).astype(np.float64))
    chunk = encoded(bits)
    head = headed(chunk, 30)
    assert len(chunk.blocks) == 4
    for block, blob in enumerate(chunk.blocks):
        rows = np.flatnonzero(head.block_of == block)
        assert rows.size <= BLOCK_SERIES
        assert np.array_equal(decode_block(head, block, blob)[head.slot_of[rows]], bits[rows])


def test_a_histogram_larger_than_a_block_is_split() -> None:
    rows = histogram(np.random.default_rng(9), 50, buckets=200)
    assert_round_trip(of(rows), (np.zeros(201, np.int32), np.append(np.arange(200.0), np.nan)))


def test_encoding_does_not_change_what_it_is_given() -> None:
    bits = of(histogram(np.random.default_rng(10), 20))
    bits[3, 4] = ABSENT_BITS
    kept = bits.copy()
    bits.setflags(write=False)
    encoded(bits, (np.zeros(14, np.int32), np.arange(14.0)))
    assert np.array_equal(bits, kept)


# Damage -------------------------------------------------------------------------------------------------------------


def mixed() -> Bits:
    random = np.random.default_rng(11)
    bits = of(
        np.vstack(
            (histogram(random, 24), random.random((3, 24)), np.ones((2, 24)), random.integers(0, 9, (2, 24)) / 10)
        )
    )
    bits[4, 5:9] = ABSENT_BITS
    bits[-1, 20] = STALE_BITS
    return bits


def resealed(blob: bytes, place: tuple[int, int, int]) -> bytes:
    """A hostile blob: its content is wrong and its checksum right."""
    rest = blob[4:]
    return struct.pack("<I", zlib.crc32(rest, zlib.crc32(struct.pack("<qqq", *place)))) + rest


def test_every_flipped_byte_is_known() -> None:
    bits = mixed()
    chunk = encoded(bits)
    head = headed(chunk, 24)
    for place in range(len(chunk.head)):
        broken = bytearray(chunk.head)
        broken[place] ^= 0x10
        with pytest.raises(DamagedError, match="checksum"):
            headed(EncodedChunk(bytes(broken), []), 24)
    for place in range(len(chunk.blocks[0])):
        broken = bytearray(chunk.blocks[0])
        broken[place] ^= 0x10
        with pytest.raises(DamagedError, match="checksum"):
            decode_block(head, 0, bytes(broken))


def test_every_truncation_is_known() -> None:
    chunk = encoded(mixed())
    head = headed(chunk, 24)
    for length in range(len(chunk.head)):
        with pytest.raises(DamagedError):
            headed(EncodedChunk(chunk.head[:length], []), 24)
    for length in range(len(chunk.blocks[0])):
        with pytest.raises(DamagedError):
            decode_block(head, 0, chunk.blocks[0][:length])


def test_a_blob_at_another_place_is_known() -> None:
    bits = of(np.cumsum(np.random.default_rng(12).poisson(3.0, (128, 24)), axis=1).astype(np.float64))
    chunk = encoded(bits)
    ts = times(24)
    head = headed(chunk, 24)
    with pytest.raises(DamagedError):
        decode_block(head, 0, chunk.blocks[1])
    with pytest.raises(DamagedError, match="block 2 of a chunk that has 2"):
        decode_block(head, 2, chunk.blocks[1])
    for frame, first, last in ((8, 0, 0), (FRAME, 1, 0), (FRAME, 0, 1)):
        with pytest.raises(DamagedError):
            open_head(frame, int(ts[0]) + first, int(ts[-1]) + last, chunk.head)
    with pytest.raises(DamagedError):
        open_head(FRAME, int(ts[0]), int(ts[-1]), chunk.blocks[0])


@settings(max_examples=300)
@given(st.data())
def test_hostile_bytes_raise_nothing_but_damage(data: st.DataObject) -> None:
    chunk = encoded(mixed(), (np.array([0] * 14 + [1, 2, 3, 4, 5, 6, 7], np.int32), np.arange(21.0)))
    head = headed(chunk, 24)
    ts = times(24)
    first, last = int(ts[0]), int(ts[-1])
    for blob, place in ((chunk.head, (FRAME, first, last)), (chunk.blocks[0], (FRAME, first, 0))):
        broken = bytearray(blob)
        for _ in range(data.draw(st.integers(1, 3))):
            broken[data.draw(st.integers(4, len(broken) - 1))] = data.draw(st.integers(0, 255))
        hostile = resealed(bytes(broken[: data.draw(st.integers(5, len(broken)))]), place)
        try:
            if blob is chunk.head:
                assert open_head(FRAME, first, last, hostile).times_ms.size == 24
            else:
                assert decode_block(head, 0, hostile).shape == (21, 24)
        except DamagedError:
            pass


def test_a_head_that_claims_too_much_is_damage() -> None:
    chunk = encoded(mixed())
    first, last = int(times(24)[0]), int(times(24)[-1])
    for offset, size in ((8, 4), (12, 4), (16, 4), (20, 4), (24, 4)):
        broken = bytearray(chunk.head)
        broken[offset : offset + size] = b"\xff" * size
        with pytest.raises(DamagedError):
            open_head(FRAME, first, last, resealed(bytes(broken), (FRAME, first, last)))
