"""From the series of an app's page to those that are kept. Pure.

Labels that say where a series comes from are forced over whatever the app wrote. Names that are ours are refused, and
of two series that become the same the first is kept. All this is worked out once, and again when the series change.

An app that makes up new label values each time is bounded too: the series it has, and those it had in the last hour,
may be so many; beyond that what is new is left out, and what was there goes on.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flyproxy.series.exposition_parser import Page, labels_name
from flyproxy.series.labels import METRIC_NAME, Labels, labels_from
from flyproxy.series.samples import Layout

REPORT_NAMES = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
"""What every scrape writes about itself; the first rows of each layout."""
SERIES_WINDOW_MS = 3_600_000
"""How long, at most, a series that is gone still counts: all of them are forgotten each time it is over."""
_RESERVED = re.compile(r"fly_.*|flyproxy_.*|scrape_.*|up", re.DOTALL)
Hashes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What becomes of a page's series."""

    layout: Layout
    """The report's series, then those that are kept."""
    kept: npt.NDArray[np.int64]
    """[kept] their places in the page."""
    added: int
    """Series that were not in the layout before."""
    refused: int
    """Series whose names are ours."""
    duplicates: int
    """Series that another one of this page already is."""
    beyond: int = 0
    """New series there was no room for."""


class Labelling:
    """Keeps the last answer, so that the layout is the same object as long as the page's series are."""

    def __init__(self, forced: Mapping[str, str], series_max: int) -> None:
        self.series_max = series_max
        """May be changed between two pages."""
        self._forced = tuple(forced.items())
        self._names = frozenset(forced)
        self.report = tuple(labels_from({METRIC_NAME: name, **forced}) for name in REPORT_NAMES)
        self._series: tuple[Labels, ...] | None = None
        self._known: dict[Labels, Labels | None] = {}
        self._gone: Hashes = np.zeros(0, np.int64)
        self._gone_since_ms = 0
        self._labelled = Labelled(
            Layout(self.report, np.zeros(len(self.report), np.bool_)), np.zeros(0, np.int64), 0, 0, 0
        )

    @property
    def layout(self) -> Layout:
        """The last one; the report alone before the first page."""
        return self._labelled.layout

    def of(self, page: Page, now_ms: int) -> Labelled:
        """What becomes of this page's series; `added` counts only in the answer that is new."""
        if not 0 <= now_ms - self._gone_since_ms < SERIES_WINDOW_MS:
            self._gone, self._gone_since_ms = np.zeros(0, np.int64), now_ms
        if page.series is not self._series or self._labelled.beyond:
            self._labelled = self._worked_out(page)
            self._series = page.series
        elif self._labelled.added:
            self._labelled = replace(self._labelled, added=0)
        return self._labelled

    def _worked_out(self, page: Page) -> Labelled:
        known: dict[Labels, Labels | None] = {}
        places: dict[Labels, int] = {}
        refused = duplicates = 0
        for place, raw in enumerate(page.series):
            labels = self._known[raw] if raw in self._known else self._forced_over(raw)
            known[raw] = labels
            if labels is None:
                refused += 1
            elif labels in places:
                duplicates += 1
            else:
                places[labels] = place
        self._known = known
        added, beyond = self._leave_out(places)
        kept = np.fromiter(places.values(), np.int64, len(places))
        counters = np.concatenate((np.zeros(len(self.report), np.bool_), page.counters[kept]))
        layout = Layout((*self.report, *places), counters)
        if layout.series == self.layout.series and np.array_equal(counters, self.layout.counters):
            layout = self.layout
        return Labelled(layout, kept, added, refused, duplicates, beyond)

    def _leave_out(self, places: dict[Labels, int]) -> tuple[int, int]:
        """(series that were not there before, new ones taken out again because there is no room for them)."""
        before = dict.fromkeys(self.layout.series[len(self.report) :])
        fresh = [labels for labels in places if labels not in before]
        hashes = _hashes(fresh)
        back = np.isin(hashes, self._gone)
        room = max(0, self.series_max - len(before) - self._gone.size)
        beyond = np.flatnonzero(~back)[room:].tolist()
        for place in beyond:
            del places[fresh[place]]
        left = _hashes([labels for labels in before if labels not in places])
        if left.size or back.any():
            self._gone = np.union1d(np.setdiff1d(self._gone, hashes[back], assume_unique=True), left)
        return len(fresh) - len(beyond), len(beyond)

    def _forced_over(self, raw: Labels) -> Labels | None:
        """None: the name is ours."""
        if is_reserved(labels_name(raw)):
            return None
        return tuple(sorted([*(pair for pair in raw if pair[0] not in self._names), *self._forced]))


def is_reserved(name: str) -> bool:
    """Whether a metric's name is ours, and no app's to write or to describe."""
    return _RESERVED.fullmatch(name) is not None


def _hashes(series: Sequence[Labels]) -> Hashes:
    """[series] What is remembered of a series that is gone: 8 bytes."""
    return np.fromiter((hash(labels) for labels in series), np.int64, len(series))
