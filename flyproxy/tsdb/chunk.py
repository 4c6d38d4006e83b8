"""Chunks: a stretch of one frame's columns, sealed. A head says when the columns were and which series is where; each
block holds the rows of up to BLOCK_SERIES series and is read by itself (chunk_block.py).

Every bit comes back, and a head or block that was damaged, or stands at another place, is known as such.
docs/formats/chunks.md draws the bytes.
"""

import struct
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS
from flyproxy.tsdb.chunk_block import BLOCK_SERIES, COLUMNS_MAX, decode_rows, deflated, encode_rows, inflated
from flyproxy.tsdb.chunk_order import Bounds, Flags, Groups, Order, rows_in_order, share_out
from flyproxy.tsdb.log import SERIES_MAX, Bits, DamagedError, Place, opened, sealed

__all__ = ["BLOCK_SERIES", "COLUMNS_MAX", "ChunkHead", "EncodedChunk", "decode_block", "encode_chunk", "open_head"]

_HEAD = struct.Struct("<BBHIIIIIQ")
_MARK = 2
_CODEC = 1
_ROWS_LOOKED_AT = 512
"""Rows looked at in one go: they stay in the cache."""
_ASCENDING = ChunkConfig(compression_level=8, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.try_consecutive(1))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedChunk:
    """A chunk's bytes: one head, and the blocks in their order."""

    head: bytes
    blocks: list[bytes]


@dataclass(frozen=True, slots=True, eq=False)
class ChunkHead:
    """What a chunk's head says."""

    frame: int
    times_ms: npt.NDArray[np.int64]
    """[columns], strictly ascending."""
    series: int
    blocks: int
    block_of: npt.NDArray[np.int32]
    """[series] The block each series is in."""
    slot_of: npt.NDArray[np.int32]
    """[series] Its row in that block."""
    sizes: npt.NDArray[np.int32] = field(repr=False)
    """[blocks] Rows in each."""
    samples: int
    """How many it holds, stale markers not counted."""


def encode_chunk(
    frame: int, times_ms: npt.NDArray[np.int64], bits: Bits, groups: Groups, bounds: Bounds
) -> EncodedChunk:
    """The chunk of `frame` with these columns: `times_ms` [columns], strictly ascending, at least one and at most
    COLUMNS_MAX; `bits` [series, columns], at least one series; `groups` and `bounds` [series] as
    chunk_order.histogram_groups gives them."""
    series, columns = bits.shape
    assert 0 < columns <= COLUMNS_MAX, columns
    assert 0 < series <= SERIES_MAX, series
    assert times_ms.shape == (columns,)
    assert groups.shape == bounds.shape == (series,)
    order = rows_in_order(groups, bounds, _idle(bits))
    block_of = share_out(groups[order], BLOCK_SERIES)
    order = order[np.argsort(block_of, kind="stable")]
    sizes = np.bincount(block_of)
    chained = np.zeros(series, np.bool_)
    chained[1:] = groups[order[1:]] == groups[order[:-1]]
    blocks = []
    for block, (start, end) in enumerate(pairwise((0, *np.cumsum(sizes).tolist()))):
        place = Place(frame, int(times_ms[0]), block)
        blocks.append(encode_rows(place, bits[order[start:end]], chained[start:end]))
    return EncodedChunk(_encode_head(frame, times_ms, order, sizes, _samples(bits)), blocks)


def open_head(frame: int, first_ms: int, last_ms: int, head: bytes) -> ChunkHead:
    """The head of the chunk that stands there. Raises DamagedError."""
    rest = opened(Place(frame, first_ms, last_ms), head)
    try:
        return _decode_head(frame, first_ms, last_ms, rest)
    except (struct.error, ValueError, OverflowError) as fault:
        raise DamagedError(f"its checksum is right but its content is not: {fault}") from None


def decode_block(head: ChunkHead, block: int, blob: bytes) -> Bits:
    """[rows of the block, columns] The bits of its series, at their slots. Raises DamagedError."""
    if not 0 <= block < head.blocks:
        raise DamagedError(f"it is block {block} of a chunk that has {head.blocks}")
    place = Place(head.frame, int(head.times_ms[0]), block)
    return decode_rows(place, int(head.sizes[block]), head.times_ms.size, blob)


def _idle(bits: Bits) -> Flags:
    """[series] True for rows that are the same in every column."""
    idle = np.empty(len(bits), np.bool_)
    for start in range(0, len(bits), _ROWS_LOOKED_AT):
        rows = bits[start : start + _ROWS_LOOKED_AT]
        idle[start : start + _ROWS_LOOKED_AT] = (rows == rows[:, :1]).all(axis=1)
    return idle


def _samples(bits: Bits) -> int:
    marked = 0
    for start in range(0, len(bits), _ROWS_LOOKED_AT):
        markers = bits[start : start + _ROWS_LOOKED_AT] - np.uint64(STALE_BITS) <= ABSENT_BITS - STALE_BITS
        marked += int(np.count_nonzero(markers))
    return bits.size - marked


def _encode_head(
    frame: int, times_ms: npt.NDArray[np.int64], order: Order, sizes: npt.NDArray[np.intp], samples: int
) -> bytes:
    times = deflated(times_ms, _ASCENDING)
    rows = deflated(order, _ASCENDING)
    counts = _HEAD.pack(_MARK, _CODEC, 0, order.size, times_ms.size, sizes.size, len(times), len(rows), samples)
    place = Place(frame, int(times_ms[0]), int(times_ms[-1]))
    return sealed(place, b"".join((counts, times, rows, sizes.astype(np.uint8).tobytes())))


def _decode_head(frame: int, first_ms: int, last_ms: int, rest: memoryview) -> ChunkHead:
    mark, codec, _, series, columns, blocks, times_bytes, order_bytes, samples = _HEAD.unpack_from(rest)
    if (mark, codec) != (_MARK, _CODEC):
        raise ValueError(f"mark {mark}, codec {codec}")
    if not (0 < columns <= COLUMNS_MAX and 0 < blocks <= series <= SERIES_MAX):
        raise ValueError(f"{series} series, {columns} columns, {blocks} blocks")
    if samples > series * columns:
        raise ValueError(f"{samples} samples in {series} series of {columns} columns")
    if len(rest) != _HEAD.size + times_bytes + order_bytes + blocks:
        raise ValueError(f"{len(rest)} bytes do not hold its parts")
    body = rest[_HEAD.size :]
    times = inflated(body[:times_bytes], np.empty(columns, np.int64))
    order: Order = inflated(body[times_bytes : times_bytes + order_bytes], np.empty(series, np.int32))
    sizes = np.frombuffer(body[times_bytes + order_bytes :], np.uint8).astype(np.int32)
    if (np.diff(times) <= 0).any() or (int(times[0]), int(times[-1])) != (first_ms, last_ms):
        raise ValueError("its times are not those it stands at")
    if int(sizes.sum()) != series or int(sizes.min()) < 1 or int(sizes.max()) > BLOCK_SERIES:
        raise ValueError(f"its blocks do not share {series} series out")
    block_of, slot_of = _places(order, sizes)
    return ChunkHead(frame, times, series, blocks, block_of, slot_of, sizes, samples)


def _places(order: Order, sizes: Order) -> tuple[Order, Order]:
    """[series] each: the block and the slot of every series."""
    if int(order.min()) < 0 or int(order.max()) >= order.size or np.bincount(order).max() > 1:
        raise ValueError("a series is in two places")
    begins = np.cumsum(sizes) - sizes
    block_of, slot_of = np.empty_like(order), np.empty_like(order)
    block_of[order] = np.repeat(np.arange(sizes.size, dtype=np.int32), sizes)
    slot_of[order] = np.arange(order.size, dtype=np.int32) - np.repeat(begins, sizes)
    return block_of, slot_of
