"""Log rows read back in order, and what was damaged among them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import numpy as np

from flyproxy.series.frame import ABSENT_BITS
from flyproxy.tsdb.head import TILE_COLUMNS, Head
from flyproxy.tsdb.log import Births, Bits, DamagedError, Place, Rows, decode_row

DAMAGES_KEPT_MAX = 10_000
"""Damaged places remembered, so each is counted and named once."""


class Damages:
    """A ledger: each damaged place is named once, however often it is met."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.counts = {
            "rows_damaged": 0,
            "rows_lost": 0,
            "layouts_damaged": 0,
            "chunks_damaged": 0,
            "blocks_damaged": 0,
        }
        self._report = report
        self._known: set[tuple[str, int, int]] = set()

    def add(self, kind: str, frame: int, place: int, sentence: str) -> None:
        """`kind` is one of `counts`; `frame` and `place` (of blocks: their chunk and number) tell it from others."""
        if (kind, frame, place) in self._known:
            return
        if len(self._known) < DAMAGES_KEPT_MAX:
            self._known.add((kind, frame, place))
        self.counts[kind] += 1
        self._report(sentence)


class Chain:
    """The rows of one frame, decoded one after the other; each is a difference to the one before it."""

    def __init__(self, frame: int, path: str, damages: Damages) -> None:
        self._frame = frame
        self._path = path
        self._damages = damages
        self._key_ms: int | None = None
        self._position = 0
        self._bits: Bits | None = None

    def decode(self, timestamp_ms: int, key_ms: int, blob: bytes) -> tuple[Bits, Births | None] | None:
        """The next row: [series] bits, not to be written to; None, named and counted, where it cannot be had: a
        damaged row takes the rest of its chain with it."""
        if timestamp_ms == key_ms:
            self._key_ms, self._position, self._bits = key_ms, 0, None
        elif key_ms != self._key_ms:
            self._lose("rows_lost", timestamp_ms, "it is a difference to a damaged row")
            return None
        try:
            place = Place(self._frame, timestamp_ms, key_ms)
            bits, births = decode_row(place, self._position, blob, self._bits)
        except DamagedError as why:
            self._key_ms = self._bits = None
            self._lose("rows_damaged", timestamp_ms, str(why))
            return None
        self._position += 1
        self._bits = bits
        return bits, births

    def births_after(self, timestamp_ms: int, key_ms: int, blob: bytes) -> Births | None:
        """The births a row that comes next tells of, without taking it."""
        if timestamp_ms != key_ms and key_ms != self._key_ms:
            return None
        key = timestamp_ms == key_ms
        place = Place(self._frame, timestamp_ms, key_ms)
        try:
            return decode_row(place, 0 if key else self._position, blob, None if key else self._bits)[1]
        except DamagedError:
            return None

    def _lose(self, kind: str, timestamp_ms: int, why: str) -> None:
        sentence = f"{self._path}: the row of frame {self._frame} at {timestamp_ms} ms is skipped: {why}"
        self._damages.add(kind, self._frame, timestamp_ms, sentence)


class Replay:
    """Reads a frame's log rows from the database."""

    def __init__(self, connection: sqlite3.Connection, path: str, damages: Damages) -> None:
        self._connection = connection
        self._path = path
        self._damages = damages
        self.rows_decoded = 0

    def chain(self, frame: int) -> Chain:
        """A new one; its first row must be a key row."""
        return Chain(frame, self._path, self._damages)

    def count(self, frame: int, start_ms: int, end_ms: int) -> int:
        """Rows with start_ms <= t <= end_ms."""
        (rows,) = self._connection.execute(
            "SELECT count(*) FROM log WHERE frame = ? AND ts_ms BETWEEN ? AND ?", (frame, start_ms, end_ms)
        ).fetchone()
        return int(rows)

    def read(self, frame: int, series: int, start_ms: int, end_ms: int, rows: Rows | None = None) -> tuple[Head, Chain]:
        """The columns with start_ms <= t <= end_ms of a frame of so many series, or of `rows` of them; and the chain
        as it stands after the last of them. A newborn's zero in that range is found though the row that tells of it
        comes after. Within the caller's transaction, so that it is of one moment."""
        head = Head(start_ms, series if rows is None else rows.size, self.count(frame, start_ms, end_ms) + 1)
        chain = self.chain(frame)
        tile = _Tile(head, series, rows)
        with closing(self._rows_from_key(frame, start_ms)) as found:
            for timestamp_ms, key_ms, blob in found:
                if timestamp_ms > end_ms:
                    births = chain.births_after(timestamp_ms, key_ms, blob)
                    if births is not None and start_ms <= births.at_ms <= end_ms:
                        tile.give_birth(births)
                    break
                self.rows_decoded += 1
                decoded = chain.decode(timestamp_ms, key_ms, blob)
                if decoded is None:
                    continue
                bits, births = decoded
                if births is not None and start_ms <= births.at_ms:
                    tile.give_birth(births)
                if start_ms <= timestamp_ms:
                    tile.add(timestamp_ms, bits)
        tile.flush()
        return head, chain

    def _rows_from_key(self, frame: int, start_ms: int) -> sqlite3.Cursor:
        """From the key row of the chain that reaches over `start_ms`, on to the end."""
        found = self._connection.execute(
            "SELECT key_ms FROM log WHERE frame = ? AND ts_ms <= ? ORDER BY ts_ms DESC LIMIT 1", (frame, start_ms)
        ).fetchone()
        return self._connection.execute(
            "SELECT ts_ms, key_ms, CAST(blob AS BLOB) FROM log WHERE frame = ? AND ts_ms >= ? ORDER BY ts_ms",
            (frame, start_ms if found is None else found[0]),
        )


class _Tile:
    """Collects rows of the log and turns them over many at a time."""

    def __init__(self, head: Head, series: int, rows: Rows | None) -> None:
        self._head = head
        self._series = series
        self._rows = rows
        self._times: list[int] = []
        self._columns = np.empty((TILE_COLUMNS, series if rows is None else rows.size), np.uint64)

    def add(self, timestamp_ms: int, bits: Bits) -> None:
        if len(self._times) == TILE_COLUMNS:
            self.flush()
        if bits.size < self._series:
            bits = np.concatenate((bits, np.full(self._series - bits.size, ABSENT_BITS, np.uint64)))
        self._columns[len(self._times)] = bits[: self._series] if self._rows is None else bits[self._rows]
        self._times.append(timestamp_ms)

    def give_birth(self, births: Births) -> None:
        rows = births.rows[births.rows < self._series]
        if self._rows is not None:
            places = np.searchsorted(self._rows, rows)
            found = places < self._rows.size
            found[found] = self._rows[places[found]] == rows[found]
            rows = places[found]
        if not rows.size:
            return
        self.flush()
        self._head.give_birth(Births(births.at_ms, rows))

    def flush(self) -> None:
        if self._times:
            self._head.extend(self._times, self._columns[: len(self._times)])
            self._times = []
