"""Forgetting: rows older than the retention go, then the frames they leave empty, then the pages they stood on.

A row is a difference to the one before it, so whole chains go (at most KEY_ROWS rows): what is kept can be KEY_ROWS - 1
rows older than asked. Each call is bounded and goes on where the last one stopped; telemetry calls it now and then.
"""

import sqlite3
from dataclasses import dataclass, field

from flyproxy.tsdb import schema

ROWS_PER_CALL = 4096
"""Rows deleted in one call (a call ends with the chain that reaches it)."""
FRAMES_PER_CALL = 2048
"""Frames looked at in one call."""
PAGES_PER_CALL = 2048
"""Pages given back to the filesystem in one call."""


@dataclass(slots=True)
class Gone:
    """What one call deleted."""

    rows: int = 0
    frames: set[int] = field(default_factory=set)


class Retention:
    """Deletes by the writer's own connection."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._last_frame = 0

    def delete_before(self, timestamp_ms: int) -> Gone:
        """Raises StoreError, and then nothing was deleted."""
        gone = Gone()
        with schema.transaction(self._connection, self._path, "deleting what is past its retention"):
            frames = self._next_frames()
            for frame in frames:
                self._delete_rows(frame, timestamp_ms, gone)
                if gone.rows >= ROWS_PER_CALL:
                    break
                self._last_frame = frame
            if len(frames) < FRAMES_PER_CALL and gone.rows < ROWS_PER_CALL:
                self._last_frame = 0
            if gone.rows:
                self._connection.execute("UPDATE counts SET value = value + 1 WHERE name = 'deletions'")
        if gone.rows:
            with schema.translating(self._path, "giving space back"):
                # executescript, since execute() takes one step of it only, which is one page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({PAGES_PER_CALL})")
        return gone

    def _next_frames(self) -> list[int]:
        rows = self._connection.execute(
            "SELECT id FROM frames WHERE id > ? ORDER BY id LIMIT ?", (self._last_frame, FRAMES_PER_CALL)
        )
        return [frame for (frame,) in rows]

    def _delete_rows(self, frame: int, timestamp_ms: int, gone: Gone) -> None:
        """The frame's chains that ended before `timestamp_ms`, oldest first, within the call's bound."""
        kept = self._connection.execute(
            "SELECT key_ms FROM log WHERE frame = ? AND ts_ms >= ? ORDER BY ts_ms LIMIT 1", (frame, timestamp_ms)
        ).fetchone()
        end_ms = timestamp_ms if kept is None else min(kept[0], timestamp_ms)
        room = ROWS_PER_CALL - gone.rows
        rows = self._connection.execute(
            "SELECT id, key_ms FROM log WHERE frame = ? AND ts_ms < ? ORDER BY ts_ms", (frame, end_ms)
        )
        doomed: list[tuple[int]] = []
        chain_ms = None
        for row, key_ms in rows:
            if len(doomed) >= room and key_ms != chain_ms:
                break
            chain_ms = key_ms
            doomed.append((row,))
        self._connection.executemany("DELETE FROM log WHERE id = ?", doomed)
        gone.rows += len(doomed)
        left = self._connection.execute("SELECT 1 FROM log WHERE frame = ? LIMIT 1", (frame,)).fetchone()
        if left is None:
            self._connection.execute("DELETE FROM layouts WHERE frame = ?", (frame,))
            self._connection.execute("DELETE FROM presence WHERE frame = ?", (frame,))
            self._connection.execute("DELETE FROM frames WHERE id = ?", (frame,))
            gone.frames.add(frame)
