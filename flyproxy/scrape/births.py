"""Which counters of a target's first page are known to have begun just now. Pure.

A counter that appears on a later page has begun since the page before, and the store gives it the zero it began with.
Of a first page this is not known: the app, or what it counts, may be years old, and a zero before its 1,000,000 would
show a million events that never happened. Only a counter that says when it was created (`_created`: OpenMetrics 1.0,
and the Python client in text too) can be believed.
"""

from collections.abc import Iterator

import numpy as np

from flyproxy.series.exposition_parser import Page, labels_name
from flyproxy.series.labels import METRIC_NAME, Labels
from flyproxy.series.samples import Bools

CLOCK_SKEW_MS = 1000.0
"""How far ahead an app's clock may be; a counter created later than that proves nothing."""

_CREATED = "_created"
_SUFFIXES = ("_total", "_bucket", "_count", "_sum")
_OF_ONE_FAMILY = (METRIC_NAME, "le", "quantile")
_Family = tuple[str, Labels]


def created_between(page: Page, since_ms: float, until_ms: float) -> Bools:
    """[series of the page] True for the counters that were created in this time, by their own word."""
    born = frozenset(_created(page, since_ms / 1000, (until_ms + CLOCK_SKEW_MS) / 1000))
    proven = np.zeros(len(page.series), np.bool_)
    if born:
        for place in np.flatnonzero(page.counters).tolist():
            proven[place] = _family(page.series[place]) in born
    return proven


def _created(page: Page, since_s: float, until_s: float) -> Iterator[_Family]:
    for place in np.flatnonzero((page.values >= since_s) & (page.values <= until_s)).tolist():
        labels = page.series[place]
        name = labels_name(labels)
        if name.endswith(_CREATED):
            yield name.removesuffix(_CREATED), _rest(labels)


def _family(labels: Labels) -> _Family:
    name = labels_name(labels)
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix), _rest(labels)
    return name, _rest(labels)


def _rest(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in _OF_ONE_FAMILY)
