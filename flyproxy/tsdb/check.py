"""Looking a store over: everything in it is read and decoded once, and what is wrong is named, place by place.

The file is opened for reading only and seen as of one moment, so a writer may be at work meanwhile; it is never
changed. Every piece is fetched by itself: a page of the database that cannot be read costs what stands on it and no
more.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS
from flyproxy.tsdb import schema
from flyproxy.tsdb.chunk import ChunkHead, decode_block, open_head
from flyproxy.tsdb.faults import StoreDamagedError
from flyproxy.tsdb.layout import NEVER_MS, decode_layout, decode_presence
from flyproxy.tsdb.log import Bits, DamagedError, Place, decode_row

SQLITE_FAULTS_MAX = 100
"""Faults SQLite names of its own structure before it stops looking."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Checked:
    """What was looked at, and how much of it is wrong."""

    frames: int = 0
    rows: int = 0
    """Of the log."""
    chunks: int = 0
    samples: int = 0
    """That can be read, in the log and in chunks; stale markers are not counted."""
    faults: int = 0
    """Each was said in a sentence."""


def check(path: str, say: Say) -> Checked:
    """Look over the store at `path`; `say` gets a sentence for each fault: which table, frame and time, and what is
    lost. Raises StoreError for what is no store of this format, or cannot be opened at all."""
    try:
        connection = schema.open_readable(path)
    except StoreDamagedError as why:
        say(str(why))
        return Checked(faults=1)
    with closing(connection), schema.translating(path, "checking it"):
        connection.execute("BEGIN")
        return _Check(connection, say).run()


@dataclass(slots=True)
class _Known:
    """A frame as far as it was read."""

    name: str
    series: int = 0
    sealed_ms: int = NEVER_MS


@dataclass(slots=True)
class _Chain:
    """Rows of the log that are differences, each to the one before; broken while `key_ms` is None."""

    key_ms: int | None = None
    position: int = 0
    bits: Bits | None = None
    broken_ms: list[int] = field(default_factory=list)
    """Rows that could be read but for the damaged one before them."""


class _Check:
    def __init__(self, connection: sqlite3.Connection, say: Say) -> None:
        self._connection = connection
        self._say = say
        self._checked = Checked()
        self._frames: dict[int, _Known] = {}

    def run(self) -> Checked:
        with self._section("SQLite's own check"):
            for (sentence,) in self._connection.execute(f"PRAGMA integrity_check({SQLITE_FAULTS_MAX})"):
                if sentence != "ok":
                    self._fault(f"SQLite: {sentence}")
        with self._section("the table frames"):
            self._look_at_frames()
        for number, frame in self._frames.items():
            with self._section(f"the labels of {frame.name}"):
                self._look_at_layouts(number, frame)
            with self._section(f"the presence of {frame.name}"):
                self._look_at_presence(number, frame)
            with self._section(f"the chunks of {frame.name}"):
                self._look_at_chunks(number, frame)
            with self._section(f"the log of {frame.name}"):
                self._look_at_log(number, frame)
        self._look_for_strays()
        with self._section("the table counts"):
            self._look_at_counts()
        return self._checked

    # Faults ----------------------------------------------------------------------------------------------------------

    def _fault(self, sentence: str) -> None:
        self._checked.faults += 1
        self._say(sentence)

    @contextmanager
    def _section(self, what: str) -> Iterator[None]:
        """What SQLite cannot read is a fault; everything else about it leaves."""
        try:
            yield
        except sqlite3.DatabaseError as fault:
            code = (getattr(fault, "sqlite_errorcode", 0) or 0) & 0xFF
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR):
                raise
            self._fault(f"{what} cannot be read (further): {fault}")

    # Table by table --------------------------------------------------------------------------------------------------

    def _look_at_frames(self) -> None:
        for number, organization, target, crc in self._connection.execute(
            "SELECT id, organization, target, crc FROM frames ORDER BY id"
        ):
            self._checked.frames += 1
            self._frames[number] = _Known(f"frame {number} ({target!r} of {organization!r})")
            if crc != zlib.crc32(f"{organization}\0{target}".encode("utf-8", "surrogatepass")):
                self._fault(f"frames: {self._frames[number].name} fails its checksum: none of its samples is shown")

    def _look_at_layouts(self, number: int, frame: _Known) -> None:
        for (layout,) in self._ids("SELECT id FROM layouts WHERE frame = ? ORDER BY id", number):
            with self._section(f"layout {layout} of {frame.name}"):
                first, count, blob = self._connection.execute(
                    "SELECT CAST(first AS INTEGER), CAST(count AS INTEGER), CAST(blob AS BLOB) "
                    "FROM layouts WHERE id = ?",
                    (layout,),
                ).fetchone()
                try:
                    decode_layout(number, first, count, blob)
                    if first != frame.series:
                        raise DamagedError(f"it begins at series {first} where series {frame.series} is next")
                except DamagedError as why:
                    self._fault(f"layouts: {count} series of {frame.name} have no labels and are not found: {why}")
                frame.series = max(frame.series, first + count)

    def _look_at_presence(self, number: int, frame: _Known) -> None:
        found = self._connection.execute(
            "SELECT CAST(blob AS BLOB) FROM presence WHERE frame = ?", (number,)
        ).fetchone()
        if found is None and not frame.series:
            return  # a target that had no series yet
        try:
            if found is None:
                raise DamagedError("it is not there")
            size = decode_presence(number, found[0]).first_ms.size
            if size > frame.series:  # it may be less: series that had no sample yet
                raise DamagedError(f"it is of {size} series where the frame has {frame.series}")
        except DamagedError as why:
            self._fault(f"presence: when the series of {frame.name} were there is not known: {why}")

    def _look_at_chunks(self, number: int, frame: _Known) -> None:
        chunks = self._ids("SELECT id, first_ms, last_ms FROM chunks WHERE frame = ? ORDER BY first_ms, id", number)
        for chunk, first_ms, last_ms in chunks:
            self._checked.chunks += 1
            where = f"chunk {chunk} of {frame.name} from {first_ms} to {last_ms} ms"
            if first_ms <= frame.sealed_ms:
                self._fault(f"chunks: {where} begins before the chunk before it ends, at {frame.sealed_ms} ms")
            frame.sealed_ms = max(frame.sealed_ms, last_ms)
            with self._section(where):
                (head,) = self._connection.execute(
                    "SELECT CAST(head AS BLOB) FROM chunks WHERE id = ?", (chunk,)
                ).fetchone()
                try:
                    opened = open_head(number, first_ms, last_ms, head)
                    if opened.series > frame.series:
                        raise DamagedError(f"it has {opened.series} series where the frame has {frame.series}")
                except DamagedError as why:
                    self._fault(f"chunks: all samples of {where} are lost: its head: {why}")
                    continue
                self._look_at_blocks(chunk, opened, where)

    def _look_at_blocks(self, chunk: int, head: ChunkHead, where: str) -> None:
        for block in range(head.blocks):
            with self._section(f"block {block} of {where}"):
                found = self._connection.execute(
                    "SELECT CAST(blob AS BLOB) FROM blocks WHERE chunk = ? AND block = ?", (chunk, block)
                ).fetchone()
                try:
                    if found is None:
                        raise DamagedError("it is not there")
                    self._checked.samples += _samples(decode_block(head, block, found[0]))
                except DamagedError as why:
                    size = int(head.sizes[block])
                    self._fault(f"blocks: the samples of {size} series in block {block} of {where} are lost: {why}")
        (more,) = self._connection.execute(
            "SELECT count(*) FROM blocks WHERE chunk = ? AND (block < 0 OR block >= ?)", (chunk, head.blocks)
        ).fetchone()
        if more:
            self._fault(f"blocks: {where} has {more} more than the {head.blocks} its head tells of")

    def _look_at_log(self, number: int, frame: _Known) -> None:
        chain = _Chain()
        for row, timestamp_ms in self._ids("SELECT id, ts_ms FROM log WHERE frame = ? ORDER BY ts_ms", number):
            self._checked.rows += 1
            where = f"the row of {frame.name} at {timestamp_ms} ms"
            if timestamp_ms <= frame.sealed_ms:
                self._fault(
                    f"log: {where} is not later than the chunks of its frame, which end at {frame.sealed_ms} ms"
                )
            with self._section(where):
                key_ms, blob = self._connection.execute(
                    "SELECT CAST(key_ms AS INTEGER), CAST(blob AS BLOB) FROM log WHERE id = ?", (row,)
                ).fetchone()
                self._follow(chain, Place(number, timestamp_ms, key_ms), blob, frame)
                continue
            self._break(chain)  # it could not be fetched
        self._mourn(chain, frame)

    def _follow(self, chain: _Chain, place: Place, blob: bytes, frame: _Known) -> None:
        """The next row of the log."""
        if place.timestamp_ms == place.key_ms:
            self._mourn(chain, frame)
            chain.key_ms, chain.position, chain.bits = place.key_ms, 0, None
        elif place.key_ms != chain.key_ms:
            chain.broken_ms.append(place.timestamp_ms)
            return
        try:
            chain.bits, _ = decode_row(place, chain.position, blob, chain.bits)
            if chain.bits.size > frame.series:
                raise DamagedError(f"it has {chain.bits.size} series where the frame has {frame.series}")
        except DamagedError as why:
            self._fault(f"log: the row of {frame.name} at {place.timestamp_ms} ms is lost: {why}")
            self._break(chain)
            return
        chain.position += 1
        self._checked.samples += _samples(chain.bits)

    def _break(self, chain: _Chain) -> None:
        chain.key_ms = chain.bits = None

    def _mourn(self, chain: _Chain, frame: _Known) -> None:
        """The rows a broken chain took with it, in one sentence."""
        if chain.broken_ms:
            first, last = chain.broken_ms[0], chain.broken_ms[-1]
            self._fault(
                f"log: {len(chain.broken_ms)} rows of {frame.name} from {first} to {last} ms are lost: "
                "they are differences to a row that is damaged or not there"
            )
            chain.broken_ms = []

    def _look_for_strays(self) -> None:
        """What refers to nothing. Its frame or chunk is deleted, or stands on a page that cannot be read."""
        for table in ("layouts", "presence", "chunks", "log"):
            with self._section(f"the table {table}"):
                for frame, count in self._connection.execute(
                    f"SELECT frame, count(*) FROM {table} WHERE frame NOT IN (SELECT id FROM frames) GROUP BY frame"
                ):
                    self._fault(f"{table}: {count} of frame {frame}, which is not there")
        with self._section("the table blocks"):
            for chunk, count in self._connection.execute(
                "SELECT chunk, count(*) FROM blocks WHERE chunk NOT IN (SELECT id FROM chunks) GROUP BY chunk"
            ):
                self._fault(f"blocks: {count} of chunk {chunk}, which is not there")

    def _look_at_counts(self) -> None:
        counts = dict(self._connection.execute("SELECT name, value FROM counts"))
        for name in ("presence_version", "deletions"):
            if not isinstance(counts.get(name), int):
                self._fault(f"counts: {name} is not there")
        (newest,) = self._connection.execute("SELECT coalesce(max(version), 0) FROM presence").fetchone()
        known = counts.get("presence_version")
        if isinstance(known, int) and newest > known:
            self._fault(f"counts: presence_version is {known} where a presence is of version {newest}")

    def _ids(self, statement: str, frame: int) -> Iterator[tuple[int, ...]]:
        """The integers an index holds, so that they are had without the rows themselves."""
        for found in self._connection.execute(statement, (frame,)):
            if all(isinstance(number, int) for number in found):
                yield found
            else:
                self._fault(f"a row of frame {frame} stands at {found!r} where integers belong")


def _samples(bits: Bits) -> int:
    """How many there are; an end is none."""
    return int(np.count_nonzero(bits - np.uint64(STALE_BITS) > ABSENT_BITS - STALE_BITS))
