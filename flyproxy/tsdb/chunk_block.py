"""A block of a chunk: the rows of up to BLOCK_SERIES series, as bytes.

What must hold: every bit comes back; a sample costs the disk under half a byte for what a fleet sends, and a row that
did not change next to nothing; no bytes whatever make the reader take more memory than such a block can have.

Plan: chunk_rows.py turns each row into integers. What is left is how those change from column to column. A block says
for each row where it starts and in what unit it changes (the greatest common divisor of its changes: memory comes in
pages of 4,096 bytes), and then holds a few streams of changes, each compressed by pcodec in one call. Rows of like
activity share a stream: its entropy code then fits each of them. Rows that do not change are in none.

A block is decoded again before it is handed over, because the log it replaces is deleted; should it not be what went
in, its rows are stored as plain bits instead.
"""

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import cramjam
import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

from flyproxy.tsdb.chunk_order import Flags
from flyproxy.tsdb.chunk_rows import BITS, DIFFERENCE, INTEGER, WHOLE_MAX, Bytes, Integers, Rows, read_rows, write_rows
from flyproxy.tsdb.log import Bits, DamagedError, Place, opened, sealed

BLOCK_SERIES = 64
"""Rows in a block at most."""
COLUMNS_MAX = 65_536
"""Columns in a chunk at most."""

_BLOCK = struct.Struct("<BBBBBBHII")
_MARK = 3
_CODEC = 1
_NARROW, _STEPS, _FLOATS, _PLAIN = 1, 2, 3, 4
_STREAM_KINDS = frozenset((_NARROW, _STEPS, _FLOATS, _PLAIN))
_ADDABLE = (INTEGER, DIFFERENCE)
_CLASS_LOG2 = 2.5
"""Rows share a stream when their mean changes are within this many powers of two."""
_UNIT_PROBES = 8

_STEPPED = ChunkConfig(compression_level=8, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.try_consecutive(1))
_WHATEVER = ChunkConfig(compression_level=8)

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
Numbers = TypeVar("Numbers", npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """What a block says of each row [rows], and of each stream."""

    kinds: Bytes
    members: Bytes
    """0: the row does not change; k: it is in the k-th stream."""
    starts: Integers
    units: Integers
    stream_kinds: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    """How some rows change."""

    kind: int
    rows: Places
    packed: bytes


def encode_rows(place: Place, bits: Bits, chained: Flags) -> bytes:
    """The blob of the block at `place` (its third number says which of the chunk) with `bits` [rows, columns].
    `chained` [rows]: the row is the next bucket of the histogram the row before it belongs to."""
    blob = _encode(place, read_rows(bits, chained))
    return blob if _tells(place, blob, bits) else encode_plain(place, bits)


def encode_plain(place: Place, bits: Bits) -> bytes:
    """As `encode_rows`, without a codec that could be wrong about them."""
    return _encode(place, Rows.of_bits(bits), plain=True)


def decode_rows(place: Place, rows: int, columns: int, blob: bytes) -> Bits:
    """[rows, columns] What `encode_rows` was given at this place. Raises DamagedError."""
    rest = opened(place, blob)
    try:
        return _decode(rest, rows, columns)
    except (struct.error, ValueError, IndexError, OverflowError, cramjam.DecompressionError) as fault:
        raise DamagedError(f"its checksum is right but its content is not: {fault}") from None


def deflated(numbers: Numbers, config: ChunkConfig) -> bytes:
    """Numbers [n], contiguous, as pcodec's standalone format."""
    return bytes(standalone.simple_compress(numbers, config))


def inflated(packed: memoryview, numbers: Numbers) -> Numbers:
    """`numbers` [n], contiguous, filled with exactly what `deflated` was given. Raises ValueError."""
    try:
        progress = standalone.simple_decompress_into(bytes(packed), numbers)
    except (RuntimeError, TypeError) as fault:
        raise ValueError(str(fault)) from None
    except BaseException as fault:
        if type(fault).__name__ != "PanicException":  # how a Rust panic arrives; it cannot be imported
            raise
        raise ValueError(str(fault)) from None
    if progress.n_processed != numbers.size or not progress.finished:
        raise ValueError(f"{progress.n_processed} numbers where {numbers.size} belong")
    return numbers


def _tells(place: Place, blob: bytes, bits: Bits) -> bool:
    try:
        return np.array_equal(decode_rows(place, len(bits), bits.shape[1], blob), bits)
    except DamagedError:
        return False


def _encode(place: Place, rows: Rows, *, plain: bool = False) -> bytes:
    count, columns = rows.numbers.shape
    changes = np.diff(rows.numbers, axis=1)
    moving = changes.any(axis=1)
    floats = rows.kinds == BITS
    units = _units(changes, moving & ~floats)
    starts = np.where(moving & floats, 0, rows.numbers[:, 0])
    streams = [_steps(some, rows.numbers[some], units[some]) for some in _classes(changes, units, moving & ~floats)]
    streams += [_floats(some, rows.numbers[some], plain) for some in _classes(changes, units, moving & floats)]
    streams.sort(key=lambda stream: stream.kind)
    members = np.zeros(count, np.uint8)
    for number, stream in enumerate(streams, 1):
        members[stream.rows] = number
    table = b"".join(
        (
            rows.kinds.tobytes(),
            members.tobytes(),
            rows.patterns_of.tobytes(),
            _planes(starts),
            _planes(units),
            bytes(stream.kind for stream in streams),
            np.array([len(stream.packed) for stream in streams], "<u4").tobytes(),
            _pack_patterns(rows.patterns),
        )
    )
    table_packed = bytes(cramjam.lz4.compress_block(table, store_size=False))
    header = _BLOCK.pack(_MARK, _CODEC, 0, count, len(rows.patterns), len(streams), 0, columns, len(table_packed))
    return sealed(place, b"".join((header, table_packed, *(stream.packed for stream in streams))))


def _units(changes: Integers, whole: Flags) -> Integers:
    """[rows] The greatest number that divides all of a row's changes; most are ruled out by a few of them."""
    units = np.ones(len(changes), np.int64)
    rows = np.flatnonzero(whole)
    if rows.size:
        probes = changes[rows, :: max(1, changes.shape[1] // _UNIT_PROBES)]
        rows = rows[np.gcd.reduce(probes, axis=1) != 1]
        units[rows] = np.gcd.reduce(changes[rows], axis=1)
    return units


def _classes(changes: Integers, units: Integers, moving: Flags) -> list[Places]:
    """The rows that move, shared out by how much they do."""
    rows = np.flatnonzero(moving)
    if not rows.size:
        return []
    activity = np.abs(changes[rows].astype(np.float64)).mean(axis=1) / units[rows]
    classes = np.floor(np.log2(activity) / _CLASS_LOG2)
    return [rows[classes == one] for one in np.unique(classes)]


def _steps(rows: Places, numbers: Integers, units: Integers) -> _Stream:
    """Each row goes on from where the row before it ended: what pcodec sees is one long run of steps."""
    runs = (numbers - numbers[:, :1]) // units[:, np.newaxis]
    runs[1:] += np.cumsum(runs[:-1, -1])[:, np.newaxis]
    narrow = runs.astype(np.int32)
    if (narrow == runs).all() and (np.abs(numbers[:, 0]) < WHOLE_MAX // 2).all():
        return _Stream(_NARROW, rows, deflated(narrow.ravel(), _STEPPED))
    return _Stream(_STEPS, rows, deflated(runs.ravel(), _STEPPED))


def _floats(rows: Places, numbers: Integers, plain: bool) -> _Stream:
    if not plain:
        packed = deflated(numbers.ravel().view(np.float64), _WHATEVER)
        if len(packed) < numbers.nbytes:
            return _Stream(_FLOATS, rows, packed)
    return _Stream(_PLAIN, rows, numbers.astype("<i8").tobytes())


def _planes(numbers: Integers) -> bytes:
    """All first bytes, then all second bytes ...: lz4 finds the high ones, which are mostly 0, as one run."""
    return np.ascontiguousarray(numbers.astype("<i8").view(np.uint8).reshape(-1, 8).T).tobytes()


def _from_planes(planes: memoryview) -> Integers:
    return np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(8, -1).T).view("<i8").ravel()


def _pack_patterns(patterns: Flags) -> bytes:
    """A bit where a pattern changes from one column to the next."""
    turns = patterns.copy()
    turns[:, :, 1:] ^= patterns[:, :, :-1]
    return np.packbits(turns, axis=-1).tobytes()


def _unpack_patterns(packed: memoryview, count: int, columns: int) -> Flags:
    turns = np.frombuffer(packed, np.uint8).reshape(count, 2, (columns + 7) // 8)
    return np.logical_xor.accumulate(np.unpackbits(turns, axis=-1, count=columns).view(np.bool_), axis=-1)


def _decode(rest: memoryview, count: int, columns: int) -> Bits:
    mark, codec, _, stands_for, patterns, streams, _, wide, table_bytes = _BLOCK.unpack_from(rest)
    if (mark, codec) != (_MARK, _CODEC) or (stands_for, wide) != (count, columns):
        raise ValueError(f"mark {mark}, codec {codec}, {stands_for} rows, {wide} columns")
    if not (0 < count <= BLOCK_SERIES and 0 < columns <= COLUMNS_MAX and patterns <= count and streams <= count):
        raise ValueError(f"{count} rows, {columns} columns, {patterns} patterns, {streams} streams")
    sections = [count, count, count, 8 * count, 8 * count, streams, 4 * streams, patterns * 2 * ((columns + 7) // 8)]
    body = rest[_BLOCK.size :]
    if table_bytes > len(body):
        raise ValueError(f"a table of {table_bytes} bytes in {len(body)}")
    table = memoryview(cramjam.lz4.decompress_block(body[:table_bytes], output_len=sum(sections)))
    if len(table) != sum(sections):
        raise ValueError(f"a table of {len(table)} bytes where {sum(sections)} belong")
    parts = _cut(table, sections)
    stream_kinds = bytes(parts[5])
    _check(bytes(parts[0]), bytes(parts[1]), stream_kinds, bytes(parts[2]), patterns)
    kinds, members, patterns_of = (np.frombuffer(part, np.uint8) for part in parts[:3])
    lengths = np.frombuffer(parts[6], "<u4").tolist()
    if table_bytes + sum(lengths) != len(body):
        raise ValueError(f"streams of {sum(lengths)} bytes in {len(body) - table_bytes}")
    known = _Table(kinds, members, _from_planes(parts[3]), _from_planes(parts[4]), stream_kinds)
    values = _values(known, _cut(body[table_bytes:], lengths), columns)
    return write_rows(kinds, values, patterns_of, _unpack_patterns(parts[7], patterns, columns))


def _check(kinds: bytes, members: bytes, stream_kinds: bytes, patterns_of: bytes, patterns: int) -> None:
    """Raises ValueError. Plain bytes: for 64 rows that is quicker than arrays."""
    if max(members) > len(stream_kinds) or max(patterns_of) > patterns:
        raise ValueError("a stream or pattern that is not there")
    if bytes(sorted(stream_kinds)) != stream_kinds or not _STREAM_KINDS.issuperset(stream_kinds):
        raise ValueError(f"streams of kinds {[*stream_kinds]}")
    before = BITS
    for kind, member in zip(kinds, members, strict=True):
        if kind > BITS or (kind == DIFFERENCE and before not in _ADDABLE):
            raise ValueError(f"a row of kind {kind} after one of kind {before}")
        if member and (kind == BITS) != (stream_kinds[member - 1] > _STEPS):
            raise ValueError(f"a row of kind {kind} in a stream of kind {stream_kinds[member - 1]}")
        before = kind


def _cut(body: memoryview, lengths: list[int]) -> list[memoryview]:
    ends = accumulate(lengths)
    return [body[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _values(table: _Table, packed: list[memoryview], columns: int) -> Floats:
    """[rows, columns] The rows' numbers as float64, or their bits."""
    values = np.empty((table.kinds.size, columns))
    offsets = np.zeros(table.kinds.size)
    order = np.argsort(table.members, kind="stable")
    ends = list(accumulate(np.bincount(table.members, minlength=len(packed) + 1).tolist()))
    narrow = table.stream_kinds.count(_NARROW)
    steps = narrow + table.stream_kinds.count(_STEPS)
    if narrow:
        rows = order[ends[0] : ends[narrow]]
        runs = np.empty((rows.size, columns), np.int32)
        for stream in range(narrow):
            inflated(packed[stream], runs[ends[stream] - ends[0] : ends[stream + 1] - ends[0]].reshape(-1))
        values[rows] = runs
        offsets[rows] = table.starts[rows] - runs[:, 0]
        scaled = table.units[rows] != 1
        if scaled.any():
            some = rows[scaled]
            values[some] = _numbers(runs[scaled].astype(np.int64), table.starts[some], table.units[some])
            offsets[some] = 0
    for stream in range(narrow, steps):
        rows = order[ends[stream] : ends[stream + 1]]
        wide = inflated(packed[stream], np.empty(rows.size * columns, np.int64)).reshape(-1, columns)
        values[rows] = _numbers(wide, table.starts[rows], table.units[rows])
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not filled yet hold anything
        values += offsets[:, np.newaxis]
    for stream in range(steps, len(packed)):
        rows = order[ends[stream] : ends[stream + 1]]
        if table.stream_kinds[stream] == _FLOATS:
            values[rows] = inflated(packed[stream], np.empty(rows.size * columns)).reshape(-1, columns)
        else:
            values[rows] = np.frombuffer(packed[stream], "<f8").reshape(rows.size, columns)
    still = order[: ends[0]]
    starts = table.starts[still]
    values[still] = np.where(table.kinds[still] == BITS, starts.view(np.float64), starts)[:, np.newaxis]
    return values


def _numbers(runs: Integers, starts: Integers, units: Integers) -> Integers:
    """[rows, columns] What the runs were made of, in their place."""
    runs -= runs[:, :1].copy()
    runs *= units[:, np.newaxis]
    runs += starts[:, np.newaxis]
    return runs
