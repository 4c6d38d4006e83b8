"""A ratio is of one round, and its interval is an honest one."""

import random

import pytest

from bench.edge.ratios import interval, paired


def test_a_ratio_is_taken_within_its_round() -> None:
    assert paired([2.0, 40.0], [1.0, 10.0]) == [2.0, 4.0]
    with pytest.raises(ValueError):
        paired([1.0], [1.0, 2.0])


def test_what_slows_both_sides_of_a_round_changes_nothing() -> None:
    haproxy = [10.0, 30.0, 11.0, 10.5, 12.0, 10.0, 19.0]
    flyproxy = [1.3 * one for one in haproxy]
    found = interval(paired(flyproxy, haproxy))
    assert found.low == pytest.approx(1.3)
    assert found.high == pytest.approx(1.3)


def test_seven_rounds_lie_between_the_smallest_and_the_largest() -> None:
    found = interval([1.3, 1.1, 1.2, 1.7, 1.4, 1.5, 1.6])
    assert (found.median, found.low, found.high) == (1.4, 1.1, 1.7)
    assert found.confidence == pytest.approx(1 - 2 / 2**7)


def test_of_nine_rounds_one_that_was_disturbed_moves_nothing() -> None:
    quiet = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8]
    disturbed = [*quiet[:-1], 99.0]
    assert interval(disturbed).high == interval(quiet).high == 1.7
    assert interval(quiet).low == 1.1
    assert interval(quiet).confidence >= 0.95


def test_too_few_rounds_say_how_little_they_are_sure() -> None:
    assert interval([1.0]).confidence == 0.0
    assert interval([1.0, 2.0]).confidence == 0.5
    assert (interval([1.0, 2.0]).low, interval([1.0, 2.0]).high) == (1.0, 2.0)


@pytest.mark.parametrize("rounds", [7, 9, 12, 25])
def test_the_interval_holds_the_true_median_as_often_as_it_says(rounds: int) -> None:
    chance = random.Random(rounds)
    tries = 4000
    held = 0
    for _ in range(tries):
        found = interval([chance.lognormvariate(0.0, 0.3) for _ in range(rounds)])
        held += found.low <= 1.0 <= found.high
    assert held / tries == pytest.approx(interval([0.0] * rounds).confidence, abs=0.02)
