"""Sealed stretches as a reader has them: blocks of chunks, decoded when a query wants one of their series, and kept
while there is room.

A damaged chunk head or block is named once; what it held has no sample, everything else answers.
"""

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from flyproxy.series.frame import ABSENT_BITS, Times
from flyproxy.tsdb.chunk import ChunkHead, decode_block, open_head
from flyproxy.tsdb.frames import StoredChunk
from flyproxy.tsdb.index import Rows
from flyproxy.tsdb.log import Bits, DamagedError
from flyproxy.tsdb.replay import Damages

_HEAD = -1
"""Where a chunk's head stands among its blocks in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Some columns of one chunk."""

    chunk: StoredChunk
    head: ChunkHead
    columns: slice

    @property
    def times_ms(self) -> Times:
        """[columns]"""
        return self.head.times_ms[self.columns]


class Blocks:
    """Decoded blocks and opened heads of chunks, the last used ones."""

    def __init__(self, connection: sqlite3.Connection, path: str, damages: Damages) -> None:
        self._connection = connection
        self._path = path
        self._damages = damages
        self._kept: OrderedDict[tuple[int, int], ChunkHead | Bits] = OrderedDict()
        self.bytes = 0
        """What is kept occupies."""
        self.bytes_max = 0
        """At most so much is kept."""
        self.decoded = 0
        """Blocks decoded since the reader was opened."""

    def stretch(self, frame: int, chunk: StoredChunk, start_ms: int, end_ms: int) -> Stretch | None:
        """The chunk's columns with start_ms <= t <= end_ms; None when there is none, when retention took the chunk
        since the last refresh, and when its head is damaged."""
        head = self._head(frame, chunk)
        if head is None:
            return None
        low = int(np.searchsorted(head.times_ms, start_ms, "left"))
        high = int(np.searchsorted(head.times_ms, end_ms, "right"))
        return Stretch(chunk, head, slice(low, high)) if low < high else None

    def fill(self, stretch: Stretch, rows: Rows, out: Bits) -> bool:
        """Write the samples of `rows` (ascending numbers of the frame's series) into `out` [rows, columns]; what the
        chunk does not know, because it came later or is damaged, has no sample. False when something is damaged."""
        head = stretch.head
        known = int(np.searchsorted(rows, head.series))
        out[known:] = ABSENT_BITS
        blocks, slots = head.block_of[rows[:known]], head.slot_of[rows[:known]]
        order = np.argsort(blocks, kind="stable")
        ends = np.flatnonzero(np.diff(blocks[order])) + 1
        whole = True
        for places in np.split(order, ends) if known else ():
            bits = self._block(stretch, int(blocks[places[0]]))
            whole = whole and bits is not None
            if bits is None:
                out[places] = ABSENT_BITS
            else:
                out[places] = bits[slots[places], stretch.columns]
        return whole

    def forget(self, chunk: int) -> None:
        """Retention took the chunk."""
        head = self._kept.get((chunk, _HEAD))
        if isinstance(head, ChunkHead):
            for block in range(_HEAD, head.blocks):
                held = self._kept.pop((chunk, block), None)
                self.bytes -= 0 if held is None else _bytes(held)

    def keep_within(self, bytes_max: int) -> None:
        """Let the least used go."""
        self.bytes_max = bytes_max
        while self.bytes > bytes_max:
            _, held = self._kept.popitem(last=False)
            self.bytes -= _bytes(held)

    def _head(self, frame: int, chunk: StoredChunk) -> ChunkHead | None:
        held = self._kept.get((chunk.id, _HEAD))
        if isinstance(held, ChunkHead):
            self._kept.move_to_end((chunk.id, _HEAD))
            return held
        found = self._connection.execute("SELECT CAST(head AS BLOB) FROM chunks WHERE id = ?", (chunk.id,)).fetchone()
        if found is None:
            return None
        try:
            opened = open_head(frame, chunk.first_ms, chunk.last_ms, found[0])
        except DamagedError as why:
            self._damages.add(
                "chunks_damaged",
                chunk.id,
                _HEAD,
                f"{self._path}: the samples of frame {frame} from {chunk.first_ms} to {chunk.last_ms} ms are skipped: "
                f"the head of chunk {chunk.id}: {why}",
            )
            return None
        self._keep((chunk.id, _HEAD), opened)
        return opened

    def _block(self, stretch: Stretch, block: int) -> Bits | None:
        """[series of the block, columns of the chunk] None when it is damaged, or gone with its chunk."""
        chunk, head = stretch.chunk, stretch.head
        held = self._kept.get((chunk.id, block))
        if held is not None and not isinstance(held, ChunkHead):
            self._kept.move_to_end((chunk.id, block))
            return held
        found = self._connection.execute(
            "SELECT CAST(blob AS BLOB) FROM blocks WHERE chunk = ? AND block = ?", (chunk.id, block)
        ).fetchone()
        if found is None and not self._is_there(chunk):
            return None
        try:
            if found is None:
                raise DamagedError("it is not there")
            bits = decode_block(head, block, found[0])
        except DamagedError as why:
            self._damages.add(
                "blocks_damaged",
                chunk.id,
                block,
                f"{self._path}: {np.count_nonzero(head.block_of == block)} series of a frame have no samples from "
                f"{chunk.first_ms} to {chunk.last_ms} ms: block {block} of chunk {chunk.id}: {why}",
            )
            return None
        self.decoded += 1
        self._keep((chunk.id, block), bits)
        return bits

    def _is_there(self, chunk: StoredChunk) -> bool:
        return self._connection.execute("SELECT 1 FROM chunks WHERE id = ?", (chunk.id,)).fetchone() is not None

    def _keep(self, place: tuple[int, int], held: "ChunkHead | Bits") -> None:
        self._kept[place] = held
        self.bytes += _bytes(held)
        self.keep_within(self.bytes_max)


def _bytes(held: "ChunkHead | Bits") -> int:
    if isinstance(held, ChunkHead):
        return held.times_ms.nbytes + held.block_of.nbytes + held.slot_of.nbytes
    return held.nbytes
