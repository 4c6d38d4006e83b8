"""Which metric names make a family of OpenMetrics, and what type it can be given.

The store keeps no types: they come from whoever knows the names (`types`), else from how a name ends. Two traps of
OpenMetrics 1.0: a counter's samples must end in `_total` and its family must not, so Fly's counters are `unknown`; and
a family's name may stand only once, so where a typed family would take the name of another metric it is given up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_OF_HISTOGRAM = ("_bucket", "_count", "_sum")
_TOTAL = "_total"


@dataclass(frozen=True, slots=True)
class NamedFamily:
    """A family and the metric names of its samples, sorted."""

    name: str
    type: str
    """counter, gauge, histogram or unknown."""
    metrics: tuple[str, ...]


def families_of(names: Sequence[str], types: Mapping[str, str]) -> list[NamedFamily]:
    """All names in families, sorted by family. `types`: what is known of a family (counter, gauge, histogram), by its
    name as in the text format 0.0.4."""
    found: dict[str, tuple[str, list[str]]] = {}
    everyone = frozenset(names)
    for name in sorted(everyone):
        family, kind = _family(name, everyone, types)
        found.setdefault(family, (kind, []))[1].append(name)
    taken: list[NamedFamily] = []
    for family, (kind, metrics) in found.items():
        clashes = len({_family(name, everyone, types) for name in metrics}) > 1 or (
            kind in ("counter", "histogram") and family in everyone
        )
        if clashes:
            taken += [NamedFamily(name, "unknown", (name,)) for name in metrics]
        else:
            taken.append(NamedFamily(family, kind, tuple(metrics)))
    return sorted(taken, key=lambda each: each.name)


def _family(name: str, everyone: frozenset[str], types: Mapping[str, str]) -> tuple[str, str]:
    known = types.get(name)
    if known == "gauge":
        return name, "gauge"
    if known is None:
        for suffix in _OF_HISTOGRAM:
            base = name.removesuffix(suffix)
            if base not in ("", name) and (types.get(base) == "histogram" or f"{base}_bucket" in everyone):
                return base, "histogram"
    if name.endswith(_TOTAL) and name != _TOTAL:
        return name.removesuffix(_TOTAL), "counter"
    return name, "unknown"
