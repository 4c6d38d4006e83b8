"""Reading: the database from another process, advanced by the rows that appear."""

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flyproxy.series.frame import Frame
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher
from flyproxy.tsdb import schema
from flyproxy.tsdb.frames import StoredFrame
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
    """A store as it was at the last refresh. Any thread may call it, one call at a time goes ahead."""

    def __init__(self, path: str, *, head_bytes: int, report: Callable[[str], None]) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection = schema.open_readable(path)
        self._damages = Damages(report)
        self._replay = Replay(self._connection, path, self._damages)
        self._heads = Heads(self._replay, head_bytes)
        self._verdicts = Verdicts()
        self._frames: dict[int, StoredFrame] = {}
        self._organizations: dict[str, dict[int, StoredFrame]] = {}
        self._data_version = -1
        self._last_frame = self._last_layout = self._presence_version = self._last_row = self._deletions = 0
        try:
            self.refresh()
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

    def organization(self, name: str) -> "OrganizationView":
        """What one organization stored and nothing else; an unknown one has nothing."""
        return OrganizationView(self, name)

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
                first = self._data_version == -1
                self._read_frames()
                self._read_layouts()
                self._read_presence()
                if first or self._is_far_behind():
                    self._start_anew()
                else:
                    self._read_log()
                self._read_deletions()
            self._data_version = version
            self._heads.keep_within()

    def statistics(self) -> dict[str, int]:
        """frames, series, rows (at most: the span of row numbers), bytes (of the file), head_bytes, heads,
        rows_decoded, cold_reads, rows_damaged, rows_lost (behind a damaged one), layouts_damaged."""
        with self._lock, schema.translating(self._path, "measuring it"):
            (rows,) = self._connection.execute("SELECT coalesce(max(id) - min(id) + 1, 0) FROM log").fetchone()
            (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            return {
                "frames": len(self._frames),
                "series": sum(frame.index.count for frame in self._frames.values()),
                "rows": int(rows),
                "bytes": page_bytes * pages,
                "head_bytes": self._heads.bytes,
                "heads": sum(frame.head is not None for frame in self._frames.values()),
                "rows_decoded": self._replay.rows_decoded,
                "cold_reads": self._heads.cold_reads,
                **self._damages.counts,
            }

    def close(self) -> None:
        """Views of it must not be used any more; frames they handed out stay true."""
        with self._lock:
            self._connection.close()

    # What views ask --------------------------------------------------------------------------------------------------

    def select(self, organization: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """See OrganizationView.select."""
        frames = []
        with self._lock, schema.translating(self._path, "selecting"):
            for stored, rows in self.matching(organization, (matchers,), start_ms, end_ms):
                head, whole = self._heads.read(stored, rows, start_ms, end_ms)
                columns = head.span(start_ms, end_ms)
                if columns.start < columns.stop:
                    values = head.values(rows if whole else slice(0, rows.size), columns)
                    frames.append(Frame(stored.index.labels(rows), head.times(columns), values))
            self._heads.keep_within()
        return frames

    def matching(
        self, organization: str, matcher_sets: MatcherSets, start_ms: int, end_ms: int
    ) -> Iterator[tuple[StoredFrame, Rows]]:
        """The organization's frames with a series that any set takes, and its rows, ascending. Under the lock."""
        for stored in self._organizations.get(organization, {}).values():
            if stored.last_ms < start_ms:
                continue
            found = [stored.match(matchers, self._verdicts, start_ms, end_ms) for matchers in matcher_sets or ((),)]
            rows = found[0] if len(found) == 1 else _union(found)
            if rows.size:
                yield stored, rows

    @property
    def lock(self) -> threading.RLock:
        """Held while a view reads."""
        return self._lock

    # What appeared ---------------------------------------------------------------------------------------------------

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
            for name, order in (("first_ms", "ASC"), ("last_ms", "DESC")):
                found = self._connection.execute(
                    f"SELECT ts_ms FROM log WHERE frame = ? ORDER BY ts_ms {order} LIMIT 1", (stored.id,)
                ).fetchone()
                if found is not None:
                    setattr(stored, name, found[0])
        (self._last_row,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()

    def _read_deletions(self) -> None:
        """Retention was at work: frames may be gone, others begin later."""
        (deletions,) = self._connection.execute("SELECT value FROM counts WHERE name = 'deletions'").fetchone()
        if deletions == self._deletions:
            return
        self._deletions = deletions
        left = {frame for (frame,) in self._connection.execute("SELECT id FROM frames")}
        for frame in [frame for frame in self._frames if frame not in left]:
            stored = self._frames.pop(frame)
            self._heads.drop(stored)
            del self._organizations[stored.organization][frame]
        self._read_bounds(self._frames.values())


class OrganizationView:
    """One organization's samples: what a query engine reads from (frame.Storage), and its labels."""

    def __init__(self, reader: Reader, organization: str) -> None:
        self._reader = reader
        self._organization = organization

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Frame]:
        """All samples with start_ms <= t <= end_ms of the series that match; arrays are views where they can be, and
        are not to be written to. Series that were not there at that time are left out (one that comes may be all
        ABSENT, where a gap covers it). Raises StoreError and BadPatternError."""
        return self._reader.select(self._organization, matchers, start_ms, end_ms)

    def series(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[Labels]:
        """Sorted label sets of the series that any set takes (None or empty: all) and that were there at some time in
        start_ms <= t <= end_ms: from their first sample to the row that ended them. A gap in between counts as
        there; a series that stopped without an end counts until its target's last row."""
        found: set[Labels] = set()
        with self._reader.lock:
            for stored, rows in self._reader.matching(self._organization, matcher_sets or (), start_ms, end_ms):
                found.update(stored.index.labels(rows))
        return sorted(found)

    def label_names(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted names of the labels those series have; bounds as in `series`."""
        found: set[str] = set()
        with self._reader.lock:
            for stored, rows in self._reader.matching(self._organization, matcher_sets or (), start_ms, end_ms):
                found |= stored.index.names(rows)
        return sorted(found)

    def label_values(self, name: str, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        """Sorted values one label has among those series; bounds as in `series`."""
        found: set[str] = set()
        with self._reader.lock:
            for stored, rows in self._reader.matching(self._organization, matcher_sets or (), start_ms, end_ms):
                found |= stored.index.values(name, rows)
        return sorted(found)


def _union(found: Sequence[Rows]) -> Rows:
    """Rows in any of them, ascending."""
    return np.unique(np.concatenate(found))
