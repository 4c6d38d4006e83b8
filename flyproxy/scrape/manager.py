"""Which targets exist, and their beats.

A beat is a moment at which the targets of one cohort are scraped, all stamped with its nominal time: so their frames
share their time stamps. A beat waits for none: a target that is not done when its next beat comes misses that one by
itself. What is done within a moment is handed over as one list (one transaction), a slow target later; until then it is
not scraped again, so a store that stands still is not buried in batches.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp

from flyproxy.clock import Clock
from flyproxy.config.resolved import Telemetry
from flyproxy.discovery.static import Generation, Target
from flyproxy.scrape.cohorts import Cohort, cohorts_of, next_beat
from flyproxy.scrape.fetch import open_session
from flyproxy.scrape.large_pages import LargePages
from flyproxy.scrape.target import OwnCounts, ScrapeTarget, TargetState, described, forced_labels, target_name
from flyproxy.scrape.turns import Turns
from flyproxy.series.metadata import Metadata
from flyproxy.series.samples import Batch

FLUSH_S = 0.5
"""What is not done by then does not hold up the others; less when the interval is short."""
FLUSH_SHARE = 0.25
"""Of the interval."""
SCRAPES_AT_ONCE_MAX = 256
"""More targets wait for their turn."""
RESERVED_SCRAPES = 64
"""Of these, for targets whose last scrape went well."""
METADATA_FAMILIES_MAX = 20_000
"""Of one organization."""

_LOG = logging.getLogger("flyproxy.scrape")
Append = Callable[[Sequence[Batch]], Awaitable[object]]
_Identity = tuple[str, str, str, tuple[tuple[str, str], ...]]


class ScrapeManager:
    """Scrapes the targets of the generation in force, from the first `update` until `stop`."""

    def __init__(self, clock: Clock, append: Append, own: OwnCounts) -> None:
        self._clock = clock
        self._append = append
        self._own = own
        self._targets: dict[_Identity, ScrapeTarget] = {}
        self._interval_ms = 15_000
        self._first_zero = True
        self._cohorts: Sequence[Cohort[ScrapeTarget]] = ()
        self._turns = Turns(SCRAPES_AT_ONCE_MAX, RESERVED_SCRAPES)
        self._pages = LargePages()
        self._changed = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.Task[None] | None = None
        self._beats: set[asyncio.Task[None]] = set()

    async def update(self, generation: Generation, telemetry: Telemetry) -> None:
        """Take over a generation: targets that stay keep their state, those that are gone end in the store. The first
        call starts the beats."""
        self._interval_ms = max(1, round(telemetry.scrape_interval_s * 1000))
        self._first_zero = telemetry.first_zero
        wanted = {_identity(target): target for target in generation.targets}
        gone = [self._targets.pop(identity) for identity in list(self._targets) if identity not in wanted]
        for identity, target in wanted.items():
            if identity not in self._targets:
                self._targets[identity] = ScrapeTarget(target, self._clock, self._own, self._pages)
            self._targets[identity].adjust(self._interval_ms, telemetry.scrape_limits)
        self._cohorts = cohorts_of({_key(target): target for target in self._targets.values()}, self._interval_ms)
        await self._end(gone)
        self._count_states()
        self._changed.set()
        if self._loop is None:
            self._loop = asyncio.create_task(self._beat_on(), name="scrape beat")

    async def stop(self) -> None:
        """The beats end, and with them every series of every target."""
        running = [*self._beats, *([] if self._loop is None else [self._loop])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._loop = None
        gone, self._targets, self._cohorts = list(self._targets.values()), {}, ()
        await self._end(gone)
        self._pages.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def beat(self, timestamp_ms: int, targets: Sequence[ScrapeTarget] | None = None) -> None:
        """Scrape these targets (or all) once, stamped with this time; ends when all are done and handed over."""
        if self._session is None:
            self._session = open_session()
        free = [target for target in (self._targets.values() if targets is None else targets) if not target.busy]
        running: dict[asyncio.Task[list[Batch]], ScrapeTarget] = {}
        for target in free:
            target.busy = True
            running[asyncio.create_task(self._scraped(target, self._session, timestamp_ms))] = target
        flush_s = min(FLUSH_S, self._interval_ms / 1000 * FLUSH_SHARE)
        try:
            while running:
                done, _ = await asyncio.wait(running, timeout=flush_s)
                await self._hand_over([batch for task in done for batch in task.result()])
                for task in done:
                    running.pop(task).busy = False
                self._count_states()
        finally:
            for task, target in running.items():
                task.cancel()
                target.busy = False

    def targets(self, organization: str | None = None) -> list[TargetState]:
        """The state of every target, of one organization or of all, by app, instance and URL."""
        return [target.state for target in self._sorted(organization)]

    def metadata(self, organization: str) -> Mapping[str, Metadata]:
        """What the last pages of an organization's targets say about their metrics, by name."""
        return described(self._sorted(organization), METADATA_FAMILIES_MAX)

    def _sorted(self, organization: str | None) -> list[ScrapeTarget]:
        return sorted(
            (target for target in self._targets.values() if organization in (None, target.state.organization)),
            key=lambda target: (target.state.app, target.state.instance, target.state.url),
        )

    async def _scraped(self, target: ScrapeTarget, session: aiohttp.ClientSession, timestamp_ms: int) -> list[Batch]:
        """Nothing when the target ended meanwhile: its last word is written."""
        turn = await self._turns.take(target.trusted)
        try:
            batch = await target.scrape(session, timestamp_ms)
        except Exception:
            _LOG.exception("scraping %s failed", target.name)
            return []
        finally:
            turn.leave()
        if target.ended:
            return []
        return [target.zeros, batch] if target.zeros is not None and self._first_zero else [batch]

    async def _end(self, gone: Sequence[ScrapeTarget]) -> None:
        now_ms = self._clock.now_ms()
        last = [target.end(now_ms, self._interval_ms) for target in gone]
        await self._hand_over([batch for batch in last if batch is not None])

    async def _hand_over(self, batches: Sequence[Batch]) -> None:
        if batches:
            await self._append(batches)

    async def _beat_on(self) -> None:
        """Every beat of every cohort; one that is missed is not made up for."""
        last_ms = 0
        while True:
            now_ms = self._clock.now_ms()
            if last_ms - now_ms > self._interval_ms:  # the machine's clock was set back
                last_ms = 0
            due_ms, cohorts = next_beat(self._cohorts, self._interval_ms, max(now_ms, last_ms))
            if await self._woken_before(due_ms - now_ms):
                continue
            last_ms = due_ms
            for cohort in cohorts:
                self._begin(cohort, due_ms)

    def _begin(self, cohort: Cohort[ScrapeTarget], due_ms: int) -> None:
        missed = sum(target.busy for target in cohort.members)
        if missed:
            self._own.count("flyproxy_scrapes_missed_total", missed)
        beat = asyncio.create_task(self._beat_safely(due_ms, cohort.members), name="scrapes of a beat")
        self._beats.add(beat)
        beat.add_done_callback(self._beats.discard)

    async def _beat_safely(self, due_ms: int, targets: Sequence[ScrapeTarget]) -> None:
        try:
            await self.beat(due_ms, targets)
        except Exception:
            _LOG.exception("a scrape beat failed")

    async def _woken_before(self, delay_ms: int) -> bool:
        """Wait; True when the generation (and maybe the interval) changed first."""
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def _count_states(self) -> None:
        health = Counter(target.state.health for target in self._targets.values())
        for state in ("up", "down", "unknown"):
            self._own.set("flyproxy_scrape_targets", health[state], state=state)


def _key(target: ScrapeTarget) -> str:
    return f"{target.state.organization}/{target.name}"


def _identity(target: Target) -> _Identity:
    """What makes it the same target in the next generation, whatever else changed about its app."""
    return target.app.organization, target_name(target), target.url, tuple(forced_labels(target).items())
