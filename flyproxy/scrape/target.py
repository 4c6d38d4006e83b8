"""One target: fetch its page, make it a batch, and say how it went.

A page becomes one batch: the report (`up`, `scrape_*`) and the app's series. Series that are no longer on the page are
no longer in the layout, which ends them in the store. A scrape that fails writes `up` 0 and ends all of the app's
series by stale markers; while it goes on failing it says nothing about them.

On a target's first page only counters that say they are new are called counters to the store (births.py has the why);
from the second page on all are.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import aiohttp
import numpy as np

from flyproxy.clock import Clock
from flyproxy.config.resolved import ScrapeLimits
from flyproxy.discovery.static import Target, endpoints_of
from flyproxy.scrape.births import created_between
from flyproxy.scrape.faults import FetchError
from flyproxy.scrape.fetch import Fetched, fetch
from flyproxy.scrape.labelling import REPORT_NAMES, Labelled, Labelling, is_reserved
from flyproxy.scrape.large_pages import LargePages
from flyproxy.series.exposition_parser import Bounds, ExpositionError, ExpositionLimitError, Page, Reader
from flyproxy.series.frame import ABSENT_BITS, STALE_BITS
from flyproxy.series.metadata import Metadata
from flyproxy.series.samples import Batch, Floats, Layout

INLINE_BYTES = 64 * 1024
"""A page larger than this is read on a thread, so that the loop goes on answering."""
SCRAPE_TIMEOUT_S = 10.0
"""Of one scrape, connecting included; less when the interval is short."""
TIMEOUT_SHARE = 0.9
"""Of the interval, at most: the next scrape must not find this one still waiting."""
ALIGN_MS = 2
ALIGN_SHARE = 0.02
"""Of the interval. A scrape that begins so late (or ALIGN_MS) is stamped with its beat's time, which all targets of a
cohort share; a later one with its own, since its samples are not of the beat any more."""

_LOG = logging.getLogger("flyproxy.scrape")
_REPORT = len(REPORT_NAMES)
_LIMITS = {
    "samples": "scrape_samples",
    "lines": "scrape_lines",
    "labels": "scrape_labels",
    "label_name_characters": "scrape_labels",
    "label_value_characters": "scrape_labels",
}
"""A page's bounds by the names they are counted under."""


class OwnCounts(Protocol):
    """Where a front door counts what happens to itself."""

    def limit_reached(self, limit: str, times: int = 1) -> None: ...

    def count(self, name: str, amount: int = 1, **labels: str) -> None: ...

    def set(self, name: str, value: int, **labels: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TargetState:
    """What `targets` shows of one target."""

    organization: str
    app: str
    instance: str
    region: str
    url: str
    health: str
    """"up", "down", or "unknown" before the first scrape."""
    since_ms: int
    """When it became so."""
    last_scrape_ms: int | None = None
    duration_s: float = 0.0
    samples: int = 0
    """On the last page."""
    refused: int = 0
    """Of them, left out because their names are ours."""
    duplicates: int = 0
    """Of them, left out because another one is the same once the labels are forced."""
    beyond: int = 0
    """Of them, left out because there are too many new series (scrape_limits.series)."""
    last_error: str = ""
    last_warning: str = ""
    """Why samples of a page that was read are left out."""
    labels: tuple[tuple[str, str], ...] = ()
    """What is forced on every series, `up` among them."""
    interval_s: float = 0.0
    timeout_s: float = 0.0


class ScrapeTarget:
    """The state of one target between its scrapes."""

    def __init__(self, target: Target, clock: Clock, own: OwnCounts, pages: LargePages) -> None:
        self.target = target
        self.name = target_name(target)
        self.ended = False
        self.busy = False
        """Its last batch is not handed over yet (the manager's word)."""
        self.zeros: Batch | None = None
        """With the first page: the row one beat earlier, in which counters that began since were still 0."""
        self.metadata: Mapping[str, Metadata] = {}
        """What its last page said about its metrics."""
        self._clock = clock
        self._own = own
        self._pages = pages
        self._limits = ScrapeLimits()
        self._reader = Reader(_bounds(self._limits))
        forced = forced_labels(target)
        self._labelling = Labelling(forced, self._limits.series)
        self._layout = self._labelling.layout
        """The last batch's. (The labelling's may be ahead: a page may be read while this target ends.)"""
        self._last_ms = 0
        self._live = False
        """The app's series of the last layout have not ended."""
        self._paged = False
        """There was a page."""
        self._down_since_ms: int | None = None
        """The first scrape, where that failed."""
        self.state = TargetState(
            organization=target.app.organization,
            app=target.app.name,
            instance=target.instance.id,
            region=target.instance.region,
            url=target.url,
            health="unknown",
            since_ms=clock.now_ms(),
            labels=tuple(forced.items()),
        )

    def adjust(self, interval_ms: int, limits: ScrapeLimits) -> None:
        """Settings that may change between two scrapes."""
        interval_s = interval_ms / 1000
        timeout_s = min(SCRAPE_TIMEOUT_S, round(interval_s * TIMEOUT_SHARE, 3))
        self.state = replace(self.state, interval_s=interval_s, timeout_s=timeout_s)
        self._limits = limits
        self._reader.bounds = _bounds(limits)
        self._labelling.series_max = limits.series

    async def scrape(self, session: aiohttp.ClientSession, beat_ms: int) -> Batch:
        """One scrape of the beat of this time; a failed one is a batch too."""
        begun_ns = self._clock.monotonic_ns()
        interval_ms = round(self.state.interval_s * 1000)
        begun_ms = self._clock.now_ms()
        late = begun_ms - beat_ms > max(ALIGN_MS, interval_ms * ALIGN_SHARE)
        self._last_ms = begun_ms if late else beat_ms
        self.zeros = None
        read: tuple[Page, Labelled] | None = None
        fault = ""
        samples = 0
        try:
            read = await self._fetch_and_read(session)
        except FetchError as error:
            fault = str(error)
            if error.limit:
                self._own.limit_reached(error.limit)
        except ExpositionLimitError as error:
            fault = f"{error} (scrape_limits.{error.limit})"
            samples = error.samples
            self._own.limit_reached(_LIMITS[error.limit])
        except ExpositionError as error:
            fault = str(error)
        except Exception as error:
            _LOG.exception("scraping %s failed", self.name)
            fault = f"a mistake of the front door's own ({type(error).__name__}), which its log tells more of"
        duration_s = (self._clock.monotonic_ns() - begun_ns) / 1e9
        if read is None:
            if not self._paged and self._down_since_ms is None:
                self._down_since_ms = self._last_ms
            return self._batch(self._failed(fault, duration_s, samples), interval_ms)
        page, labelled = read
        self.metadata = page.metadata
        batch = self._batch(self._succeeded(page, labelled, duration_s), interval_ms)
        if self._paged:
            return batch
        self._paged = True
        return self._first(batch, page, labelled)

    async def _fetch_and_read(self, session: aiohttp.ClientSession) -> tuple[Page, Labelled]:
        place = self._pages.place(trusted=self.trusted)
        try:
            fetched = await fetch(session, self.target.url, self.state.timeout_s, self._limits.body_bytes, place)
            if len(fetched.body) > INLINE_BYTES:
                return await self._pages.read(lambda: self._read(fetched))
            return self._read(fetched)
        finally:
            place.leave()

    @property
    def trusted(self) -> bool:
        """Its last scrape went well."""
        return self.state.health == "up"

    def _read(self, fetched: Fetched) -> tuple[Page, Labelled]:
        page = self._reader.read(fetched.body, openmetrics=fetched.openmetrics)
        return page, self._labelling.of(page, self._clock.now_ms())

    def _first(self, batch: Batch, page: Page, labelled: Labelled) -> Batch:
        """The first page's batch, with births only where they are proven. Where the store has no row of this target
        yet, which it would put the zeros into, they go into one of their own."""
        before_ms = batch.timestamp_ms - batch.interval_ms
        since_ms = before_ms if self._down_since_ms is None else self._down_since_ms
        proven = np.zeros(len(batch.layout.series), np.bool_)
        proven[_REPORT:] = created_between(page, since_ms, batch.timestamp_ms)[labelled.kept]
        if np.array_equal(proven, batch.layout.counters):
            first = batch
        else:
            first = replace(batch, layout=Layout(batch.layout.series, proven))
        if self._down_since_ms is None and proven.any():
            bits = np.full(proven.size, ABSENT_BITS, np.uint64)
            bits[proven] = 0
            self.zeros = replace(first, timestamp_ms=before_ms, values=bits.view(np.float64))
        return first

    def end(self, now_ms: int, interval_ms: int) -> Batch | None:
        """The last batch: everything ends, the report too. None when there never was one."""
        self.ended = True
        if self.state.last_scrape_ms is None:
            return None
        self._last_ms = max(now_ms, self._last_ms + 1)
        bits = np.full(len(self._layout.series), STALE_BITS, np.uint64)
        if not self._live:
            bits[_REPORT:] = ABSENT_BITS
        return self._batch(bits.view(np.float64), interval_ms)

    def _succeeded(self, page: Page, labelled: Labelled, duration_s: float) -> Floats:
        kept = len(labelled.kept)
        values = np.empty(_REPORT + kept)
        values[:_REPORT] = (1.0, duration_s, len(page.values), kept, labelled.added)
        values[_REPORT:] = page.values[labelled.kept]
        self._layout = labelled.layout
        self._live = True
        refused = {
            "reserved_name": labelled.refused,
            "duplicate": labelled.duplicates,
            "series_limit": labelled.beyond,
        }
        for reason, times in refused.items():
            if times:
                self._own.count("flyproxy_scrape_samples_refused_total", times, reason=reason)
        if labelled.beyond:
            self._own.limit_reached("scrape_series")
        self._note("up", duration_s)
        self.state = replace(
            self.state,
            samples=len(page.values),
            refused=labelled.refused,
            duplicates=labelled.duplicates,
            beyond=labelled.beyond,
            last_warning=self._warning(labelled),
        )
        return values

    def _warning(self, labelled: Labelled) -> str:
        said = (
            (labelled.refused, "their names begin with fly_, flyproxy_ or scrape_, or are up"),
            (labelled.duplicates, "another one is the same series"),
            (labelled.beyond, f"new series beyond the {self._limits.series} an hour of scrape_limits.series"),
        )
        return "; ".join(f"{times} samples left out: {why}" for times, why in said if times)

    def _failed(self, fault: str, duration_s: float, samples: int) -> Floats:
        bits = np.full(len(self._layout.series), STALE_BITS if self._live else ABSENT_BITS, np.uint64)
        values = bits.view(np.float64)
        values[:_REPORT] = (0.0, duration_s, samples, samples, 0.0)
        self._live = False
        self._note("down", duration_s, fault)
        return values

    def _batch(self, values: Floats, interval_ms: int) -> Batch:
        return Batch(
            organization=self.target.app.organization,
            target=self.name,
            timestamp_ms=self._last_ms,
            layout=self._layout,
            values=values,
            interval_ms=interval_ms,
        )

    def _note(self, health: str, duration_s: float, fault: str = "") -> None:
        self.state = replace(
            self.state,
            health=health,
            since_ms=self.state.since_ms if self.state.health == health else self._last_ms,
            last_scrape_ms=self._last_ms,
            duration_s=duration_s,
            samples=0,
            refused=0,
            duplicates=0,
            beyond=0,
            last_error=fault,
            last_warning="",
        )


def described(targets: Iterable[ScrapeTarget], families_max: int) -> dict[str, Metadata]:
    """What is known of the metrics of these targets; of two that differ the first one's word counts."""
    known: dict[str, Metadata] = {}
    for target in targets:
        for name, metadata in target.metadata.items():
            if len(known) >= families_max:
                return known
            if not is_reserved(name):
                known.setdefault(name, metadata)
    return known


def forced_labels(target: Target) -> dict[str, str]:
    """Where the series come from. An instance with several metrics endpoints has them told apart, else their reports
    would be the same series."""
    labels = {
        "app": target.app.name,
        "region": target.instance.region,
        "host": target.instance.worker_host,
        "instance": target.instance.id,
    }
    if _has_several(target):
        labels["endpoint"] = _endpoint(target)
    return labels


def target_name(target: Target) -> str:
    """Its name in the store, the same after every start."""
    name = f"scrape/{target.app.name}/{target.instance.id}"
    return f"{name}{_endpoint(target)}" if _has_several(target) else name


def _has_several(target: Target) -> bool:
    """Does its instance have other endpoints too? Those of other process groups are not its own."""
    return len(endpoints_of(target.app, target.instance)) > 1


def _endpoint(target: Target) -> str:
    return f":{target.endpoint.port or target.instance.port}{target.endpoint.path}"


def _bounds(limits: ScrapeLimits) -> Bounds:
    return Bounds(
        samples=limits.samples,
        labels=limits.labels,
        label_name_characters=limits.label_name_characters,
        label_value_characters=limits.label_value_characters,
        lines=limits.lines,
    )
