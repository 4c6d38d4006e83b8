"""The regions that are known without being told, and how far apart two places are."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources

from flyproxy.config.resolved import Region

LOCAL = "local"
"""The region of a front door that was not told where it stands. It has no position unless the configuration gives
it one: as seen from it, and to it, every other region is equally (and farthest) away."""

ALIASES = frozenset({"any", "apac", "eu", "na", "sa", "us", "usa"})
"""What Fly's routing headers call groups of regions; no region may be named so."""

EARTH_RADIUS_KM = 6371.0088
FARTHEST_KM = math.pi * EARTH_RADIUS_KM


@cache
def shipped_regions() -> tuple[Region, ...]:
    """The 36 regions of the package data, by key."""
    text = resources.files("flyproxy.config").joinpath("regions.json").read_text(encoding="utf-8")
    return tuple(Region(**row) for row in json.loads(text))


@cache
def shipped_keys() -> frozenset[str]:
    """The keys of the shipped regions."""
    return frozenset(region.key for region in shipped_regions())


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Great-circle distance of two (latitude, longitude) in degrees, by the haversine formula, kilometres."""
    latitude_1, longitude_1 = map(math.radians, one)
    latitude_2, longitude_2 = map(math.radians, other)
    half = (
        math.sin((latitude_2 - latitude_1) / 2) ** 2
        + math.cos(latitude_1) * math.cos(latitude_2) * math.sin((longitude_2 - longitude_1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))


def region_distance_km(one: str, other: str, positions: dict[str, tuple[float, float]]) -> float:
    """Distance of two regions by key: 0 to itself; FARTHEST_KM where a position is unknown (`local`)."""
    if one == other:
        return 0.0
    if one not in positions or other not in positions:
        return FARTHEST_KM
    return distance_km(positions[one], positions[other])
