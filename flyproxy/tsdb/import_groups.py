"""Which series of imported text become one frame: those that were sampled together.

Series with the same time stamps share a frame. So do a series that came later, went earlier or has gaps and the ones
it was scraped with: a set of time stamps joins the group that has at least half of them already. Taking the longest
sets first makes every target's full beat the beginning of a group. Worst case, sets that share nothing: a group each.

Pure; works on distinct sets of time stamps, so the cost is in proportion to the samples.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from flyproxy.series.frame import Times

Numbers = npt.NDArray[np.int64]

_UNOWNED = -1
_SHARE_OWNED = 0.5
"""So much of a set's time stamps must be the group's."""


@dataclass(slots=True, eq=False)
class Group:
    """Series that share a frame."""

    series: list[int] = field(default_factory=list)
    """Their numbers."""
    times_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))
    """All their time stamps, ascending."""


def groups_of(series: Numbers, times_ms: Times) -> list[Group]:
    """The groups of these samples, which are sorted by series, then by time, without a time twice in a series."""
    if not series.size:
        return []
    moments = np.unique(times_ms)
    owner = np.full(moments.size, _UNOWNED, np.int64)
    found: list[Group] = []
    members: list[list[Times]] = []
    for times, numbers in _distinct(series, times_ms):
        places = np.searchsorted(moments, times)
        owners = owner[places]
        group = _majority(owners)
        if group == _UNOWNED:
            group = len(found)
            found.append(Group())
            members.append([])
        owner[places[owners == _UNOWNED]] = group
        found[group].series += numbers
        members[group].append(times)
    for each, sets in zip(found, members, strict=True):
        each.series.sort()
        each.times_ms = sets[0] if len(sets) == 1 else np.unique(np.concatenate(sets))
    return found


def _distinct(series: Numbers, times_ms: Times) -> list[tuple[Times, list[int]]]:
    """Every distinct set of time stamps with the series that have it, the longest first, then the earliest."""
    begins = np.flatnonzero(np.concatenate([[True], series[1:] != series[:-1]]))
    sets: dict[bytes, tuple[Times, list[int]]] = {}
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), series.size], strict=True):
        times = times_ms[begin:end]
        key = blake2b(times.tobytes(), digest_size=16).digest()
        sets.setdefault(key, (times, []))[1].append(int(series[begin]))
    return sorted(sets.values(), key=lambda each: (-each[0].size, int(each[0][0]), each[1][0]))


def _majority(owners: Numbers) -> int:
    """The group that owns enough of these time stamps; _UNOWNED when none does."""
    owned = owners[owners != _UNOWNED]
    if owned.size < _SHARE_OWNED * owners.size:
        return _UNOWNED
    counts = np.bincount(owned)
    largest = int(np.argmax(counts))
    return largest if counts[largest] >= _SHARE_OWNED * owners.size else _UNOWNED
