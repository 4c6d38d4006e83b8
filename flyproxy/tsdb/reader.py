"""Reading: the database from another process, advanced by the rows that appear."""

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flyproxy.series.frame import Frame
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher
from flyproxy.tsdb import schema
from flyproxy.tsdb.blocks import Blocks, Stretch
from flyproxy.tsdb.frames import StoredChunk, StoredFrame
from flyproxy.tsdb.heads import HEAD_BYTES, Heads
from flyproxy.tsdb.index import Rows, Verdicts
from flyproxy.tsdb.layout import Presence, decode_layout, decode_presence
from flyproxy.tsdb.log import DamagedError
from flyproxy.tsdb.replay import Damages, Replay

MatcherSets = Sequence[Sequence[Matcher]]
"""Series that any of them takes; none at all: every series."""

ROWS_FOLLOWED_MAX = 20_000
"""A reader that was not asked for longer than this many rows (41 us each) forgets its heads instead of following: after
an idle night the first question would wait for them beyond its deadline."""


class Reader:
    """A store as it was at the last refresh (or later, where frames were merged since). Any thread may call it, one
    call at a time goes ahead."""

    def __init__(self, path: str, *, head_bytes: int, report: Callable[[str], None]) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection = schema.open_readable(path)
        self._damages = Damages(report)
        self._replay = Replay(self._connection, path, self._damages)
        self._blocks = Blocks(self._connection, path, self._damages)
        self._heads = Heads(self._replay, self._blocks, head_bytes)
        self._verdicts = Verdicts()
        self._frames: dict[int, StoredFrame] = {}
        self._organizations: dict[str, dict[int, StoredFrame]] = {}
        self._data_version = -1
        self._last_frame = self._last_layout = self._presence_version = self._last_row = self._deletions = 0
        self._last_chunk = self._merged = 0
        self._sealed: set[int] = set()
        """Frames with chunks that were met since the last refresh."""
        self._met_early: list[tuple[int, int, int, int]] = []
        """Chunks of frames that the last refresh did not see."""
        try:
            self.refresh()
            self._heads.keep_within()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(
        cls, path: str, *, head_bytes: int = HEAD_BYTES, report: Callable[[str], None] = lambda sentence: None
    ) -> "Reader":
        """The store at `path`, read-only. `head_bytes`: decoded samples kept in memory at most. `report` gets a
        sentence for each damaged place, once. Raises StoreError: StoreMissingError while there is none."""
        return cls(path, head_bytes=head_bytes, report=report)

    def organization(self, name: str, checkpoint: Callable[[], None] = lambda: None) -> "OrganizationView":
        """What one organization stored and nothing else; an unknown one has nothing. `checkpoint` is called before each
        matcher set is looked for in a frame, and ends it by raising."""
        return OrganizationView(self, name, checkpoint)

    def organizations(self) -> list[str]:
        """Sorted names of those that have a frame. For who may see them all; a tenant is never shown this."""
        with self._lock:
            return sorted(name for name, frames in self._organizations.items() if frames)

    def refresh(self) -> None:
        """Take in what was committed since; nothing but a look at a counter when that is nothing. Raises StoreError,
        and then what it knew before still answers."""
        with self._lock, schema.translating(self._path, "refreshing"):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version == self._data_version:
                return
            with schema.transaction(self._connection, self._path, "refreshing", "BEGIN"):
                self._catch_up(first=self._data_version == -1)
            self._data_version = version
            self._heads.keep_within()

    def statistics(self) -> dict[str, int]:
        """frames, series, rows (of the log, at most: the span of row numbers), chunks, bytes (of the file), head_bytes,
        heads, block_bytes, rows_decoded, blocks_decoded, cold_reads, rows_damaged, rows_lost (behind a damaged one),
        layouts_damaged, chunks_damaged (their heads), blocks_damaged."""
        with self._lock, schema.translating(self._path, "measuring it"):
            (rows,) = self._connection.execute("SELECT coalesce(max(id) - min(id) + 1, 0) FROM log").fetchone()
            (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            return {
                "frames": len(self._frames),
                "series": sum(frame.index.count for frame in self._frames.values()),
                "rows": int(rows),
                "chunks": sum(len(frame.chunks) for frame in self._frames.values()),
                "bytes": page_bytes * pages,
                "head_bytes": self._heads.bytes,
                "heads": sum(frame.head is not None for frame in self._frames.values()),
                "block_bytes": self._blocks.bytes,
                "rows_decoded": self._replay.rows_decoded,
                "blocks_decoded": self._blocks.decoded,
                "cold_reads": self._heads.cold_reads,
                **self._damages.counts,
            }

    def close(self) -> None:
        """Views of it must not be used any more; frames they handed out stay true."""
        with self._lock:
            self._connection.close()

    # What views ask --------------------------------------------------------------------------------------------------

    def select(
        self,
        organization: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> list[Frame]:
        """See OrganizationView.select."""
        frames = []
        with self._lock, schema.transaction(self._connection, self._path, "selecting", "BEGIN"):
            # Since the last refresh rows can have gone into chunks, and frames into others.
            if self._last_merged() != self._merged:
                self._catch_up(first=False)
            self._read_chunks()
            for stored, rows in self.matching(organization, (matchers,), start_ms, end_ms, checkpoint):
                frame = self._read(stored, rows, start_ms, min(end_ms, stored.last_ms))
                if frame is not None:
                    frames.append(frame)
            self._heads.keep_within()
        return frames

    def _read(self, stored: StoredFrame, rows: Rows, start_ms: int, end_ms: int) -> Frame | None:
        """Its columns in that time: those its head has, and before them those of chunks. All in one transaction."""
        head, whole = self._heads.read(stored, rows, start_ms, end_ms)
        sealed_end_ms = end_ms if head is None else min(end_ms, head.from_ms - 1)
        stretches = self._stretches(stored, start_ms, sealed_end_ms)
        labels = stored.index.labels(rows)
        if head is None and not stretches:
            return None
        columns = slice(0, 0) if head is None else head.span(start_ms, end_ms)
        newest = columns.stop - columns.start
        chosen = rows if whole else slice(0, rows.size)
        if head is not None and not stretches:
            return Frame(labels, head.times(columns), head.values(chosen, columns)) if newest else None
        times = np.concatenate([stretch.times_ms for stretch in stretches] + ([head.times(columns)] if head else []))
        values = np.empty((rows.size, times.size), np.float64)
        done = 0
        for stretch in stretches:
            count = stretch.columns.stop - stretch.columns.start
            self._blocks.fill(stretch, rows, values[:, done : done + count].view(np.uint64))
            done += count
        if head is not None:
            values[:, done:] = head.values(chosen, columns)
        return Frame(labels, times, values)

    def _stretches(self, stored: StoredFrame, start_ms: int, end_ms: int) -> list[Stretch]:
        found = [
            self._blocks.stretch(stored.id, chunk, start_ms, end_ms)
            for chunk in stored.chunks_between(start_ms, end_ms)
        ]
        return [stretch for stretch in found if stretch is not None]

    def matching(
        self,
        organization: str,
        matcher_sets: MatcherSets,
        start_ms: int,
        end_ms: int,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[StoredFrame, Rows]]:
        """The organization's frames with a series that any set takes, and its rows, ascending. Under the lock."""
        for stored in self._organizations.get(organization, {}).values():
            if stored.last_ms < start_ms:
                continue
            found = []
            for matchers in matcher_sets or ((),):
                checkpoint()
                found.append(stored.match(matchers, self._verdicts, start_ms, end_ms))
            rows = found[0] if len(found) == 1 else _union(found)
            if rows.size:
                yield stored, rows

    @property
    def lock(self) -> threading.RLock:
        """Held while a view reads."""
        return self._lock

    # What appeared ---------------------------------------------------------------------------------------------------

    def _catch_up(self, first: bool) -> None:
        """All that was committed, in this transaction's moment."""
        self._merged = self._last_merged()
        self._read_frames()
        self._read_layouts()
        self._read_presence()
        self._read_chunks()
        if first or self._is_far_behind():
            self._start_anew()
        else:
            self._read_log()
        self._take_in_sealed()
        self._read_deletions()

    def _last_merged(self) -> int:
        """The frame that short-lived ones were last merged into."""
        (frame,) = self._connection.execute("SELECT value FROM counts WHERE name = 'merges'").fetchone()
        return int(frame)

    def _read_frames(self) -> None:
        rows = self._connection.execute(
            "SELECT id, organization, target, crc FROM frames WHERE id > ? ORDER BY id", (self._last_frame,)
        )
        for frame, organization, target, crc in rows:
            self._last_frame = frame
            if crc != zlib.crc32(f"{organization}\0{target}".encode("utf-8", "surrogatepass")):
                self._damages.add("layouts_damaged", frame, -1, f"{self._path}: frame {frame} is skipped: its checksum")
                continue
            stored = self._frames[frame] = StoredFrame(frame, organization, target)
            self._organizations.setdefault(organization, {})[frame] = stored

    def _read_layouts(self) -> None:
        rows = self._connection.execute(
            "SELECT id, frame, first, count, CAST(blob AS BLOB) FROM layouts WHERE id > ? ORDER BY id",
            (self._last_layout,),
        )
        for layout, frame, first, count, blob in rows:
            self._last_layout = layout
            stored = self._frames.get(frame)
            if stored is None:
                continue
            try:
                columns = decode_layout(frame, first, count, blob)
                if first < stored.index.count:
                    raise DamagedError(f"series {first} is there already")
            except DamagedError as why:
                sentence = f"{self._path}: {count} series of frame {frame} are skipped: their layout: {why}"
                self._damages.add("layouts_damaged", frame, first, sentence)
                continue
            if first > stored.index.count:
                stored.index.extend_lost(first - stored.index.count)
            stored.index.extend(count, columns)

    def _read_presence(self) -> None:
        rows = self._connection.execute(
            "SELECT frame, version, CAST(blob AS BLOB) FROM presence WHERE version > ? ORDER BY version",
            (self._presence_version,),
        )
        for frame, version, blob in rows:
            self._presence_version = version
            stored = self._frames.get(frame)
            if stored is None:
                continue
            try:
                stored.presence = decode_presence(frame, blob)
            except DamagedError as why:
                stored.presence = Presence(np.empty(0, np.int64), np.empty(0, np.int64))
                sentence = f"{self._path}: when the series of frame {frame} were there is not known: {why}"
                self._damages.add("layouts_damaged", frame, -2, sentence)

    def _read_chunks(self) -> None:
        """What was sealed since, in this transaction's moment. A frame's bounds stay those of the last refresh."""
        indexed = "" if self._last_chunk else "INDEXED BY chunks_by_frame"  # which has no heads to step over
        rows = self._connection.execute(
            f"SELECT id, frame, first_ms, last_ms FROM chunks {indexed} WHERE id > ? ORDER BY id", (self._last_chunk,)
        )
        met, self._met_early = self._met_early, []
        for chunk, frame, first_ms, last_ms in (*met, *rows):
            self._last_chunk = max(self._last_chunk, chunk)
            stored = self._frames.get(frame)
            if frame > self._last_frame:
                self._met_early.append((chunk, frame, first_ms, last_ms))
            elif stored is not None:
                self._sealed.add(frame)
                if not stored.seal(StoredChunk(chunk, first_ms, last_ms)):
                    self._heads.drop(stored)

    def _take_in_sealed(self) -> None:
        """Rows that were sealed before they were seen in the log count as seen."""
        for frame in self._sealed:
            stored = self._frames[frame]
            stored.first_ms = min(stored.first_ms, stored.chunks[0].first_ms)
            stored.last_ms = max(stored.last_ms, stored.sealed_ms)
            self._heads.forget_before(stored, stored.sealed_ms + 1)
        self._sealed.clear()

    def _is_far_behind(self) -> bool:
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()
        return bool(last - self._last_row > ROWS_FOLLOWED_MAX)

    def _start_anew(self) -> None:
        """Heads are decoded again when asked for: nobody waits for what nobody looks at."""
        for stored in self._frames.values():
            self._heads.drop(stored)
        self._read_bounds(self._frames.values())

    def _read_log(self) -> None:
        """New rows: heads advance by them."""
        rows = self._connection.execute(
            "SELECT id, frame, ts_ms, key_ms, CAST(blob AS BLOB) FROM log WHERE id > ? ORDER BY id", (self._last_row,)
        )
        for row, frame, timestamp_ms, key_ms, blob in rows:
            self._last_row = row
            stored = self._frames.get(frame)
            if stored is not None:
                stored.advance(timestamp_ms, key_ms, blob)

    def _read_bounds(self, frames: Iterable[StoredFrame]) -> None:
        """The times each frame spans, and the last row there is."""
        for stored in frames:
            found = self._connection.execute(
                "SELECT (SELECT min(ts_ms) FROM log WHERE frame = ?), (SELECT max(ts_ms) FROM log WHERE frame = ?)",
                (stored.id, stored.id),
            ).fetchone()
            times = [time for time in found if time is not None]
            times += [time for chunk in stored.chunks for time in (chunk.first_ms, chunk.last_ms)]
            if times:
                stored.first_ms, stored.last_ms = min(times), max(times)
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()
        self._last_row = max(self._last_row, last)

    def _read_deletions(self) -> None:
        """Retention was at work: frames and chunks may be gone, frames begin later."""
        (deletions,) = self._connection.execute("SELECT value FROM counts WHERE name = 'deletions'").fetchone()
        if deletions == self._deletions:
            return
        self._deletions = deletions
        left = {frame for (frame,) in self._connection.execute("SELECT id FROM frames")}
        for frame in [frame for frame in self._frames if frame not in left]:
            stored = self._frames.pop(frame)
            self._heads.drop(stored)
            del self._organizations[stored.organization][frame]
        left = {chunk for (chunk,) in self._connection.execute("SELECT id FROM chunks INDEXED BY chunks_by_frame")}
        for stored in self._frames.values():
            for chunk in stored.chunks:
                if chunk.id not in left:
                    self._blocks.forget(chunk.id)
            stored.chunks = [chunk for chunk in stored.chunks if chunk.id in left]
        self._read_bounds(self._frames.values())
        for stored in self._frames.values():
            self._heads.forget_before(stored, stored.first_ms)


class OrganizationView:
    """One organization's samples: what a query engine reads from (frame.Storage), and its labels."""

    def __init__(self, reader: Reader, organization: str, checkpoint: Callable[[], None]) -> None:
        self._reader = reader
        self._organization = organization
        self._checkpoint = checkpoint

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """All samples with start_ms <= t <= end_ms of the series that match; arrays are views where they can be, and
        are not to be written to. Series that were not there at that time are left out (one that comes may be all
        ABSENT, where a gap covers it). Raises StoreError and BadPatternError."""
        return self._reader.select(self._organization, matchers, start_ms, end_ms, self._checkpoint)

    def series(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[Labels]:
        """Sorted label sets of the series that any set takes (None or empty: all) and that were there at some time in
        start_ms <= t <= end_ms: from their first sample to the row that ended them. A gap in between counts as
        there; a series that stopped without an end counts until its target's last row."""
        found: set[Labels] = set()
        with self._reader.lock:
            for stored, rows in self._matching(matcher_sets, start_ms, end_ms):
                found.update(stored.index.labels(rows))
        return sorted(found)

    def label_names(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted names of the labels those series have; bounds as in `series`."""
        found: set[str] = set()
        with self._reader.lock:
            for stored, rows in self._matching(matcher_sets, start_ms, end_ms):
                found |= stored.index.names(rows)
        return sorted(found)

    def label_values(self, name: str, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted values one label has among those series; bounds as in `series`."""
        found: set[str] = set()
        with self._reader.lock:
            for stored, rows in self._matching(matcher_sets, start_ms, end_ms):
                found |= stored.index.values(name, rows)
        return sorted(found)

    def _matching(
        self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int
    ) -> Iterator[tuple[StoredFrame, Rows]]:
        return self._reader.matching(self._organization, matcher_sets or (), start_ms, end_ms, self._checkpoint)


def _union(found: Sequence[Rows]) -> Rows:
    """Rows in any of them, ascending."""
    return np.unique(np.concatenate(found))
