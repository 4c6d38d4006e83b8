# cython: language_level=3, boundscheck=False, wraparound=False
"""EdgeRecorder.exchanged once more, typed: the same lists of the same recorders, without the interpreter.

A test counts the same exchanges both ways and compares every number.
"""

from flyproxy.instrument import recorder as plain

cdef enum:
    BOUNDS_MAX = 32

cdef long long BOUNDS_NS[BOUNDS_MAX]
cdef Py_ssize_t BOUNDS = len(plain.BOUNDS_NS), SUM = plain.SUM, CHANGED = plain.CHANGED
cdef object _NONE = plain.NONE, _SEVERAL = plain.SEVERAL
assert BOUNDS <= BOUNDS_MAX
for _number in range(BOUNDS):
    BOUNDS_NS[_number] = plain.BOUNDS_NS[_number]


cdef inline void _observe(list histogram, long long duration_ns):
    cdef Py_ssize_t bucket = 0
    while bucket < BOUNDS and BOUNDS_NS[bucket] < duration_ns:
        bucket += 1
    histogram[bucket] = histogram[bucket] + 1
    histogram[SUM] = histogram[SUM] + duration_ns
    if histogram[CHANGED] != bucket:
        histogram[CHANGED] = bucket if histogram[CHANGED] == _NONE else _SEVERAL


cpdef bint exchanged(
    object edge, object instance, object status, long long duration_ns, long long instance_ns, object bytes_in,
    object bytes_out, object to_instance, object from_instance,
):
    """As EdgeRecorder.exchanged; False: this status is new to one of the two, and nothing was counted."""
    cdef list histogram = (<dict>edge.statuses).get(status)
    cdef list other = (<dict>instance.statuses).get(status)
    if histogram is None or other is None:
        return False
    instance.in_flight = instance.in_flight - 1
    _observe(histogram, duration_ns)
    _observe(other, instance_ns)
    edge.bytes_in = edge.bytes_in + bytes_in
    edge.bytes_out = edge.bytes_out + bytes_out
    instance.received = instance.received + to_instance
    instance.sent = instance.sent + from_instance
    if not edge.dirty:
        edge.mark()
    if not instance.dirty:
        instance.mark()
    return True
