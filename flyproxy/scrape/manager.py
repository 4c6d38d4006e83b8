"""Which targets exist, and their beat.

All targets are scraped on the same beat and stamped with its nominal time, a multiple of the interval: so their frames
share their time stamps. What is done within FLUSH_S is handed over as one list (one transaction), a slow target later.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from flyproxy import __version__
from flyproxy.clock import Clock
from flyproxy.config.resolved import Telemetry
from flyproxy.discovery.static import Generation, Target
from flyproxy.scrape.target import OwnCounts, ScrapeTarget, TargetState, forced_labels, target_name
from flyproxy.series.samples import Batch

FLUSH_S = 0.5
"""What is not done by then does not hold up the others."""
SCRAPES_AT_ONCE_MAX = 128
"""More targets wait for their turn within the beat."""
KEEPALIVE_S = 90.0
HEADER_BYTES_MAX = 16 * 1024
"""One header line of a target's answer."""

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
        self._turns = asyncio.Semaphore(SCRAPES_AT_ONCE_MAX)
        self._changed = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.Task[None] | None = None

    async def update(self, generation: Generation, telemetry: Telemetry) -> None:
        """Take over a generation: targets that stay keep their state, those that are gone end in the store. The first
        call starts the beat."""
        self._interval_ms = max(1, round(telemetry.scrape_interval_s * 1000))
        self._first_zero = telemetry.first_zero
        wanted = {_identity(target): target for target in generation.targets}
        gone = [self._targets.pop(identity) for identity in list(self._targets) if identity not in wanted]
        await self._end(gone)
        for identity, target in wanted.items():
            if identity not in self._targets:
                self._targets[identity] = ScrapeTarget(target, self._clock, self._own)
        self._count_states()
        self._changed.set()
        if self._loop is None:
            self._loop = asyncio.create_task(self._beat_on(), name="scrape beat")

    async def stop(self) -> None:
        """The beat ends, and with it every series of every target."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None
        gone, self._targets = list(self._targets.values()), {}
        await self._end(gone)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def beat(self, timestamp_ms: int) -> None:
        """Scrape every target once, stamped with this time; ends when all are done."""
        session = self._opened_session()
        running = {
            asyncio.create_task(self._scraped(target, session, timestamp_ms)) for target in self._targets.values()
        }
        try:
            while running:
                done, running = await asyncio.wait(running, timeout=FLUSH_S)
                await self._hand_over([batch for task in done for batch in task.result()])
                self._count_states()
        finally:
            for task in running:
                task.cancel()

    def targets(self, organization: str | None = None) -> list[TargetState]:
        """The state of every target, of one organization or of all, by app, instance and URL."""
        states = [target.state for target in self._targets.values()]
        return sorted(
            (state for state in states if organization in (None, state.organization)),
            key=lambda state: (state.app, state.instance, state.url),
        )

    async def _scraped(self, target: ScrapeTarget, session: aiohttp.ClientSession, timestamp_ms: int) -> list[Batch]:
        """Nothing when the target ended meanwhile: its last word is written."""
        async with self._turns:
            try:
                batch = await target.scrape(session, timestamp_ms, self._interval_ms)
            except Exception:
                _LOG.exception("scraping %s failed", target.name)
                return []
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
        """Every multiple of the interval; one that is missed is not made up for."""
        last_ms = 0
        while True:
            now_ms = self._clock.now_ms()
            due_ms = (now_ms // self._interval_ms + 1) * self._interval_ms
            if due_ms == last_ms:  # woken a moment before it was due
                due_ms += self._interval_ms
            if await self._woken_before(due_ms - now_ms):
                continue
            last_ms = due_ms
            try:
                await self.beat(due_ms)
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

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"User-Agent": f"flyproxy/{__version__}"},
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
                max_field_size=HEADER_BYTES_MAX,
            )
        return self._session

    def _count_states(self) -> None:
        health = Counter(target.state.health for target in self._targets.values())
        for state in ("up", "down", "unknown"):
            self._own.set("flyproxy_scrape_targets", health[state], state=state)


def _identity(target: Target) -> _Identity:
    """What makes it the same target in the next generation, whatever else changed about its app."""
    return target.app.organization, target_name(target), target.url, tuple(forced_labels(target).items())
