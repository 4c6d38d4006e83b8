"""Sealing: what has been in the log for a while becomes compressed chunks, and its log rows go.

Must lose nothing at any moment: a step is one transaction that inserts a chunk and its blocks and deletes exactly the
rows that are in it. Must not keep a beat waiting: a step is bounded in samples, and telemetry steps between beats.
Must hold nothing: the matrix of one step is all there is, and it is gone when the step returns.

Plan: frames are looked at in turns. A frame is ready when a whole stretch of its log is older than a margin, when its
log has more rows than one chunk takes, or when it ended. Whole chains are taken from its old end, never the chain that
is being written, whose next row is a difference to its last; of a frame that ended, all of them. They are decoded as a
reader would (newborns' zeros included), turned into blocks by `chunk`, and stored.

A damaged row is named and counted before its chain goes; what is readable is sealed. Nothing more can be read of it:
what comes after it in its chain are differences to it.
"""

import sqlite3
from dataclasses import dataclass

import numpy as np

from flyproxy.series.frame import ABSENT_BITS, Times
from flyproxy.tsdb import schema
from flyproxy.tsdb.chunk import EncodedChunk, encode_chunk
from flyproxy.tsdb.chunk_order import histogram_groups
from flyproxy.tsdb.head import Head
from flyproxy.tsdb.index import FrameIndex
from flyproxy.tsdb.layout import LIVE_MS, NEVER_MS, decode_layout, decode_presence
from flyproxy.tsdb.log import KEY_ROWS, Bits, DamagedError
from flyproxy.tsdb.replay import Damages, Replay

SEAL_MS = 2 * 3600 * 1000
"""How much of a frame's time one chunk holds, when it is not bounded otherwise."""
SEAL_COLUMNS_MAX = 1024
"""Rows of the log in one chunk (newborns' zeros can add columns)."""
SEAL_SAMPLES_MAX = 6_000_000
"""Samples decoded and encoded in one step, 8 bytes each, 0.7 s; one chain of a very wide frame may have more."""
FRAMES_PER_CALL = 256
"""Frames with rows in the log that are looked at in one step."""
STRETCHES_KEPT = 10
"""A retention holds at least so many stretches: no chunk is kept much longer than asked."""
MARGIN_SHARE = 4
"""The newest part of a stretch, one in so many, stays in the log: what was just written is asked for most."""


def stretch_ms(retention_s: float | None) -> int:
    """How long a chunk's stretch is in a store with this retention."""
    if retention_s is None:
        return SEAL_MS
    return max(1, min(SEAL_MS, round(retention_s * 1000) // STRETCHES_KEPT))


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one step did."""

    more: bool
    """False at the end of a round, when every frame was looked at."""
    frame: int | None = None
    """The frame that was sealed, if one was ready."""
    up_to_ms: int | None = None
    """The whole frame is sealed, up to this time; None: its newest rows stay in the log."""
    rows: int = 0
    rows_damaged: int = 0
    """Among `rows`: those that could not be read any more."""
    chunks: int = 0
    samples: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Log:
    """What the log holds of one frame."""

    frame: int
    oldest_ms: int
    newest_ms: int
    series: int

    @property
    def rows_max(self) -> int:
        return max(KEY_ROWS, min(SEAL_COLUMNS_MAX, SEAL_SAMPLES_MAX // max(1, self.series)))


class Compaction:
    """Seals by the writer's own connection."""

    def __init__(self, connection: sqlite3.Connection, path: str, damages: Damages) -> None:
        self._connection = connection
        self._path = path
        self._damages = damages
        self._replay = Replay(connection, path, damages)
        self._last_frame = 0

    def step(self, now_ms: int, stretch: int) -> Sealed:
        """Look for a frame that is ready, from where the last step stopped, and seal its oldest stretch (of `stretch`
        milliseconds). Raises StoreError, and then nothing was sealed; the next step goes on behind that frame."""
        doing = "sealing what is in its log"
        with schema.transaction(self._connection, self._path, doing):
            for _ in range(FRAMES_PER_CALL):
                log = self._next_log()
                if log is None:
                    self._last_frame = 0
                    return Sealed(more=False)
                self._last_frame = log.frame
                cut_ms, whole = self._cut(log, now_ms, stretch)
                if cut_ms is not None:
                    sealed = self._seal(log, cut_ms, whole)
                    self._last_frame = log.frame - 1  # it may have more
                    return sealed
            return Sealed(more=True)

    def _next_log(self) -> _Log | None:
        """The next frame that has rows in the log; frames that have none cost nothing, however many they are."""
        found = self._connection.execute(
            "SELECT frame FROM log WHERE frame > ? ORDER BY frame LIMIT 1", (self._last_frame,)
        ).fetchone()
        if found is None:
            return None
        (frame,) = found
        first_ms, last_ms, series = self._connection.execute(
            "SELECT (SELECT min(ts_ms) FROM log WHERE frame = :frame), "
            "(SELECT max(ts_ms) FROM log WHERE frame = :frame), "
            "(SELECT max(first + count) FROM layouts WHERE frame = :frame)",
            {"frame": frame},
        ).fetchone()
        return _Log(frame, first_ms, last_ms, series or 0)

    # What is ready ---------------------------------------------------------------------------------------------------

    def _cut(self, log: _Log, now_ms: int, stretch: int) -> tuple[int | None, bool]:
        """Rows before this time are whole chains and are to be sealed (None: not yet); and whether that is all."""
        settled_ms = now_ms - stretch // MARGIN_SHARE
        whole = log.newest_ms < settled_ms and (log.newest_ms < settled_ms - stretch or self._is_over(log.frame))
        if not whole and log.oldest_ms + stretch > settled_ms and self._row_at(log, log.rows_max + KEY_ROWS) is None:
            return None, False
        end_ms, full_ms = log.oldest_ms + stretch, self._row_at(log, log.rows_max)
        if full_ms is not None:
            end_ms = min(end_ms, full_ms)
        if not whole:
            end_ms = min(end_ms, log.newest_ms)
        found = self._connection.execute(
            "SELECT min(key_ms, ts_ms) FROM log WHERE frame = ? AND ts_ms >= ? ORDER BY ts_ms LIMIT 1",
            (log.frame, end_ms),
        ).fetchone()
        if found is None:
            return log.newest_ms + 1, True
        if found[0] > log.oldest_ms:
            return found[0], False
        return self._end_of_first_chain(log, whole)

    def _end_of_first_chain(self, log: _Log, whole: bool) -> tuple[int | None, bool]:
        """A chain that is longer than a stretch is sealed as one."""
        found = self._connection.execute(
            "SELECT ts_ms FROM log WHERE frame = ? AND ts_ms > ? AND key_ms = ts_ms ORDER BY ts_ms LIMIT 1",
            (log.frame, log.oldest_ms),
        ).fetchone()
        if found is not None:
            return found[0], False
        return (log.newest_ms + 1, True) if whole else (None, False)

    def _row_at(self, log: _Log, position: int) -> int | None:
        """The time of the frame's row at this position in the log, from 0."""
        found = self._connection.execute(
            "SELECT ts_ms FROM log WHERE frame = ? ORDER BY ts_ms LIMIT 1 OFFSET ?", (log.frame, position)
        ).fetchone()
        return None if found is None else int(found[0])

    def _is_over(self, frame: int) -> bool:
        """Its target went on in a newer frame, or all its series ended."""
        newer = self._connection.execute(
            "SELECT 1 FROM frames JOIN frames AS newer USING (organization, target) "
            "WHERE frames.id = ? AND newer.id > frames.id LIMIT 1",
            (frame,),
        ).fetchone()
        if newer is not None:
            return True
        kept = self._connection.execute("SELECT CAST(blob AS BLOB) FROM presence WHERE frame = ?", (frame,)).fetchone()
        try:
            return kept is not None and not bool((decode_presence(frame, kept[0]).last_ms == LIVE_MS).any())
        except DamagedError:
            return False  # so it is sealed when it has been quiet for a stretch

    # Sealing ---------------------------------------------------------------------------------------------------------

    def _seal(self, log: _Log, cut_ms: int, whole: bool) -> Sealed:
        damaged = self._rows_damaged()
        (up_to_ms,) = self._connection.execute(
            "SELECT max(ts_ms) FROM log WHERE frame = ? AND ts_ms < ?", (log.frame, cut_ms)
        ).fetchone()
        (sealed_ms,) = self._connection.execute(
            "SELECT max(last_ms) FROM chunks WHERE frame = ?", (log.frame,)
        ).fetchone()
        begin_ms = NEVER_MS + 1 if sealed_ms is None else sealed_ms + 1
        head, _ = self._replay.read(log.frame, log.series, begin_ms, up_to_ms)
        blobs = self._store(log, head) if head.columns and log.series else None
        deleted = self._connection.execute("DELETE FROM log WHERE frame = ? AND ts_ms < ?", (log.frame, cut_ms))
        return Sealed(
            more=True,
            frame=log.frame,
            up_to_ms=up_to_ms if whole else None,
            rows=deleted.rowcount,
            rows_damaged=self._rows_damaged() - damaged,
            chunks=int(blobs is not None),
            samples=_samples(head),
            bytes=0 if blobs is None else len(blobs.head) + sum(map(len, blobs.blocks)),
        )

    def _store(self, log: _Log, head: Head) -> EncodedChunk:
        every = slice(0, head.columns)
        bits = head.values(slice(0, log.series), every).view(np.uint64)
        return store_chunk(self._connection, log.frame, head.times(every), bits, self._index(log))

    def _index(self, log: _Log) -> FrameIndex:
        """The frame's labels; series whose layout is damaged have none, and are sealed all the same."""
        index = FrameIndex()
        layouts = self._connection.execute(
            "SELECT first, count, CAST(blob AS BLOB) FROM layouts WHERE frame = ? ORDER BY first", (log.frame,)
        )
        for first, count, blob in layouts:
            try:
                columns = decode_layout(log.frame, first, count, blob)
            except DamagedError:
                continue  # readers name it
            if first >= index.count:
                index.extend_lost(first - index.count)
                index.extend(count, columns)
        index.extend_lost(log.series - index.count)
        return index

    def _rows_damaged(self) -> int:
        return self._damages.counts["rows_damaged"] + self._damages.counts["rows_lost"]


def store_chunk(
    connection: sqlite3.Connection, frame: int, times_ms: Times, bits: Bits, index: FrameIndex
) -> EncodedChunk:
    """Insert a chunk of a frame with those labels: `times_ms` [columns], `bits` [series, columns]."""
    groups, bounds = histogram_groups(index.columns(), index.count)
    encoded = encode_chunk(frame, times_ms, bits, groups, bounds)
    inserted = connection.execute(
        "INSERT INTO chunks (frame, first_ms, last_ms, head) VALUES (?, ?, ?, ?)",
        (frame, int(times_ms[0]), int(times_ms[-1]), encoded.head),
    )
    connection.executemany(
        "INSERT INTO blocks (chunk, block, blob) VALUES (?, ?, ?)",
        ((inserted.lastrowid, block, blob) for block, blob in enumerate(encoded.blocks)),
    )
    return encoded


def _samples(head: Head) -> int:
    """How many there are in it, stale markers included."""
    bits = head.values(slice(0, None), slice(0, head.columns)).view(np.uint64)
    return int(np.count_nonzero(bits != np.uint64(ABSENT_BITS)))
