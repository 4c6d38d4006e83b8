"""One stored frame as a reader knows it: its labels, when its series were there, which chunks it has, and its head if
it has one."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flyproxy.series.matchers import Matcher
from flyproxy.tsdb.head import Head
from flyproxy.tsdb.index import FrameIndex, Rows, Verdicts
from flyproxy.tsdb.layout import LIVE_MS, NEVER_MS, Presence
from flyproxy.tsdb.replay import Chain


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A sealed stretch: the frame's columns with first_ms <= t <= last_ms."""

    id: int
    first_ms: int
    last_ms: int


@dataclass(slots=True, eq=False)
class StoredFrame:
    """Its samples lie in first_ms <= t <= last_ms."""

    id: int
    organization: str
    target: str
    index: FrameIndex = field(default_factory=FrameIndex)
    presence: Presence = field(default_factory=lambda: Presence(np.empty(0, np.int64), np.empty(0, np.int64)))
    first_ms: int = LIVE_MS
    last_ms: int = NEVER_MS
    chunks: list[StoredChunk] = field(default_factory=list)
    """Ascending; they do not overlap, and what is later is in the log."""
    head: Head | None = None
    """The newest columns. Those it has it keeps when they are sealed."""
    chain: Chain | None = None
    """Where the head's last column left off."""
    used_at: int = 0
    """The select that last used the head."""

    def match(self, matchers: Sequence[Matcher], verdicts: Verdicts, start_ms: int, end_ms: int) -> Rows:
        """Rows, ascending, of the series that match and were there at some time in start_ms <= t <= end_ms (from their
        first sample to their last; a gap in between counts as there)."""
        if self.last_ms < start_ms or (end_ms < self.first_ms and end_ms < self._begins_ms()):
            return np.empty(0, np.int64)
        rows = self.index.match(matchers, verdicts)
        first, last = self.presence.first_ms, self.presence.last_ms
        if first.size != self.index.count or not rows.size:
            return rows
        there = (first[rows] <= end_ms) & (last[rows] >= start_ms)
        return rows if there.all() else rows[there]

    def advance(self, timestamp_ms: int, key_ms: int, blob: bytes) -> None:
        """A new row of the log: the head, if there is one, gets its column."""
        self.first_ms = min(self.first_ms, timestamp_ms)
        self.last_ms = max(self.last_ms, timestamp_ms)
        if self.head is None or self.chain is None:
            return
        decoded = self.chain.decode(timestamp_ms, key_ms, blob)
        if decoded is not None:
            bits, births = decoded
            if births is not None:
                self.head.give_birth(births)
            self.head.append(timestamp_ms, bits)

    @property
    def sealed_ms(self) -> int:
        """What the log holds is later than this."""
        return self.chunks[-1].last_ms if self.chunks else NEVER_MS

    def chunks_between(self, start_ms: int, end_ms: int) -> list[StoredChunk]:
        """Those with a time in start_ms <= t <= end_ms."""
        first = bisect_left(self.chunks, start_ms, key=lambda chunk: chunk.last_ms)
        return [chunk for chunk in self.chunks[first:] if chunk.first_ms <= end_ms]

    def seal(self, chunk: StoredChunk) -> bool:
        """The next chunk was sealed. False when it holds rows that were not seen in the log: the head lacks them."""
        self.chunks.append(chunk)
        return chunk.last_ms <= self.last_ms

    def forget_head(self) -> None:
        """It is decoded again when next asked for."""
        self.head = self.chain = None

    def _begins_ms(self) -> int:
        """A newborn's zero can stand before the frame's first row."""
        first = self.presence.first_ms
        return min(self.first_ms, int(first.min())) if first.size else self.first_ms
