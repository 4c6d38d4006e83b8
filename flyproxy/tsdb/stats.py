"""What a store holds and what it costs, in all and by organization. Heads are read, samples are not decoded."""

import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from flyproxy.tsdb import schema
from flyproxy.tsdb.chunk import open_head
from flyproxy.tsdb.layout import LIVE_MS, NEVER_MS
from flyproxy.tsdb.log import DamagedError

_ROW = struct.Struct("<4xB3xI")
"""The codec and the number of series in a row's blob: docs/formats/log.md."""
_ROW_CODEC = 1


@dataclass(slots=True)
class Part:
    """The log, or the chunks."""

    pieces: int = 0
    """Rows of the log, or chunks."""
    bytes: int = 0
    """Of their blobs; SQLite's own pages and indexes come on top."""
    samples: int = 0
    """In the log: one for each series of each row, though a gap has none. In chunks: as counted when sealed."""
    bytes_a_sample: float | None = None
    """None without samples."""

    def add(self, pieces: int, size: int, samples: int) -> None:
        self.pieces += pieces
        self.bytes += size
        self.samples += samples
        self.bytes_a_sample = round(self.bytes / self.samples, 4) if self.samples else None


@dataclass(slots=True)
class Organization:
    """One organization's share; or the sum of them."""

    name: str
    targets: int = 0
    frames: int = 0
    series: int = 0
    """Of all frames: one that went on in a newer frame counts in both."""
    first_ms: int | None = None
    last_ms: int | None = None
    """The time its samples span; None when there are none."""
    log: Part = field(default_factory=Part)
    chunks: Part = field(default_factory=Part)


@dataclass(slots=True)
class Stats:
    """A store as of one moment."""

    path: str
    format: int
    file_bytes: int
    """The database file."""
    free_bytes: int
    """Within it: pages that hold nothing and are used next."""
    wal_bytes: int
    """The write-ahead log beside it."""
    total: Organization
    organizations: list[Organization]
    """By name."""
    heads_damaged: int = 0
    """Chunks and log rows whose samples could not be counted; `check` names them."""


def stats(path: str, organization: str | None = None) -> Stats:
    """Of the store at `path`; of one organization's frames alone when it is named. Raises StoreError."""
    with closing(schema.open_readable(path)) as connection, schema.translating(path, "measuring it"):
        connection.execute("BEGIN")
        page_bytes, pages, free, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count", "user_version")
        )
        found = Stats(path, version, page_bytes * pages, page_bytes * free, _size(path + "-wal"), Organization(""), [])
        shares: dict[str, Organization] = {}
        targets: set[tuple[str, str]] = set()
        for frame, name, target, series in _frames(connection, organization):
            share = shares.setdefault(name, Organization(name))
            both = (share, found.total)
            for one in both:
                one.frames += 1
                one.series += series
                one.targets += (name, target) not in targets
            targets.add((name, target))
            _add_log(connection, frame, both, found)
            _add_chunks(connection, frame, both, found)
        found.organizations = [shares[name] for name in sorted(shares)]
        return found


def _frames(connection: sqlite3.Connection, organization: str | None) -> Iterator[tuple[int, str, str, int]]:
    chosen = "" if organization is None else "WHERE organization = ?"
    yield from connection.execute(
        "SELECT id, organization, target, (SELECT coalesce(sum(count), 0) FROM layouts WHERE frame = frames.id) "
        f"FROM frames {chosen} ORDER BY id",
        () if organization is None else (organization,),
    ).fetchall()


def _add_log(connection: sqlite3.Connection, frame: int, both: Iterable[Organization], found: Stats) -> None:
    rows = size = samples = 0
    first, last = LIVE_MS, NEVER_MS
    for timestamp_ms, blob_bytes, start in connection.execute(
        "SELECT ts_ms, length(CAST(blob AS BLOB)), substr(CAST(blob AS BLOB), 1, 12) FROM log WHERE frame = ?", (frame,)
    ):
        rows += 1
        size += blob_bytes
        first, last = min(first, timestamp_ms), max(last, timestamp_ms)
        series = _series(start)
        samples += series or 0
        found.heads_damaged += series is None
    for one in both:
        one.log.add(rows, size, samples)
        _span(one, first, last)


def _add_chunks(connection: sqlite3.Connection, frame: int, both: Iterable[Organization], found: Stats) -> None:
    for first_ms, last_ms, head, block_bytes in connection.execute(
        "SELECT first_ms, last_ms, CAST(head AS BLOB), "
        "(SELECT coalesce(sum(length(blob)), 0) FROM blocks WHERE chunk = chunks.id) FROM chunks WHERE frame = ?",
        (frame,),
    ):
        samples = 0
        try:
            samples = open_head(frame, first_ms, last_ms, head).samples
        except DamagedError:
            found.heads_damaged += 1
        for one in both:
            one.chunks.add(1, len(head) + block_bytes, samples)
            _span(one, first_ms, last_ms)


def _series(start: bytes) -> int | None:
    """How many series the row that starts so has; None when it is no row."""
    if len(start) < _ROW.size:
        return None
    codec, series = _ROW.unpack_from(start)
    return int(series) if codec == _ROW_CODEC else None


def _span(one: Organization, first_ms: int, last_ms: int) -> None:
    if first_ms <= last_ms:
        one.first_ms = first_ms if one.first_ms is None else min(one.first_ms, first_ms)
        one.last_ms = last_ms if one.last_ms is None else max(one.last_ms, last_ms)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
