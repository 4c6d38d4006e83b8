"""Which targets are scraped together, and when. Pure.

All targets at once would be one burst of connections, pages and rows; each at its own time would be as many time stamp
vectors as targets, and frames that cannot be joined. So targets are dealt into a few cohorts by what they are called,
and the cohorts' beats are spread evenly over the interval. The first lies half of the smallest gap after a multiple of
the interval, since on multiples the front door's own counters are sampled.

The number of cohorts is a power of two: when it doubles, half of the targets keep their beat and the others move by
half a gap; when it halves, likewise.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

COHORTS_MAX = 8
COHORT_TARGETS = 32
"""More targets than this on average, and there are twice as many cohorts."""

Member = TypeVar("Member")


@dataclass(frozen=True, slots=True)
class Cohort(Generic[Member]):
    """Targets with one beat."""

    offset_ms: int
    """From each multiple of the interval to the beat."""
    members: Sequence[Member]


def cohorts_of(targets: Mapping[str, Member], interval_ms: int) -> list[Cohort[Member]]:
    """The cohorts of targets by their names; a target's beat depends on its name and on how many there are."""
    count = 1
    while count < COHORTS_MAX and len(targets) > count * COHORT_TARGETS:
        count *= 2
    first_ms = interval_ms // (2 * COHORTS_MAX)
    members: list[list[Member]] = [[] for _ in range(count)]
    for name, target in targets.items():
        members[_place(name, count)].append(target)
    return [Cohort(first_ms + place * interval_ms // count, found) for place, found in enumerate(members) if found]


def next_beat(cohorts: Sequence[Cohort[Member]], interval_ms: int, after_ms: int) -> tuple[int, list[Cohort[Member]]]:
    """The first beat after this time and whose it is; without cohorts, a moment at which there is nothing to do."""
    due = [
        ((after_ms - cohort.offset_ms) // interval_ms * interval_ms + interval_ms + cohort.offset_ms, cohort)
        for cohort in cohorts
    ]
    due_ms = min((when_ms for when_ms, _ in due), default=after_ms + interval_ms)
    return due_ms, [cohort for when_ms, cohort in due if when_ms == due_ms]


def _place(name: str, count: int) -> int:
    """A fraction of the interval: with twice as many places, the same one or the one behind it."""
    return zlib.crc32(name.encode()) * count >> 32
