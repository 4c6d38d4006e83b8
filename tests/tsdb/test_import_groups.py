"""Series that were sampled together share a frame, whatever they miss."""

import numpy as np

from flyproxy.tsdb.import_groups import groups_of


def grouped(*series: list[int]) -> list[tuple[list[int], list[int]]]:
    """(series, times) of every group."""
    numbers = np.repeat(np.arange(len(series)), [len(times) for times in series])
    times = np.array([time for each in series for time in each], dtype=np.int64)
    return [(group.series, group.times_ms.tolist()) for group in groups_of(numbers, times)]


def test_the_same_time_stamps_are_one_group() -> None:
    assert grouped([1, 2, 3], [1, 2, 3]) == [([0, 1], [1, 2, 3])]


def test_who_came_later_went_earlier_or_missed_a_beat_belongs_to_it() -> None:
    assert grouped([4, 5], [1, 2, 3, 4, 5], [1, 2], [1, 3, 5], [5]) == [([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])]


def test_who_followed_belongs_to_it_when_half_its_beats_are_shared() -> None:
    assert grouped([1, 2, 3, 4], [3, 4, 5, 6]) == [([0, 1], [1, 2, 3, 4, 5, 6])]


def test_targets_with_beats_of_their_own_are_groups_of_their_own() -> None:
    one, other = list(range(0, 1000, 10)), list(range(3, 1003, 10))
    assert grouped(one, other, other[50:], one[:7]) == [([0, 3], one), ([1, 2], other)]


def test_a_coincidence_does_not_join_two_targets() -> None:
    assert grouped([1, 2, 3, 4], [4, 11, 12, 13]) == [([0], [1, 2, 3, 4]), ([1], [4, 11, 12, 13])]


def test_nothing_makes_no_group() -> None:
    assert grouped() == []


def test_many_targets_under_churn_stay_few_groups() -> None:
    dice = np.random.default_rng(1)
    series = []
    for target in range(20):
        beats = list(range(target * 37, 100_000, 1500))
        for _ in range(20):
            born, gone = sorted(dice.integers(0, len(beats), 2))
            series.append(beats[born : gone + 1])
        series.append(beats)
    assert len(grouped(*series)) == 20
