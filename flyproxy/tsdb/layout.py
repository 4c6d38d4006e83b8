"""Which series a frame's rows are, and when each of them was there, as bytes.

A layout blob holds the labels of series appended to a frame, dictionary-coded by column: each distinct value stands
once, so a reader has its index by copying integers and never builds a label set nobody asked for. A presence blob holds
the first and last time of each series of a frame; it is rewritten when a series is born, ends or comes back, so it
stays small however often a target flaps. docs/formats/log.md draws the bytes.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import cramjam
import numpy as np
import numpy.typing as npt

from flyproxy.series.labels import Labels
from flyproxy.tsdb.log import SERIES_MAX, DamagedError, Place, opened, sealed

Codes = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]

NEVER_MS = -(2**63)
"""The last time of a series that never had a sample."""
LIVE_MS = 2**63 - 1
"""The last time of a series that has not ended; the first time of one that never began."""

_LAYOUT = struct.Struct("<II")
_LAYOUT_MARK = -1
_PRESENCE_MARK = -2
_BODY_BYTES_MAX = 1 << 31


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One label of a run of series: `codes` [series] is 0 where it is absent, else 1 + the place in `values`."""

    name: str
    values: Sequence[str]
    codes: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """[series] each: the time of the first sample, and of the marker that ended it (LIVE_MS while it goes on)."""

    first_ms: Times
    last_ms: Times


def encode_layout(frame: int, first: int, series: Sequence[Labels]) -> bytes:
    """The blob for `series`, which become the rows `first` ... of a frame."""
    values: dict[str, dict[str, int]] = {}
    codes: dict[str, Codes] = {}
    for row, labels in enumerate(series):
        for name, value in labels:
            column = values.get(name)
            if column is None:
                column = values[name] = {}
                codes[name] = np.zeros(len(series), np.int32)
            codes[name][row] = column.setdefault(value, len(column) + 1)
    text = json.dumps([[name, list(column)] for name, column in values.items()], separators=(",", ":")).encode()
    body = text + b"".join(codes[name].astype("<i4").tobytes() for name in values)
    packed = bytes(cramjam.lz4.compress_block(body, store_size=False))
    return sealed(Place(frame, _LAYOUT_MARK, first), _LAYOUT.pack(len(body), len(text)) + packed)


def decode_layout(frame: int, first: int, count: int, blob: bytes) -> list[Column]:
    """Raises DamagedError."""
    rest = opened(Place(frame, _LAYOUT_MARK, first), blob)
    try:
        size, text_bytes = _LAYOUT.unpack_from(rest)
        if size > _BODY_BYTES_MAX or count > SERIES_MAX:
            raise ValueError(f"{count} series in {size} bytes")
        body = memoryview(cramjam.lz4.decompress_block(rest[_LAYOUT.size :], output_len=size))
        names = json.loads(bytes(body[:text_bytes]))
        codes = np.frombuffer(body[text_bytes:], "<i4").reshape(len(names), count)
        return [Column(name, values, codes[place]) for place, (name, values) in enumerate(names)]
    except (struct.error, ValueError, TypeError, cramjam.DecompressionError) as fault:
        raise DamagedError(f"its checksum is right but its content is not: {fault}") from None


def labels_of(columns: Sequence[Column]) -> list[Labels]:
    """[series] The label sets of a layout, sorted by name."""
    ordered = sorted(columns, key=lambda column: column.name)
    pairs = [(None, *((column.name, value) for value in column.values)) for column in ordered]
    looked_up = [[pair[code] for code in column.codes.tolist()] for pair, column in zip(pairs, ordered, strict=True)]
    return [tuple(filter(None, row)) for row in zip(*looked_up, strict=True)]


def encode_presence(frame: int, presence: Presence) -> bytes:
    """The blob for one frame's presence."""
    count = presence.first_ms.size
    body = presence.first_ms.astype("<i8").tobytes() + presence.last_ms.astype("<i8").tobytes()
    packed = bytes(cramjam.lz4.compress_block(body, store_size=False))
    return sealed(Place(frame, _PRESENCE_MARK, 0), struct.pack("<I", count) + packed)


def decode_presence(frame: int, blob: bytes) -> Presence:
    """Raises DamagedError."""
    rest = opened(Place(frame, _PRESENCE_MARK, 0), blob)
    try:
        (count,) = struct.unpack_from("<I", rest)
        if count > SERIES_MAX:
            raise ValueError(f"{count} series")
        body = memoryview(cramjam.lz4.decompress_block(rest[4:], output_len=16 * count))
        times = np.frombuffer(body, "<i8").astype(np.int64)
        return Presence(times[:count].copy(), times[count:].copy())
    except (struct.error, ValueError, cramjam.DecompressionError) as fault:
        raise DamagedError(f"its checksum is right but its content is not: {fault}") from None
