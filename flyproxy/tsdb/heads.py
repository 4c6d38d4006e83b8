"""Which columns are kept decoded: a budget of bytes, shared by the frames that are asked for.

A frame's head goes back as far as it was asked to, at most to where the log begins, while there is room. When there is
none, heads that have not been used for a while go first; then each is cut back to its share, its part of the budget by
its number of series, so all reach back equally far. What a head would be too large for is decoded for the one query and
not kept. Blocks of chunks take the room that heads leave, and are sure of a part of the budget.
"""

from flyproxy.tsdb.blocks import Blocks
from flyproxy.tsdb.frames import StoredFrame
from flyproxy.tsdb.head import Head
from flyproxy.tsdb.index import Rows
from flyproxy.tsdb.layout import LIVE_MS
from flyproxy.tsdb.replay import Replay

HEAD_BYTES = 512 << 20
"""Default bound of all heads and blocks together."""
BLOCKS_SHARE = 4
"""Decoded blocks are sure of one in so many bytes of it."""
IDLE_SELECTS = 1024
"""A head not used in so many selects of frames gives way to others."""
_CELL_BYTES = 8


class Heads:
    """All heads of a reader, and how much room its blocks have."""

    def __init__(self, replay: Replay, blocks: Blocks, head_bytes: int) -> None:
        self._replay = replay
        self._blocks = blocks
        self._budget = head_bytes
        self._selects = 0
        self._owners: dict[int, StoredFrame] = {}
        self._bytes = 0
        self._series = 0
        self.cold_reads = 0
        """Reads that no head had room for."""

    @property
    def bytes(self) -> int:
        """What all heads occupied when they were last kept within their bound."""
        return self._bytes

    def read(self, frame: StoredFrame, rows: Rows, start_ms: int, end_ms: int) -> tuple[Head | None, bool]:
        """The columns with start_ms <= t <= end_ms as far as they are in the log (what is earlier than the head's
        from_ms is in chunks): a head that has them for all series (True), or for `rows` only; None when there is
        none."""
        self._selects += 1
        frame.used_at = self._selects
        start_ms = max(start_ms, frame.sealed_ms + 1)
        if frame.head is not None and frame.head.from_ms <= start_ms:
            return frame.head, True
        if start_ms > end_ms:
            return None, False
        if self._reaches_back(frame, start_ms):
            return frame.head, True
        self.cold_reads += 1
        return self._replay.read(frame.id, frame.index.count, start_ms, end_ms, rows)[0], False

    def drop(self, frame: StoredFrame) -> None:
        """The frame is gone, or its head is to go."""
        if frame.head is not None:
            self._bytes -= frame.head.bytes
            self._series -= frame.index.count
        frame.forget_head()
        self._owners.pop(frame.id, None)

    def forget_before(self, frame: StoredFrame, timestamp_ms: int) -> None:
        """What is older is in chunks now, where it costs no memory, or is gone."""
        head = frame.head
        if head is None or head.from_ms >= timestamp_ms:
            return
        kept = head.span(timestamp_ms, LIVE_MS)
        if kept.start == kept.stop:
            self.drop(frame)
            return
        self._bytes -= head.bytes
        head.keep_newest(kept.stop - kept.start)
        head.from_ms = timestamp_ms
        self._bytes += head.bytes

    def keep_within(self) -> None:
        """After rows were appended or blocks decoded: cut both back to the budget."""
        self._count()
        if self._bytes > self._bytes_max:
            self._make_room(0, None)
            self._count()
        self._blocks.keep_within(max(self._budget // BLOCKS_SHARE, self._budget - self._bytes))

    @property
    def _bytes_max(self) -> int:
        """What blocks leave to the heads."""
        return self._budget - min(self._blocks.bytes, self._budget // BLOCKS_SHARE)

    def _reaches_back(self, frame: StoredFrame, start_ms: int) -> bool:
        """Make or lengthen the frame's head so that it has start_ms; False when it would be too large for that."""
        end_ms = frame.last_ms if frame.head is None else frame.head.from_ms - 1
        held = 0 if frame.head is None else frame.head.bytes
        columns = self._replay.count(frame.id, start_ms, end_ms) + (0 if frame.head is None else frame.head.columns)
        wanted = (columns + 2) * (frame.index.count + 1) * _CELL_BYTES
        free = self._bytes_max - self._bytes + held
        if wanted > free:
            if wanted > self._share(frame):
                return False
            self._make_room(wanted - held, frame)
        head, chain = self._replay.read(frame.id, frame.index.count, start_ms, end_ms)
        if frame.head is None:
            frame.head, frame.chain = head, chain
            self._owners[frame.id] = frame
            self._series += frame.index.count
        else:
            frame.head.prepend(head)
        self._bytes += frame.head.bytes - held
        return True

    def _make_room(self, wanted: int, asking: StoredFrame | None) -> None:
        others = sorted(self._owners.values(), key=lambda frame: frame.used_at)
        for frame in others:
            if self._bytes + wanted <= self._bytes_max or frame.used_at > self._selects - IDLE_SELECTS:
                break
            if frame is not asking:
                self.drop(frame)
        asked = 0 if asking is None or asking.head is not None else asking.index.count
        for frame in [frame for frame in self._owners.values() if frame is not asking]:
            self._cut(frame, self._bytes_max * frame.index.count // max(1, self._series + asked))

    def _cut(self, frame: StoredFrame, share: int) -> None:
        """A head above its share loses old columns, and a fifth more, so that this is not done at every beat."""
        if frame.head is None or frame.head.bytes <= share:
            return
        columns = share * 4 // 5 // ((frame.index.count + 1) * _CELL_BYTES) - _CELL_BYTES
        if columns < 1:
            self.drop(frame)
        else:
            self._bytes -= frame.head.bytes
            frame.head.keep_newest(columns)
            self._bytes += frame.head.bytes

    def _share(self, frame: StoredFrame) -> int:
        """The frame's part of the budget, were it among those that have a head."""
        series = self._series + (frame.index.count if frame.head is None else 0)
        return self._bytes_max * frame.index.count // max(1, series)

    def _count(self) -> None:
        self._bytes = sum(frame.head.bytes for frame in self._owners.values() if frame.head is not None)
        self._series = sum(frame.index.count for frame in self._owners.values())
