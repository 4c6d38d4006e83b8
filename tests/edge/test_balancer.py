from collections import Counter
from random import Random

import pytest

from flyproxy.edge.balancer import by_distance, choose, great_circle_km

POSITIONS = {"ord": (41.9, -87.6), "iad": (39.0, -77.5), "fra": (50.1, 8.7), "syd": (-33.9, 151.2)}


class One:
    def __init__(self, name: str, load: int = 0) -> None:
        self.name = name
        self.load = load


def names(tiers: tuple[tuple[One, ...], ...]) -> list[list[str]]:
    return [[one.name for one in tier] for tier in tiers]


def test_distance_is_measured_along_the_earth() -> None:
    assert great_circle_km(POSITIONS["ord"], POSITIONS["iad"]) == pytest.approx(911, abs=15)
    assert great_circle_km(POSITIONS["fra"], POSITIONS["syd"]) == pytest.approx(16_480, abs=60)
    assert great_circle_km((0.0, 179.5), (0.0, -179.5)) == pytest.approx(111, abs=1)


def test_the_doors_own_region_comes_first_then_from_near_to_far_and_only_regions_with_instances() -> None:
    instances = [("syd", One("s")), ("fra", One("f")), ("iad", One("i1")), ("iad", One("i2"))]
    assert names(by_distance(instances, "ord", POSITIONS)) == [["i1", "i2"], ["f"], ["s"]]
    assert names(by_distance(instances, "fra", POSITIONS)) == [["f"], ["i1", "i2"], ["s"]]


def test_unknown_regions_come_last_in_order_of_name() -> None:
    instances = [("zzz", One("z")), ("abc", One("a")), ("syd", One("s"))]
    assert names(by_distance(instances, "ord", POSITIONS)) == [["s"], ["a"], ["z"]]
    assert names(by_distance(instances, "zzz", POSITIONS)) == [["z"], ["a"], ["s"]]


def test_of_two_the_less_loaded_is_always_taken() -> None:
    busy, idle = One("busy", 5), One("idle", 1)
    random = Random(1).random
    assert {choose([[busy, idle]], (), random) for _ in range(50)} == {idle}


def test_the_most_loaded_of_many_is_never_taken_and_equals_share_evenly() -> None:
    worst, *others = [One("worst", 9), *(One(str(n), 1) for n in range(4))]
    random = Random(2).random
    taken = Counter(choose([[worst, *others]], (), random) for _ in range(4000))
    assert worst not in taken
    assert all(abs(taken[one] - 1000) < 150 for one in others)


def test_tried_instances_are_left_out_and_the_next_region_serves_when_none_is_left() -> None:
    a, b, far = One("a"), One("b"), One("far")
    random = Random(3).random
    assert choose([[a, b], [far]], (a,), random) is b
    assert choose([[a, b], [far]], (a, b), random) is far
    assert choose([[a, b], [far]], (a, b, far), random) is None
    assert choose([], (), random) is None
