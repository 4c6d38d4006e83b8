"""A worker's shared-memory segment: append-only cells with their labels.

What it must do: one writer counts, any number of readers look on, nobody waits and nobody locks. The worst case is
a writer killed between any two instructions: a reader must then find no record or a whole record, and every cell as
it was or as it was meant to be.

The plan: a file in memory with a header, an area of records (label sets as JSON) and an area of cells (aligned
int64). Nothing ever moves and nothing is reused. A record is written first and published afterwards by one aligned
8-byte store of `records_used`; it carries a checksum as well, because Python has no memory barrier to offer where
stores may be reordered. The file is sparse; pages are reserved before they are touched, so that a full file system
is an exception here and not a SIGBUS there. `docs/formats/cells.md` draws every byte.

An edge worker imports this file: no numpy here.
"""

import contextlib
import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from flyproxy.errors import FlyproxyError
from flyproxy.instrument.catalog import Family

MAGIC = b"FLYCELLS"
VERSION = 1
HEADER_BYTES = 4096
CELLS_MAX = 1 << 18
"""Default capacity: 262,144 cells (2 MiB, sparse). Room for some 6,000 instances with three statuses each."""
RECORDS_BYTES_MAX = 8 << 20
"""Default capacity of the records area, bytes (sparse)."""
SUFFIX = ".cells"
NO_FILE = -1

_HEADER = struct.Struct("<8sIIIiqQQQQQ16s")
_PUBLISHED_OFFSET = 128
_PUBLISHED_BYTES = 16
_FINAL_OFFSET = 144
_RECORD = struct.Struct("<IIQII")
_CHECKED = struct.Struct("<QII")
_RESERVE_STEP = 64 << 10


class CellsError(FlyproxyError):
    """A segment that cannot be made or is not one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One label set and the cells that belong to it."""

    families: tuple[tuple[str, int], ...]
    """(family name, cells) in the order of the cells."""
    organization: str
    labels: tuple[tuple[str, str], ...]
    first: int
    count: int

    def key(self) -> tuple[str, tuple[tuple[str, int], ...], tuple[tuple[str, str], ...]]:
        """What it is, whichever segment it is in."""
        return self.organization, self.families, self.labels


class Segment:
    """The writer's side. One thread of one process owns it."""

    def __init__(self, path: str, file: int, memory: mmap.mmap) -> None:
        self.path = path
        self._file = file
        self._memory = memory
        self._view = memoryview(memory)
        header = _HEADER.unpack_from(memory)
        self.worker: int | None = header[4] if header[4] >= 0 else None
        self.identity = f"{header[6]:016x}"
        self.process = header[11].rstrip(b"\0").decode()
        self.records_capacity = header[7]
        self.capacity = header[8]
        self._records_offset = records_offset = header[9]
        self._cells_offset = cells_offset = header[10]
        self._published = self._view[_PUBLISHED_OFFSET : _PUBLISHED_OFFSET + _PUBLISHED_BYTES].cast("q")
        self.cells: memoryview[int] = self._view[cells_offset : cells_offset + 8 * self.capacity].cast("q")
        """[capacity] int64: item assignment is the one way to write."""
        self._records_reserved = records_offset
        self._cells_reserved = cells_offset

    @classmethod
    def create(
        cls,
        path: str,
        worker: int | None = None,
        *,
        process: str = "edge",
        cells_max: int = CELLS_MAX,
        records_bytes_max: int = RECORDS_BYTES_MAX,
    ) -> Self:
        """A new segment at `path` (ends in `.cells`), whole from the moment it has that name; raises CellsError
        when there is one already or the file system refuses."""
        header, total = _new_header(worker, process, cells_max, records_bytes_max)
        unborn = f"{path}.{os.getpid()}.new"
        file = -1
        try:
            file = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, total)
            os.posix_fallocate(file, 0, HEADER_BYTES)
            os.pwrite(file, header, 0)
            memory = mmap.mmap(file, total, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            os.link(unborn, path)
        except OSError as fault:
            if file >= 0:
                os.close(file)
            raise CellsError(f"cannot make the segment {path}: {fault.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(unborn)
        return cls(path, file, memory)

    @classmethod
    def private(
        cls,
        worker: int | None = None,
        *,
        process: str = "edge",
        cells_max: int = CELLS_MAX,
        records_bytes_max: int = RECORDS_BYTES_MAX,
    ) -> Self:
        """One that nobody else can read, in this process' own memory: to go on counting, unseen, where there is no
        room for one that is shared."""
        header, total = _new_header(worker, process, cells_max, records_bytes_max)
        memory = mmap.mmap(-1, total)
        memory[: len(header)] = header
        return cls("", NO_FILE, memory)

    @staticmethod
    def open_readonly(path: str) -> "SegmentReader":
        """The reader's side of a segment; raises CellsError when the file is not one or is gone."""
        return SegmentReader(path)

    @property
    def used(self) -> int:
        """Cells that belong to a record."""
        return self._published[1]

    @property
    def fullness(self) -> float:
        """How much of the cells or of the records is used, whichever is more: 0 to 1."""
        records_used: int = self._published[0]
        return float(max(records_used / self.records_capacity, self.used / self.capacity))

    def append(self, families: Sequence[Family], organization: str, labels: dict[str, str]) -> int | None:
        """A new record for these families' cells, all 0; the index of its first cell, or None when it does not
        fit any more (or the file system is full)."""
        count = sum(family.cell_count for family in families)
        first = self._published[1]
        words = {"f": [[family.name, family.cell_count] for family in families], "o": organization, "l": labels}
        payload = json.dumps(words, ensure_ascii=False, separators=(",", ":")).encode()
        start = self._published[0]
        end = start + _padded(_RECORD.size + len(payload))
        if first + count > self.capacity or end > self.records_capacity or not self._reserve(end, first + count):
            return None
        checked = _CHECKED.pack(first, count, 0) + payload
        record = struct.pack("<II", len(payload), zlib.crc32(checked)) + checked
        at = self._records_offset + start
        self._view[at : at + len(record)] = record
        self._published[1] = first + count
        self._published[0] = end
        return first

    def _reserve(self, records_end: int, cells_end: int) -> bool:
        """Have the pages that are about to be touched; False when the file system has none left."""
        try:
            self._records_reserved = self._reserve_to(self._records_reserved, self._records_offset + records_end)
            self._cells_reserved = self._reserve_to(self._cells_reserved, self._cells_offset + 8 * cells_end)
        except OSError:
            return False
        return True

    def _reserve_to(self, reserved: int, wanted: int) -> int:
        if wanted <= reserved or self._file == NO_FILE:
            return reserved
        size = -(-(wanted - reserved) // _RESERVE_STEP) * _RESERVE_STEP
        size = min(size, len(self._memory) - reserved)
        os.posix_fallocate(self._file, reserved, size)
        return reserved + size

    def finish(self) -> None:
        """Close it for good: its writer goes on in another segment, and a reader may fold this one away."""
        struct.pack_into("<q", self._view, _FINAL_OFFSET, 1)
        self.close()

    def close(self) -> None:
        """Let go of the memory; the file stays for the readers."""
        self.cells.release()
        self._published.release()
        self._view.release()
        self._memory.close()
        if self._file != NO_FILE:
            os.close(self._file)
            self._file = NO_FILE


def _new_header(worker: int | None, process: str, cells_max: int, records_bytes_max: int) -> tuple[bytes, int]:
    """The header of a new segment, and the bytes of the whole."""
    records_capacity = -(-records_bytes_max // 4096) * 4096
    cells_offset = HEADER_BYTES + records_capacity
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        os.getpid(),
        -1 if worker is None else worker,
        time.time_ns() // 1_000_000,
        int.from_bytes(os.urandom(8), "little"),
        records_capacity,
        cells_max,
        HEADER_BYTES,
        cells_offset,
        process.encode()[:16],
    )
    return header, cells_offset + 8 * cells_max


class SegmentReader:
    """The reader's side: what is published, read while the writer writes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._memory = _mapped(path)
        header = _HEADER.unpack_from(self._memory)
        fault = _header_fault(header, len(self._memory))
        if fault:
            self._memory.close()
            raise CellsError(f"{path} is not a segment this version reads: {fault}")
        self.pid: int = header[3]
        self.worker: int | None = header[4] if header[4] >= 0 else None
        self.created_ms: int = header[5]
        self.identity = f"{header[6]:016x}"
        self.process: str = header[11].rstrip(b"\0").decode("utf-8", "replace")
        self.capacity: int = header[8]
        self.cells_offset: int = header[10]
        self.records_skipped = 0
        """Records that were whole by their checksum and yet made no sense."""
        self._records_capacity: int = header[7]
        self._records_offset: int = header[9]
        self._read = 0

    @property
    def buffer(self) -> mmap.mmap:
        """The whole file: cell i is the int64 at `cells_offset + 8 * i`."""
        return self._memory

    @property
    def used(self) -> int:
        """Cells published so far."""
        return min(self._published()[1], self.capacity)

    @property
    def final(self) -> bool:
        """Whether its writer has gone on in another segment."""
        final: int = struct.unpack_from("<q", self._memory, _FINAL_OFFSET)[0]
        return final == 1

    def _published(self) -> tuple[int, int]:
        records_used, cells_used = struct.unpack_from("<qq", self._memory, _PUBLISHED_OFFSET)
        return records_used, cells_used

    def new_records(self) -> list[Record]:
        """What was published since the last call. A record whose checksum is not right yet ends the list and is
        tried again next time; a whole one that makes no sense is skipped and counted."""
        records: list[Record] = []
        end = min(self._published()[0], self._records_capacity)
        while self._read + _RECORD.size <= end:
            at = self._records_offset + self._read
            length, crc, first, count, _ = _RECORD.unpack_from(self._memory, at)
            size = _padded(_RECORD.size + length)
            if self._read + size > end:
                break
            payload = self._memory[at + _RECORD.size : at + _RECORD.size + length]
            if zlib.crc32(_CHECKED.pack(first, count, 0) + payload) != crc:
                break
            self._read += size
            record = _record(payload, first, count)
            if record is None or first + count > self.capacity:
                self.records_skipped += 1
            else:
                records.append(record)
        return records

    def close(self) -> None:
        self._memory.close()


def _padded(size: int) -> int:
    return (size + 7) & ~7


def _record(payload: bytes, first: int, count: int) -> Record | None:
    try:
        words = json.loads(payload)
        families = tuple((str(name), int(cells)) for name, cells in words["f"])
        labels = tuple(sorted((str(name), str(value)) for name, value in words["l"].items() if value))
        organization = str(words["o"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if sum(cells for _, cells in families) != count:
        return None
    return Record(families, organization, labels, first, count)


def _mapped(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < HEADER_BYTES:
                raise CellsError(f"{path} is not a segment: {size} bytes, a header has {HEADER_BYTES}")
            return mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError as fault:
        raise CellsError(f"cannot read the segment {path}: {fault.strerror}") from None


def _header_fault(header: tuple[object, ...], size: int) -> str:
    magic, version, _, _, _, _, _, records_capacity, cells_capacity, records_offset, cells_offset, _ = header
    if magic != MAGIC:
        return f"it begins with {magic!r}, not {MAGIC!r}"
    if version != VERSION:
        return f"it is of version {version}, not {VERSION}"
    assert isinstance(records_capacity, int)
    assert isinstance(cells_capacity, int)
    assert isinstance(records_offset, int)
    assert isinstance(cells_offset, int)
    if records_offset + records_capacity > cells_offset or cells_offset + 8 * cells_capacity > size or cells_offset % 8:
        return "its areas do not fit into the file"
    return ""
