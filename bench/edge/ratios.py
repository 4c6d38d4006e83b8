"""What paired rounds say: the median of the ratios, and between which two of them it lies (pure).

Peers are measured in turns, so both sides of a ratio saw the same minute of the same machine; what drifts from round to
round cancels. The interval asks nothing of how ratios are spread: the true median lies between the k-th smallest and
the k-th largest of n unless all but k - 1 of them fell on one side of it, which coins would do with a chance that is
counted here (the binomial interval of a median). Seven rounds: the smallest and the largest, 98 %. Nine: the second
smallest and second largest, 96 %; one round that was disturbed then moves nothing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and where it lies."""

    median: float
    low: float
    high: float
    confidence: float
    """How sure `low` to `high` holds the true median; below CONFIDENCE when there were too few rounds."""


def verdict(low: float, high: float, at_most: float) -> str:
    """Whether a figure that lies between these was to be at most so much: "undecided" when the bound lies between."""
    return "met" if high <= at_most else "not met" if low > at_most else "undecided"


def paired(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [one / other for one, other in zip(of, to, strict=True)]


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median of some rounds (one at least), and the narrowest pair of them that holds it so surely."""
    ordered = sorted(values)
    count = len(ordered)
    cut = 0
    while cut + 1 < (count + 1) // 2 and _sure(count, cut + 1) >= confidence:
        cut += 1
    return Interval(statistics.median(ordered), ordered[cut], ordered[count - 1 - cut], _sure(count, cut))


def _sure(count: int, cut: int) -> float:
    """How likely the median of many lies within `count` of them without the `cut` smallest and largest."""
    outside = sum(comb(count, missed) for missed in range(cut + 1))
    return 1 - 2 * outside / float(2**count)
