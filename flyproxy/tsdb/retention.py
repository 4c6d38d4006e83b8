"""Forgetting: what is older than the retention goes, or what is oldest when the file is too large; then the frames that
leaves empty, then the pages they stood on.

Chunks go whole. A row of the log is a difference to the one before it, so whole chains go (at most KEY_ROWS rows): what
is kept can be a chunk, or KEY_ROWS - 1 rows, older than asked. Each call is bounded and goes on where the last one
stopped; telemetry calls it now and then.
"""

import sqlite3
from dataclasses import dataclass, field

from flyproxy.tsdb import schema

ROWS_PER_CALL = 4096
"""Rows of the log deleted in one call (a call ends with the chain that reaches it)."""
CHUNKS_PER_CALL = 16
"""Chunks deleted in one call."""
CHAINS_PER_CALL = 64
"""Chains of the log deleted in one call for the file's size, each of another frame."""
FRAMES_PER_CALL = 2048
"""Frames looked at in one call."""
PAGES_PER_CALL = 2048
"""Pages given back to the filesystem in one call."""
FREE_SHARE = 8
"""Free pages are kept for what comes next up to one in so many of the file's pages, and PAGES_PER_CALL."""


@dataclass(slots=True)
class Gone:
    """What one call deleted."""

    rows: int = 0
    chunks: int = 0
    frames: set[int] = field(default_factory=set)
    cut_ms: dict[int, int] = field(default_factory=dict)
    """By frame: its rows of the log older than this went."""

    @property
    def stretches(self) -> int:
        """Rows and chunks; 0 when there was nothing to delete."""
        return self.rows + self.chunks


class Retention:
    """Deletes by the writer's own connection."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._last_frame = 0

    def delete_before(self, timestamp_ms: int) -> Gone:
        """What is older than that. Raises StoreError, and then nothing was deleted."""
        gone = Gone()
        with schema.transaction(self._connection, self._path, "deleting what is past its retention"):
            frames = self._next_frames()
            full = False
            for frame in frames:
                self._delete_chunks_before(frame, timestamp_ms, gone)
                full = gone.chunks >= CHUNKS_PER_CALL
                if not full:
                    self._delete_rows_before(frame, timestamp_ms, gone)
                    full = gone.rows >= ROWS_PER_CALL
                if full:
                    break
                self._last_frame = frame
            if len(frames) < FRAMES_PER_CALL and not full:
                self._last_frame = 0
            self._tell(gone)
        return gone

    def delete_beyond(self, bytes_max: int) -> Gone:
        """The oldest stretches of all frames, while the file's pages in use are more than that: chunks, or chains of
        the log where those are older than every chunk. Raises StoreError, and then nothing was deleted."""
        gone = Gone()
        if self._bytes_used() <= bytes_max:
            return gone
        with schema.transaction(self._connection, self._path, "deleting what is beyond its size"):
            logs = self._connection.execute(
                "SELECT frame, min(ts_ms) AS oldest_ms FROM log GROUP BY frame ORDER BY oldest_ms LIMIT ?",
                (CHAINS_PER_CALL,),
            ).fetchall()
            chunks = self._connection.execute(
                "SELECT id, frame, last_ms FROM chunks ORDER BY last_ms LIMIT ?", (CHUNKS_PER_CALL,)
            ).fetchall()
            for chunk, frame, last_ms in chunks:
                if (logs and last_ms >= logs[0][1]) or self._bytes_used() <= bytes_max:
                    break
                self._delete_chunk(chunk, gone)
                self._forget_empty(frame, gone)
            if not gone.chunks and logs:
                self._delete_chains(logs, self._end_of_chain(*logs[0]), bytes_max, gone)
            self._tell(gone)
        return gone

    def give_back_some(self) -> None:
        """Pages that were freed, to the filesystem, a bounded number. By itself, since what was deleted is deleted
        also where this fails. Raises StoreError."""
        with schema.translating(self._path, "giving space back"):
            # executescript, since execute() takes one step of it only, which is one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({PAGES_PER_CALL})")

    def give_back(self) -> int:
        """Free pages beyond the share that is kept, to the filesystem; how many went, in a bounded call: call again
        while that is not 0. And the write-ahead log is cut back to its bound when it outgrew it. Raises StoreError."""
        with schema.translating(self._path, "giving space back"):
            before, pages = self._pragma("freelist_count"), self._pragma("page_count")
            given = before > max(PAGES_PER_CALL, pages // FREE_SHARE)
            if given:
                self.give_back_some()
            schema.cut_wal(self._connection, self._path)
            return before - self._pragma("freelist_count") if given else 0

    def _next_frames(self) -> list[int]:
        rows = self._connection.execute(
            "SELECT id FROM frames WHERE id > ? ORDER BY id LIMIT ?", (self._last_frame, FRAMES_PER_CALL)
        )
        return [frame for (frame,) in rows]

    def _delete_chunks_before(self, frame: int, timestamp_ms: int, gone: Gone) -> None:
        """The frame's chunks that ended before `timestamp_ms`, oldest first, within the call's bound."""
        doomed = self._connection.execute(
            "SELECT id FROM chunks WHERE frame = ? AND last_ms < ? ORDER BY last_ms LIMIT ?",
            (frame, timestamp_ms, CHUNKS_PER_CALL - gone.chunks),
        ).fetchall()
        for (chunk,) in doomed:
            self._delete_chunk(chunk, gone)

    def _delete_chunk(self, chunk: int, gone: Gone) -> None:
        self._connection.execute("DELETE FROM blocks WHERE chunk = ?", (chunk,))
        self._connection.execute("DELETE FROM chunks WHERE id = ?", (chunk,))
        gone.chunks += 1

    def _delete_rows_before(self, frame: int, timestamp_ms: int, gone: Gone) -> None:
        """The frame's chains that ended before `timestamp_ms`, oldest first, within the call's bound."""
        kept = self._connection.execute(
            "SELECT key_ms FROM log WHERE frame = ? AND ts_ms >= ? ORDER BY ts_ms LIMIT 1", (frame, timestamp_ms)
        ).fetchone()
        self._delete_rows(frame, timestamp_ms if kept is None else min(kept[0], timestamp_ms), gone)

    def _delete_rows(self, frame: int, end_ms: int, gone: Gone) -> None:
        """The frame's rows before `end_ms`, in whole chains, within the call's bound."""
        room = ROWS_PER_CALL - gone.rows
        rows = self._connection.execute(
            "SELECT id, ts_ms, key_ms FROM log WHERE frame = ? AND ts_ms < ? ORDER BY ts_ms", (frame, end_ms)
        )
        doomed: list[tuple[int]] = []
        chain_ms = None
        for row, ts_ms, key_ms in rows:
            if len(doomed) >= room and key_ms != chain_ms:
                break
            chain_ms = key_ms
            doomed.append((row,))
            gone.cut_ms[frame] = ts_ms + 1
        self._connection.executemany("DELETE FROM log WHERE id = ?", doomed)
        gone.rows += len(doomed)
        self._forget_empty(frame, gone)

    def _delete_chains(self, logs: list[tuple[int, int]], end_ms: int, bytes_max: int, gone: Gone) -> None:
        """The oldest chain of each of those frames, (frame, its oldest row), that began before `end_ms`: where they
        overlap none is older than the other."""
        for frame, oldest_ms in logs:
            if gone.rows and (oldest_ms >= end_ms or gone.rows >= ROWS_PER_CALL or self._bytes_used() <= bytes_max):
                return
            self._delete_rows(frame, self._end_of_chain(frame, oldest_ms), gone)

    def _end_of_chain(self, frame: int, oldest_ms: int) -> int:
        """The time before which the frame's oldest chain lies."""
        found = self._connection.execute(
            "SELECT ts_ms FROM log WHERE frame = ? AND ts_ms > ? AND key_ms = ts_ms ORDER BY ts_ms LIMIT 1",
            (frame, oldest_ms),
        ).fetchone()
        if found is None:
            found = self._connection.execute("SELECT max(ts_ms) + 1 FROM log WHERE frame = ?", (frame,)).fetchone()
        return int(found[0])

    def _forget_empty(self, frame: int, gone: Gone) -> None:
        """A frame without a row and without a chunk goes, with what is known of its series."""
        for table in ("log", "chunks"):
            if self._connection.execute(f"SELECT 1 FROM {table} WHERE frame = ? LIMIT 1", (frame,)).fetchone():
                return
        self._connection.execute("DELETE FROM layouts WHERE frame = ?", (frame,))
        self._connection.execute("DELETE FROM presence WHERE frame = ?", (frame,))
        self._connection.execute("DELETE FROM frames WHERE id = ?", (frame,))
        gone.frames.add(frame)

    def _tell(self, gone: Gone) -> None:
        """Readers look at what is left when this number changed."""
        if gone.stretches:
            self._connection.execute("UPDATE counts SET value = value + 1 WHERE name = 'deletions'")

    def _bytes_used(self) -> int:
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)
