"""The shipped regions, and distances."""

import pytest

from flyproxy.config.regions import (
    ALIASES,
    FARTHEST_KM,
    LOCAL,
    distance_km,
    region_distance_km,
    shipped_keys,
    shipped_regions,
)

POSITIONS = {region.key: (region.latitude, region.longitude) for region in shipped_regions()}


def test_thirty_six_regions_each_once_in_the_order_of_their_keys() -> None:
    keys = [region.key for region in shipped_regions()]
    assert len(keys) == 36
    assert keys == sorted(set(keys))
    assert shipped_keys() == set(keys)
    assert not shipped_keys() & {LOCAL, *ALIASES}


def test_every_region_has_a_place_a_name_and_a_continent() -> None:
    for region in shipped_regions():
        assert -90 <= region.latitude <= 90
        assert -180 <= region.longitude <= 180
        assert region.name
        assert region.geo_region in {"africa", "asia_pacific", "europe", "north_america", "south_america"}


@pytest.mark.parametrize(
    ("one", "other", "kilometres"),
    [("lhr", "cdg", 343), ("ord", "fra", 6970), ("syd", "scl", 11360), ("sjc", "nrt", 8280)],
)
def test_distances_are_those_of_a_globe(one: str, other: str, kilometres: float) -> None:
    assert region_distance_km(one, other, POSITIONS) == pytest.approx(kilometres, rel=0.01)
    assert region_distance_km(one, other, POSITIONS) == region_distance_km(other, one, POSITIONS)


def test_the_date_line_and_the_poles_are_no_walls() -> None:
    assert distance_km((0, 179.5), (0, -179.5)) == pytest.approx(111.2, rel=0.01)
    assert distance_km((90, 0), (90, 123)) == pytest.approx(0, abs=1e-6)
    assert distance_km((90, 0), (-90, 0)) == pytest.approx(FARTHEST_KM)


def test_a_region_without_a_position_is_farthest_from_all_but_itself() -> None:
    assert region_distance_km(LOCAL, LOCAL, POSITIONS) == 0
    assert region_distance_km(LOCAL, "ord", POSITIONS) == FARTHEST_KM
    assert region_distance_km("ord", LOCAL, POSITIONS) == FARTHEST_KM
