"""One target: fetch its page, make it a batch, and say how it went.

A page becomes one batch: the report (`up`, `scrape_*`) and the app's series. Series that are no longer on the page are
no longer in the layout, which ends them in the store. A scrape that fails writes `up` 0 and ends all of the app's
series by stale markers; while it goes on failing it says nothing about them.

On a target's first page only counters that say they are new are called counters to the store (births.py has the why);
from the second page on all are.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

import aiohttp
import numpy as np

from flyproxy.clock import Clock
from flyproxy.discovery.static import Target
from flyproxy.scrape.births import created_between
from flyproxy.scrape.fetch import BODY_BYTES_MAX, Fetched, FetchError, fetch
from flyproxy.scrape.labelling import REPORT_NAMES, Labelled, Labelling
from flyproxy.series.exposition_parser import Bounds, ExpositionError, ExpositionLimitError, Page, Reader
from flyproxy.series.frame import ABSENT_BITS, STALE_BITS
from flyproxy.series.samples import Batch, Floats, Layout

INLINE_BYTES = 64 * 1024
"""A page larger than this is read on a thread, so that the loop goes on answering."""
SCRAPE_TIMEOUT_S = 10.0
"""Of one scrape, connecting included; at most the interval."""

_REPORT = len(REPORT_NAMES)
_LIMITS = {"samples": "scrape_samples", "labels": "scrape_labels"}
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
    last_error: str = ""


class ScrapeTarget:
    """The state of one target between its scrapes."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        own: OwnCounts,
        *,
        bounds: Bounds | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self.target = target
        self.name = target_name(target)
        self.ended = False
        self.zeros: Batch | None = None
        """With the first page: the row one beat earlier, in which counters that began since were still 0."""
        self._clock = clock
        self._own = own
        self._body_bytes_max = body_bytes_max
        self._reader = Reader(bounds)
        self._labelling = Labelling(forced_labels(target))
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
        )

    async def scrape(self, session: aiohttp.ClientSession, timestamp_ms: int, interval_ms: int) -> Batch:
        """One scrape, stamped with the beat's time; a failed one is a batch too."""
        begun_ns = self._clock.monotonic_ns()
        timeout_s = min(SCRAPE_TIMEOUT_S, interval_ms / 1000)
        read: tuple[Page, Labelled] | None = None
        fault = ""
        try:
            fetched = await fetch(session, self.target.url, timeout_s, self._body_bytes_max)
            if len(fetched.body) > INLINE_BYTES:
                read = await asyncio.to_thread(self._read, fetched)
            else:
                read = self._read(fetched)
        except FetchError as error:
            fault = str(error)
            if error.limit:
                self._own.limit_reached(error.limit)
        except ExpositionLimitError as error:
            fault = str(error)
            self._own.limit_reached(_LIMITS[error.limit])
        except ExpositionError as error:
            fault = str(error)
        duration_s = (self._clock.monotonic_ns() - begun_ns) / 1e9
        self._last_ms = timestamp_ms
        self.zeros = None
        if read is None:
            if not self._paged and self._down_since_ms is None:
                self._down_since_ms = timestamp_ms
            return self._batch(self._failed(fault, duration_s), interval_ms)
        page, labelled = read
        batch = self._batch(self._succeeded(page, labelled, duration_s), interval_ms)
        if self._paged:
            return batch
        self._paged = True
        return self._first(batch, page, labelled)

    def _read(self, fetched: Fetched) -> tuple[Page, Labelled]:
        page = self._reader.read(fetched.body, openmetrics=fetched.openmetrics)
        return page, self._labelling.of(page)

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
        bits = np.full(len(self._labelling.layout.series), STALE_BITS, np.uint64)
        if not self._live:
            bits[_REPORT:] = ABSENT_BITS
        return self._batch(bits.view(np.float64), interval_ms)

    def _succeeded(self, page: Page, labelled: Labelled, duration_s: float) -> Floats:
        kept = len(labelled.kept)
        values = np.empty(_REPORT + kept)
        added = labelled.added if self._live else kept
        values[:_REPORT] = (1.0, duration_s, len(page.values), kept, added)
        values[_REPORT:] = page.values[labelled.kept]
        self._live = True
        for reason, times in (("reserved_name", labelled.refused), ("duplicate", labelled.duplicates)):
            if times:
                self._own.count("flyproxy_scrape_samples_refused_total", times, reason=reason)
        self._note("up", duration_s, len(page.values), labelled.refused, labelled.duplicates, "")
        return values

    def _failed(self, fault: str, duration_s: float) -> Floats:
        bits = np.full(len(self._labelling.layout.series), STALE_BITS if self._live else ABSENT_BITS, np.uint64)
        values = bits.view(np.float64)
        values[:_REPORT] = (0.0, duration_s, 0.0, 0.0, 0.0)
        self._live = False
        self._note("down", duration_s, 0, 0, 0, fault)
        return values

    def _batch(self, values: Floats, interval_ms: int) -> Batch:
        return Batch(
            organization=self.target.app.organization,
            target=self.name,
            timestamp_ms=self._last_ms,
            layout=self._labelling.layout,
            values=values,
            interval_ms=interval_ms,
        )

    def _note(self, health: str, duration_s: float, samples: int, refused: int, duplicates: int, fault: str) -> None:
        before = self.state
        self.state = TargetState(
            organization=before.organization,
            app=before.app,
            instance=before.instance,
            region=before.region,
            url=before.url,
            health=health,
            since_ms=before.since_ms if before.health == health else self._last_ms,
            last_scrape_ms=self._last_ms,
            duration_s=duration_s,
            samples=samples,
            refused=refused,
            duplicates=duplicates,
            last_error=fault,
        )


def forced_labels(target: Target) -> dict[str, str]:
    """Where the series come from. An app with several metrics endpoints has them told apart, else their reports
    would be the same series."""
    labels = {
        "app": target.app.name,
        "region": target.instance.region,
        "host": target.instance.worker_host,
        "instance": target.instance.id,
    }
    if len(target.app.metrics) > 1:
        labels["endpoint"] = _endpoint(target)
    return labels


def target_name(target: Target) -> str:
    """Its name in the store, the same after every start."""
    name = f"scrape/{target.app.name}/{target.instance.id}"
    return f"{name}{_endpoint(target)}" if len(target.app.metrics) > 1 else name


def _endpoint(target: Target) -> str:
    return f":{target.endpoint.port or target.instance.port}{target.endpoint.path}"
