"""Which targets are scraped together, and when."""

from itertools import pairwise

import pytest

from flyproxy.scrape.cohorts import COHORT_TARGETS, COHORTS_MAX, Cohort, cohorts_of, next_beat

INTERVAL_MS = 15_000


def offsets(count: int, interval_ms: int = INTERVAL_MS) -> dict[str, int]:
    """The offset of each of so many targets."""
    cohorts = cohorts_of({f"personal/scrape/app{number}/x": str(number) for number in range(count)}, interval_ms)
    return {member: cohort.offset_ms for cohort in cohorts for member in cohort.members}


@pytest.mark.parametrize(
    ("targets", "cohorts"),
    [(1, 1), (COHORT_TARGETS, 1), (COHORT_TARGETS + 1, 2), (100, 4), (1000, COHORTS_MAX), (5000, COHORTS_MAX)],
)
def test_many_targets_are_spread_over_the_interval(targets: int, cohorts: int) -> None:
    found = offsets(targets)
    assert len(found) == targets
    assert len(set(found.values())) == cohorts
    assert all(0 < offset < INTERVAL_MS for offset in found.values())


def test_cohorts_are_about_as_large_as_each_other_and_evenly_spread() -> None:
    found = offsets(1600)
    places = sorted(set(found.values()))
    assert {after - before for before, after in pairwise(places)} == {INTERVAL_MS // COHORTS_MAX}
    sizes = [list(found.values()).count(place) for place in places]
    assert max(sizes) < 2 * min(sizes)


def test_no_beat_falls_on_the_beat_of_the_front_doors_own_counters() -> None:
    for own_ms in (1000, 5000, 15_000):
        assert all(offset % own_ms for offset in offsets(1000).values())


def test_when_there_are_twice_as_many_cohorts_half_of_the_targets_stay() -> None:
    before, after = offsets(COHORT_TARGETS), offsets(COHORT_TARGETS + 1)
    moved = {after[member] - offset for member, offset in before.items()}
    assert moved == {0, INTERVAL_MS // 2}


def test_a_targets_beat_depends_on_its_name_and_not_on_the_order() -> None:
    names = [f"personal/scrape/app{number}/x" for number in range(100)]
    one, other = (cohorts_of({name: name for name in order}, INTERVAL_MS) for order in (names, names[::-1]))
    assert [set(cohort.members) for cohort in one] == [set(cohort.members) for cohort in other]


def test_the_next_beat_is_the_first_one_after() -> None:
    early, late = Cohort(1000, ["a"]), Cohort(8500, ["b"])
    for after_ms, due_ms, cohort in (
        (0, 1000, early),
        (999, 1000, early),
        (1000, 8500, late),
        (8500, 16_000, early),
        (1_700_000_000_000, 1_700_000_003_500, late),
    ):
        assert next_beat([early, late], INTERVAL_MS, after_ms) == (due_ms, [cohort])


def test_an_interval_too_short_to_spread_has_one_beat_for_all() -> None:
    cohorts = [Cohort(0, ["a"]), Cohort(0, ["b"])]
    assert next_beat(cohorts, 1, 7) == (8, cohorts)


def test_without_targets_there_is_a_moment_to_look_again() -> None:
    nobody: list[Cohort[str]] = []
    assert next_beat(nobody, INTERVAL_MS, 5) == (INTERVAL_MS + 5, [])
