"""From the series of an app's page to those that are kept. Pure.

Labels that say where a series comes from are forced over whatever the app wrote. Names that are ours are refused, and
of two series that become the same the first is kept. All this is worked out once, and again when the series change.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
_RESERVED = re.compile(r"fly_.*|flyproxy_.*|scrape_.*|up", re.DOTALL)


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


class Labelling:
    """Keeps the last answer, so that the layout is the same object as long as the page's series are."""

    def __init__(self, forced: Mapping[str, str]) -> None:
        self._forced = dict(forced)
        self.report = tuple(labels_from({METRIC_NAME: name, **self._forced}) for name in REPORT_NAMES)
        self._series: tuple[Labels, ...] | None = None
        self._known: dict[Labels, Labels | None] = {}
        self._labelled = Labelled(
            Layout(self.report, np.zeros(len(self.report), np.bool_)), np.zeros(0, np.int64), 0, 0, 0
        )

    @property
    def layout(self) -> Layout:
        """The last one; the report alone before the first page."""
        return self._labelled.layout

    def of(self, page: Page) -> Labelled:
        """What becomes of this page's series; `added` counts only in the answer that is new."""
        if page.series is not self._series:
            self._labelled = self._worked_out(page)
            self._series = page.series
            return self._labelled
        if self._labelled.added:
            self._labelled = Labelled(
                self._labelled.layout, self._labelled.kept, 0, self._labelled.refused, self._labelled.duplicates
            )
        return self._labelled

    def _worked_out(self, page: Page) -> Labelled:
        before = frozenset(self.layout.series)
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
        kept = np.fromiter(places.values(), np.int64, len(places))
        counters = np.concatenate((np.zeros(len(self.report), np.bool_), page.counters[kept]))
        return Labelled(
            layout=Layout((*self.report, *places), counters),
            kept=kept,
            added=sum(labels not in before for labels in places),
            refused=refused,
            duplicates=duplicates,
        )

    def _forced_over(self, raw: Labels) -> Labels | None:
        """None: the name is ours."""
        if _RESERVED.fullmatch(labels_name(raw)):
            return None
        return labels_from({**dict(raw), **self._forced})
