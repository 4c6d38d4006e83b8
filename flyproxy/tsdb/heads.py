"""Which columns are kept decoded: a budget of bytes, shared by the frames that are asked for.

A frame's head goes back as far as it was asked to while there is room. When there is none, heads that have not been
used for a while go first; then each is cut back to its share, its part of the budget by its number of series, so all
reach back equally far. What a head would be too large for is decoded for the one query and not kept.
"""

from collections.abc import Collection

from flyproxy.tsdb.frames import StoredFrame
from flyproxy.tsdb.head import Head
from flyproxy.tsdb.index import Rows
from flyproxy.tsdb.replay import Replay

HEAD_BYTES = 512 << 20
"""Default bound of all heads together."""
IDLE_SELECTS = 1024
"""A head not used in so many selects of frames gives way to others."""
_CELL_BYTES = 8


class Heads:
    """All heads of a reader."""

    def __init__(self, replay: Replay, head_bytes: int) -> None:
        self._replay = replay
        self._bytes_max = head_bytes
        self._selects = 0
        self._owners: dict[int, StoredFrame] = {}
        self.cold_reads = 0
        """Reads that no head had room for."""

    @property
    def bytes(self) -> int:
        return sum(frame.head.bytes for frame in self._owners.values() if frame.head is not None)

    def read(self, frame: StoredFrame, rows: Rows, start_ms: int, end_ms: int) -> tuple[Head, bool]:
        """The columns with start_ms <= t <= end_ms: a head that has them for all series (True), or for `rows` only."""
        self._selects += 1
        frame.used_at = self._selects
        if frame.head is not None and frame.head.from_ms <= start_ms:
            return frame.head, True
        if self._reaches_back(frame, start_ms):
            assert frame.head is not None
            return frame.head, True
        self.cold_reads += 1
        return self._replay.read(frame.id, frame.index.count, start_ms, end_ms, rows)[0], False

    def drop(self, frame: StoredFrame) -> None:
        """The frame is gone."""
        frame.forget_head()
        self._owners.pop(frame.id, None)

    def keep_within(self) -> None:
        """Heads have grown: cut them back to the budget."""
        if self.bytes > self._bytes_max:
            self._make_room(0, None)

    def _reaches_back(self, frame: StoredFrame, start_ms: int) -> bool:
        """Make or lengthen the frame's head so that it has start_ms; False when it would be too large for that."""
        end_ms = frame.last_ms if frame.head is None else frame.head.from_ms - 1
        held = 0 if frame.head is None else frame.head.bytes
        columns = self._replay.count(frame.id, start_ms, end_ms) + (0 if frame.head is None else frame.head.columns)
        wanted = (columns + 2) * (frame.index.count + 1) * _CELL_BYTES
        free = self._bytes_max - self.bytes + held
        if wanted > max(free, self._share(frame)):
            return False
        if wanted > free:
            self._make_room(wanted, frame)
        head, chain = self._replay.read(frame.id, frame.index.count, start_ms, end_ms)
        if frame.head is None:
            frame.head, frame.chain = head, chain
        else:
            frame.head.prepend(head)
        self._owners[frame.id] = frame
        return True

    def _make_room(self, wanted: int, asking: StoredFrame | None) -> None:
        others = [frame for frame in self._owners.values() if frame is not asking]
        for frame in sorted(others, key=lambda frame: frame.used_at):
            if self.bytes + wanted <= self._bytes_max or frame.used_at > self._selects - IDLE_SELECTS:
                break
            self.drop(frame)
        for frame in [frame for frame in self._owners.values() if frame is not asking]:
            self._cut(frame, self._share(frame, asking))

    def _cut(self, frame: StoredFrame, share: int) -> None:
        if frame.head is None or frame.head.bytes <= share:
            return
        columns = int(share * 0.8) // ((frame.index.count + 1) * _CELL_BYTES) - _CELL_BYTES
        if columns < 1:
            self.drop(frame)
        else:
            frame.head.keep_newest(columns)

    def _share(self, frame: StoredFrame, asking: StoredFrame | None = None) -> int:
        """The frame's part of the budget."""
        sharing: Collection[StoredFrame] = {*self._owners.values(), frame, *([asking] if asking else [])}
        return self._bytes_max * frame.index.count // max(1, sum(other.index.count for other in sharing))
