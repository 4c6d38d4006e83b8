"""Appending: one transaction a beat, on the disk when `append` returns."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import numpy as np

from flyproxy.series.samples import Batch
from flyproxy.tsdb import schema
from flyproxy.tsdb.compaction import SEAL_MS, Compaction, Sealed
from flyproxy.tsdb.layout import (
    LIVE_MS,
    NEVER_MS,
    Presence,
    decode_layout,
    decode_presence,
    encode_layout,
    encode_presence,
    labels_of,
)
from flyproxy.tsdb.log import KEY_ROWS, DamagedError, Place, encode_row
from flyproxy.tsdb.merging import Merging
from flyproxy.tsdb.replay import Damages
from flyproxy.tsdb.retention import Gone, Retention
from flyproxy.tsdb.target import RefusedError, Row, Target

Report = Callable[[str], None]


class Writer:
    """The only writer of a store; a second one is refused. Any thread may call it, one call at a time goes ahead."""

    def __init__(self, path: str, *, first_zero: bool, retention_s: float | None, report: Report) -> None:
        self._path = path
        self.first_zero = first_zero
        """Whether a newborn counter gets its 0; may change between two appends."""
        self._retention_s = retention_s
        self._report = report
        self._lock = threading.RLock()
        with ExitStack() as on_failure:
            self._held = on_failure.enter_context(schema.hold(path))
            self._connection = on_failure.enter_context(closing(schema.open_writable(path)))
            with schema.translating(path, "opening it"):
                (self._presence_version,) = self._connection.execute(
                    "SELECT value FROM counts WHERE name = 'presence_version'"
                ).fetchone()
            on_failure.pop_all()
        self._retention = Retention(self._connection, path)
        damages = Damages(report)
        self._compaction = Compaction(self._connection, path, damages)
        self._merging = Merging(self._connection, path, damages)
        self._targets: dict[tuple[str, str], Target] = {}
        self._counted: Counter[str] = Counter()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        first_zero: bool = True,
        retention_s: float | None = None,
        report: Report = lambda sentence: None,
    ) -> "Writer":
        """The store at `path`, made when it is not there. `report` gets a sentence for damage that was worked around.
        Raises StoreError: StoreBusyError for a second writer, StoreForeignError for a file not ours or newer."""
        return cls(path, first_zero=first_zero, retention_s=retention_s, report=report)

    def append(self, batches: Sequence[Batch]) -> list[str]:
        """Store a beat: all of it in one transaction, on the disk on return. Raises StoreError, and then none of it
        is stored and the writer goes on from what the disk holds: the beat may be handed over again, or left out.

        A batch that cannot be stored (not newer than the target's last row, a series twice, values that do not fit
        the layout) is left out and counted; the others are stored. Returns a sentence for each one left out."""
        if not batches:
            return []
        with self._lock:
            counted: Counter[str] = Counter(transactions=1)
            refused: list[str] = []
            with self._transaction("appending", {(batch.organization, batch.target) for batch in batches}):
                for batch in batches:
                    try:
                        self._append(batch, counted)
                    except RefusedError as why:
                        refused.append(f"target {batch.target!r} of {batch.organization!r}: {why}")
                self._publish_presence(counted)
            counted["batches_refused"] = len(refused)
            self._counted += counted
            return refused

    def end_target(self, organization: str, target: str, timestamp_ms: int) -> int:
        """A target is gone for good: its live series end at `timestamp_ms` (or 1 ms after its last row, if that is
        later). Returns how many ended. Raises StoreError."""
        with self._lock:
            counted: Counter[str] = Counter(transactions=1)
            ended = 0
            with self._transaction("ending a target", {(organization, target)}):
                found = self._target(organization, target)
                if found is not None and found.last_ms is not None:
                    ended = found.live_count()
                    row = found.end(max(timestamp_ms, found.last_ms + 1))
                    if row is not None:
                        self._write(found, row, counted)
                self._publish_presence(counted)
            self._targets.pop((organization, target), None)
            self._counted += counted
            return ended

    def live_targets(self) -> list[tuple[str, str]]:
        """(organization, target) of all that have series which did not end: after a restart, those among them that are
        not configured any more are to be ended. Raises StoreError."""
        with self._lock, schema.translating(self._path, "listing its targets"):
            rows = self._connection.execute(
                "SELECT f.organization, f.target, p.frame, CAST(p.blob AS BLOB) "
                "FROM presence p JOIN frames f ON f.id = p.frame "
                "WHERE f.id IN (SELECT max(id) FROM frames GROUP BY organization, target) ORDER BY f.id"
            )
            return [(organization, target) for organization, target, *kept in rows if self._is_live(*kept)]

    def organizations_of(self, target: str) -> set[str]:
        """Who has rows of this target. Raises StoreError."""
        with self._lock, schema.translating(self._path, "looking for a target"):
            found = self._connection.execute("SELECT DISTINCT organization FROM frames WHERE target = ?", (target,))
            return {organization for (organization,) in found}

    def seal(self, now_ms: int, stretch_ms: int = SEAL_MS) -> Sealed:
        """One bounded step of sealing (compaction.py): the oldest `stretch_ms` of a frame's log becomes a chunk, if any
        frame is ready. Call again while `more`. Raises StoreError, and then nothing was sealed or lost."""
        with self._lock:
            sealed = self._compaction.step(now_ms, stretch_ms)
            for target in self._targets.values():
                if target.frame == sealed.frame and sealed.up_to_ms is not None:
                    target.key_ms, target.sealed_ms = None, sealed.up_to_ms
            self._counted += Counter(
                rows_sealed=sealed.rows,
                rows_damaged=sealed.rows_damaged,
                chunks_sealed=sealed.chunks,
                samples_sealed=sealed.samples,
                chunk_bytes=sealed.bytes,
            )
            return sealed

    def merge(self, now_ms: int, stretch_ms: int = SEAL_MS) -> int:
        """One bounded step of merging (merging.py): small frames that are over and quiet for a stretch become one.
        Returns how many frames less there are; call again while that is not 0. Raises StoreError, and then nothing was
        merged."""
        with self._lock:
            frames = self._merging.step(now_ms, stretch_ms, self._presence_version + 1)
            if not frames:
                return 0
            self._presence_version += 1
            for key in [key for key, target in self._targets.items() if target.frame in frames]:
                del self._targets[key]
            self._counted["frames_merged"] += len(frames) - 1
            return len(frames) - 2

    def delete_before(self, timestamp_ms: int) -> int:
        """Retention: delete what is older, whole chunks and whole runs of KEY_ROWS rows of the log, and frames left
        without either; give freed pages back. Returns how many rows and chunks went; a call is bounded (retention.py),
        so call again while that is not 0. Raises StoreError."""
        with self._lock:
            return self._forget(self._retention.delete_before(timestamp_ms))

    def shrink(self, bytes_max: int) -> int:
        """Retention by size: while the pages in use are more than this, the oldest chunks and chains of all frames go.
        Returns how many rows and chunks went; a call is bounded, so call again while that is not 0. Raises StoreError.
        """
        with self._lock:
            return self._forget(self._retention.delete_beyond(bytes_max))

    def give_back(self) -> int:
        """Space that was freed goes back to the filesystem, but for a share kept for what comes next. Returns how many
        pages went; a call is bounded, so call again while that is not 0. Raises StoreError."""
        with self._lock:
            return self._retention.give_back()

    def expire(self, now_ms: int) -> int:
        """`delete_before` what is older than the retention the store was opened with; nothing without one."""
        if self._retention_s is None:
            return 0
        return self.delete_before(now_ms - int(self._retention_s * 1000))

    def statistics(self) -> dict[str, int]:
        """Counts since it was opened (transactions, rows, key_rows, samples, row_bytes, layouts, births,
        batches_refused, appends_failed, rows_sealed, rows_damaged (among the sealed), chunks_sealed, samples_sealed,
        chunk_bytes, frames_merged, rows_deleted, chunks_deleted, frames_deleted), and as it is now (targets and series
        in memory; log_rows, at most: the span of row numbers; frames, chunks, file_bytes, free_bytes)."""
        names = (
            "transactions", "rows", "key_rows", "samples", "row_bytes", "layouts", "births", "batches_refused",
            "appends_failed", "rows_sealed", "rows_damaged", "chunks_sealed", "samples_sealed", "chunk_bytes",
            "frames_merged", "rows_deleted", "chunks_deleted", "frames_deleted",
        )  # fmt: skip
        with self._lock, schema.translating(self._path, "measuring it"):
            page_bytes, pages, free = (
                self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
            (frames,) = self._connection.execute("SELECT count(*) FROM frames").fetchone()
            (chunks,) = self._connection.execute("SELECT count(*) FROM chunks").fetchone()
            (log_rows,) = self._connection.execute("SELECT coalesce(max(id) - min(id) + 1, 0) FROM log").fetchone()
            return {name: self._counted[name] for name in names} | {
                "frames": frames,
                "chunks": chunks,
                "log_rows": log_rows,
                "targets": len(self._targets),
                "series": sum(target.live_count() for target in self._targets.values()),
                "file_bytes": page_bytes * pages,
                "free_bytes": page_bytes * free,
            }

    def close(self) -> None:
        """Fold the write-ahead log into the file, if no reader is in the way, and let another writer in."""
        with self._lock:
            self._connection.close()
            self._held.close()

    # A beat, batch by batch ------------------------------------------------------------------------------------------

    def _append(self, batch: Batch, counted: Counter[str]) -> None:
        if batch.values.shape != (len(batch.layout.series),):
            raise RefusedError(f"{batch.values.shape} values for a layout of {len(batch.layout.series)} series")
        target = self._target(batch.organization, batch.target) or self._begin(batch.organization, batch.target, None)
        if target.last_ms is not None and batch.timestamp_ms <= target.last_ms:
            raise RefusedError(f"its row at {batch.timestamp_ms} ms is not newer than the last, at {target.last_ms} ms")
        if target.mostly_gone():
            target = self._move(target, batch, counted)
        elif batch.layout is not target.layout:
            self._adopt(target, batch, counted)
        if target.index:
            self._write(target, target.row(batch, self.first_zero), counted)
        counted["samples"] += batch.values.size

    def _adopt(self, target: Target, batch: Batch, counted: Counter[str]) -> None:
        known = len(target.index)
        try:
            added = target.adopt(batch.layout)
        except RefusedError:
            del self._targets[target.organization, target.name]
            raise
        if added:
            blob = encode_layout(target.frame, known, added)
            self._connection.execute(
                "INSERT INTO layouts (frame, first, count, blob) VALUES (?, ?, ?, ?)",
                (target.frame, known, len(added), blob),
            )
            counted["layouts"] += 1

    def _move(self, target: Target, batch: Batch, counted: Counter[str]) -> Target:
        """To a new frame, leaving behind the series that are gone."""
        after = self._begin(target.organization, target.name, target.last_ms)
        try:
            self._adopt(after, batch, counted)
        except RefusedError:
            self._connection.execute("DELETE FROM frames WHERE id = ?", (after.frame,))
            self._targets[target.organization, target.name] = target
            raise
        self._write(target, target.hand_over(after, batch.timestamp_ms), counted)
        if not after.index:  # it gets no row now, and the target's last one is that of the frame it left
            after.last_ms = batch.timestamp_ms
        return after

    def _write(self, target: Target, row: Row, counted: Counter[str]) -> None:
        key = target.key_ms is None or target.chain_rows >= KEY_ROWS
        key_ms = row.timestamp_ms if key or target.key_ms is None else target.key_ms
        before = None if key else target.values.view(np.uint64)
        place = Place(target.frame, row.timestamp_ms, key_ms)
        blob = encode_row(place, 0 if key else target.chain_rows, row.values.view(np.uint64), before, row.births)
        self._connection.execute(
            "INSERT INTO log (frame, ts_ms, key_ms, blob) VALUES (?, ?, ?, ?)",
            (target.frame, row.timestamp_ms, key_ms, blob),
        )
        if row.presence_changed:
            self._connection.execute(
                "INSERT OR REPLACE INTO presence (frame, version, blob) VALUES (?, ?, ?)",
                (target.frame, self._presence_version + 1, encode_presence(target.frame, target.presence())),
            )
            counted["presences"] += 1
        target.wrote(row, key_ms)
        counted["rows"] += 1
        counted["key_rows"] += key
        counted["row_bytes"] += len(blob)
        counted["births"] += row.births.rows.size if row.births is not None else 0

    def _publish_presence(self, counted: Counter[str]) -> None:
        if counted["presences"]:
            self._presence_version += 1
            self._connection.execute(
                "UPDATE counts SET value = ? WHERE name = 'presence_version'", (self._presence_version,)
            )

    # Targets: in memory, else from the disk --------------------------------------------------------------------------

    def _target(self, organization: str, name: str) -> Target | None:
        """As remembered, else as the disk has it; None when it never had a row."""
        target = self._targets.get((organization, name))
        if target is not None:
            return target
        found = self._connection.execute(
            "SELECT id FROM frames WHERE organization = ? AND target = ? ORDER BY id DESC LIMIT 1", (organization, name)
        ).fetchone()
        if found is None:
            return None
        (frame,) = found
        last_ms, sealed_ms = self._last_times(organization, name, frame)
        try:
            target = self._restored(Target(organization, name, frame, last_ms, blank=False, sealed_ms=sealed_ms))
        except DamagedError as why:
            self._report(f"{self._path}: target {name!r} of {organization!r} goes on in a new frame: {why}")
            return self._begin(organization, name, last_ms)
        self._targets[organization, name] = target
        return target

    def _last_times(self, organization: str, name: str, frame: int) -> tuple[int | None, int | None]:
        """The time of the target's last row in any of its frames; and up to when `frame` is sealed."""
        frames = "SELECT id FROM frames WHERE organization = ? AND target = ?"
        times = self._connection.execute(
            f"SELECT (SELECT max(ts_ms) FROM log WHERE frame IN ({frames})), "
            f"(SELECT max(last_ms) FROM chunks WHERE frame IN ({frames})), "
            "(SELECT max(last_ms) FROM chunks WHERE frame = ?)",
            (organization, name, organization, name, frame),
        ).fetchone()
        return max((time for time in times if time is not None), default=None), times[2]

    def _restored(self, target: Target) -> Target:
        layouts = self._connection.execute(
            "SELECT first, count, CAST(blob AS BLOB) FROM layouts WHERE frame = ? ORDER BY first", (target.frame,)
        )
        for first, count, blob in layouts:
            if first != len(target.index):
                raise DamagedError(f"layout of frame {target.frame}: series {len(target.index)} is missing")
            labels = labels_of(decode_layout(target.frame, first, count, blob))
            target.index.update(zip(labels, range(first, first + count), strict=True))
        kept = self._connection.execute(
            "SELECT CAST(blob AS BLOB) FROM presence WHERE frame = ?", (target.frame,)
        ).fetchone()
        if kept is None and not target.index:  # it was begun for a layout without a series
            target.blank = True
            return target
        presence = self._presence(target.frame, kept[0]) if kept is not None else None
        if presence is None or presence.first_ms.size > len(target.index):
            raise DamagedError(f"presence of frame {target.frame}: it does not fit the layout")
        unseen = len(target.index) - presence.first_ms.size  # presence is written when a series is first seen
        target.first_seen_ms = np.concatenate((presence.first_ms, np.full(unseen, LIVE_MS, np.int64)))
        target.last_seen_ms = np.concatenate((presence.last_ms, np.full(unseen, NEVER_MS, np.int64)))
        return target

    def _begin(self, organization: str, name: str, last_ms: int | None) -> Target:
        """A new frame for a target whose last row, in another frame, was at `last_ms`."""
        target = Target(organization, name, schema.insert_frame(self._connection, organization, name), last_ms)
        self._targets[organization, name] = target
        return target

    def _forget(self, gone: Gone) -> int:
        """What was deleted is no basis for what comes next: a row is never a difference to one that is gone."""
        for target in list(self._targets.values()):
            if target.frame in gone.frames:
                del self._targets[target.organization, target.name]
            elif target.key_ms is not None and target.key_ms < gone.cut_ms.get(target.frame, target.key_ms):
                target.key_ms = None
        self._counted["rows_deleted"] += gone.rows
        self._counted["chunks_deleted"] += gone.chunks
        self._counted["frames_deleted"] += len(gone.frames)
        if gone.stretches:
            self._retention.give_back_some()
        return gone.stretches

    def _is_live(self, frame: int, blob: bytes) -> bool:
        presence = self._presence(frame, blob)
        return presence is not None and bool((presence.last_ms == LIVE_MS).any())

    def _presence(self, frame: int, blob: bytes) -> Presence | None:
        try:
            return decode_presence(frame, blob)
        except DamagedError as why:
            self._report(f"{self._path}: presence of frame {frame}: {why}")
            return None

    @contextmanager
    def _transaction(self, doing: str, touched: set[tuple[str, str]]) -> Iterator[None]:
        """When it fails, what was remembered of the targets it touched may be ahead of the disk: it is forgotten, and
        read again when next needed."""
        try:
            with schema.transaction(self._connection, self._path, doing):
                yield
        except BaseException:
            for key in touched:
                self._targets.pop(key, None)
            self._counted["appends_failed"] += 1
            raise
