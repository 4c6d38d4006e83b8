"""The hot path's verbs: what happened, in plain ints.

What it must do: count a request for the app and for the instance in well under a microsecond, without a lock, a new
label set, or a dict of strings. The plan: a child per label set is fetched once, when a generation of the
configuration takes effect; a verb adds to ints; `fold` copies the children that changed into the segment, once per
turn of the event loop. Only buckets and sums are counted: `*_responses_count` and `_count` follow from them.
Measured by bench/instrument_record.py: 0.35 us for edge and instance together, a fold of both 1.2 to 1.7 us.

One thread owns a recorder. An edge worker imports this file: no numpy here.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from flyproxy.instrument.allotment import UNPLACED, Allotment
from flyproxy.instrument.catalog import BUCKETS, FAMILIES, PROXY_DEVICE, Family
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.own_metrics import ProcessRecorder, bounds_ns

_EDGE_TIME = (FAMILIES["fly_edge_http_response_time_seconds"],)
_EDGE_TRAFFIC = tuple(
    FAMILIES[name]
    for name in (
        "fly_edge_tcp_connects_count",
        "fly_edge_tcp_disconnects_count",
        "fly_edge_data_in",
        "fly_edge_data_out",
    )
)
_EDGE_ERROR = (FAMILIES["fly_edge_error_count"],)
_APP_TIME = (FAMILIES["fly_app_http_response_time_seconds"],)
_APP_CONNECT_TIME = (FAMILIES["fly_app_connect_time_seconds"],)
_APP_LOAD = tuple(
    FAMILIES[name] for name in ("fly_app_concurrency", "fly_app_tcp_connects_count", "fly_app_tcp_disconnects_count")
)
_NET = (FAMILIES["fly_instance_net_recv_bytes"], FAMILIES["fly_instance_net_sent_bytes"])

BOUNDS_NS = bounds_ns(_EDGE_TIME[0])
_FIRST_NS = BOUNDS_NS[0]
SUM = len(BUCKETS) + 1
_COUNTED = len(BUCKETS) + 2
"""A histogram is a list: [buckets, +Inf, sum in ns | place of its first cell | the bucket changed since the last fold].
Between two folds mostly one bucket changes: remembering which one spares the fold twelve writes of fourteen."""
_PLACE = _COUNTED
CHANGED = _COUNTED + 1
NONE, SEVERAL = -1, -2

_Key = TypeVar("_Key")
_Kind = TypeVar("_Kind", "EdgeRecorder", "InstanceRecorder")

STATUS_MIN, STATUS_MAX = 100, 599
FULL_ENOUGH = 0.5
"""Of a segment: where leaving it for a fresh one is worth the move, if most of it is of no use any more."""


class _Child:
    """One label set's recorder: its histograms by status, and whether it waits to be folded."""

    __slots__ = ("__weakref__", "_labels", "_organization", "_recorder", "_status_family", "dirty", "statuses")

    def __init__(
        self, recorder: "Recorder", organization: str, labels: dict[str, str], status_family: tuple[Family]
    ) -> None:
        self._recorder = recorder
        self._organization = organization
        self._labels = labels
        self._status_family = status_family
        self.dirty = False
        self.statuses: dict[int, list[int]] = {}

    def _open_status(self, status: int) -> list[int]:
        """The first response with this status."""
        named = status if STATUS_MIN <= status <= STATUS_MAX else STATUS_MAX
        histogram = self.statuses.get(named)
        if histogram is None:
            histogram = self.statuses[named] = self._histogram(self._status_family, {"status": str(named)})
        return histogram

    def _histogram(self, family: tuple[Family], labels: dict[str, str]) -> list[int]:
        place = self._place(family, labels)
        return [*([0] * _COUNTED), place, NONE]

    def _place(self, families: tuple[Family, ...], labels: dict[str, str] | None = None) -> int:
        return self._recorder.place(families, self._organization, {**self._labels, **(labels or {})})

    def _fold_statuses(self, cells: "memoryview[int]") -> None:
        for status, histogram in self.statuses.items():
            if histogram[CHANGED] != NONE:
                if histogram[_PLACE] == UNPLACED:
                    histogram[_PLACE] = self._place(self._status_family, {"status": str(status)})
                _fold_histogram(histogram, cells)

    def mark(self) -> None:
        """It changed for the first time since the last fold: whoever changes `in_flight` by hand calls this."""
        self._recorder.mark(self)

    def fold(self, cells: "memoryview[int]") -> None:
        raise NotImplementedError


def _fold_histogram(histogram: list[int], cells: "memoryview[int]") -> None:
    changed, place = histogram[CHANGED], histogram[_PLACE]
    histogram[CHANGED] = NONE
    if place < 0:
        return
    if changed >= 0:
        cells[place + changed] = histogram[changed]
        cells[place + SUM] = histogram[SUM]
        return
    for value in histogram[:_COUNTED]:
        cells[place] = value
        place += 1


def _empty(histogram: list[int]) -> None:
    histogram[:] = [*([0] * _COUNTED), UNPLACED, NONE]


class EdgeRecorder(_Child):
    """What an app's clients saw at a door."""

    __slots__ = ("_connects", "_disconnects", "_errors", "_traffic", "bytes_in", "bytes_out")

    def __init__(self, recorder: "Recorder", organization: str, labels: dict[str, str]) -> None:
        super().__init__(recorder, organization, labels, _EDGE_TIME)
        self._connects = self._disconnects = self.bytes_in = self.bytes_out = 0
        self._errors: dict[str, list[int]] = {}
        self._traffic = self._place(_EDGE_TRAFFIC)
        self._open_status(200)

    def response(self, status: int, duration_ns: int, bytes_in: int, bytes_out: int) -> None:
        """One request answered, `bytes_in` from the client and `bytes_out` to it, heads included."""
        try:
            histogram = self.statuses[status]
        except KeyError:
            histogram = self._open_status(status)
        bucket = bisect_left(BOUNDS_NS, duration_ns)
        histogram[bucket] += 1
        histogram[SUM] += duration_ns
        if histogram[CHANGED] != bucket:
            histogram[CHANGED] = bucket if histogram[CHANGED] == NONE else SEVERAL
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        if not self.dirty:
            self._recorder.mark(self)

    def exchanged(
        self,
        instance: "InstanceRecorder",
        status: int,
        duration_ns: int,
        instance_ns: int,
        bytes_in: int,
        bytes_out: int,
        to_instance: int,
        from_instance: int,
    ) -> None:
        """A request answered by an instance, from beginning to end: `response` here and there, `transferred` and
        `finished` there, in one call, because most requests end so."""
        instance.in_flight -= 1
        try:
            histogram, other = self.statuses[status], instance.statuses[status]
        except KeyError:
            histogram, other = self._open_status(status), instance._open_status(status)
        bucket = 0 if duration_ns <= _FIRST_NS else bisect_left(BOUNDS_NS, duration_ns)
        histogram[bucket] += 1
        histogram[SUM] += duration_ns
        if histogram[CHANGED] != bucket:
            histogram[CHANGED] = bucket if histogram[CHANGED] == NONE else SEVERAL
        bucket = 0 if instance_ns <= _FIRST_NS else bisect_left(BOUNDS_NS, instance_ns)
        other[bucket] += 1
        other[SUM] += instance_ns
        if other[CHANGED] != bucket:
            other[CHANGED] = bucket if other[CHANGED] == NONE else SEVERAL
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        instance.received += to_instance
        instance.sent += from_instance
        if not self.dirty:
            self._recorder.mark(self)
        if not instance.dirty:
            self._recorder.mark(instance)

    def transferred(self, bytes_in: int, bytes_out: int) -> None:
        """Bytes that belong to no counted response: upgrades, raw TCP, refused heads."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        if not self.dirty:
            self._recorder.mark(self)

    def connected(self) -> None:
        """A client connection turned out to be for this app (its first routed request, or a raw TCP door)."""
        self._connects += 1
        if not self.dirty:
            self._recorder.mark(self)

    def disconnected(self) -> None:
        """Such a connection ended."""
        self._disconnects += 1
        if not self.dirty:
            self._recorder.mark(self)

    def error(self, code: str) -> None:
        """A coded fault; codes are a closed set of the edge's."""
        count = self._errors.get(code)
        if count is None:
            count = self._errors[code] = [0, self._place(_EDGE_ERROR, {"code": code})]
        count[0] += 1
        if not self.dirty:
            self._recorder.mark(self)

    def fold(self, cells: "memoryview[int]") -> None:
        """Copy what changed into the segment (Recorder.fold calls this)."""
        self.dirty = False
        if self._traffic == UNPLACED:
            self._traffic = self._place(_EDGE_TRAFFIC)
        place = self._traffic
        if place >= 0:
            cells[place] = self._connects
            cells[place + 1] = self._disconnects
            cells[place + 2] = self.bytes_in
            cells[place + 3] = self.bytes_out
        if self._errors:
            self._fold_errors(cells)
        self._fold_statuses(cells)

    def _fold_errors(self, cells: "memoryview[int]") -> None:
        for code, count in self._errors.items():
            if count[1] == UNPLACED and count[0]:
                count[1] = self._place(_EDGE_ERROR, {"code": code})
            if count[1] >= 0:
                cells[count[1]] = count[0]

    def move(self) -> None:
        """Start again from 0 in another segment (Recorder.rotate calls this)."""
        self._connects = self._disconnects = self.bytes_in = self.bytes_out = 0
        self._traffic = UNPLACED
        for histogram in self.statuses.values():
            _empty(histogram)
        for count in self._errors.values():
            count[:] = [0, UNPLACED]


class InstanceRecorder(_Child):
    """What the front door saw of one instance."""

    __slots__ = ("_connect_time", "_connects", "_disconnects", "_load", "_net", "in_flight", "received", "sent")

    def __init__(self, recorder: "Recorder", organization: str, labels: dict[str, str]) -> None:
        super().__init__(recorder, organization, labels, _APP_TIME)
        self.in_flight = 0
        """Requests or connections given to the instance and not finished, by this worker."""
        self._connects = self._disconnects = self.received = self.sent = 0
        self._load = self._place(_APP_LOAD)
        self._net = self._place_net()
        self._connect_time = self._histogram(_APP_CONNECT_TIME, {})
        self._open_status(200)

    def started(self) -> None:
        """A request or connection was given to the instance."""
        self.in_flight += 1
        if not self.dirty:
            self._recorder.mark(self)

    def finished(self) -> None:
        """It is over, whichever way."""
        self.in_flight -= 1
        if not self.dirty:
            self._recorder.mark(self)

    def response(self, status: int, duration_ns: int) -> None:
        """The instance answered; `duration_ns` from the request sent to the last byte."""
        try:
            histogram = self.statuses[status]
        except KeyError:
            histogram = self._open_status(status)
        bucket = bisect_left(BOUNDS_NS, duration_ns)
        histogram[bucket] += 1
        histogram[SUM] += duration_ns
        if histogram[CHANGED] != bucket:
            histogram[CHANGED] = bucket if histogram[CHANGED] == NONE else SEVERAL
        if not self.dirty:
            self._recorder.mark(self)

    def transferred(self, to_instance: int, from_instance: int) -> None:
        """Wire bytes, heads included."""
        self.received += to_instance
        self.sent += from_instance
        if not self.dirty:
            self._recorder.mark(self)

    def dialled(self, duration_ns: int) -> None:
        """A connection to the instance was opened."""
        self._connects += 1
        histogram = self._connect_time
        bucket = bisect_left(BOUNDS_NS, duration_ns)
        histogram[bucket] += 1
        histogram[SUM] += duration_ns
        if histogram[CHANGED] != bucket:
            histogram[CHANGED] = bucket if histogram[CHANGED] == NONE else SEVERAL
        if not self.dirty:
            self._recorder.mark(self)

    def hung_up(self) -> None:
        """A connection to the instance ended."""
        self._disconnects += 1
        if not self.dirty:
            self._recorder.mark(self)

    def fold(self, cells: "memoryview[int]") -> None:
        """Copy what changed into the segment (Recorder.fold calls this)."""
        self.dirty = False
        if self._load == UNPLACED:
            self._load, self._net = self._place(_APP_LOAD), self._place_net()
        place = self._load
        if place >= 0:
            cells[place] = self.in_flight
            cells[place + 1] = self._connects
            cells[place + 2] = self._disconnects
        place = self._net
        if place >= 0:
            cells[place] = self.received
            cells[place + 1] = self.sent
        if self._connect_time[CHANGED] != NONE:
            if self._connect_time[_PLACE] == UNPLACED:
                self._connect_time[_PLACE] = self._place(_APP_CONNECT_TIME)
            _fold_histogram(self._connect_time, cells)
        self._fold_statuses(cells)

    def _place_net(self) -> int:
        labels = {name: value for name, value in self._labels.items() if name != "proxy_id"}
        return self._recorder.place(_NET, self._organization, {**labels, "device": PROXY_DEVICE})

    def move(self, old: "memoryview[int]") -> None:
        """Start again from 0 in another segment (Recorder.rotate calls this); what is in flight moves over."""
        if self._load >= 0:
            old[self._load] = 0
        self._connects = self._disconnects = self.received = self.sent = 0
        self._load = self._net = UNPLACED
        _empty(self._connect_time)
        for histogram in self.statuses.values():
            _empty(histogram)
        if self.in_flight and not self.dirty:
            self._recorder.mark(self)


class Recorder:
    """One worker's recorders over one segment."""

    def __init__(self, segment: Segment, *, proxy_id: str) -> None:
        self.on_dirty: Callable[[], None] | None = None
        """Called when something changed for the first time since the last fold; schedules a fold."""
        self._proxy_id = proxy_id
        self._allotment = Allotment(segment)
        self._cells = segment.cells
        self._process = ProcessRecorder(self._allotment)
        self._edges: dict[tuple[str, str, str, str], EdgeRecorder] = {}
        self._instances: dict[tuple[str, str, str, str, str], InstanceRecorder] = {}
        self._dirty: list[_Child] = []

    @property
    def segment(self) -> Segment:
        """Where it counts into now."""
        return self._allotment.segment

    def edge(self, app: str, organization: str, region: str, host: str) -> EdgeRecorder:
        """The recorder of an app at the doors of a region; the same object for the same words, always."""
        key = (app, organization, region, host)
        child = self._edges.get(key)
        if child is None:
            labels = {"app": app, "region": region, "host": host, "proxy_id": self._proxy_id}
            child = self._edges[key] = EdgeRecorder(self, organization, labels)
        return child

    def instance(self, app: str, organization: str, region: str, host: str, instance_id: str) -> InstanceRecorder:
        """The recorder of an instance (`region` and `host` are its own); the same object for the same words."""
        key = (app, organization, region, host, instance_id)
        child = self._instances.get(key)
        if child is None:
            labels = {"app": app, "region": region, "host": host, "instance": instance_id, "proxy_id": self._proxy_id}
            child = self._instances[key] = InstanceRecorder(self, organization, labels)
        return child

    def process(self) -> ProcessRecorder:
        """What the worker counts about itself."""
        return self._process

    def mark(self, child: _Child) -> None:
        """A child changed for the first time since the last fold (children call this)."""
        child.dirty = True
        dirty = self._dirty
        dirty.append(child)
        if len(dirty) == 1 and self.on_dirty is not None:
            self.on_dirty()

    def fold(self) -> None:
        """Copy the children that changed into the segment."""
        dirty = self._dirty
        if dirty:
            self._dirty = []
            cells = self._cells
            for child in dirty:
                child.fold(cells)

    def place(self, families: tuple[Family, ...], organization: str, labels: dict[str, str]) -> int:
        """Cells for a label set (children call this)."""
        return self._allotment.place(families, organization, labels)

    def mostly_gone(self, instances: int) -> bool:
        """Whether a fresh segment is worth the move, when this many instances are still served."""
        return self.segment.fullness > FULL_ENOUGH and len(self._instances) > 2 * instances

    def rotate(self, segment: Segment) -> None:
        """Go on in a fresh segment, so that label sets nobody uses any more end with the old one: the old segment
        is final when this returns, and may be retired. Children stay the same objects; those that nobody but the
        recorder holds are forgotten, as the new segment knows nothing of them."""
        self.fold()
        _busy = [instance for instance in self._instances.values() if instance.in_flight]
        self._edges, self._instances = _held_elsewhere(self._edges), _held_elsewhere(self._instances)
        old = self._cells
        self._allotment.rest()
        self._allotment = Allotment(segment)
        self._cells = segment.cells
        self._process.move(self._allotment)
        for edge in self._edges.values():
            edge.move()
        for instance in self._instances.values():
            instance.move(old)
        self.fold()


def _held_elsewhere(children: dict[_Key, _Kind]) -> dict[_Key, _Kind]:
    """Empties the dictionary; those of its children that are still there."""
    weakly = WeakValueDictionary(children)
    children.clear()
    return dict(weakly)
